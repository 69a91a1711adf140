//! What the manager remembers (DESIGN D13). One trait, one conformance suite, several backends.
//!
//! Every method is one transaction: when it returns `Ok`, its effect is durable; when it returns `Err`, nothing
//! happened. Nothing outside this module names a database. SQLite is the embedded backend; PostgreSQL follows behind
//! the same trait.
//!
//! Rows hold JSON documents for what only their owner reads (plans, states, results) and columns for what the store
//! itself selects by.

pub mod changes;
pub mod conformance;
mod next;
pub mod sqlite;
mod trigger_event;
mod waits;

pub use next::{NextState, Part};
pub use trigger_event::{KEPT_EVENTS, MAX_OPEN_EVENTS, TriggerEvent};
pub use waits::{Claim, DueTimer};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Epoch milliseconds. The store reads no clock; callers pass `now`.
pub type Millis = u64;

/// A store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or is broken. Text of the backend, for the manager's own log.
    #[error("store: {0}")]
    Backend(String),
    /// The row was changed by somebody else since it was read; read again and decide again.
    #[error("store: {what} was changed meanwhile")]
    Conflict {
        /// Which row.
        what: String,
    },
    /// No such row.
    #[error("store: {what} does not exist")]
    NotFound {
        /// Which row.
        what: String,
    },
    /// The database was written by a newer version of this program.
    #[error("store: schema version {found} is newer than {known}; start a newer `delegate`")]
    TooNew {
        /// In the file.
        found: i64,
        /// Ours.
        known: i64,
    },
}

/// What applying an entity did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Applied {
    /// It was not there before.
    Created,
    /// It was there with another content.
    Changed,
    /// It was there with the same content.
    Unchanged,
}

/// An entity: connector, secret (without value), service, environment, infrastructure, pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// `connector`, `secret`, `service`, `environment`, `infrastructure`, `pipeline`.
    pub kind: String,
    /// Identifier, as written (rule R1: any printable text).
    pub id: String,
    /// Organisation and project, empty where not given.
    pub scope: String,
    /// Name, for people.
    pub name: String,
    /// The YAML text as it was applied.
    pub yaml: String,
    /// When it was last changed.
    pub updated_at: Millis,
}

/// A delegate token or an API key. The secret part is stored sealed (token) or hashed (API key).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// `token` or `apikey`.
    pub kind: String,
    /// Name, unique among the same kind.
    pub name: String,
    /// Token: `delegateTokenHash`, left-padded to 64; API key: SHA-256 of the key in hex.
    pub hash: String,
    /// Token: its 16 bytes, sealed with the manager's key. API key: empty.
    pub sealed: Vec<u8>,
    /// Who an API key acts for.
    pub owner: String,
    /// What an API key may do: `viewer`, `executor` or `admin`. Empty for tokens.
    #[serde(default)]
    pub role: String,
    /// The user that an API key belongs to, by email; empty for a key of no user and for tokens.
    #[serde(default)]
    pub user: String,
    /// When it was made.
    pub created_at: Millis,
    /// When it was revoked. Revoked rows stay, so that "revoked" can be told from "unknown".
    pub revoked_at: Option<Millis>,
}

/// An agent as the manager knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// `delegateId`.
    pub id: String,
    /// `delegateExt.instanceId`, or empty for foreign clients.
    pub instance_id: String,
    /// Group name.
    pub name: String,
    /// Host name.
    pub host_name: String,
    /// Address as it said itself.
    pub ip: String,
    /// Version as it said itself.
    pub version: String,
    /// Registered tags.
    pub tags: Vec<String>,
    /// Task types of either kind it can answer.
    pub task_types: BTreeSet<String>,
    /// Whether it announced our extensions.
    pub extended: bool,
    /// Its X25519 public key, base64; empty when it has none.
    pub public_key: String,
    /// How many tasks it takes at once; 0 = unknown.
    pub capacity: u32,
    /// How many it runs.
    pub busy: u32,
    /// When it was last heard of.
    pub last_heartbeat: Millis,
    /// It unregistered or was deleted.
    pub gone: bool,
}

/// Status of a task in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Waits for an agent.
    Queued,
    /// An agent has it.
    Assigned,
    /// Answered, expired or aborted; the row stays until its execution is deleted.
    Ended,
}

/// A task to hand out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    /// 22 characters; made by the caller.
    pub id: String,
    /// The execution it belongs to; empty for connector tests and benches.
    pub execution_id: String,
    /// Node of the execution.
    pub node: String,
    /// Attempt of the node.
    pub attempt: u32,
    /// Harness task family.
    pub task_type: String,
    /// Selector sets with origins (`pipeline::SelectorSet`), as JSON.
    pub selectors: Value,
    /// Secrets it needs, by reference.
    pub secrets: Vec<String>,
    /// Step timeout.
    pub timeout_ms: u64,
    /// Prefer the agent that last had this key (D15: execution and host).
    pub affinity: String,
    /// The bytes of `data`, kept as they are (D2).
    pub data: String,
    /// `logging.abstractions`, ordered pairs.
    pub abstractions: Vec<(String, String)>,
    /// When it was queued.
    pub created_at: Millis,
}

/// A task as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    /// What was queued.
    pub task: NewTask,
    /// Where it stands.
    pub status: TaskStatus,
    /// The agent it is assigned to.
    pub agent_id: Option<String>,
    /// `delegateInstanceId` of the acquisition.
    pub instance_id: Option<String>,
    /// Grows with every acquisition by another instance.
    pub fence: u64,
    /// When it was assigned.
    pub assigned_at: Option<Millis>,
    /// An abort was asked for (with its reason) and not yet answered by the agent.
    pub abort: Option<String>,
    /// The answer, once there is one.
    pub result: Option<Value>,
    /// Latest unit progress.
    pub progress: Option<Value>,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

/// What acquiring a task came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Acquire {
    /// Yours now, or was yours already (same instance: re-delivery with the same fence).
    Assigned(Box<TaskRow>),
    /// Somebody else's, ended, aborted or unknown.
    NotYours,
}

/// What storing an answer came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// The first answer: the execution goes on.
    First(Box<TaskRow>),
    /// Stored beside the task; changes no state (late, repeated, or under an old fence).
    Late,
    /// No such task.
    Unknown,
}

/// An execution as listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionRow {
    /// Id.
    pub id: String,
    /// Pipeline identifier.
    pub pipeline: String,
    /// Per-pipeline counter from 1.
    pub sequence_id: u64,
    /// Harness status name.
    pub status: String,
    /// Whether it has ended.
    pub ended: bool,
    /// Rehearsal factor.
    pub rehearsal: Option<u32>,
    /// Who started it.
    pub started_by: String,
    /// When.
    pub created_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

/// What a committed transition does beside changing the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "A handful lives for one transition; boxing would only hide the fields."
)]
pub enum Effect {
    /// Put a task into the queue.
    Enqueue(NewTask),
    /// Ask for the end of the task of this node and attempt: a queued one ends at once, an assigned one gets an abort
    /// event.
    CancelTask {
        /// Node.
        node: String,
        /// Attempt.
        attempt: u32,
        /// `User`, `Deadline`, …
        reason: String,
    },
    /// Put a stage at the end of the queue for an infrastructure. The execution of the first one in the queue holds it,
    /// for all its stages. A stage that stands in the queue keeps its place.
    Claim {
        /// Stage.
        node: String,
        /// Infrastructure.
        key: String,
    },
    /// Take a stage out of the queue that it stands in.
    Release {
        /// Stage.
        node: String,
    },
    /// Wake the execution at `at` with this timer id. An equal id replaces the older timer.
    SetTimer {
        /// Timer id, unique in the execution.
        timer: String,
        /// When.
        at: Millis,
    },
    /// Forget a timer.
    ClearTimer {
        /// Timer id.
        timer: String,
    },
    /// What [`Store::news`] said about this task has been taken into the state and must not be said again.
    Seen {
        /// Task.
        task: String,
        /// `Assigned` or `Ended`.
        status: TaskStatus,
    },
    /// Set a named value, as [`Store::put_fact`] does: what this transition owes to others, until somebody drops it.
    PutFact {
        /// Name.
        name: String,
        /// Value.
        value: String,
    },
    /// The execution ended with this status. Its timers and claims are gone.
    Finish {
        /// Harness status name.
        status: String,
    },
}

/// The state of an execution with the version to compare against.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Grows by one with every transition.
    pub version: u64,
    /// `pipeline`'s state as JSON.
    pub state: Value,
}

/// The store.
#[async_trait]
pub trait Store: Send + Sync {
    // --- entities ---
    /// Creates or changes an entity by (kind, scope, id).
    async fn apply_entity(&self, entity: Entity) -> Result<Applied, StoreError>;
    /// One entity.
    async fn entity(&self, kind: &str, scope: &str, id: &str) -> Result<Option<Entity>, StoreError>;
    /// All of a kind, or all when `kind` is empty; ordered by kind and id.
    async fn entities(&self, kind: &str) -> Result<Vec<Entity>, StoreError>;
    /// Deletes one; `NotFound` if absent. History of executions stays.
    async fn delete_entity(&self, kind: &str, scope: &str, id: &str) -> Result<(), StoreError>;

    // --- secrets: values sealed by the caller ---
    /// Sets a sealed value.
    async fn put_secret(&self, id: &str, sealed: Vec<u8>, now: Millis) -> Result<Applied, StoreError>;
    /// A sealed value.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Ids with the time of their last change, ordered.
    async fn secrets(&self) -> Result<Vec<(String, Millis)>, StoreError>;
    /// Deletes one; `NotFound` if absent.
    async fn delete_secret(&self, id: &str) -> Result<(), StoreError>;

    // --- credentials ---
    /// Adds one; `Conflict` when the name is taken by an unrevoked one of the same kind.
    async fn add_credential(&self, credential: Credential) -> Result<(), StoreError>;
    /// All of a kind, revoked ones included.
    async fn credentials(&self, kind: &str) -> Result<Vec<Credential>, StoreError>;
    /// By hash.
    async fn credential_by_hash(&self, kind: &str, hash: &str) -> Result<Option<Credential>, StoreError>;
    /// Revokes by name; `NotFound` if absent.
    async fn revoke_credential(&self, kind: &str, name: &str, now: Millis) -> Result<(), StoreError>;

    // --- host keys ---
    /// Remembers a key of `host:port` unless another one is known (`Conflict`).
    async fn learn_host_key(&self, host: &str, key: &str, now: Millis) -> Result<Applied, StoreError>;
    /// Replaces every key of `host:port`.
    async fn accept_host_key(&self, host: &str, key: &str, now: Millis) -> Result<(), StoreError>;
    /// All of one host, or of every host when `host` is `None`: (`host:port`, key, since).
    async fn host_keys(&self, host: Option<&str>) -> Result<Vec<(String, String, Millis)>, StoreError>;
    /// Forgets; `NotFound` if absent.
    async fn forget_host_key(&self, host: &str) -> Result<(), StoreError>;

    // --- agents ---
    /// Inserts or refreshes an agent by id.
    async fn put_agent(&self, agent: Agent) -> Result<(), StoreError>;
    /// The agent with this instance id (identity of extended clients), or with this host name and ip (others).
    async fn find_agent(
        &self,
        instance_id: &str,
        host_name: &str,
        ip: &str,
    ) -> Result<Option<Agent>, StoreError>;
    /// By id.
    async fn agent(&self, id: &str) -> Result<Option<Agent>, StoreError>;
    /// All, gone ones included.
    async fn agents(&self) -> Result<Vec<Agent>, StoreError>;

    // --- tasks ---
    /// Queues a task outside of an execution (connector test, bench).
    async fn enqueue(&self, task: NewTask) -> Result<(), StoreError>;
    /// Queued tasks in the order of creation, at most `limit`.
    async fn queued_tasks(&self, limit: u32) -> Result<Vec<TaskRow>, StoreError>;
    /// Unanswered tasks of an agent.
    async fn tasks_of_agent(&self, agent_id: &str) -> Result<Vec<TaskRow>, StoreError>;
    /// Unanswered tasks of an execution, or of none when the id is empty.
    async fn tasks_of_execution(&self, execution_id: &str) -> Result<Vec<TaskRow>, StoreError>;
    /// One task.
    async fn task(&self, id: &str) -> Result<Option<TaskRow>, StoreError>;
    /// Those of these tasks that exist, in any order, **without** `data` and `progress`: where they stand and what was
    /// answered.
    async fn task_ends(&self, ids: Vec<String>) -> Result<Vec<TaskRow>, StoreError>;
    /// Atomic: queued → assigned, or re-delivery to the same instance.
    async fn acquire(
        &self,
        id: &str,
        agent_id: &str,
        instance_id: &str,
        now: Millis,
    ) -> Result<Acquire, StoreError>;
    /// Atomic: stores the answer of the holder. First answer wins. `fence` 0: the client knows no fences.
    async fn answer(
        &self,
        id: &str,
        agent_id: &str,
        fence: u64,
        result: Value,
        now: Millis,
    ) -> Result<Answered, StoreError>;
    /// Latest unit progress of a task; ignored unless `agent_id` holds it.
    async fn progress(&self, id: &str, agent_id: &str, progress: Value) -> Result<(), StoreError>;
    /// Stores a checkpoint of a task; `Conflict` unless `agent_id` holds it under `fence` and it is unanswered. One that
    /// equals the newest is stored once.
    async fn checkpoint(
        &self,
        id: &str,
        agent_id: &str,
        fence: u64,
        checkpoint: Value,
    ) -> Result<(), StoreError>;
    /// The checkpoints of a task, oldest first.
    async fn checkpoints(&self, id: &str) -> Result<Vec<Value>, StoreError>;
    /// Ends a task that is still queued with a result of the manager's making; `false` if it is not queued any more.
    async fn end_queued(&self, id: &str, result: Value, now: Millis) -> Result<bool, StoreError>;
    /// Every unanswered task in the order of creation, with its order, **without** `data`: what the queue starts from.
    async fn open_tasks(&self) -> Result<Vec<(i64, TaskRow)>, StoreError>;
    /// Tasks of executions that were assigned or have ended and whose execution has not yet taken note of it
    /// ([`Effect::Seen`]), in the order of creation, at most `limit`. After a crash nothing is missed by asking this
    /// first. A task that is `Ended` with no `result` was cancelled before anybody took it; `abort` holds the reason.
    async fn news(&self, limit: u32) -> Result<Vec<TaskRow>, StoreError>;

    // --- executions ---
    /// Creates an execution: allots the next sequence id of the pipeline and stores what `build` makes of it (plan and
    /// first state) as version 0. Returns the row. An error of `build` comes back as `Backend`, nothing is stored.
    async fn create_execution(
        &self,
        id: &str,
        pipeline: &str,
        rehearsal: Option<u32>,
        started_by: &str,
        now: Millis,
        build: Box<dyn FnOnce(u64) -> Result<Value, String> + Send>,
    ) -> Result<ExecutionRow, StoreError>;
    /// The latest state.
    async fn snapshot(&self, execution_id: &str) -> Result<Option<Snapshot>, StoreError>;
    /// Commits one transition: `event` is appended (a JSON list: several events, in their order), `state` is the next
    /// state, `effects` happen – all or nothing.
    /// `Conflict` unless the stored version is `expected_version`.
    async fn transition(
        &self,
        execution_id: &str,
        expected_version: u64,
        event: Value,
        state: NextState,
        effects: Vec<Effect>,
        now: Millis,
    ) -> Result<(), StoreError>;
    /// Every event of an execution in order, one by one (replay, tests).
    async fn events(&self, execution_id: &str) -> Result<Vec<Value>, StoreError>;
    /// One row.
    async fn execution(&self, id: &str) -> Result<Option<ExecutionRow>, StoreError>;
    /// Newest first, at most `limit`, of one pipeline when given.
    async fn executions(&self, pipeline: Option<&str>, limit: u32) -> Result<Vec<ExecutionRow>, StoreError>;
    /// Ids that have not ended.
    async fn open_executions(&self) -> Result<Vec<String>, StoreError>;
    /// The queue for an infrastructure, the holder first.
    async fn claims(&self, key: &str) -> Result<Vec<Claim>, StoreError>;
    /// Timers due at `now` or before.
    async fn due_timers(&self, now: Millis) -> Result<Vec<DueTimer>, StoreError>;
    /// When the earliest timer is due.
    async fn next_timer(&self) -> Result<Option<Millis>, StoreError>;

    // --- events of triggers ---
    /// Stores an event; `false` when this id is known. `Conflict` when [`MAX_OPEN_EVENTS`] wait already.
    async fn add_trigger_event(&self, event: TriggerEvent) -> Result<bool, StoreError>;
    /// Replaces `doc` and marks the event as done.
    async fn finish_trigger_event(&self, event: TriggerEvent) -> Result<(), StoreError>;
    /// One event.
    async fn trigger_event(&self, id: &str) -> Result<Option<TriggerEvent>, StoreError>;
    /// Events of (pipeline, trigger), newest first; an empty name means any.
    async fn trigger_events(&self, of: (&str, &str), limit: u32) -> Result<Vec<TriggerEvent>, StoreError>;
    /// Events that wait, oldest first.
    async fn open_trigger_events(&self, limit: u32) -> Result<Vec<TriggerEvent>, StoreError>;

    // --- small facts ---
    /// A named value (account id, schema facts of other modules).
    async fn get_fact(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// Sets a named value.
    async fn put_fact(&self, name: &str, value: &str) -> Result<(), StoreError>;
    /// Every named value whose name begins with `prefix`, ordered by name.
    async fn facts(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError>;
    /// Forgets a named value. **Repeat**: one that is not there is no fault.
    async fn drop_fact(&self, name: &str) -> Result<(), StoreError>;
}
