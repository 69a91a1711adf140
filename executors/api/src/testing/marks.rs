//! Checkpoints and mutating calls in one ledger.

use crate::{Checkpoint, CheckpointError, Checkpoints, TransportProbe};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Where the process is to "die". Counted from 1 over the life of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashAt {
    /// The n-th checkpoint is durable; whoever recorded it never hears of it.
    AfterCheckpoint(usize),
    /// The n-th checkpoint is not durable.
    BeforeCheckpoint(usize),
    /// The n-th mutating call has been announced and is about to be sent.
    BeforeCall(usize),
    /// The n-th mutating call has been answered; whoever sent it never hears of it.
    AfterCall(usize),
    /// The n-th checkpoint cannot be written: `record` returns an error, nothing dies.
    RefuseCheckpoint(usize),
}

#[derive(Debug, Default)]
struct State {
    history: Vec<Checkpoint>,
    /// Announced and not yet made, by call.
    open: BTreeMap<String, usize>,
    calls: Vec<String>,
    answered: usize,
    unannounced: Vec<String>,
    attempts: usize,
    crash_at: Option<CrashAt>,
}

/// A [`Checkpoints`] in memory that is the [`TransportProbe`] at the same time. Cheap to clone; survives "crashes".
#[derive(Clone, Debug)]
pub struct Marks {
    state: Arc<Mutex<State>>,
    dead: Arc<watch::Sender<bool>>,
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}

impl Marks {
    /// An empty ledger.
    pub fn new() -> Self {
        Marks { state: Arc::default(), dead: Arc::new(watch::channel(false).0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the place where the process dies next.
    pub fn crash_at(&self, at: CrashAt) {
        self.state().crash_at = Some(at);
    }

    /// Waits until that place is reached. The caller then drops the executor and everything that runs for it.
    pub async fn crashed(&self) {
        let mut dead = self.dead.subscribe();
        if dead.wait_for(|dead| *dead).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A new process: what was durable stays, no crash is planned.
    pub fn restart(&self) {
        self.state().crash_at = None;
        self.dead.send_replace(false);
    }

    /// Mutating calls in the order in which they were sent.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Mutating calls that no checkpoint had announced.
    pub fn unannounced(&self) -> Vec<String> {
        self.state().unannounced.clone()
    }

    /// How many checkpoints are durable.
    pub fn count(&self) -> usize {
        self.state().history.len()
    }

    async fn die(&self) {
        self.dead.send_replace(true);
        std::future::pending::<()>().await;
    }
}

impl Checkpoints for Marks {
    fn record(&self, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), CheckpointError>> {
        Box::pin(async move {
            if *self.dead.borrow() {
                std::future::pending::<()>().await;
            }
            let crash = {
                let mut state = self.state();
                state.attempts += 1;
                let number = state.attempts;
                let planned = state.crash_at;
                match planned {
                    Some(CrashAt::RefuseCheckpoint(n)) if n == number => {
                        return Err(CheckpointError("no space left on device".into()));
                    }
                    Some(CrashAt::BeforeCheckpoint(n)) if n == number => true,
                    _ => {
                        for call in &checkpoint.calls {
                            *state.open.entry(call.clone()).or_default() += 1;
                        }
                        state.history.push(checkpoint);
                        planned == Some(CrashAt::AfterCheckpoint(number))
                    }
                }
            };
            if crash {
                self.die().await;
            }
            Ok(())
        })
    }

    fn history(&self) -> Vec<Checkpoint> {
        self.state().history.clone()
    }
}

impl TransportProbe for Marks {
    fn before<'a>(&'a self, _task_id: &'a str, call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if *self.dead.borrow() {
                std::future::pending::<()>().await;
            }
            let crash = {
                let mut state = self.state();
                let number = state.calls.len() + 1;
                let crash = state.crash_at == Some(CrashAt::BeforeCall(number));
                if !crash {
                    state.calls.push(call.to_owned());
                    match state.open.get_mut(call) {
                        Some(left) if *left > 0 => *left -= 1,
                        _ => state.unannounced.push(call.to_owned()),
                    }
                }
                crash
            };
            if crash {
                self.die().await;
            }
        })
    }

    fn after<'a>(&'a self, _task_id: &'a str, _call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let crash = {
                let mut state = self.state();
                state.answered += 1;
                state.crash_at == Some(CrashAt::AfterCall(state.answered))
            };
            if crash {
                self.die().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(calls: &[&str]) -> Checkpoint {
        Checkpoint {
            intent: "test".into(),
            calls: calls.iter().map(|c| (*c).to_owned()).collect(),
            state: serde_json::Value::Null,
            undo: None,
        }
    }

    #[tokio::test]
    async fn a_batch_covers_each_call_it_lists_once() {
        let marks = Marks::new();
        marks.record(checkpoint(&["a", "b"])).await.unwrap();
        for call in ["a", "b", "a"] {
            marks.before("t", call).await;
            marks.after("t", call).await;
        }
        assert_eq!(marks.unannounced(), ["a"]);
    }

    #[tokio::test]
    async fn a_crash_keeps_what_was_durable() {
        let marks = Marks::new();
        marks.crash_at(CrashAt::AfterCheckpoint(2));
        marks.record(checkpoint(&["a"])).await.unwrap();
        tokio::select! {
            _ = marks.record(checkpoint(&["b"])) => panic!("the process is dead"),
            () = marks.crashed() => {}
        }
        marks.restart();
        assert_eq!(marks.count(), 2);
        marks.crash_at(CrashAt::RefuseCheckpoint(3));
        assert!(marks.record(checkpoint(&["c"])).await.is_err());
        assert_eq!(marks.count(), 2);
    }
}
