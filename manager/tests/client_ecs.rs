//! The seed's ECS pipelines through the store: applied byte for byte, run against a scripted agent, rolled back, aborted and
//! brought back by a second execution. And the test of an AWS connector.

mod client_support;
mod support;

use client_support::{Agent, Client, Say, Taken, failed, find_step, output, success};
use proto::result::{Output, StepResult};
use proto::task::{ConnectorTestSpec, EcsAction, RunTaskShape, StepSpec};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use support::{TestManager, until};

const CONNECTOR: &str = include_str!("../../tests/seeds/aws-connector.yaml");
const SERVICE: &str = include_str!("../../tests/seeds/ecs-service-full.yaml");
const ROLLING: &str = include_str!("../../tests/seeds/ecs-rolling-pipeline.yaml");
const BLUE_GREEN: &str = include_str!("../../tests/seeds/ecs-blue-green-pipeline.yaml");
const CANARY: &str = include_str!("../../tests/seeds/ecs-canary-pipeline.yaml");
const MORE: [&str; 2] = [
    include_str!("../../tests/seeds/ecs-entities/connectors.yaml"),
    include_str!("../../tests/seeds/ecs-entities/environment.yaml"),
];
const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/myapp@sha256:aa";

async fn world() -> (Arc<TestManager>, Client) {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    for yaml in [CONNECTOR, SERVICE, ROLLING, BLUE_GREEN, CANARY].into_iter().chain(MORE) {
        client.apply(yaml).await;
    }
    client.set_secret("aws_access_key", "AKIAEXAMPLE").await;
    client.set_secret("aws_secret_key", "very-secret-key").await;
    (manager, client)
}

fn with(result: StepResult, pairs: &[(&str, &str)]) -> StepResult {
    let outputs =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Output::from(json!(value)))).collect();
    StepResult { outputs, ..result }
}

/// What a healthy agent answers.
fn healthy(taken: &Taken) -> StepResult {
    match &taken.task.step.spec {
        StepSpec::ResolveArtifact(_) => {
            with(success(), &[("tag", "1"), ("digest", "sha256:aa"), ("image", IMAGE)])
        }
        StepSpec::Ecs(spec) => {
            let result = match &spec.action {
                EcsAction::EcsRunTask { shape } => match &**shape {
                    RunTaskShape::Register { .. } | RunTaskShape::Green { .. } => {
                        with(success(), &[("taskDefinitionArn", "arn:td:11")])
                    }
                    _ => success(),
                },
                _ => success(),
            };
            StepResult { undo: Some(json!({ "of": taken.task.step.identifier })), ..result }
        }
        _ => success(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_seeds_run_as_they_stand() {
    let (manager, client) = world().await;
    let agent = Agent::start(&manager, "zone-a", &[], |taken| healthy(taken).into()).await;
    for (pipeline, steps) in [
        (
            "ecs_deployment_pipeline",
            &[
                "artifact",
                "Fetch_Task_Definition",
                "Create_New_Task_Definition",
                "Rolling_Deployment",
                "Verify_Deployment",
                "Health_Check",
                "Continuous_Verification",
            ][..],
        ),
        (
            "ecs_blue_green_pipeline",
            &[
                "artifact",
                "Deploy_Green",
                "Verify_Green",
                "Route_10_Percent",
                "Verify_10_Percent",
                "Route_50_Percent",
                "Verify_50_Percent",
                "Route_100_Percent",
                "Terminate_Blue",
            ],
        ),
        (
            "ecs_canary_pipeline",
            &[
                "artifact",
                "Canary_Deploy_10",
                "Verify_Canary_10",
                "Canary_Deploy_25",
                "Verify_Canary_25",
                "Canary_Deploy_50",
                "Verify_Canary_50",
                "Delete_Canary",
                "Full_Deployment",
            ],
        ),
    ] {
        let before = agent.names().len();
        let id = client.run(pipeline).await;
        let view = client.ended(&id).await;
        assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Success"), &json!(false)), "{view:#}");
        assert_eq!(agent.names()[before..], *steps, "{pipeline}");
    }
    let taken = agent.stop().await;
    for one in &taken {
        assert!(!one.raw.contains("very-secret-key") && !one.raw.contains("AKIAEXAMPLE"), "{}", one.name());
        if let StepSpec::Ecs(spec) = &one.task.step.spec {
            assert_eq!(one.secrets["aws_secret_key"], "very-secret-key", "{}", one.name());
            assert_eq!(spec.cluster, "production-cluster");
        }
    }
    let register = taken.iter().find(|one| one.name() == "Create_New_Task_Definition").unwrap();
    assert!(register.raw.contains(IMAGE), "{}", register.raw);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_verification_undoes_the_blue_green_deployment_backwards() {
    let (manager, client) = world().await;
    let agent = Agent::start(&manager, "zone-a", &[], |taken| match taken.name().as_str() {
        "Verify_50_Percent" => failed("p99 of green is 40 % over blue").into(),
        _ => healthy(taken).into(),
    })
    .await;
    let view = client.ended(&client.run("ecs_blue_green_pipeline").await).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Failed"), &json!(true)), "{view:#}");
    let undone = ["undo_Route_50_Percent", "undo_Route_10_Percent", "undo_Deploy_Green"];
    assert_eq!(agent.names()[7..], undone);
    for step in undone {
        let shown = find_step(&view, step).unwrap();
        assert_eq!((&shown["status"], &shown["generated"]), (&json!("Success"), &json!(true)), "{shown:#}");
    }
    assert_eq!(find_step(&view, "undo_Terminate_Blue").unwrap()["status"], "Skipped");
    let codes: Vec<&str> =
        view["notices"].as_array().unwrap().iter().map(|n| n["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"R25.implicit-undo"), "{codes:?}");
    let taken = agent.stop().await;
    assert_eq!(taken[7].task.undo, Some(json!({ "of": "Route_50_Percent" })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_leaves_the_weights_and_a_second_execution_brings_them_back() {
    let (manager, client) = world().await;
    let agent = Agent::start(&manager, "zone-a", &[], |taken| match taken.name().as_str() {
        "Route_50_Percent" => Say::Hold,
        _ => healthy(taken).into(),
    })
    .await;
    let id = client.run("ecs_blue_green_pipeline").await;
    until("the shift to 50 % is under way", || async {
        agent.names().iter().any(|name| name == "Route_50_Percent").then_some(())
    })
    .await;
    let (status, body) = client.call(Method::POST, &format!("/executions/{id}/abort"), json!({})).await;
    assert!(status.is_success(), "{body}");
    let view = client.ended(&id).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Aborted"), &json!(false)), "{view:#}");
    let hint = view["stages"][0]["hint"].as_str().unwrap();
    assert!(hint.contains(&format!("`delegate execution rollback {id}`")), "{hint}");
    let before = agent.names().len();
    let (status, body) = client.call(Method::POST, &format!("/executions/{id}/rollback"), Value::Null).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let back = client.ended(body["executionId"].as_str().unwrap()).await;
    assert_eq!(back["status"], "Success", "{back:#}");
    assert_eq!(agent.names()[before..], ["undo_Route_10_Percent", "undo_Deploy_Green"]);
    // What the first execution made is the second one's to remove.
    for (n, one) in agent.stop().await.iter().enumerate() {
        let rolls_back = one.task.execution.rolls_back.as_ref();
        assert_eq!(rolls_back, (n >= before).then_some(&id), "{}", one.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_seed_lacks_is_told_before_it_runs() {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    for yaml in [CONNECTOR, SERVICE, ROLLING, CANARY].into_iter().chain(MORE) {
        client.apply(yaml).await;
    }
    let validate = |yaml: &'static str| {
        let client = client.clone();
        async move {
            client
                .call(Method::POST, "/pipelines/validate", json!({ "source": "p.yaml", "yaml": yaml }))
                .await
                .1
        }
    };
    let (status, refused) = client.start("ecs_canary_pipeline", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("the secret `aws_secret_key` has no value")
            && text.contains("delegate secret set aws_secret_key"),
        "{text}"
    );
    client.set_secret("aws_access_key", "a").await;
    client.set_secret("aws_secret_key", "b").await;
    let fine = validate(CANARY).await;
    assert_eq!(fine["faults"], json!([]), "{fine:#}");
    client.apply("connector: {name: aws-connector, type: Prometheus, spec: {url: 'http://p'}}").await;
    let wrong = validate(CANARY).await;
    let text = wrong["faults"].to_string();
    assert!(text.contains("`aws-connector` is of another type; expected Aws"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aws_connector_is_tried_with_its_secrets_and_region() {
    let (manager, client) = world().await;
    let agent = Agent::start(&manager, "zone-a", &["zone-aws"], |_| {
        let stages = json!([{ "stage": "credentials", "ok": true, "durationMs": 1 }]);
        let mut result = output("ok", json!(true));
        result.outputs.insert("stages".to_owned(), Output::from(stages));
        result.into()
    })
    .await;
    let (status, report) = client.call(Method::POST, "/connectors/aws-connector/test", json!({})).await;
    assert_eq!((status, &report["ok"]), (StatusCode::OK, &json!(true)), "{report}");
    client
        .apply("connector: {identifier: role, name: role, type: Aws, spec: {delegateSelectors: [zone-aws], credential: {type: Irsa, crossAccountAccess: {crossAccountRoleArn: 'arn:role'}}}}")
        .await;
    assert_eq!(client.call(Method::POST, "/connectors/role/test", json!({})).await.0, StatusCode::OK);
    client
        .apply("connector: {identifier: odd, name: odd, type: Aws, spec: {credential: {type: ManualConfig, spec: {accessKey: a, secretKey: <+pipeline.name>}}}}")
        .await;
    let (status, refused) = client.call(Method::POST, "/connectors/odd/test", json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused.to_string().contains("secretKey` holds an expression"), "{refused}");
    let taken = agent.stop().await;
    let accounts: Vec<_> = taken
        .iter()
        .map(|one| match &one.task.step.spec {
            StepSpec::ConnectorTest(ConnectorTestSpec::Aws(account)) => account.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((accounts[0].connector.as_str(), accounts[0].region.as_str()), ("aws-connector", "us-east-1"));
    assert_eq!(taken[0].secrets["aws_secret_key"], "very-secret-key");
    assert!(!taken[0].raw.contains("very-secret-key"));
    assert_eq!(accounts[1].region, "us-east-1", "every account answers there");
    assert_eq!(accounts[1].assume_role.as_ref().unwrap().role_arn, "arn:role");
}
