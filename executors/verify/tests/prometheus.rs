//! The Verify step against a real Prometheus, and the conformance kit.

#![expect(clippy::unwrap_used, reason = "A test ends at the first surprise.")]

mod peer;

use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_api::testing::{FixedSecrets, World, until};
use executor_api::{
    CancelReason, CancelStage, Checkpoints as _, Class, Clock, Executor, HostAliases, Recovery, StepError,
    StepOutput, SystemClock, TransportProbe,
};
use executor_verify::{Config, UNIT, VerifyExecutor};
use futures::future::BoxFuture;
use peer::{PASSWORD, Prometheus, USER, free};
use proto::failure::FailureKind;
use proto::result::UnitStatus;
use proto::task::{Step, StepSpec, StepTask, VerifySpec};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

const SECRET_TOKEN: i64 = 4711;

/// Ten real minutes become two seconds; a sample every 250 ms.
const REHEARSAL: u32 = 300;

fn connector(url: &str) -> Value {
    json!({"type": "Prometheus", "connector": {"identifier": "prom", "url": url, "auth":
        {"type": "UsernamePassword", "username": USER, "password": "org.prom"}}})
}

fn spec(url: &str, more: Value) -> VerifySpec {
    let mut value = json!({"provider": connector(url), "metricName": "error_rate", "query": "vector(1)",
        "threshold": {"type": "Absolute", "value": 10.0}, "durationMs": 600_000});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

fn task(spec: &VerifySpec) -> StepTask {
    StepTask {
        secret_token: SECRET_TOKEN,
        rehearsal: Some(REHEARSAL),
        ..StepTask::of(Step {
            identifier: "verify".into(),
            name: "Verify".into(),
            spec: StepSpec::Verify(spec.clone()),
        })
    }
}

fn planted() -> Vec<(String, String)> {
    vec![("org.prom".to_owned(), PASSWORD.to_owned()), ("org.wrong".to_owned(), "another-s3cret".to_owned())]
}

fn world(spec: &VerifySpec) -> World {
    World::new("t1", task(spec), planted())
}

fn executor() -> VerifyExecutor {
    VerifyExecutor::new(Config::default(), peer::aws()).unwrap()
}

async fn run_in(world: &World, spec: &VerifySpec) -> Result<StepOutput, StepError> {
    let (_handle, cx) = world.context();
    executor().run(spec, &cx).await
}

async fn run(server: &Prometheus, more: Value) -> (World, Result<StepOutput, StepError>) {
    let spec = spec(&server.url(""), more);
    let world = world(&spec);
    let result = run_in(&world, &spec).await;
    (world, result)
}

#[tokio::test]
async fn a_good_series_passes_with_everything_it_was_judged_by() {
    let server = Prometheus::start("").await;
    // A live series: the server scrapes itself.
    let more = json!({"query": "max(up{job=\"self\"} or vector(1))", "metricName": "up",
                      "comparison": "GreaterOrEqual", "threshold": {"type": "Absolute", "value": 1.0}});
    let started = tokio::time::Instant::now();
    let (world, result) = run(&server, more).await;
    let output = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
    let value = |name: &str| &output.outputs[name].value;
    assert_eq!((value("verdict"), value("direction")), (&json!("Pass"), &json!("lower is worse")));
    assert_eq!((value("formula"), value("mean")), (&json!("value >= 1"), &json!(1.0)));
    assert_eq!(value("series").as_array().unwrap().len(), 9);
    assert_eq!(value("stepMs"), &json!(250));
    let log = world.logs.everything();
    for line in ["direction: lower is worse (`comparison: GreaterOrEqual` is written)", "formula: value >= 1"]
    {
        assert!(log.contains(line), "{log}");
    }
    assert_eq!(world.logs.statuses(UNIT), [UnitStatus::Running, UnitStatus::Success]);
}

#[tokio::test]
async fn two_violations_in_a_row_end_the_step_early() {
    let server = Prometheus::start("").await;
    let started = tokio::time::Instant::now();
    let (world, result) = run(&server, json!({"query": "vector(11)", "durationMs": 6_000_000})).await;
    let error = result.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!((error.code, error.class), ("VER-002", Class::Verification), "{error}");
    assert!(error.to_string().contains("2 samples in a row violate the limit: 11, 11"), "{error}");
    assert_eq!(world.logs.statuses(UNIT), [UnitStatus::Running, UnitStatus::Failure]);
}

#[tokio::test]
async fn the_mean_decides_at_the_end() {
    let server = Prometheus::start("").await;
    // One sample in four is far above the limit: never two in a row, and a bad mean.
    let spikes = "vector((time() * 4) % 4 < bool 1) * 1000";
    let (world, result) = run(&server, json!({"query": spikes})).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, "VER-002", "{error}\n{}", world.logs.everything());
    assert!(error.to_string().contains("the mean of 9 samples is"), "{error}");
    let below = json!({"query": "vector(9.5)"});
    assert_eq!(run(&server, below).await.1.unwrap().outputs["mean"].value, 9.5);
}

#[tokio::test]
async fn a_deviation_is_measured_from_the_history_before_the_stage() {
    let now = i64::try_from(SystemClock.wall()).unwrap();
    // A stage that began two hours ago, so that its control window lies in blocks; a gauge at 100 until then.
    let stage = now - 2 * 3_600_000;
    let mut history = String::from("# TYPE orders gauge\n");
    for second in -300..=0 {
        writeln!(history, "orders 100 {}.{:03}", (stage + second * 1000) / 1000, stage % 1000).unwrap();
    }
    history.push_str("# EOF\n");
    let server = Prometheus::start(&history).await;
    for (value, verdict) in [(110.0, None), (131.0, Some("(+31.0 %)"))] {
        let query = format!("max(orders) or vector({value})");
        let more = json!({"query": query, "metricName": "latency", "stageStartedAt": stage,
                          "threshold": {"type": "Percentage", "value": 20.0}});
        let (world, result) = run(&server, more).await;
        let log = world.logs.everything();
        assert!(log.contains("mean 100"), "{log}");
        match verdict {
            None => assert_eq!(result.unwrap().outputs["control"].value, json!({"mean": 100.0, "points": 9})),
            Some(text) => {
                let error = result.unwrap_err();
                assert!(error.code == "VER-002" && error.to_string().contains(text), "{error}");
            }
        }
    }
    // No history at all: nothing to compare with.
    let more = json!({"query": "nothing", "metricName": "latency", "stageStartedAt": stage,
                      "threshold": {"type": "Percentage", "value": 20.0}});
    let error = run(&server, more).await.1.unwrap_err();
    assert_eq!((error.code, error.class), ("VER-003", Class::Verification), "{error}");
}

#[tokio::test]
async fn no_data_is_inconclusive_unless_the_author_says_otherwise() {
    let server = Prometheus::start("").await;
    let error = run(&server, json!({"query": "nothing"})).await.1.unwrap_err();
    assert_eq!((error.code, error.class), ("VER-003", Class::Verification), "{error}");
    let mild = json!({"query": "nothing", "failOnNoAnalysis": false});
    let output = run(&server, mild).await.1.unwrap();
    assert_eq!(output.outputs["verdict"].value, "Inconclusive");
    assert_eq!(output.notices.len(), 1);
    let count = json!({"query": "nothing", "metricName": "HTTPCode_Target_5XX_Count"});
    let output = run(&server, count).await.1.unwrap();
    assert_eq!(
        (&output.outputs["verdict"].value, &output.outputs["mean"].value),
        (&json!("Pass"), &json!(0.0))
    );
    assert!(output.notices[0].contains("absence counts as 0"));
}

#[tokio::test]
async fn not_a_number_is_a_missing_sample() {
    let server = Prometheus::start("").await;
    let error = run(&server, json!({"query": "vector(0)/vector(0)"})).await.1.unwrap_err();
    assert_eq!(error.code, "VER-003", "{error}");
    let error = run(&server, json!({"query": "vector(1)/vector(0)"})).await.1.unwrap_err();
    assert_eq!(error.code, "VER-002", "{error}");
}

#[tokio::test]
async fn several_series_are_listed() {
    let server = Prometheus::start("").await;
    let query = "label_replace(vector(1),\"pod\",\"a\",\"\",\"\") or label_replace(vector(2),\"pod\",\"b\",\"\",\"\")";
    let error = run(&server, json!({"query": query})).await.1.unwrap_err();
    assert_eq!((error.code, error.class), ("VER-007", Class::BadSpec));
    assert!(
        error.to_string().contains("2 series") && error.to_string().contains("{pod=\"a\"}, {pod=\"b\"}"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_comes_back_is_waited_for() {
    let address = free();
    // It is there before the first try: what comes back must do so within the pauses between a few of them.
    let server = Prometheus::start("").await;
    let spec = spec(&format!("http://{address}"), json!({}));
    let world = world(&spec);
    let work = run_in(&world, &spec);
    let come_back = async {
        // The first refusal stands in the log before anything listens; then the port leads to a real server.
        until("the first refusal", Duration::from_secs(20), async || {
            world.logs.everything().contains("failed query 1 of 4").then_some(())
        })
        .await;
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let forward = async {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut upstream = tokio::net::TcpStream::connect(server.address).await.unwrap();
                let _end = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            }
        };
        let never: () = forward.await;
        never
    };
    let result = tokio::select! {
        result = work => result,
        () = come_back => panic!("the forwarder ended"),
    };
    result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
}

#[tokio::test]
async fn a_restarted_agent_goes_on_with_the_same_window() {
    let server = Prometheus::start("").await;
    let spec = spec(&server.url(""), json!({}));
    let world = world(&spec);
    let (handle, cx) = world.context();
    let first = executor();
    let drain = async {
        until("a query", Duration::from_secs(20), async || {
            server.queries().contains("vector(1)").then_some(())
        })
        .await;
        handle.cancel(CancelReason::Drain, CancelStage::Ask);
    };
    let (result, ()) = tokio::join!(first.run(&spec, &cx), drain);
    assert_eq!(result.unwrap_err().class, Class::Cancelled { reason: CancelReason::Drain });
    world.restart();
    assert_eq!(executor().recover(&spec, &world.context().1).await.unwrap(), Recovery::Running);
    let output = run_in(&world, &spec).await.unwrap();
    let history = world.marks.history();
    assert_eq!(history.len(), 1);
    assert_eq!(output.outputs["windowStart"].value, history[0].state["startMs"]);
    assert_eq!(output.outputs["series"].value.as_array().unwrap().len(), 9);
}

#[tokio::test]
async fn host_aliases_lead_to_the_server() {
    let server = Prometheus::start("").await;
    let spec = spec("http://prometheus.test:9090", json!({}));
    let mut world = world(&spec);
    world.aliases =
        Arc::new(HostAliases::new([("prometheus.test:9090".to_owned(), server.address.to_string())]));
    run_in(&world, &spec).await.unwrap();
    assert!(world.logs.everything().contains("host alias: prometheus.test:9090 is reached at 127.0.0.1:"));
}

#[tokio::test]
async fn certificates_are_checked_against_name_and_authority() {
    let (server, ca_pem) = Prometheus::start_tls("good.test").await;
    let trusting = VerifyExecutor::new(Config { ca_pem, ..Config::default() }, peer::aws()).unwrap();
    for (name, executor, code) in [
        ("good.test", &trusting, None),
        ("bad.test", &trusting, Some("VER-009")),
        ("good.test", &executor(), Some("VER-009")),
    ] {
        let spec = spec(&format!("https://{name}"), json!({}));
        let mut world = world(&spec);
        world.aliases = Arc::new(HostAliases::new([(format!("{name}:443"), server.address.to_string())]));
        let (_handle, cx) = world.context();
        let result = executor.run(&spec, &cx).await;
        assert_eq!(result.as_ref().err().map(|error| error.code), code, "{name}: {result:?}");
    }
}

#[tokio::test]
async fn without_a_health_source_the_step_is_skipped() {
    let spec = spec("http://unused", json!({"provider": null}));
    let world = world(&spec);
    let output = run_in(&world, &spec).await.unwrap();
    assert!(output.skipped && output.notices.len() == 1);
    assert_eq!(world.logs.statuses(UNIT), [UnitStatus::Running, UnitStatus::Skipped]);
}

#[tokio::test]
async fn a_connector_is_tested_in_stages() {
    let server = Prometheus::start("").await;
    let test = async |url: &str, password: &str| {
        let spec = spec(url, json!({}));
        let world = world(&spec);
        let connector = json!({"identifier": "prom", "url": url,
            "auth": {"type": "UsernamePassword", "username": USER, "password": password}});
        let (_handle, cx) = world.context();
        executor().test(&serde_json::from_value(connector).unwrap(), &cx).await
    };
    let good = test(&server.url(""), "org.prom").await;
    assert!(good.len() == 2 && good.iter().all(|stage| stage.ok), "{good:?}");
    for (url, password, stages, code) in [
        (server.url(""), "org.wrong", 2, "VER-006"),
        (server.url(""), "org.nowhere", 1, "VER-010"),
        (format!("http://{}", free()), "org.prom", 2, "VER-004"),
    ] {
        let bad = test(&url, password).await;
        let last = bad.last().unwrap();
        assert!(bad.len() == stages && !last.ok && last.message.starts_with(code), "{bad:?}");
    }
}

/// Every code of this crate has a page.
#[test]
fn every_code_has_a_page() {
    let source = include_str!("../src/error.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
    let mut codes: Vec<&str> =
        source.split('"').filter(|text| text.starts_with("VER-") && text.len() == 7).collect();
    codes.dedup();
    assert_eq!(codes.len(), 14);
    for code in codes {
        let page = std::fs::read_to_string(format!("{folder}/{code}.md")).unwrap_or_default();
        assert!(page.starts_with(&format!("# {code}")), "{code} has no page");
    }
}

struct Kit {
    server: Prometheus,
}

fn case(spec: VerifySpec) -> Case<VerifySpec> {
    Case { task: task(&spec), spec }
}

impl Kit {
    fn keyed(&self, key: &str, more: Value) -> Case<VerifySpec> {
        let query = format!("label_replace(vector(1),\"key\",\"{key}\",\"\",\"\")");
        let mut all = json!({"query": query});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        case(spec(&self.server.url(""), all))
    }
}

impl Harness for Kit {
    type Executor = VerifyExecutor;

    fn executor(&self, _probe: Arc<dyn TransportProbe>) -> VerifyExecutor {
        executor()
    }

    fn succeeding(&self, key: &str) -> Case<VerifySpec> {
        self.keyed(key, json!({}))
    }

    fn lasting(&self, key: &str) -> Option<Case<VerifySpec>> {
        Some(self.keyed(key, json!({"durationMs": 3_600_000_u64 * 24})))
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.server.queries().contains(key) })
    }

    fn effects<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async { None })
    }

    fn left_behind<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { vec![] })
    }

    fn errors(&self) -> Vec<ErrorCase<VerifySpec>> {
        let url = self.server.url("");
        let one = |name: &str, url: &str, more: Value, kind, code| ErrorCase {
            name: name.into(),
            case: case(spec(url, more)),
            kind,
            code,
        };
        let with = |user: &str, password: &str| {
            json!({"provider": {"type": "Prometheus", "connector": {"identifier": "prom", "url": url, "auth":
                {"type": "UsernamePassword", "username": user, "password": password}}}})
        };
        vec![
            one("bad spec", &url, json!({"query": ""}), FailureKind::BadSpec, "VER-001"),
            one("violated", &url, json!({"query": "vector(11)"}), FailureKind::Verification, "VER-002"),
            one("no data", &url, json!({"query": "nothing"}), FailureKind::Verification, "VER-003"),
            one("refused", &format!("http://{}", free()), json!({}), FailureKind::Connectivity, "VER-004"),
            one("no PromQL", &url, json!({"query": "sum("}), FailureKind::BadSpec, "VER-005"),
            one("wrong password", &url, with(USER, "org.wrong"), FailureKind::Authentication, "VER-006"),
            one("several series", &url, json!({"query": "{job=\"self\"}"}), FailureKind::BadSpec, "VER-007"),
            one("no API", &format!("{url}/graph"), json!({}), FailureKind::RemoteFailed, "VER-008"),
            one("no secret", &url, with(USER, "org.nowhere"), FailureKind::BadSpec, "VER-010"),
        ]
    }

    fn planted(&self) -> Vec<(String, String)> {
        planted()
    }

    fn prepare(&self, world: &mut World) {
        world.secrets = Arc::new(FixedSecrets::new(SECRET_TOKEN, planted()));
    }
}

#[tokio::test]
async fn conformance() {
    let kit = Kit { server: Prometheus::start("").await };
    // The live series must be there before the case that counts on several of them.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    until("the server scrapes itself", Duration::from_secs(10), async || {
        let asked =
            client.get(kit.server.url("/api/v1/series?match[]=up")).basic_auth(USER, Some(PASSWORD)).send();
        asked.await.unwrap().text().await.unwrap().contains("__name__").then_some(())
    })
    .await;
    conformance::run(&kit).await;
}
