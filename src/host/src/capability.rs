//! Capabilities of the calling process (`capabilities(7)`), by name.
#![allow(unsafe_code)]

use std::io;

use crisp_model::capability::CAPABILITIES;
use nix::{errno::Errno, libc};

/// A set of capabilities, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// The capabilities of these names. Names that this version does not know are left out: nobody can hold them by us.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let bit = |name: &str| CAPABILITIES.iter().position(|n| *n == name).map_or(0, |i| 1 << i);
        Self(names.into_iter().map(bit).fold(0, |all, b| all | b))
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The names of those in it that this version knows.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        CAPABILITIES
            .into_iter()
            .enumerate()
            .filter(move |(number, _)| self.contains(*number))
            .map(|(_, name)| name)
    }

    fn contains(self, number: usize) -> bool {
        self.0 >> number & 1 == 1
    }
}

/// The three sets of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// In force.
    pub effective: Set,
    /// Those that may be put in force.
    pub permitted: Set,
    /// Kept over execve under the rules of `capabilities(7)`.
    pub inheritable: Set,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words a set.
const VERSION: u32 = 0x2008_0522;

/// Those of the calling process.
pub fn get() -> io::Result<Sets> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: the header and the two words a set that its version asks for.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| Set(u64::from(high) << 32 | u64::from(low));
    Ok(Sets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Sets those of the calling process.
pub fn set(sets: Sets) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let word = |set: Set, high: bool| if high { (set.0 >> 32) as u32 } else { set.0 as u32 };
    let data = [false, true].map(|high| Data {
        effective: word(sets.effective, high),
        permitted: word(sets.permitted, high),
        inheritable: word(sets.inheritable, high),
    });
    // SAFETY: as above; the kernel only reads.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })?;
    Ok(())
}

/// Takes everything that is not in `keep` out of the bounding set. Needs `CAP_SETPCAP` if there is anything to take.
pub fn bound(keep: Set) -> io::Result<()> {
    for number in 0..64 {
        // SAFETY: numbers only.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, number as libc::c_ulong, 0, 0, 0) } {
            0 => {}
            1 if keep.contains(number) => {}
            1 => {
                // SAFETY: numbers only.
                Errno::result(unsafe {
                    libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0)
                })?;
            }
            _ => break, // past the last one that the kernel knows
        }
    }
    Ok(())
}

/// Makes the ambient set this one. Each needs to be permitted and inheritable.
pub fn set_ambient(ambient: Set) -> io::Result<()> {
    let control = |what: libc::c_int, number: usize| {
        // SAFETY: numbers only.
        Errno::result(unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, what as libc::c_ulong, number as libc::c_ulong, 0, 0)
        })
    };
    control(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for number in (0..CAPABILITIES.len()).filter(|n| ambient.contains(*n)) {
        control(libc::PR_CAP_AMBIENT_RAISE, number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        assert_eq!(Set::from_names(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NO_SUCH"]), Set(1 | 1 << 21));
        assert_eq!(Set::from_names(["CAP_CHECKPOINT_RESTORE"]), Set(1 << 40));
        assert_eq!(Set(0b110).and(Set(0b011)), Set(0b010));
    }

    #[test]
    fn the_present_sets_can_be_read_and_written_back() {
        let sets = get().unwrap();
        set(sets).unwrap();
        assert_eq!(get().unwrap(), sets);
        assert_eq!(sets.effective.and(sets.permitted), sets.effective);
    }
}
