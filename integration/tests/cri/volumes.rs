//! Volumes: images, mapped ids, options of a mount.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Result, ensure};
use crisp_integration::{
    bed::Wishes,
    client::{code, image_spec, script, security},
};
use crisp_proto::v1::{self, NamespaceMode};

use super::{
    namespaces::{MAPPING, own_users},
    place::{IMAGE, Place},
};

const DATA: &str = "docker.io/library/voldata:latest";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_volumes_with_and_without_a_sub_path() -> Result<()> {
    let place = Place::new("image-volumes").await?;
    place.cri.pull(DATA).await?;
    let volume = |inside: &str, sub: &str| v1::Mount {
        container_path: inside.into(),
        image: image_spec(DATA),
        image_sub_path: sub.into(),
        readonly: true,
        ..Default::default()
    };
    let mut config = script(
        "reads",
        IMAGE,
        "cat /whole/data/hello.txt /part/hello.txt; touch /whole/x 2>/dev/null || echo read-only",
    );
    config.mounts = vec![volume("/whole", ""), volume("/part", "data")];
    let id = place.launch(&config).await?;
    place.cri.wait(&id).await?;
    let lines: Vec<String> = place.lines("reads.log")?.into_iter().map(|line| line.text).collect();
    ensure!(lines == ["hello from an image volume", "hello from an image volume", "read-only"], "{lines:?}");
    let mounts = place.cri.status(&id).await?.mounts;
    ensure!(mounts.iter().map(|m| m.container_path.as_str()).eq(["/whole", "/part"]), "{mounts:?}");

    for (name, mount) in [
        ("no-folder", volume("/x", "no/such/folder")),
        ("outside", volume("/x", "../../etc")),
        ("no-image", v1::Mount { image: image_spec("docker.io/library/absent:1"), ..volume("/x", "") }),
        ("writable", v1::Mount { readonly: false, ..volume("/x", "") }),
    ] {
        let mut config = script(name, IMAGE, "true");
        config.mounts = vec![mount];
        let refused = place.create(&config).await;
        ensure!(
            matches!(code(&refused), Some(tonic::Code::InvalidArgument | tonic::Code::NotFound)),
            "{name}: {refused:?}"
        );
    }
    // An image that a container has as a volume is in use.
    let _ = place.cri.images.clone().remove_image(v1::RemoveImageRequest { image: image_spec(DATA) }).await;
    let mut config = script("kept", IMAGE, "sleep 600");
    config.mounts = vec![volume("/whole", "")];
    place.cri.pull(DATA).await?;
    let id = place.launch(&config).await?;
    let removed =
        place.cri.images.clone().remove_image(v1::RemoveImageRequest { image: image_spec(DATA) }).await;
    let text = place.cri.shell(&id, "cat /whole/data/hello.txt").await?;
    ensure!(text == "hello from an image volume\n", "after {removed:?}: {text:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_of_a_pod_with_users_of_its_own_are_mapped() -> Result<()> {
    let place = Place::with("mapped-volumes", Wishes::default(), |config| {
        let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
        context.namespace_options.get_or_insert_default().userns_options = Some(own_users());
    })
    .await?;
    let folder = place.bed.folder.join("volume");
    fs::create_dir(&folder)?;
    fs::write(folder.join("of-root"), "root's\n")?;
    fs::set_permissions(folder.join("of-root"), fs::Permissions::from_mode(0o600))?;
    let mut config = script(
        "writes",
        IMAGE,
        "stat -c %u:%g /v/of-root; cat /v/of-root; touch /v/made; chown 5:6 /v/made; stat -c %u:%g /plain/of-root",
    );
    security(&mut config).namespace_options = Some(v1::NamespaceOption {
        userns_options: Some(own_users()),
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    });
    let mount = |inside: &str, mapped: bool| v1::Mount {
        container_path: inside.into(),
        host_path: folder.to_string_lossy().into_owned(),
        uid_mappings: if mapped { vec![MAPPING] } else { vec![] },
        gid_mappings: if mapped { vec![MAPPING] } else { vec![] },
        ..Default::default()
    };
    config.mounts = vec![mount("/v", true), mount("/plain", false)];
    let (code, text) = place.run(&config).await?;
    ensure!((code, text.as_str()) == (0, "0:0\nroot's\n65534:65534\n"), "{code} {text:?}");
    let made = fs::metadata(folder.join("made"))?;
    use std::os::unix::fs::MetadataExt;
    ensure!((made.uid(), made.gid()) == (5, 6), "on the host {}:{}", made.uid(), made.gid());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_has_the_options_that_were_asked() -> Result<()> {
    let place = Place::new("mount-options").await?;
    let folder = place.bed.folder.join("volume");
    fs::create_dir(&folder)?;
    let program = folder.join("program");
    fs::write(&program, "#!/bin/sh\necho ran\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let mut config = script(
        "options",
        IMAGE,
        "/with/program; /without/program 2>/dev/null || echo refused; grep ' /without ' /proc/self/mountinfo",
    );
    let mount = |inside: &str, options: &[&str]| v1::Mount {
        container_path: inside.into(),
        host_path: folder.to_string_lossy().into_owned(),
        mount_options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Default::default()
    };
    config.mounts = vec![mount("/with", &[]), mount("/without", &["noexec", "nosuid", "nodev"])];
    let (_, text) = place.run(&config).await?;
    ensure!(text.starts_with("ran\nrefused\n"), "{text:?}");
    let flags = text.lines().nth(2).and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
    ensure!(
        ["noexec", "nosuid", "nodev"].iter().all(|flag| flags.split(',').any(|f| f == *flag)),
        "{text:?}"
    );
    config.mounts = vec![mount("/x", &["bind-what"])];
    let refused = place.create(&config).await;
    ensure!(code(&refused) == Some(tonic::Code::InvalidArgument), "{refused:?}");
    Ok(())
}
