//! From a result to the bytes of its answer.
//!
//! Every result has an answer that the manager can read, however large or odd its texts are: what is too long is cut and says
//! so, and an answer that would still be too large leaves out its bulk (pods, bodies) before its status.

mod bounds;
mod connectors;
mod ecs;
mod kubernetes;
mod outputs;
mod progress;
mod scripts;

#[cfg(test)]
mod tests;

pub use progress::{PROGRESS_CONTENT_TYPE, progress, progress_call};

use crate::kryo::table::*;
use crate::kryo::{EnumSet, Never, message};
use crate::request::{Kind, Request};
pub use bounds::MAX_ANSWER;
use bounds::{MAX_MESSAGE, cut};
#[cfg(test)]
pub(crate) use ecs::packed;
pub(crate) use ecs::{MARK, unpacked};
use proto::failure::{Failure, FailureKind};
use proto::result::{StepResult, StepStatus};

/// The content type of every answer.
pub const CONTENT_TYPE: &str = "application/x-kryo-v2";

/// Who answers. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The account: the manager looks the task up by it.
    pub account_id: String,
    /// Id that the manager gave this agent.
    pub delegate_id: String,
    /// Name of its host.
    pub host_name: String,
}

/// The answer to a task: one `DelegateTaskResponse` of [`CONTENT_TYPE`], not compressed. At most [`MAX_ANSWER`] bytes.
pub fn answer(agent: &Agent, request: &Request, result: &StepResult) -> Vec<u8> {
    for lean in [false, true] {
        let bytes = message(&envelope(agent, request, response(agent, request, result, lean)));
        if bytes.len() <= MAX_ANSWER {
            return bytes;
        }
    }
    let text = format!(
        "the step ended with status {:?}, but its outputs have more than {} MiB and cannot be sent to the manager",
        result.status,
        MAX_ANSWER >> 20
    );
    let failure = Failure::new(FailureKind::RemoteFailed, "HRN-001", text);
    message(&envelope(agent, request, notify(agent, &failure)))
}

fn envelope(agent: &Agent, request: &Request, response: Response) -> DelegateTaskResponse {
    let response_code = match response {
        Response::Error(_) => ResponseCode::Failed,
        _ => ResponseCode::Ok,
    };
    DelegateTaskResponse {
        account_id: agent.account_id.clone(),
        response,
        response_code,
        serialization_format: SerializationFormat::Kryo,
        task_type: Never::default(),
        task_type_name: request.task_type.clone(),
    }
}

/// What a family's response needs.
struct Case<'a> {
    agent: &'a Agent,
    request: &'a Request,
    result: &'a StepResult,
    /// Without what makes answers large.
    lean: bool,
}

impl Case<'_> {
    fn status(&self) -> CommandExecutionStatus {
        match self.result.status {
            // Steps of the manager take every other status for a failure.
            StepStatus::Success | StepStatus::Skipped => CommandExecutionStatus::Success,
            StepStatus::Failed | StepStatus::Aborted => CommandExecutionStatus::Failure,
        }
    }

    fn succeeded(&self) -> bool {
        self.status() == CommandExecutionStatus::Success
    }

    fn error(&self) -> Option<String> {
        let text = match &self.result.failure {
            Some(failure) => Some(told(failure)),
            None if self.succeeded() => None,
            None => Some(format!("the step ended with status {:?}", self.result.status)),
        };
        text.filter(|_| !self.succeeded())
    }

    fn meta(&self) -> DelegateMetaInfo {
        meta(self.agent)
    }
}

fn meta(agent: &Agent) -> DelegateMetaInfo {
    DelegateMetaInfo { host_name: agent.host_name.clone(), id: agent.delegate_id.clone() }
}

fn response(agent: &Agent, request: &Request, result: &StepResult, lean: bool) -> Response {
    let case = Case { agent, request, result, lean };
    let check = matches!(request.kind, Kind::KubernetesCheck | Kind::AwsCheck | Kind::GitCheck);
    if let Some(failure) = &result.failure
        && !case.succeeded()
        && !check
        && !kubernetes::owed(&case)
        && lies_between(failure.kind)
    {
        return notify(agent, failure);
    }
    match &request.kind {
        Kind::Http { method, url, bytes } => scripts::http(&case, method, url, *bytes).into(),
        Kind::Shell => scripts::shell(&case).into(),
        Kind::Command { host } => scripts::command(&case, host.as_deref()).into(),
        Kind::Kubernetes { task, release } => kubernetes::response(&case, *task, release).into(),
        Kind::Ecs { command: Some(command), region, infrastructure_key } => {
            ecs::response(&case, *command, region, infrastructure_key)
        }
        Kind::KubernetesCheck | Kind::AwsCheck | Kind::GitCheck => connectors::response(&case),
        Kind::Ecs { command: None, .. } | Kind::Other => match &result.failure {
            Some(failure) => notify(agent, failure),
            None => {
                let text = format!("this agent has no answer to tasks of type {}", request.task_type);
                notify(agent, &Failure::new(FailureKind::BadSpec, "HRN-002", text))
            }
        },
    }
}

/// Whether a failure lies between agent and target. Failure strategies of the manager go by failure types, which only
/// `ErrorNotifyResponseData` carries; what the target itself said is better told by the family's own response, with its units.
/// **Source**: facts `kryo-dialect.md` §4.6.
fn lies_between(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Authentication
        | FailureKind::Authorization
        | FailureKind::Connectivity
        | FailureKind::Throttled
        | FailureKind::Timeout
        | FailureKind::DelegateProvisioning
        | FailureKind::DelegateRestart => true,
        FailureKind::Verification
        | FailureKind::RemoteFailed
        | FailureKind::BadSpec
        | FailureKind::PolicyEvaluationFailure
        | FailureKind::ApprovalRejection
        | FailureKind::InputTimeoutError
        | FailureKind::UserMarkedFailure
        | FailureKind::Bug => false,
    }
}

fn notify(agent: &Agent, failure: &Failure) -> Response {
    ErrorNotifyResponseData {
        delegate_meta_info: meta(agent),
        error_message: told(failure),
        exception: Never::default(),
        expired: false,
        failure_types: EnumSet(vec![failure_type(failure.kind)]),
    }
    .into()
}

fn failure_type(kind: FailureKind) -> FailureType {
    match kind {
        FailureKind::Authentication => FailureType::Authentication,
        FailureKind::Authorization => FailureType::AuthorizationError,
        FailureKind::Connectivity | FailureKind::Throttled => FailureType::Connectivity,
        FailureKind::Timeout => FailureType::TimeoutError,
        FailureKind::Verification => FailureType::VerificationFailure,
        FailureKind::DelegateProvisioning => FailureType::DelegateProvisioning,
        FailureKind::DelegateRestart => FailureType::DelegateRestart,
        FailureKind::PolicyEvaluationFailure => FailureType::PolicyEvaluationFailure,
        FailureKind::ApprovalRejection => FailureType::ApprovalRejection,
        FailureKind::InputTimeoutError => FailureType::InputTimeoutFailure,
        FailureKind::UserMarkedFailure => FailureType::UserMarkedFailure,
        FailureKind::RemoteFailed | FailureKind::BadSpec | FailureKind::Bug => FailureType::ApplicationError,
    }
}

/// A failure as a person reads it: what happened, what to do, and the code that leads to its page.
fn told(failure: &Failure) -> String {
    let mut text = cut(&failure.message, MAX_MESSAGE).into_owned();
    if let Some(hint) = failure.hint.as_deref().filter(|hint| !hint.is_empty()) {
        text.push_str("\nWhat to do: ");
        text.push_str(&cut(hint, MAX_MESSAGE));
    }
    if !failure.code.is_empty() {
        text.push_str(&format!(" [{}]", failure.code));
    }
    text
}
