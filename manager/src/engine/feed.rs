//! Hears of the store's commits and passes on what concerns an execution.

use super::{Engine, Input, Shared};
use crate::store::changes::{Change, Listener};
use std::sync::atomic::Ordering;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

impl Listener for Shared {
    fn committed(&self, change: &Change) {
        match change {
            Change::Execution { id, version, .. } => self.versions.publish(id, *version),
            Change::Timers { earliest } => {
                // A look that is overdue is one that the wall clock jumped over.
                let next = self.next_look.load(Ordering::SeqCst);
                if *earliest < next || self.now() > next {
                    self.timers.notify_one();
                }
            }
            Change::Queued { .. }
            | Change::Assigned { .. }
            | Change::AbortAsked { .. }
            | Change::Ended { .. }
            | Change::Progress { .. }
            | Change::Held { .. }
            | Change::Credentials
            | Change::Entities => {}
        }
    }
}

/// Passes assigned and ended tasks to their shards until `stop`. A feed that fell behind looks at every open execution
/// instead: the store has what it missed.
pub(super) async fn run(engine: Engine, mut changes: broadcast::Receiver<Change>, stop: CancellationToken) {
    loop {
        let change = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(Change::Assigned { task, execution, .. } | Change::Ended { task, execution })
                if !execution.is_empty() =>
            {
                if engine.send(&execution, Input::Task(task), None).await.is_err() {
                    return;
                }
            }
            Ok(Change::Held { execution }) => {
                if engine.send(&execution, Input::Claims, None).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "the feed of changes fell behind; looking at every open execution");
                if let Err(error) = engine.resume_all().await {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot read the open executions"
                    );
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}
