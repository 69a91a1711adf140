//! What the store keeps per execution: the machine's state and the little that only the manager knows.

use super::owed;
use crate::store::{Effect, Millis, NewTask, Part};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pipeline::machine::{Action, Changed, State, TaskRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The version of this document that we write. A newer one is refused with a clear error, never guessed at.
pub(super) const RECORD_VERSION: u32 = 1;

/// Items and members from which on a run is not stored whole with each change.
const LONG: usize = 16;

/// The stored state of one execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// See [`RECORD_VERSION`].
    pub version: u32,
    /// Whether `Started` was applied. An execution is created first and started second, each by its own commit.
    pub started: bool,
    /// What the log keys of all steps begin with; known since the first task.
    #[serde(default)]
    pub log_prefix: Option<String>,
    /// Tasks that were queued and whose end the machine has not seen, by task id.
    pub open: BTreeMap<String, OpenTask>,
    /// What the run was asked for with, so that it can be asked for again. `None`: an older manager started it, or it
    /// is a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RunRequest>,
    /// The machine.
    pub machine: State,
}

/// What a run was asked for with, beside the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunRequest {
    /// Pipeline variables by name.
    pub inputs: Map<String, Value>,
    /// An input document.
    pub inputs_yaml: Option<String>,
    /// Names of stored input sets, in order.
    pub input_sets: Vec<String>,
    /// What faults call the document.
    pub source: Option<String>,
    /// Rehearsal factor.
    pub rehearsal: Option<u32>,
}

/// A task whose end the machine has not seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenTask {
    /// Node of the execution.
    pub node: String,
    /// Attempt of the node.
    pub attempt: u32,
    /// Whether the machine knows that an agent has it.
    pub assigned: bool,
}

impl Record {
    /// The record of an execution that has not started.
    pub fn new(machine: State) -> Self {
        Record {
            version: RECORD_VERSION,
            started: false,
            log_prefix: None,
            open: BTreeMap::new(),
            request: None,
            machine,
        }
    }
}

/// What a transition may change in a record, as it was before. Nothing of it grows with the execution, so that an event
/// costs the same in a large one.
pub(super) struct Before {
    started: bool,
    log_prefix: Option<String>,
    /// Entries of `open` that were added, changed or removed since.
    open: BTreeSet<String>,
    aborted_by: Option<String>,
    learned: BTreeMap<String, Vec<String>>,
    finished: bool,
    had_loops: bool,
}

impl Before {
    pub(super) fn of(record: &mut Record) -> Self {
        // From here on the machine notes which runs change.
        let _noted = record.machine.runs.take_changed();
        let _known = record.machine.loops.take_fresh();
        Before {
            started: record.started,
            log_prefix: record.log_prefix.clone(),
            open: BTreeSet::new(),
            aborted_by: record.machine.aborted_by.clone(),
            learned: record.machine.learned.clone(),
            finished: record.machine.finished,
            had_loops: !record.machine.loops.is_empty(),
        }
    }

    /// Notes that the entry of a task in [`Record::open`] is not what it was.
    pub(super) fn touched(&mut self, task: String) {
        self.open.insert(task);
    }

    /// What differs in `record`. The plan never does.
    pub(super) fn parts(self, record: &mut Record) -> Result<Vec<Part>, serde_json::Error> {
        let mut parts = Vec::new();
        for changed in record.machine.runs.take_changed() {
            run_parts(&mut parts, changed, &mut record.machine)?;
        }
        for task in &self.open {
            parts.push(match record.open.get(task) {
                Some(open) => Part::set(&["open", task], serde_json::to_value(open)?),
                None => Part::remove(&["open", task]),
            });
        }
        let begun = record.machine.loops.take_fresh();
        if !self.had_loops && !begun.is_empty() {
            parts.push(Part::set(&["machine", "loops"], serde_json::to_value(&record.machine.loops)?));
        } else {
            for id in &begun {
                let items = record.machine.loops.get(id).map(|items| serde_json::to_value(&**items));
                parts.extend(items.transpose()?.map(|items| Part::set(&["machine", "loops", id], items)));
            }
        }
        // Every other field is named, so that a new one cannot be forgotten here.
        let Record { version: _, started, log_prefix, open: _, request: _, machine } = &*record;
        let State { plan: _, runs: _, loops: _, aborted_by, learned, finished } = machine;
        if self.started != *started {
            parts.push(Part::set(&["started"], serde_json::to_value(started)?));
        }
        if self.log_prefix != *log_prefix {
            parts.push(Part::set(&["logPrefix"], serde_json::to_value(log_prefix)?));
        }
        if self.aborted_by != *aborted_by {
            parts.push(Part::set(&["machine", "abortedBy"], serde_json::to_value(aborted_by)?));
        }
        if self.learned != *learned {
            parts.push(Part::set(&["machine", "learned"], serde_json::to_value(learned)?));
        }
        if self.finished != *finished {
            parts.push(Part::set(&["machine", "finished"], serde_json::to_value(finished)?));
        }
        Ok(parts)
    }
}

/// What an event changed of one run. A run with long lists is told field by field: whole, a loop of thousands would write
/// all its items and members again with each of them.
fn run_parts(parts: &mut Vec<Part>, changed: Changed, machine: &mut State) -> Result<(), serde_json::Error> {
    let Changed { id, before } = changed;
    let long = match (machine.runs.get(&id), &before) {
        (Some(run), Some(before)) => before.lists_grew_to(run) > LONG,
        _ => false,
    };
    let (Some(before), Some(small)) = (before.filter(|_| long), machine.runs.without_lists(&id)) else {
        parts.push(match machine.runs.get(&id) {
            Some(run) => Part::set(&["machine", "runs", &id], serde_json::to_value(run)?),
            None => Part::remove(&["machine", "runs", &id]),
        });
        return Ok(());
    };
    let at = |field: &str| ["machine", "runs", &id, field].map(str::to_owned).to_vec();
    let (old, new) = (serde_json::to_value(&before.run)?, serde_json::to_value(small)?);
    if let (Value::Object(mut old), Value::Object(new)) = (old, new) {
        for (field, value) in new {
            if old.remove(&field).as_ref() != Some(&value) {
                parts.push(Part::Set(at(&field), value));
            }
        }
        parts.extend(old.keys().map(|field| Part::Remove(at(field))));
    }
    let Some(run) = machine.runs.get(&id) else { return Ok(()) };
    let children = run.children.get(before.children..).unwrap_or_default();
    if !children.is_empty() {
        let children = children.iter().map(|child| Value::String(child.clone())).collect();
        parts.push(Part::Push(at("children"), children));
    }
    let items = run.items.get(before.items..).unwrap_or_default();
    if !items.is_empty() {
        parts.push(Part::Push(at("items"), items.to_vec()));
    }
    Ok(())
}

/// The id of the task of (execution, node, attempt): 22 characters.
///
/// It is derived and not drawn, so that a decision which is taken again after a crash names the same task.
pub fn task_id(execution_id: &str, node: &str, attempt: u32) -> String {
    let mut hash = Sha256::new();
    for part in [execution_id.as_bytes(), node.as_bytes()] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.update(attempt.to_be_bytes());
    let digest = hash.finalize();
    URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or_default())
}

/// A fresh id for an execution: 22 characters.
pub fn execution_id() -> String {
    proto::ids::Id::typeable(rand::random()).to_string()
}

/// An action could not be turned into an effect.
#[derive(Debug, thiserror::Error)]
#[error("the task document of node {node} cannot be written")]
pub(super) struct EffectError {
    /// Node.
    pub(super) node: String,
    /// Why.
    #[source]
    pub(super) source: serde_json::Error,
}

/// Turns the actions of one transition into effects, in their order, and keeps the list of open tasks.
pub(super) fn effects(
    record: &mut Record,
    before: &mut Before,
    execution_id: &str,
    actions: Vec<Action>,
    now: Millis,
) -> Result<Vec<Effect>, EffectError> {
    let mut effects = Vec::with_capacity(actions.len());
    for action in actions {
        effects.push(match action {
            Action::Enqueue(request) => {
                let task = new_task(execution_id, *request, now)?;
                if record.log_prefix.is_none() {
                    record.log_prefix = Some(log_prefix(&task.abstractions));
                }
                before.touched(task.id.clone());
                record.open.insert(
                    task.id.clone(),
                    OpenTask { node: task.node.clone(), attempt: task.attempt, assigned: false },
                );
                Effect::Enqueue(task)
            }
            Action::CancelTask { node, attempt, reason } => Effect::CancelTask { node, attempt, reason },
            Action::Claim { node, key } => Effect::Claim { node, key },
            Action::Release { node } => Effect::Release { node },
            Action::SetTimer { timer, at } => Effect::SetTimer { timer, at },
            Action::ClearTimer { timer } => Effect::ClearTimer { timer },
            Action::RejectOlder { node } => owed::effect(execution_id, &node, now),
            Action::Finish { status } => Effect::Finish { status },
            // The state itself says what is to be performed.
            Action::Perform { .. } => continue,
        });
    }
    Ok(effects)
}

/// The part of the log key that all steps of an execution share.
fn log_prefix(abstractions: &[(String, String)]) -> String {
    let shared: Vec<_> = abstractions.iter().take_while(|(key, _)| key != "level0").cloned().collect();
    format!("{}/", proto::logs::base_key(&shared))
}

fn new_task(execution_id: &str, request: TaskRequest, now: Millis) -> Result<NewTask, EffectError> {
    let node = request.node;
    let json = |source| EffectError { node: node.clone(), source };
    let data = serde_json::to_string(&request.task).map_err(json)?;
    let selectors = serde_json::to_value(&request.selectors).map_err(json)?;
    Ok(NewTask {
        id: task_id(execution_id, &node, request.attempt),
        execution_id: execution_id.to_owned(),
        attempt: request.attempt,
        task_type: request.task_type,
        selectors,
        secrets: request.secrets.into_iter().map(|secret| secret.0).collect(),
        timeout_ms: request.timeout_ms,
        affinity: request.affinity,
        data,
        abstractions: request.abstractions,
        created_at: now,
        node,
    })
}
