//! Stop signals: the CRI's names for the kernel's numbers.

use crisp_proto::v1::Signal;

use super::error::{At, Invalid};

/// glibc's `SIGRTMIN`: the kernel's first two real-time signals belong to its threads.
const RTMIN: i32 = 34;
/// The last real-time signal.
const RTMAX: i32 = 64;

/// The number of a stop signal; `None` for "the runtime's choice".
pub fn stop_signal(at: &At<'_>, value: i32) -> Result<Option<i32>, Invalid> {
    let signal = Signal::try_from(value).map_err(|_| at.invalid(format!("{value} is not a Signal")))?;
    Ok(number(signal))
}

/// The wire's name for a number, for answers. Of synonyms the first.
pub fn wire_signal(number: i32) -> Signal {
    let all = 1..=Signal::Sigrtmax as i32;
    let name =
        all.filter_map(|value| Signal::try_from(value).ok()).find(|s| self::number(*s) == Some(number));
    name.unwrap_or(Signal::RuntimeDefault)
}

/// Numbers of `signal(7)` for x86, arm and most others.
fn number(signal: Signal) -> Option<i32> {
    Some(match signal {
        Signal::RuntimeDefault => return None,
        Signal::Sighup => 1,
        Signal::Sigint => 2,
        Signal::Sigquit => 3,
        Signal::Sigill => 4,
        Signal::Sigtrap => 5,
        Signal::Sigabrt | Signal::Sigiot => 6,
        Signal::Sigbus => 7,
        Signal::Sigfpe => 8,
        Signal::Sigkill => 9,
        Signal::Sigusr1 => 10,
        Signal::Sigsegv => 11,
        Signal::Sigusr2 => 12,
        Signal::Sigpipe => 13,
        Signal::Sigalrm => 14,
        Signal::Sigterm => 15,
        Signal::Sigstkflt => 16,
        Signal::Sigchld | Signal::Sigcld => 17,
        Signal::Sigcont => 18,
        Signal::Sigstop => 19,
        Signal::Sigtstp => 20,
        Signal::Sigttin => 21,
        Signal::Sigttou => 22,
        Signal::Sigurg => 23,
        Signal::Sigxcpu => 24,
        Signal::Sigxfsz => 25,
        Signal::Sigvtalrm => 26,
        Signal::Sigprof => 27,
        Signal::Sigwinch => 28,
        Signal::Sigio | Signal::Sigpoll => 29,
        Signal::Sigpwr => 30,
        Signal::Sigsys => 31,
        // The rest are the real-time signals, which the CRI numbers in order: 15 after the first, 14 before the last.
        real_time => {
            let place = real_time as i32;
            let (first, last) = (Signal::Sigrtmin as i32, Signal::Sigrtmax as i32);
            if place <= Signal::Sigrtminplus15 as i32 {
                RTMIN + place - first
            } else {
                RTMAX - (last - place)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_number() {
        let at = At::root("config.stop_signal");
        for (name, number) in [
            (Signal::RuntimeDefault, None),
            (Signal::Sigterm, Some(15)),
            (Signal::Sigcld, Some(17)),
            (Signal::Sigusr1, Some(10)),
            (Signal::Sigrtmin, Some(34)),
            (Signal::Sigrtminplus3, Some(37)),
            (Signal::Sigrtminplus15, Some(49)),
            (Signal::Sigrtmaxminus14, Some(50)),
            (Signal::Sigrtmaxminus1, Some(63)),
            (Signal::Sigrtmax, Some(64)),
        ] {
            assert_eq!(stop_signal(&at, name as i32), Ok(number), "{name:?}");
        }
        for unknown in [-1, 66, i32::MAX] {
            assert!(stop_signal(&at, unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn numbers_find_their_way_back() {
        for value in 1..=Signal::Sigrtmax as i32 {
            let number = stop_signal(&At::root("s"), value).expect("in range").expect("has a number");
            assert_eq!(self::number(wire_signal(number)), Some(number));
        }
        assert_eq!(wire_signal(0), Signal::RuntimeDefault);
        assert_eq!(wire_signal(32), Signal::RuntimeDefault);
    }
}
