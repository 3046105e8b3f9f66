//! What making a container's plan (its OCI spec and all that goes with it) takes: a plain one, and one with forty volumes.

#[path = "../tests/world/mod.rs"]
mod world;

use crisp_model::Mount;
use criterion::{Criterion, criterion_group, criterion_main};
use world::World;

fn plan(c: &mut Criterion) {
    let plain = World::v1();
    c.bench_function("plan: plain, cgroup v1", |b| b.iter(|| plain.plan()));
    let mut full = World::new();
    full.container.mounts = (0..40)
        .map(|n| Mount {
            container_path: format!("/volumes/{n}"),
            host_path: format!("/var/lib/kubelet/pods/0b9c/volumes/{n}").into(),
            ..Mount::default()
        })
        .collect();
    c.bench_function("plan: 40 volumes, cgroup v2", |b| b.iter(|| full.plan()));
}

criterion_group!(benches, plan);
criterion_main!(benches);
