//! What is refused, and that the reason is said.

use anyhow::{Context, Result, ensure};
use crisp_integration::{
    bed::Wishes,
    client::{code, pod, script, security},
};
use crisp_proto::v1;
use tonic::Code;

use super::place::{IMAGE, Place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_yet_says_so() -> Result<()> {
    let place = Place::new("later").await?;
    let id = place.idle("main", |_| {}).await?;
    let mut runtime = place.cri.runtime.clone();
    let container =
        v1::CheckpointContainerRequest { container_id: id.clone(), location: "/tmp/x".into(), timeout: 1 };
    let answers = [
        runtime.checkpoint_container(container).await.err(),
        runtime.checkpoint_pod(v1::CheckpointPodRequest::default()).await.err(),
        runtime.restore_pod(v1::RestorePodRequest::default()).await.err(),
    ];
    for answer in answers {
        let status = answer.context("it was taken")?;
        ensure!(status.code() == Code::Unimplemented && status.message().contains("freeze"), "{status:?}");
    }
    ensure!(place.cri.shell(&id, "echo alive").await? == "alive\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_are_those_of_the_configuration() -> Result<()> {
    let config = "[runtime.handlers.plain]\n[runtime.handlers.strict]\nallow_privileged = false\nallow_host_namespaces = false\n";
    let place =
        Place::with("handlers", Wishes { config: config.into(), ..Default::default() }, |_| {}).await?;
    let mut runtime = place.cri.runtime.clone();
    let status = runtime.status(v1::StatusRequest::default()).await?.into_inner();
    let mut names: Vec<&str> = status.runtime_handlers.iter().map(|h| h.name.as_str()).collect();
    names.sort_unstable();
    ensure!(names == ["", "plain", "strict"], "{names:?}");

    let request = |name: &str, handler: &str, change: fn(&mut v1::LinuxSandboxSecurityContext)| {
        let mut config = pod(name, &place.bed.logs());
        change(config.linux.get_or_insert_default().security_context.get_or_insert_default());
        v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() }
    };
    let id = runtime.run_pod_sandbox(request("plain", "plain", |_| {})).await?.into_inner().pod_sandbox_id;
    ensure!(place.cri.pod_status(&id).await?.runtime_handler == "plain");
    runtime.run_pod_sandbox(request("strict", "strict", |_| {})).await?;
    let host: fn(&mut v1::LinuxSandboxSecurityContext) = |context| {
        context.namespace_options.get_or_insert_default().network = v1::NamespaceMode::Node.into();
    };
    for (name, handler, change, wanted) in [
        ("none", "absent", (|_| {}) as fn(&mut v1::LinuxSandboxSecurityContext), "absent"),
        ("strict-1", "strict", |context| context.privileged = true, "privileged"),
        ("strict-2", "strict", host, "network"),
    ] {
        let refused = runtime.run_pod_sandbox(request(name, handler, change)).await;
        let status = refused.err().with_context(|| format!("{name} was taken"))?;
        ensure!(
            matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition
            ),
            "{status:?}"
        );
        ensure!(status.message().contains(wanted), "{status:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_requests_name_their_field() -> Result<()> {
    let place = Place::new("bad").await?;
    type Change = fn(&mut v1::ContainerConfig);
    let cases: [(&str, Change); 7] = [
        ("metadata", |c| c.metadata = None),
        ("image", |c| c.image = None),
        ("working_dir", |c| c.working_dir = "relative".into()),
        ("envs[0].key", |c| c.envs = vec![v1::KeyValue { key: "A=B".into(), value: "x".into() }]),
        ("log_path", |c| c.log_path = "../../etc/passwd".into()),
        ("run_as_group", |c| security(c).run_as_group = Some(v1::Int64Value { value: 5 })),
        ("privileged", |c| security(c).privileged = true),
    ];
    for (field, change) in cases {
        let mut config = script("bad", IMAGE, "true");
        change(&mut config);
        let refused = place.create(&config).await;
        ensure!(code(&refused) == Some(Code::InvalidArgument), "{field}: {refused:?}");
        let text = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
        ensure!(text.contains(field), "{field}: {text}");
    }
    let absent = place.create(&script("bad", "docker.io/library/absent:1", "true")).await;
    ensure!(code(&absent) == Some(Code::NotFound), "{absent:?}");
    ensure!(place.cri.containers(None).await?.is_empty(), "a refused container is listed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seccomp_profile_by_its_old_field() -> Result<()> {
    let place = Place::new("seccomp").await?;
    let profile = place.bed.folder.join("deny.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, text)?;
    let script_text = "mkdir /made; echo $?; grep '^Seccomp:' /proc/self/status";
    for (name, value, wanted) in [
        ("localhost", format!("localhost/{}", profile.display()), "1\nSeccomp:\t2\n"),
        ("unconfined", "unconfined".to_owned(), "0\nSeccomp:\t0\n"),
        ("default", "runtime/default".to_owned(), "0\nSeccomp:\t2\n"),
    ] {
        let mut config = script(name, IMAGE, script_text);
        #[allow(deprecated)]
        {
            security(&mut config).seccomp_profile_path = value;
        }
        let id = place.launch(&config).await?;
        place.cri.wait(&id).await?;
        let lines = place.lines(&config.log_path)?;
        let text: String =
            lines.iter().filter(|l| l.stream == "stdout").map(|l| l.text.clone() + "\n").collect();
        ensure!(text == wanted, "{name}: {text:?}");
    }
    Ok(())
}
