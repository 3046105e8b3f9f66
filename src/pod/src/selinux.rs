//! SELinux, where it is on: which levels the pods have, labels for what is made, and volumes that are labelled for a pod.
//!
//! A pod's labels are in its record from the intent on. Levels are held by records: taken when a pod is made, held again at a
//! start of the daemon, given back when the record goes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crisp_host::selinux as host;
use crisp_model::{Mount, security::SecurityContext};
use crisp_spec::selinux::{Label, Labels};

use crate::{error::PodError, record::SandboxRecord};

/// Categories that policies have, `c0` to `c1023`.
const CATEGORIES: u32 = 1024;

/// Pairs of different ones.
const PAIRS: u32 = CATEGORIES * (CATEGORIES - 1) / 2;

/// The policy's labels, and the levels that pods have.
#[derive(Debug)]
pub struct Selinux {
    defaults: Labels,
    /// By how many pods each: several may have asked for the same. As many as there are pods.
    levels: Mutex<BTreeMap<String, usize>>,
}

impl Selinux {
    /// With the policy's labels for containers.
    pub fn new(defaults: Labels) -> Self {
        Self { defaults, levels: Mutex::default() }
    }

    /// Labels of a new pod; its level is held until [`Self::release`].
    pub(crate) fn take(&self, security: &SecurityContext) -> Result<Labels, PodError> {
        let labels = self.defaults.of_pod(security, |sensitivity| {
            let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
            free(sensitivity, rand::random(), |level| levels.contains_key(level))
        })?;
        // Two pods that are made at once may have drawn the same: one in half a million, and only if both were between
        // these two lines, so it is looked at again while the level is entered.
        match self.enter(&labels, security.selinux.as_ref().is_some_and(|o| !o.level.is_empty())) {
            true => Ok(labels),
            false => self.take(security),
        }
    }

    /// False: somebody else has it.
    fn enter(&self, labels: &Labels, shared: bool) -> bool {
        let Some(level) = &labels.mount.level else { return true };
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let count = levels.entry(level.clone()).or_default();
        if *count > 0 && !shared {
            return false;
        }
        *count += 1;
        true
    }

    /// The level of a pod that is there already.
    pub(crate) fn hold(&self, record: &SandboxRecord) {
        if let Some(labels) = &record.selinux {
            self.enter(labels, true);
        }
    }

    /// The pod is gone.
    pub(crate) fn release(&self, record: &SandboxRecord) {
        let Some(level) = record.selinux.as_ref().and_then(|labels| labels.mount.level.as_ref()) else {
            return;
        };
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = levels.get_mut(level) {
            *count -= 1;
            if *count == 0 {
                levels.remove(level);
            }
        }
    }
}

/// The first free pair from the `start`th on.
fn free(sensitivity: &str, start: u32, taken: impl Fn(&str) -> bool) -> Result<String, PodError> {
    let level = |number: u32| {
        let (low, high) = pair(number % PAIRS);
        format!("{sensitivity}:c{low},c{high}")
    };
    let start = start % PAIRS;
    let found = (start..start + PAIRS).map(level).find(|level| !taken(level));
    found.ok_or_else(|| PodError::host("choose SELinux categories", "every pair is taken"))
}

/// All pairs in a row: (0,1), (0,2), (1,2), (0,3), ...
fn pair(number: u32) -> (u32, u32) {
    let high = (1 + 8 * number).isqrt().div_ceil(2);
    (number - high * (high - 1) / 2, high)
}

/// The kernel would say no at execve only, and not why. Blocks.
pub(crate) fn check(labels: &Labels) -> Result<(), PodError> {
    let known = |label: &Label| {
        let text = label.to_string();
        host::check(&text).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                PodError::Invalid { object: format!("SELinux label {text}"), reason: error.to_string() }
            }
            _ => PodError::host(format!("look up SELinux label {text}"), error),
        })
    };
    known(&labels.process).and_then(|()| known(&labels.mount))
}

/// Labels the volumes that ask for it. Blocks.
pub(crate) fn relabel(volumes: &[(PathBuf, String)], label: &Label) -> Result<(), PodError> {
    let label = label.to_string();
    for (source, inside) in volumes {
        host::relabel(source, &label).map_err(|error| {
            let object = format!("mount source {} of {inside}", source.display());
            match error {
                host::RelabelError::Refused => PodError::Invalid { object, reason: error.to_string() },
                host::RelabelError::Failed { .. } => PodError::host(format!("relabel {object}"), error),
            }
        })?;
    }
    Ok(())
}

/// Volumes of a request that are to be labelled, by source and path inside. An image's are mounted with the label.
pub(crate) fn wanted(mounts: &[Mount]) -> Vec<(PathBuf, String)> {
    let volumes = mounts.iter().filter(|mount| mount.selinux_relabel && mount.image.is_none());
    volumes.map(|mount| (mount.host_path.clone(), mount.container_path.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use crisp_model::{SandboxId, security::SelinuxOptions, time::Timestamp};

    use super::*;

    fn selinux() -> Selinux {
        let text = "process = \"u:r:container_t:s0\"\nfile = \"u:object_r:container_file_t:s0\"";
        Selinux::new(Labels::parse_defaults(text).expect("labels"))
    }

    fn record(labels: Labels) -> SandboxRecord {
        SandboxRecord {
            id: SandboxId::random(),
            config: Arc::default(),
            created_at: Timestamp::now(),
            boot_id: String::new(),
            infra: None,
            ips: vec![],
            attached: false,
            ended: false,
            stopped: false,
            selinux: Some(labels),
        }
    }

    #[test]
    fn every_number_is_another_pair() {
        let all: BTreeSet<_> = (0..PAIRS).map(pair).collect();
        assert_eq!(all.len(), 523_776);
        assert!(all.iter().all(|(low, high)| low < high && *high < CATEGORIES));
    }

    #[test]
    fn the_next_free_pair_is_taken() {
        let taken = ["s0:c0,c1", "s0:c0,c2", "s0:c1022,c1023"];
        let next = |start| free("s0", start, |level| taken.contains(&level)).expect("free");
        assert_eq!(next(0), "s0:c1,c2");
        assert_eq!(next(PAIRS - 1), "s0:c1,c2");
        assert_eq!(next(7), "s0:c1,c4");
        assert!(free("s0", 5, |_| true).is_err());
    }

    #[test]
    fn levels_are_held_and_given_back() {
        let selinux = selinux();
        let held = || selinux.levels.lock().expect("levels").clone();
        let pods: Vec<_> =
            (0..200).map(|_| record(selinux.take(&SecurityContext::default()).expect("labels"))).collect();
        assert_eq!(held().len(), 200);
        let asked = SecurityContext {
            selinux: Some(SelinuxOptions { level: "s0:c5".into(), ..Default::default() }),
            ..Default::default()
        };
        let both = [(); 2].map(|()| record(selinux.take(&asked).expect("the same for both")));
        selinux.release(&both[0]);
        assert_eq!(held().get("s0:c5"), Some(&1));
        selinux.release(&both[1]);
        pods.iter().for_each(|pod| selinux.release(pod));
        assert_eq!(held(), BTreeMap::new());
        selinux.hold(&pods[0]);
        assert_eq!(held().len(), 1);
    }

    #[test]
    fn only_volumes_that_ask_for_it() {
        let mount = |relabel| Mount {
            host_path: "/a".into(),
            container_path: "/b".into(),
            selinux_relabel: relabel,
            ..Default::default()
        };
        let image = Mount { image: Some(Default::default()), ..mount(true) };
        assert_eq!(wanted(&[mount(false), mount(true), image]), [("/a".into(), "/b".into())]);
    }
}
