//! Host ports and masquerading of the built-in network, with real packets.

#![allow(clippy::unwrap_used, reason = "it is all test code")]

mod lab;

use std::net::{IpAddr, SocketAddr};

use crisp_model::sandbox::{PortMapping, Protocol};
use crisp_network::{FirewallChoice, Network, NetworkConfig, NetworkError};
use lab::{
    Netns, config, eventually, machine, neighbour, pod, sh,
    talk::{UdpClient, ask_tcp, serve_tcp, serve_udp},
};

fn port(protocol: Protocol, host_port: u16, container_port: u16, host_ip: Option<&str>) -> PortMapping {
    PortMapping { protocol, container_port, host_port, host_ip: host_ip.map(|t| t.parse().unwrap()) }
}

fn with(firewall: FirewallChoice) -> NetworkConfig {
    let mut config = config();
    config.builtin.firewall = firewall;
    config.builtin.subnets = vec!["10.88.0.0/16".parse().unwrap(), "fd88::/64".parse().unwrap()];
    config
}

#[test]
fn tcp_from_everywhere_by_nftables() {
    tcp_from_everywhere(FirewallChoice::Auto);
}

#[test]
fn tcp_from_everywhere_by_iptables() {
    tcp_from_everywhere(FirewallChoice::Iptables);
}

fn tcp_from_everywhere(firewall: FirewallChoice) {
    machine(async move || {
        let outside = neighbour();
        let network = Network::open(with(firewall)).await.unwrap();
        let kind = network.status().details["firewall"].clone();
        assert_eq!(kind, if firewall == FirewallChoice::Auto { "nftables" } else { "iptables" });
        let (a, b) = (Netns::new(), Netns::new());
        let mut server = pod(&a);
        server.port_mappings = vec![
            port(Protocol::Tcp, 8080, 80, None),
            port(Protocol::Tcp, 8081, 80, Some("192.0.2.1")),
            port(Protocol::Tcp, 8082, 80, Some("127.0.0.1")),
        ];
        let got = network.attach(&server).await.unwrap();
        let other = network.attach(&pod(&b)).await.unwrap();
        assert_eq!(got.ips, ["10.88.0.2".parse::<IpAddr>().unwrap(), "fd88::2".parse().unwrap()]);
        serve_tcp(&a, "0.0.0.0:80");
        serve_tcp(&a, "[fd88::2]:80");
        let from =
            |netns: &Netns, to: &'static str| netns.run(move || ask_tcp(to).map(|s| s.ip().to_string()));

        // Directly, without a host port.
        assert_eq!(from(&b, "10.88.0.2:80"), Ok(other.ips[0].to_string()));
        assert_eq!(ask_tcp("10.88.0.2:80").unwrap().ip().to_string(), "10.88.0.1");
        // From another machine, whose address the pod sees.
        assert_eq!(from(&outside, "192.0.2.1:8080"), Ok("192.0.2.2".to_owned()));
        assert_eq!(from(&outside, "192.0.2.1:8081"), Ok("192.0.2.2".to_owned()));
        assert_eq!(from(&outside, "[2001:db8::1]:8080"), Ok("2001:db8::2".to_owned()));
        assert!(from(&outside, "192.0.2.1:8082").is_err(), "only on 127.0.0.1");
        // From the host itself.
        assert_eq!(ask_tcp("127.0.0.1:8080").unwrap().ip().to_string(), "10.88.0.1");
        assert_eq!(ask_tcp("127.0.0.1:8082").unwrap().ip().to_string(), "10.88.0.1");
        ask_tcp("192.0.2.1:8081").unwrap();
        ask_tcp("[2001:db8::1]:8080").unwrap();
        assert!(ask_tcp("127.0.0.1:8081").is_err(), "only on 192.0.2.1");
        // From another pod, and from the pod itself.
        assert_eq!(from(&b, "192.0.2.1:8080"), Ok("10.88.0.1".to_owned()));
        assert_eq!(from(&a, "192.0.2.1:8080"), Ok("10.88.0.1".to_owned()));
        assert_eq!(from(&a, "[2001:db8::1]:8080"), Ok("fd88::1".to_owned()));
        // The kernel cannot lead ::1 into a pod; it must say so at once and not after a timeout.
        assert!(ask_tcp("[::1]:8080").unwrap_err().contains("refused"));

        network.detach(&server.sandbox).await.unwrap();
        for to in ["127.0.0.1:8080", "192.0.2.1:8081", "[2001:db8::1]:8080"] {
            assert!(ask_tcp(to).is_err(), "{to} after the pod has gone");
        }
        let rules = || sh("nft list ruleset; iptables-legacy-save; ip6tables-legacy-save");
        assert!(!rules().contains("8080"));
        // A start takes the rules up as they are, and removing them leaves nothing.
        drop(network);
        let network = Network::open(with(firewall)).await.unwrap();
        network.attach(&server).await.unwrap_err();
        let fresh = Netns::new();
        server.netns = fresh.0.clone();
        network.attach(&server).await.unwrap();
        serve_tcp(&fresh, "0.0.0.0:80");
        ask_tcp("127.0.0.1:8080").unwrap();
        network.uninstall().await.unwrap_err();
        drop(network);
        let network = Network::open(with(firewall)).await.unwrap();
        assert_eq!(network.gc(&[]).await.unwrap(), 2);
        network.uninstall().await.unwrap();
        assert!(!rules().to_lowercase().contains("crisp"), "{}", rules());
        assert_eq!(sh("sysctl -n net.ipv4.ip_forward").trim(), "0");
    });
}

#[test]
fn udp_follows_the_pod_by_nftables() {
    udp_follows_the_pod(FirewallChoice::Nftables);
}

#[test]
fn udp_follows_the_pod_by_iptables() {
    udp_follows_the_pod(FirewallChoice::Iptables);
}

fn udp_follows_the_pod(firewall: FirewallChoice) {
    machine(async move || {
        let outside = neighbour();
        let mut config = config();
        config.builtin.firewall = firewall;
        let network = Network::open(config).await.unwrap();
        // One client, one port, all the time: without care the kernel would hold on to what its first packet met.
        let remote = outside.run(|| UdpClient::new("192.0.2.2:4000"));
        let local = UdpClient::new("127.0.0.1:4001");
        assert!(remote.ask("192.0.2.1:5353").is_err(), "nobody there yet");
        for _ in 0..2 {
            let netns = Netns::new();
            let mut server = pod(&netns);
            server.port_mappings = vec![port(Protocol::Udp, 5353, 53, None)];
            network.attach(&server).await.unwrap();
            serve_udp(&netns, "0.0.0.0:53");
            assert_eq!(remote.ask("192.0.2.1:5353"), Ok("192.0.2.2:4000".parse::<SocketAddr>().unwrap()));
            assert_eq!(local.ask("127.0.0.1:5353").unwrap().ip().to_string(), "10.88.0.1");
            network.detach(&server.sandbox).await.unwrap();
            assert!(remote.ask("192.0.2.1:5353").is_err(), "nobody there any more");
        }
    });
}

/// An SCTP packet with one INIT chunk (RFC 9260).
fn sctp_init(destination: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(40_000u16.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0; 8]); // verification tag 0, then room for the checksum
    packet.extend([1, 0, 0, 20]); // INIT, 20 bytes
    packet.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]); // tag, window, streams, sequence number
    let checksum = crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| step(c)))
}

/// This kernel may have no SCTP sockets; translating its packets is another part of the kernel. So they are made by hand
/// and sent over raw sockets.
#[test]
fn sctp_packets_arrive() {
    machine(async || {
        let outside = neighbour();
        let network = Network::open(config()).await.unwrap();
        let netns = Netns::new();
        let mut server = pod(&netns);
        server.port_mappings = vec![port(Protocol::Sctp, 3868, 3869, None)];
        network.attach(&server).await.unwrap();
        let rules = sh("nft list ruleset");
        assert!(rules.contains("sctp . 3868 : 10.88.0.2 . 3869"), "{rules}");
        if std::process::Command::new("socat").arg("-V").output().is_err() {
            println!("no SCTP packet is sent: there is no socat");
            return;
        }
        std::fs::write("/run/packet", sctp_init(3868)).unwrap();
        let receiver = netns.clone();
        let received =
            std::thread::spawn(move || receiver.sh("timeout 5 socat -u IP4-RECV:132 - | od -An -tx1 -N4"));
        let listens = || !netns.sh("cat /proc/net/raw | tail -n +2").is_empty();
        eventually("the receiver listens", listens).await;
        outside.sh("socat -u OPEN:/run/packet IP4-SENDTO:192.0.2.1:132");
        let got = received.join().unwrap();
        // Source port 40000 and destination port 3869, the pod's.
        assert!(got.trim() == "9c 40 0f 1d", "{got}");
        network.detach(&server.sandbox).await.unwrap();
        assert!(!sh("nft list ruleset").contains("3868"));
    });
}

#[test]
fn the_world_sees_the_host_and_the_host_is_closed_to_pods() {
    machine(async || {
        let outside = neighbour();
        let network = Network::open(with(FirewallChoice::Auto)).await.unwrap();
        let netns = Netns::new();
        network.attach(&pod(&netns)).await.unwrap();
        serve_tcp(&outside, "192.0.2.2:80");
        serve_tcp(&outside, "[2001:db8::2]:80");
        let seen = |to: &'static str| netns.run(move || ask_tcp(to).map(|s| s.ip().to_string()));
        assert_eq!(seen("192.0.2.2:80"), Ok("192.0.2.1".to_owned()));
        assert_eq!(seen("[2001:db8::2]:80"), Ok("2001:db8::1".to_owned()));
        // route_localnet must not let a pod talk to what listens on the host's loopback only.
        let home = std::net::TcpListener::bind("127.0.0.1:7000").unwrap();
        netns.sh("ip route add 127.0.0.2/32 via 10.88.0.1 2>/dev/null || true");
        netns.sh("ip address del 127.0.0.1/8 dev lo; ip route add 127.0.0.0/8 via 10.88.0.1");
        netns.sh("echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");
        assert!(seen("127.0.0.1:7000").is_err());
        drop(home);
    });
}

#[test]
fn a_port_has_one_holder() {
    machine(async || {
        let network = Network::open(config()).await.unwrap();
        let (a, b) = (Netns::new(), Netns::new());
        let (mut first, mut second) = (pod(&a), pod(&b));
        first.port_mappings = vec![port(Protocol::Tcp, 8080, 80, None)];
        second.port_mappings = vec![port(Protocol::Udp, 8080, 80, None), port(Protocol::Tcp, 8080, 81, None)];
        network.attach(&first).await.unwrap();
        let error = network.attach(&second).await.unwrap_err();
        assert!(
            matches!(&error, NetworkError::PortTaken { port: 8080, holder, .. } if *holder == first.sandbox)
        );
        assert!(error.to_string().contains("tcp 8080"), "{error}");
        // The address that it had for a moment is not the next one's. Nothing else of the second was kept, so it gets its ports when the first has gone.
        network.detach(&first.sandbox).await.unwrap();
        network.attach(&second).await.unwrap();
        // The same over a restart of the daemon.
        drop(network);
        let network = Network::open(config()).await.unwrap();
        first.netns = Netns::new().0;
        assert!(network.attach(&first).await.unwrap_err().to_string().contains(second.sandbox.as_str()));
        assert!(sh("nft list ruleset").contains("tcp . 8080 : 10.88.0.4 . 81"));
        // Somebody flushes the rules: a detach goes on.
        sh("nft flush ruleset");
        network.detach(&second.sandbox).await.unwrap();
    });
}
