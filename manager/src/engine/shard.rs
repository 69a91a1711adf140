//! Moves one execution: what a batch of inputs means, as one transition.

mod waits;

use super::perform::{self, Job};
use super::record::{self, Before, RECORD_VERSION, Record};
use super::{Command, EngineError, Input, Shared, host_keys};
use crate::preflight;
use crate::store::{Effect, Millis, NextState, Part, Store, StoreError, TaskRow, TaskStatus};
use pipeline::machine::{self, Action, Event, PendingWork, Refusal};
use proto::failure::{Failure, FailureKind};
use proto::result::{StepResult, StepStatus};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Attempts against a concurrent writer before the execution is left for a later try.
const MAX_CONFLICTS: u32 = 10;
/// Events in one transition: a resumed fan-out of thousands must not become one huge commit that others wait for.
const MAX_EVENTS: usize = 256;
/// A state is stored whole again when the parts since then have grown to its own size, and to this many bytes at least.
/// A reader then puts about as much in place as it reads, and writing it costs each event the same however large it is.
const PARTS_AT_LEAST: usize = 32 * 1024;

/// An execution in memory.
pub(super) struct Loaded {
    version: u64,
    record: Record,
    /// About how many bytes the state had when it was last stored whole; 0 when it must be stored whole next.
    whole: usize,
    /// About how many bytes of parts were stored since.
    parts: usize,
    /// How much of `whole` it shares with another execution in memory.
    shared: usize,
    ended: bool,
}

impl Loaded {
    /// Whether nothing can happen to it any more.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// About how many bytes it is as JSON, without what another one in memory has too.
    pub(super) fn weight(&self) -> usize {
        (self.whole + self.parts).saturating_sub(self.shared)
    }
}

/// What was decided and is not committed yet.
#[derive(Default)]
struct Staged {
    /// What the record was before the first of the events.
    before: Option<Before>,
    events: Vec<Value>,
    effects: Vec<Effect>,
    /// When the events were received.
    received: Vec<Millis>,
    /// To be performed by the manager itself, once the decision is committed.
    work: Vec<PendingWork>,
}

/// One execution while its inputs are worked on.
pub(super) struct Driver {
    shared: Arc<Shared>,
    execution_id: String,
    /// The inbox of its shard, for answers to what the manager performs.
    inbox: mpsc::Sender<Command>,
    loaded: Option<Loaded>,
    staged: Staged,
}

/// Reads the latest state of an execution.
pub(crate) async fn load(
    store: &dyn Store,
    execution_id: &str,
) -> Result<Option<(u64, Record)>, EngineError> {
    Ok(load_weighed(store, execution_id).await?.map(|(version, record, _)| (version, record)))
}

/// About how many bytes a stored state is.
struct Weight {
    all: usize,
    /// The nodes of its plan.
    nodes: usize,
}

/// The same, with its weight.
async fn load_weighed(
    store: &dyn Store,
    execution_id: &str,
) -> Result<Option<(u64, Record, Weight)>, EngineError> {
    let Some(snapshot) = store.snapshot(execution_id).await? else { return Ok(None) };
    let version = snapshot.state.get("version").and_then(Value::as_u64).unwrap_or(0);
    if version > u64::from(RECORD_VERSION) {
        return Err(EngineError::TooNew {
            execution_id: execution_id.to_owned(),
            found: u32::try_from(version).unwrap_or(u32::MAX),
            known: RECORD_VERSION,
        });
    }
    let nodes = snapshot.state.pointer("/machine/plan/nodes").map_or(0, weight);
    let weight = Weight { all: weight(&snapshot.state), nodes };
    let record = serde_json::from_value(snapshot.state)
        .map_err(|source| EngineError::Unreadable { execution_id: execution_id.to_owned(), source })?;
    Ok(Some((snapshot.version, record, weight)))
}

/// About how many bytes a document is as JSON text.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => items.iter().map(weight).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 4 + weight(value)).sum::<usize>() + 2,
    }
}

fn weight_of_parts(parts: &[Part]) -> usize {
    let path = |path: &[String]| path.iter().map(|key| key.len() + 3).sum::<usize>() + 12;
    parts
        .iter()
        .map(|part| match part {
            Part::Set(at, value) => path(at) + weight(value),
            Part::Push(at, values) => path(at) + values.iter().map(weight).sum::<usize>(),
            Part::Remove(at) => path(at),
        })
        .sum()
}

impl Driver {
    /// `loaded`: the execution as it was left after its last input, if it is still in memory.
    pub(super) fn new(
        shared: Arc<Shared>,
        inbox: mpsc::Sender<Command>,
        execution_id: String,
        loaded: Option<Loaded>,
    ) -> Self {
        Driver { shared, execution_id, inbox, loaded, staged: Staged::default() }
    }

    /// Which execution, and what of it stays in memory.
    pub(super) fn into_parts(self) -> (String, Option<Loaded>) {
        (self.execution_id, self.loaded)
    }

    /// Applies `inputs` in their order and commits what follows from them, together.
    ///
    /// **Errors**: nothing of what was not committed stays in memory; the inputs may be given again.
    pub(super) async fn process(&mut self, inputs: &[Input]) -> Result<(), EngineError> {
        for _ in 0..MAX_CONFLICTS {
            let outcome = self.attempt(inputs).await;
            if outcome.is_ok() {
                return outcome;
            }
            self.loaded = None;
            self.staged = Staged::default();
            // Somebody else moved it: read again, decide again.
            if !matches!(outcome, Err(EngineError::Store(StoreError::Conflict { .. }))) {
                return outcome;
            }
        }
        Err(EngineError::Contended { execution_id: self.execution_id.clone() })
    }

    async fn attempt(&mut self, inputs: &[Input]) -> Result<(), EngineError> {
        self.ensure_loaded().await?;
        if self.current()?.ended {
            let status = self.current()?.record.machine.status();
            let asked = inputs.iter().any(|input| matches!(input, Input::Act(_)));
            return if asked { Err(Refusal::Ended { status }.into()) } else { Ok(()) };
        }
        if !self.current()?.record.started {
            self.apply(Event::Started { at: self.shared.now() }).await?;
        }
        let rows = self.news(inputs).await?;
        for input in inputs {
            self.input(input, &rows).await?;
        }
        self.commit().await
    }

    async fn input(&mut self, input: &Input, rows: &BTreeMap<String, TaskRow>) -> Result<(), EngineError> {
        match input {
            Input::Resume => {
                let open: Vec<String> = self.current()?.record.open.keys().cloned().collect();
                for task_id in open {
                    self.task(&task_id, rows).await?;
                }
                let due = self.shared.store.due_timers(self.shared.now()).await?;
                for timer in due {
                    if timer.execution_id != self.execution_id {
                        continue;
                    }
                    let event = self.fired(timer.timer).await?;
                    self.apply(event).await?;
                }
                self.claims().await?;
                let pending = machine::pending_work(&self.current()?.record.machine);
                self.staged.work.extend(pending);
                Ok(())
            }
            Input::Claims => self.claims().await,
            Input::Task(task_id) => self.task(task_id, rows).await,
            Input::Timer(timer) => {
                let event = self.fired(timer.clone()).await?;
                self.apply(event).await
            }
            Input::Abort(by) => {
                let event = Event::AbortRequested { by: by.clone(), at: self.shared.now() };
                self.apply(event).await
            }
            Input::Act(act) => {
                let state = &self.current()?.record.machine;
                if state.finished {
                    return Err(Refusal::Ended { status: state.status() }.into());
                }
                machine::accepts(state, &act.node, &act.by, &act.action)?;
                let attempt = state.runs.get(&act.node).map_or(0, |run| run.attempt);
                let (node, by, action) = (act.node.clone(), act.by.clone(), act.action.clone());
                let event = Event::UserActed { node, attempt, by, action, at: self.shared.now() };
                self.apply(event).await
            }
            Input::Performed { node, attempt, result } => {
                self.shared.desk.done(&self.execution_id, node, *attempt);
                let (node, result) = (node.clone(), result.clone());
                let event = Event::Performed { node, attempt: *attempt, result, at: self.shared.now() };
                self.apply(event).await
            }
        }
    }

    /// Where the tasks stand that the inputs are about, read at once.
    async fn news(&self, inputs: &[Input]) -> Result<BTreeMap<String, TaskRow>, EngineError> {
        let open = &self.current()?.record.open;
        let mut ids = BTreeSet::new();
        for input in inputs {
            match input {
                Input::Resume => ids.extend(open.keys().cloned()),
                Input::Task(id) if open.contains_key(id) => drop(ids.insert(id.clone())),
                Input::Task(_)
                | Input::Claims
                | Input::Timer(_)
                | Input::Abort(_)
                | Input::Act(_)
                | Input::Performed { .. } => {}
            }
        }
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = self.shared.store.task_ends(ids.into_iter().collect()).await?;
        Ok(rows.into_iter().map(|row| (row.task.id.clone(), row)).collect())
    }

    async fn ensure_loaded(&mut self) -> Result<(), EngineError> {
        if self.loaded.is_some() {
            return Ok(());
        }
        let missing = || EngineError::NotFound { execution_id: self.execution_id.clone() };
        let store = self.shared.store.as_ref();
        let row = store.execution(&self.execution_id).await?.ok_or_else(missing)?;
        let loaded = load_weighed(store, &self.execution_id).await?.ok_or_else(missing)?;
        let (version, mut record, weight) = loaded;
        let shares = self.shared.plans.share(Arc::make_mut(&mut record.machine.plan));
        // How much of it is stored as parts is not known. Before the first transition nothing is.
        let (whole, parts) = if version == 0 { (weight.all, 0) } else { (weight.all / 2, weight.all / 2) };
        let shared = if shares { weight.nodes } else { 0 };
        self.loaded = Some(Loaded { version, record, whole, parts, shared, ended: row.ended });
        Ok(())
    }

    fn current(&self) -> Result<&Loaded, EngineError> {
        let gone = || EngineError::NotFound { execution_id: self.execution_id.clone() };
        self.loaded.as_ref().ok_or_else(gone)
    }

    /// Tells the machine what it does not know yet of a task.
    async fn task(&mut self, task_id: &str, rows: &BTreeMap<String, TaskRow>) -> Result<(), EngineError> {
        let Some(open) = self.current()?.record.open.get(task_id).cloned() else { return Ok(()) };
        let Some(row) = rows.get(task_id) else { return Ok(()) };
        if !open.assigned
            && let Some(agent_id) = &row.agent_id
        {
            let name = match self.shared.queue.agent(agent_id) {
                Some(agent) => Some(agent.name),
                None => self.shared.store.agent(agent_id).await?.map(|agent| agent.name),
            };
            let event = Event::TaskAssigned {
                node: open.node.clone(),
                attempt: open.attempt,
                agent: name.unwrap_or_else(|| agent_id.clone()),
                at: row.assigned_at.unwrap_or_else(|| self.shared.now()),
            };
            self.staged.received.extend(row.assigned_at);
            self.apply(event).await?;
        }
        if row.status != TaskStatus::Ended {
            return Ok(());
        }
        let result = result_of(row);
        let now = self.shared.now();
        if !result.learned_host_keys.is_empty()
            && let Some(row) = self.shared.store.task(task_id).await?
        {
            let store = self.shared.store.as_ref();
            host_keys::learn(store, &row.task.data, &result.learned_host_keys, now).await?;
        }
        self.staged.received.extend(row.ended_at);
        let event =
            Event::TaskEnded { node: open.node, attempt: open.attempt, result: Box::new(result), at: now };
        self.apply(event).await
    }

    /// Decides what one event means. It is committed with the others of its batch.
    async fn apply(&mut self, event: Event) -> Result<(), EngineError> {
        let unwritable = |source| EngineError::Unwritable { execution_id: self.execution_id.clone(), source };
        let Some(Loaded { record, .. }) = &mut self.loaded else { return Ok(()) };
        // After the end nothing fits any more; it may be decided and not committed yet.
        if record.machine.finished {
            return Ok(());
        }
        let before = self.staged.before.get_or_insert_with(|| Before::of(record));
        let mut effects = seen(record, &self.execution_id, &event);
        let mut actions = machine::apply(&mut record.machine, &event);
        self.staged.work.extend(perform::take(&mut actions));
        note(record, before, &self.execution_id, &event);
        for action in &mut actions {
            if let Action::Enqueue(request) = action {
                host_keys::fill_known(self.shared.store.as_ref(), &mut request.task).await?;
            }
        }
        if let Event::TimerFired { timer, .. } = &event {
            // A fired timer is gone, whether or not the machine still knew it; an action may set it again.
            effects.push(Effect::ClearTimer { timer: timer.clone() });
        }
        let now = self.shared.now();
        effects.extend(
            record::effects(record, before, &self.execution_id, actions, now)
                .map_err(|error| unwritable(error.source))?,
        );
        self.staged.effects.extend(effects);
        self.staged.events.push(serde_json::to_value(&event).map_err(unwritable)?);
        if self.staged.events.len() >= MAX_EVENTS { self.commit().await } else { Ok(()) }
    }

    /// Commits what was decided, then has performed what the manager itself is to do.
    async fn commit(&mut self) -> Result<(), EngineError> {
        let staged = std::mem::take(&mut self.staged);
        let work = self.transition(staged).await?;
        if work.is_empty() {
            return Ok(());
        }
        let facts = self.current()?.record.machine.plan.run.clone();
        for PendingWork { node, attempt, work } in work {
            let execution_id = self.execution_id.clone();
            // Its answer comes back through the inbox.
            self.shared
                .desk
                .start(Job { execution_id, node, attempt, work, facts: facts.clone() }, self.inbox.clone());
        }
        Ok(())
    }

    /// One transition: all or nothing. Those who wait hear of it from the store.
    async fn transition(&mut self, staged: Staged) -> Result<Vec<PendingWork>, EngineError> {
        let Staged { before, mut events, effects, received, work } = staged;
        let (Some(before), Some(loaded)) = (before, &mut self.loaded) else { return Ok(work) };
        let unwritable = |source| EngineError::Unwritable { execution_id: self.execution_id.clone(), source };
        let store = self.shared.store.as_ref();
        let record = &mut loaded.record;
        let parts = before.parts(record).map_err(unwritable)?;
        if effects.is_empty() && parts.is_empty() {
            return Ok(work);
        }
        let ended = effects.iter().any(|effect| matches!(effect, Effect::Finish { .. }));
        let owes = effects.iter().any(|effect| matches!(effect, Effect::PutFact { .. }));
        if ended {
            preflight::remember(store, &record.machine).await?;
        }
        let grown = loaded.parts + weight_of_parts(&parts);
        let (next, whole, grown) = if ended || grown >= loaded.whole.max(PARTS_AT_LEAST) {
            let state = serde_json::to_value(&*record).map_err(unwritable)?;
            let whole = weight(&state);
            (NextState::Whole(state), whole, 0)
        } else {
            (NextState::Parts(parts), loaded.whole, grown)
        };
        let event = match events.len() {
            1 => events.remove(0),
            _ => Value::Array(events),
        };
        let now = self.shared.now();
        store.transition(&self.execution_id, loaded.version, event, next, effects, now).await?;
        if owes {
            self.shared.owed.notify_one();
        }
        let now = self.shared.now();
        self.shared.figures.committed(received.into_iter().map(|at| now.saturating_sub(at)));
        loaded.version += 1;
        (loaded.whole, loaded.parts, loaded.ended) = (whole, grown, ended);
        Ok(work)
    }
}

/// Marks the news of a task as taken in, by the same commit.
fn seen(record: &Record, execution_id: &str, event: &Event) -> Vec<Effect> {
    let (node, attempt, status) = match event {
        Event::TaskAssigned { node, attempt, .. } => (node, *attempt, TaskStatus::Assigned),
        Event::TaskEnded { node, attempt, .. } => (node, *attempt, TaskStatus::Ended),
        Event::Started { .. }
        | Event::TimerFired { .. }
        | Event::AbortRequested { .. }
        | Event::UserActed { .. }
        | Event::Granted { .. }
        | Event::Performed { .. } => return Vec::new(),
    };
    let task = record::task_id(execution_id, node, attempt);
    if record.open.contains_key(&task) { vec![Effect::Seen { task, status }] } else { Vec::new() }
}

/// Keeps what the record knows beside the machine.
fn note(record: &mut Record, before: &mut Before, execution_id: &str, event: &Event) {
    match event {
        Event::Started { .. } => record.started = true,
        Event::TaskAssigned { node, attempt, .. } => {
            let task = record::task_id(execution_id, node, *attempt);
            if let Some(open) = record.open.get_mut(&task) {
                open.assigned = true;
                before.touched(task);
            }
        }
        Event::TaskEnded { node, attempt, .. } => {
            let task = record::task_id(execution_id, node, *attempt);
            if record.open.remove(&task).is_some() {
                before.touched(task);
            }
        }
        Event::TimerFired { .. }
        | Event::AbortRequested { .. }
        | Event::UserActed { .. }
        | Event::Granted { .. }
        | Event::Performed { .. } => {}
    }
}

/// The answer of an ended task; one that cannot be read is a failure that says so.
fn result_of(row: &TaskRow) -> StepResult {
    let made = |status, failure| StepResult { fence: row.fence, ..StepResult::bare(status, Some(failure)) };
    match &row.result {
        Some(value) => serde_json::from_value(value.clone()).unwrap_or_else(|error| {
            made(
                StepStatus::Failed,
                Failure::new(
                    FailureKind::Bug,
                    "MGR-103",
                    format!("the answer of the agent cannot be read: {error}"),
                )
                .hint("the agent may be newer than the manager; compare `delegate agents` with the manager's version"),
            )
        }),
        None => {
            let reason = row.abort.as_deref().unwrap_or("User");
            let kind = if reason == "Deadline" { FailureKind::Timeout } else { FailureKind::UserMarkedFailure };
            let (code, why) = match reason {
                "Deadline" => ("MGR-105", "its time ran out"),
                _ => ("MGR-104", "it was aborted"),
            };
            let message = format!("{why} before an agent took it; nothing was touched");
            made(StepStatus::Aborted, Failure::new(kind, code, message))
        }
    }
}
