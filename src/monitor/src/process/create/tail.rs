//! Our part of libcontainer's init process.
//!
//! libcontainer is given a bare process; it makes the namespaces, joins the cgroups, mounts, pivots, and calls `validate`
//! before it reports init as ready, and `exec` when the container is started.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    rc::Rc,
};

use crisp_model::container::Propagation;
use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use nix::mount::{MsFlags, mount};

use super::dev::{self, Aside};
use crate::process::{Failure, failed, host, last_leg::LastLeg, report::Reporter};

/// The executor.
#[derive(Clone)]
pub(super) struct Tail(Rc<Parts>);

struct Parts {
    leg: LastLeg,
    reporter: Reporter,
    propagation: Vec<(String, Propagation)>,
    aside: Vec<Aside>,
}

impl Tail {
    pub(super) fn new(
        leg: LastLeg,
        reporter: Reporter,
        propagation: Vec<(String, Propagation)>,
        aside: Vec<Aside>,
    ) -> Self {
        Self(Rc::new(Parts { leg, reporter, propagation, aside }))
    }

    /// What can fail is to fail while the container is created.
    fn prepare(&self) -> Result<(), Failure> {
        let parts = &self.0;
        let listed = |path: &str| parts.propagation.iter().find(|(listed, _)| listed == path);
        dev::put_back(&parts.aside, |path| {
            listed(path).map_or(Ok(()), |(path, kind)| propagate(path, *kind))
        })?;
        for (path, kind) in &parts.propagation {
            propagate(path, *kind)?;
        }
        parts.leg.check()?;
        if let Some(slave) = parts.leg.take_terminal(&parts.reporter)? {
            console(&slave)?;
        }
        Ok(())
    }
}

/// Sets how mounts at and below `path` spread.
fn propagate(path: &str, kind: Propagation) -> Result<(), Failure> {
    let kind = match kind {
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::HostToContainer => MsFlags::MS_SLAVE,
        Propagation::Bidirectional => MsFlags::MS_SHARED,
    };
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_REC | kind, None::<&str>)
        .map_err(|e| host(format!("set the propagation of {path}"))(e.into()))
}

/// The terminal is `/dev/console` too.
fn console(slave: &Path) -> Result<(), Failure> {
    let console = PathBuf::from("/dev/console");
    if !console.exists() {
        File::options().create(true).append(true).open(&console).map_err(host("make /dev/console"))?;
    }
    mount(Some(slave), &console, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(failed("mount the terminal at /dev/console"))
}

impl Executor for Tail {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        self.prepare().map_err(|failure| {
            let text = failure.to_string();
            self.0.reporter.fail(failure);
            ExecutorValidationError::ArgValidationError(text)
        })
    }

    /// Nothing: execve gets the environment as it was given, in order and with duplicates.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        self.0.leg.run(&self.0.reporter)
    }
}
