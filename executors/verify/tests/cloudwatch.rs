//! The Verify step on metrics of CloudWatch, against fakecloud. Windows of minutes pass on a clock that the test moves.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test ends at the first surprise.")]

mod peer;

use aws::Service;
use executor_api::testing::{ManualClock, World, free_port};
use executor_api::{CancelReason, CancelStage, Class, Clock, Executor, Recovery, StepError, StepOutput};
use executor_verify::{Config, VerifyExecutor};
use peer::cloudwatch::{CloudWatch, client};
use proto::task::{Step, StepSpec, StepTask, VerifySpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: i64 = 60_000;
/// The clock moves in these.
const TICK: Duration = Duration::from_secs(5);

const BALANCER: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/web/4567";
const GREEN: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web-green/0123";
const BLUE: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web-blue/89ab";
const OF_GREEN: [(&str, &str); 2] =
    [("TargetGroup", "targetgroup/web-green/0123"), ("LoadBalancer", "app/web/4567")];
const OF_BLUE: [(&str, &str); 2] =
    [("TargetGroup", "targetgroup/web-blue/89ab"), ("LoadBalancer", "app/web/4567")];
const ALB: &str = "AWS/ApplicationELB";

fn scope() -> Value {
    json!({"cluster": "production", "service": "web", "targetGroupArn": GREEN, "loadBalancerArn": BALANCER})
}

fn spec(peer: &CloudWatch, more: Value) -> VerifySpec {
    let mut value = json!({
        "provider": {"type": "CloudWatch", "account": peer.account(), "scope": scope()},
        "metricName": "TargetResponseTime", "query": "avg(TargetResponseTime)",
        "threshold": {"type": "Absolute", "value": 0.2}, "durationMs": 5 * MINUTE,
    });
    for (name, part) in more.as_object().unwrap() {
        match name.as_str() {
            "scope" => value["provider"]["scope"] = part.clone(),
            _ => value[name] = part.clone(),
        }
    }
    serde_json::from_value(value).unwrap()
}

fn world(spec: &VerifySpec, rehearsal: Option<u32>) -> World {
    let step = Step { identifier: "v".into(), name: "v".into(), spec: StepSpec::Verify(spec.clone()) };
    let task = StepTask { rehearsal, ..StepTask::of(step) };
    World::new("t1", task, [("org.aws".to_owned(), "planted/secret+key-of-aws".to_owned())])
}

fn executor() -> VerifyExecutor {
    VerifyExecutor::new(Config::default(), client()).unwrap()
}

/// Moves the clock on whenever the step waits. `before` is called with the seconds that will have passed.
async fn drive<T>(
    clock: &ManualClock,
    work: impl Future<Output = T>,
    mut before: impl AsyncFnMut(u64),
) -> (T, u64) {
    let mut passed = 0;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return (done, passed),
            () = clock.wait_for_sleeper(TICK) => {
                passed += TICK.as_secs();
                before(passed).await;
                clock.advance(TICK);
            }
        }
    }
}

/// Runs the step from the beginning of a minute on; returns what it came to and how many seconds that took.
async fn run(spec: &VerifySpec) -> (World, Result<StepOutput, StepError>, u64) {
    let clock = ManualClock::new();
    let mut world = world(spec, None);
    world.clock = Arc::new(clock.clone());
    world.timeout = Duration::from_secs(1200);
    let (_handle, cx) = world.context();
    let executor = executor();
    let (result, took) = drive(&clock, executor.run(spec, &cx), async |_| {}).await;
    (world, result, took)
}

/// When a clock of these tests begins.
fn begin() -> i64 {
    i64::try_from(ManualClock::new().wall()).unwrap()
}

async fn fill(peer: &CloudWatch, name: &str, dimensions: &[(&str, &str)], first: i64, values: &[f64]) {
    for (at, value) in values.iter().enumerate() {
        let at_ms = begin() + (first + i64::try_from(at).unwrap()) * MINUTE;
        peer.put(ALB, name, dimensions, &[(at_ms, &[*value])]).await;
    }
}

fn number(output: &StepOutput, name: &str) -> f64 {
    output.outputs[name].value.as_f64().unwrap_or_else(|| panic!("{name}: {:?}", output.outputs))
}

#[tokio::test]
async fn an_average_is_judged_over_whole_minutes() {
    let peer = CloudWatch::start().await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, -1, &[9.0, 0.1, 0.1, 0.3, 0.1, 0.15, 9.0]).await;
    let (world, result, took) = run(&spec(&peer, json!({}))).await;
    let output = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(output.outputs["verdict"].value, "Pass");
    assert!((number(&output, "mean") - 0.15).abs() < 1e-9);
    assert_eq!(output.outputs["series"].value.as_array().unwrap().len(), 5);
    assert_eq!(
        (number(&output, "stepMs"), output.outputs["windowStart"].value.as_i64()),
        (6e4, Some(begin()))
    );
    // Once more after the end of the window, to see that the last sample stays as it is.
    assert_eq!(took, 315);
    let log = world.logs.everything();
    let asked = "asks for Average of AWS/ApplicationELB TargetResponseTime {LoadBalancer=app/web/4567, TargetGroup=targetgroup/web-green/0123}";
    assert!(log.contains(asked) && log.contains("0.3 violates the limit"), "{log}");
    assert!(!log.contains("planted/secret"), "{log}");
}

#[tokio::test]
async fn green_is_compared_with_blue_at_the_same_time() {
    let peer = CloudWatch::start().await;
    let seed = json!({"threshold": {"type": "Percentage", "value": 20.0},
        "scope": {"cluster": "production", "service": "web", "targetGroupArn": GREEN,
                  "baselineTargetGroupArn": BLUE, "loadBalancerArn": BALANCER}});
    // The load makes both slower.
    fill(&peer, "TargetResponseTime", &OF_BLUE, 0, &[0.1, 0.2, 0.4, 0.8, 0.8]).await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, 0, &[0.1, 0.22, 0.44, 0.88, 0.88]).await;
    let (world, result, _) = run(&spec(&peer, seed.clone())).await;
    let output = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(output.outputs["control"].value["points"], 5);
    assert!((output.outputs["control"].value["mean"].as_f64().unwrap() - 0.46).abs() < 1e-9);

    let peer = CloudWatch::start().await;
    fill(&peer, "TargetResponseTime", &OF_BLUE, 0, &[0.1, 0.2, 0.4, 0.8, 0.8]).await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, 0, &[0.1, 0.3, 0.6]).await;
    let (world, result, took) = run(&spec(&peer, seed.clone())).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, took), ("VER-002", 180), "{error}\n{}", world.logs.everything());
    assert!(error.what.contains("0.3 (+50.0 %), 0.6 (+50.0 %)"), "{error}");

    let peer = CloudWatch::start().await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, 0, &[0.1; 5]).await;
    let (_, result, took) = run(&spec(&peer, seed)).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, took), ("VER-003", 420), "{error}");
    assert!(error.what.contains("the control has 0 of at least 5 samples at the same times"), "{error}");
}

#[tokio::test]
async fn a_sum_is_the_total_so_far() {
    let peer = CloudWatch::start().await;
    let errors = json!({"metricName": "HTTPCode_Target_5XX_Count", "query": "sum(HTTPCode_Target_5XX_Count)",
        "threshold": {"type": "Absolute", "value": 10.0}});
    fill(&peer, "HTTPCode_Target_5XX_Count", &OF_GREEN, 1, &[6.0, 5.0]).await;
    let (world, result, took) = run(&spec(&peer, errors.clone())).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, took), ("VER-002", 180), "{error}\n{}", world.logs.everything());
    assert!(error.what.contains("the total so far is 11") && error.what.contains("total <= 10"), "{error}");

    // Few enough, and minutes without an error have no sample.
    let peer = CloudWatch::start().await;
    fill(&peer, "HTTPCode_Target_5XX_Count", &OF_GREEN, 1, &[6.0]).await;
    peer.put(ALB, "HTTPCode_Target_5XX_Count", &OF_GREEN, &[(begin() + 3 * MINUTE, &[1.0, 1.0, 2.0])]).await;
    let (_, result, took) = run(&spec(&peer, errors.clone())).await;
    let output = result.unwrap();
    assert_eq!((number(&output, "total"), took), (10.0, 420));
    assert!(output.notices.is_empty(), "{:?}", output.notices);

    // None at all: then it matters whether there were requests.
    let peer = CloudWatch::start().await;
    let (_, result, _) = run(&spec(&peer, errors.clone())).await;
    let notices = result.unwrap().notices;
    assert!(notices[0].contains("absence counts as 0") && notices[1].contains("RequestCount"), "{notices:?}");
    fill(&peer, "RequestCount", &OF_GREEN, 0, &[100.0; 5]).await;
    let (_, result, _) = run(&spec(&peer, errors)).await;
    assert_eq!(result.unwrap().notices.len(), 1);
}

#[tokio::test]
async fn percentiles_are_of_the_values_of_a_minute() {
    let peer = CloudWatch::start().await;
    let values: Vec<f64> = (1..=100).map(f64::from).collect();
    for minute in 0..5 {
        peer.put(ALB, "TargetResponseTime", &OF_GREEN, &[(begin() + minute * MINUTE, &values)]).await;
    }
    let wanted = |query: &str, limit: f64| {
        spec(&peer, json!({"query": query, "threshold": {"type": "Absolute", "value": limit}}))
    };
    let output = run(&wanted("p90(TargetResponseTime)", 95.0)).await.1.unwrap();
    assert!((number(&output, "mean") - 90.0).abs() <= 1.0, "{:?}", output.outputs);
    let error = run(&wanted("p99(TargetResponseTime)", 95.0)).await.1.unwrap_err();
    assert_eq!(error.code, "VER-002", "{error}");
    let output = run(&wanted("max(TargetResponseTime)", 100.0)).await.1.unwrap();
    assert_eq!(number(&output, "mean"), 100.0);
}

#[tokio::test]
async fn late_samples_are_waited_for_but_not_for_ever() {
    let peer = CloudWatch::start().await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, 0, &[0.1, 0.1, 0.1, 0.1]).await;
    let late = spec(&peer, json!({}));
    let (_, result, took) = run(&late).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, took), ("VER-003", 420), "{error}");
    assert!(error.what.contains("4 of at least 5 samples"), "{error}");

    let clock = ManualClock::new();
    let mut world = world(&late, None);
    world.clock = Arc::new(clock.clone());
    let (_handle, cx) = world.context();
    let executor = executor();
    let arrive = async |passed: u64| {
        // What is counted in two places comes at two times: first one half of the last minute, then the other.
        let value = match passed {
            360 => 0.1,
            375 => 0.9,
            _ => return,
        };
        peer.put(ALB, "TargetResponseTime", &OF_GREEN, &[(begin() + 4 * MINUTE, &[value])]).await;
    };
    let (result, took) = drive(&clock, executor.run(&late, &cx), arrive).await;
    let output = result.unwrap();
    assert_eq!(took, 390, "{}", world.logs.everything());
    assert!((number(&output, "mean") - 0.18).abs() < 1e-9, "{:?}", output.outputs);
}

#[tokio::test]
async fn the_step_s_timer_ends_the_waiting() {
    let peer = CloudWatch::start().await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, 0, &[0.1, 0.1, 0.1, 0.1]).await;
    let spec = spec(&peer, json!({"failOnNoAnalysis": false}));
    let clock = ManualClock::new();
    let mut world = world(&spec, None);
    world.clock = Arc::new(clock.clone());
    world.timeout = Duration::from_secs(350);
    let (_handle, cx) = world.context();
    let (result, took) = drive(&clock, executor().run(&spec, &cx), async |_| {}).await;
    assert_eq!((result.unwrap().outputs["verdict"].value.clone(), took), (json!("Inconclusive"), 345));
}

#[tokio::test]
async fn a_deviation_without_a_second_target_group_is_from_before_the_stage() {
    let peer = CloudWatch::start().await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, -15, &[0.1; 10]).await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, 0, &[0.13; 5]).await;
    let begun = begin() - 10 * MINUTE + 30_000;
    let percent =
        |value: f64| json!({"threshold": {"type": "Percentage", "value": value}, "stageStartedAt": begun});
    let output = run(&spec(&peer, percent(31.0))).await.1.unwrap();
    assert_eq!(output.outputs["control"].value["points"], 5);
    let error = run(&spec(&peer, percent(20.0))).await.1.unwrap_err();
    assert!(error.code == "VER-002" && error.what.contains("0.13 (+30.0 %)"), "{error}");
}

#[tokio::test]
async fn the_load_balancer_of_a_target_group_is_found() {
    let peer = CloudWatch::start().await;
    let made = async |name: &'static str, input: Value, pointer: &str| {
        let answer = peer.call(Service::LoadBalancing, name, input).await;
        answer.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let group = |name: &str| json!({"Name": name, "Protocol": "HTTP", "Port": 80, "VpcId": "vpc-1", "TargetType": "ip"});
    let used = made("CreateTargetGroup", group("used"), "/TargetGroups/0/TargetGroupArn").await;
    let idle = made("CreateTargetGroup", group("idle"), "/TargetGroups/0/TargetGroupArn").await;
    let input = json!({"Name": "web", "Subnets": peer.subnets().await});
    let balancer = made("CreateLoadBalancer", input, "/LoadBalancers/0/LoadBalancerArn").await;
    let input = json!({"LoadBalancerArn": balancer, "Protocol": "HTTP", "Port": 80,
        "DefaultActions": [{"Type": "forward", "TargetGroupArn": used}]});
    made("CreateListener", input, "/Listeners/0/ListenerArn").await;
    let end = |arn: &str, head: &str| arn.split_once(head).unwrap().1.to_owned();
    let (group, balancer) = (end(&used, ":123456789012:"), end(&balancer, "loadbalancer/"));
    let dimensions = [("TargetGroup", group.as_str()), ("LoadBalancer", balancer.as_str())];
    fill(&peer, "TargetResponseTime", &dimensions, 0, &[0.1; 5]).await;
    let (world, result, _) = run(&spec(&peer, json!({"scope": {"targetGroupArn": used}}))).await;
    result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    let error = run(&spec(&peer, json!({"scope": {"targetGroupArn": idle}}))).await.1.unwrap_err();
    assert_eq!((error.code, error.class), ("VER-012", Class::BadSpec), "{error}");
    assert!(error.what.ends_with("has no load balancer"), "{error}");
}

#[tokio::test]
async fn written_dimensions_and_statistics_are_taken() {
    let peer = CloudWatch::start().await;
    // Ten minutes: a window of five is looked at in half minutes when the metric is not AWS' own.
    for minute in 0..10 {
        peer.put("Shop", "Orders", &[("Stage", "prod, west")], &[(begin() + minute * MINUTE, &[4.0, 6.0])])
            .await;
    }
    let in_query = json!({"metricName": "orders", "durationMs": 10 * MINUTE, "query": "count(Shop:Orders{Stage=\"prod, west\"})",
        "threshold": {"type": "Absolute", "value": 2.0}, "scope": {}});
    let (_, result, _) = run(&spec(&peer, in_query)).await;
    assert_eq!(number(&result.unwrap(), "mean"), 2.0);
    let in_keys = json!({"metricName": "Orders", "durationMs": 10 * MINUTE, "query": "Orders",
        "threshold": {"type": "Absolute", "value": 6.0},
        "scope": {"namespace": "Shop", "dimensions": {"Stage": "prod, west"}, "statistic": "max"}});
    let (_, result, _) = run(&spec(&peer, in_keys)).await;
    assert_eq!(number(&result.unwrap(), "mean"), 6.0);
}

#[tokio::test]
async fn a_restarted_agent_goes_on_with_the_same_window() {
    let peer = CloudWatch::start().await;
    fill(&peer, "TargetResponseTime", &OF_GREEN, 0, &[0.1, 0.11, 0.12, 0.13, 0.14]).await;
    let spec = spec(&peer, json!({}));
    let clock = ManualClock::new();
    let mut world = world(&spec, None);
    world.clock = Arc::new(clock.clone());
    let (handle, cx) = world.context();
    let drain = async |passed: u64| {
        if passed == 130 {
            handle.cancel(CancelReason::Drain, CancelStage::Ask);
        }
    };
    let (result, _) = drive(&clock, executor().run(&spec, &cx), drain).await;
    assert_eq!(result.unwrap_err().class, Class::Cancelled { reason: CancelReason::Drain });
    world.restart();
    let (_handle, cx) = world.context();
    assert_eq!(executor().recover(&spec, &cx).await.unwrap(), Recovery::Running);
    let (result, took) = drive(&clock, executor().run(&spec, &cx), async |_| {}).await;
    let output = result.unwrap();
    assert_eq!(output.outputs["windowStart"].value.as_i64(), Some(begin()));
    assert!(took < 200 && output.outputs["series"].value.as_array().unwrap().len() == 5, "{took}");
}

#[tokio::test]
async fn a_rehearsal_looks_at_seconds() {
    let peer = CloudWatch::start().await;
    // The machine's own clock: requests go on all the time while the step looks.
    let spec = spec(
        &peer,
        json!({"query": "sum(RequestCount)", "metricName": "RequestCount",
        "threshold": {"type": "Absolute", "value": 20.0}}),
    );
    let world = world(&spec, Some(60));
    let (_handle, cx) = world.context();
    let feed = async {
        loop {
            let now = i64::try_from(cx.clock.wall()).unwrap();
            peer.put(ALB, "RequestCount", &OF_GREEN, &[(now, &[1.0])]).await;
            cx.clock.sleep(Duration::from_millis(100)).await;
        }
    };
    let executor = executor();
    let result = tokio::select! {
        result = executor.run(&spec, &cx) => result,
        () = feed => panic!("the requests ended"),
    };
    let output = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(
        (number(&output, "stepMs"), &output.outputs["direction"].value),
        (1e3, &json!("lower is worse"))
    );
    let series = output.outputs["series"].value.as_array().unwrap().len();
    assert!((5..=10).contains(&series), "{series}");
}

#[tokio::test]
async fn what_aws_refuses_is_classified() {
    let peer = CloudWatch::start().await;
    let mut lost = spec(&peer, json!({}));
    if let Some(proto::task::MetricProvider::CloudWatch { account, .. }) = &mut lost.provider {
        let nowhere = format!("http://127.0.0.1:{}", free_port());
        account.endpoints = BTreeMap::from([(String::new(), nowhere)]);
    }
    let refused = async |spec: &VerifySpec| {
        let world = world(spec, None);
        let (_handle, cx) = world.context();
        executor().run(spec, &cx).await.unwrap_err()
    };
    let error = refused(&lost).await;
    assert_eq!((error.code, error.class), ("AWS-007", Class::Connectivity), "{error}");
    let mut unknown = spec(&peer, json!({}));
    if let Some(proto::task::MetricProvider::CloudWatch { account, .. }) = &mut unknown.provider {
        account.credential = serde_json::from_value(
            json!({"type": "ManualConfig", "accessKey": "AKIA", "secretKey": "x", "sessionToken": "org.nowhere"}),
        )
        .unwrap();
    }
    let error = refused(&unknown).await;
    assert_eq!((error.code, error.class), ("AWS-001", Class::BadSpec), "{error}");
    let bad = spec(&peer, json!({"query": "median(TargetResponseTime)"}));
    assert_eq!(refused(&bad).await.code, "VER-001");
}
