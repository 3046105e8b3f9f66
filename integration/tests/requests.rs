//! What a daemon answers to requests, good and bad: wrong fields are named, unknown ids are told apart, and nothing
//! half-made stays.

use anyhow::{Context as _, Result};
use crisp_integration::{
    bed::{Bed, Wishes, cgroup_folders, eventually},
    client::{self, Cri, code},
};
use crisp_proto::v1;
use tonic::Code;

const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";

/// The message of an answer that must be InvalidArgument.
fn refused<T>(what: &str, result: Result<T>) -> String {
    let error = result.err().unwrap_or_else(|| panic!("{what}: accepted"));
    let status = error.chain().find_map(|cause| cause.downcast_ref::<tonic::Status>());
    let status = status.unwrap_or_else(|| panic!("{what}: {error:#}"));
    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
    status.message().to_owned()
}

type PodChange = fn(&mut v1::PodSandboxConfig);
type ContainerChange = fn(&mut v1::ContainerConfig);

/// Wrong sandboxes, each with the field that must be named.
const PODS: &[(&str, PodChange)] = &[
    ("config.metadata", |c| c.metadata = None),
    ("config.metadata.uid", |c| c.metadata.get_or_insert_default().uid.clear()),
    ("config.hostname", |c| c.hostname = "a".repeat(65)),
    ("config.log_directory", |c| c.log_directory = "relative".into()),
    ("config.port_mappings[0].host_port", |c| {
        c.port_mappings.push(v1::PortMapping { container_port: 80, host_port: 70_000, ..Default::default() });
    }),
    ("config.dns_config.servers[0]", |c| {
        c.dns_config = Some(v1::DnsConfig { servers: vec!["nobody".into()], ..Default::default() });
    }),
    ("config.linux.cgroup_parent", |c| c.linux.get_or_insert_default().cgroup_parent = "/../../x".into()),
    (r#"config.linux.sysctls["vm.swappiness"]"#, |c| {
        c.linux.get_or_insert_default().sysctls.insert("vm.swappiness".into(), "1".into());
    }),
];

/// Wrong containers, each with the field that must be named.
const CONTAINERS: &[(&str, ContainerChange)] = &[
    ("config.metadata.name", |c| c.metadata.get_or_insert_default().name = "a/b".into()),
    ("config.image", |c| c.image = None),
    ("config.working_dir", |c| c.working_dir = "relative".into()),
    ("config.log_path", |c| c.log_path = "../../etc/x".into()),
    ("config.envs[0].key", |c| c.envs.push(v1::KeyValue { key: "A=B".into(), value: Vec::new() })),
    ("config.stop_signal", |c| c.stop_signal = 1000),
    ("config.mounts[0].host_path", |c| {
        c.mounts.push(v1::Mount { container_path: "/d".into(), ..Default::default() });
    }),
    ("config.CDI_devices[0].name", |c| c.cdi_devices.push(v1::CdiDevice { name: "nonsense".into() })),
    ("config.linux.resources.oom_score_adj", |c| client::resources(c).oom_score_adj = 2000),
    ("config.linux.resources.cpuset_cpus", |c| client::resources(c).cpuset_cpus = "3-1".into()),
    ("config.linux.security_context.privileged", |c| client::security(c).privileged = true),
    ("config.linux.security_context.run_as_group", |c| {
        client::security(c).run_as_group = Some(v1::Int64Value { value: 1 });
    }),
    ("config.linux.security_context.namespace_options.target_id", |c| {
        let pid = v1::NamespaceMode::Target.into();
        client::security(c).namespace_options = Some(v1::NamespaceOption { pid, ..Default::default() });
    }),
    ("config.linux.security_context.seccomp.localhost_ref", |c| {
        let profile_type = v1::security_profile::ProfileType::Localhost.into();
        client::security(c).seccomp = Some(v1::SecurityProfile { profile_type, ..Default::default() });
    }),
];

#[tokio::test]
async fn wrong_fields_are_named_and_nothing_stays() -> Result<()> {
    let bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    for (field, change) in PODS {
        let mut config = client::pod("wrong", &bed.logs());
        change(&mut config);
        let message = refused(field, cri.run_pod(&config).await);
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
    assert!(cri.pods(None).await?.is_empty());
    assert!(cgroup_folders(&bed.cgroup).iter().all(|f| !has_folders(f)), "cgroups stayed");

    cri.pull(IMAGE).await?;
    let config = client::pod("good", &bed.logs());
    let pod = cri.run_pod(&config).await?;
    for (field, change) in CONTAINERS {
        let mut container = client::script("wrong", IMAGE, "true");
        change(&mut container);
        let message = refused(field, cri.create(&pod, &container, &config).await);
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
    assert!(cri.containers(None).await?.is_empty());
    for (what, result) in [
        ("cmd", cri.exec(&pod, &[], 0).await.map(drop)),
        ("timeout", cri.exec(&pod, &["true"], -1).await.map(drop)),
        ("timeout", cri.stop(&pod, -1).await),
        ("container_id", cri.start("").await),
    ] {
        assert!(refused(what, result).starts_with(what));
    }
    cri.stop_pod(&pod).await?;
    cri.remove_pod(&pod).await?;
    // A monitor answers before it ends.
    eventually("no process stays", async || bed.strays().is_empty().then_some(())).await
}

fn has_folders(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| entry.path().is_dir())
}

#[tokio::test]
async fn unknown_ids_are_not_found_and_their_end_is_no_error() -> Result<()> {
    let bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    let strangers = ["f".repeat(64), "nonsense".into(), "../../etc".into()];
    for id in &strangers {
        assert_eq!(code(&cri.pod_status(id).await), Some(Code::NotFound), "{id}");
        assert_eq!(code(&cri.status(id).await), Some(Code::NotFound), "{id}");
        assert_eq!(code(&cri.start(id).await), Some(Code::NotFound), "{id}");
        assert_eq!(code(&cri.exec(id, &["true"], 0).await), Some(Code::NotFound), "{id}");
        cri.stop(id, 0).await?;
        cri.remove(id).await?;
        cri.stop_pod(id).await?;
        cri.remove_pod(id).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_handler_allows_what_it_is_configured_to() -> Result<()> {
    let config = "[runtime.handlers.strict]\nallow_privileged = false\n".to_owned();
    let bed = Bed::new(Wishes { config, ..Wishes::default() }).await?;
    let cri = bed.client().await?;
    let run = async |name: &str, handler: &str, privileged: bool| {
        let mut config = client::pod(name, &bed.logs());
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = privileged;
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        Ok(cri.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    };
    assert!(refused("unknown", run("a", "nobody", false).await).contains("strict"));
    assert!(refused("privileged", run("b", "strict", true).await).contains("privileged"));
    let pod = run("c", "strict", false).await?;
    assert_eq!(cri.pods(None).await?.first().context("one pod")?.runtime_handler, "strict");
    cri.remove_pod(&pod).await
}

#[tokio::test]
async fn filters_let_through_what_is_meant() -> Result<()> {
    let bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    cri.pull(IMAGE).await?;
    let (one, one_config) = labelled(&cri, &bed, "one").await?;
    let (two, two_config) = labelled(&cri, &bed, "two").await?;
    let first = cri.launch(&one, &client::script("c", IMAGE, "exit 3"), &one_config).await?;
    let second = cri.create(&two, &client::script("c", IMAGE, "true"), &two_config).await?;
    let end = cri.wait(&first).await?;
    assert_eq!((end.exit_code, end.reason.as_str()), (3, "Error"));

    let pods = async |filter: v1::PodSandboxFilter| -> Result<Vec<String>> {
        Ok(cri.pods(Some(filter)).await?.into_iter().map(|pod| pod.id).collect())
    };
    let selector = [("name".to_owned(), "two".to_owned())].into();
    assert_eq!(
        pods(v1::PodSandboxFilter { id: one[..13].into(), ..Default::default() }).await?,
        [one.as_str()]
    );
    assert_eq!(
        pods(v1::PodSandboxFilter { label_selector: selector, ..Default::default() }).await?,
        [two.as_str()]
    );
    let not_ready = Some(v1::PodSandboxStateValue { state: 1 });
    assert!(pods(v1::PodSandboxFilter { state: not_ready, ..Default::default() }).await?.is_empty());
    assert!(pods(v1::PodSandboxFilter { id: "zz".into(), ..Default::default() }).await?.is_empty());

    let containers = async |filter: v1::ContainerFilter| -> Result<Vec<String>> {
        Ok(cri.containers(Some(filter)).await?.into_iter().map(|c| c.id).collect())
    };
    let created = Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerCreated.into() });
    let of_one = v1::ContainerFilter { pod_sandbox_id: one.clone(), ..Default::default() };
    assert_eq!(containers(of_one.clone()).await?, [first.as_str()]);
    assert_eq!(
        containers(v1::ContainerFilter { state: created, ..Default::default() }).await?,
        [second.as_str()]
    );
    assert!(containers(v1::ContainerFilter { state: created, ..of_one }).await?.is_empty());
    for pod in [one, two] {
        cri.remove_pod(&pod).await?;
    }
    Ok(())
}

async fn labelled(cri: &Cri, bed: &Bed, name: &str) -> Result<(String, v1::PodSandboxConfig)> {
    let mut config = client::pod(name, &bed.logs());
    config.labels.insert("name".into(), name.into());
    let pod = cri.run_pod(&config).await?;
    Ok((pod, config))
}
