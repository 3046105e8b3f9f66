//! Containers in a user namespace.

mod harness;

use std::{fs, os::unix::fs::MetadataExt};

use crisp_model::security::{IdMapping, UserNamespace};
use harness::{Pod, shell};

const FIRST: u32 = 100_000;

async fn pod() -> Pod {
    let map = IdMapping { host_id: FIRST, container_id: 0, length: 65_536 };
    let mut pod = Pod::bare().await;
    pod.start_infra(|infra| infra.user = Some(UserNamespace { uids: vec![map], gids: vec![map] }))
        .await
        .expect("the infra container");
    pod
}

#[tokio::test]
async fn the_root_file_system_is_its_root_s_and_writable() {
    let mut pod = pod().await;
    let script = "set -e; cat /proc/self/uid_map; stat -c %u / /etc/passwd; mkdir /made; echo more:x:9:9::/: >> /etc/passwd; \\
                  touch /file; chown 5:6 /file; ln /file /link; mv /made /moved; rm -r /home; stat -c %u:%g /link";
    let (id, status) = pod.run_script(script).await;
    let lines: Vec<String> = pod.log_lines(&id);
    assert_eq!(status.code, 0, "{lines:?}");
    let expected = ["stdout          0     100000      65536", "stdout 0", "stdout 0", "stdout 5:6"];
    assert_eq!(lines, expected);
    // On the disk the files are the container's own ids: the layer could be used in another namespace, or in none.
    let upper = pod.folder().join(id.short()).join("upper");
    let owner = |name: &str| {
        let meta = fs::symlink_metadata(upper.join(name)).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!((owner("file"), owner("moved"), owner("etc/passwd")), ((5, 6), (0, 0), (0, 0)));
    pod.end().await;
}

#[tokio::test]
async fn a_mount_point_that_is_missing_is_made() {
    let mut pod = pod().await;
    let volume = pod.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    let mut wanted = pod.container(shell("ls -d /not/there"));
    wanted.spec["mounts"].as_array_mut().unwrap().push(serde_json::json!(
        {"destination": "/not/there", "type": "bind", "source": volume, "options": ["rbind", "rw"]}));
    let id = pod.run(wanted).await;
    assert_eq!(pod.exit_of(&id).await.code, 0, "{:?}", pod.log_lines(&id));
    pod.end().await;
}
