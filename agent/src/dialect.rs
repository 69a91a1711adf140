//! The pair `decode(package) -> StepTask`, `encode(result) -> bytes` (D2): ours in JSON, and Harness' own (`dialect`, ADR 0010).

use crate::config::{Config, ForeignTasks};
use ::dialect::answer;
use ::dialect::{PROVEN, Request};
use bytes::Bytes;
use proto::failure::{Failure, FailureKind};
use proto::package::TaskPackage;
use proto::response::TaskResponse;
use proto::result::StepResult;
use proto::task::{StepTask, TASK_VERSION};
use proto::text::SecretRef;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// Whether this build and these settings leave out a type. Variants have a suffix or a name of their own.
fn is_blocked(config: &Config, kind: &str) -> bool {
    (kind == "SHELL_SCRIPT_TASK_NG" && config.block_shell_task)
        || (!cfg!(feature = "ssh") && kind.starts_with("COMMAND_TASK_NG"))
        || (!cfg!(feature = "kube") && kind.starts_with("K8S_COMMAND_TASK_NG"))
        || (!cfg!(feature = "kube") && kind == "VALIDATE_KUBERNETES_CONFIG")
        || (!cfg!(feature = "ecs") && kind.starts_with("ECS_"))
}

/// What this agent offers by its settings.
pub(crate) fn own_task_types(config: &Config) -> Vec<String> {
    // A command without the SSH executor is refused by name, so that its type stays offered as it always was.
    let blocked = |kind: &&str| is_blocked(config, kind) && *kind != "COMMAND_TASK_NG";
    TASK_TYPES.iter().filter(|kind| !blocked(kind)).map(|kind| (*kind).to_owned()).collect()
}

/// What this agent offers to a manager that does not know our extensions.
pub(crate) fn foreign_task_types(config: &Config) -> Vec<String> {
    match &config.foreign_task_types {
        ForeignTasks::None => Vec::new(),
        ForeignTasks::Own(types) => types.clone(),
        ForeignTasks::HarnessCd => {
            PROVEN.iter().filter(|kind| !is_blocked(config, kind)).map(|kind| (*kind).to_owned()).collect()
        }
    }
}

/// An encoding of task and result. It stands in the journal, so that a task is answered in the form in which it came,
/// whatever the settings are by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dialect {
    /// Our own: JSON in, JSON out.
    #[default]
    Ours,
    /// Harness' own CD tasks: JSON in, Kryo out.
    HarnessCd,
}

/// A package that was read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) task: StepTask,
    /// Secrets that came open with the package; `None`: they came sealed beside it.
    pub(crate) secrets: Option<BTreeMap<SecretRef, SecretString>>,
    /// What a Harness manager asked for.
    pub(crate) request: Option<Request>,
    /// What of the package has no effect here.
    pub(crate) notices: Vec<String>,
}

/// Whose answer it is.
#[derive(Clone, Copy)]
pub(crate) struct Answering<'a> {
    pub(crate) account_id: &'a str,
    pub(crate) delegate_id: &'a str,
    pub(crate) host_name: &'a str,
    pub(crate) task_id: &'a str,
    pub(crate) task_type: &'a str,
    /// `None`: the journal's copy of it cannot be read any more.
    pub(crate) package: Option<&'a TaskPackage>,
}

/// An answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Path below the manager's base URL.
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

impl Dialect {
    /// For what the journal leaves out.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(crate) fn is_ours(&self) -> bool {
        *self == Dialect::Ours
    }

    /// The form of a package: only a manager without our extensions hands out Harness' own, and only if it was asked for.
    pub(crate) fn of(package: &TaskPackage, extended: bool, config: &Config) -> Dialect {
        let theirs =
            config.foreign_task_types == ForeignTasks::HarnessCd && !extended && package.ext.is_none();
        if theirs { Dialect::HarnessCd } else { Dialect::Ours }
    }

    /// The step that a package carries.
    ///
    /// **Errors**: a failure to answer with. A package that cannot be read is answered too, never met with silence.
    pub(crate) fn open(self, package: &TaskPackage) -> Result<Opened, Failure> {
        match self {
            Dialect::Ours => {
                let task = ours(package)?;
                Ok(Opened { task, secrets: None, request: None, notices: Vec::new() })
            }
            Dialect::HarnessCd => {
                let decoded = ::dialect::decode(package).map_err(|refused| refused.failure)?;
                Ok(Opened {
                    task: decoded.task,
                    secrets: Some(decoded.secrets),
                    request: Some(decoded.request),
                    notices: decoded.notices,
                })
            }
        }
    }

    /// The answer to a task.
    pub(crate) fn encode(self, about: Answering<'_>, result: &StepResult) -> Answer {
        let segment = crate::client::segment;
        let (task, delegate) = (segment(about.task_id), segment(about.delegate_id));
        match self {
            Dialect::Ours => Answer {
                path: format!("/api/agent/v2/tasks/{task}/delegates/{delegate}"),
                content_type: "application/json",
                body: Bytes::from(ours_of(about, result)),
            },
            Dialect::HarnessCd => {
                let agent = answer::Agent {
                    account_id: about.account_id.to_owned(),
                    delegate_id: about.delegate_id.to_owned(),
                    host_name: about.host_name.to_owned(),
                };
                let mut request = request_of(about);
                request.task_id = about.task_id.to_owned();
                Answer {
                    path: format!("/api/agent/tasks/{task}/delegates/{delegate}/v2"),
                    content_type: answer::CONTENT_TYPE,
                    body: Bytes::from(answer::answer(&agent, &request, result)),
                }
            }
        }
    }
}

/// What a Harness task asks for, as far as its answers have to know. It is read from the package each time: the package is
/// what the journal keeps.
fn request_of(about: Answering<'_>) -> Request {
    match about.package.map(::dialect::decode) {
        Some(Ok(decoded)) => decoded.request,
        Some(Err(refused)) => refused.request,
        None => Request::of_type(about.task_id, about.task_type),
    }
}

fn ours(package: &TaskPackage) -> Result<StepTask, Failure> {
    let bad = |message: String| {
        Failure::new(FailureKind::BadSpec, "AGT-004", message)
            .hint("agent and manager must be of versions that fit; if they are, report this as a fault")
    };
    let data = package.data.get();
    let task: StepTask = serde_json::from_str(data)
        .map_err(|error| bad(format!("the task of type {} cannot be read: {error}", package.task_type)))?;
    if task.version > TASK_VERSION {
        return Err(bad(format!(
            "the task has version {}; this agent reads up to {TASK_VERSION}",
            task.version
        )));
    }
    Ok(task)
}

fn ours_of(about: Answering<'_>, result: &StepResult) -> Vec<u8> {
    let written = |result: &StepResult| {
        TaskResponse::ok(about.task_id, about.task_type, result)
            .and_then(|response| serde_json::to_vec(&response))
    };
    written(result).unwrap_or_else(|error| {
        // A result that JSON cannot express still gets an answer.
        let text = format!("the result cannot be written as JSON: {error}");
        let rest = StepResult {
            agent: result.agent.clone(),
            fence: result.fence,
            ..failed_result("AGT-004", &text)
        };
        written(&rest).unwrap_or_default()
    })
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
        let failure = Dialect::Ours.open(&package).unwrap_err();
        assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::BadSpec, "AGT-004"));
        assert!(failure.message.contains("COMMAND_TASK_NG"), "{}", failure.message);
    }

    #[test]
    fn an_answer_names_task_and_delegate() {
        let about = Answering {
            account_id: "acct1",
            delegate_id: "d",
            host_name: "box",
            task_id: "t/1",
            task_type: "HTTP_TASK_NG",
            package: None,
        };
        let answer = Dialect::HarnessCd.encode(about, &failed_result("AGT-004", "m"));
        assert_eq!(answer.path, "/api/agent/tasks/t%2F1/delegates/d/v2");
        assert_eq!(answer.content_type, "application/x-kryo-v2");
        let answer = Dialect::Ours.encode(about, &failed_result("AGT-004", "m"));
        assert_eq!(answer.path, "/api/agent/v2/tasks/t%2F1/delegates/d");
        assert_eq!(
            TaskResponse::decode(&answer.body).unwrap().step_result().unwrap().failure.unwrap().message,
            "m"
        );
    }
}
