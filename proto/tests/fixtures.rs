//! Messages of earlier versions still load, and say the same when they are written again. Fixtures are never edited,
//! only added (style: a version in every record, old fixtures kept for ever).

#![expect(clippy::unwrap_used, reason = "A test ends at the first surprise.")]

use proto::events::TaskEvents;
use proto::logs::{LogLine, decode_lines};
use proto::package::TaskPackage;
use proto::register::{DelegateParams, HeartbeatResponse, RegisterResponse, UnregisterRequest};
use proto::reply::Wrapped;
use proto::response::TaskResponse;
use proto::task::StepTask;
use proto::token::Claims;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;

fn fixture(name: &str) -> Value {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire/v1").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The fixture loads as `T`, and `T` writes every key of it back unchanged.
fn survives<T: Serialize + DeserializeOwned>(name: &str) -> T {
    let before = fixture(name);
    let message: T = serde_json::from_value(before.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let after = serde_json::to_value(&message).unwrap();
    contains(&after, &before, name);
    message
}

fn contains(after: &Value, before: &Value, at: &str) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for (key, value) in before {
                let at = format!("{at}.{key}");
                contains(after.get(key).unwrap_or_else(|| panic!("{at} was lost")), value, &at);
            }
        }
        (Value::Array(after), Value::Array(before)) => {
            assert_eq!(after.len(), before.len(), "{at}");
            for (index, (after, before)) in after.iter().zip(before).enumerate() {
                contains(after, before, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(after, before, "{at}"),
    }
}

#[test]
fn registration_and_heartbeat() {
    let register: DelegateParams = survives("register");
    assert_eq!(register.ext.unwrap().capacity, 256);
    let beat: DelegateParams = survives("heartbeat");
    assert_eq!(beat.ext.unwrap().held.len(), 1);
    let reply: Wrapped<RegisterResponse> = survives("register_reply");
    assert_eq!(reply.resource.unwrap().ext.unwrap().features.len(), 7);
    survives::<Wrapped<HeartbeatResponse>>("heartbeat_reply");
    survives::<Wrapped<Value>>("error_reply");
    survives::<UnregisterRequest>("unregister");
}

#[test]
fn the_registration_of_dlite_loads() {
    // It is not written back: its secret is dropped on purpose and its number becomes text.
    let params: DelegateParams = serde_json::from_value(fixture("register_dlite")).unwrap();
    assert_eq!(params.sequence_num.as_deref(), Some("77"));
    assert!(params.ext.is_none());
}

#[test]
fn events() {
    assert_eq!(survives::<TaskEvents>("task_events").unreadable, 0);
}

#[test]
fn packages_with_their_task() {
    let package = TaskPackage::decode(fixture("package").to_string().as_bytes()).unwrap();
    contains(&serde_json::to_value(&package).unwrap(), &fixture("package"), "package");
    let task: StepTask = serde_json::from_str(package.data.get()).unwrap();
    assert_eq!(task.step.spec.kind(), "Http");
    contains(&serde_json::to_value(&task).unwrap(), &fixture("package")["data"], "data");
}

#[test]
fn responses_with_their_result() {
    let response = TaskResponse::decode(fixture("response").to_string().as_bytes()).unwrap();
    let result = response.step_result().unwrap();
    contains(&serde_json::to_value(&result).unwrap(), &fixture("response")["data"], "data");
}

#[test]
fn log_lines() {
    let body = fixture("log_lines").to_string();
    let lines: Vec<LogLine> = decode_lines(body.as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&lines).unwrap(), fixture("log_lines"));
}

#[test]
fn claims() {
    survives::<Claims>("claims");
}

#[test]
fn every_fixture_is_loaded_by_a_test() {
    let source = include_str!("fixtures.rs");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire/v1");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(source.contains(&format!("\"{name}\"")), "{name}.json is loaded by no test");
    }
}
