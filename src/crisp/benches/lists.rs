//! What it takes to answer ListPodSandbox with 500 pods: their views in the wire's types, and those as bytes.

use std::{net::Ipv4Addr, sync::Arc};

use crisp::services::answers;
use crisp_model::{SandboxConfig, SandboxId, SandboxState, sandbox::SandboxMetadata, time::Timestamp};
use crisp_pod::view::SandboxView;
use crisp_proto::v1;
use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message;

fn view(number: u32) -> SandboxView {
    let label = |n| (format!("example.com/label-{n}"), "value".repeat(n));
    let config = SandboxConfig {
        metadata: SandboxMetadata {
            name: format!("web-{number}"),
            uid: format!("{number:032x}"),
            namespace: "shop".into(),
            attempt: 0,
        },
        labels: (0..8).map(label).collect(),
        annotations: (0..12).map(label).collect(),
        ..SandboxConfig::default()
    };
    SandboxView {
        id: SandboxId::random(),
        config: Arc::new(config),
        state: SandboxState::Ready,
        created_at: Timestamp(i64::from(number)),
        ips: vec![Ipv4Addr::from(0x0a58_0000 + number).into()],
        infra_pid: Some(1000),
        cgroup: "/kubepods/burstable/pod1".into(),
    }
}

fn lists(c: &mut Criterion) {
    let views: Vec<SandboxView> = (0..500).map(view).collect();
    c.bench_function("ListPodSandbox: 500 pods", |b| {
        b.iter(|| {
            let items = views.iter().map(answers::pod_sandbox).collect();
            v1::ListPodSandboxResponse { items }.encode_to_vec()
        });
    });
}

criterion_group!(benches, lists);
criterion_main!(benches);
