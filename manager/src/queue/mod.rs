//! Who may take which task, and who is told when.
//!
//! ```text
//! store commits ──Listener──▶ Index (memory) ──Notify──▶ long polls of agents
//! agents' calls ────────────▶ Index            └───────▶ warden: ends tasks that no agent fits
//! ```
//! The store decides (acquire is atomic there); the index only saves asking it. At start it is built from the store.

mod explain;
mod index;
mod warden;

pub use explain::{Explanation, Nearest};
pub use index::Listed;

use crate::clock::Clock;
use crate::store::changes::{Change, Listener};
use crate::store::{Agent, Millis, NewTask, Store, StoreError, TaskStatus};
use index::Index;
use pipeline::machine::SelectorSet;
use proto::limits::CONNECTED_FOR;
use proto::register::{Held, TaskVerdict, Verdict};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Pause for long polls of agents that are not known.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

/// How the manager sees an agent at present.
#[derive(Clone, Debug)]
pub struct Presence {
    /// The agent, with its latest heartbeat.
    pub agent: Agent,
    /// Whether it is connected: a heartbeat within five minutes, or a long poll that is open.
    pub connected: bool,
    /// Long polls that are open.
    pub polls: u32,
    /// Tasks it holds.
    pub tasks: Vec<String>,
}

/// The queue. One per manager.
pub struct Queue {
    clock: Arc<dyn Clock>,
    index: Mutex<Index>,
    /// The warden looks at the index again.
    changed: Notify,
    /// Registrations come one at a time, so that two of one agent get one id.
    registering: tokio::sync::Mutex<()>,
    /// When the heartbeat of each agent was last stored.
    stored: Mutex<HashMap<String, Millis>>,
    /// When this queue was built.
    loaded_at: Millis,
}

impl Listener for Queue {
    fn committed(&self, change: &Change) {
        match change {
            Change::Queued { task, order } => {
                let now = self.now();
                self.lock().queued(*order, Arc::clone(task), now);
                self.changed.notify_one();
            }
            Change::Assigned { task, agent, fence, at, .. } => self.lock().assigned(task, agent, *fence, *at),
            Change::AbortAsked { task, agent, reason, .. } => self.lock().abort_asked(task, agent, reason),
            Change::Ended { task, .. } => self.lock().ended(task),
            Change::Progress { .. }
            | Change::Execution { .. }
            | Change::Timers { .. }
            | Change::Held { .. }
            | Change::Credentials
            | Change::Entities => {}
        }
    }
}

impl Queue {
    /// Builds the queue from the store. Register it as a listener of the store's changes before anything else may write.
    pub async fn load(store: &dyn Store, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let now = clock.wall();
        let mut index = Index::default();
        for agent in store.agents().await? {
            index.put_agent(agent, now);
        }
        for (order, row) in store.open_tasks().await? {
            match (row.status, row.agent_id) {
                (TaskStatus::Assigned, Some(agent)) => {
                    index.restore_assigned(
                        &row.task,
                        &agent,
                        row.fence,
                        row.assigned_at.unwrap_or(now),
                        row.abort,
                    );
                }
                _ => index.queued(order, Arc::new(row.task), now),
            }
        }
        Ok(Queue {
            clock,
            index: Mutex::new(index),
            changed: Notify::new(),
            registering: tokio::sync::Mutex::new(()),
            stored: Mutex::default(),
            loaded_at: now,
        })
    }

    /// Held while an agent is found or made.
    pub async fn registering(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.registering.lock().await
    }

    /// When the heartbeat of this agent was last stored by this process; 0 for never.
    pub fn heartbeat_stored(&self, agent: &str) -> Millis {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).get(agent).copied().unwrap_or(0)
    }

    /// Notes that the heartbeat was stored.
    pub fn stored_heartbeat(&self, agent: &str, now: Millis) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(agent.to_owned(), now);
    }

    fn now(&self) -> Millis {
        self.clock.wall()
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over an agent that was stored. `registered`: it just registered, so what it had is listed again.
    pub fn put_agent(&self, agent: Agent, registered: bool) {
        let now = self.now();
        let id = agent.id.clone();
        let mut index = self.lock();
        index.put_agent(agent, now);
        if registered {
            index.registered(&id, now);
        }
        drop(index);
        self.changed.notify_one();
    }

    /// The agent as it is known.
    pub fn agent(&self, id: &str) -> Option<Agent> {
        self.lock().agents.get(id).map(|state| state.agent.clone())
    }

    /// The agent of this identity (settled facts §1.2): `instance`, or host name and address for clients without one.
    pub fn find_agent(&self, instance: &str, host: &str, ip: &str) -> Option<Agent> {
        let index = self.lock();
        let mut agents = index.agents.values().map(|state| &state.agent);
        let found = if instance.is_empty() {
            agents.find(|agent| agent.instance_id.is_empty() && agent.host_name == host && agent.ip == ip)
        } else {
            agents.find(|agent| agent.instance_id == instance)
        };
        found.cloned()
    }

    /// How an agent is seen at present.
    pub fn presence(&self, id: &str) -> Option<Presence> {
        self.lock().agents.get(id).map(|state| Presence {
            agent: state.agent.clone(),
            connected: state.connected,
            polls: state.polls,
            tasks: state.assigned.keys().cloned().collect(),
        })
    }

    /// Name and last sign of life of an agent that is lost: it took its leave, or was silent for as long as makes it
    /// unconnected. Silence counts from the start of this manager at the earliest, because nobody could hear it before
    /// (settled facts §1.7). `None`: it is there, or not known.
    pub fn lost(&self, id: &str) -> Option<(String, Millis)> {
        let now = self.now();
        let index = self.lock();
        let state = index.agents.get(id)?;
        let since = state.agent.last_heartbeat;
        let limit = u64::try_from(CONNECTED_FOR.as_millis()).unwrap_or(u64::MAX);
        let silent = state.polls == 0 && now >= since.max(self.loaded_at).saturating_add(limit);
        (state.agent.gone || silent).then(|| (state.agent.name.clone(), since))
    }

    /// Every agent that is not gone.
    pub fn agents(&self) -> Vec<Presence> {
        let index = self.lock();
        let present = index.agents.values().filter(|state| !state.agent.gone);
        present
            .map(|state| Presence {
                agent: state.agent.clone(),
                connected: state.connected,
                polls: state.polls,
                tasks: state.assigned.keys().cloned().collect(),
            })
            .collect()
    }

    /// A sign of life other than a heartbeat.
    pub fn seen(&self, agent: &str) {
        let now = self.now();
        self.lock().seen(agent, now);
    }

    /// A heartbeat of an agent that is known: a verdict for each task it holds. `held` is `None` from foreign clients.
    pub fn heartbeat(&self, agent: &str, held: Option<&[Held]>) -> Vec<TaskVerdict> {
        let now = self.now();
        let mut index = self.lock();
        index.seen(agent, now);
        let ids: Option<Vec<String>> =
            held.map(|held| held.iter().map(|held| held.task_id.clone()).collect());
        index.heartbeat(agent, now, ids.as_deref());
        let Some(state) = index.agents.get(agent) else { return vec![] };
        held.unwrap_or_default()
            .iter()
            .map(|held| {
                let verdict = match state.assigned.get(&held.task_id) {
                    None => Verdict::Lost,
                    Some(assigned) if held.fence != 0 && held.fence != assigned.fence => Verdict::Lost,
                    Some(assigned) if assigned.is_aborted() => Verdict::Abort,
                    Some(_) => Verdict::Keep,
                };
                TaskVerdict { task_id: held.task_id.clone(), verdict }
            })
            .collect()
    }

    /// Whether the agent may acquire this task.
    pub fn may_acquire(&self, agent: &str, task: &str) -> bool {
        self.lock().may_acquire(agent, task)
    }

    /// What an agent is to know, waiting at most `wait` until there is something. Empty after the wait and on `stop`.
    ///
    /// **Cancel**: dropping it closes the poll; nothing is lost, everything is listed again later.
    pub async fn poll(&self, agent: &str, wait: Option<Duration>, stop: &CancellationToken) -> Vec<Listed> {
        let wake = self.lock().agents.get(agent).map(|state| Arc::clone(&state.wake));
        let Some(wake) = wake else {
            // Nobody registered under this id. A client that asks on and on is slowed down; its next heartbeat makes it
            // known.
            tokio::select! {
                () = self.clock.sleep(wait.unwrap_or_default().min(UNKNOWN_WAIT)) => {}
                () = stop.cancelled() => {}
            }
            return vec![];
        };
        let Some(wait) = wait else {
            let now = self.now();
            let mut index = self.lock();
            index.seen(agent, now);
            return index.list(agent, false, now).0;
        };
        let _open = OpenPoll::new(self, agent);
        let deadline = self.clock.mono() + wait;
        loop {
            // Woken between the look and the wait, it must not sleep: enable the wait first.
            let woken = wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let now = self.now();
            let (listed, next) = self.lock().list(agent, true, now);
            if !listed.is_empty() {
                return listed;
            }
            let look = next.map(|at| self.clock.mono() + Duration::from_millis(at.saturating_sub(now)));
            let until = look.map_or(deadline, |look| look.min(deadline));
            tokio::select! {
                () = woken => {}
                () = stop.cancelled() => return vec![],
                () = self.clock.sleep_until(until) => {
                    if until == deadline {
                        return vec![];
                    }
                }
            }
        }
    }

    /// Why a queued task waits; `None` if it is not queued.
    pub fn explain(&self, task: &str) -> Option<Explanation> {
        let index = self.lock();
        let entry = index.entry(task)?;
        Some(explain::explain(&index, &entry.task.task_type, !entry.task.secrets.is_empty(), &entry.sets))
    }

    /// What would become of a task with these needs (preflight).
    pub fn explain_selectors(
        &self,
        task_type: &str,
        needs_secrets: bool,
        sets: &[SelectorSet],
    ) -> Explanation {
        explain::explain(&self.lock(), task_type, needs_secrets, sets)
    }

    /// Ends tasks that no connected agent fits for `wait`, until `stop`.
    pub async fn watch_over(self: Arc<Self>, store: Arc<dyn Store>, wait: Duration, stop: CancellationToken) {
        warden::run(&self, store.as_ref(), wait, &stop).await;
    }

    fn sweep(&self, wait: Millis) -> (Vec<(Arc<NewTask>, Explanation)>, Option<Millis>) {
        let now = self.now();
        let mut index = self.lock();
        index.sweep(now);
        let given_up = index
            .given_up(now, wait)
            .into_iter()
            .map(|task| {
                let sets = index::sets_of(&task);
                let why = explain::explain(&index, &task.task_type, !task.secrets.is_empty(), &sets);
                (task, why)
            })
            .collect();
        (given_up, index.next_change(wait))
    }
}

/// An open long poll counts as a connection.
struct OpenPoll<'a> {
    queue: &'a Queue,
    agent: &'a str,
}

impl<'a> OpenPoll<'a> {
    fn new(queue: &'a Queue, agent: &'a str) -> Self {
        let now = queue.now();
        queue.lock().poll_opened(agent, now);
        queue.changed.notify_one();
        OpenPoll { queue, agent }
    }
}

impl Drop for OpenPoll<'_> {
    fn drop(&mut self) {
        let now = self.queue.now();
        self.queue.lock().poll_closed(self.agent, now);
        self.queue.changed.notify_one();
    }
}
