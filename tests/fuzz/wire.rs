//! The wire: whatever a peer sends, the answer is a value or an error, and what was understood is written back alike.

use crate::{cook, fuzz};
use proto::events::TaskEvents;
use proto::package::TaskPackage;
use proto::register::{DelegateParams, HeartbeatResponse, RegisterResponse};
use proto::response::TaskResponse;
use proto::result::StepResult;
use proto::task::StepTask;
use proto::token::DelegateToken;
use serde::Serialize;
use serde::de::DeserializeOwned;

const SAMPLES: [&str; 36] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "\"",
    "0",
    "-1",
    "9223372036854775808",
    "1.5",
    "\"\\u0000\"",
    "{\"delegateTaskId\":\"abc\",\"sync\":false}",
    "\"eventType\":\"DELEGATE_TASK\"",
    "\"delegateTaskEvents\":[",
    "{\"id\":\"t\",\"data\":{\"async\":true,\"taskType\":\"NOOP\",\"parameters\":[],\"timeout\":\"600000\"}}",
    "\"loggingToken\":\"x\"",
    "\"logging\":{\"abstractions\":{\"accountId\":\"a\",\"level0\":\"b\"}}",
    "{\"resource\":{\"delegateId\":\"d\",\"status\":\"ENABLED\"}}",
    "\"responseMessages\":[{\"code\":\"X\",\"level\":\"ERROR\",\"message\":\"m\"}]",
    "{\"status\":\"Success\",\"outputs\":{\"a\":{\"value\":1}}}",
    "\"step\":{\"type\":\"Noop\",\"identifier\":\"a\",\"spec\":{\"line\":\"x\"}}",
    "{\"level\":\"INFO\",\"pos\":1,\"out\":\"x\\n\",\"time\":\"2024-05-06T14:00:00Z\",\"args\":null}",
    "\n",
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0",
    "..",
    ".",
    "AAAA",
    "0123456789abcdef0123456789abcdef",
    "=",
    "\"type\":\"COMMAND_TASK_NG\"",
    "\"delegateExt\":{\"fence\":1,\"features\":[\"longPoll\"]}",
    "é\u{10348}",
    "\\ud800",
];

/// What is read, written and read again is the same.
fn round_trip<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_value(&value).expect("what was read can be written");
    let again: T = serde_json::from_value(written.clone()).expect("what was written can be read");
    assert_eq!(serde_json::to_value(&again).expect("it can be written twice"), written);
}

#[test]
fn every_body_has_an_answer() {
    let key = DelegateToken::from_bytes([7; 16]);
    fuzz(move |recipe| {
        let bytes = cook(recipe, &SAMPLES);
        round_trip::<TaskEvents>(&bytes);
        round_trip::<DelegateParams>(&bytes);
        round_trip::<RegisterResponse>(&bytes);
        round_trip::<HeartbeatResponse>(&bytes);
        round_trip::<StepResult>(&bytes);
        round_trip::<StepTask>(&bytes);
        if let Ok(package) = TaskPackage::decode(&bytes) {
            round_trip::<TaskPackage>(&serde_json::to_vec(&package).expect("a package can be written"));
        }
        if let Ok(response) = TaskResponse::decode(&bytes) {
            round_trip::<TaskResponse>(&serde_json::to_vec(&response).expect("a response can be written"));
        }
        if let Ok(lines) = proto::logs::decode_lines(&bytes) {
            for line in &lines {
                round_trip::<proto::logs::LogLine>(&serde_json::to_vec(line).expect("a line can be written"));
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        assert!(key.open(&text).is_err(), "nobody makes a token by chance");
        if let Ok(normal) = DelegateToken::normalise(&text) {
            drop(normal);
        }
        for tag in proto::selector::parse_tags(&text) {
            assert_eq!(tag, tag.trim(), "tags are trimmed");
        }
    });
}
