//! Ports of the host that lead into a pod.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use crisp_integration::bed::{PATIENCE, Wishes};
use crisp_proto::v1::{PortMapping, Protocol};
use nix::sched::{CloneFlags, setns};

use super::place::Place;

/// Runs `work` in the network namespace of a process, on a thread of its own. Sockets that it makes stay there.
pub fn in_network_of<T: Send>(pid: i32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let namespace = File::open(format!("/proc/{pid}/ns/net")).context("open the namespace")?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("enter the namespace")?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the thread panicked"))?
    })
}

fn mapping(protocol: Protocol, host_port: i32, container_port: i32, host_ip: &str) -> PortMapping {
    PortMapping { protocol: protocol.into(), host_port, container_port, host_ip: host_ip.into() }
}

/// Sends a datagram until an answer comes: the first may be lost while a bridge learns its ports.
fn ask(from: &UdpSocket, to: SocketAddr) -> Result<String> {
    from.set_read_timeout(Some(Duration::from_millis(300)))?;
    let begin = std::time::Instant::now();
    let mut buffer = [0; 64];
    while begin.elapsed() < PATIENCE {
        from.send_to(b"ping", to)?;
        if let Ok((length, sender)) = from.recv_from(&mut buffer) {
            ensure!(sender == to, "an answer of {sender}, not of {to}");
            return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    Err(anyhow!("no answer of {to}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_carry_datagrams() -> Result<()> {
    let place = Place::with("datagrams", Wishes::default(), |config| {
        config.port_mappings =
            vec![mapping(Protocol::Udp, 12_053, 5_353, ""), mapping(Protocol::Tcp, 12_053, 5_354, "")];
    })
    .await?;
    let server = in_network_of(place.infra_pid().await?, || Ok(UdpSocket::bind("0.0.0.0:5353")?))?;
    let address = place.cri.pod_status(&place.pod).await?.network.context("network")?.ip;
    server.set_read_timeout(Some(PATIENCE))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(&[b"got ", &buffer[..length]].concat(), from);
        }
    });
    let host = i32::try_from(place.bed.holder())?;
    let client = in_network_of(host, || Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    ensure!(ask(&client, format!("{address}:5353").parse()?)? == "got ping", "the pod's own address");
    let local = in_network_of(host, || Ok(UdpSocket::bind("127.0.0.1:0")?))?;
    ensure!(ask(&local, "127.0.0.1:12053".parse()?)? == "got ping", "the port of the host");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_one_address_is_of_that_address_only() -> Result<()> {
    let place = Place::with("one-address", Wishes::default(), |config| {
        config.port_mappings = vec![mapping(Protocol::Tcp, 12_080, 8_080, "127.0.0.1")];
    })
    .await?;
    place.bed.run("ip", &["addr", "add", "192.0.2.1/32", "dev", "lo"])?;
    let server = in_network_of(place.infra_pid().await?, || Ok(TcpListener::bind("0.0.0.0:8080")?))?;
    std::thread::spawn(move || {
        for mut client in server.incoming().flatten() {
            let _ = client.write_all(b"hello");
        }
    });
    let host = i32::try_from(place.bed.holder())?;
    let connect = |to: &'static str| {
        in_network_of(host, move || {
            let mut stream = TcpStream::connect_timeout(&to.parse()?, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    };
    ensure!(connect("127.0.0.1:12080")? == "hello");
    ensure!(connect("192.0.2.1:12080").is_err(), "it answers at another address too");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_addresses_of_both_families() -> Result<()> {
    let config = "[network.builtin]\nsubnets = [\"10.97.0.0/24\", \"fd97::/64\"]\n";
    let place =
        Place::with("families", Wishes { config: config.into(), ..Default::default() }, |_| {}).await?;
    let network = place.cri.pod_status(&place.pod).await?.network.context("network")?;
    let second = &network.additional_ips.first().context("a second address")?.ip;
    ensure!(network.ip.starts_with("10.97.0.") && second.starts_with("fd97::"), "{network:?}");
    let id = place.idle("main", |_| {}).await?;
    let seen = place.cri.shell(&id, "ip addr show eth0").await?;
    ensure!(seen.contains(&network.ip) && seen.contains(second), "{seen}");
    ensure!(
        place.cri.exec(&id, &["ping", "-c", "1", "-W", "5", "fd97::1"], 20).await?.code == 0
            || place.cri.exec(&id, &["ping6", "-c", "1", "fd97::1"], 20).await?.code == 0
    );
    Ok(())
}
