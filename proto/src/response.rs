//! The JSON response to a task. **Source**: protocol facts §5.

use crate::result::StepResult;
use crate::tolerance;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The answer to a task: `{"id","type","code","data"}`. All four keys are always written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskResponse {
    /// Id of the task; some clients leave it empty.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub id: String,
    /// The type that the package had.
    #[serde(rename = "type", default, deserialize_with = "tolerance::null_default")]
    pub task_type: String,
    /// How the agent fared with the task itself. A step that failed in order is still `OK`; its status is in `data`.
    #[serde(default)]
    pub code: ResponseCode,
    /// The result; `null` when the handler wrote nothing.
    #[serde(default = "null")]
    pub data: Box<RawValue>,
}

/// Harness' `code` of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseCode {
    /// Answered.
    #[default]
    #[serde(rename = "OK")]
    Ok,
    /// Could not be answered.
    #[serde(rename = "FAILED")]
    Failed,
    /// Not here; another agent may try.
    #[serde(rename = "RETRY_ON_OTHER_DELEGATE")]
    RetryOnOtherDelegate,
}

/// A response cannot be read. Repeats nothing of its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// dlite sends an empty body when its handler wrote something that is not JSON.
    #[error("the response has no body")]
    Empty,
    /// Not a response.
    #[error("the response is not a JSON response to a task (line {line}, column {column})")]
    Malformed {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
}

impl TaskResponse {
    /// The response that carries `result`.
    ///
    /// **Errors**: `result` holds a value that JSON cannot express.
    pub fn ok(id: &str, task_type: &str, result: &StepResult) -> Result<Self, serde_json::Error> {
        Ok(TaskResponse {
            id: id.to_owned(),
            task_type: task_type.to_owned(),
            code: ResponseCode::Ok,
            data: serde_json::value::to_raw_value(result)?,
        })
    }

    /// A response without data.
    pub fn without_data(id: &str, task_type: &str, code: ResponseCode) -> Self {
        TaskResponse { id: id.to_owned(), task_type: task_type.to_owned(), code, data: null() }
    }

    /// Reads a response.
    pub fn decode(body: &[u8]) -> Result<Self, ResponseError> {
        if body.trim_ascii().is_empty() {
            return Err(ResponseError::Empty);
        }
        serde_json::from_slice(body)
            .map_err(|e| ResponseError::Malformed { line: e.line(), column: e.column() })
    }

    /// `data` in our own dialect.
    ///
    /// **Errors**: `data` is something else; the text names the field and repeats no value of it.
    pub fn step_result(&self) -> Result<StepResult, ResponseError> {
        serde_json::from_str(self.data.get())
            .map_err(|e| ResponseError::Malformed { line: e.line(), column: e.column() })
    }
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::StepStatus;
    use proptest::prelude::*;

    fn result() -> StepResult {
        StepResult {
            status: StepStatus::Success,
            failure: None,
            outputs: [("httpResponseCode".to_owned(), serde_json::json!("200").into())].into(),
            undo: Some(serde_json::json!({"z": 1, "a": 2})),
            units: vec![],
            learned_host_keys: vec![],
            agent: "zone-a".into(),
            fence: 4,
            notices: vec!["n".into()],
        }
    }

    #[test]
    fn a_response_survives_with_all_four_keys() {
        let response = TaskResponse::ok("t1", "HTTP_TASK_NG", &result()).unwrap();
        let text = serde_json::to_string(&response).unwrap();
        assert!(text.starts_with(r#"{"id":"t1","type":"HTTP_TASK_NG","code":"OK","data":{"#), "{text}");
        let again = TaskResponse::decode(text.as_bytes()).unwrap();
        assert_eq!(again.step_result().unwrap(), result());
        let empty =
            serde_json::to_string(&TaskResponse::without_data("", "X", ResponseCode::RetryOnOtherDelegate));
        assert_eq!(empty.unwrap(), r#"{"id":"","type":"X","code":"RETRY_ON_OTHER_DELEGATE","data":null}"#);
    }

    #[test]
    fn an_empty_body_is_told_apart() {
        assert_eq!(TaskResponse::decode(b" \n").unwrap_err(), ResponseError::Empty);
        assert!(matches!(TaskResponse::decode(b"ok"), Err(ResponseError::Malformed { .. })));
        assert!(matches!(TaskResponse::decode(br#"{"code":"MAYBE"}"#), Err(ResponseError::Malformed { .. })));
    }

    #[test]
    fn foreign_data_is_kept_and_is_no_step_result() {
        let body = br#"{"id":"","type":"T","code":"OK","data":{"command_execution_status":"SUCCESS"}}"#;
        let response = TaskResponse::decode(body).unwrap();
        assert_eq!(response.data.get(), r#"{"command_execution_status":"SUCCESS"}"#);
        assert!(response.step_result().is_err());
        assert_eq!(
            TaskResponse::decode(br#"{"id":null,"type":"T","data":null}"#).unwrap().data.get(),
            "null"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _unused = TaskResponse::decode(&bytes);
        }

        #[test]
        fn any_json_is_answered(value in crate::tests::any_json()) {
            let _unused = TaskResponse::decode(value.to_string().as_bytes());
            let body = serde_json::json!({"data": value}).to_string();
            let _unused = TaskResponse::decode(body.as_bytes()).unwrap().step_result();
        }
    }
}
