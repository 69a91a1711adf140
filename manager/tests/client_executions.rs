//! Executions from the first call to the last, with a scripted agent on the real protocol.

mod client_support;
mod support;

use client_support::{
    Agent, Client, ENTITIES, PEM, Say, custom, deployment, failed, find_step, noop, output, script, success,
};
use proto::result::Output;
use proto::task::StepSpec;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::TestManager;

async fn manager() -> (Arc<TestManager>, Client) {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    (manager, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_runs_from_apply_to_success() {
    let (manager, client) = manager().await;
    let applied = client.apply(&custom("p", "", &(noop("a", "") + &noop("b", "")))).await;
    assert_eq!(applied["results"][0]["result"], "created");
    let agent = Agent::start(&manager, "zone-a", &[], |_| success().into()).await;
    let (status, started) = client.start("p", Value::Null).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    assert_eq!(started["sequenceId"], 1);
    assert_eq!(started["warnings"], json!([]));
    let view = client.ended(started["executionId"].as_str().unwrap()).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(find_step(&view, "b").unwrap()["agent"], "zone-a");
    assert_eq!(agent.names(), ["a", "b"]);
    assert_eq!(view["startedBy"], "admin");
    let list = client.get("/executions?pipeline=p").await;
    assert_eq!(list[0]["status"], "Success");
    assert!(list[0]["endedAt"].as_u64() >= list[0]["createdAt"].as_u64());
    let again = client.run("p").await;
    assert_eq!(client.ended(&again).await["sequenceId"], 2);
    let agents = client.get("/agents").await;
    assert_eq!(agents[0]["name"], "zone-a");
    assert_eq!(agents[0]["connected"], true);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_host_rolls_the_stage_back_and_secrets_arrive_sealed() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    let yaml = deployment("d", &(script("deploy", "go") + &script("check", "true")), &script("undo", "back"));
    client.apply(&yaml).await;
    let agent = Agent::start(&manager, "zone-a", &[], |taken| match taken.name().as_str() {
        "check_1@h2" | "check@h2" => failed("exit code 7 on h2").into(),
        _ => success().into(),
    })
    .await;
    let view = client.ended(&client.run("d").await).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    assert_eq!(view["rolledBack"], true);
    let check = find_step(&view, "check").unwrap();
    assert_eq!(check["hosts"][1]["failure"]["message"], "exit code 7 on h2", "{check:#}");
    assert_eq!(check["hosts"][0]["status"], "Success");
    let undo = find_step(&view, "undo").unwrap();
    assert_eq!((&undo["status"], &undo["rollback"]), (&json!("Success"), &json!(true)));
    let taken = agent.stop().await;
    assert!(taken.iter().any(|taken| taken.secrets.get("pem").is_some_and(|pem| pem == PEM)));
    for taken in &taken {
        assert!(!taken.raw.contains("not a real one"), "a clear secret in an acquire body");
    }
    for file in ["manager.db", "manager.db-wal"] {
        let bytes = std::fs::read(manager.dir.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(14).any(|window| window == b"not a real one"), "a clear secret in {file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_output_reaches_a_later_step_sealed_and_nobody_else() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    let token = "<+execution.steps.login.output.outputVariables.token>";
    let steps = script("login", "go") + &script("use", &format!("call {token}"));
    client.apply(&deployment("d", &steps, &script("undo", "back"))).await;
    let agent = Agent::start(&manager, "zone-a", &[], |taken| match taken.name().as_str() {
        "login@h1" | "login_0@h1" => {
            let mut result = output("outputVariables.host", json!("open-value"));
            let token = Output { value: json!("s3cr3t-output"), secret: true };
            result.outputs.insert("outputVariables.token".to_owned(), token);
            result.into()
        }
        _ => success().into(),
    })
    .await;
    // The start is not refused: nobody asks for a stored secret of this name.
    let view = client.ended(&client.run("d").await).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    let variables = &find_step(&view, "login").unwrap()["outputs"]["outputVariables"];
    assert_eq!(
        (&variables["host"], &variables["token"]),
        (&json!("open-value"), &json!("********")),
        "{view:#}"
    );
    assert!(!view.to_string().contains("s3cr3t-output"));
    let taken = agent.stop().await;
    let users: Vec<_> = taken.iter().filter(|taken| taken.name().starts_with("use")).collect();
    assert_eq!(users.len(), 2);
    for taken in users {
        let (reference, value) =
            taken.secrets.iter().find(|(reference, _)| reference.starts_with("output/")).unwrap();
        assert_eq!(value, "s3cr3t-output");
        assert!(reference.ends_with("/outputVariables.token"), "{reference}");
        let StepSpec::Command(command) = &taken.task.step.spec else { panic!("{:?}", taken.task.step.spec) };
        let document = serde_json::to_string(command).unwrap();
        assert!(
            document.contains(&format!("call ${{ngSecretManager.obtain(\\\"{reference}\\\", ")),
            "{document}"
        );
    }
    for taken in &taken {
        assert!(!taken.raw.contains("s3cr3t-output"), "a clear secret output in an acquire body");
    }
    for file in ["manager.db", "manager.db-wal"] {
        let bytes = std::fs::read(manager.dir.path().join(file)).unwrap_or_default();
        assert!(
            !bytes.windows(13).any(|window| window == b"s3cr3t-output"),
            "a clear secret output in {file}"
        );
    }
    let body = client.request(Method::PUT, "/secrets/output%2Fa%2Fb").body("x").send().await.unwrap();
    assert_eq!(body.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_output_that_was_never_given_fails_the_step_that_needs_it() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    let forged = "<+secrets.getValue(\"output/\" + \"nowhere/x\")>";
    client.apply(&deployment("d", &script("use", &format!("call {forged}")), &script("undo", "back"))).await;
    let _agent = Agent::start(&manager, "zone-a", &[], |_| success().into()).await;
    let view = client.ended(&client.run("d").await).await;
    let failure = &find_step(&view, "use").unwrap()["hosts"][0]["failure"];
    assert_eq!(failure["code"], "MGR-010", "{view:#}");
    assert!(failure["message"].as_str().unwrap().contains("no secret output `x` of `nowhere`"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_reaches_the_agent_runs_no_rollback_and_may_be_repeated() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    client.apply(&deployment("d", &script("deploy", "go"), &script("undo", "back"))).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| Say::Hold).await;
    let id = client.run("d").await;
    support::until("both hosts run", || async { (agent.names().len() == 2).then_some(()) }).await;
    let abort = format!("/executions/{id}/abort");
    let (status, _) = client.call(Method::POST, &abort, Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let view = client.ended(&id).await;
    assert_eq!(view["status"], "Aborted", "{view:#}");
    assert_eq!(view["abortedBy"], "admin");
    assert_eq!(find_step(&view, "undo").unwrap()["status"], "NotStarted");
    let (status, again) = client.call(Method::POST, &abort, Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(again["version"], view["version"]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fitting_agent_the_run_warns_waits_and_goes_on_when_one_appears() {
    let (manager, client) = manager().await;
    client.apply(&custom("p", "delegateSelectors: [gpu, zone-b]", &noop("a", ""))).await;
    let near = Agent::start(&manager, "near", &["zone-b"], |_| success().into()).await;
    let (_, started) = client.start("p", Value::Null).await;
    let warning = &started["warnings"][0];
    assert_eq!(warning["code"], "selectors.no-agent");
    assert!(warning["message"].as_str().unwrap().contains("near lacks gpu"), "{warning}");
    assert!(warning["hint"].as_str().unwrap().contains("DELEGATE_TAGS"), "{warning}");
    let id = started["executionId"].as_str().unwrap().to_owned();
    let view = client.get(&format!("/executions/{id}")).await;
    let waiting = find_step(&view, "a").unwrap()["waitingFor"].as_str().unwrap().to_owned();
    assert!(waiting.contains("near lacks gpu"), "{waiting}");
    assert!(near.names().is_empty());
    let fits = Agent::start(&manager, "fits", &["GPU ", "Zone-B"], |_| success().into()).await;
    assert_eq!(client.ended(&id).await["status"], "Success");
    assert_eq!(fits.names(), ["a"]);
    assert!(near.names().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_no_agent_fits_in_time_fails_with_the_explanation() {
    let manager =
        Arc::new(TestManager::start_with(|config| config.agent_wait = Duration::from_millis(200)).await);
    let client = Client::of(&manager);
    client.apply(&custom("p", "delegateSelectors: [gpu]", &noop("a", ""))).await;
    let view = client.ended(&client.run("p").await).await;
    let failure = &find_step(&view, "a").unwrap()["failure"];
    assert_eq!(view["status"], "Failed");
    assert_eq!(failure["class"], "DelegateProvisioning", "{view:#}");
    assert!(failure["message"].as_str().unwrap().contains("gpu"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_executions_run_side_by_side_and_keep_their_outputs_apart() {
    let (manager, client) = manager().await;
    let steps = noop("a", "") + &noop("b", "").replace("hello b", "<+execution.steps.a.output.tag>");
    client.apply(&custom("p", "", &steps)).await;
    let agent = Agent::start(&manager, "zone-a", &[], |taken| {
        output("tag", json!(format!("v{}", taken.task.execution.sequence_id))).into()
    })
    .await;
    let (one, two) = tokio::join!(client.run("p"), client.run("p"));
    let (one, two) = tokio::join!(client.ended(&one), client.ended(&two));
    for view in [&one, &two] {
        assert_eq!(view["status"], "Success", "{view:#}");
    }
    let taken = agent.stop().await;
    let lines: Vec<String> = taken
        .iter()
        .filter(|taken| taken.task.step.identifier == "b")
        .filter_map(|taken| match &taken.task.step.spec {
            StepSpec::Noop(spec) => Some(format!("{}:{}", taken.task.execution.sequence_id, spec.line)),
            _ => None,
        })
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.contains(&"1:v1".to_owned()) && lines.contains(&"2:v2".to_owned()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_needs_and_lacks_refuses_it_and_leaves_nothing() {
    let (_manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.apply(&deployment("d", &script("deploy", "go"), &script("undo", "back"))).await;
    let (status, body) = client.start("d", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("pem"), "{body}");
    let inputs = "variables: [{name: color, type: String, value: <+input>}]";
    client.apply(&custom("p", inputs, &noop("a", ""))).await;
    let (status, body) = client.start("p", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let fault = &body["error"]["faults"][0];
    assert!(fault["message"].as_str().unwrap().contains("color"), "{body}");
    assert!(fault["line"].as_u64().unwrap() > 0);
    let (status, body) = client.start("nope", Value::Null).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("MGR-114")));
    assert_eq!(client.get("/executions").await, json!([]));
    let (status, _) = client.start("p", json!({ "inputs": { "color": "blue" } })).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_stops_in_the_middle_goes_on_after_its_restart() {
    let manager = TestManager::start().await;
    let client = Client::of(&manager);
    client.apply(&custom("p", "", &(noop("a", "") + &noop("b", "") + &noop("c", "")))).await;
    let manager = Arc::new(manager);
    let first = Agent::start(&manager, "zone-a", &[], |taken| match taken.name().as_str() {
        "a" => success().into(),
        _ => Say::Nothing,
    })
    .await;
    let id = client.run("p").await;
    support::until("b was taken", || async { first.names().contains(&"b".to_owned()).then_some(()) }).await;
    first.stop().await;
    let dir = Arc::into_inner(manager).unwrap().stop().await;
    let config = support::config(dir.path());
    let manager = Arc::new(TestManager::start_in(dir, config).await);
    let client = Client::of(&manager);
    assert_eq!(client.get(&format!("/executions/{id}")).await["status"], "Running");
    let second = Agent::start(&manager, "zone-a", &[], |_| success().into()).await;
    let view = client.ended(&id).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(second.names(), ["b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learned_host_key_goes_out_with_later_tasks() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    client.apply(&deployment("d", &script("deploy", "go"), &script("undo", "back"))).await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let agent = Agent::start(&manager, "zone-a", &[], move |taken| {
        let StepSpec::Command(command) = &taken.task.step.spec else { return success().into() };
        let host = command.target.as_ref().unwrap().host.clone();
        let learned = ["h1:2022", "elsewhere:22"]
            .into_iter()
            .filter(|_| host == "h1")
            .map(|host| proto::result::LearnedHostKey {
                host: host.into(),
                key: key.into(),
                fingerprint: "SHA256:x".into(),
            })
            .collect();
        proto::result::StepResult { learned_host_keys: learned, ..success() }.into()
    })
    .await;
    client.ended(&client.run("d").await).await;
    let known = client.get("/hostkeys").await;
    assert_eq!(known.as_array().unwrap().len(), 1, "an agent vouches only for the host of its task: {known}");
    assert_eq!(known[0]["host"], "h1:2022");
    client.ended(&client.run("d").await).await;
    let taken = agent.stop().await;
    let last = taken.iter().rfind(|taken| taken.name().ends_with("@h1")).unwrap();
    let StepSpec::Command(command) = &last.task.step.spec else { panic!("not a Command") };
    assert_eq!(command.target.as_ref().unwrap().host_keys.known, [key]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_gets_what_the_last_successful_run_deployed() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    let undo = script("undo", "back to <+serviceVariables.LEVEL>");
    client.apply(&deployment("d", &script("deploy", "go"), &undo)).await;
    let agent = Agent::start(&manager, "zone-a", &[], |taken| {
        let fails = taken.task.execution.sequence_id == 2 && taken.name().starts_with("deploy");
        if fails { failed("exit code 1").into() } else { success().into() }
    })
    .await;
    assert_eq!(client.ended(&client.run("d").await).await["status"], "Success");
    client.apply(&ENTITIES.replace("value: info", "value: debug")).await;
    let view = client.ended(&client.run("d").await).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Failed"), &json!(true)), "{view:#}");
    let taken = agent.stop().await;
    let undo = taken.iter().find(|taken| taken.name().starts_with("undo")).unwrap();
    let text = serde_json::to_string(&undo.task.step).unwrap();
    assert!(text.contains("back to info"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_takes_too_long_is_cancelled_by_its_timer() {
    let (manager, client) = manager().await;
    client.apply(&custom("p", "", &noop("a", "timeout: 1s"))).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| Say::Hold).await;
    let view = client.ended(&client.run("p").await).await;
    let step = find_step(&view, "a").unwrap();
    assert_eq!(
        (&step["status"], &step["failure"]["class"]),
        (&json!("Expired"), &json!("Timeout")),
        "{view:#}"
    );
    agent.stop().await;
}
