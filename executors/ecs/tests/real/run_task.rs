//! EcsRunTask in its shapes: looking, registering, a command with the real awscli.

use crate::peer::aws::REGION;
use crate::peer::{SECRET, document, executor, fail, image, place, run, secrets, spec, succeed, task};
use executor_api::testing::World;
use executor_api::{Class, Executor as _, Plan};
use proto::task::{EcsAction, EcsDefinitions, RunTaskShape, TaskDefinition};
use serde_json::json;

fn step(shape: RunTaskShape) -> EcsAction {
    EcsAction::EcsRunTask { shape: Box::new(shape) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_looked_at_and_a_revision_registered_once() {
    let at = place("runtaska").await;
    let arn = at.register("web-runtaska", &image(&at, "1", "web"));
    let look = |name: &str| {
        spec(&at, EcsDefinitions::default(), step(RunTaskShape::Describe { task_definition: name.into() }))
    };
    let (output, world) = succeed(&look(&arn), "e1", "look").await;
    assert_eq!(
        (&output.outputs["taskDefinitionArn"].value, &output.outputs["revision"].value),
        (&json!(arn), &json!(1))
    );
    assert_eq!(output.outputs["taskDefinition"].value["family"], "web-runtaska");
    assert!(world.logs.everything().contains("no task is run"));
    assert_eq!(fail(&look("nobody-runtaska:7"), "e1", "none").await.0.code, "ECS-018");

    let container = output.outputs["taskDefinition"].value["containerDefinitions"][0]["name"].clone();
    let part = json!({"containerDefinitions": [{"name": container, "environment": [{"name": "VERSION", "value": "2"}]}]});
    let base = TaskDefinition { arn: Some(arn.clone()), document: None };
    let definitions = EcsDefinitions { task: Some(base), ..EcsDefinitions::default() };
    let shape = RunTaskShape::Register { document: document("the step", part) };
    let register = spec(&at, definitions, step(shape));
    let world = World::new("p", task(&register, "e1", "p"), secrets());
    assert!(matches!(executor().plan(&register, &world.context().1).await.unwrap(), Plan::Diff { .. }));
    let (first, world) = succeed(&register, "e1", "register").await;
    assert_eq!(
        (&first.outputs["revision"].value, &first.outputs["registered"].value),
        (&json!(2), &json!(true))
    );
    assert!(first.undo.is_some() && world.logs.everything().contains("no task is run"));
    let (again, _) = succeed(&register, "e2", "register").await;
    assert_eq!(
        (&again.outputs["revision"].value, &again.outputs["registered"].value),
        (&json!(2), &json!(false))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_calls_aws_with_the_account_s_credentials() {
    let at = place("runtaskb").await;
    let command = |text: String| {
        let shape = RunTaskShape::Command { task_definition: "web:1".into(), command: text.into() };
        spec(&at, EcsDefinitions::default(), step(shape))
    };
    let tools = crate::peer::aws::command_line();
    let cluster = &at.name;
    let text = format!(
        "PATH={}:$PATH\necho in $AWS_REGION\naws ecs describe-clusters --clusters {cluster} --query 'clusters[0].status' --output text",
        tools.display()
    );
    let (output, world) = succeed(&command(text), "e1", "good").await;
    assert_eq!(output.outputs["stdout"].value, json!(format!("in {REGION}\nACTIVE")));
    assert!(!world.logs.everything().contains(SECRET));
    let (error, world) = fail(&command("echo halfway\nexit 3".into()), "e1", "bad").await;
    assert_eq!((error.code, error.class), ("ECS-070", Class::RemoteFailed { code: 3 }));
    assert!(world.logs.everything().contains("halfway"));
    // The agent died while it ran: it is not run again.
    world.restart();
    let again = run(&world, &command("echo halfway\nexit 3".into())).await.unwrap_err();
    assert_eq!(again.code, "ECS-071");
}
