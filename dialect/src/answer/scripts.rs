//! Answers of Http, Shell and Command.

use super::Case;
use super::bounds::{MAX_BODY, MAX_MESSAGE, MAX_NAME, cut};
use super::outputs::Outputs;
use super::progress::units;
use crate::kryo::Bytes;
use crate::kryo::table::*;
use serde_json::Value;

/// The answer of HTTP_TASK_NG. `bytes`: the manager reads the body as bytes.
pub(super) fn http(case: &Case<'_>, method: &str, url: &str, bytes: bool) -> HttpStepResponse {
    let outputs = Outputs(case.result);
    let limit = if case.lean { MAX_MESSAGE } else { MAX_BODY };
    let body =
        outputs.value("httpResponseBody").and_then(Value::as_str).map(|text| cut(text, limit).into_owned());
    HttpStepResponse {
        command_execution_status: case.status(),
        delegate_meta_info: case.meta(),
        error_message: case.error(),
        header: None,
        http_method: Some(outputs.text("httpMethod").unwrap_or_else(|| cut(method, MAX_NAME).into_owned())),
        http_response_body_in_bytes: body
            .as_ref()
            .filter(|_| bytes)
            .map(|text| Bytes(text.clone().into_bytes())),
        http_response_body: body,
        http_response_code: outputs.int("httpResponseCode").unwrap_or_default(),
        http_url: Some(cut(url, MAX_NAME).into_owned()),
    }
}

/// What scripts left behind: texts by name, secret ones too.
fn executed(case: &Case<'_>) -> ExecuteCommandResponse {
    let variables = case.result.outputs.iter().filter_map(|(path, output)| {
        let name = path.strip_prefix("outputVariables.")?;
        let text = match &output.value {
            Value::String(text) => text.clone(),
            Value::Null => return None,
            other => other.to_string(),
        };
        Some((name.to_owned(), text))
    });
    let data = ShellExecutionData { expired: false, sweeping_output_env_variables: variables.collect() };
    ExecuteCommandResponse { command_execution_data: data.into(), status: case.status() }
}

/// The answer of SHELL_SCRIPT_TASK_NG.
pub(super) fn shell(case: &Case<'_>) -> ShellScriptTaskResponseNG {
    ShellScriptTaskResponseNG {
        delegate_meta_info: case.meta(),
        error_message: case.error(),
        execute_command_response: executed(case),
        status: case.status(),
        unit_progress_data: units(case),
    }
}

/// The answer of COMMAND_TASK_NG.
pub(super) fn command(case: &Case<'_>, host: Option<&str>) -> CommandTaskResponse {
    CommandTaskResponse {
        delegate_meta_info: case.meta(),
        error_message: case.error(),
        execute_command_response: executed(case),
        host: host.map(|host| cut(host, MAX_NAME).into_owned()),
        status: case.status(),
        unit_progress_data: units(case),
    }
}
