//! Drives the state machine of `pipeline` for every open execution (DESIGN D12, D13).
//!
//! ```text
//! assigned, ended task (feed of the store) --+
//! due timer (timers) ------------------------+--> shard (owns its executions) --> apply --> commit
//! abort, resume -----------------------------+                                               |
//!                           queue, timers and waiting readers hear of it from the store <----+
//! ```
//!
//! Each execution belongs to exactly one shard, so its events are applied one after another; those that wait are taken
//! together. A transition is committed with what it causes, and only then acted on; whatever happens in between, a restart reads the same store
//! and goes on. Nothing here talks to an agent or decides what a pipeline does.

mod feed;
mod figures;
pub(crate) mod host_keys;
mod inbox;
mod owed;
mod perform;
mod plans;
mod record;
mod shard;
mod timers;
mod versions;

pub use perform::{Job, NotConfigured, Performer};
pub use record::{OpenTask, Record, RunRequest, execution_id, task_id};
pub(crate) use shard::load;

use crate::clock::Clock;
use crate::queue::Queue;
use crate::store::changes::Changes;
use crate::store::{Store, StoreError};
use pipeline::machine::{Actor, Refusal, UserAction};
use proto::result::StepResult;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use versions::Versions;

/// How many shards there are. Each moves many executions beside each other; several keep both cores busy.
const SHARDS: usize = 4;
/// Commands that may wait for one shard; senders wait beyond it.
const SHARD_INBOX: usize = 256;

/// The engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed; the execution is resumed by itself when it works again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored state cannot be read: written by a newer program, or damaged. Page: `docs/errors/MGR-102.md`.
    #[error("MGR-102: the stored state of execution {execution_id} cannot be read")]
    Unreadable {
        /// Which execution.
        execution_id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The state was written by a newer program.
    #[error(
        "MGR-102: the stored state of execution {execution_id} has version {found}; this manager knows {known}"
    )]
    TooNew {
        /// Which execution.
        execution_id: String,
        /// In the store.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A state, an event or a task cannot be written as JSON.
    #[error("the transition of execution {execution_id} cannot be written")]
    Unwritable {
        /// Which execution.
        execution_id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No such execution.
    #[error("execution {execution_id} does not exist")]
    NotFound {
        /// Which execution.
        execution_id: String,
    },
    /// Somebody else kept changing the execution.
    #[error("execution {execution_id} is being changed by another manager")]
    Contended {
        /// Which execution.
        execution_id: String,
    },
    /// The execution does not take what a person asked for; nothing changed. Page: `docs/errors/MGR-106.md`.
    #[error("MGR-106: {0}")]
    Refused(#[from] Refusal),
    /// The manager is stopping.
    #[error("the manager is stopping")]
    Stopping,
}

/// Something that may move an execution.
#[derive(Clone, Debug)]
enum Input {
    /// Look at everything that may have happened: after a start, or after a failed attempt.
    Resume,
    /// A task was assigned, answered or ended by the queue.
    Task(String),
    /// It may hold an infrastructure that its stages wait for.
    Claims,
    /// A timer is due.
    Timer(String),
    /// Somebody wants it to end.
    Abort(String),
    /// Somebody answers a step.
    Act(Box<Act>),
    /// The manager is done with a step of its own.
    Performed { node: String, attempt: u32, result: Box<StepResult> },
}

#[derive(Clone, Debug)]
struct Act {
    node: String,
    by: Actor,
    action: UserAction,
}

struct Command {
    execution_id: String,
    input: Input,
    done: Option<oneshot::Sender<Result<(), EngineError>>>,
}

/// What all shards and handles share.
struct Shared {
    store: Arc<dyn Store>,
    /// Says why nobody works on a task whose time is over.
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    versions: Versions,
    /// Woken when a timer was set that comes before `next_look`, and when an execution must be tried again.
    timers: Notify,
    /// Woken when an execution owes something to others.
    owed: Notify,
    /// When the timers are looked at next anyway.
    next_look: AtomicU64,
    /// Executions whose last attempt failed.
    retry: Mutex<BTreeSet<String>>,
    /// How long events wait for their commit.
    figures: figures::Figures,
    /// Steps that the manager itself performs.
    desk: perform::Desk,
    /// What executions in memory have in common.
    plans: plans::Plans,
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.wall()
    }

    fn retry_later(&self, execution_id: &str) {
        self.retry.lock().unwrap_or_else(PoisonError::into_inner).insert(execution_id.to_owned());
        self.timers.notify_one();
    }
}

/// The cheap handle. Dropping it does nothing; [`Running::stop`] ends the engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    shards: Arc<[mpsc::Sender<Command>]>,
}

/// The tasks of a running engine.
pub struct Running {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Running {
    /// Ends every task after the transition it is at. Nothing is lost: what was not applied is read again at the next
    /// start.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the engine ended badly");
            }
        }
        self.shared.desk.ended().await;
    }
}

impl Engine {
    /// Starts the shards, the feed and the timer task. `changes` is the store's own and `queue` listens to it;
    /// `performer` does the steps that need no agent. Executions that were open before go on with
    /// [`Engine::resume_all`].
    pub fn start(
        store: Arc<dyn Store>,
        changes: &Changes,
        queue: Arc<Queue>,
        clock: Arc<dyn Clock>,
        performer: Arc<dyn Performer>,
    ) -> (Engine, Running) {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            store,
            queue,
            clock,
            versions: Versions::default(),
            timers: Notify::new(),
            owed: Notify::new(),
            next_look: AtomicU64::new(u64::MAX),
            retry: Mutex::default(),
            figures: figures::Figures::default(),
            desk: perform::Desk::new(performer, stop.clone()),
            plans: plans::Plans::default(),
        });
        let mut tasks = Vec::with_capacity(SHARDS + 3);
        let shards: Arc<[mpsc::Sender<Command>]> = (0..SHARDS)
            .map(|_| {
                let (sender, inbox) = mpsc::channel(SHARD_INBOX);
                tasks.push(tokio::spawn(
                    inbox::Shard::new(shared.clone(), inbox, sender.clone()).run(stop.clone()),
                ));
                sender
            })
            .collect();
        changes.listen(shared.clone());
        let engine = Engine { shared: shared.clone(), shards };
        tasks.push(tokio::spawn(feed::run(engine.clone(), changes.subscribe(), stop.clone())));
        tasks.push(tokio::spawn(timers::run(engine.clone(), stop.clone())));
        tasks.push(tokio::spawn(owed::run(engine.clone(), stop.clone())));
        (engine, Running { stop, tasks, shared })
    }

    /// Resumes every open execution: once, at the start of the manager.
    pub async fn resume_all(&self) -> Result<usize, EngineError> {
        let open = self.shared.store.open_executions().await?;
        let count = open.len();
        for execution_id in open {
            if let Err(error) = self.resume(&execution_id).await {
                // One unreadable execution must not keep the others from going on.
                tracing::error!(%execution_id, error = &error as &dyn std::error::Error, "cannot resume");
            }
        }
        Ok(count)
    }

    /// Looks at everything that may have happened to an execution; also starts a fresh one. **Repeat**: safe.
    pub async fn resume(&self, execution_id: &str) -> Result<(), EngineError> {
        self.ask(execution_id, Input::Resume).await
    }

    /// Asks for the end of an execution; committed when it returns. **Repeat**: safe, also after the end.
    pub async fn abort(&self, execution_id: &str, by: &str) -> Result<(), EngineError> {
        self.ask(execution_id, Input::Abort(by.to_owned())).await
    }

    /// Hands what a person wants to a step; committed when it returns. **Errors**: [`EngineError::Refused`] says why it
    /// is not taken; nothing changed then. **Repeat**: a second one is refused, since the step no longer waits.
    pub async fn act(
        &self,
        execution_id: &str,
        node: &str,
        by: Actor,
        action: UserAction,
    ) -> Result<(), EngineError> {
        self.ask(execution_id, Input::Act(Box::new(Act { node: node.to_owned(), by, action }))).await
    }

    /// How many transitions there were and how long their events waited for the commit, since this manager started.
    pub fn figures(&self) -> serde_json::Value {
        self.shared.figures.document()
    }

    /// Latest version and record, from the store.
    pub async fn record(&self, execution_id: &str) -> Result<Option<(u64, Record)>, EngineError> {
        shard::load(self.shared.store.as_ref(), execution_id).await
    }

    /// Follows the version of an execution. Subscribe first and read the record second.
    pub fn subscribe(&self, execution_id: &str) -> watch::Receiver<u64> {
        self.shared.versions.subscribe(execution_id)
    }

    async fn ask(&self, execution_id: &str, input: Input) -> Result<(), EngineError> {
        let (done, answer) = oneshot::channel();
        self.send(execution_id, input, Some(done)).await?;
        answer.await.map_err(|_| EngineError::Stopping)?
    }

    async fn send(
        &self,
        execution_id: &str,
        input: Input,
        done: Option<oneshot::Sender<Result<(), EngineError>>>,
    ) -> Result<(), EngineError> {
        let mut hasher = DefaultHasher::new();
        execution_id.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        let shard = self.shards.get(at).ok_or(EngineError::Stopping)?;
        let command = Command { execution_id: execution_id.to_owned(), input, done };
        shard.send(command).await.map_err(|_| EngineError::Stopping)
    }
}
