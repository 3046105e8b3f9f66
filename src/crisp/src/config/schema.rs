//! Every key: its kind, its default and what it means. The one place to look and to change.

use super::value::Kind::{
    self, Address, Bool, Choice, Directive, Integer, Listen, Name, Networks, OptionalPath, Parent, Path,
    Paths, Size, Span, Texts,
};

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted; `*` stands for a name that the administrator chooses.
    pub path: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// Its default, in TOML.
    pub default: &'static str,
    /// For people, one or more lines.
    pub doc: &'static str,
    /// SIGHUP changes it in a running daemon; the others need a restart.
    pub live: bool,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc, live: false }
}

const fn live(key: Key) -> Key {
    Key { live: true, ..key }
}

/// All keys, in the order in which they are printed.
pub const KEYS: &[Key] = &[
    key(
        "root",
        Path,
        r#""/var/lib/crisp""#,
        "Images and the records of pods and containers: what survives a reboot.",
    ),
    key(
        "state",
        Path,
        r#""/run/crisp""#,
        "Sockets, namespaces and mounts: what dies with the boot. On a tmpfs.",
    ),
    key(
        "socket",
        Path,
        r#""/run/crisp/crisp.sock""#,
        "The socket for the kubelet (--container-runtime-endpoint=unix://...) and crictl, mode 0600.\n\
         Follows state if only that is set.",
    ),
    key(
        "monitor",
        OptionalPath,
        r#""""#,
        "The program that watches a pod. Empty: crisp-monitor beside the daemon's own file.",
    ),
    key(
        "exec_sync_output_limit",
        Size,
        r#""16MiB""#,
        "How much of each output stream an ExecSync (probe, hook) keeps; the rest is read and dropped.",
    ),
    key(
        "drain_timeout",
        Span,
        r#""10s""#,
        "How long requests that run may go on after SIGTERM. Pods are not touched.",
    ),
    key(
        "image.certs_dirs",
        Paths,
        r#"["/etc/crisp/certs.d", "/etc/containerd/certs.d"]"#,
        "Folders with mirrors and certificates, NAME/hosts.toml for each registry; the first that has one counts.",
    ),
    key("image.pinned", Texts, "[]", "Images that the kubelet may not remove when the disk fills up."),
    key(
        "image.max_concurrent_downloads",
        Integer(1, 64),
        "6",
        "Layers that are downloaded and unpacked at the same time, over all pulls.",
    ),
    key(
        "image.pull_progress_timeout",
        Span,
        r#""2m""#,
        "A pull that gets no byte for so long fails. 0: never.",
    ),
    key(
        "image.docker_config",
        OptionalPath,
        r#""""#,
        "A Docker config.json with credentials, for pulls to which the kubelet gives none. Empty: none.",
    ),
    key(
        "image.import_dir",
        OptionalPath,
        r#""""#,
        "Image archives (OCI or Docker) in this folder are imported at start. Empty: none.",
    ),
    key(
        "network.cni_conf_dir",
        Path,
        r#""/etc/cni/net.d""#,
        "CNI configuration; watched. Its first file by name counts.",
    ),
    key(
        "network.cni_bin_dirs",
        Paths,
        r#"["/opt/cni/bin", "/usr/lib/cni"]"#,
        "CNI plugins, searched in this order.",
    ),
    key("network.add_timeout", Span, r#""90s""#, "How long a plugin may take to add a pod to the network."),
    key("network.del_timeout", Span, r#""60s""#, "How long a plugin may take to take a pod away from it."),
    key(
        "network.builtin.enabled",
        Bool,
        "true",
        "Whether a host without CNI configuration gets the built-in network.",
    ),
    key("network.builtin.bridge", Name(15), r#""crisp0""#, "Its bridge."),
    key(
        "network.builtin.subnets",
        Networks,
        r#"["10.88.0.0/16"]"#,
        "Its addresses: at most one subnet of each family, the first gives the primary address.\n\
         The pod CIDR that a kubelet sends takes their place.",
    ),
    key("network.builtin.mtu", Integer(0, 65_535), "0", "Largest packet in bytes. 0: the kernel's choice."),
    key(
        "network.builtin.masquerade",
        Bool,
        "true",
        "Whether packets that leave the host carry the host's address.",
    ),
    key(
        "network.builtin.firewall",
        Choice(&["auto", "nftables", "iptables"]),
        r#""auto""#,
        "What does host ports and masquerading: nftables, iptables, or auto (nftables, and iptables where the kernel's\n\
         nftables does not take the rules).",
    ),
    key(
        "stream.address",
        Address,
        r#""127.0.0.1""#,
        "Where exec, attach and port-forward are served to the kubelet.",
    ),
    key("stream.port", Integer(0, 65_535), "0", "Their port. 0: a free one."),
    key("stream.tls_cert", OptionalPath, r#""""#, "Certificate for them (PEM). Empty: plain HTTP."),
    key("stream.tls_key", OptionalPath, r#""""#, "Its private key (PEM)."),
    key("stream.idle_timeout", Span, r#""4h""#, "A stream on which nothing moves for so long is closed."),
    key(
        "stream.creation_timeout",
        Span,
        r#""30s""#,
        "How long a client may take to open its streams once it is connected.",
    ),
    key(
        "stream.stall_timeout",
        Span,
        r#""30s""#,
        "How long a forwarded connection whose pod takes nothing may hold up the others of its session.",
    ),
    key(
        "stream.token_life",
        Span,
        r#""1m""#,
        "How long the address of a stream may be used, once, after it was handed out.",
    ),
    key(
        "cgroup.driver",
        Choice(&["auto", "cgroupfs", "systemd"]),
        r#""auto""#,
        "Who makes cgroups: auto (systemd if it is the host's init), cgroupfs, systemd. The kubelet asks for it.",
    ),
    key("cgroup.default_parent", Parent, r#""/crisp""#, "Parent cgroup of pods whose request names none."),
    key(
        "runtime.handlers.*.allow_privileged",
        Bool,
        "true",
        "Handlers that a RuntimeClass can name, beside the default one: [runtime.handlers.NAME].\n\
         Whether pods of this handler may be privileged.",
    ),
    key(
        "runtime.handlers.*.allow_host_namespaces",
        Bool,
        "true",
        "Whether pods of this handler may use the host's network, pid or IPC namespace.",
    ),
    key(
        "security.selinux",
        Bool,
        "false",
        "Whether processes and files of containers get SELinux labels. It needs a policy with container types (container-selinux);\n\
         without SELinux on the host it has no effect.",
    ),
    key(
        "metrics.address",
        Listen,
        r#""""#,
        "Where crisp's own metrics are served to Prometheus, as http://ADDRESS/metrics: 127.0.0.1:9340, say. No login is asked for.\n\
         Empty: nowhere.",
    ),
    live(key(
        "log.level",
        Directive,
        r#""info""#,
        "error, warn, info, debug, trace; or a filter such as \"info,crisp_image=debug\".",
    )),
    key("log.format", Choice(&["text", "json"]), r#""text""#, "Log lines on standard error: text or json."),
    key(
        "trace.file",
        OptionalPath,
        r#""""#,
        "Spans of all operations are appended here as JSON lines. Empty: no traces.",
    ),
];

/// The key of a dotted path as an administrator writes it.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| matches(key.path, path))
}

/// Whether keys lie below this path, so that it has to be a table.
pub fn is_table(path: &str) -> bool {
    let depth = path.split('.').count();
    KEYS.iter().any(|key| {
        let mut parts = key.path.split('.');
        let head: Vec<&str> = parts.by_ref().take(depth).collect();
        parts.next().is_some() && matches(&head.join("."), path)
    })
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('.'), path.split('.'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("*"), Some(name)) if !name.is_empty() => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// The environment variable of a key; keys with a name of the administrator's own have none.
pub fn variable(key: &Key) -> Option<String> {
    let name = key.path.replace('.', "_").to_ascii_uppercase();
    (!key.path.contains('*')).then(|| format!("CRISP_{name}"))
}
