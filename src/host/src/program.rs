//! The pages of the running program itself.
//!
//! Owns no state; a crash leaves nothing.
#![allow(unsafe_code)]

use std::{fs, io, ops::Range, path::Path};

/// Lets go of the program's code and constants: what is used is mapped again from the page cache when it is used (a microsecond for
/// 64 KiB), what only the start or a rare request needed is not, and the kernel may use its memory for something else.
pub fn let_go() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    for range in unwritten(&fs::read_to_string("/proc/self/maps")?, &program) {
        let start = std::ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: a private mapping of a file that nobody has written to: the same bytes are there when it is touched again.
        if unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Mappings of the program that were never writable: its code, and constants in front of that. What lies behind the code may have
/// been written to by the dynamic linker, although it is read-only now (`proc_pid_maps(5)`).
fn unwritten(maps: &str, program: &Path) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut fields = line.splitn(6, ' ');
        let (Some(range), Some(access), Some(offset)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let path = fields.nth(2).unwrap_or_default().trim_start();
        let first = offset.bytes().all(|b| b == b'0');
        if Path::new(path) != program || !(access == "r-xp" || (access == "r--p" && first)) {
            continue;
        }
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((Some(from), Some(to))) = range.split_once('-').map(|(a, b)| (number(a), number(b)))
            && from < to
        {
            found.push(from..to);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written() {
        let maps = "55d0-55e0 r--p 00000000 fe:00 17                       /usr/bin/crisp\n\
                    55e0-5700 r-xp 00010000 fe:00 17                       /usr/bin/crisp\n\
                    5700-5710 r--p 00130000 fe:00 17                       /usr/bin/crisp\n\
                    5710-5720 rw-p 00140000 fe:00 17                       /usr/bin/crisp\n\
                    7000-7100 r-xp 00000000 fe:00 18                       /usr/lib/libc.so.6\n\
                    7100-7200 rw-p 00000000 00:00 0\n\
                    8000-8100 r-xp 00000000 00:00 0                        [vdso]\n";
        assert_eq!(unwritten(maps, Path::new("/usr/bin/crisp")), [0x55d0..0x55e0, 0x55e0..0x5700]);
    }

    #[test]
    fn the_program_goes_on() {
        let found = unwritten(
            &fs::read_to_string("/proc/self/maps").expect("maps"),
            &fs::read_link("/proc/self/exe").expect("exe"),
        );
        assert!(!found.is_empty());
        let_go().expect("let go");
        assert_eq!(format!("{:?}", [1, 2].map(|n| n * 2)), "[2, 4]");
    }
}
