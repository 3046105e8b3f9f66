//! The built-in network on machines of the tests' own.

mod lab;

use crisp_network::{Network, NetworkKind};
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
