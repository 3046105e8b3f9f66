//! Pseudo-terminals (`pty(7)`), made in the devpts that the caller's mount namespace shows.
#![allow(unsafe_code)]

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use nix::{
    errno::Errno,
    libc,
    sys::statfs::{FsType, fstatfs},
};

/// `DEVPTS_SUPER_MAGIC` of `<linux/magic.h>`.
const DEVPTS: libc::c_long = 0x1cd1;

/// A master and its slave, and the slave's number.
#[derive(Debug)]
pub struct Terminal {
    /// For whoever reads what the program writes.
    pub master: OwnedFd,
    /// For the program.
    pub slave: OwnedFd,
    /// Its name is `/dev/pts/<number>`.
    pub number: u32,
}

/// Makes one in `/dev/pts`. The slave is opened through the master, so no name is looked up twice; something that is not a
/// devpts is refused.
pub fn open() -> io::Result<Terminal> {
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let master = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/pts/ptmx")?;
    if fstatfs(&master)?.filesystem_type() != FsType(DEVPTS as _) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/pts is not a devpts"));
    }
    let master = OwnedFd::from(master);
    let (unlock, mut number): (libc::c_int, libc::c_uint) = (0, 0);
    // SAFETY: each request gets the pointer or number that tty_ioctl(4) asks for; a new descriptor is owned by nobody else.
    let slave = unsafe {
        Errno::result(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlock))?;
        Errno::result(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number))?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        OwnedFd::from_raw_fd(Errno::result(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags))?)
    };
    Ok(Terminal { master, slave, number })
}

/// Sets the size of a terminal.
pub fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: a valid winsize that lives over the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) })?;
    Ok(())
}

/// Makes `slave` the controlling terminal of the calling process, which leads a session without one.
pub fn control(slave: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a number.
    Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY as _, 0) })?;
    Ok(())
}
