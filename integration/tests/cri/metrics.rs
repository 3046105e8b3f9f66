//! crisp's own metrics, as Prometheus reads them.

use anyhow::{Context, Result, ensure};
use crisp_integration::{
    bed::Wishes,
    client::{code, resources, script},
};

use super::place::{IMAGE, Place};

const ADDRESS: &str = "127.0.0.1:9340";

/// The value of a line of the page; what is not there has not happened yet.
fn value(page: &str, name: &str) -> Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(Ok(0.0), |text| text.parse().with_context(|| format!("{name}: {text:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_is_counted_and_served() -> Result<()> {
    let config = format!("[metrics]\naddress = \"{ADDRESS}\"\n");
    let place = Place::with("metrics", Wishes { config, ..Wishes::default() }, |_| {}).await?;
    let page = || place.bed.run("curl", &["-sf", &format!("http://{ADDRESS}/metrics")]);
    let head =
        place.bed.run("curl", &["-sfD", "-", "-o", "/dev/null", &format!("http://{ADDRESS}/metrics")])?;
    ensure!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");

    let before = page()?;
    let id = place.idle("idle", |_| {}).await?;
    ensure!(place.cri.exec(&id, &["true"], 0).await?.code == 0);
    ensure!(code(&place.cri.pull("docker.io/library/absent:1").await).is_some());
    ensure!(code(&place.cri.status("0123456789abcdef").await) == Some(tonic::Code::NotFound));
    let mut hungry = script("hungry", IMAGE, "head -c 100000000 /dev/zero | tail -c 90000000");
    resources(&mut hungry).memory_limit_in_bytes = 16 << 20;
    let hungry = place.launch(&hungry).await?;
    let ended = place.cri.wait(&hungry).await?;
    ensure!(ended.reason == "OOMKilled", "{ended:?}");
    let after = page()?;
    for (name, more) in [
        ("crisp_cri_calls_total{method=\"ExecSync\",code=\"Ok\"}", 1.0),
        ("crisp_cri_call_duration_seconds_count{method=\"CreateContainer\"}", 2.0),
        ("crisp_cri_calls_total{method=\"ContainerStatus\",code=\"NotFound\"}", 1.0),
        ("crisp_image_pulls_total{result=\"error\"}", 1.0),
        ("crisp_containers_oom_killed_total", 1.0),
        ("crisp_containers{state=\"running\"}", 1.0),
        ("crisp_containers{state=\"exited\"}", 1.0),
        ("crisp_pods{state=\"ready\"}", 0.0),
    ] {
        let grown = value(&after, name)? - value(&before, name)?;
        ensure!((grown - more).abs() < 0.5, "{name} grew by {grown} instead of {more} in\n{after}");
    }
    for (name, least) in [
        ("crisp_pods{state=\"ready\"}", 1.0),
        ("crisp_network_operations_total{operation=\"add\",result=\"ok\"}", 1.0),
        ("crisp_image_pulls_total{result=\"ok\"}", 1.0),
        ("process_resident_memory_bytes", 1e6),
    ] {
        ensure!(value(&after, name)? >= least, "{name} is missing in\n{after}");
    }
    ensure!(after.ends_with("# EOF\n"), "{after}");
    let status = |method: &str, path: &str| {
        place.bed.run(
            "curl",
            &["-so", "/dev/null", "-w", "%{http_code}", "-X", method, &format!("http://{ADDRESS}{path}")],
        )
    };
    ensure!((status("GET", "/")?.as_str(), status("POST", "/metrics")?.as_str()) == ("404", "405"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_listens_unless_it_is_asked_for() -> Result<()> {
    let place = Place::new("no-metrics").await?;
    let sockets = place.bed.run("ss", &["-Hltnp"])?;
    let pid = format!("pid={},", place.bed.daemon_pid().context("a daemon")?);
    let own: Vec<&str> = sockets.lines().filter(|line| line.contains(&pid)).collect();
    // The one is the stream server's.
    ensure!(own.len() == 1 && own[0].contains("127.0.0.1:"), "{sockets}");
    Ok(())
}
