//! Loading a compiled system call filter (`seccomp(2)`) into the calling process.
#![allow(unsafe_code)]

use std::io;

use nix::{errno::Errno, libc};

/// Bytes of a `struct sock_filter`.
const INSTRUCTION: usize = 8;
/// `BPF_MAXINSNS`.
const MOST: usize = 4096;

/// Loads `program`, an array of `struct sock_filter` in the byte order of the machine. Needs `no_new_privs` or
/// `CAP_SYS_ADMIN`; it cannot be taken back.
pub fn load(program: &[u8]) -> io::Result<()> {
    let instructions = program.len() / INSTRUCTION;
    if instructions == 0 || instructions > MOST || !program.len().is_multiple_of(INSTRUCTION) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a seccomp program"));
    }
    let filter: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION)
        .map(|i| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len: instructions as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the instructions and does not write to them.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_refused() {
        for bad in [&[][..], &[0; 7], &[0; 9], &[0; 8 * 4097]] {
            assert_eq!(load(bad).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
