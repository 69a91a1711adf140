//! Packages of a Harness manager: whatever one holds, it becomes a step or the failure response of its family, and both can be
//! answered.

#![expect(clippy::indexing_slicing, reason = "A panic is the way in which a target fails.")]

use crate::{Recipe, cook, fuzz};
use dialect::answer::{Agent, MAX_ANSWER, answer};
use proto::package::TaskPackage;
use proto::result::{StepResult, StepStatus};
use proto::task::StepTask;
use serde_json::Value;

/// Packages that decode, and pieces to put into them.
const PACKAGES: [&str; 2] =
    [include_str!("../peers/kryo/requests.json"), include_str!("../peers/kryo/requests-ecs.json")];

const PIECES: [&str; 31] = [
    "null",
    "true",
    "-1",
    "9223372036854775808",
    "\"\"",
    "\"x\\u0000\\ud83d\\ude42\"",
    "[]",
    "[null]",
    "{}",
    "{\"type\":\"x\"}",
    "\"${secretDelegate.obtain(\\\"sec1\\\", 12345)}\"",
    "\"${secretDelegate.obtainBase64(\\\"sec1\\\", 12345)}\"",
    "\"${secretDelegate.obtain(\\\"\"",
    "\"${ngSecretManager.obtain(\\\"sec1\\\", 1)}\"",
    "\"s3cr3t-value\"",
    "\"InheritFromDelegate\"",
    "\"ManualConfig\"",
    "\"CANARY_DEPLOY\"",
    "\"DELETE\"",
    "\"PERCENTAGE\"",
    "\"INLINE\"",
    "\"HARNESS\"",
    "\"KUSTOMIZE\"",
    "\"HELM_CHART\"",
    "\"ECS_CANARY_DEPLOY\"",
    "\"ECS_UPGRADE_CONTAINER\"",
    "\"ECS_BLUE_GREEN_ROLLBACK\"",
    "\"delegate-undo/1 eyJ2IjoxLCJ1bmRvIjp7ImtpbmQiOiJncmVlbiJ9fQ==\"",
    "\"delegate-undo/1 e30=\"",
    "\"arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/b/c\"",
    "\"Download Artifact\"",
];

fn samples() -> Vec<Value> {
    let of = |text: &str| -> Vec<Value> {
        let all: Value = serde_json::from_str(text).expect("the samples are JSON");
        all["packages"].as_array().expect("a list").clone()
    };
    PACKAGES.into_iter().flat_map(of).collect()
}

/// Puts pieces into places of a package, by turns.
fn changed(samples: &[Value], recipe: &Recipe) -> Value {
    let first = recipe.first().map_or(0, |(which, ..)| usize::from(*which));
    let mut package = samples[first % samples.len()].clone();
    for (which, how, byte) in recipe {
        let mut place = &mut package;
        let mut turn = usize::from(*which) << 8 | usize::from(*byte);
        // Down into the package until a turn says stop, or there is no further down.
        loop {
            let stop = turn % 7 == 6;
            turn /= 7;
            let count = match &*place {
                Value::Object(object) => object.len(),
                Value::Array(list) => list.len(),
                _ => 0,
            };
            if count == 0 || stop {
                break;
            }
            place = match place {
                Value::Object(object) => object.values_mut().nth(turn % count).expect("it is there"),
                Value::Array(list) => &mut list[turn % count],
                _ => unreachable!(),
            };
            turn = turn.wrapping_mul(31).wrapping_add(usize::from(*how));
        }
        let piece = PIECES[usize::from(*how) % PIECES.len()];
        *place = serde_json::from_str(piece).unwrap_or(Value::Null);
    }
    package
}

fn answered(bytes: &[u8]) {
    let Ok(package) = TaskPackage::decode(bytes) else { return };
    let agent = Agent { account_id: "a".into(), delegate_id: "d".into(), host_name: "h".into() };
    let (request, result) = match dialect::decode(&package) {
        Ok(decoded) => {
            let written = serde_json::to_string(&decoded.task).expect("a step can be written");
            let again: StepTask = serde_json::from_str(&written).expect("what was written can be read");
            assert_eq!(again, decoded.task);
            (decoded.request, StepResult::bare(StepStatus::Success, None))
        }
        Err(refused) => (refused.request, StepResult::failed(refused.failure)),
    };
    let bytes = answer(&agent, &request, &result);
    assert!(!bytes.is_empty() && bytes.len() <= MAX_ANSWER);
}

#[test]
fn every_package_of_harness_has_an_answer() {
    let samples = samples();
    fuzz(move |recipe| answered(changed(&samples, recipe).to_string().as_bytes()));
}

#[test]
fn every_text_that_may_be_a_package_has_an_answer() {
    let packages: Vec<String> = samples().iter().map(Value::to_string).collect();
    let pieces: Vec<&'static str> = packages
        .into_iter()
        .map(|text| &*text.leak())
        .chain(PIECES)
        .chain(["{\"type\":\"K8S_COMMAND_TASK_NG\",\"data\":", "}"])
        .collect();
    fuzz(move |recipe| answered(&cook(recipe, &pieces)));
}
