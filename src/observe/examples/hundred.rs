//! How long the statistics of a hundred containers take on this host: makes cgroups with a process each under
//! `/crisp-bench-<pid>`, measures, and removes them. `cargo run --release -p crisp-observe --example hundred
//! [ROUNDS]`, as root.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use crisp_host::cgroup::CgroupFs;
use crisp_model::{ContainerId, SandboxId};
use crisp_observe::stats::{ContainerTarget, Options, Sampler, SandboxTarget};

const PODS: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fs = CgroupFs::detect()?;
    let top = format!("/crisp-bench-{}", std::process::id());
    let mut children = Vec::new();
    let result = run(&fs, &top, &mut children);
    fs.kill_all(&top, Duration::from_secs(5))?;
    for mut child in children {
        child.wait()?;
    }
    fs.remove(&top, Duration::from_secs(5))?;
    result
}

fn run(fs: &CgroupFs, top: &str, children: &mut Vec<Child>) -> Result<(), Box<dyn std::error::Error>> {
    let layer_interval = Duration::from_secs(3600);
    let sampler = Sampler::new(fs.clone(), Options { ttl: Duration::ZERO, layer_interval });
    let (mut containers, mut sandboxes) = (Vec::new(), Vec::new());
    for n in 0..PODS {
        let (sandbox, container) = (SandboxId::random(), ContainerId::random());
        let pod = format!("{top}/pod{n}");
        let cgroup = format!("{pod}/{container}");
        fs.create(&cgroup)?;
        let child = Command::new("/bin/sleep").arg("1000").spawn()?;
        let pid = i32::try_from(child.id())?;
        children.push(child);
        fs.join(&cgroup, pid)?;
        sampler.register_sandbox(SandboxTarget {
            id: sandbox.clone(),
            cgroup: Some(pod),
            network_pid: Some(pid),
        });
        sampler.register_container(ContainerTarget {
            id: container.clone(),
            sandbox: sandbox.clone(),
            cgroup,
            writable_layer: None,
        });
        containers.push(container);
        sandboxes.push(sandbox);
    }
    let rounds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse::<u32>())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        for _ in 0..rounds {
            let start = Instant::now();
            let list = sampler.containers(&containers).await.len();
            let containers_took = start.elapsed();
            let start = Instant::now();
            let pods = sampler.sandboxes(&sandboxes).await.len();
            println!("{list} containers {containers_took:?}, {pods} pods with them {:?}", start.elapsed());
        }
    });
    Ok(())
}
