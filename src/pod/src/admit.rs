//! Which command may run now: pure, so that every combination is a line of a table.
//!
//! An operation that runs is known by its [`Key`]. A command that asks for the same joins it; one that has to come after
//! another waits for it; one that asks for what is already so is done at once.

use crisp_model::{ContainerId, ContainerState, container::ContainerMetadata};

/// What an operation does, and on what: two commands of the same key are the same wish.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// RunPodSandbox.
    Run,
    /// CreateContainer, by name: the id is only known when it is done.
    Create(ContainerMetadata),
    /// StartContainer.
    Start(ContainerId),
    /// StopContainer.
    Stop(ContainerId),
    /// RemoveContainer.
    Remove(ContainerId),
    /// UpdateContainerResources.
    Update(ContainerId),
    /// UpdatePodSandboxResources.
    UpdateSandbox,
    /// StopPodSandbox.
    StopSandbox,
    /// RemovePodSandbox.
    RemoveSandbox,
}

impl Key {
    fn container(&self) -> Option<&ContainerId> {
        match self {
            Key::Start(id) | Key::Stop(id) | Key::Remove(id) | Key::Update(id) => Some(id),
            _ => None,
        }
    }
}

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The infra container runs and nobody called StopPodSandbox.
    pub ready: bool,
    /// StopPodSandbox is complete.
    pub stopped: bool,
    /// State of the container that the command names; `None`: there is none.
    pub container: Option<ContainerState>,
    /// Operations that run now.
    pub running: &'a [Key],
}

/// What to do with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Run it.
    Start,
    /// The same runs already: share its result.
    Join,
    /// Nothing to do.
    Done,
    /// Decide again when one of the running operations has ended.
    Wait,
    /// Not in this state.
    Deny(Denial),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The sandbox is not ready.
    SandboxNotReady,
    /// There is no such container.
    NoContainer,
    /// It is in another state.
    ContainerIs(ContainerState, &'static str),
}

/// Decides on the command of `key`.
pub fn admit(key: &Key, now: Situation<'_>) -> Decision {
    use Decision::{Deny, Done, Join, Start, Wait};
    if now.running.contains(key) {
        return Join;
    }
    let ending = now.running.iter().any(|k| matches!(k, Key::StopSandbox | Key::RemoveSandbox));
    let same_container =
        key.container().is_some_and(|id| now.running.iter().any(|k| k.container() == Some(id)));
    match key {
        Key::Run => Start,
        Key::Create(_) | Key::UpdateSandbox if ending || !now.ready => Deny(Denial::SandboxNotReady),
        Key::Create(_) | Key::UpdateSandbox => Start,
        // A pod that hangs while it is made ends by its own deadlines; tearing it down beside that would race.
        Key::StopSandbox if now.running.contains(&Key::Run) || now.running.contains(&Key::RemoveSandbox) => {
            Wait
        }
        Key::StopSandbox if now.stopped => Done,
        Key::StopSandbox => Start,
        Key::RemoveSandbox if !now.running.is_empty() => Wait,
        Key::RemoveSandbox => Start,
        Key::Remove(_) if now.container.is_none() && !same_container => Done,
        Key::Remove(_) | Key::Update(_) if same_container => Wait,
        Key::Stop(_) if same_container => Wait,
        Key::Remove(_) => Start,
        Key::Start(_) if ending || !now.ready => Deny(Denial::SandboxNotReady),
        Key::Start(_) if same_container => Wait,
        Key::Start(_) => match now.container {
            None => Deny(Denial::NoContainer),
            Some(ContainerState::Created) => Start,
            Some(state) => Deny(Denial::ContainerIs(state, "a container that was created and not started")),
        },
        Key::Stop(_) => match now.container {
            Some(ContainerState::Running) => Start,
            _ => Done,
        },
        Key::Update(_) => match now.container {
            None => Deny(Denial::NoContainer),
            Some(ContainerState::Created | ContainerState::Running) => Start,
            Some(state) => Deny(Denial::ContainerIs(state, "a created or running container")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::*;

    #[test]
    fn the_rules() {
        let id = ContainerId::random();
        let other = ContainerId::random();
        let name = ContainerMetadata { name: "a".into(), attempt: 0 };
        let (create, start, stop) =
            (Key::Create(name.clone()), Key::Start(id.clone()), Key::Stop(id.clone()));
        let (remove, update) = (Key::Remove(id.clone()), Key::Update(id.clone()));
        let (created, running, exited) =
            (Some(ContainerState::Created), Some(ContainerState::Running), Some(ContainerState::Exited));
        let stop_other = Key::Stop(other);
        // key, container, ready, stopped, running operations -> decision
        type Row<'a> = (&'a Key, Option<ContainerState>, bool, bool, Vec<Key>, Decision);
        let table: &[Row<'_>] = &[
            (&create, None, true, false, vec![], Start),
            (&create, None, true, false, vec![create.clone()], Join),
            (&create, None, false, false, vec![], Deny(Denial::SandboxNotReady)),
            (&create, None, true, false, vec![Key::StopSandbox], Deny(Denial::SandboxNotReady)),
            (&start, created, true, false, vec![], Start),
            (&start, created, true, false, vec![stop_other.clone()], Start),
            (&start, None, true, false, vec![], Deny(Denial::NoContainer)),
            (&start, created, true, false, vec![remove.clone()], Wait),
            (&stop, running, true, false, vec![], Start),
            (&stop, running, true, false, vec![stop.clone()], Join),
            (&stop, created, true, false, vec![start.clone()], Wait),
            (&stop, exited, true, false, vec![], Done),
            (&stop, None, true, false, vec![], Done),
            (&remove, None, false, true, vec![], Done),
            (&remove, running, true, false, vec![stop.clone()], Wait),
            (&remove, running, true, false, vec![], Start),
            (&update, running, true, false, vec![], Start),
            (&update, None, true, false, vec![], Deny(Denial::NoContainer)),
            (&Key::StopSandbox, None, true, false, vec![Key::Run], Wait),
            (&Key::StopSandbox, None, true, false, vec![create.clone()], Start),
            (&Key::StopSandbox, None, false, true, vec![], Done),
            (&Key::RemoveSandbox, None, false, true, vec![stop.clone()], Wait),
            (&Key::RemoveSandbox, None, true, false, vec![], Start),
        ];
        for (key, container, ready, stopped, ops, expected) in table {
            let now = Situation { ready: *ready, stopped: *stopped, container: *container, running: ops };
            assert_eq!(&admit(key, now), expected, "{key:?} {now:?}");
        }
        assert!(matches!(
            admit(&start, Situation { ready: true, stopped: false, container: exited, running: &[] }),
            Deny(Denial::ContainerIs(ContainerState::Exited, _))
        ));
    }
}
