//! The Verify step on events of CloudWatch Logs, against fakecloud.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test ends at the first surprise.")]

mod peer;

use aws::Service;
use executor_api::testing::{ManualClock, World};
use executor_api::{Class, Clock, Executor as _, StepError, StepOutput, SystemClock};
use executor_verify::{Config, VerifyExecutor};
use futures::future::BoxFuture;
use peer::cloudwatch::{CloudWatch, client};
use proto::task::{Step, StepSpec, StepTask, VerifySpec};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

const MINUTE: i64 = 60_000;
/// The clock moves in these.
const TICK: Duration = Duration::from_secs(5);
const GROUP: &str = "/ecs/web";

fn spec(peer: &CloudWatch, more: Value) -> VerifySpec {
    let mut value = json!({
        "provider": {"type": "CloudWatchLogs", "account": peer.account(), "scope": {"groups": [GROUP]}},
        "metricName": "errors", "query": "ERROR",
        "threshold": {"type": "Absolute", "value": 3.0}, "durationMs": 10 * MINUTE,
    });
    for (name, part) in more.as_object().unwrap() {
        match name.as_str() {
            "scope" => value["provider"]["scope"] = part.clone(),
            _ => value[name] = part.clone(),
        }
    }
    serde_json::from_value(value).unwrap()
}

fn executor() -> VerifyExecutor {
    VerifyExecutor::new(Config::default(), client()).unwrap()
}

/// When a clock of these tests begins: a while ago, because events older than two weeks, or of the future, are not taken.
fn begin() -> i64 {
    static BEGIN: OnceLock<i64> = OnceLock::new();
    *BEGIN.get_or_init(|| {
        let now = i64::try_from(SystemClock.wall()).unwrap();
        (now / MINUTE - 60) * MINUTE
    })
}

/// A clock that the test moves, in the present.
#[derive(Clone)]
struct Present(ManualClock);

impl Clock for Present {
    fn wall(&self) -> u64 {
        let passed = self.0.wall() - ManualClock::new().wall();
        u64::try_from(begin()).unwrap() + passed
    }

    fn mono(&self) -> Instant {
        self.0.mono()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(at)
    }
}

async fn group(peer: &CloudWatch, name: &str, streams: &[&str]) {
    peer.call(Service::Logs, "CreateLogGroup", json!({"logGroupName": name})).await;
    for stream in streams {
        let input = json!({"logGroupName": name, "logStreamName": stream});
        peer.call(Service::Logs, "CreateLogStream", input).await;
    }
}

/// Events of a stream, each with its second after the beginning.
async fn put(peer: &CloudWatch, stream: &str, events: &[(i64, &str)]) {
    let events: Vec<Value> = events
        .iter()
        .map(|(second, message)| json!({"timestamp": begin() + second * 1_000, "message": message}))
        .collect();
    let input = json!({"logGroupName": GROUP, "logStreamName": stream, "logEvents": events});
    let answer = peer.call(Service::Logs, "PutLogEvents", input).await;
    assert!(answer.get("rejectedLogEventsInfo").is_none_or(Value::is_null), "{answer}");
}

/// Runs the step on a clock that the test moves; returns what it came to and how many seconds that took.
async fn run(spec: &VerifySpec) -> (World, Result<StepOutput, StepError>, u64) {
    let clock = ManualClock::new();
    let step = Step { identifier: "v".into(), name: "v".into(), spec: StepSpec::Verify(spec.clone()) };
    let secret = ("org.aws".to_owned(), "planted/secret+key-of-aws".to_owned());
    let mut world = World::new("t1", StepTask::of(step), [secret]);
    world.clock = Arc::new(Present(clock.clone()));
    world.timeout = Duration::from_secs(1200);
    let (_handle, cx) = world.context();
    let executor = executor();
    let mut passed = 0;
    let result = {
        let mut work = std::pin::pin!(executor.run(spec, &cx));
        loop {
            tokio::select! {
                done = &mut work => break done,
                () = clock.wait_for_sleeper(TICK) => {
                    passed += TICK.as_secs();
                    clock.advance(TICK);
                }
            }
        }
    };
    (world, result, passed)
}

fn series(output: &StepOutput) -> Vec<f64> {
    let series = output.outputs["series"].value.as_array().unwrap();
    series.iter().map(|point| point[1].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn events_that_match_are_counted_by_period_and_the_first_ones_shown() {
    let peer = CloudWatch::start().await;
    group(&peer, GROUP, &["web/app/1", "web/app/2"]).await;
    put(&peer, "web/app/1", &[(-10, "ERROR before"), (5, "ERROR one"), (6, "fine"), (70, "ERROR two")]).await;
    put(&peer, "web/app/2", &[(65, "an ERROR of another task"), (130, "fine"), (700, "ERROR after")]).await;
    let (world, result, took) = run(&spec(&peer, json!({}))).await;
    let output = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(output.outputs["verdict"].value, "Pass");
    assert_eq!(series(&output), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(output.outputs["total"].value.as_f64(), Some(3.0));
    assert!((600..=630).contains(&took), "{took}");
    let log = world.logs.everything();
    assert!(log.contains("matched in /ecs/web web/app/2: an ERROR of another task"), "{log}");
    assert_eq!(log.matches("ERROR one").count(), 1, "{log}");
    assert!(!log.contains("ERROR before") && !log.contains("ERROR after"), "{log}");
    // Streams of one container only.
    let narrow = spec(&peer, json!({"scope": {"groups": [GROUP], "streamPrefix": "web/app/2"}}));
    let (_, result, _) = run(&narrow).await;
    assert_eq!(result.unwrap().outputs["total"].value.as_f64(), Some(1.0));
}

#[tokio::test]
async fn more_events_than_the_limit_fail_at_once() {
    let peer = CloudWatch::start().await;
    group(&peer, GROUP, &["s"]).await;
    put(&peer, "s", &[(1, "ERROR 1"), (2, "ERROR 2"), (3, "ERROR 3"), (80, "ERROR 4")]).await;
    let (world, result, took) = run(&spec(&peer, json!({}))).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, error.class), ("VER-002", Class::Verification), "{error}");
    assert!(error.what.contains("the total so far is 4"), "{error}");
    assert!(took <= 125, "{took}\n{}", world.logs.everything());
}

#[tokio::test]
async fn a_percentage_is_a_deviation_from_the_window_before_the_stage() {
    let peer = CloudWatch::start().await;
    group(&peer, GROUP, &["s"]).await;
    let before: Vec<(i64, &str)> = (0..10).map(|n| (-290 + n * 28, "ERROR usual")).collect();
    put(&peer, "s", &before).await;
    let now: Vec<(i64, &str)> = (0..11).map(|n| (5 + n * 26, "ERROR again")).collect();
    put(&peer, "s", &now).await;
    let with = |percent: f64| {
        let threshold = json!({"type": "Percentage", "value": percent});
        spec(&peer, json!({"threshold": threshold, "stageStartedAt": begin()}))
    };
    let (world, result, _) = run(&with(20.0)).await;
    let output = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(output.outputs["total"].value.as_f64(), Some(11.0));
    let (_, result, _) = run(&with(5.0)).await;
    assert_eq!(result.unwrap_err().code, "VER-002");
}

#[tokio::test]
async fn a_group_that_is_not_there_and_a_step_that_says_nothing_are_told() {
    let peer = CloudWatch::start().await;
    let (_, result, took) = run(&spec(&peer, json!({}))).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, error.class), ("VER-014", Class::BadSpec), "{error}");
    assert!(error.what.contains("no log group `/ecs/web`"), "{error}");
    assert!(took <= 65, "{took}");
    let (_, result, _) = run(&spec(&peer, json!({"query": " ", "scope": {"groups": []}}))).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, "VER-001");
    assert!(error.what.contains("logGroup") && error.what.contains("query"), "{error}");
}
