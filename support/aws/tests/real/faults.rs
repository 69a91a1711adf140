//! Faults on the way: throttling, 5xx, silence, lost connections, expired credentials, a wrong clock, cancellation.

use crate::peers::{Haproxy, Reply, Tap, shared};
use crate::{account, client, environment, inheriting, world};
use aws::{Client, Fault, Operation, Repeat, Service, Session, Settings};
use executor_api::testing::{ManualClock, Marks, World, until};
use executor_api::{CancelReason, CancelStage, Class};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const LIST: Operation = Service::Ecs.op("ListClusters");
const CREATE: Operation = Service::Ecs.op("CreateCluster");
const REGISTER: Operation = Service::Ecs.op("RegisterTaskDefinition");
const OK: (u16, &str) = (200, "application/x-amz-json-1.1");

fn patient(seconds: u64) -> Settings {
    Settings { patience: Duration::from_secs(seconds), ..Settings::default() }
}

fn ok(body: &str) -> Reply {
    Reply::Answer(OK.0, OK.1, body.to_owned())
}

async fn create(session: &Session, marks: &Marks, repeat: Repeat) -> Result<serde_json::Value, Fault> {
    session.change(marks, "create c", CREATE, json!({"clusterName": "c"}), repeat).await
}

async fn open(world: &World, client: &Client, url: &str) -> Session {
    client.session(&account(url), &world.context().1).await.unwrap()
}

#[tokio::test]
async fn throttling_is_waited_out_and_the_probe_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let rule = Haproxy::refuse(
        400,
        "ThrottlingException",
        "{ hdr(x-amz-target) -m end CreateCluster } { sc_http_req_cnt(0) le 2 }",
    );
    let haproxy = Haproxy::start(dir.path(), &[rule], None, shared()).await;
    let (world, client) = (world(), client(patient(60)));
    let session = open(&world, &client, &haproxy.url()).await;
    let made = create(&session, &world.marks, Repeat::OnlyIfNotReached).await.unwrap();
    assert_eq!(made["cluster"]["clusterName"], "c");
    assert_eq!(world.marks.calls(), ["create c"]);
    assert_eq!(client.sent(), 3);
}

#[tokio::test]
async fn throttling_without_end_is_a_failure_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let haproxy = Haproxy::start(dir.path(), &[Haproxy::refuse(429, "", "TRUE")], None, 1).await;
    let (world, client) = (world(), client(patient(1)));
    let session = open(&world, &client, &haproxy.url()).await;
    let error = session.read(LIST, json!({})).await.unwrap_err().step("list clusters", &session);
    assert_eq!((error.code, error.class), ("AWS-009", Class::Throttled { retry_after: None }));
    assert!(client.sent() >= 2);
}

#[tokio::test]
async fn a_5xx_is_repeated_only_where_that_is_safe() {
    let dir = tempfile::tempdir().unwrap();
    let rule =
        "http-request return status 503 content-type text/plain string oops if { sc_http_req_cnt(0) le 2 }";
    let haproxy = Haproxy::start(dir.path(), &[rule.to_owned()], None, shared()).await;
    let (world, client) = (world(), client(patient(60)));
    let session = open(&world, &client, &haproxy.url()).await;
    let fault = create(&session, &world.marks, Repeat::OnlyIfNotReached).await.unwrap_err();
    assert!(fault.is_unanswered(), "{fault:?}");
    assert_eq!((client.sent(), fault.step("create", &session).code), (1, "AWS-014"));
    create(&session, &world.marks, Repeat::Safe).await.unwrap();
    session.read(LIST, json!({})).await.unwrap();
    assert_eq!(client.sent(), 1 + 2 + 3);
    assert_eq!(world.marks.calls(), ["create c", "create c"]);
}

#[tokio::test]
async fn silence_ends_with_the_limit_of_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let rule = "http-request silent-drop if { hdr(x-amz-target) -m end ListClusters }".to_owned();
    let haproxy = Haproxy::start(dir.path(), &[rule], None, 1).await;
    let settings =
        Settings { request_timeout: Duration::from_secs(1), patience: Duration::ZERO, ..Settings::default() };
    let (world, client) = (world(), client(settings));
    let session = open(&world, &client, &haproxy.url()).await;
    let fault = session.read(LIST, json!({})).await.unwrap_err();
    assert!(matches!(fault, Fault::Timeout(limit) if limit == Duration::from_secs(1)), "{fault:?}");
    assert_eq!(fault.step("list clusters", &session).code, "AWS-010");
}

#[tokio::test]
async fn a_lost_connection_is_repeated_only_where_that_is_safe() {
    let tap = Tap::start(|_, before| if before < 2 { Reply::Cut } else { ok("{}") }).await;
    let (world, client) = (world(), client(patient(60)));
    let session = open(&world, &client, &tap.url()).await;
    let fault = create(&session, &world.marks, Repeat::OnlyIfNotReached).await.unwrap_err();
    assert!(matches!(fault, Fault::Connection { reached: true, .. }), "{fault:?}");
    assert_eq!(tap.seen().len(), 1);
    create(&session, &world.marks, Repeat::Safe).await.unwrap();
    assert_eq!(tap.seen().len(), 3);
    assert_eq!(world.marks.calls(), ["create c", "create c"]);
}

#[tokio::test]
async fn nobody_there_is_waited_for_even_with_a_change_that_is_not_safe() {
    let port = executor_api::testing::free_port();
    let (world, client) = (world(), client(patient(1)));
    let session = open(&world, &client, &format!("http://127.0.0.1:{port}")).await;
    let fault = create(&session, &world.marks, Repeat::OnlyIfNotReached).await.unwrap_err();
    assert!(matches!(fault, Fault::Connection { reached: false, .. }), "{fault:?}");
    assert!(client.sent() >= 2);
    assert_eq!(world.marks.calls(), ["create c"]);
    assert_eq!(fault.step("create", &session).code, "AWS-007");
}

#[tokio::test]
async fn what_is_not_aws_is_told_so() {
    let tap = Tap::start(|one, _| {
        if one.header("x-amz-target").is_some_and(|target| target.ends_with("ListClusters")) {
            Reply::Answer(200, "text/html", "<html>log in</html>".into())
        } else {
            Reply::Answer(302, "text/html", String::new())
        }
    })
    .await;
    let (world, client) = (world(), client(patient(60)));
    let session = open(&world, &client, &tap.url()).await;
    for operation in [LIST, REGISTER] {
        let fault = session.read(operation, json!({})).await.unwrap_err();
        assert_eq!(fault.step("list", &session).code, "AWS-011");
    }
    assert_eq!(client.sent(), 2);
}

#[tokio::test]
async fn a_list_that_begins_again_is_refused() {
    let tap = Tap::start(|_, before| {
        ok(&json!({"clusterArns": [before], "nextToken": format!("t{}", before % 2)}).to_string())
    })
    .await;
    let (world, client) = (world(), client(patient(60)));
    let session = open(&world, &client, &tap.url()).await;
    let fault = session.pages(LIST, json!({}), "clusterArns").await.unwrap_err();
    assert!(matches!(fault, Fault::Strange(_)), "{fault:?}");
    assert_eq!(tap.seen().len(), 3);
    assert!(tap.seen()[1].body.contains("\"nextToken\":\"t0\""));
}

#[tokio::test]
async fn expired_credentials_are_renewed_once_and_the_call_repeated() {
    // The container's credentials: the first set counts as expired with the service, the second is good.
    let source = Tap::start(|_, before| {
        let keys = json!({"AccessKeyId": format!("ASIA{before}"), "SecretAccessKey": "secret-of-a-task", "Token": format!("token-{before}"),
            "Expiration": "2100-01-01T00:00:00Z"});
        Reply::Answer(200, "application/json", keys.to_string())
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let rule = Haproxy::refuse(400, "ExpiredTokenException", "{ hdr(x-amz-security-token) token-0 }");
    let haproxy = Haproxy::start(dir.path(), &[rule], None, shared()).await;
    let agent = environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/creds", source.url()))]);
    let (world, client) = (world(), client(Settings { environment: agent, ..patient(60) }));
    let session = client.session(&inheriting(&haproxy.url()), &world.context().1).await.unwrap();
    create(&session, &world.marks, Repeat::OnlyIfNotReached).await.unwrap();
    assert_eq!((source.seen().len(), client.sent()), (2, 2));
    assert_eq!(world.marks.calls(), ["create c"]);
    let masked = world.secrets.masked();
    assert!(
        ["secret-of-a-task", "token-0", "token-1"].iter().all(|one| masked.contains(&(*one).to_owned())),
        "{masked:?}"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_renewed_fail_as_expired() {
    let dir = tempfile::tempdir().unwrap();
    let haproxy =
        Haproxy::start(dir.path(), &[Haproxy::refuse(400, "ExpiredTokenException", "TRUE")], None, 1).await;
    let (world, client) = (world(), client(patient(60)));
    let session = open(&world, &client, &haproxy.url()).await;
    let error = session.read(LIST, json!({})).await.unwrap_err().step("list", &session);
    assert_eq!((error.code, error.class, client.sent()), ("AWS-004", Class::Authentication, 2));
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_once_by_the_servers_time() {
    let dir = tempfile::tempdir().unwrap();
    // The test's clock stands at midnight; the server's at one o'clock.
    let rule = "http-request return status 403 content-type application/x-amz-json-1.1 \
        string '{\"__type\":\"RequestTimeTooSkewed\",\"message\":\"x\"}' hdr Date 'Thu, 01 Jan 2026 01:00:00 GMT' \
        if !{ hdr(x-amz-date) -m beg 20260101T01 }";
    let haproxy = Haproxy::start(dir.path(), &[rule.to_owned()], None, shared()).await;
    let mut world = world();
    world.clock = Arc::new(ManualClock::new());
    let client = client(patient(60));
    let session = open(&world, &client, &haproxy.url()).await;
    create(&session, &world.marks, Repeat::OnlyIfNotReached).await.unwrap();
    assert_eq!(client.sent(), 2);
    assert!(session.notes().iter().any(|line| line.contains("differs from AWS' by 3600 s")));
    // Later calls, also of other steps, know it.
    open(&world, &client, &haproxy.url()).await.read(LIST, json!({})).await.unwrap();
    assert_eq!(client.sent(), 3);
}

#[tokio::test]
async fn a_refusal_for_time_without_a_difference_is_not_repeated() {
    let tap =
        Tap::start(|_, _| Reply::Answer(403, OK.1, "{\"__type\":\"RequestTimeTooSkewed\"}".into())).await;
    let (world, client) = (world(), client(patient(60)));
    let session = open(&world, &client, &tap.url()).await;
    let error = session.read(LIST, json!({})).await.unwrap_err().step("list", &session);
    assert_eq!((error.code, client.sent()), ("AWS-015", 1));
}

#[tokio::test]
async fn steps_at_the_same_time_share_one_bucket() {
    let tap = Tap::start(|_, _| ok("{\"taskDefinition\":{}}")).await;
    let clock = ManualClock::new();
    let mut world = world();
    world.clock = Arc::new(clock.clone());
    let client = client(patient(60));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..23 {
        // Each step has a session of its own; the account is one.
        let session = open(&world, &client, &tap.url()).await;
        let marks = world.marks.clone();
        calls.spawn(async move { session.change(&marks, "r", REGISTER, json!({}), Repeat::Safe).await });
    }
    let sent = async |count: u64| {
        until("calls are sent", LIMIT, async || (client.sent() == count).then_some(())).await
    };
    sent(20).await;
    clock.wait_for_sleeper(Duration::from_secs(3)).await;
    for more in 21..=23 {
        clock.advance(Duration::from_secs(1));
        sent(more).await;
    }
    while let Some(ended) = calls.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!(tap.seen().len(), 23);
}

#[tokio::test]
async fn reads_end_when_asked_changes_when_killed_and_undoing_goes_on_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let rules = ["ListClusters", "CreateCluster"]
        .map(|name| format!("http-request silent-drop if {{ hdr(x-amz-target) -m end {name} }}"));
    let haproxy = Haproxy::start(dir.path(), &rules, None, shared()).await;
    let (world, client) = (world(), client(patient(60)));
    let (handle, cx) = world.context();
    let session = client.session(&account(&haproxy.url()), &cx).await.unwrap();
    let sent = async |count: u64| {
        until("calls are sent", LIMIT, async || (client.sent() == count).then_some(())).await
    };
    let (reader, changer, marks) = (session.clone(), session.clone(), world.marks.clone());
    let read = tokio::spawn(async move { reader.read(LIST, json!({})).await });
    let change = tokio::spawn(async move { create(&changer, &marks, Repeat::Safe).await });
    sent(2).await;
    handle.cancel(CancelReason::User, CancelStage::Ask);
    let fault = read.await.unwrap().unwrap_err();
    assert!(matches!(fault, Fault::Cancelled(CancelReason::User)), "{fault:?}");
    // Nothing new is sent, but what is to be put back is.
    let fault = create(&session, &world.marks, Repeat::Safe).await.unwrap_err();
    assert!(matches!(fault, Fault::Cancelled(_)), "{fault:?}");
    let undo = session.for_undo(Duration::from_secs(60));
    let input = json!({"family": "f", "containerDefinitions": [{"name": "c", "image": "i", "memory": 64}]});
    undo.change(&world.marks, "undo", REGISTER, input, Repeat::Safe).await.unwrap();
    assert!(!change.is_finished());
    handle.cancel(CancelReason::User, CancelStage::Kill);
    assert!(matches!(change.await.unwrap(), Err(Fault::Cancelled(_))));
    assert!(matches!(undo.read(LIST, json!({})).await, Err(Fault::Cancelled(_))));
    assert_eq!((client.sent(), world.marks.calls()), (3, vec!["create c".to_owned(), "undo".to_owned()]));
}

#[tokio::test]
async fn a_pause_ends_when_asked() {
    let tap = Tap::start(|_, _| Reply::Answer(503, "text/plain", String::new())).await;
    let clock = ManualClock::new();
    let mut world = world();
    world.clock = Arc::new(clock.clone());
    let client = client(patient(60));
    let (handle, cx) = world.context();
    let session = client.session(&account(&tap.url()), &cx).await.unwrap();
    let read = tokio::spawn(async move { session.read(LIST, json!({})).await });
    until("the call was refused", LIMIT, async || (client.sent() == 1).then_some(())).await;
    handle.cancel(CancelReason::Deadline, CancelStage::Ask);
    assert!(matches!(read.await.unwrap(), Err(Fault::Cancelled(CancelReason::Deadline))));
}
