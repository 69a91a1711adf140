//! Verify `type: Canary` against a real Prometheus: pods of a canary against the rest.

#![expect(clippy::unwrap_used, reason = "A test ends at the first surprise.")]

mod peer;

use executor_api::testing::{World, until};
use executor_api::{CancelReason, CancelStage, Class, Executor, StepError, StepOutput};
use executor_verify::{Config, UNIT, VerifyExecutor};
use peer::{PASSWORD, Prometheus, USER};
use proto::result::UnitStatus;
use proto::task::{Step, StepSpec, StepTask, VerifySpec};
use serde_json::{Value, json};
use std::time::Duration;

/// Ten real minutes become two seconds; a sample every 250 ms.
const REHEARSAL: u32 = 300;

/// Two hundred minutes, which become forty seconds: long enough to end early, also on a loaded machine.
const LONG: u64 = 12_000_000;

/// One series for each pod: its mean, and noise of a few percent that no two pods share.
fn pods(values: &[(&str, f64)]) -> String {
    let one = |(index, (pod, mean)): (usize, &(&str, f64))| {
        let noise = format!("((time() * 1000 / 250 + {index} * 3) % 7 - 3) / 100 * {mean}");
        format!("label_replace(vector({mean} + {noise}), \"pod\", \"{pod}\", \"\", \"\")")
    };
    values.iter().enumerate().map(one).collect::<Vec<_>>().join(" or ")
}

fn spec(server: &Prometheus, metrics: &[Value], more: Value) -> VerifySpec {
    let provider = json!({"type": "Prometheus", "connector": {"identifier": "prom", "url": server.url(""), "auth":
        {"type": "UsernamePassword", "username": USER, "password": "org.prom"}}});
    let metrics: Vec<Value> = metrics
        .iter()
        .map(|metric| {
            let mut all = json!({"provider": provider, "nodeLabel": "pod"});
            all.as_object_mut().unwrap().extend(metric.as_object().unwrap().clone());
            all
        })
        .collect();
    let mut canary = json!({"metrics": metrics, "canaryNodes": ["web-canary-*"]});
    canary.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({"query": "", "durationMs": 1_200_000, "canary": canary})).unwrap()
}

fn world(spec: &VerifySpec) -> World {
    let task = StepTask {
        secret_token: 4711,
        rehearsal: Some(REHEARSAL),
        ..StepTask::of(Step {
            identifier: "verify".into(),
            name: "Verify".into(),
            spec: StepSpec::Verify(spec.clone()),
        })
    };
    World::new("t1", task, [("org.prom".to_owned(), PASSWORD.to_owned())])
}

async fn run(spec: &VerifySpec) -> (Result<StepOutput, StepError>, World) {
    let world = world(spec);
    let (_handle, cx) = world.context();
    let executor = VerifyExecutor::new(Config::default(), peer::aws()).unwrap();
    let result =
        tokio::time::timeout(Duration::from_secs(60), executor.run(spec, &cx)).await.expect("an end");
    (result, world)
}

#[tokio::test]
async fn a_noisy_good_canary_passes_and_a_bad_one_fails_early_by_name() {
    let server = Prometheus::start("").await;
    let others = [("web-1", 1.0), ("web-2", 1.1), ("web-3", 0.9)];
    let with = |more: &[(&'static str, f64)]| pods(&[&others[..], more].concat());
    let latency = |query: String| json!({"name": "latency", "query": query});
    let good = spec(&server, &[latency(with(&[("web-canary-1", 1.05), ("web-canary-2", 0.95)]))], json!({}));
    let (result, world) = run(&good).await;
    let log = world.logs.everything();
    let output = result.unwrap_or_else(|e| panic!("{e}\n{log}"));
    assert_eq!(output.outputs["verdict"].value, "Pass");
    let metric = &output.outputs["metrics"].value[0];
    assert_eq!(
        (&metric["controlNodes"], metric["nodes"].as_array().unwrap().len()),
        (&json!(3), 2),
        "{metric}"
    );
    assert_eq!(metric["series"].as_object().unwrap().len(), 5);
    assert!(log.contains("direction: higher is worse (the name says `latency`)"), "{log}");
    assert!(log.contains("web-canary-1  ") && log.contains('▇'), "a picture of the series: {log}");
    assert_eq!(world.logs.statuses(UNIT), [UnitStatus::Running, UnitStatus::Success]);

    let bad = spec(&server, &[latency(with(&[("web-canary-1", 1.0), ("web-canary-2", 2.0)]))], json!({}));
    let bad = VerifySpec { duration_ms: LONG, ..bad };
    let start = tokio::time::Instant::now();
    let (result, world) = run(&bad).await;
    let error = result.expect_err("one canary pod is twice as slow");
    let took = start.elapsed();
    assert_eq!((error.code, error.class), ("VER-002", Class::Verification), "{error}");
    assert!(error.what.contains("canary node web-canary-2 lies above the rest"), "{error}");
    assert!(error.what.contains("looks in a row"), "{error}\n{}", world.logs.everything());
    assert!(took < Duration::from_secs(40), "before the window is over: {took:?}");
}

#[tokio::test]
async fn sensitivity_direction_and_limits_decide() {
    let server = Prometheus::start("").await;
    let query = |canary: f64| pods(&[("web-1", 1.0), ("web-2", 1.0), ("web-canary-1", canary)]);
    for (name, canary, sensitivity, passes) in [
        ("latency", 1.35, "Low", true),
        ("latency", 1.35, "Medium", false),
        ("latency", 1.15, "Medium", true),
        ("latency", 1.15, "High", false),
        // A fall of traffic is bad, a fall of latency is not.
        ("latency", 0.5, "High", true),
        ("requests", 0.5, "Medium", false),
        ("requests", 1.5, "High", true),
    ] {
        let metric = json!({"name": name, "query": query(canary)});
        let (result, world) = run(&spec(&server, &[metric], json!({"sensitivity": sensitivity}))).await;
        assert_eq!(result.is_ok(), passes, "{name} {canary} {sensitivity}\n{}", world.logs.everything());
    }
    // A value beyond a written limit, which as a comparison would pass.
    let metric = json!({"name": "latency", "query": query(1.0), "failFast": 0.9});
    let start = tokio::time::Instant::now();
    let limited = VerifySpec { duration_ms: LONG, ..spec(&server, &[metric], json!({})) };
    let (result, _) = run(&limited).await;
    let error = result.unwrap_err();
    assert!(error.what.contains("beyond the limit 0.9"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(40));
    // The second of two metrics is bad.
    let both =
        [json!({"name": "latency", "query": query(1.0)}), json!({"name": "errors", "query": query(3.0)})];
    let (result, _) = run(&spec(&server, &both, json!({}))).await;
    assert!(result.unwrap_err().what.contains("for `errors`"));
}

#[tokio::test]
async fn without_canary_or_control_nothing_can_be_said() {
    let server = Prometheus::start("").await;
    for (nodes, text) in [
        (vec![("web-1", 1.0)], "has no samples of canary nodes (found: web-1)"),
        (vec![("web-canary-1", 1.0)], "has no samples of other nodes"),
    ] {
        let metric = json!({"name": "latency", "query": pods(&nodes)});
        let mut spec = spec(&server, &[metric], json!({}));
        spec.duration_ms = 300_000;
        let (result, _) = run(&spec).await;
        let error = result.unwrap_err();
        assert_eq!(error.code, "VER-003");
        assert!(error.what.contains(text), "{error}");
        spec.fail_on_no_analysis = false;
        let (result, _) = run(&spec).await;
        assert_eq!(result.unwrap().outputs["verdict"].value, "Inconclusive");
    }
    let (result, _) = run(&spec(&server, &[], json!({}))).await;
    assert!(result.unwrap().skipped);
}

#[tokio::test]
async fn faults_are_named_and_a_restarted_agent_goes_on_with_its_window() {
    let server = Prometheus::start("").await;
    let metric = json!({"name": "latency", "query": " ", "nodeLabel": ""});
    let bad = spec(&server, &[metric], json!({"canaryNodes": ["*"]}));
    let world_of_bad = world(&bad);
    let (_handle, cx) = world_of_bad.context();
    let executor = VerifyExecutor::new(Config::default(), peer::aws()).unwrap();
    let fields: Vec<String> = executor.check(&bad, &cx).unwrap_err().into_iter().map(|f| f.field).collect();
    assert_eq!(fields, ["canary.canaryNodes", "canary.metrics[0].query", "canary.metrics[0].nodeLabel"]);

    let query = pods(&[("web-1", 1.0), ("web-canary-1", 1.0)]);
    let good = spec(&server, &[json!({"name": "latency", "query": query})], json!({}));
    let world = world(&good);
    let (handle, cx) = world.context();
    let (result, ()) = tokio::join!(executor.run(&good, &cx), async {
        until("the window is known", Duration::from_secs(20), async || {
            world.logs.everything().contains("window: 4 s").then_some(())
        })
        .await;
        handle.cancel(CancelReason::Drain, CancelStage::Ask);
    });
    assert_eq!(result.unwrap_err().class, Class::Cancelled { reason: CancelReason::Drain });
    world.restart();
    let (_handle, cx) = world.context();
    executor.run(&good, &cx).await.unwrap();
    assert!(world.logs.everything().contains("goes on with the window that began at"));
}
