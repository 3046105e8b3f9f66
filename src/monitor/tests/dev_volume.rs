//! A volume at `/dev`.

mod harness;

use std::fs;

use harness::{Pod, shell};
use serde_json::json;

#[tokio::test]
async fn it_is_seen_and_nothing_is_made_in_it() {
    let mut pod = Pod::start().await;
    // A folder like the host's /dev: the entries that libcontainer would make are there already.
    let (dev, more) = (pod.folder().join("dev"), pod.folder().join("more"));
    fs::create_dir_all(dev.join("sub")).unwrap();
    fs::create_dir_all(&more).unwrap();
    for name in ["ptmx", "fd", "null-like"] {
        fs::write(dev.join(name), name).unwrap();
    }
    fs::write(more.join("inner"), "").unwrap();
    let mut wanted = pod.container(shell("ls /dev; ls /dev/sub; cat /dev/ptmx"));
    let mounts = wanted.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    mounts.push(json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["rbind", "rw"]}));
    mounts
        .push(json!({"destination": "/dev/sub", "type": "bind", "source": more, "options": ["rbind", "ro"]}));
    let id = pod.run(wanted).await;
    let status = pod.exit_of(&id).await;
    let lines = pod.log_lines(&id);
    assert_eq!(status.code, 0, "{lines:?}");
    assert_eq!(lines, ["fd", "null-like", "ptmx", "sub", "inner", "ptmx"].map(|l| format!("stdout {l}")));
    let mut names: Vec<_> = fs::read_dir(&dev).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["fd", "null-like", "ptmx", "sub"]);
    assert_eq!(fs::read_to_string(dev.join("ptmx")).unwrap(), "ptmx");
    pod.end().await;
}
