use super::*;

fn least() -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "web".into(),
            uid: "4d3".into(),
            namespace: "default".into(),
            attempt: 1,
        }),
        ..Default::default()
    }
}

fn convert(wire: v1::PodSandboxConfig) -> Result<SandboxConfig, Invalid> {
    sandbox_config(&At::root("config"), Some(&wire), "")
}

fn port(protocol: i32, container_port: i32, host_port: i32, host_ip: &str) -> v1::PortMapping {
    v1::PortMapping { protocol, container_port, host_port, host_ip: host_ip.into() }
}

fn host_network() -> Option<v1::LinuxPodSandboxConfig> {
    let options = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    let context = v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    Some(v1::LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() })
}

#[test]
fn the_least_sandbox_has_a_name() {
    let model = convert(least()).expect("valid");
    assert_eq!((model.metadata.name.as_str(), model.metadata.attempt), ("web", 1));
    assert_eq!((model.log_directory, model.dns), (None, None));
}

#[test]
fn wrong_fields_are_named() {
    let metadata = |name: &str, uid: &str, namespace: &str| v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: namespace.into(),
            attempt: 0,
        }),
        ..least()
    };
    let ports = |list: Vec<v1::PortMapping>| v1::PodSandboxConfig { port_mappings: list, ..least() };
    let linux = |linux: v1::LinuxPodSandboxConfig| v1::PodSandboxConfig { linux: Some(linux), ..least() };
    let dns = |dns: v1::DnsConfig| v1::PodSandboxConfig { dns_config: Some(dns), ..least() };
    for (field, wire) in [
        ("metadata", v1::PodSandboxConfig { metadata: None, ..least() }),
        ("metadata.name", metadata("", "u", "n")),
        ("metadata.uid", metadata("p", "", "n")),
        ("metadata.namespace", metadata("p", "u", "")),
        ("metadata.namespace", metadata("p", "u", "a/b")),
        ("hostname", v1::PodSandboxConfig { hostname: "a".repeat(65), ..least() }),
        ("hostname", v1::PodSandboxConfig { hostname: "a b".into(), ..least() }),
        ("log_directory", v1::PodSandboxConfig { log_directory: "logs".into(), ..least() }),
        ("port_mappings[0].host_port", ports(vec![port(0, 80, 65_536, "")])),
        ("port_mappings[0].host_port", ports(vec![port(0, 80, -1, "")])),
        ("port_mappings[0].container_port", ports(vec![port(0, 0, 80, "")])),
        ("port_mappings[0].protocol", ports(vec![port(3, 80, 80, "")])),
        ("port_mappings[0].host_ip", ports(vec![port(0, 80, 80, "localhost")])),
        ("port_mappings[1].host_port", ports(vec![port(0, 80, 80, ""), port(0, 81, 80, "")])),
        ("dns_config.servers[0]", dns(v1::DnsConfig { servers: vec!["dns".into()], ..Default::default() })),
        (
            "dns_config.searches[0]",
            dns(v1::DnsConfig { searches: vec!["a\nb".into()], ..Default::default() }),
        ),
        ("dns_config.options[0]", dns(v1::DnsConfig { options: vec!["".into()], ..Default::default() })),
        (
            "linux.cgroup_parent",
            linux(v1::LinuxPodSandboxConfig { cgroup_parent: "/a/../..".into(), ..Default::default() }),
        ),
        (
            r#"linux.sysctls["vm.swappiness"]"#,
            linux(v1::LinuxPodSandboxConfig {
                sysctls: [("vm.swappiness".to_owned(), "1".to_owned())].into(),
                ..Default::default()
            }),
        ),
        (
            "linux.resources.cpu_shares",
            linux(v1::LinuxPodSandboxConfig {
                resources: Some(v1::LinuxContainerResources { cpu_shares: -1, ..Default::default() }),
                ..Default::default()
            }),
        ),
    ] {
        assert_eq!(convert(wire).expect_err(field).field, format!("config.{field}"));
    }
    assert_eq!(sandbox_config(&At::root("config"), None, "").expect_err("none").field, "config");
    let handler = sandbox_config(&At::root("config"), Some(&least()), "a/b").expect_err("handler");
    assert_eq!(handler.field, "runtime_handler");
}

#[test]
fn port_mappings_without_a_host_port_and_repetitions_are_left_out() {
    let wire = v1::PodSandboxConfig {
        port_mappings: vec![
            port(0, 80, 8080, ""),
            port(0, 80, 8080, ""),
            port(0, 81, 0, ""),
            port(1, 53, 8080, ""),
            port(0, 80, 8080, "127.0.0.1"),
            port(2, 9, 8080, "::1"),
        ],
        ..least()
    };
    let ports = convert(wire).expect("valid").port_mappings;
    let kept: Vec<_> = ports.iter().map(|p| (p.protocol.name(), p.container_port, p.host_ip)).collect();
    let ip = |text: &str| text.parse::<IpAddr>().ok();
    assert_eq!(
        kept,
        [("tcp", 80, None), ("udp", 53, None), ("tcp", 80, ip("127.0.0.1")), ("sctp", 9, ip("::1"))]
    );
}

#[test]
fn the_hosts_network_has_the_hosts_name_and_ports() {
    let wire = v1::PodSandboxConfig {
        hostname: "pod".into(),
        port_mappings: vec![port(0, 80, 8080, "")],
        linux: host_network(),
        ..least()
    };
    let model = convert(wire).expect("valid");
    assert!(model.hostname.is_empty() && model.port_mappings.is_empty());
}

#[test]
fn a_sysctl_in_two_spellings_is_refused() {
    let sysctls = HashMap::from([
        ("net.ipv4.ip_forward".to_owned(), "0".to_owned()),
        ("net/ipv4/ip_forward".to_owned(), "1".to_owned()),
    ]);
    let linux = v1::LinuxPodSandboxConfig { sysctls, ..Default::default() };
    assert!(convert(v1::PodSandboxConfig { linux: Some(linux), ..least() }).is_err());
}

#[test]
fn servers_may_have_a_zone() {
    let dns =
        v1::DnsConfig { servers: vec!["fe80::1%eth0".into(), "10.0.0.10".into()], ..Default::default() };
    assert!(convert(v1::PodSandboxConfig { dns_config: Some(dns), ..least() }).is_ok());
}
