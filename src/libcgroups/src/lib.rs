//! The part of `libcgroups` 0.7 that libcontainer 0.7 is compiled against.
//!
//! crisp makes, limits and joins cgroups itself (`src/host/src/cgroup`), before libcontainer is called: its processes are born in
//! the container's cgroup. The registry's library would do it again, and on version 1 reads and parses the list of mounts
//! some fifteen times for that, a third of the time that a container's creation took. So this stands in its place:
//! a manager that agrees to everything libcontainer does while it creates a container, and to nothing else. It never
//! touches a cgroup.
//!
//! A libcontainer that asks for more does not compile; what it asks for while it runs and is not given fails by name.

/// What both versions share.
pub mod common {
    use std::path::PathBuf;

    use nix::{
        sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
        unistd::Pid,
    };
    use oci_spec::runtime::LinuxResources;

    use crate::stats::Stats;

    /// Where cgroups are mounted.
    pub const DEFAULT_CGROUP_ROOT: &str = "/sys/fs/cgroup";

    /// Which versions of cgroups the host uses for resources.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum CgroupSetup {
        /// Version 1, with version 2 beside it. Not told apart from [`Self::Legacy`] here.
        Hybrid,
        /// Version 1.
        Legacy,
        /// Version 2.
        Unified,
    }

    /// Whether processes are frozen.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum FreezerState {
        /// Neither.
        Undefined,
        /// They do not run.
        Frozen,
        /// They run.
        Thawed,
    }

    /// Limits to set.
    #[derive(Clone, Debug)]
    pub struct ControllerOpt<'a> {
        /// The limits of a spec.
        pub resources: &'a LinuxResources,
        /// Whether processes wait at the memory limit instead of being killed.
        pub disable_oom_killer: bool,
        /// OOM score.
        pub oom_score_adj: Option<i32>,
        /// Whether to freeze.
        pub freezer_state: Option<FreezerState>,
    }

    /// Which cgroup.
    #[derive(Clone, Debug)]
    pub struct CgroupConfig {
        /// Its path.
        pub cgroup_path: PathBuf,
        /// Whether systemd makes it.
        pub systemd_cgroup: bool,
        /// Whose it is.
        pub container_name: String,
    }

    /// A manager refuses.
    #[derive(Debug, thiserror::Error)]
    #[error("{0} a cgroup is not libcontainer's to do")]
    pub struct AnyManagerError(&'static str);

    /// No manager can be had.
    #[derive(Debug, thiserror::Error)]
    #[error("there is no cgroup manager")]
    pub struct CreateCgroupSetupError;

    /// The host cannot be looked at.
    #[derive(Debug, thiserror::Error)]
    #[error("look at {DEFAULT_CGROUP_ROOT}: {0}")]
    pub struct GetCgroupSetupError(#[from] nix::Error);

    /// What libcontainer asks of a cgroup.
    pub trait CgroupManager {
        /// Why it refuses.
        type Error;
        /// Puts a process into it.
        fn add_task(&self, pid: Pid) -> Result<(), Self::Error>;
        /// Sets limits.
        fn apply(&self, limits: &ControllerOpt<'_>) -> Result<(), Self::Error>;
        /// Removes it.
        fn remove(&self) -> Result<(), Self::Error>;
        /// Freezes or thaws it.
        fn freeze(&self, state: FreezerState) -> Result<(), Self::Error>;
        /// Measures it.
        fn stats(&self) -> Result<Stats, Self::Error>;
        /// Lists its processes.
        fn get_all_pids(&self) -> Result<Vec<Pid>, Self::Error>;
    }

    /// The one manager: the caller is in the cgroup, which has its limits and is removed by whoever made it.
    #[derive(Debug)]
    pub struct AnyCgroupManager(());

    impl AnyCgroupManager {
        /// The same for users without privileges.
        #[must_use]
        pub fn with_rootless(self, _rootless: bool) -> Self {
            self
        }
    }

    impl CgroupManager for AnyCgroupManager {
        type Error = AnyManagerError;

        fn add_task(&self, _: Pid) -> Result<(), AnyManagerError> {
            Ok(())
        }

        fn apply(&self, _: &ControllerOpt<'_>) -> Result<(), AnyManagerError> {
            Ok(())
        }

        fn remove(&self) -> Result<(), AnyManagerError> {
            Ok(())
        }

        fn freeze(&self, _: FreezerState) -> Result<(), AnyManagerError> {
            Err(AnyManagerError("freezing"))
        }

        fn stats(&self) -> Result<Stats, AnyManagerError> {
            Err(AnyManagerError("measuring"))
        }

        fn get_all_pids(&self) -> Result<Vec<Pid>, AnyManagerError> {
            Err(AnyManagerError("listing"))
        }
    }

    /// The manager of any cgroup.
    pub fn create_cgroup_manager(_: CgroupConfig) -> Result<AnyCgroupManager, CreateCgroupSetupError> {
        Ok(AnyCgroupManager(()))
    }

    /// Which versions the host uses; libcontainer asks when it mounts cgroups in a container.
    pub fn get_cgroup_setup() -> Result<CgroupSetup, GetCgroupSetupError> {
        let mounted = statfs(DEFAULT_CGROUP_ROOT)?.filesystem_type();
        Ok(if mounted == CGROUP2_SUPER_MAGIC { CgroupSetup::Unified } else { CgroupSetup::Legacy })
    }
}

/// Measurements, of which there are none.
pub mod stats {
    /// See the module.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Stats {}
}

/// Version 1.
pub mod v1 {
    /// Where it is mounted.
    pub mod util {
        use std::path::PathBuf;

        /// libcontainer would mount all of a host's hierarchies writable, whatever it is told.
        #[derive(Debug, thiserror::Error)]
        #[error("cgroups of version 1 are bound one by one")]
        pub struct V1MountPointError;

        /// Refuses.
        pub fn list_subsystem_mount_points() -> Result<Vec<PathBuf>, V1MountPointError> {
            Err(V1MountPointError)
        }
    }
}

/// Version 2.
pub mod v2 {
    /// Where it is mounted.
    pub mod util {
        use std::{convert::Infallible, path::PathBuf};

        /// There is one place.
        pub fn get_unified_mount_point() -> Result<PathBuf, Infallible> {
            Ok(crate::common::DEFAULT_CGROUP_ROOT.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;
    use oci_spec::runtime::LinuxResources;

    use super::common::{CgroupConfig, CgroupManager, ControllerOpt, FreezerState, create_cgroup_manager};

    #[test]
    fn agrees_to_a_creation_and_refuses_the_rest() {
        let config = CgroupConfig {
            cgroup_path: "/nowhere".into(),
            systemd_cgroup: true,
            container_name: "c".to_owned(),
        };
        let manager = create_cgroup_manager(config).expect("a manager").with_rootless(false);
        let resources = LinuxResources::default();
        let limits = ControllerOpt {
            resources: &resources,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        };
        assert!(manager.add_task(Pid::this()).is_ok() && manager.apply(&limits).is_ok());
        assert!(manager.remove().is_ok());
        assert!(manager.freeze(FreezerState::Frozen).is_err() && manager.get_all_pids().is_err());
        assert!(manager.stats().expect_err("refused").to_string().contains("measuring"));
    }
}
