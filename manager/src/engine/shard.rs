//! Applies the events of the executions that belong to one shard, one after another.

use super::perform::{self, Job};
use super::record::{self, RECORD_VERSION, Record};
use super::{Command, EngineError, Input, Shared, host_keys};
use crate::preflight;
use crate::store::{Effect, NextState, Store, StoreError, TaskRow, TaskStatus};
use pipeline::machine::{self, Action, Event, Holdup, PendingWork, Refusal};
use proto::failure::{Failure, FailureKind};
use proto::result::{StepResult, StepStatus};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Attempts against a concurrent writer before the execution is left for a later try.
const MAX_CONFLICTS: u32 = 10;
/// Executions kept in memory by a shard; more are read from the store as needed.
const MAX_LOADED: usize = 64;
/// Transitions between two that store the state whole. More would make each reader put more parts in place.
const WHOLE_EVERY: u32 = 64;

struct Loaded {
    version: u64,
    record: Record,
    /// Transitions until the state is stored whole again.
    whole_in: u32,
    ended: bool,
}

pub(super) struct Shard {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Command>,
    /// The other end of `inbox`, for answers to what this shard had performed.
    own: mpsc::Sender<Command>,
    loaded: HashMap<String, Loaded>,
}

/// Reads the latest state of an execution.
pub(crate) async fn load(
    store: &dyn Store,
    execution_id: &str,
) -> Result<Option<(u64, Record)>, EngineError> {
    let Some(snapshot) = store.snapshot(execution_id).await? else { return Ok(None) };
    let version = snapshot.state.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if version > u64::from(RECORD_VERSION) {
        return Err(EngineError::TooNew {
            execution_id: execution_id.to_owned(),
            found: u32::try_from(version).unwrap_or(u32::MAX),
            known: RECORD_VERSION,
        });
    }
    let record = serde_json::from_value(snapshot.state)
        .map_err(|source| EngineError::Unreadable { execution_id: execution_id.to_owned(), source })?;
    Ok(Some((snapshot.version, record)))
}

impl Shard {
    pub(super) fn new(
        shared: Arc<Shared>,
        inbox: mpsc::Receiver<Command>,
        own: mpsc::Sender<Command>,
    ) -> Self {
        Shard { shared, inbox, own, loaded: HashMap::new() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let command = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                command = self.inbox.recv() => command,
            };
            let Some(command) = command else { return };
            self.handle(command).await;
        }
    }

    async fn handle(&mut self, command: Command) {
        let Command { execution_id, input, done } = command;
        let outcome = self.process(&execution_id, &input).await;
        if let Err(error) = &outcome
            && !matches!(error, EngineError::Refused(_))
        {
            self.loaded.remove(&execution_id);
            tracing::error!(%execution_id, error = error as &dyn std::error::Error, "transition failed");
            // The input stands in the store, or its sender is told: a later look finds it again.
            if matches!(error, EngineError::Store(_) | EngineError::Contended { .. }) {
                self.shared.retry_later(&execution_id);
            }
        }
        if self.loaded.get(&execution_id).is_some_and(|loaded| loaded.ended) || self.loaded.len() > MAX_LOADED
        {
            self.loaded.remove(&execution_id);
        }
        if let Some(done) = done
            && done.send(outcome).is_err()
        {
            tracing::debug!(%execution_id, "nobody waits for this any more");
        }
    }

    async fn process(&mut self, execution_id: &str, input: &Input) -> Result<(), EngineError> {
        for _ in 0..MAX_CONFLICTS {
            match self.attempt(execution_id, input).await {
                Err(EngineError::Store(StoreError::Conflict { .. })) => {
                    // Somebody else moved it: read again, decide again.
                    self.loaded.remove(execution_id);
                }
                other => return other,
            }
        }
        Err(EngineError::Contended { execution_id: execution_id.to_owned() })
    }

    async fn attempt(&mut self, execution_id: &str, input: &Input) -> Result<(), EngineError> {
        self.ensure_loaded(execution_id).await?;
        if self.current(execution_id)?.ended {
            let status = self.current(execution_id)?.record.machine.status();
            return match input {
                Input::Act(_) => Err(Refusal::Ended { status }.into()),
                _ => Ok(()),
            };
        }
        if !self.current(execution_id)?.record.started {
            self.apply(execution_id, Event::Started { at: self.shared.now() }).await?;
        }
        match input {
            Input::Resume => {
                let open: Vec<String> = self.current(execution_id)?.record.open.keys().cloned().collect();
                for task_id in open {
                    self.task(execution_id, &task_id).await?;
                }
                let due = self.shared.store.due_timers(self.shared.now()).await?;
                for timer in due.into_iter().filter(|timer| timer.execution_id == execution_id) {
                    let event = self.fired(execution_id, timer.timer).await?;
                    self.apply(execution_id, event).await?;
                }
                let pending = machine::pending_work(&self.current(execution_id)?.record.machine);
                pending.into_iter().for_each(|work| self.perform(execution_id, work));
                Ok(())
            }
            Input::Task(task_id) => self.task(execution_id, task_id).await,
            Input::Timer(timer) => {
                let event = self.fired(execution_id, timer.clone()).await?;
                self.apply(execution_id, event).await
            }
            Input::Abort(by) => {
                let event = Event::AbortRequested { by: by.clone(), at: self.shared.now() };
                self.apply(execution_id, event).await
            }
            Input::Act(act) => {
                let state = &self.current(execution_id)?.record.machine;
                machine::accepts(state, &act.node, &act.by, &act.action)?;
                let attempt = state.runs.get(&act.node).map_or(0, |run| run.attempt);
                let (node, by, action) = (act.node.clone(), act.by.clone(), act.action.clone());
                let event = Event::UserActed { node, attempt, by, action, at: self.shared.now() };
                self.apply(execution_id, event).await
            }
            Input::Performed { node, attempt, result } => {
                self.shared.desk.done(execution_id, node, *attempt);
                let (node, result) = (node.clone(), result.clone());
                let event = Event::Performed { node, attempt: *attempt, result, at: self.shared.now() };
                self.apply(execution_id, event).await
            }
        }
    }

    /// Has a step performed, off this task; its answer comes back through the inbox.
    fn perform(&self, execution_id: &str, work: PendingWork) {
        let facts = self.current(execution_id).map(|loaded| loaded.record.machine.plan.run.clone());
        let Ok(facts) = facts else { return };
        let PendingWork { node, attempt, work } = work;
        let job = Job { execution_id: execution_id.to_owned(), node, attempt, work, facts };
        self.shared.desk.start(job, self.own.clone());
    }

    async fn fired(&self, execution_id: &str, timer: String) -> Result<Event, EngineError> {
        let holdup = self.holdup(execution_id, &timer).await?;
        Ok(Event::TimerFired { timer, at: self.shared.now(), holdup })
    }

    /// Why nobody works on the task whose step times out; `None` when its agent is there.
    async fn holdup(&self, execution_id: &str, timer: &str) -> Result<Option<Holdup>, EngineError> {
        let Some((node, attempt)) = machine::step_timeout(timer) else { return Ok(None) };
        let open = &self.current(execution_id)?.record.open;
        let Some((task, _)) = open.iter().find(|(_, open)| open.node == node && open.attempt == attempt)
        else {
            return Ok(None);
        };
        let Some(row) = self.shared.store.task(task).await? else { return Ok(None) };
        let queue = &self.shared.queue;
        Ok(match (row.status, &row.agent_id) {
            (TaskStatus::Queued, _) => {
                queue.explain(task).map(|explanation| Holdup::Waiting { why: explanation.sentence() })
            }
            (TaskStatus::Assigned, Some(agent)) => {
                queue.lost(agent).map(|(agent, since)| Holdup::Lost { agent, since })
            }
            (TaskStatus::Assigned | TaskStatus::Ended, _) => None,
        })
    }

    async fn ensure_loaded(&mut self, execution_id: &str) -> Result<(), EngineError> {
        if self.loaded.contains_key(execution_id) {
            return Ok(());
        }
        let missing = || EngineError::NotFound { execution_id: execution_id.to_owned() };
        let store = self.shared.store.as_ref();
        let row = store.execution(execution_id).await?.ok_or_else(missing)?;
        let (version, record) = load(store, execution_id).await?.ok_or_else(missing)?;
        // How many parts are stored already is not known, so the first transition stores the state whole.
        let loaded = Loaded { version, record, whole_in: 0, ended: row.ended };
        self.loaded.insert(execution_id.to_owned(), loaded);
        Ok(())
    }

    fn current(&self, execution_id: &str) -> Result<&Loaded, EngineError> {
        self.loaded
            .get(execution_id)
            .ok_or_else(|| EngineError::NotFound { execution_id: execution_id.to_owned() })
    }

    /// Reads where a task stands and tells the machine what it does not know yet.
    async fn task(&mut self, execution_id: &str, task_id: &str) -> Result<(), EngineError> {
        let loaded = self.current(execution_id)?;
        if loaded.ended {
            return Ok(());
        }
        let Some(open) = loaded.record.open.get(task_id).cloned() else { return Ok(()) };
        let Some(row) = self.shared.store.task(task_id).await? else { return Ok(()) };
        if !open.assigned
            && let Some(agent_id) = &row.agent_id
        {
            let agent = self.shared.store.agent(agent_id).await?;
            let event = Event::TaskAssigned {
                node: open.node.clone(),
                attempt: open.attempt,
                agent: agent.map_or_else(|| agent_id.clone(), |agent| agent.name),
                at: row.assigned_at.unwrap_or_else(|| self.shared.now()),
            };
            self.apply(execution_id, event).await?;
        }
        if row.status != TaskStatus::Ended {
            return Ok(());
        }
        let result = result_of(&row);
        let now = self.shared.now();
        host_keys::learn(self.shared.store.as_ref(), &row.task.data, &result.learned_host_keys, now).await?;
        let event =
            Event::TaskEnded { node: open.node, attempt: open.attempt, result: Box::new(result), at: now };
        self.apply(execution_id, event).await
    }

    /// One transition: decide, then commit. Those who wait hear of it from the store.
    async fn apply(&mut self, execution_id: &str, event: Event) -> Result<(), EngineError> {
        if self.current(execution_id)?.ended {
            return Ok(());
        }
        // Changed in place and put back when it is committed; whatever goes wrong before, it is read again.
        let Some(loaded) = self.loaded.remove(execution_id) else { return Ok(()) };
        let (loaded, work) = self.advance(execution_id, loaded, event).await?;
        self.loaded.insert(execution_id.to_owned(), loaded);
        work.into_iter().for_each(|work| self.perform(execution_id, work));
        Ok(())
    }

    async fn advance(
        &self,
        execution_id: &str,
        mut loaded: Loaded,
        event: Event,
    ) -> Result<(Loaded, Vec<PendingWork>), EngineError> {
        let unwritable = |source| EngineError::Unwritable { execution_id: execution_id.to_owned(), source };
        let shared = self.shared.as_ref();
        let now = shared.now();
        let record = &mut loaded.record;
        let before = record::Before::of(record);
        let mut effects = seen(record, &event);
        let mut actions = machine::apply(&mut record.machine, &event);
        let work = perform::take(&mut actions);
        note(record, &event);
        for action in &mut actions {
            if let Action::Enqueue(request) = action {
                host_keys::fill_known(shared.store.as_ref(), &mut request.task).await?;
            }
        }
        if let Event::TimerFired { timer, .. } = &event {
            // A fired timer is gone, whether or not the machine still knew it; an action may set it again.
            effects.push(Effect::ClearTimer { timer: timer.clone() });
        }
        effects.extend(
            record::effects(record, execution_id, actions, now).map_err(|error| unwritable(error.source))?,
        );
        let parts = before.parts(record).map_err(unwritable)?;
        if effects.is_empty() && parts.is_empty() {
            return Ok((loaded, work));
        }
        let ended = effects.iter().any(|effect| matches!(effect, Effect::Finish { .. }));
        if ended {
            preflight::remember(shared.store.as_ref(), &record.machine).await?;
        }
        let event = serde_json::to_value(&event).map_err(unwritable)?;
        let whole = ended || loaded.whole_in == 0;
        let next = match whole {
            true => NextState::Whole(serde_json::to_value(&*record).map_err(unwritable)?),
            false => NextState::Parts(parts),
        };
        shared.store.transition(execution_id, loaded.version, event, next, effects, now).await?;
        loaded.version += 1;
        loaded.whole_in = if whole { WHOLE_EVERY } else { loaded.whole_in - 1 };
        loaded.ended = ended;
        Ok((loaded, work))
    }
}

/// Marks the news of a task as taken in, by the same commit.
fn seen(record: &Record, event: &Event) -> Vec<Effect> {
    let (node, attempt, status) = match event {
        Event::TaskAssigned { node, attempt, .. } => (node, *attempt, TaskStatus::Assigned),
        Event::TaskEnded { node, attempt, .. } => (node, *attempt, TaskStatus::Ended),
        Event::Started { .. }
        | Event::TimerFired { .. }
        | Event::AbortRequested { .. }
        | Event::UserActed { .. }
        | Event::Performed { .. } => return Vec::new(),
    };
    let tasks = record.open.iter().filter(|(_, open)| open.node == *node && open.attempt == attempt);
    tasks.map(|(task, _)| Effect::Seen { task: task.clone(), status }).collect()
}

/// Keeps what the record knows beside the machine.
fn note(record: &mut Record, event: &Event) {
    let is = |node: &str, attempt: u32, open: &record::OpenTask| open.node == node && open.attempt == attempt;
    match event {
        Event::Started { .. } => record.started = true,
        Event::TaskAssigned { node, attempt, .. } => {
            for open in record.open.values_mut().filter(|open| is(node, *attempt, open)) {
                open.assigned = true;
            }
        }
        Event::TaskEnded { node, attempt, .. } => record.open.retain(|_, open| !is(node, *attempt, open)),
        Event::TimerFired { .. }
        | Event::AbortRequested { .. }
        | Event::UserActed { .. }
        | Event::Performed { .. } => {}
    }
}

/// The answer of an ended task; one that cannot be read is a failure that says so.
fn result_of(row: &TaskRow) -> StepResult {
    let made = |status, failure| StepResult {
        status,
        failure: Some(failure),
        outputs: BTreeMap::new(),
        undo: None,
        units: Vec::new(),
        learned_host_keys: Vec::new(),
        agent: String::new(),
        fence: row.fence,
        notices: Vec::new(),
    };
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
            let code = if reason == "Deadline" { "MGR-105" } else { "MGR-104" };
            made(
                StepStatus::Aborted,
                Failure::new(kind, code, format!("ended ({reason}) before an agent took it; nothing was touched")),
            )
        }
    }
}
