//! Answers of connector checks.

use super::bounds::{MAX_MESSAGE, cut};
use super::outputs::Outputs;
use super::{Case, told};
use crate::kryo::Never;
use crate::kryo::table::*;
use crate::request::Kind;
use proto::result::TestStage;

/// Harness' number of an error that has no other.
const GENERAL: i32 = 450;

/// Characters of a summary; the whole text stands in the details.
const MAX_SUMMARY: usize = 1024;

/// The answer of a check: also one that found something wrong is told here, never as a failed task.
pub(super) fn response(case: &Case<'_>) -> Response {
    let stages = Outputs(case.result).value("stages").cloned().unwrap_or_default();
    let stages: Vec<TestStage> = serde_json::from_value(stages).unwrap_or_default();
    let ok = case.succeeded() && Outputs(case.result).flag("ok").unwrap_or(false);
    let (message, reason) = match (&case.result.failure, stages.iter().find(|stage| !stage.ok)) {
        _ if ok => (String::new(), None),
        (Some(failure), _) => (told(failure), failure.hint.clone()),
        (None, Some(stage)) => (format!("{}: {}", stage.stage, stage.message), stage.hint.clone()),
        (None, None) => ("the check ended without a word".to_owned(), None),
    };
    let error = ErrorDetail {
        code: GENERAL,
        message: Some(cut(&message, MAX_MESSAGE).into_owned()),
        reason: reason.map(|reason| cut(&reason, MAX_MESSAGE).into_owned()),
    };
    let tested_at = case.result.units.iter().filter_map(|unit| unit.ended_at).max().unwrap_or_default();
    let connector_validation_result = ConnectorValidationResult {
        delegate_id: Some(case.agent.delegate_id.clone()),
        error_summary: (!ok).then(|| cut(&message, MAX_SUMMARY).into_owned()),
        errors: if ok { Vec::new() } else { vec![error] },
        status: if ok { ConnectivityStatus::Success } else { ConnectivityStatus::Failure },
        task_id: Some(case.request.task_id.clone()),
        tested_at: i64::try_from(tested_at).unwrap_or(i64::MAX),
    };
    let delegate_meta_info = case.meta();
    match case.request.kind {
        Kind::KubernetesCheck => {
            KubernetesConnectionTaskResponse { connector_validation_result, delegate_meta_info }.into()
        }
        Kind::AwsCheck => AwsValidateTaskResponse { connector_validation_result, delegate_meta_info }.into(),
        _ => GitCommandExecutionResponse {
            connector_validation_result,
            delegate_meta_info,
            error_code: Never::default(),
            error_message: (!ok).then(|| cut(&message, MAX_MESSAGE).into_owned()),
            git_command_request: Never::default(),
            git_command_result: Never::default(),
            git_command_status: if ok { GitCommandStatus::Success } else { GitCommandStatus::Failure },
        }
        .into(),
    }
}
