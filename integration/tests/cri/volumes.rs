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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_that_an_image_declares_begin_as_copies_and_go_with_the_container() -> Result<()> {
    const DECLARES: &str = "docker.io/library/declares:latest";
    let place = Place::new("declared-volumes").await?;
    place.cri.pull(DECLARES).await?;
    let asked = place.bed.folder.join("asked");
    fs::create_dir(&asked)?;
    fs::write(asked.join("mine"), "")?;
    let look = "cd /var/store; cat seed; stat -c %a seed; ls deep; echo changed >seed; touch /not/there/new; ls /asked; \
                grep -cE ' (/var/store|/not/there) ' /proc/self/mountinfo; test -d /proc/1; sleep 600";
    let mut config = script("declares", DECLARES, look);
    config.mounts = vec![v1::Mount {
        container_path: "/asked/".into(),
        host_path: asked.to_string_lossy().into_owned(),
        ..Default::default()
    }];
    let id = place.launch(&config).await?;
    let lines = place.lines_when("declares.log", |lines| lines.len() >= 5).await?;
    let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    ensure!(lines == ["from the image", "640", "new", "mine", "2"], "{lines:?}");
    // On disk they lie beside the writable layer, which they are no part of.
    let folder = place.bed.folder.join("lib/containers").join(&id);
    let mut seeds = Vec::new();
    for volume in fs::read_dir(folder.join("volumes"))? {
        seeds.extend(fs::read_to_string(volume?.path().join("seed")).ok());
    }
    ensure!(seeds == ["changed\n"], "{seeds:?}");
    ensure!(place.cri.status(&id).await?.mounts.len() == 1, "only what was asked for is in the status");
    // Another container of the image has its own copy.
    let mut again = script("again", DECLARES, "cat /var/store/seed");
    again.mounts.clear();
    ensure!(place.run(&again).await? == (0, "from the image\n".into()));
    place.cri.stop(&id, 0).await?;
    place.cri.remove(&id).await?;
    ensure!(!folder.exists(), "{} stays", folder.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn propagation_needs_a_mount_that_passes_mounts_on() -> Result<()> {
    let place = Place::new("propagation").await?;
    let folder = |name: &str| place.bed.folder.join(name).to_string_lossy().into_owned();
    for (name, kind) in
        [("private", "--make-private"), ("shared", "--make-shared"), ("slave", "--make-slave")]
    {
        let path = folder(name);
        fs::create_dir(&path)?;
        place.bed.run("mount", &["-t", "tmpfs", "none", &path])?;
        if name == "slave" {
            place.bed.run("mount", &["--make-shared", &path])?;
            fs::create_dir(folder("slave-2"))?;
            place.bed.run("mount", &["--bind", &path, &folder("slave-2")])?;
            place.bed.run("mount", &[kind, &folder("slave-2")])?;
        } else {
            place.bed.run("mount", &[kind, &path])?;
        }
    }
    place.bed.run("mkdir", &[&format!("{}/sub", folder("private"))])?;
    use v1::MountPropagation::{
        PropagationBidirectional as Both, PropagationHostToContainer as In, PropagationPrivate as No,
    };
    for (source, propagation, fine) in [
        ("private", No, true),
        ("private", In, false),
        ("private", Both, false),
        ("private/sub", Both, false),
        ("slave-2", In, true),
        ("slave-2", Both, false),
        ("shared", In, true),
        ("shared", Both, true),
    ] {
        let mut config =
            script(&format!("{}-{}", source.replace('/', "-"), propagation as i32), IMAGE, "true");
        config.mounts = vec![v1::Mount {
            container_path: "/v".into(),
            host_path: folder(source),
            propagation: propagation.into(),
            ..Default::default()
        }];
        // Only privileged pods may pass mounts on to the host; that is the kubelet's rule.
        let created = place.create(&config).await;
        match (fine, &created) {
            (true, Ok(id)) => place.cri.remove(id).await?,
            (false, Err(error)) => {
                let text = format!("{error:#}");
                let point = folder(source.trim_end_matches("/sub"));
                ensure!(
                    code(&created) == Some(tonic::Code::InvalidArgument),
                    "{source} {propagation:?}: {text}"
                );
                ensure!(
                    text.contains(&format!("the mount {point}, which is n")),
                    "{source} {propagation:?}: {text}"
                );
            }
            _ => anyhow::bail!("{source} {propagation:?}: {created:?}"),
        }
    }
    Ok(())
}
