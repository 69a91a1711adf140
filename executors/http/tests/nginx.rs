//! The Http step against a real nginx: TLS, aliases, redirects, retries, limits, cancellation, and the conformance kit.

#![expect(clippy::unwrap_used, reason = "A test ends at the first surprise.")]

mod peer;

use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_api::testing::{FixedSecrets, World};
use executor_api::{
    CancelReason, CancelStage, Class, Executor, HostAliases, Recovery, StepError, StepOutput, TransportProbe,
};
use executor_http::{Config, HttpExecutor, UNIT};
use futures::future::BoxFuture;
use peer::{NAME, Nginx};
use proto::failure::FailureKind;
use proto::result::UnitStatus;
use proto::task::{HttpSpec, Step, StepSpec, StepTask};
use proto::text::{SecretRef, placeholder};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const SECRET_TOKEN: i64 = 4711;

fn spec(value: Value) -> HttpSpec {
    serde_json::from_value(value).unwrap()
}

fn task(spec: &HttpSpec) -> StepTask {
    StepTask {
        secret_token: SECRET_TOKEN,
        ..StepTask::of(Step {
            identifier: "call".into(),
            name: "Call".into(),
            spec: StepSpec::Http(spec.clone()),
        })
    }
}

fn config(nginx: &Nginx) -> Config {
    Config {
        ca_pem: nginx.ca.clone(),
        max_body_bytes: 100_000,
        retry_pauses: vec![Duration::from_millis(5); 2],
        ..Config::default()
    }
}

fn world(nginx: &Nginx, spec: &HttpSpec) -> World {
    let mut world = World::new("t1", task(spec), [("org.key".to_owned(), "s3cret-value".to_owned())]);
    world.aliases = Arc::new(nginx.aliases());
    world
}

async fn run_in(nginx: &Nginx, world: &World, spec: &HttpSpec) -> Result<StepOutput, StepError> {
    let executor = HttpExecutor::with_probe(config(nginx), Arc::new(world.marks.clone())).unwrap();
    let (_handle, cx) = world.context();
    executor.check(spec, &cx).unwrap();
    executor.run(spec, &cx).await
}

async fn run(nginx: &Nginx, value: Value) -> (World, Result<StepOutput, StepError>) {
    let spec = spec(value);
    let world = world(nginx, &spec);
    let result = run_in(nginx, &world, &spec).await;
    (world, result)
}

#[tokio::test]
async fn a_health_check_over_tls_with_an_alias() {
    let nginx = Nginx::start().await;
    let (world, result) = run(
        &nginx,
        json!({"url": format!("https://{NAME}/ok"), "method": "get",
               "assertion": "<+json.select(\"status\", <+httpResponseBody>)> == \"UP\"",
               "outputVariables": [{"name": "n", "value": "<+json.select(\"n\", <+httpResponseBody>)>"}]}),
    )
    .await;
    let output = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(output.outputs["outputVariables.n"].value, 3);
    assert!(world.logs.everything().contains("host alias: good.test:443 is reached at 127.0.0.1:"));
    assert_eq!(world.logs.statuses(UNIT), [UnitStatus::Running, UnitStatus::Success]);
    let answered = nginx.answered().await;
    assert!(answered.contains("GET /ok host=good.test auth="), "{answered}");
    assert_eq!(world.marks.count(), 0, "a safe request needs no checkpoint");
}

#[tokio::test]
async fn a_certificate_is_checked_against_name_and_authority() {
    let nginx = Nginx::start().await;
    let (_, wrong_name) = run(&nginx, json!({"url": "https://bad.test/ok", "method": "GET"})).await;
    let error = wrong_name.unwrap_err();
    assert_eq!((error.code, error.class), ("HTTP-004", Class::Connectivity), "{error}");
    assert!(error.to_string().contains("good.test"), "{error}");

    let spec = spec(json!({"url": format!("https://{NAME}/ok"), "method": "GET"}));
    let world = world(&nginx, &spec);
    let stranger = HttpExecutor::new(Config::default()).unwrap();
    let error = stranger.run(&spec, &world.context().1).await.unwrap_err();
    assert_eq!(error.code, "HTTP-004", "{error}");
    assert_eq!(nginx.answered().await, "");
}

#[tokio::test]
async fn redirects_are_followed_within_their_rules() {
    let nginx = Nginx::start().await;
    let token = placeholder(&SecretRef("org.key".into()), SECRET_TOKEN);
    let get = |path: &str| json!({"url": nginx.url(path), "method": "GET", "headers": [["X-Key", token], ["Authorization", "b"]]});
    run(&nginx, get("/moved")).await.1.unwrap();
    let answered = nginx.answered().await;
    assert!(answered.contains("GET /ok host=127.0.0.1"), "{answered}");
    assert!(answered.lines().last().unwrap().contains("auth=b key=s3cret-value"), "{answered}");

    run(&nginx, get("/away")).await.1.unwrap();
    let last = nginx.answered().await;
    let last = last.lines().last().unwrap();
    assert!(last.contains("host=localhost") && last.contains("auth=- key=-"), "{last}");

    let error = run(&nginx, get("/loop")).await.1.unwrap_err();
    assert_eq!(error.code, "HTTP-010", "{error}");
    let clear = json!({"url": format!("https://{NAME}/clear"), "method": "GET"});
    let error = run(&nginx, clear).await.1.unwrap_err();
    assert_eq!(error.code, "HTTP-010", "{error}");

    let post = json!({"url": nginx.url("/kept"), "method": "POST", "requestBody": "x", "body": "x"});
    let (world, result) = run(&nginx, post).await;
    assert_eq!(result.unwrap().outputs["httpResponseCode"].value, 201);
    assert!(nginx.answered().await.contains("POST /effects/kept"));
    assert_eq!(world.marks.calls().len(), 2);
    assert!(world.marks.unannounced().is_empty());
}

#[tokio::test]
async fn statuses_have_their_classes_and_their_evidence() {
    let nginx = Nginx::start().await;
    for (status, class) in [
        (401, Class::Authentication),
        (403, Class::Authorization),
        (429, Class::Throttled { retry_after: Some(Duration::from_secs(7)) }),
        (503, Class::RemoteFailed { code: 503 }),
    ] {
        let path = format!("/status/{status}");
        let (world, result) = run(&nginx, json!({"url": nginx.url(&path), "method": "GET"})).await;
        let error = result.unwrap_err();
        assert_eq!((error.code, error.class), ("HTTP-007", class), "{error}");
        assert_eq!(world.logs.statuses(UNIT), [UnitStatus::Running, UnitStatus::Failure]);
        if status == 503 {
            assert!(world.logs.everything().contains("maintenance until noon"));
        }
        let wanted = format!("<+httpResponseCode> == {status}");
        let asserted = json!({"url": nginx.url(&path), "method": "GET", "assertion": wanted});
        run(&nginx, asserted).await.1.unwrap();
    }
}

#[tokio::test]
async fn a_lost_connection_is_tried_again_only_where_that_does_no_harm() {
    let nginx = Nginx::start().await;
    for (method, wanted) in [("GET", 3), ("PUT", 3), ("POST", 1), ("PATCH", 1)] {
        let before = nginx.answered().await.lines().count();
        let (world, result) = run(&nginx, json!({"url": nginx.url("/cut"), "method": method})).await;
        let error = result.unwrap_err();
        assert_eq!((error.code, error.class), ("HTTP-003", Class::Connectivity), "{error}");
        assert_eq!(error.to_string().contains("is unknown"), method != "GET", "{error}");
        assert_eq!(nginx.answered().await.lines().count() - before, wanted, "{method}");
        assert!(world.marks.calls().len() <= 1);
    }
}

#[tokio::test]
async fn a_refused_post_was_not_sent_and_is_tried_again() {
    let nginx = Nginx::start().await;
    let closed = peer::free();
    let (world, result) = run(&nginx, json!({"url": format!("http://{closed}/"), "method": "POST"})).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, "HTTP-003");
    assert!(!error.to_string().contains("is unknown"), "{error}");
    assert_eq!(world.logs.everything().matches("trying again").count(), 2);
}

#[tokio::test]
async fn the_request_has_its_own_limit() {
    let nginx = Nginx::start().await;
    let started = tokio::time::Instant::now();
    let slow = json!({"url": nginx.url("/lasting/limit"), "method": "GET", "timeoutMs": 200});
    let error = run(&nginx, slow).await.1.unwrap_err();
    assert_eq!((error.code, error.class), ("HTTP-005", Class::Timeout), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_long_body_is_cut_with_a_notice() {
    let nginx = Nginx::start().await;
    let (_, result) = run(&nginx, json!({"url": nginx.url("/long"), "method": "GET"})).await;
    let output = result.unwrap();
    assert_eq!(output.outputs["httpResponseBody"].value.as_str().unwrap().len(), 100_000);
    assert_eq!(output.notices.len(), 1);
}

#[tokio::test]
async fn metadata_endpoints_are_refused_in_every_notation() {
    let nginx = Nginx::start().await;
    for url in
        ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://[::ffff:a9fe:a9fe]/"]
    {
        let error = run(&nginx, json!({"url": url, "method": "GET"})).await.1.unwrap_err();
        assert_eq!((error.code, error.class), ("HTTP-006", Class::Authorization), "{url}: {error}");
    }
}

#[tokio::test]
async fn an_answered_post_is_collected_and_not_sent_again() {
    let nginx = Nginx::start().await;
    let spec = spec(json!({"url": nginx.url("/effects/once"), "method": "POST", "body": "{}"}));
    let world = world(&nginx, &spec);
    let first = run_in(&nginx, &world, &spec).await.unwrap();
    world.restart();
    let executor = HttpExecutor::new(config(&nginx)).unwrap();
    assert_eq!(executor.recover(&spec, &world.context().1).await.unwrap(), Recovery::Ended(201));
    assert_eq!(run_in(&nginx, &world, &spec).await.unwrap().outputs, first.outputs);
    assert_eq!(nginx.answered().await.matches("POST /effects/once").count(), 1);
}

#[tokio::test]
async fn aliases_for_addresses_work_without_tls() {
    let nginx = Nginx::start().await;
    let spec = spec(json!({"url": "http://192.0.2.7:8080/ok", "method": "GET"}));
    let mut world = world(&nginx, &spec);
    world.aliases = Arc::new(HostAliases::new([("192.0.2.7:8080".to_owned(), nginx.http.to_string())]));
    run_in(&nginx, &world, &spec).await.unwrap();
    let answered = nginx.answered().await;
    assert!(answered.contains("host=192.0.2.7:8080"), "{answered}");
}

#[tokio::test]
async fn a_cancel_in_the_middle_of_a_post_says_that_its_fate_is_unknown() {
    let nginx = Nginx::start().await;
    let spec = spec(json!({"url": nginx.url("/lasting/post"), "method": "PATCH"}));
    // A listener that takes the connection and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spec = HttpSpec { url: format!("http://{}/", silent.local_addr().unwrap()).into(), ..spec };
    let world = world(&nginx, &spec);
    let executor = HttpExecutor::with_probe(config(&nginx), Arc::new(world.marks.clone())).unwrap();
    let (handle, cx) = world.context();
    let cancel = async {
        let (connection, _) = silent.accept().await.unwrap();
        // The request is under way, so nobody can say what becomes of it.
        connection.readable().await.unwrap();
        handle.cancel(CancelReason::User, CancelStage::Ask);
        // It stays open until the executor has given it up by itself.
        connection
    };
    let (result, _connection) = tokio::join!(executor.run(&spec, &cx), cancel);
    let error = result.unwrap_err();
    assert_eq!(error.class, Class::Cancelled { reason: CancelReason::User });
    assert!(error.to_string().contains("is unknown"), "{error}");
    let found = executor.recover(&spec, &world.context().1).await.unwrap();
    assert!(matches!(found, Recovery::Vanished { .. }), "{found:?}");
}

/// Every code of this crate has a page.
#[test]
fn every_code_has_a_page() {
    let source = include_str!("../src/error.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
    let mut codes: Vec<&str> =
        source.split('"').filter(|text| text.starts_with("HTTP-") && text.len() == 8).collect();
    codes.dedup();
    assert_eq!(codes.len(), 16);
    for code in codes {
        let page = std::fs::read_to_string(format!("{folder}/{code}.md")).unwrap_or_default();
        assert!(page.starts_with(&format!("# {code}")), "{code} has no page");
    }
}

struct Kit {
    nginx: Nginx,
    refused: String,
}

fn case(value: Value) -> Case<HttpSpec> {
    let spec = spec(value);
    Case { task: task(&spec), spec }
}

impl Harness for Kit {
    type Executor = HttpExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> HttpExecutor {
        HttpExecutor::with_probe(config(&self.nginx), probe).unwrap()
    }

    fn succeeding(&self, key: &str) -> Case<HttpSpec> {
        let secret = placeholder(&SecretRef("org.key".into()), SECRET_TOKEN);
        case(json!({"url": format!("https://{NAME}/effects/{key}?q={secret}"), "method": "POST",
                    "headers": [["X-Key", secret]], "body": secret,
                    "assertion": "<+httpResponseCode> == 201"}))
    }

    fn lasting(&self, key: &str) -> Option<Case<HttpSpec>> {
        Some(case(json!({"url": self.nginx.url(&format!("/lasting/{key}")), "method": "GET"})))
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.nginx.begun().contains(&format!("/lasting/{key}")) })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move {
            Some(self.nginx.answered().await.matches(&format!("POST /effects/{key}?")).count())
        })
    }

    fn left_behind<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { vec![] })
    }

    fn errors(&self) -> Vec<ErrorCase<HttpSpec>> {
        let get = |name: &str, value: Value, kind, code| ErrorCase {
            name: name.into(),
            case: case(value),
            kind,
            code,
        };
        let url = |path: &str| json!({"url": self.nginx.url(path), "method": "GET"});
        let with = |path: &str, more: Value| {
            let mut value = url(path);
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            value
        };
        // Longer than a label may be: refused by the resolver without asking a server.
        let nobody = format!("http://{}/", "a".repeat(64));
        let missing = placeholder(&SecretRef("nowhere".into()), SECRET_TOKEN);
        vec![
            get("bad spec", json!({"url": "x", "method": "FETCH"}), FailureKind::BadSpec, "HTTP-001"),
            get(
                "unknown host",
                json!({"url": nobody, "method": "GET"}),
                FailureKind::Connectivity,
                "HTTP-002",
            ),
            get(
                "refused",
                json!({"url": self.refused, "method": "GET"}),
                FailureKind::Connectivity,
                "HTTP-003",
            ),
            get("cut", url("/cut"), FailureKind::Connectivity, "HTTP-003"),
            get(
                "wrong name",
                json!({"url": "https://bad.test/", "method": "GET"}),
                FailureKind::Connectivity,
                "HTTP-004",
            ),
            get("slow", with("/lasting/e", json!({"timeoutMs": 100})), FailureKind::Timeout, "HTTP-005"),
            get(
                "metadata",
                json!({"url": "http://169.254.169.254/", "method": "GET"}),
                FailureKind::Authorization,
                "HTTP-006",
            ),
            get("401", url("/status/401"), FailureKind::Authentication, "HTTP-007"),
            get("403", url("/status/403"), FailureKind::Authorization, "HTTP-007"),
            get("429", url("/status/429"), FailureKind::Throttled, "HTTP-007"),
            get("503", url("/status/503"), FailureKind::RemoteFailed, "HTTP-007"),
            get(
                "assertion",
                with("/ok", json!({"assertion": "<+httpResponseCode> == 201"})),
                FailureKind::RemoteFailed,
                "HTTP-008",
            ),
            get(
                "no boolean",
                with("/ok", json!({"assertion": "<+httpResponseCode>"})),
                FailureKind::BadSpec,
                "HTTP-009",
            ),
            get("loop", url("/loop"), FailureKind::RemoteFailed, "HTTP-010"),
            get(
                "long",
                with("/long", json!({"assertion": "<+httpResponseBody> != \"\""})),
                FailureKind::RemoteFailed,
                "HTTP-011",
            ),
            get(
                "no secret",
                with("/ok", json!({"headers": [["X", missing]]})),
                FailureKind::BadSpec,
                "HTTP-012",
            ),
            get(
                "no output",
                with("/ok", json!({"outputVariables": [{"name": "a", "value": "<+no.such>"}]})),
                FailureKind::BadSpec,
                "HTTP-016",
            ),
        ]
    }

    fn planted(&self) -> Vec<(String, String)> {
        vec![("org.key".to_owned(), "pl4nted-secret".to_owned())]
    }

    fn prepare(&self, world: &mut World) {
        world.aliases = Arc::new(self.nginx.aliases());
        world.secrets = Arc::new(FixedSecrets::new(SECRET_TOKEN, self.planted()));
    }
}

#[tokio::test]
async fn conformance() {
    let closed = peer::free();
    let kit = Kit { nginx: Nginx::start().await, refused: format!("http://{closed}/") };
    conformance::run(&kit).await;
}
