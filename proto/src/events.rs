//! What a poll for task events answers. **Source**: protocol facts §4.1.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// One task event.
///
/// **Shape**: `eventType` is written first and without spaces, because the Java client compares text prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType")]
pub enum TaskEvent {
    /// A task is waiting; repeated on every poll until it is acquired.
    #[serde(rename = "DelegateTaskEvent")]
    Task(DelegateTaskEvent),
    /// A task that this agent holds is to end.
    #[serde(rename = "DelegateTaskAbortEvent")]
    Abort(DelegateTaskAbortEvent),
}

/// A task is waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelegateTaskEvent {
    /// Account.
    #[serde(default, deserialize_with = "crate::tolerance::null_default")]
    pub account_id: String,
    /// The task.
    pub delegate_task_id: String,
    /// Whether somebody waits for it synchronously; changes nothing for the agent.
    #[serde(default, deserialize_with = "crate::tolerance::null_default")]
    pub sync: bool,
    /// Harness task family, such as `COMMAND_TASK_NG`.
    #[serde(default)]
    pub task_type: Option<String>,
}

/// A task is to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelegateTaskAbortEvent {
    /// Why (ADR 0002). Foreign managers do not say.
    #[serde(default, deserialize_with = "known_reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<AbortReason>,
    /// Account.
    #[serde(default, deserialize_with = "crate::tolerance::null_default")]
    pub account_id: String,
    /// The task.
    pub delegate_task_id: String,
    /// Always `false`: synchronous tasks are never aborted.
    #[serde(default, deserialize_with = "crate::tolerance::null_default")]
    pub sync: bool,
    /// Harness sends `null`.
    #[serde(default)]
    pub task_type: Option<String>,
}

/// Why a task is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortReason {
    /// A person aborted the execution.
    User,
    /// The step's timer ran out.
    Deadline,
}

fn known_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AbortReason>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// The reply to a poll: `{"delegateTaskEvents": […]}`, not wrapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskEvents {
    /// The events, in the manager's order.
    pub delegate_task_events: Vec<TaskEvent>,
    /// How many elements could not be read: an unknown `eventType`, or fields of the wrong type. One bad element never
    /// hides its neighbours.
    #[serde(skip)]
    pub unreadable: usize,
}

impl TaskEvents {
    /// A reply with `events`.
    pub fn new(events: Vec<TaskEvent>) -> Self {
        TaskEvents { delegate_task_events: events, unreadable: 0 }
    }
}

impl<'de> Deserialize<'de> for TaskEvents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            #[serde(default)]
            delegate_task_events: Option<Vec<Value>>,
        }
        let elements = Wire::deserialize(deserializer)?.delegate_task_events.unwrap_or_default();
        let mut events = TaskEvents::default();
        for element in elements {
            match serde_json::from_value(element) {
                Ok(event) => events.delegate_task_events.push(event),
                Err(_) => events.unreadable += 1,
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn event_type_is_written_first_and_without_spaces() {
        let events = TaskEvents::new(vec![
            TaskEvent::Task(DelegateTaskEvent {
                account_id: "acct1".into(),
                delegate_task_id: "t1".into(),
                sync: false,
                task_type: Some("SHELL_SCRIPT_TASK_NG".into()),
            }),
            TaskEvent::Abort(DelegateTaskAbortEvent {
                reason: Some(AbortReason::Deadline),
                delegate_task_id: "t0".into(),
                ..Default::default()
            }),
        ]);
        let text = serde_json::to_string(&events).unwrap();
        assert!(
            text.starts_with(
                r#"{"delegateTaskEvents":[{"eventType":"DelegateTaskEvent","accountId":"acct1""#
            )
        );
        assert!(text.contains(r#"{"eventType":"DelegateTaskAbortEvent","reason":"Deadline","#), "{text}");
        assert_eq!(serde_json::from_str::<TaskEvents>(&text).unwrap(), events);
    }

    #[test]
    fn unreadable_elements_are_counted_and_hide_nobody() {
        let text = r#"{"delegateTaskEvents":[{"eventType":"SchedulingTaskEvent","taskId":"x"},7,
            {"eventType":"DelegateTaskEvent","delegateTaskId":3},
            {"delegateTaskId":"t1","extra":1,"sync":null,"eventType":"DelegateTaskEvent"},
            {"eventType":"DelegateTaskAbortEvent","delegateTaskId":"t0","reason":"SomethingElse"}]}"#;
        let events: TaskEvents = serde_json::from_str(text).unwrap();
        assert_eq!(events.unreadable, 3);
        assert_eq!(events.delegate_task_events.len(), 2);
        assert!(matches!(&events.delegate_task_events[1], TaskEvent::Abort(a) if a.reason.is_none()));
    }

    #[test]
    fn a_missing_list_is_empty() {
        for text in ["{}", r#"{"delegateTaskEvents":null}"#] {
            assert_eq!(serde_json::from_str::<TaskEvents>(text).unwrap(), TaskEvents::default());
        }
    }

    proptest! {
        #[test]
        fn any_json_is_answered(value in crate::tests::any_json()) {
            let _unused = serde_json::from_value::<TaskEvents>(value.clone());
            let list = serde_json::json!({ "delegateTaskEvents": [value] });
            let events: TaskEvents = serde_json::from_value(list).unwrap();
            prop_assert_eq!(events.unreadable + events.delegate_task_events.len(), 1);
        }
    }
}
