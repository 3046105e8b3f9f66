//! Whether the kernel shows in a mounted image what the image says.

mod support;

use std::{
    collections::BTreeMap,
    ffi::CString,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Command,
};

use crisp_host::mount::{NewFilesystem, attach};
use crisp_image::ImageError;
use crisp_model::ContainerId;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use support::{fake::Fake, open};

/// Mounts layers (topmost first) below an upper and a work folder, if there are any, where nobody else sees it, and
/// lists what is there: paths with their content, folders with a slash.
fn seen(lower: Vec<PathBuf>, upper: Option<(PathBuf, PathBuf)>, at: PathBuf) -> BTreeMap<String, String> {
    std::fs::create_dir_all(&at).expect("mount point");
    let look = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of this thread");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("private mounts");
        let overlay = NewFilesystem::open(c"overlay").expect("overlay");
        let value = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("path");
        for layer in &lower {
            overlay.set(c"lowerdir+", &value(layer)).expect("lowerdir+");
        }
        if let Some((upper, work)) = &upper {
            overlay.set(c"upperdir", &value(upper)).expect("upperdir");
            overlay.set(c"workdir", &value(work)).expect("workdir");
        }
        attach(overlay.mount(0).expect("mount").as_fd(), &at).expect("attach");
        let mut found = BTreeMap::new();
        list(&at, "", &mut found);
        found
    };
    std::thread::spawn(look).join().expect("the mount")
}

fn list(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("list") {
        let entry = entry.expect("entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("type").is_dir() {
            found.insert(format!("{name}/"), String::new());
            list(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, std::fs::read_to_string(entry.path()).expect("read"));
        }
    }
}

/// A layer with these files; a name that ends in a slash is a folder.
fn layer(files: &[(&str, &str)]) -> (Vec<u8>, Vec<u8>) {
    let tree = tempfile::tempdir().expect("folder");
    for (name, content) in files {
        let path = tree.path().join(name);
        std::fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().expect("folder") })
            .expect("folders");
        if !name.ends_with('/') {
            std::fs::write(path, content).expect("file");
        }
    }
    let packed =
        Command::new("tar").arg("-C").arg(tree.path()).args(["-cf", "-", "."]).output().expect("tar");
    (packed.stdout.clone(), packed.stdout)
}

fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_not_seen() {
    let registry = Fake::start();
    let again = layer(&[("both", "again")]);
    registry.add(
        "image",
        &[
            layer(&[
                ("dir/a", "1"),
                ("dir/b", "1"),
                ("opaque/x", "1"),
                ("opaque/deep/y", "1"),
                ("file", "1"),
                ("swap/in", "1"),
            ]),
            again.clone(),
            layer(&[
                ("both", "other"),
                ("dir/.wh.a", ""),
                ("opaque/.wh..wh..opq", ""),
                ("opaque/z", "2"),
                (".wh.file", ""),
                (".wh.swap", ""),
            ]),
            // A file where a folder was, a folder where a file was, and a name that is there again.
            layer(&[("swap", "3"), ("file/inside", "3"), ("opaque/deep/new", "3")]),
            // Layers come twice, above all empty ones.
            again,
        ],
    );
    let root = tempfile::tempdir().expect("folder");
    let store = open(root.path()).await;
    let image = store.pull(&format!("{}/image", registry.address()), None).await.expect("pull");
    let container = ContainerId::random();
    let whole = expected(&[
        ("both", "again"),
        ("dir/", ""),
        ("dir/b", "1"),
        ("file/", ""),
        ("file/inside", "3"),
        ("opaque/", ""),
        ("opaque/deep/", ""),
        ("opaque/deep/new", "3"),
        ("opaque/z", "2"),
        ("swap", "3"),
    ]);
    let rootfs = store.prepare_rootfs(&image.id, &container, "/run/x".into()).await.expect("rootfs");
    let at = root.path().join("at");
    assert_eq!(seen(rootfs.lower, Some((rootfs.upper, rootfs.work)), at.clone()), whole);
    // As a volume, without anything writable.
    let volume = store.prepare_volume(&image.id, &container, "").await.expect("volume");
    assert_eq!(seen(volume.lower, None, at), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_layers() {
    let registry = Fake::start();
    let layers: Vec<_> = (0..501)
        .map(|n| {
            let number = n.to_string();
            layer(&[(format!("own-{n}").as_str(), number.as_str()), ("shared", number.as_str())])
        })
        .collect();
    registry.add("deep", &layers[..500]);
    registry.add("deeper", &layers);
    let root = tempfile::tempdir().expect("folder");
    let store = open(root.path()).await;
    let image = store.pull(&format!("{}/deep", registry.address()), None).await.expect("pull");
    let rootfs =
        store.prepare_rootfs(&image.id, &ContainerId::random(), "/run/x".into()).await.expect("rootfs");
    let found = seen(rootfs.lower, Some((rootfs.upper, rootfs.work)), root.path().join("at"));
    assert_eq!(found.len(), 501);
    assert_eq!(
        (found["shared"].as_str(), found["own-0"].as_str(), found["own-499"].as_str()),
        ("499", "0", "499")
    );
    // More than the kernel stacks: said at the pull, not at each start of a container.
    let refused = store.pull(&format!("{}/deeper", registry.address()), None).await;
    assert!(matches!(refused, Err(ImageError::TooLarge { limit: 500, unit: "layers", .. })), "{refused:?}");
    assert!(registry.asked(&layers[500].1).is_empty(), "nothing was fetched for it");
}
