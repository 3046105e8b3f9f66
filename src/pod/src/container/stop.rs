//! StopContainer: the stop signal, the grace, then SIGKILL to everything in the container.

use std::time::Duration;

use crisp_model::ContainerId;
use tokio::{sync::watch, time::Instant};

use super::monitor;
use crate::{
    error::PodError,
    owner::{Operation, Outcome, Reply},
    view::PodView,
};

/// How long a killed process may take to be reaped before the caller is told that it does not die (uninterruptible sleep).
const KILLED: Duration = Duration::from_secs(30);

pub(crate) async fn stop(
    op: Operation,
    id: ContainerId,
    signal: i32,
    deadline: watch::Receiver<Instant>,
) -> Outcome {
    (None, end(&op, &id, signal, deadline).await.map(|()| Reply::Done))
}

/// Ends a running container. `deadline`: when the grace is over; it may be brought nearer meanwhile.
pub(crate) async fn end(
    op: &Operation,
    id: &ContainerId,
    signal: i32,
    mut deadline: watch::Receiver<Instant>,
) -> Result<(), PodError> {
    let monitor = monitor(op)?;
    let mut view = op.view.clone();
    let over = |pod: &std::sync::Arc<PodView>| pod.containers.get(id).is_none_or(|c| c.finished_at.is_some());
    if *deadline.borrow() > Instant::now() {
        op.stage.enter(format!("waiting for container {} to end after signal {signal}", id.short()));
        monitor.signal(id, signal, false).await?;
        loop {
            let until = *deadline.borrow_and_update();
            tokio::select! {
                done = view.wait_for(&over) => return done.map(|_| ()).map_err(|_| PodError::not_found("container", id)),
                Ok(()) = deadline.changed() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
    }
    op.stage.enter(format!("waiting for container {} to end after SIGKILL", id.short()));
    monitor.signal(id, libc::SIGKILL, true).await?;
    match tokio::time::timeout(KILLED, view.wait_for(&over)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(PodError::host(
            format!("kill container {id}"),
            format!(
                "its processes are still there {} s after SIGKILL: look for state D in /proc",
                KILLED.as_secs()
            ),
        )),
    }
}
