//! Operations on sandboxes, a file a verb, and what surrounds them.

pub(crate) mod files;
pub(crate) mod lost;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod update;

use crisp_model::{SandboxId, time::Timestamp};
use crisp_observe::events::{EventKind, NewEvent};

use crate::{
    context::Context,
    view::{ContainerView, PodView},
};

/// Tells the listeners. `container`: what it happened to; `None`: the sandbox itself.
pub(crate) fn announce(
    context: &Context,
    pod: &PodView,
    sandbox: &SandboxId,
    container: Option<&ContainerView>,
    kind: EventKind,
) {
    let (sandbox, container) = (sandbox.clone(), container.map(|c| c.id.clone()));
    tracing::debug!(?kind, %sandbox, ?container, generation = pod.generation, "event");
    // Who sends it on adds the state of that moment: a newer state serves a reader better than an old one.
    context.events.publish(NewEvent { sandbox, container, kind, created_at: Timestamp::now() });
}
