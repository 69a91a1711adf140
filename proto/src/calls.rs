//! Calls of an agent about its tasks that share a request (ADR 0008).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a [`TaskCall`] does. Each does what the single call of its name does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskVerb {
    /// `PUT …/tasks/{task}/acquire`; the package is in the body of the reply.
    Acquire,
    /// `POST …/tasks/{task}/delegates/{delegate}` with a [`crate::response::TaskResponse`].
    Respond,
    /// `PUT /api/agent/ext/tasks/{task}/checkpoint`, with `fence`.
    Checkpoint,
    /// `PUT /api/agent/ext/tasks/{task}/progress`.
    Progress,
}

/// One of the calls of a `POST /api/agent/ext/calls`.
///
/// **Shape**: the body is a list of at most [`MAX_TASK_CALLS`](crate::limits::MAX_TASK_CALLS), the reply a list of
/// [`TaskReply`] in the same order. Calls are carried out beside each other, each by itself: one that is refused does not
/// stop the others. `Debug` shows no body, which may hold secret outputs. **Repeat**: safe, as each of the single calls is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskCall {
    /// What to do.
    pub verb: TaskVerb,
    /// The task.
    pub task_id: String,
    /// The process that asks, with `Acquire`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Under which acquisition, with `Checkpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The body of the single call; absent with `Acquire`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

/// What became of one call.
#[derive(Serialize, Deserialize)]
pub struct TaskReply {
    /// Status of the single call. 413: the package is too large to come with others, ask for it by itself; the task is the
    /// agent's already.
    pub status: u16,
    /// The package, with status 200 of `Acquire`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

impl TaskReply {
    /// A reply without a body.
    pub fn bare(status: u16) -> Self {
        TaskReply { status, body: None }
    }
}

impl std::fmt::Debug for TaskCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskCall")
            .field("verb", &self.verb)
            .field("task_id", &self.task_id)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TaskReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskReply").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_written_as_the_adr_shows_them() {
        let bare = TaskCall {
            verb: TaskVerb::Acquire,
            task_id: "t".into(),
            instance_id: Some("i".into()),
            fence: None,
            body: None,
        };
        let text = r#"{"verb":"acquire","taskId":"t","instanceId":"i"}"#;
        assert_eq!(serde_json::to_string(&bare).unwrap(), text);
        let body = RawValue::from_string(r#"{"a":1}"#.into()).unwrap();
        let full = TaskCall {
            verb: TaskVerb::Checkpoint,
            task_id: "t".into(),
            instance_id: None,
            fence: Some(3),
            body: Some(body),
        };
        let text = r#"{"verb":"checkpoint","taskId":"t","fence":3,"body":{"a":1}}"#;
        assert_eq!(serde_json::to_string(&full).unwrap(), text);
        let read: TaskCall = serde_json::from_str(text).unwrap();
        assert_eq!(
            (read.verb, read.fence, read.body.unwrap().get()),
            (TaskVerb::Checkpoint, Some(3), r#"{"a":1}"#)
        );
        assert_eq!(serde_json::to_string(&TaskReply::bare(204)).unwrap(), r#"{"status":204}"#);
    }

    #[test]
    fn debug_shows_no_body() {
        let body = RawValue::from_string(r#""hidden""#.into()).unwrap();
        let call = TaskCall {
            verb: TaskVerb::Respond,
            task_id: "t".into(),
            instance_id: None,
            fence: None,
            body: Some(body),
        };
        assert!(!format!("{call:?}").contains("hidden"));
    }
}
