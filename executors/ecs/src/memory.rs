//! What a step remembers over a crash, and what it leaves for whoever undoes it.
//!
//! Each step has one type for its memory. The whole of it stands in every checkpoint, so that the newest one says
//! everything: what was decided, what was registered, what is waited for. Decisions are taken once; a step that runs
//! again finds them here.

use crate::error::unreadable;
use crate::native::Followed;
use crate::scaling::Scaling;
use crate::service::Snapshot;
use crate::steps::phases::Phased;
use crate::traffic::undo::{Ended, Green, Shifted};
use executor_api::{Checkpoint, StepContext, StepError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Version of what we write.
const VERSION: u64 = 1;

/// The memory of one kind of step.
pub(crate) trait Memory: Serialize + DeserializeOwned + Default {
    /// What somebody needs who undoes the step as far as it has come; `None` while there is nothing to undo.
    fn undo(&self) -> Option<Undo>;
}

/// Undo data, told apart by what is undone. A rollback step needs nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Undo {
    /// A task definition was registered; it stays, because something may run on it.
    Registered {
        /// Its ARN.
        arn: String,
    },
    /// A canary runs beside the service, or was about to.
    Canary {
        /// Its name.
        service: String,
    },
    /// Tasks move, or are to move, from one of the services `<name>__<n>` to the next.
    Phased {
        /// What was found and done.
        phased: Box<Phased>,
    },
    /// Rules of load balancers were changed.
    Traffic(Box<Shifted>),
    /// A service was deployed beside the live one.
    Green(Box<Green>),
    /// A service without requests was deleted.
    Terminated(Box<Ended>),
    /// A service was deployed, or was about to be.
    Service {
        /// Its name.
        name: String,
        /// What there was; `None` when the service did not exist.
        snapshot: Option<Box<Snapshot>>,
        /// The autoscaling that there was.
        scaling: Option<Box<Scaling>>,
        /// What was sent; `None` when nothing was.
        deployed: Option<Deployed>,
    },
}

/// What a deployment did to a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Deployed {
    /// ARN of the revision.
    pub(crate) task_definition: String,
    /// Id of the deployment, as far as ECS answered.
    pub(crate) deployment: Option<String>,
    /// The service was made by it.
    pub(crate) created: bool,
    /// Names of the scaling policies that it put.
    pub(crate) policies: Vec<String>,
    /// The scalable target was made by it.
    pub(crate) target_registered: bool,
    /// Keys of the tags that it set.
    pub(crate) tags: Vec<String>,
    /// What it did is not known: it was another task, of which this record was made before it began. Whatever the service has
    /// become since is then taken for its work.
    pub(crate) unrecorded: bool,
    /// The service deployment, where ECS shifts the requests itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) native: Option<Box<Followed>>,
}

impl Undo {
    /// As a step leaves it behind.
    pub(crate) fn to_value(&self) -> Value {
        json!({"v": VERSION, "undo": self})
    }

    /// What a step left behind.
    ///
    /// **Errors**: `ECS-004`.
    pub(crate) fn read(value: &Value) -> Result<Undo, StepError> {
        field(value, "undo", "undo data")
    }
}

/// What the newest checkpoint of an earlier life says; `None` for a step that begins.
///
/// **Errors**: `ECS-004`.
pub(crate) fn recall<M: Memory>(cx: &StepContext) -> Result<Option<M>, StepError> {
    match cx.checkpoints.history().last() {
        Some(last) => field(&last.state, "memory", "a checkpoint of this step").map(Some),
        None => Ok(None),
    }
}

/// The checkpoint that announces `calls`.
///
/// **Errors**: `ECS-004` when the memory has no JSON form.
pub(crate) fn checkpoint<M: Memory>(
    intent: String,
    calls: Vec<String>,
    memory: &M,
) -> Result<Checkpoint, StepError> {
    let value = serde_json::to_value(memory).map_err(|error| unreadable("the memory of this step", error))?;
    let state = json!({"v": VERSION, "memory": value});
    Ok(Checkpoint { intent, calls, state, undo: memory.undo().map(|undo| undo.to_value()) })
}

fn field<T: DeserializeOwned>(value: &Value, name: &str, what: &str) -> Result<T, StepError> {
    match value.get("v").and_then(Value::as_u64) {
        Some(VERSION) => {
            let inner = value.get(name).cloned().unwrap_or_default();
            serde_json::from_value(inner).map_err(|error| unreadable(what, error))
        }
        other => Err(unreadable(what, format!("it has version {other:?}; expected {VERSION}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_data_survives_and_another_version_is_refused() {
        let undo = Undo::Registered { arn: "arn:aws:ecs:us-east-1:1:task-definition/a:1".into() };
        assert_eq!(Undo::read(&undo.to_value()).unwrap(), undo);
        let error = Undo::read(&json!({"v": 2, "undo": {"kind": "registered"}})).unwrap_err();
        assert_eq!(error.code, "ECS-004");
    }
}
