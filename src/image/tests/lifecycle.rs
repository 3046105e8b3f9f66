//! Stores over time: import and export, damage and repair, crashes, full disks, and everything at once.

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crisp_image::{ImageError, ImageStore};
use crisp_model::ContainerId;
use proptest::prelude::*;
use support::{config, fake, fake::Fake, open, run};

#[tokio::test(flavor = "multi_thread")]
async fn export_and_import_keep_the_image() {
    let registry = Fake::start();
    registry.add("a/one", &[fake::layer("below", 30_000), fake::layer("above", 2_000)]);
    registry.add("two", &[fake::layer("below", 30_000)]);
    let root = tempfile::tempdir().expect("folder");
    let store = open(root.path()).await;
    let names = ["a/one", "two"].map(|name| format!("{}/{name}:latest", registry.address()));
    let mut ids = Vec::new();
    for name in &names {
        ids.push(store.pull(name, None).await.expect("pull").id.clone());
    }
    let archive = root.path().join("images.tar");
    store.export(&names, std::fs::File::create(&archive).expect("create")).await.expect("export");

    // Other tools can read it, and write it in other forms.
    let inspected = run(Command::new("skopeo").arg("inspect").arg(format!(
        "docker-archive:{}:{}",
        archive.display(),
        names[0]
    )));
    assert!(inspected.contains("\"Layers\""), "{inspected}");
    let saved = root.path().join("saved.tar");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .arg(format!("docker-archive:{}:{}", archive.display(), names[0]))
        .arg(format!("docker-archive:{}:{}", saved.display(), names[0])));
    let layout = root.path().join("oci");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .arg(format!("docker-archive:{}:{}", archive.display(), names[0]))
        .arg(format!("oci:{}:v1", layout.display())));
    let zipped = root.path().join("zipped.tar.gz");
    run(Command::new("sh").args(["-c", &format!("gzip -c {} > {}", saved.display(), zipped.display())]));

    for (number, path, count) in [(0, &archive, 2), (1, &saved, 1), (2, &zipped, 1), (3, &layout, 1)] {
        let other = root.path().join(format!("other-{number}"));
        let store = open(&other).await;
        let base = (number == 3).then_some("example.com/base");
        let images = store.import(path, base).await.unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(images.len(), count, "{path:?}");
        // skopeo writes the configuration anew when it makes an OCI image of a Docker one.
        assert!(number == 3 || images.iter().all(|image| ids.contains(&image.id)), "{path:?}");
        let name = if number == 3 { "example.com/base:v1" } else { &names[0] };
        assert!(store.resolve(name).is_some(), "{path:?}: {:?}", images[0].repo_tags);
        let report = store.verify(false).await.expect("verify");
        assert!(report.damaged.is_empty() && report.good_layers > 0, "{report:?}");
        assert_eq!(std::fs::read_dir(other.join("images/tmp")).expect("tmp").count(), 0);
    }
    let nothing = store.import(&root.path().join("images"), None).await;
    assert!(matches!(nothing, Err(ImageError::Unsupported { .. })), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_repaired() {
    let registry = Fake::start();
    registry.add("image", &[fake::layer("one", 30_000), fake::layer("two", 2_000)]);
    let root = tempfile::tempdir().expect("folder");
    let store = open(root.path()).await;
    let name = format!("{}/image", registry.address());
    let id = store.pull(&name, None).await.expect("pull").id.clone();
    let container = ContainerId::random();
    let rootfs = store.prepare_rootfs(&id, &container, PathBuf::new()).await.expect("rootfs");
    // What a power loss does to other stores: an empty file in a layer recorded as good.
    std::fs::write(rootfs.lower[1].join("one"), "").expect("harm");
    let report = store.verify(false).await.expect("verify");
    assert_eq!((report.damaged.len(), report.good_layers), (1, 1), "{report:?}");
    assert!(
        report.damaged[0].why.contains("too short") && report.damaged[0].images == [id.clone()],
        "{report:?}"
    );
    let report = store.verify(true).await.expect("repair");
    assert_eq!(report.repaired, std::slice::from_ref(&id));
    assert!(store.verify(false).await.expect("verify").damaged.is_empty());
    assert_eq!(store.resolve(&name).map(|image| image.id.clone()), Some(id.clone()));

    // A layer that has vanished, or an image's record: gone at the next start, and pulled again.
    store.release_rootfs(&container).await.expect("release");
    drop(store);
    let first = std::fs::read_dir(root.path().join("images/layers"))
        .expect("list")
        .next()
        .expect("a layer")
        .expect("entry");
    std::fs::remove_file(first.path().join("layer.json")).expect("harm");
    let (store, report) = ImageStore::open(config(root.path())).await.expect("open");
    assert_eq!(report.damaged.len(), 2, "{report:?}");
    assert!(store.list().is_empty());
    store.pull(&name, None).await.expect("pull again");
    assert!(store.verify(false).await.expect("verify").damaged.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_without_entries_look_as_below() {
    let root = tempfile::tempdir().expect("folder");
    let tree = root.path().join("tree");
    std::fs::create_dir_all(tree.join("tmp/inner")).expect("folders");
    std::fs::write(tree.join("tmp/inner/file"), "x").expect("file");
    run(Command::new("chmod").arg("1777").arg(tree.join("tmp")));
    run(Command::new("chown").arg("7:8").arg(tree.join("tmp/inner")));
    let pack = |names: &[&str]| {
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&tree)
            .args(["--no-recursion", "-cf", "-"])
            .args(names)
            .output()
            .expect("tar");
        (packed.stdout.clone(), packed.stdout)
    };
    let registry = Fake::start();
    // The upper layer names the file only.
    registry.add("image", &[pack(&[".", "tmp", "tmp/inner"]), pack(&["tmp/inner/file"])]);
    let store = open(root.path()).await;
    let image = store.pull(&format!("{}/image", registry.address()), None).await.expect("pull");
    let container = ContainerId::random();
    let rootfs = store.prepare_rootfs(&image.id, &container, PathBuf::new()).await.expect("rootfs");
    let describe =
        |path: &str| run(Command::new("stat").args(["-c", "%a %u %g"]).arg(rootfs.upper.join(path)));
    assert_eq!((describe("tmp").trim(), describe("tmp/inner").trim()), ("1777 0 0", "755 7 8"));

    // Volumes: paths inside the image, over links, and never outside.
    let volume = store.prepare_volume(&image.id, &container, "tmp/../tmp/inner").await.expect("volume");
    assert_eq!((volume.sub_path, volume.lower.len()), (PathBuf::from("tmp/inner"), 2));
    for bad in ["..", "tmp/../..", "/tmp", "missing", "tmp/inner/file/x"] {
        assert!(store.prepare_volume(&image.id, &container, bad).await.is_err(), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_fifty_moments() {
    let registry = Fake::start();
    let layers: Vec<_> = (0..4).map(|n| fake::layer(&format!("layer-{n}"), 600_000)).collect();
    registry.add("image", &layers);
    let name = format!("{}/image", registry.address());
    let root = tempfile::tempdir().expect("folder");
    let start_pull = |folder: &Path| {
        Command::new(support::example())
            .arg(folder)
            .arg(&name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pull")
    };
    let whole = Instant::now();
    assert!(start_pull(&root.path().join("calm")).wait().expect("wait").success());
    let whole = whole.elapsed();
    let mut interrupted = 0;
    for moment in 0..50 {
        let folder = root.path().join("killed");
        let mut child = start_pull(&folder);
        // Evenly over the run and a little beyond; the machine's noise makes the moments random.
        tokio::time::sleep(whole.mul_f64(f64::from(moment) / 45.0)).await;
        child.kill().expect("kill");
        interrupted += i32::from(!child.wait().expect("wait").success());
        let (store, report) = ImageStore::open(config(&folder)).await.expect("open");
        assert!(report.damaged.is_empty(), "moment {moment}: {report:?}");
        let checked = store.verify(false).await.expect("verify");
        assert!(checked.damaged.is_empty(), "moment {moment}: {checked:?}");
        let image = store.pull(&name, None).await.expect("a good pull");
        let checked = store.verify(false).await.expect("verify");
        assert_eq!((checked.damaged.len(), checked.good_layers), (0, 4), "moment {moment}");
        store.remove(&image.id).await.expect("remove");
        drop(image);
        assert_eq!(std::fs::read_dir(folder.join("images/layers")).expect("layers").count(), 0);
        assert_eq!(std::fs::read_dir(folder.join("images/index")).expect("index").count(), 0);
    }
    assert!(interrupted >= 20, "only {interrupted} pulls were interrupted");
}

/// A small file system in memory; gone when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&path).expect("folder");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "crisp-test"])
            .arg(&path));
        Self(path)
    }

    fn resize(&self, size: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Removing returns before the files are gone; a pull that needs their place must not fail by that.
#[tokio::test(flavor = "multi_thread")]
async fn removed_images_make_room() {
    let registry = Fake::start();
    let root = tempfile::tempdir().expect("folder");
    for name in ["one", "two"] {
        let tree = root.path().join(name);
        std::fs::create_dir(&tree).expect("folder");
        for n in 0..3000 {
            std::fs::write(tree.join(n.to_string()), name).expect("file");
        }
        let packed =
            Command::new("tar").arg("-C").arg(root.path()).args(["-cf", "-", name]).output().expect("tar");
        registry.add(name, &[(packed.stdout.clone(), packed.stdout)]);
    }
    // A file takes a page of 4 KiB: there is room for one of the two.
    let disk = Tmpfs::new(root.path().join("disk"), "18m");
    let store = open(&disk.0).await;
    for round in 0..8 {
        let name = format!("{}/{}", registry.address(), if round % 2 == 0 { "one" } else { "two" });
        let image = store.pull(&name, None).await.unwrap_or_else(|e| panic!("round {round}: {e}"));
        store.remove(&image.id).await.expect("remove");
    }
    drop(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_in_each_phase() {
    let registry = Fake::start();
    registry.add("image", &[fake::layer("one", 500_000), fake::layer("two", 200_000)]);
    let name = format!("{}/image", registry.address());
    let root = tempfile::tempdir().expect("folder");
    let disk = Tmpfs::new(root.path().join("disk"), "64k");
    let store = open(&disk.0).await;
    let mut full = 0;
    // From no room for a folder to room for all but the record.
    for pages in (16..=184).step_by(8) {
        disk.resize(&format!("{}k", pages * 4));
        match store.pull(&name, None).await {
            Ok(_) => break,
            Err(ImageError::NoSpace { .. }) => full += 1,
            Err(other) => panic!("{pages} pages: {other}"),
        }
        assert!(store.list().is_empty());
        let until = Instant::now() + Duration::from_secs(10);
        while std::fs::read_dir(disk.0.join("images/trash")).expect("trash").count() > 0 {
            assert!(Instant::now() < until, "the trash is not emptied");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(full >= 10, "the disk was full only {full} times");
    disk.resize("8m");
    store.pull(&name, None).await.expect("with room");
    assert!(store.verify(false).await.expect("verify").damaged.is_empty());
    drop(store);
}

#[derive(Debug, Clone)]
enum Step {
    Pull(usize),
    CancelledPull(usize, u64),
    Remove(usize),
    Prepare(usize, usize),
    Release(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..3).prop_map(Step::Pull),
        2 => (0usize..3, 0u64..20).prop_map(|(image, delay)| Step::CancelledPull(image, delay)),
        3 => (0usize..3).prop_map(Step::Remove),
        3 => (0usize..3, 0usize..3).prop_map(|(image, container)| Step::Prepare(image, container)),
        2 => (0usize..3).prop_map(Step::Release),
        1 => Just(Step::Restart),
    ]
}

/// Several steps at a time, then everything is checked.
async fn interleave(registry: &Fake, rounds: &[Vec<Step>]) {
    let root = tempfile::tempdir().expect("folder");
    let names = ["one", "two", "three"].map(|name| format!("{}/{name}", registry.address()));
    let containers: [ContainerId; 3] = std::array::from_fn(|_| ContainerId::random());
    let mut store = open(root.path()).await;
    for round in rounds {
        let restart = round.iter().any(|step| matches!(step, Step::Restart));
        let work = round.iter().map(|step| one(&store, step, &names, &containers));
        futures::future::join_all(work).await;
        if restart {
            drop(store);
            let (opened, report) = reopen(root.path()).await;
            assert!(report.damaged.is_empty(), "{report:?}");
            store = opened;
        }
        let report = store.verify(false).await.expect("verify");
        assert!(report.damaged.is_empty(), "{report:?}");
    }
    for name in &names {
        store.remove(name).await.expect("remove");
    }
    for container in &containers {
        store.release_rootfs(container).await.expect("release");
    }
    assert_eq!((store.list().len(), store.usage().bytes, store.usage().inodes), (0, 0, 0));
    assert_eq!(std::fs::read_dir(root.path().join("images/layers")).expect("layers").count(), 0);
}

/// The old store lives until the last cancelled download has noticed.
async fn reopen(root: &Path) -> (ImageStore, crisp_image::OpenReport) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match ImageStore::open(config(root)).await {
            Ok(opened) => return opened,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn one(store: &ImageStore, step: &Step, names: &[String; 3], containers: &[ContainerId; 3]) {
    match step {
        Step::Pull(image) => drop(store.pull(&names[*image], None).await.expect("pull")),
        Step::CancelledPull(image, delay) => {
            let _ =
                tokio::time::timeout(Duration::from_millis(*delay), store.pull(&names[*image], None)).await;
        }
        Step::Remove(image) => store.remove(&names[*image]).await.expect("remove"),
        Step::Prepare(image, container) => {
            match store.prepare_rootfs(&names[*image], &containers[*container], PathBuf::new()).await {
                Ok(rootfs) => drop(rootfs),
                Err(ImageError::NotFound { .. }) => {}
                // Released at the same time: the folder moved away in between.
                Err(ImageError::Host { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        Step::Release(container) => store.release_rootfs(&containers[*container]).await.expect("release"),
        Step::Restart => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 12, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn nothing_meets_half_way(rounds in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..8)) {
        let registry = Fake::start();
        let shared = fake::layer("shared", 60_000);
        for name in ["one", "two", "three"] {
            registry.add(name, &[shared.clone(), fake::layer(name, 20_000)]);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        runtime.block_on(interleave(&registry, &rounds));
    }
}
