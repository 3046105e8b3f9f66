//! The CNI client, with the real plugins of /usr/lib/cni and with ones made of shell.

#![allow(clippy::unwrap_used, reason = "it is all test code")]

mod lab;

use std::{fs, path::Path, time::Duration};

use crisp_model::{
    SandboxId,
    sandbox::{DnsConfig, PortMapping, Protocol},
};
use crisp_network::{Network, NetworkError, NetworkKind, Verb};
use lab::{
    Netns, ROOT, config, eventually, machine, plugin, pod, sh,
    talk::{ask_tcp, serve_tcp},
    write,
};

fn bridge(version: &str) -> String {
    format!(
        r#"{{"cniVersion": "{version}", "name": "net", "plugins": [
            {{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
              "ipam": {{"type": "host-local", "dataDir": "{ROOT}/ipam", "routes": [{{"dst": "0.0.0.0/0"}}],
                "ranges": [[{{"subnet": "10.22.0.0/24"}}], [{{"subnet": "fd22::/64"}}]]}}}},
            {{"type": "portmap", "snat": true, "capabilities": {{"portMappings": true}}}},
            {{"type": "bandwidth", "capabilities": {{"bandwidth": true}}}}]}}"#
    )
}

/// Addresses that host-local has given out.
fn given_out() -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("{ROOT}/ipam/net")) else { return Vec::new() };
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with("10.") || n.starts_with("fd")).collect()
}

fn records() -> usize {
    fs::read_dir(config().cni_cache_dir).unwrap().count()
}

#[test]
fn real_plugins_of_each_version() {
    machine(async || {
        if !Path::new("/usr/lib/cni/bridge").exists() {
            println!("not run: no plugins in /usr/lib/cni");
            return;
        }
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            write(format!("{ROOT}/net.d/10-net.conflist"), &bridge(version));
            let network = Network::open(config()).await.unwrap();
            let status = network.status();
            assert!(status.ready && status.kind == NetworkKind::Cni, "{status:?}");
            assert_eq!(status.details["cniVersion"], version);
            let netns = Netns::new();
            let mut pod = pod(&netns);
            pod.port_mappings = vec![PortMapping {
                protocol: Protocol::Tcp,
                container_port: 80,
                host_port: 8080,
                host_ip: None,
            }];
            pod.annotations.insert("kubernetes.io/ingress-bandwidth".to_owned(), "10M".to_owned());
            let got = network.attach(&pod).await.unwrap();
            assert_eq!(got.ips.len(), 2, "{got:?}");
            assert!(got.ips[0].to_string().starts_with("10.22.0."), "{got:?}");
            assert!(got.ips[1].to_string().starts_with("fd22::"), "{got:?}");
            assert!(got.interfaces.iter().any(|i| i.name == "eth0" && !i.sandbox.is_empty()));
            assert!(netns.sh("ip -o address show lo").contains("127.0.0.1"));
            serve_tcp(&netns, "0.0.0.0:80");
            ask_tcp("127.0.0.1:8080").unwrap();
            assert!(sh("tc qdisc").contains("rate 10Mbit"));
            // No CHECK here: portmap 1.1 looks for the rules of one family in the tables of the other.
            assert_eq!(given_out().len(), 2);
            // The configuration goes, the namespace too, and the daemon is killed and started: all is given back.
            fs::remove_file(format!("{ROOT}/net.d/10-net.conflist")).unwrap();
            drop(network);
            let network = Network::open(config()).await.unwrap();
            netns.drop_pin();
            network.detach(&pod.sandbox).await.unwrap();
            assert_eq!((given_out().len(), records()), (0, 0));
            assert!(ask_tcp("127.0.0.1:8080").is_err());
            network.detach(&pod.sandbox).await.unwrap();
        }
    });
}

#[test]
fn a_single_plugin_configuration() {
    machine(async || {
        if !Path::new("/usr/lib/cni/ptp").exists() {
            println!("not run: no plugins in /usr/lib/cni");
            return;
        }
        let conf = format!(
            r#"{{"cniVersion": "0.4.0", "name": "net", "type": "ptp",
                "ipam": {{"type": "host-local", "dataDir": "{ROOT}/ipam", "subnet": "10.23.0.0/24"}},
                "dns": {{"nameservers": ["10.23.0.53"], "search": ["x.test"]}}}}"#
        );
        write(format!("{ROOT}/net.d/10-net.conf"), &conf);
        let network = Network::open(config()).await.unwrap();
        let netns = Netns::new();
        let pod = pod(&netns);
        let got = network.attach(&pod).await.unwrap();
        assert_eq!(got.ips[0].to_string(), "10.23.0.2");
        let dns = DnsConfig {
            servers: vec!["10.23.0.53".into()],
            searches: vec!["x.test".into()],
            options: vec![],
        };
        assert_eq!(got.dns, Some(dns));
        network.check(&pod.sandbox).await.unwrap();
        netns.sh("ip address flush dev eth0");
        let error = network.check(&pod.sandbox).await.unwrap_err().to_string();
        assert!(error.contains("CNI plugin ptp CHECK"), "{error}");
        // As after a start at which the kubelet knows of no pod.
        drop(network);
        let network = Network::open(config()).await.unwrap();
        let (second, second_netns) = (SandboxId::random(), Netns::new());
        let mut newcomer = lab::pod(&second_netns);
        newcomer.sandbox = second.clone();
        network.attach(&newcomer).await.unwrap();
        assert_eq!(network.gc(&[]).await.unwrap(), 1);
        assert_eq!(records(), 1, "what this run attached is left alone");
        network.detach(&second).await.unwrap();
        assert_eq!((given_out().len(), records()), (0, 0));
    });
}

const RESULT: &str = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/n"}],
    "ips":[{"address":"10.5.0.2/24","interface":0}]}"#;

/// A plugin that writes down what it is told, then does as the script says.
fn noting(name: &str, script: &str) {
    let head = format!(
        r#"input=$(cat); echo "$CNI_COMMAND {name} [$CNI_NETNS] $input" >> {ROOT}/log
        case $CNI_COMMAND in VERSION) echo '{{"supportedVersions":["0.4.0","1.0.0","1.1.0"]}}'; exit;; esac"#
    );
    plugin(name, &format!("{head}\n{script}"));
}

fn log() -> Vec<String> {
    fs::read_to_string(format!("{ROOT}/log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Verb and plugin of each call but VERSION.
fn calls() -> Vec<String> {
    let words = |line: String| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    log().into_iter().map(words).filter(|c| !c.starts_with("VERSION")).collect()
}

fn list(version: &str, plugins: &[&str]) {
    let plugins: Vec<String> = plugins.iter().map(|p| format!(r#"{{"type":"{p}","keep":"this"}}"#)).collect();
    let text = format!(r#"{{"cniVersion":"{version}","name":"net","plugins":[{}]}}"#, plugins.join(","));
    write(format!("{ROOT}/net.d/10-net.conflist"), &text);
}

#[test]
fn chains_verbs_and_their_order() {
    machine(async || {
        let add = format!("[ $CNI_COMMAND = ADD ] && echo '{RESULT}'; exit 0");
        noting("a", &add);
        noting("b", &add);
        list("1.1.0", &["a", "b"]);
        let network = Network::open(config()).await.unwrap();
        assert!(network.status().ready, "{:?}", network.status());
        let netns = Netns::new();
        let pod = pod(&netns);
        network.attach(&pod).await.unwrap();
        network.check(&pod.sandbox).await.unwrap();
        let gone = SandboxId::random();
        assert_eq!(network.gc(&[pod.sandbox.clone(), gone]).await.unwrap(), 0);
        network.detach(&pod.sandbox).await.unwrap();
        let order = [
            "STATUS a", "STATUS b", "ADD a", "ADD b", "CHECK a", "CHECK b", "GC a", "GC b", "DEL b", "DEL a",
        ];
        assert_eq!(calls(), order);
        let log = log();
        let of = |what: &str| log.iter().find(|l| l.starts_with(what)).unwrap();
        assert!(of("ADD a").contains(r#""keep":"this""#) && of("ADD a").contains(r#""name":"net""#));
        assert!(!of("ADD a").contains("prevResult") && of("ADD b").contains("prevResult"));
        assert!(of("ADD a").contains(&format!("[{}]", netns.0.display())));
        assert!(of("DEL a").contains("prevResult") && of("CHECK a").contains("prevResult"));
        assert!(of("GC a").contains(&format!(r#""containerID":"{}""#, pod.sandbox)), "{}", of("GC a"));
    });
}

#[test]
fn a_failed_add_is_followed_by_del() {
    machine(async || {
        noting("a", &format!("[ $CNI_COMMAND = ADD ] && echo '{RESULT}'; exit 0"));
        noting(
            "b",
            r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{"code":7,"msg":"no luck","details":"at all"}'; exit 1"#,
        );
        list("1.0.0", &["a", "b"]);
        let network = Network::open(config()).await.unwrap();
        let error = network.attach(&pod(&Netns::new())).await.unwrap_err();
        assert_eq!(error.to_string(), "CNI plugin b ADD: no luck (code 7): at all");
        assert_eq!(calls(), ["ADD a", "ADD b", "DEL b", "DEL a"]);
        assert_eq!(records(), 0);

        // If DEL fails too the record stays, and a later detach goes on; all plugins are asked each time.
        noting("b", &format!("[ -e {ROOT}/mended ] && exit 0; echo worse >&2; exit 3"));
        fs::remove_file(format!("{ROOT}/log")).unwrap();
        let netns = Netns::new();
        let pod = pod(&netns);
        let error = network.attach(&pod).await.unwrap_err().to_string();
        assert!(error.contains("CNI plugin b ADD") && error.contains("worse"), "{error}");
        assert_eq!(records(), 1);
        let error = network.detach(&pod.sandbox).await.unwrap_err().to_string();
        assert!(error.contains("CNI plugin b DEL"), "{error}");
        fs::write(format!("{ROOT}/mended"), "").unwrap();
        // Meanwhile the configuration has changed; what was used for ADD counts.
        list("1.0.0", &["other"]);
        netns.drop_pin();
        network.detach(&pod.sandbox).await.unwrap();
        assert_eq!(calls().last().unwrap(), "DEL a");
        assert!(log().last().unwrap().contains("[]"), "the namespace has gone: {:?}", log().last());
        assert_eq!(records(), 0);
    });
}

#[test]
fn a_hung_plugin_is_killed_with_all_it_started() {
    machine(async || {
        plugin(
            "a",
            &format!(
                "[ $CNI_COMMAND = ADD ] || exit 0; echo stuck >&2; sleep 1000 & echo $! > {ROOT}/pid; wait"
            ),
        );
        list("0.4.0", &["a"]);
        let mut config = config();
        config.deadlines.add_seconds = 1;
        let network = Network::open(config).await.unwrap();
        let error = network.attach(&pod(&Netns::new())).await.unwrap_err();
        assert_eq!(error.to_string(), "CNI plugin a ADD: killed after 1 s without an answer: stuck");
        let gone = || {
            let pid = fs::read_to_string(format!("{ROOT}/pid")).unwrap();
            // A zombie that nobody has reaped yet has ended, too.
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_err_and(|_| true)
                || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|s| s.contains(") Z "))
        };
        eventually("what the plugin started is killed", gone).await;

        // A caller that goes away (a request's deadline) leaves no plugin behind either.
        fs::remove_file(format!("{ROOT}/pid")).unwrap();
        let waiting = pod(&Netns::new());
        let attach = network.attach(&waiting);
        assert!(tokio::time::timeout(Duration::from_millis(300), attach).await.is_err());
        eventually("the plugin is killed", || fs::metadata(format!("{ROOT}/pid")).is_ok() && gone()).await;
        assert_eq!(records(), 1);
        network.detach(&waiting.sandbox).await.unwrap();
        assert_eq!(records(), 0);
    });
}

#[test]
fn answers_are_not_believed() {
    machine(async || {
        let network = Network::open(config()).await.unwrap();
        let mut status = network.changed();
        for (answer, problem) in [
            ("", "EOF"),
            (r#"{"cniVersion":"1.0.0"}"#, "no address"),
            (r#"{"cniVersion":"9.0.0","ips":[]}"#, "not supported"),
            (
                r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24","interface":5}]}"#,
                "interface number 5",
            ),
        ] {
            plugin("a", &format!("[ $CNI_COMMAND = ADD ] && echo '{answer}'; exit 0"));
            list("1.0.0", &["a"]);
            status.wait_for(|s| s.kind == NetworkKind::Cni).await.unwrap();
            let error = network.attach(&pod(&Netns::new())).await.unwrap_err();
            assert!(matches!(&error, NetworkError::PluginAnswer { verb: Verb::Add, .. }), "{error}");
            assert!(error.to_string().contains(problem), "{answer}: {error}");
        }
        // More than is read.
        plugin("a", "[ $CNI_COMMAND = ADD ] && head -c 3000000 /dev/zero | tr '\\0' x; exit 0");
        let error = network.attach(&pod(&Netns::new())).await.unwrap_err();
        assert!(error.to_string().contains("more than it may"), "{error}");
        assert_eq!(records(), 0);
    });
}

#[test]
fn the_status_tells_the_truth() {
    machine(async || {
        let folder = format!("{ROOT}/net.d");
        let mut config = config();
        config.builtin.enabled = false;
        let network = Network::open(config).await.unwrap();
        let mut status = network.changed();
        assert!(
            network.status().message.contains("no CNI configuration in /run/net.d"),
            "{:?}",
            network.status()
        );
        assert!(matches!(network.attach(&pod(&Netns::new())).await, Err(NetworkError::NotReady { .. })));
        // The folder comes, with half a file.
        write(format!("{folder}/10-net.conflist"), r#"{"cniVersion":"#);
        status.wait_for(|s| s.message.contains("10-net.conflist")).await.unwrap();
        // A plugin that nobody installed.
        list("1.1.0", &["missing"]);
        status
            .wait_for(|s| s.reason == "NetworkPluginMissing" && s.message.contains("missing"))
            .await
            .unwrap();
        // One of another version.
        plugin("old", r#"echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1"]}'"#);
        list("1.1.0", &["old"]);
        status.wait_for(|s| s.message.contains("1.1.0") && s.message.contains("0.3.1")).await.unwrap();
        // One that says that it cannot.
        noting("a", r#"[ -e /run/ok ] && exit 0; echo '{"code":50,"msg":"the fabric is down"}'; exit 1"#);
        list("1.1.0", &["a"]);
        status
            .wait_for(|s| s.message.contains("the fabric is down") && s.message.contains("STATUS"))
            .await
            .unwrap();
        fs::write("/run/ok", "").unwrap();
        eventually("asked again", || network.status().ready).await;
        // An earlier file takes over; then the folder is replaced and all goes.
        write(format!("{folder}/05-first.conf"), r#"{"cniVersion":"1.0.0","name":"first","type":"a"}"#);
        status.wait_for(|s| s.details["network"] == "first").await.unwrap();
        fs::remove_dir_all(&folder).unwrap();
        status.wait_for(|s| s.kind == NetworkKind::None).await.unwrap();
        list("1.1.0", &["a"]);
        status.wait_for(|s| s.ready).await.unwrap();
    });
}

#[test]
fn a_pod_can_go_when_its_plugin_has_gone() {
    machine(async || {
        noting("a", &format!("[ $CNI_COMMAND = ADD ] && echo '{RESULT}'; exit 0"));
        list("1.0.0", &["a"]);
        let network = Network::open(config()).await.unwrap();
        let netns = Netns::new();
        let pod = pod(&netns);
        network.attach(&pod).await.unwrap();
        fs::remove_file(format!("{ROOT}/bin/a")).unwrap();
        for _ in 0..2 {
            let error = network.detach(&pod.sandbox).await.unwrap_err();
            assert!(matches!(error, NetworkError::PluginMissing { .. }), "{error}");
        }
        network.detach(&pod.sandbox).await.unwrap();
        assert_eq!(records(), 0);
    });
}

#[test]
fn a_hung_status_does_not_keep_the_daemon_from_starting() {
    machine(async || {
        plugin("a", "sleep 1000");
        list("1.1.0", &["a"]);
        let mut config = config();
        config.deadlines.status_seconds = 2;
        let start = std::time::Instant::now();
        let network = Network::open(config).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        assert_eq!(network.status().reason, "NetworkStarting");
        let mut status = network.changed();
        status.wait_for(|s| s.message.contains("CNI plugin a STATUS: killed after 2 s")).await.unwrap();
    });
}
