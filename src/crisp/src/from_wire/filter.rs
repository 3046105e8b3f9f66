//! Filters of the lists. All conditions of a filter must hold; an absent or empty one holds for everything.

use std::collections::{BTreeMap, HashMap};

use crisp_model::{ContainerState, SandboxState};
use crisp_proto::v1;

use super::{
    error::{At, Invalid},
    id::IdQuery,
};

/// Labels that must be there with these values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(HashMap<String, String>);

impl Selector {
    /// Whether `labels` has them all.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

fn id_matches(query: Option<&IdQuery>, id: &str) -> bool {
    query.is_none_or(|query| query.matches(id))
}

/// Which sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Id or its first digits.
    pub id: Option<IdQuery>,
    /// State.
    pub state: Option<SandboxState>,
    /// Labels.
    pub labels: Selector,
}

impl SandboxFilter {
    /// Checks a filter.
    pub fn from_wire(at: &At<'_>, wire: Option<&v1::PodSandboxFilter>) -> Result<Self, Invalid> {
        let Some(wire) = wire else { return Ok(Self::default()) };
        let state = wire.state.map(|value| match v1::PodSandboxState::try_from(value.state) {
            Ok(v1::PodSandboxState::SandboxReady) => Ok(SandboxState::Ready),
            Ok(v1::PodSandboxState::SandboxNotready) => Ok(SandboxState::NotReady),
            Err(_) => {
                let at = at.field("state");
                Err(at.field("state").invalid(format!("{} is not a PodSandboxState", value.state)))
            }
        });
        Ok(Self {
            id: IdQuery::optional(&wire.id),
            state: state.transpose()?,
            labels: Selector(wire.label_selector.clone()),
        })
    }

    /// The same for stats, which have no state.
    pub fn of_stats(wire: Option<&v1::PodSandboxStatsFilter>) -> Self {
        wire.map_or_else(Self::default, |wire| Self {
            id: IdQuery::optional(&wire.id),
            state: None,
            labels: Selector(wire.label_selector.clone()),
        })
    }

    /// Whether a sandbox is meant.
    pub fn matches(&self, id: &str, state: SandboxState, labels: &BTreeMap<String, String>) -> bool {
        id_matches(self.id.as_ref(), id)
            && self.state.is_none_or(|wanted| wanted == state)
            && self.labels.matches(labels)
    }
}

/// Which containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Id or its first digits.
    pub id: Option<IdQuery>,
    /// Sandbox, id or its first digits.
    pub sandbox: Option<IdQuery>,
    /// State.
    pub state: Option<ContainerState>,
    /// Labels.
    pub labels: Selector,
}

impl ContainerFilter {
    /// Checks a filter.
    pub fn from_wire(at: &At<'_>, wire: Option<&v1::ContainerFilter>) -> Result<Self, Invalid> {
        let Some(wire) = wire else { return Ok(Self::default()) };
        let state = wire.state.map(|value| match v1::ContainerState::try_from(value.state) {
            Ok(v1::ContainerState::ContainerCreated) => Ok(ContainerState::Created),
            Ok(v1::ContainerState::ContainerRunning) => Ok(ContainerState::Running),
            Ok(v1::ContainerState::ContainerExited) => Ok(ContainerState::Exited),
            Ok(v1::ContainerState::ContainerUnknown) => Ok(ContainerState::Unknown),
            Err(_) => {
                let at = at.field("state");
                Err(at.field("state").invalid(format!("{} is not a ContainerState", value.state)))
            }
        });
        Ok(Self {
            id: IdQuery::optional(&wire.id),
            sandbox: IdQuery::optional(&wire.pod_sandbox_id),
            state: state.transpose()?,
            labels: Selector(wire.label_selector.clone()),
        })
    }

    /// The same for stats, which have no state.
    pub fn of_stats(wire: Option<&v1::ContainerStatsFilter>) -> Self {
        wire.map_or_else(Self::default, |wire| Self {
            id: IdQuery::optional(&wire.id),
            sandbox: IdQuery::optional(&wire.pod_sandbox_id),
            state: None,
            labels: Selector(wire.label_selector.clone()),
        })
    }

    /// Whether a container is meant.
    pub fn matches(
        &self,
        id: &str,
        sandbox: &str,
        state: ContainerState,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        id_matches(self.id.as_ref(), id)
            && id_matches(self.sandbox.as_ref(), sandbox)
            && self.state.is_none_or(|wanted| wanted == state)
            && self.labels.matches(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn no_filter_means_all() {
        let all = SandboxFilter::from_wire(&At::root("filter"), None).expect("valid");
        assert!(all.matches("aa", SandboxState::NotReady, &labels(&[])));
        let empty =
            ContainerFilter::from_wire(&At::root("filter"), Some(&Default::default())).expect("valid");
        assert!(empty.matches("aa", "bb", ContainerState::Exited, &labels(&[])));
    }

    #[test]
    fn all_conditions_must_hold() {
        let wire = v1::ContainerFilter {
            id: "aa".into(),
            pod_sandbox_id: "bb".into(),
            state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() }),
            label_selector: [("app".to_owned(), "web".to_owned())].into(),
        };
        let filter = ContainerFilter::from_wire(&At::root("filter"), Some(&wire)).expect("valid");
        let web = labels(&[("app", "web"), ("x", "y")]);
        assert!(filter.matches("aa00", "bb00", ContainerState::Running, &web));
        assert!(!filter.matches("ab00", "bb00", ContainerState::Running, &web));
        assert!(!filter.matches("aa00", "ba00", ContainerState::Running, &web));
        assert!(!filter.matches("aa00", "bb00", ContainerState::Exited, &web));
        assert!(!filter.matches("aa00", "bb00", ContainerState::Running, &labels(&[("app", "db")])));
    }

    #[test]
    fn unknown_states_are_refused() {
        let sandbox =
            v1::PodSandboxFilter { state: Some(v1::PodSandboxStateValue { state: 2 }), ..Default::default() };
        let error = SandboxFilter::from_wire(&At::root("filter"), Some(&sandbox)).expect_err("2");
        assert_eq!(error.field, "filter.state.state");
        let container =
            v1::ContainerFilter { state: Some(v1::ContainerStateValue { state: -1 }), ..Default::default() };
        assert!(ContainerFilter::from_wire(&At::root("filter"), Some(&container)).is_err());
    }
}
