//! Acting within another network namespace.

use std::{
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};

use crate::NetworkError;

/// A network namespace, held open.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// That of this thread.
    pub(crate) fn current() -> Result<Self, NetworkError> {
        let path = PathBuf::from("/proc/thread-self/ns/net");
        let file = File::open(&path).map_err(|e| NetworkError::host("open", path.display(), e))?;
        Ok(Self { file, path })
    }

    /// A pod's, which must not be the host's.
    pub(crate) fn open(path: &Path, host: &Netns) -> Result<Self, NetworkError> {
        let fail = |operation, cause| NetworkError::host(operation, path.display(), cause);
        let file = File::open(path).map_err(|e| fail("open network namespace", e))?;
        let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
        let (this, hosts) = (identity(&file), identity(&host.file));
        if this.map_err(|e| fail("look at", e))? == hosts.map_err(|e| fail("look at", e))? {
            return Err(NetworkError::Invalid {
                field: "netns",
                problem: format!("{} is the host's own network namespace", path.display()),
            });
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// For messages that carry a descriptor.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `act` on this thread within the namespace, then goes back to `home`.
    pub(crate) fn within<T>(&self, home: &Netns, act: impl FnOnce() -> T) -> Result<T, NetworkError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|e| match e {
            Errno::EINVAL => NetworkError::Invalid {
                field: "netns",
                problem: format!("{} is not a network namespace", self.path.display()),
            },
            e => NetworkError::host("enter network namespace", self.path.display(), e),
        })?;
        let result = act();
        setns(&home.file, CloneFlags::CLONE_NEWNET).expect(
            "a thread that could leave its network namespace can go back, and must not go on elsewhere",
        );
        Ok(result)
    }
}
