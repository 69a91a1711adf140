//! The agent's loop against a scripted manager over real HTTP.

mod scripted;

use scripted::{Agent, Manager, unit_key};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_acquired_run_logged_and_answered() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    manager.noop("t1", "hello");
    let agent = Agent::start(&manager, data.path(), &[]);
    let answer = manager.answer("t1").await;
    assert_eq!(answer["code"], "OK");
    assert_eq!(answer["data"]["status"], "Success");
    assert_eq!(
        (answer["data"]["agent"].as_str(), answer["data"]["fence"].as_u64()),
        (Some("zone-a"), Some(1))
    );
    assert_eq!(answer["data"]["units"][0]["status"], "SUCCESS");
    assert_eq!(manager.lines(&unit_key("t1")), ["hello"]);
    assert!(manager.lock().streams[&unit_key("t1")].closed, "the result comes after its logs");
    agent.stop().await.unwrap();

    let inner = manager.lock();
    assert_eq!(inner.unregistered, 1);
    let body = &inner.registered[0];
    assert_eq!(body["immutable"], false);
    assert_eq!(body["tags"], json!(["linux", "dc1"]));
    assert_eq!(body["supportedTaskTypes"], json!([]));
    assert_eq!(body["delegateExt"]["capacity"], 256);
    assert!(!body["delegateExt"]["instanceId"].as_str().unwrap().is_empty());
    assert!(!body["delegateExt"]["publicKey"].as_str().unwrap().is_empty());
    assert!(std::fs::read_dir(data.path().join("spool")).map_or(true, |mut dir| dir.next().is_none()));
}

#[tokio::test]
async fn a_foreign_manager_never_sees_a_harness_task_acquired() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(false).await;
    manager.queue_raw("cd", "COMMAND_TASK_NG", json!({"commandUnits": [], "accountId": "acct1"}), 600_000);
    let agent = Agent::start(&manager, data.path(), &[]);
    // Two whole polls have seen it.
    manager.wait("three polls", |inner| (inner.polls >= 3).then_some(())).await;
    assert_eq!(manager.lock().acquired, Vec::<String>::new());
    assert_eq!(manager.lock().registered[0]["supportedTaskTypes"], json!([]));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_foreign_log_service_gets_base_and_unit_streams() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(false).await;
    manager.noop("t1", "plain");
    let agent = Agent::start(&manager, data.path(), &[("DELEGATE_FOREIGN_TASK_TYPES", "DELEGATE_NOOP_TASK")]);
    assert_eq!(manager.answer("t1").await["data"]["status"], "Success");
    let base = unit_key("t1").replace("-commandUnit:Execute", "");
    manager
        .wait("the base stream to be closed", |inner| inner.streams.get(&base)?.closed.then_some(()))
        .await;
    assert_eq!(manager.lines(&unit_key("t1")), ["plain"]);
    assert_eq!(manager.lock().registered[0]["supportedTaskTypes"], json!(["DELEGATE_NOOP_TASK"]));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn lost_replies_lose_and_double_nothing() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    manager.with(|inner| {
        inner.lose_append_replies = 3;
        inner.refuse_responses = 2;
        inner.lose_acquires = 2;
    });
    manager.noop("t1", "one\ntwo\nthree");
    let agent = Agent::start(&manager, data.path(), &[]);
    let answer = manager.answer("t1").await;
    assert_eq!(answer["data"]["status"], "Success");
    assert_eq!(manager.lines(&unit_key("t1")), ["one", "two", "three"]);
    assert_eq!(manager.lock().tasks["t1"].answers, 1);
    assert_eq!(manager.lock().streams[&unit_key("t1")].opened, 1);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_package_that_cannot_be_read_and_an_unknown_step_are_answered() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    manager.queue_raw("bad", "COMMAND_TASK_NG", json!({"version": 1}), 60_000);
    manager.queue_raw(
        "new",
        "DELEGATE_NOOP_TASK",
        json!({"version": 1, "execution": {}, "step": {"type": "Terraform", "identifier": "tf", "name": "tf", "spec": {}}}),
        60_000,
    );
    let agent = Agent::start(&manager, data.path(), &[]);
    let failure = manager.answer("bad").await["data"]["failure"].clone();
    assert_eq!((failure["code"].as_str(), failure["kind"].as_str()), (Some("AGT-004"), Some("BadSpec")));
    let failure = manager.answer("new").await["data"]["failure"].clone();
    assert_eq!(failure["code"], "AGT-008");
    assert!(failure["message"].as_str().unwrap().contains("`Terraform`"), "{failure}");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_abort_ends_a_running_step_and_a_deadline_too() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    let silent = scripted::silent_server().await;
    manager.http("slow", &silent, 60_000);
    manager.http("late", &silent, 700);
    let agent = Agent::start(&manager, data.path(), &[]);
    manager
        .wait("the step to run", |inner| inner.progress.iter().find(|(task, _)| task == "slow").map(|_| ()))
        .await;
    manager.with(|inner| inner.aborts.push("slow".into()));
    let answer = manager.answer("slow").await;
    assert_eq!(answer["data"]["status"], "Aborted", "{answer}");
    let answer = manager.answer("late").await;
    assert_eq!(
        (&answer["data"]["status"], &answer["data"]["failure"]["kind"]),
        (&json!("Failed"), &json!("Timeout")),
        "{answer}"
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_finishes_what_was_under_way() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    let silent = scripted::silent_server().await;
    manager.http("t1", &silent, 20_000);
    let agent = Agent::start(&manager, data.path(), &[]);
    manager.wait("the step to run", |inner| (!inner.progress.is_empty()).then_some(())).await;
    agent.crash().await;
    let before = manager.lock().acquired.len();
    let agent = Agent::start(&manager, data.path(), &[]);
    manager.wait("it to be acquired again", |inner| (inner.acquired.len() > before).then_some(())).await;
    manager.with(|inner| inner.aborts.push("t1".into()));
    let answer = manager.answer("t1").await;
    assert_eq!(answer["data"]["status"], "Aborted", "{answer}");
    agent.stop().await.unwrap();
    let inner = manager.lock();
    assert_eq!(inner.tasks["t1"].fence, 1, "the same instance keeps its fence");
    let instance = |n: usize| inner.registered[n]["delegateExt"]["instanceId"].clone();
    assert_eq!(instance(0), instance(inner.registered.len() - 1));
}

#[tokio::test]
async fn a_result_that_was_not_taken_survives_restarts() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    manager.with(|inner| inner.refuse_responses = 1000);
    manager.noop("t1", "line");
    let agent = Agent::start(&manager, data.path(), &[]);
    manager.wait("the answer to be refused", |inner| (inner.refuse_responses < 1000).then_some(())).await;
    agent.crash().await;
    let polls = manager.lock().polls;
    let agent = Agent::start(&manager, data.path(), &[]);
    // The manager lists the task once more for the new process. It must have been read while the result is still owed:
    // after that the agent would ask for the task again, in vain.
    manager.wait("the events to be read", |inner| (inner.polls > polls + 1).then_some(())).await;
    manager.with(|inner| inner.refuse_responses = 0);
    assert_eq!(manager.answer("t1").await["data"]["status"], "Success");
    assert_eq!(manager.lines(&unit_key("t1")), ["line"]);
    agent.stop().await.unwrap();
    assert_eq!(manager.lock().acquired, ["t1"], "it is not run again");
}

#[tokio::test]
async fn a_dead_log_service_does_not_hold_results_back_for_ever_and_gets_its_lines_later() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    manager.with(|inner| inner.logs_down = true);
    manager.noop("t1", "late line");
    let agent = Agent::start(&manager, data.path(), &[]);
    assert_eq!(manager.answer("t1").await["data"]["status"], "Success");
    agent.crash().await;
    let agent = Agent::start(&manager, data.path(), &[]);
    manager.with(|inner| inner.logs_down = false);
    let key = unit_key("t1");
    manager.wait("the lines to arrive", |inner| inner.streams.get(&key)?.closed.then_some(())).await;
    assert_eq!(manager.lines(&key), ["late line"]);
    agent.stop().await.unwrap();
    assert!(std::fs::read_dir(data.path().join("spool")).unwrap().next().is_none());
}

#[tokio::test]
async fn refusals_stop_or_freeze() {
    for (code, status) in [(Some("INVALID_TOKEN"), None), (None, Some("DELETED"))] {
        let data = tempfile::tempdir().unwrap();
        let manager = Manager::start(true).await;
        manager.with(|inner| (inner.refusal, inner.status) = (code, status));
        let agent = Agent::start(&manager, data.path(), &[]);
        let error = agent.ended().await.unwrap_err();
        let is_deleted = matches!(error, agent::AgentError::Deleted);
        assert_eq!(is_deleted, status.is_some(), "{error}");
    }
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    let agent = Agent::start(&manager, data.path(), &[]);
    manager.wait("a heartbeat", |inner| (!inner.heartbeats.is_empty()).then_some(())).await;
    manager.with(|inner| inner.refusal = Some("REVOKED_TOKEN"));
    manager.noop("t1", "x");
    agent.stop().await.unwrap();
    assert!(manager.lock().acquired.is_empty());
}

#[tokio::test]
async fn a_second_agent_over_the_same_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    let first = Agent::start(&manager, data.path(), &[]);
    manager.wait("the first to register", |inner| (!inner.registered.is_empty()).then_some(())).await;
    let error = Agent::start(&manager, data.path(), &[]).ended().await.unwrap_err();
    assert!(matches!(error, agent::AgentError::InUse { .. }), "{error}");
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_drain_leaves_what_runs_to_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    let silent = scripted::silent_server().await;
    manager.http("t1", &silent, 60_000);
    let agent = Agent::start(&manager, data.path(), &[("DELEGATE_DRAIN_LIMIT", "1s")]);
    manager.wait("the step to run", |inner| (!inner.progress.is_empty()).then_some(())).await;
    agent.stop().await.unwrap();
    assert_eq!(manager.lock().unregistered, 0, "taking leave would fail the task");
    assert!(manager.lock().tasks["t1"].answer.is_none());
    let agent = Agent::start(&manager, data.path(), &[]);
    manager.wait("it to be acquired again", |inner| (inner.acquired.len() >= 2).then_some(())).await;
    agent.shutdown.now();
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn many_tasks_share_the_capacity() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    for n in 0..60 {
        manager.noop(&format!("t{n:02}"), "x");
    }
    let agent = Agent::start(&manager, data.path(), &[("DELEGATE_TASK_CAPACITY", "7")]);
    manager
        .wait("all answers", |inner| inner.tasks.values().all(|task| task.answer.is_some()).then_some(()))
        .await;
    agent.stop().await.unwrap();
    let inner = manager.lock();
    let busiest =
        inner.heartbeats.iter().filter_map(|beat| beat["delegateExt"]["busy"].as_u64()).max().unwrap_or(0);
    assert!(busiest <= 7);
    assert!(inner.tasks.values().all(|task| task.answers == 1));
}

#[tokio::test]
async fn calls_that_are_under_way_at_once_share_requests_and_a_lost_one_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start_together().await;
    for n in 0..60 {
        manager.noop(&format!("t{n:02}"), "x\ny");
    }
    manager.with(|inner| {
        inner.lose_together = 2;
        inner.refuse_responses = 3;
    });
    let agent = Agent::start(&manager, data.path(), &[]);
    let all = |inner: &scripted::Inner| {
        inner.tasks.values().all(|task| task.answer.is_some()).then_some(inner.together)
    };
    let (requests, calls) = manager.wait("all answers", all).await;
    agent.stop().await.unwrap();
    let inner = manager.lock();
    assert!(inner.tasks.values().all(|task| task.fence == 1));
    // Sixty are acquired and answered; each request carries what came up during the one before.
    assert!(calls >= 120 && requests * 2 < calls, "{calls} calls in {requests} requests");
    assert!(inner.wholes > 0, "short logs go in one call");
    for (key, stream) in &inner.streams {
        let lines: Vec<&str> = stream.lines.iter().map(|line| line["out"].as_str().unwrap()).collect();
        assert_eq!((lines.as_slice(), stream.closed), (["x", "y"].as_slice(), true), "{key}");
    }
}

#[tokio::test]
async fn a_crash_at_every_point_of_a_task_loses_and_doubles_nothing() {
    crash_everywhere(async || Manager::start(true).await).await;
}

#[tokio::test]
async fn so_does_one_of_an_agent_whose_calls_share_requests() {
    crash_everywhere(Manager::start_together).await;
}

#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "The body of two tests: a panic is a failed test."
)]
async fn crash_everywhere(start: impl AsyncFn() -> std::sync::Arc<Manager>) {
    let points = [
        "acquired",
        "before open",
        "before append",
        "after append",
        "before close",
        "before answer",
        "after answer",
    ];
    for point in points {
        tracing::info!(point, "next point");
        let data = tempfile::tempdir().unwrap();
        let manager = start().await;
        manager.with(|inner| inner.hold = Some(point));
        manager.noop("t1", "the only line");
        let agent = Agent::start(&manager, data.path(), &[]);
        manager.wait(&format!("a call to be held {point}"), |inner| (inner.holds > 0).then_some(())).await;
        agent.crash().await;
        let agent = Agent::start(&manager, data.path(), &[]);
        let answer = manager.answer("t1").await;
        assert_eq!(answer["data"]["status"], "Success", "{point}: {answer}");
        let key = unit_key("t1");
        let what = format!("{point}: the stream to be closed");
        manager.wait(&what, |inner| inner.streams.get(&key)?.closed.then_some(())).await;
        assert_eq!(manager.lines(&key), ["the only line"], "{point}");
        agent.stop().await.unwrap();
        let inner = manager.lock();
        assert_eq!(inner.tasks["t1"].fence, 1, "{point}");
        assert_eq!(inner.unregistered, 1, "{point}: something was still held");
        assert!(
            std::fs::read_dir(data.path().join("spool")).map_or(true, |mut dir| dir.next().is_none()),
            "{point}"
        );
    }
}

#[tokio::test]
async fn health_and_metrics_tell_the_truth() {
    let data = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    manager.with(|inner| inner.refusal = Some("REVOKED_TOKEN"));
    let port = executor_api::testing::free_port();
    let listen = format!("127.0.0.1:{port}");
    let agent = Agent::start(&manager, data.path(), &[("DELEGATE_HEALTH_LISTEN", &listen)]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        loop {
            if let Ok(reply) = http.get(format!("http://{listen}{path}")).send().await {
                return (reply.status().as_u16(), reply.text().await.unwrap());
            }
            tokio::task::yield_now().await;
        }
    };
    let (status, body) = get("/api/health").await;
    assert_eq!(status, 500, "not healthy before the first registration: {body}");
    agent.shutdown.now();
    agent.ended().await.unwrap();

    manager.with(|inner| inner.refusal = None);
    manager.noop("t1", "x");
    let agent = Agent::start(&manager, data.path(), &[("DELEGATE_HEALTH_LISTEN", &listen)]);
    manager.answer("t1").await;
    let healthy = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while get("/api/health").await.0 != 200 {
            tokio::task::yield_now().await;
        }
    });
    healthy.await.expect("the agent did not become healthy");
    assert!(get("/api/health").await.1.contains(r#""resource":"healthy""#));
    let (_, text) = get("/api/metrics").await;
    for part in [
        r#"io_harness_custom_metric_task_completed_total{delegate_name="zone-a",task_type="DELEGATE_NOOP_TASK"} 1"#,
        r#"io_harness_custom_metric_delegate_connected{delegate_name="zone-a"} 1"#,
        r#"io_harness_custom_metric_task_execution_time{delegate_name="zone-a",task_type="DELEGATE_NOOP_TASK"}"#,
        r#"io_harness_custom_metric_tasks_currently_executing{delegate_name="zone-a"}"#,
        "delegate_log_lines_total 1",
        "delegate_task_duration_seconds_bucket",
        "delegate_permits_free",
        "# EOF",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    agent.stop().await.unwrap();
}
