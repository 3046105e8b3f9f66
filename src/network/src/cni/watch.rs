//! Watching the configuration folder, also while it does not exist yet.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use inotify::{Inotify, WatchMask};
use tokio::io::unix::AsyncFd;

/// Room for some hundred events at a time.
const BUFFER: usize = 16 << 10;

/// Waits until something changes in `folder` or, while that does not exist, in the nearest folder above it that does.
/// The caller looks at the folder after it has called [`Watch::arm`], so no change is missed.
#[derive(Debug)]
pub(crate) struct Watch {
    folder: PathBuf,
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

/// Starts to watch.
pub(crate) fn watch(folder: &Path) -> io::Result<Watch> {
    let inotify = Inotify::init()?;
    // A second descriptor of the same queue, for the reactor.
    #[expect(
        deprecated,
        reason = "its replacement is unsafe for descriptors that change; an OwnedFd does not"
    )]
    let ready = AsyncFd::new(inotify.as_fd().try_clone_to_owned()?)?;
    let mut watch = Watch { folder: folder.to_owned(), inotify, ready };
    watch.arm()?;
    Ok(watch)
}

impl Watch {
    fn arm(&mut self) -> io::Result<()> {
        let changes = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut at = self.folder.as_path();
        loop {
            match self.inotify.watches().add(at, changes) {
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    match at.parent() {
                        Some(above) => {
                            at = above;
                            continue;
                        }
                        None => return Err(e),
                    }
                }
                Err(e) => return Err(e),
            }
            // The next one down may have come between the two calls.
            let down = self.folder.ancestors().take_while(|a| *a != at).last();
            match down {
                Some(down) if down.is_dir() => at = self.folder.as_path(),
                _ => return Ok(()),
            }
        }
    }

    /// Returns when something has changed. Watches anew, as the folder may have come, gone or been replaced.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let mut guard = self.ready.readable().await?;
        let mut buffer = [0; BUFFER];
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        guard.clear_ready();
        drop(guard);
        self.arm()
    }
}
