//! The queue in memory: which queued task fits which agent. Pure; time comes in as `now`.
//!
//! Each agent has the ordered set of queued tasks that fit it, so that a poll looks at its own tasks only. The sets change
//! when a task comes or goes (work: agents) and when an agent changes (work: queued tasks).

use crate::store::{Agent, Millis, NewTask};
use pipeline::machine::SelectorSet;
use proto::limits::CONNECTED_FOR;
use proto::selector::{AgentSelectors, Missing};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;

/// Agents remembered for affinity keys (an execution and a host each). A preference only: forgetting costs a login.
const AFFINITIES: usize = 10_000;

/// How long a task is kept for the agent that its affinity prefers (D15). Longer than a poll takes to come back,
/// shorter than anybody minds.
const RESERVED_MS: Millis = 500;

/// How long an agent that was offered a task and did not take it is not woken for it again. It keeps a client that
/// cannot take what it is offered from asking in a tight loop.
const OFFERED_MS: Millis = 1000;

/// Tasks in one reply to a client that names no capacity.
const LISTED: usize = 100;

/// A queued task.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) task: Arc<NewTask>,
    pub(super) sets: Vec<SelectorSet>,
    /// Since when no connected agent fits.
    unfit_since: Option<Millis>,
    /// For whom it is kept, and until when.
    reserved: Option<(String, Millis)>,
}

/// A task that an agent holds.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) fence: u64,
    pub(super) at: Millis,
    task_type: String,
    abort: Option<String>,
    /// The abort is to be listed in the next reply.
    abort_due: bool,
    /// The task is to be listed in the next reply: its acquire reply may have been lost.
    relist: bool,
}

/// An agent with what it may have and what it has.
#[derive(Debug)]
pub(super) struct AgentState {
    pub(super) agent: Agent,
    selectors: AgentSelectors,
    /// Queued tasks that fit, by order.
    fits: BTreeSet<i64>,
    offered: HashMap<i64, Millis>,
    pub(super) assigned: BTreeMap<String, Assigned>,
    /// Long polls that are open.
    pub(super) polls: u32,
    pub(super) connected: bool,
    /// When the heartbeat before the last one came.
    heartbeat_before: Millis,
    pub(super) wake: Arc<Notify>,
}

/// One entry of a reply to a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A task to acquire.
    Task {
        /// Id.
        id: String,
        /// Harness task family.
        task_type: String,
    },
    /// A task to end.
    Abort {
        /// Id.
        id: String,
        /// Why.
        reason: String,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) tasks: BTreeMap<i64, Entry>,
    by_id: HashMap<String, i64>,
    pub(super) agents: HashMap<String, AgentState>,
    affinity: HashMap<String, String>,
    /// (since, order) of tasks that no connected agent fits.
    unfit: BTreeSet<(Millis, i64)>,
}

pub(super) fn sets_of(task: &NewTask) -> Vec<SelectorSet> {
    serde_json::from_value(task.selectors.clone()).unwrap_or_else(|error| {
        // Never an empty list by mistake: that would let any agent take the task.
        tracing::error!(task = %task.id, %error, "the selectors of a task cannot be read; no agent gets it");
        vec![SelectorSet {
            origin: "unreadable".to_owned(),
            selectors: vec![format!("unreadable:{}", task.id)],
        }]
    })
}

impl Assigned {
    pub(super) fn is_aborted(&self) -> bool {
        self.abort.is_some()
    }
}

impl AgentState {
    fn new(agent: Agent) -> Self {
        let selectors = AgentSelectors::new(&agent.name, "", &agent.host_name, &agent.tags);
        AgentState {
            heartbeat_before: agent.last_heartbeat,
            agent,
            selectors,
            fits: BTreeSet::new(),
            offered: HashMap::new(),
            assigned: BTreeMap::new(),
            polls: 0,
            connected: false,
            wake: Arc::new(Notify::new()),
        }
    }

    /// What this agent lacks for a task. Empty: nothing.
    pub(super) fn missing(&self, sets: &[SelectorSet]) -> Vec<Missing> {
        self.selectors.missing(sets.iter().map(|set| (set.origin.as_str(), set.selectors.as_slice())))
    }

    pub(super) fn knows_type(&self, task_type: &str) -> bool {
        self.agent.task_types.contains(task_type)
    }

    pub(super) fn has_key(&self) -> bool {
        !self.agent.public_key.is_empty()
    }

    fn may_have(&self, entry: &Entry) -> bool {
        !self.agent.gone
            && self.knows_type(&entry.task.task_type)
            && (entry.task.secrets.is_empty() || self.has_key())
            && self.missing(&entry.sets).is_empty()
    }

    /// Tasks it could take besides those it has; `None` when it names no capacity.
    fn free(&self) -> Option<usize> {
        let capacity = usize::try_from(self.agent.capacity).unwrap_or(usize::MAX);
        (capacity > 0).then(|| capacity.saturating_sub(self.assigned.len()))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.free() == Some(0)
    }

    fn silent_at(&self) -> Millis {
        let limit = u64::try_from(CONNECTED_FOR.as_millis()).unwrap_or(u64::MAX);
        self.agent.last_heartbeat.saturating_add(limit)
    }
}

impl Index {
    // --- tasks ---

    pub(super) fn queued(&mut self, order: i64, task: Arc<NewTask>, now: Millis) {
        let sets = sets_of(&task);
        let mut entry = Entry { sets, unfit_since: None, reserved: None, task };
        let mut fits_somebody = false;
        for agent in self.agents.values_mut() {
            if agent.may_have(&entry) {
                agent.fits.insert(order);
                fits_somebody |= agent.connected;
            }
        }
        if let Some(agent) =
            self.affinity.get(&entry.task.affinity).filter(|_| !entry.task.affinity.is_empty())
        {
            let preferred = self
                .agents
                .get(agent)
                .filter(|state| state.connected && !state.is_busy() && state.fits.contains(&order));
            if let Some(preferred) = preferred {
                entry.reserved = Some((preferred.agent.id.clone(), now.saturating_add(RESERVED_MS)));
            }
        }
        let reserved = entry.reserved.as_ref().map(|(agent, _)| agent.clone());
        self.by_id.insert(entry.task.id.clone(), order);
        self.tasks.insert(order, entry);
        if !fits_somebody {
            self.set_unfit(order, Some(now));
        }
        for (id, agent) in &self.agents {
            // Those who wait learn of a reserved task too, so that they know when it becomes free for them.
            if agent.fits.contains(&order)
                && (reserved.is_none() || reserved.as_ref() == Some(id) || agent.polls > 0)
            {
                agent.wake.notify_waiters();
            }
        }
    }

    fn set_unfit(&mut self, order: i64, since: Option<Millis>) {
        let Some(entry) = self.tasks.get_mut(&order) else { return };
        if let Some(before) = entry.unfit_since.take() {
            self.unfit.remove(&(before, order));
        }
        entry.unfit_since = since;
        if let Some(since) = since {
            self.unfit.insert((since, order));
        }
    }

    /// The task is no longer queued.
    fn unqueue(&mut self, id: &str) -> Option<Arc<NewTask>> {
        let order = self.by_id.remove(id)?;
        self.set_unfit(order, None);
        for agent in self.agents.values_mut() {
            agent.fits.remove(&order);
            agent.offered.remove(&order);
        }
        self.tasks.remove(&order).map(|entry| entry.task)
    }

    pub(super) fn assigned(&mut self, id: &str, agent: &str, fence: u64, at: Millis) {
        let task = self.unqueue(id);
        if let Some(task) = &task
            && !task.affinity.is_empty()
        {
            if self.affinity.len() >= AFFINITIES {
                self.affinity.clear();
            }
            self.affinity.insert(task.affinity.clone(), agent.to_owned());
        }
        if let Some(state) = self.agents.get_mut(agent) {
            let task_type = task.map(|task| task.task_type.clone()).unwrap_or_default();
            let held = Assigned { fence, at, task_type, abort: None, abort_due: false, relist: false };
            state.assigned.insert(id.to_owned(), held);
        }
    }

    /// At start: a task that was assigned before. It is listed to its agent once more.
    pub(super) fn restore_assigned(
        &mut self,
        task: &NewTask,
        agent: &str,
        fence: u64,
        at: Millis,
        abort: Option<String>,
    ) {
        if let Some(state) = self.agents.get_mut(agent) {
            let held = Assigned {
                fence,
                at,
                task_type: task.task_type.clone(),
                abort_due: abort.is_some(),
                abort,
                relist: true,
            };
            state.assigned.insert(task.id.clone(), held);
        }
        if !task.affinity.is_empty() {
            self.affinity.insert(task.affinity.clone(), agent.to_owned());
        }
    }

    pub(super) fn abort_asked(&mut self, id: &str, agent: &str, reason: &str) {
        if let Some(state) = self.agents.get_mut(agent)
            && let Some(held) = state.assigned.get_mut(id)
        {
            held.abort = Some(reason.to_owned());
            held.abort_due = true;
            state.wake.notify_waiters();
        }
    }

    pub(super) fn ended(&mut self, id: &str) {
        self.unqueue(id);
        for agent in self.agents.values_mut() {
            if agent.assigned.remove(id).is_some() && !agent.fits.is_empty() {
                // A slot got free.
                agent.wake.notify_waiters();
            }
        }
    }

    pub(super) fn entry(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).and_then(|order| self.tasks.get(order))
    }

    /// Whether the agent may acquire this task: it is queued and fits, or the agent has it.
    pub(super) fn may_acquire(&self, agent: &str, id: &str) -> bool {
        self.agents.get(agent).is_some_and(|state| {
            !state.agent.gone
                && (state.assigned.contains_key(id)
                    || self.by_id.get(id).is_some_and(|order| state.fits.contains(order)))
        })
    }

    // --- agents ---

    /// Takes over what an agent said of itself and finds out anew what fits it.
    pub(super) fn put_agent(&mut self, agent: Agent, now: Millis) {
        let id = agent.id.clone();
        let state = self.agents.entry(id.clone()).or_insert_with(|| AgentState::new(agent.clone()));
        let same = state.agent.tags == agent.tags
            && state.agent.name == agent.name
            && state.agent.host_name == agent.host_name
            && state.agent.task_types == agent.task_types
            && state.agent.public_key == agent.public_key
            && state.agent.gone == agent.gone;
        let first = state.fits.is_empty();
        state.selectors = AgentSelectors::new(&agent.name, "", &agent.host_name, &agent.tags);
        state.agent = agent;
        if !same || first {
            state.fits = self
                .tasks
                .iter()
                .filter(|(_, entry)| state.may_have(entry))
                .map(|(&order, _)| order)
                .collect();
        }
        let connected = !state.agent.gone && (state.polls > 0 || now < state.silent_at());
        state.wake.notify_waiters();
        let changed = !same || first || state.connected != connected;
        state.connected = connected;
        if changed {
            self.refit(now);
        }
    }

    /// A heartbeat: `held` are the tasks the agent knows of; `None` from clients that do not say.
    pub(super) fn heartbeat(&mut self, id: &str, now: Millis, held: Option<&[String]>) {
        let Some(state) = self.agents.get_mut(id) else { return };
        let before = std::mem::replace(&mut state.heartbeat_before, now);
        let extended = state.agent.extended;
        for (task, assigned) in &mut state.assigned {
            // Foreign clients are told once; ours until they answer.
            if assigned.abort.is_some() && extended {
                assigned.abort_due = true;
            }
            // Acquired since the last heartbeat: the reply may be on its way still.
            if let Some(held) = held
                && assigned.at < before
                && !held.contains(task)
            {
                assigned.relist = true;
            }
        }
        if state.assigned.values().any(|task| task.relist || task.abort_due) {
            state.wake.notify_waiters();
        }
    }

    /// The agent registered: whatever it had is listed again.
    pub(super) fn registered(&mut self, id: &str, now: Millis) {
        if let Some(state) = self.agents.get_mut(id) {
            state.heartbeat_before = now;
            for task in state.assigned.values_mut() {
                task.relist = true;
                task.abort_due = task.abort.is_some();
            }
        }
    }

    /// Any sign of life.
    pub(super) fn seen(&mut self, id: &str, now: Millis) {
        let Some(state) = self.agents.get_mut(id) else { return };
        state.agent.last_heartbeat = state.agent.last_heartbeat.max(now);
        if !state.connected && !state.agent.gone {
            state.connected = true;
            self.refit(now);
        }
    }

    pub(super) fn poll_opened(&mut self, id: &str, now: Millis) {
        if let Some(state) = self.agents.get_mut(id) {
            state.polls = state.polls.saturating_add(1);
        }
        self.seen(id, now);
    }

    pub(super) fn poll_closed(&mut self, id: &str, now: Millis) {
        if let Some(state) = self.agents.get_mut(id) {
            state.polls = state.polls.saturating_sub(1);
        }
        self.seen(id, now);
    }

    /// Marks agents that fell silent.
    pub(super) fn sweep(&mut self, now: Millis) {
        let mut changed = false;
        for state in self.agents.values_mut() {
            let connected = !state.agent.gone && (state.polls > 0 || now < state.silent_at());
            changed |= state.connected != connected;
            state.connected = connected;
        }
        if changed {
            self.refit(now);
        }
    }

    /// Finds out anew which tasks no connected agent fits.
    fn refit(&mut self, now: Millis) {
        let mut served: BTreeSet<i64> = BTreeSet::new();
        for state in self.agents.values().filter(|state| state.connected) {
            served.extend(&state.fits);
        }
        let changes: Vec<(i64, Option<Millis>)> = self
            .tasks
            .iter()
            .filter_map(|(&order, entry)| match (served.contains(&order), entry.unfit_since) {
                (true, Some(_)) => Some((order, None)),
                (false, None) => Some((order, Some(now))),
                _ => None,
            })
            .collect();
        for (order, since) in changes {
            self.set_unfit(order, since);
        }
    }

    /// Tasks that have waited `wait` or longer for an agent that fits.
    pub(super) fn given_up(&self, now: Millis, wait: Millis) -> Vec<Arc<NewTask>> {
        let due = self.unfit.iter().take_while(|(since, _)| since.saturating_add(wait) <= now);
        due.filter_map(|(_, order)| self.tasks.get(order)).map(|entry| Arc::clone(&entry.task)).collect()
    }

    /// When something changes by time alone: a wait that runs out, an agent that falls silent.
    pub(super) fn next_change(&self, wait: Millis) -> Option<Millis> {
        let gives_up = self.unfit.first().map(|(since, _)| since.saturating_add(wait));
        let silent =
            self.agents.values().filter(|s| s.connected && s.polls == 0).map(AgentState::silent_at).min();
        gives_up.into_iter().chain(silent).min()
    }

    // --- polls ---

    /// What to answer a poll of an agent, and when the answer may change by time alone. `waiting`: a long poll of our own
    /// agent, which is told of each thing once in a while and not in every reply.
    pub(super) fn list(&mut self, id: &str, waiting: bool, now: Millis) -> (Vec<Listed>, Option<Millis>) {
        let Some(state) = self.agents.get_mut(id).filter(|state| !state.agent.gone) else {
            return (vec![], None);
        };
        let mut listed = Vec::new();
        let mut next: Option<Millis> = None;
        let extended = state.agent.extended;
        for (task, held) in &mut state.assigned {
            match &held.abort {
                Some(reason) if held.abort_due => {
                    held.abort_due = false;
                    listed.push(Listed::Abort { id: task.clone(), reason: reason.clone() });
                }
                Some(_) => {}
                None if held.relist || !extended => {
                    held.relist = false;
                    listed.push(Listed::Task { id: task.clone(), task_type: held.task_type.clone() });
                }
                None => {}
            }
        }
        let room = state.free().unwrap_or(LISTED).min(LISTED);
        let mut taken = 0;
        for &order in &state.fits {
            if taken == room {
                break;
            }
            let Some(entry) = self.tasks.get(&order) else { continue };
            let kept =
                entry.reserved.as_ref().filter(|(agent, until)| agent != id && *until > now).map(|(_, u)| *u);
            let told = state
                .offered
                .get(&order)
                .map(|at| at.saturating_add(OFFERED_MS))
                .filter(|&at| waiting && at > now);
            if let Some(at) = kept.or(told) {
                next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            taken += 1;
            state.offered.insert(order, now);
            listed.push(Listed::Task { id: entry.task.id.clone(), task_type: entry.task.task_type.clone() });
        }
        (listed, next)
    }
}

#[cfg(test)]
mod tests;
