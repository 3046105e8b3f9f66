//! A pod's network devices, from `/proc/<pid>/net/dev` of its infra container: no namespace is entered.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
};

use crisp_host::beneath::{Links, open_beneath};

/// Counters of one network device (`proc_pid_net(5)`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Name.
    pub name: String,
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Dropped while receiving.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Errors while sending.
    pub tx_errors: u64,
    /// Dropped while sending.
    pub tx_dropped: u64,
}

/// A process whose network namespace is looked at. Holds its folder in `/proc`, so that a later process with the same
/// number is never taken for it; the namespace itself is not held.
#[derive(Debug)]
pub(super) struct NetworkView {
    process: File,
}

impl NetworkView {
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let process = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(format!("/proc/{pid}"))?;
        Ok(Self { process })
    }

    /// The devices but the loopback, the default one (`eth0`) first. An error once the process is gone.
    pub(super) fn read(&self) -> io::Result<Vec<InterfaceUsage>> {
        let mut file = File::from(open_beneath(&self.process, b"net/dev", libc::O_RDONLY, Links::Refuse)?);
        let mut text = String::with_capacity(2048);
        file.read_to_string(&mut text)?;
        Ok(parse(&text))
    }
}

fn parse(text: &str) -> Vec<InterfaceUsage> {
    let mut all: Vec<InterfaceUsage> = text.lines().filter_map(line).filter(|i| i.name != "lo").collect();
    all.sort_by_key(|interface| interface.name != "eth0");
    all
}

/// `  eth0: rbytes rpackets rerrs rdrop fifo frame compressed multicast tbytes tpackets terrs tdrop …`
fn line(line: &str) -> Option<InterfaceUsage> {
    // Names may hold colons (aliases of old), counters never do.
    let (name, counters) = line.rsplit_once(':')?;
    let n: Vec<u64> = counters.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = n[..]
    else {
        return None;
    };
    Some(InterfaceUsage {
        name: name.trim().to_owned(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORDED: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1696084    9136    0    0    0     0          0         0  1696084    9136    0    0    0     0       0          0
  net1:      10       1    0    0    0     0          0         0       20       2    0    0    0     0       0          0
  eth0: 5028472   14437    1    2    0     0          0         0  9870421   13817    3    4    0     0       0          0
";

    #[test]
    fn the_default_device_is_first_and_the_loopback_is_left_out() {
        let all = parse(RECORDED);
        let names: Vec<&str> = all.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["eth0", "net1"]);
        let eth0 = &all[0];
        assert_eq!(
            (eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped),
            (5_028_472, 14_437, 1, 2)
        );
        assert_eq!(
            (eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped),
            (9_870_421, 13_817, 3, 4)
        );
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_not_another_process() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let view = NetworkView::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(view.read().is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(view.read().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[ a-z0-9:\\n|]{0,300}") {
            let _ = parse(&text);
        }

        #[test]
        fn counters_are_taken_in_order(n in proptest::collection::vec(any::<u64>(), 16)) {
            let words: Vec<String> = n.iter().map(u64::to_string).collect();
            let all = parse(&format!("  eth9: {}\n", words.join(" ")));
            prop_assert_eq!(all[0].rx_bytes, n[0]);
            prop_assert_eq!(all[0].tx_dropped, n[11]);
        }
    }
}
