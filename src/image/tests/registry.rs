//! Pulls from a real registry, of images made by other tools.

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use crisp_image::ImageError;
use crisp_model::ContainerId;
use support::{Registry, config, make_image, open};

#[tokio::test(flavor = "multi_thread")]
async fn pull_list_use_and_remove() {
    let root = tempfile::tempdir().expect("folder");
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    std::fs::create_dir_all(one.join("etc")).expect("folder");
    std::fs::write(one.join("etc/name"), "below").expect("file");
    std::fs::set_permissions(one.join("etc/name"), std::fs::Permissions::from_mode(0o4755)).expect("mode");
    std::os::unix::fs::symlink("name", one.join("etc/link")).expect("link");
    std::fs::create_dir_all(two.join("usr")).expect("folder");
    std::fs::write(two.join("usr/more"), "above").expect("file");
    let layout = make_image(root.path(), &[&one, &two]);
    let registry = Registry::start("");
    registry.push(&layout, "latest", "a/b:1", &[]);
    registry.push(&layout, "latest", "a/b:docker", &["--format", "v2s2"]);

    let store = open(root.path()).await;
    let name = format!("{}/a/b", registry.address());
    let image = store.pull(&format!("{name}:1"), None).await.expect("pull");
    assert_eq!(image.repo_tags, [format!("{name}:1")]);
    assert_eq!(image.repo_digests.len(), 1);
    let docker = store.pull(&format!("{name}:docker"), None).await.expect("pull");
    assert_eq!(store.list().len(), if docker.id == image.id { 1 } else { 2 });

    // All names lead to one image.
    let short = &image.id[7..20];
    for text in [&image.id, &image.id[7..], short, &format!("{name}:1"), &image.repo_digests[0]] {
        assert_eq!(store.resolve(text).map(|i| i.id.clone()), Some(image.id.clone()), "{text}");
    }
    assert!(store.resolve(&format!("{name}:2")).is_none());

    // By digest: no tag comes with it.
    let digest = image.repo_digests[0].clone();
    store.remove(&image.id).await.expect("remove");
    store.remove(&docker.id).await.expect("remove");
    assert!(store.list().is_empty());
    let by_digest = store.pull(&digest, None).await.expect("pull");
    assert_eq!((by_digest.repo_tags.len(), by_digest.repo_digests.clone()), (0, vec![digest]));

    // A container's root file system.
    let container = ContainerId::random();
    let rootfs = store.prepare_rootfs(&by_digest.id, &container, "/run/x".into()).await.expect("rootfs");
    assert_eq!(rootfs.lower.len(), 2);
    assert_eq!(std::fs::read_to_string(rootfs.lower[1].join("etc/name")).expect("file"), "below");
    assert_eq!(std::fs::metadata(rootfs.lower[1].join("etc/name")).expect("stat").mode() & 0o7777, 0o4755);
    assert_eq!(std::fs::read_to_string(rootfs.lower[0].join("usr/more")).expect("file"), "above");
    assert!(rootfs.upper.is_dir() && rootfs.work.is_dir());
    assert_eq!(std::fs::metadata(&rootfs.upper).expect("stat").mode() & 0o7777, 0o755);

    // The image goes, its layers stay while they are used: also over a restart.
    store.remove(&by_digest.id).await.expect("remove");
    drop((image, docker, by_digest, store));
    let (store, report) = crisp_image::ImageStore::open(config(root.path())).await.expect("open again");
    assert_eq!((report.images, report.containers.clone()), (0, vec![container.clone()]));
    assert!(report.damaged.is_empty(), "{report:?}");
    assert!(rootfs.lower[1].join("etc/name").exists());
    assert!(store.usage().bytes > 0);
    store.release_rootfs(&container).await.expect("release");
    store.release_rootfs(&container).await.expect("release again");
    assert!(!rootfs.lower[1].exists() && !rootfs.upper.exists());
    assert_eq!((store.usage().bytes, store.usage().inodes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whiteouts_in_overlayfs_form_and_missing_images() {
    let root = tempfile::tempdir().expect("folder");
    let one = root.path().join("one");
    std::fs::create_dir_all(one.join("gone")).expect("folder");
    std::fs::write(one.join("gone/file"), "x").expect("file");
    let layout = make_image(root.path(), &[&one]);
    let tag = format!("{}:latest", layout.display());
    support::run(std::process::Command::new("umoci").args([
        "insert",
        "--image",
        &tag,
        "--whiteout",
        "/gone",
    ]));
    let registry = Registry::start("");
    registry.push(&layout, "latest", "w:latest", &["--dest-compress-format", "zstd", "--dest-compress"]);

    let store = open(root.path()).await;
    let image = store.pull(&format!("{}/w", registry.address()), None).await.expect("pull");
    let container = ContainerId::random();
    let rootfs = store.prepare_rootfs(&image.id, &container, "/run/x".into()).await.expect("rootfs");
    let whiteout = std::fs::symlink_metadata(rootfs.lower[0].join("gone")).expect("whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);

    let missing = store.pull(&format!("{}/w:absent", registry.address()), None).await;
    assert!(matches!(missing, Err(ImageError::NotFound { .. })), "{missing:?}");
    let nowhere = store.pull(&format!("127.0.0.1:{}/x", support::free_port()), None).await;
    assert!(matches!(nowhere, Err(ImageError::Unavailable { .. })), "{nowhere:?}");
}
