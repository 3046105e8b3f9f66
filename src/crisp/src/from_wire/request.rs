//! Requests that are more than a configuration and an id: their small fields, checked.

use std::time::Duration;

use crisp_proto::v1;
use ipnet::IpNet;

use super::{
    error::{At, Invalid, Shown},
    text,
};

/// Longest time that is kept as asked for (136 years); longer ones mean "for ever" anyway and would overflow clocks.
const SECONDS_MAX: u64 = u32::MAX as u64;

/// Which of a process's streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// Sends its input.
    pub stdin: bool,
    /// Wants its output.
    pub stdout: bool,
    /// Wants its errors.
    pub stderr: bool,
    /// Has a terminal.
    pub tty: bool,
}

/// Program and arguments of an exec.
pub fn command(cmd: &[String]) -> Result<Vec<String>, Invalid> {
    let at = At::root("cmd");
    if cmd.first().is_none_or(String::is_empty) {
        return Err(at.invalid("must name a program"));
    }
    text::arguments(&at, cmd)
}

/// The limit of an ExecSync: `None` for 0.
pub fn exec_timeout(seconds: i64) -> Result<Option<Duration>, Invalid> {
    let limit = whole_seconds("timeout", seconds)?;
    Ok((!limit.is_zero()).then_some(limit))
}

/// The grace of a StopContainer: 0 kills at once.
pub fn stop_grace(seconds: i64) -> Result<Duration, Invalid> {
    whole_seconds("timeout", seconds)
}

fn whole_seconds(field: &str, seconds: i64) -> Result<Duration, Invalid> {
    let seconds =
        u64::try_from(seconds).map_err(|_| At::root(field).invalid(format!("{seconds} s is negative")))?;
    Ok(Duration::from_secs(seconds.min(SECONDS_MAX)))
}

/// Streams of an exec.
pub fn exec_streams(wire: &v1::ExecRequest) -> Result<Streams, Invalid> {
    streams(Streams { stdin: wire.stdin, stdout: wire.stdout, stderr: wire.stderr, tty: wire.tty })
}

/// Streams of an attach. `tty` has to be what the container has; the caller compares.
pub fn attach_streams(wire: &v1::AttachRequest) -> Result<Streams, Invalid> {
    streams(Streams { stdin: wire.stdin, stdout: wire.stdout, stderr: wire.stderr, tty: wire.tty })
}

fn streams(streams: Streams) -> Result<Streams, Invalid> {
    if streams.tty && streams.stderr {
        return Err(At::root("stderr").invalid("is set beside tty; a terminal has one output"));
    }
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(At::root("stdin").invalid("is not set, nor is stdout or stderr; one of them must be"));
    }
    Ok(streams)
}

/// Ports of a port-forward; none are all.
pub fn forward_ports(ports: &[i32]) -> Result<Vec<u16>, Invalid> {
    let at = At::root("port");
    let port = |(i, port): (usize, &i32)| match u16::try_from(*port) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(at.index(i).invalid(format!("{port} is not a port"))),
    };
    ports.iter().enumerate().map(port).collect()
}

/// The pods' networks that a node was given: at most one of each family; none is possible.
pub fn pod_cidrs(wire: Option<&v1::RuntimeConfig>) -> Result<Vec<IpNet>, Invalid> {
    let Some(network) = wire.and_then(|config| config.network_config.as_ref()) else { return Ok(Vec::new()) };
    let (root, middle) = (At::root("runtime_config"), "network_config");
    let at = root.field(middle);
    let at = at.field("pod_cidr");
    let mut networks: Vec<IpNet> = Vec::new();
    for part in network.pod_cidr.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let network: IpNet =
            part.parse().map_err(|_| at.invalid(format!("{} is not a network", Shown(part))))?;
        if networks.iter().any(|n| n.addr().is_ipv4() == network.addr().is_ipv4()) {
            return Err(at.invalid("has two networks of one family"));
        }
        networks.push(network);
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_a_program() {
        assert_eq!(command(&["sh".into(), String::new()]).map(|c| c.len()), Ok(2));
        for (field, bad) in
            [("cmd", vec![]), ("cmd", vec![String::new()]), ("cmd[1]", vec!["a".into(), "\0".to_owned()])]
        {
            assert_eq!(command(&bad).expect_err(field).field, field);
        }
    }

    #[test]
    fn times_are_not_negative_and_do_not_overflow() {
        assert_eq!(exec_timeout(0), Ok(None));
        assert_eq!(exec_timeout(3), Ok(Some(Duration::from_secs(3))));
        assert_eq!(stop_grace(0), Ok(Duration::ZERO));
        assert!(
            stop_grace(i64::MAX).is_ok_and(|grace| std::time::Instant::now().checked_add(grace).is_some())
        );
        assert_eq!(stop_grace(-1).expect_err("negative").field, "timeout");
    }

    #[test]
    fn a_client_wants_some_stream_and_a_terminal_has_no_errors() {
        let wire =
            |tty, stdin, stdout, stderr| v1::ExecRequest { tty, stdin, stdout, stderr, ..Default::default() };
        assert!(exec_streams(&wire(true, true, true, false)).is_ok());
        assert!(exec_streams(&wire(false, false, true, true)).is_ok());
        assert_eq!(exec_streams(&wire(true, true, true, true)).expect_err("tty").field, "stderr");
        assert_eq!(exec_streams(&wire(false, false, false, false)).expect_err("none").field, "stdin");
    }

    #[test]
    fn ports_are_ports() {
        assert_eq!(forward_ports(&[80, 65_535]), Ok(vec![80, 65_535]));
        for bad in [0, -1, 65_536] {
            assert_eq!(forward_ports(&[80, bad]).expect_err("bad").field, "port[1]");
        }
    }

    #[test]
    fn pod_networks_are_one_of_each_family() {
        let parse = |pod_cidr: &str| {
            let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.into() });
            pod_cidrs(Some(&v1::RuntimeConfig { network_config }))
        };
        assert_eq!(parse("").map(|n| n.len()), Ok(0));
        assert_eq!(parse("10.0.0.0/24, fd00::/64").map(|n| n.len()), Ok(2));
        for bad in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/1", "10.0.0.0/+8", "10.0.0.0/8,10.1.0.0/16"] {
            let error = parse(bad).expect_err(bad);
            assert_eq!(error.field, "runtime_config.network_config.pod_cidr");
        }
        assert_eq!(pod_cidrs(None), Ok(Vec::new()));
    }
}
