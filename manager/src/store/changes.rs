//! What was committed, told to those who wait for it.
//!
//! A backend publishes each [`Change`] after its transaction is durable and before the caller gets its answer. There
//! are two ways to hear of it: a [`Listener`] is called in order and misses nothing (the queue's index in memory); a
//! subscriber gets a bounded feed and, told by `Lagged` that it missed some, looks into the store again. Neither is
//! needed for correctness after a crash: at start everybody reads the store.

use super::{Millis, NewTask};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::broadcast;

/// Changes a subscriber may fall behind before it has to look into the store again. A burst of 500 no-op tasks makes
/// about four changes each.
const FEED: usize = 4096;

/// Something was committed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A task waits for an agent. `data` of the task is left out.
    Queued {
        /// The task without its `data`.
        task: Arc<NewTask>,
        /// Grows in the order of creation.
        order: i64,
    },
    /// An agent took a task.
    Assigned {
        /// Task.
        task: String,
        /// Its execution; empty outside of one.
        execution: String,
        /// Agent.
        agent: String,
        /// Fence of the acquisition.
        fence: u64,
        /// When.
        at: Millis,
    },
    /// An assigned task is to be aborted.
    AbortAsked {
        /// Task.
        task: String,
        /// Its execution.
        execution: String,
        /// The agent that has it.
        agent: String,
        /// `User`, `Deadline`, …
        reason: String,
    },
    /// A task ended: answered, ended by the manager, or cancelled while it was queued.
    Ended {
        /// Task.
        task: String,
        /// Its execution; empty outside of one.
        execution: String,
    },
    /// Unit progress of a task came in.
    Progress {
        /// Task.
        task: String,
        /// Its execution.
        execution: String,
    },
    /// An execution made a transition, or was created (version 0).
    Execution {
        /// Execution.
        id: String,
        /// Its version.
        version: u64,
        /// Whether it has ended.
        ended: bool,
    },
    /// The queue for an infrastructure moved; this execution holds it now.
    Held {
        /// Execution.
        execution: String,
    },
    /// Timers were set. One that was cleared tells nobody: who wakes for it finds nothing due.
    Timers {
        /// The first of them.
        earliest: Millis,
    },
    /// A token or API key was added or revoked.
    Credentials,
    /// An entity was applied or deleted.
    Entities,
}

/// Hears every change, in the order of commits.
pub trait Listener: Send + Sync {
    /// Called on the committing thread: must be quick and must not call the store.
    fn committed(&self, change: &Change);
}

/// Hands changes on.
pub struct Changes {
    listeners: RwLock<Vec<Arc<dyn Listener>>>,
    feed: broadcast::Sender<Change>,
}

impl Default for Changes {
    fn default() -> Self {
        Changes { listeners: RwLock::default(), feed: broadcast::channel(FEED).0 }
    }
}

impl Changes {
    /// Adds a listener for good.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Lets go of every listener. Listeners hold the store and the store holds this: without it neither would ever be
    /// dropped. Call it when everything else has ended.
    pub fn close(&self) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A feed from here on. On `Lagged`, look into the store again.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.feed.subscribe()
    }

    /// For backends: tells everybody. Call it after the commit, in the order of commits.
    pub fn publish(&self, change: Change) {
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener.committed(&change);
        }
        // Nobody listening is no fault.
        let _receivers = self.feed.send(change);
    }
}
