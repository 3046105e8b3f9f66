//! The built-in network on machines of the tests' own.

#![allow(clippy::unwrap_used, reason = "it is all test code")]

mod lab;

use std::{collections::HashSet, net::IpAddr};

use crisp_network::{Network, NetworkError, NetworkKind};
use lab::{Netns, config, eventually, machine, pod, sh};

#[test]
fn a_pod_gets_an_address_and_reaches_its_host() {
    machine(async || {
        let network = Network::open(config()).await.unwrap();
        let status = network.status();
        assert!(status.ready, "{status:?}");
        assert_eq!(status.kind, NetworkKind::Builtin);
        let netns = Netns::new();
        let pod = pod(&netns);
        let got = network.attach(&pod).await.unwrap();
        assert_eq!(got.ips, ["10.88.0.2".parse::<std::net::IpAddr>().unwrap()]);
        println!("{}", netns.sh("ip address; ip route"));
        network.check(&pod.sandbox).await.unwrap();
        network.detach(&pod.sandbox).await.unwrap();
        network.detach(&pod.sandbox).await.unwrap();
        netns.drop_pin();
        eventually("the pair goes with its namespace", || !sh("ip -o link").contains("cr0a58")).await;
        network.uninstall().await.unwrap();
        assert!(!sh("ip -o link").contains("crisp0"));
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// Attaches many pods at once, each in a namespace of its own.
async fn attach_all(network: &Network, pods: &[crisp_network::PodAttachment]) -> Vec<IpAddr> {
    let attach = |pod: crisp_network::PodAttachment| {
        let network = network.clone();
        tokio::spawn(async move { network.attach(&pod).await.unwrap().ips[0] })
    };
    let tasks: Vec<_> = pods.iter().cloned().map(attach).collect();
    let mut found = Vec::new();
    for task in tasks {
        found.push(task.await.unwrap());
    }
    found
}

#[test]
fn no_address_has_two_holders() {
    machine(async || {
        let netns: Vec<Netns> = (0..200).map(|_| Netns::new()).collect();
        let pods: Vec<_> = netns.iter().map(pod).collect();
        let network = Network::open(config()).await.unwrap();
        let mut held = attach_all(&network, &pods[..120]).await;
        // Half-way, the daemon ends as with kill -9 (nothing is written on the way out) and starts again.
        drop(network);
        let network = Network::open(config()).await.unwrap();
        held.extend(attach_all(&network, &pods[120..]).await);
        assert_eq!(held.iter().collect::<HashSet<_>>().len(), 200);
        let usage = network.status().details["subnets"].clone();
        assert_eq!(usage[0]["size"], 65533);
        // After a start that knows of only ten live pods, the others' addresses are free, and the search goes on.
        drop(network);
        let network = Network::open(config()).await.unwrap();
        let newcomer = Netns::new();
        held.push(network.attach(&pod(&newcomer)).await.unwrap().ips[0]);
        let live: Vec<_> = pods[..10].iter().map(|p| p.sandbox.clone()).collect();
        assert_eq!(network.gc(&live).await.unwrap(), 190);
        let fresh = Netns::new();
        let next = network.attach(&pod(&fresh)).await.unwrap().ips[0];
        assert!(!held.contains(&next), "{next} comes back while others were never used");
        assert_eq!(std::fs::read_dir(config().builtin.state_dir.join("pods")).unwrap().count(), 12);
    });
}

#[test]
fn a_small_pool_runs_dry_and_never_reuses_a_living_interface() {
    machine(async || {
        let mut config = config();
        config.builtin.subnets = vec!["10.1.0.0/29".parse().unwrap()];
        let network = Network::open(config.clone()).await.unwrap();
        let netns: Vec<Netns> = (0..5).map(|_| Netns::new()).collect();
        let pods: Vec<_> = netns.iter().map(pod).collect();
        attach_all(&network, &pods).await;
        let more = Netns::new();
        let late = pod(&more);
        let error = network.attach(&late).await.unwrap_err();
        assert!(matches!(error, NetworkError::Exhausted { size: 5, .. }), "{error}");
        assert!(error.to_string().contains("10.1.0.0/29"), "{error}");
        // Its address is free but its interface still there: it must not be given out.
        network.detach(&pods[2].sandbox).await.unwrap();
        let error = network.attach(&late).await.unwrap_err();
        assert!(matches!(error, NetworkError::Exhausted { .. }), "{error}");
        // Also after a restart, when nobody remembers.
        drop(network);
        let network = Network::open(config).await.unwrap();
        assert!(network.attach(&late).await.is_err());
        netns[2].drop_pin();
        eventually("the old pair goes", || !sh("ip -o link").contains("cr0a010004@")).await;
        assert_eq!(network.attach(&late).await.unwrap().ips[0].to_string(), "10.1.0.4");
    });
}

#[test]
fn a_failed_attach_keeps_nothing() {
    machine(async || {
        let mut config = config();
        config.builtin.subnets = vec!["10.1.0.0/30".parse().unwrap()];
        let network = Network::open(config.clone()).await.unwrap();
        let netns = Netns::new();
        let mut broken = pod(&netns);
        let no_namespace = ["/run/absent", "/etc/passwd", "/proc/self/ns/mnt", "/run/own"];
        // The host's own, as seen by the network's thread.
        std::fs::File::create("/run/own").unwrap();
        sh("mount --bind /proc/self/ns/net /run/own");
        for path in no_namespace {
            broken.netns = path.into();
            let error = network.attach(&broken).await.unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
        broken.netns = netns.0.clone();
        broken.annotations.insert("kubernetes.io/ingress-bandwidth".to_owned(), "lots".to_owned());
        assert!(network.attach(&broken).await.unwrap_err().to_string().contains("lots"));
        netns.sh("ip link add eth0 type bridge");
        broken.annotations.clear();
        assert!(
            network.attach(&broken).await.unwrap_err().to_string().contains("already has an interface eth0")
        );
        assert_eq!(std::fs::read_dir(config.builtin.state_dir.join("pods")).unwrap().count(), 0);
        assert!(!sh("ip -o link").contains("cr0a01"));
        netns.sh("ip link del eth0");
        assert_eq!(network.attach(&broken).await.unwrap().ips[0].to_string(), "10.1.0.2");
    });
}

#[test]
fn the_kubelet_changes_the_subnets() {
    machine(async || {
        let network = Network::open(config()).await.unwrap();
        let (a, b, c) = (Netns::new(), Netns::new(), Netns::new());
        let old = pod(&a);
        network.attach(&old).await.unwrap();
        network.set_pod_cidr(&["10.99.0.0/24".parse().unwrap(), "fd99::/64".parse().unwrap()]).await.unwrap();
        let new = network.attach(&pod(&b)).await.unwrap();
        assert_eq!(new.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.99.0.2", "fd99::2"]);
        drop(network);
        let network = Network::open(config()).await.unwrap();
        assert_eq!(network.attach(&pod(&c)).await.unwrap().ips[0].to_string(), "10.99.0.3");
        // The old pod still has its gateway and is still masqueraded, and is let go.
        assert!(sh("nft list ruleset").contains("ip saddr 10.88.0.0/16 ip daddr != 10.88.0.0/16"));
        lab::talk::serve_tcp(&a, "10.88.0.2:80");
        lab::talk::ask_tcp("10.88.0.2:80").unwrap();
        network.detach(&old.sandbox).await.unwrap();
        let bad = network.set_pod_cidr(&["10.0.0.0/31".parse().unwrap()]).await.unwrap_err();
        assert!(bad.to_string().contains("no room"), "{bad}");
    });
}

#[test]
fn what_is_in_the_way_is_said_and_mended() {
    machine(async || {
        sh("ip link add other type bridge; ip address add 10.88.5.1/24 dev other; ip link set other up");
        let network = Network::open(config()).await.unwrap();
        let status = network.status();
        assert!(!status.ready);
        assert!(status.message.contains("10.88.5.1/24"), "{status:?}");
        sh("ip link del other; ip link add crisp0 type veth");
        let netns = Netns::new();
        let pod = pod(&netns);
        let error = network.attach(&pod).await.unwrap_err();
        assert!(error.to_string().contains("crisp0 exists and is not a bridge"), "{error}");
        sh("ip link del crisp0");
        network.attach(&pod).await.unwrap();
        // Somebody deletes the bridge: the next pod brings it back.
        sh("ip link del crisp0");
        network.attach(&lab::pod(&Netns::new())).await.unwrap();
    });
}

#[test]
fn what_others_remove_comes_back() {
    machine(async || {
        sh("ip link add way type bridge; ip link set way mtu 1400 up; ip address add 192.0.2.1/24 dev way");
        sh("ip route add default via 192.0.2.254");
        let network = Network::open(config()).await.unwrap();
        let netns = Netns::new();
        let pod = pod(&netns);
        network.attach(&pod).await.unwrap();
        assert!(netns.sh("ip link show eth0").contains("mtu 1400"));
        sh("nft flush ruleset; sysctl -q -w net.ipv4.ip_forward=0; ip link set crisp0 down");
        let mended = || {
            // Asking is what makes it look.
            network.status();
            sh("nft list ruleset").contains("masquerade")
                && sh("sysctl -n net.ipv4.ip_forward").trim() == "1"
                && sh("ip -o link show crisp0").contains(",UP")
        };
        eventually("rules, forwarding and bridge are back", mended).await;
        network.detach(&pod.sandbox).await.unwrap();
    });
}

#[test]
fn traffic_is_limited() {
    machine(async || {
        let network = Network::open(config()).await.unwrap();
        let netns = Netns::new();
        let mut pod = pod(&netns);
        for (name, value) in [("ingress", "10M"), ("egress", "40G")] {
            pod.annotations.insert(format!("kubernetes.io/{name}-bandwidth"), value.to_owned());
        }
        network.attach(&pod).await.unwrap();
        let (host, inside) = (sh("tc qdisc show dev cr0a580002"), netns.sh("tc qdisc show dev eth0"));
        assert!(host.contains("tbf") && host.contains("rate 10Mbit"), "{host}");
        assert!(inside.contains("tbf") && inside.contains("rate 40Gbit"), "{inside}");
        lab::talk::serve_tcp(&netns, "10.88.0.2:80");
        lab::talk::ask_tcp("10.88.0.2:80").unwrap();
    });
}

#[test]
fn a_detach_leaves_the_interface_to_its_namespace() {
    machine(async || {
        let network = Network::open(config()).await.unwrap();
        let mut times = Vec::new();
        // The namespaces stay until all is measured: the kernel's cleaning up after them would be measured, too.
        let all: Vec<Netns> = (0..40).map(|_| Netns::new()).collect();
        for netns in &all {
            let pod = pod(netns);
            let start = std::time::Instant::now();
            network.attach(&pod).await.unwrap();
            let attached = start.elapsed();
            let start = std::time::Instant::now();
            network.detach(&pod.sandbox).await.unwrap();
            times.push((attached, start.elapsed()));
        }
        times.sort();
        println!("attach, detach: min {:?}, median {:?}", times[0], times[20]);
        // Times are for people; what makes the difference is that no request deletes an interface (15 ms and more).
        assert_eq!(sh("ip -o link").matches("cr0a58").count(), 40);
    });
}
