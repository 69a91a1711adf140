//! The pair `decode(package) -> StepTask`, `encode(result) -> bytes` (D2). Ours is JSON.

use crate::config::Config;
use bytes::Bytes;
use proto::failure::{Failure, FailureKind};
use proto::package::TaskPackage;
use proto::response::TaskResponse;
use proto::result::StepResult;
use proto::task::{StepTask, TASK_VERSION};

/// Task families whose packages this agent decodes: what it offers to a manager that knows our extensions.
pub(crate) const TASK_TYPES: [&str; 9] = [
    "COMMAND_TASK_NG",
    "HTTP_TASK_NG",
    "SHELL_SCRIPT_TASK_NG",
    "K8S_COMMAND_TASK_NG",
    "ECS_COMMAND_TASK_NG",
    "DELEGATE_VERIFY_TASK",
    "DELEGATE_ARTIFACT_TASK",
    "DELEGATE_CONNECTOR_TEST_TASK",
    "DELEGATE_NOOP_TASK",
];

/// What this agent offers by its settings.
pub(crate) fn own_task_types(config: &Config) -> Vec<String> {
    let blocked = |kind: &&str| match *kind {
        "SHELL_SCRIPT_TASK_NG" => config.block_shell_task,
        "K8S_COMMAND_TASK_NG" => !cfg!(feature = "kube"),
        "ECS_COMMAND_TASK_NG" => !cfg!(feature = "ecs"),
        _ => false,
    };
    TASK_TYPES.iter().filter(|kind| !blocked(kind)).map(|kind| (*kind).to_owned()).collect()
}

/// An answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Path below the manager's base URL.
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

/// An encoding of task and result.
pub(crate) trait Dialect: Send + Sync {
    /// The step that a package carries.
    ///
    /// **Errors**: a failure to answer with. A package that cannot be read is answered too, never met with silence.
    fn decode(&self, package: &TaskPackage) -> Result<StepTask, Failure>;

    /// The answer to a task.
    fn encode(&self, task_id: &str, delegate_id: &str, task_type: &str, result: &StepResult) -> Answer;
}

/// Our own dialect.
pub(crate) struct Json;

impl Dialect for Json {
    fn decode(&self, package: &TaskPackage) -> Result<StepTask, Failure> {
        let bad = |message: String| {
            Failure::new(FailureKind::BadSpec, "AGT-004", message)
                .hint("agent and manager must be of versions that fit; if they are, report this as a fault")
        };
        let data = package.data.get();
        let task: StepTask = serde_json::from_str(data).map_err(|error| {
            bad(format!("the task of type {} cannot be read: {error}", package.task_type))
        })?;
        if task.version > TASK_VERSION {
            return Err(bad(format!(
                "the task has version {}; this agent reads up to {TASK_VERSION}",
                task.version
            )));
        }
        Ok(task)
    }

    fn encode(&self, task_id: &str, delegate_id: &str, task_type: &str, result: &StepResult) -> Answer {
        let segment = crate::client::segment;
        let body =
            TaskResponse::ok(task_id, task_type, result).and_then(|response| serde_json::to_vec(&response));
        let body = body.unwrap_or_else(|error| {
            // A result that JSON cannot express still gets an answer.
            let text = format!("the result cannot be written as JSON: {error}");
            let rest = StepResult {
                agent: result.agent.clone(),
                fence: result.fence,
                ..failed_result("AGT-004", &text)
            };
            let response = TaskResponse::ok(task_id, task_type, &rest).and_then(|r| serde_json::to_vec(&r));
            response.unwrap_or_default()
        });
        Answer {
            path: format!("/api/agent/v2/tasks/{}/delegates/{}", segment(task_id), segment(delegate_id)),
            content_type: "application/json",
            body: Bytes::from(body),
        }
    }
}

/// A failure of our own making.
pub(crate) fn failed_result(code: &str, message: &str) -> StepResult {
    StepResult::failed(Failure::new(FailureKind::Bug, code, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_offered_are_those_of_the_closed_set() {
        for kind in proto::task::STEP_KINDS {
            let spec = match kind {
                "Noop" => json!({}),
                _ => continue,
            };
            let task: proto::task::Step =
                serde_json::from_value(json!({"type": kind, "identifier": "a", "name": "a", "spec": spec}))
                    .unwrap();
            assert!(TASK_TYPES.contains(&task.spec.task_type()));
        }
    }

    #[test]
    fn a_package_that_cannot_be_read_becomes_a_failure_that_names_the_type() {
        let package = TaskPackage::new("t", "COMMAND_TASK_NG", &json!({"version": 1, "step": 7})).unwrap();
        let failure = Json.decode(&package).unwrap_err();
        assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::BadSpec, "AGT-004"));
        assert!(failure.message.contains("COMMAND_TASK_NG"), "{}", failure.message);
    }

    #[test]
    fn an_answer_names_task_and_delegate() {
        let answer = Json.encode("t/1", "d", "HTTP_TASK_NG", &failed_result("AGT-004", "m"));
        assert_eq!(answer.path, "/api/agent/v2/tasks/t%2F1/delegates/d");
        assert_eq!(
            TaskResponse::decode(&answer.body).unwrap().step_result().unwrap().failure.unwrap().message,
            "m"
        );
    }
}
