//! What the tests share: the region, a place in it, steps and the worlds that they run in.
#![allow(dead_code, reason = "Each room uses a part of it.")]

#[path = "../../../../tests/src/peers/aws.rs"]
pub(crate) mod aws;

use self::aws::{Ecs, Place, REGION};
use executor_api::testing::World;
use executor_api::{Checkpoints as _, Executor, StepError, StepOutput, TransportProbe};
use executor_ecs::{EcsExecutor, Settings};
use proto::task::{
    AwsAccount, AwsCredential, BlueGreenRoutes, EcsAction, EcsDefinitions, EcsDocument, EcsEarlier, EcsSpec,
    ExecutionRef, Step, StepSpec, StepTask, TaskDefinition,
};
use proto::text::SecretRef;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The secret key of every account here. Nobody may see it.
pub(crate) const SECRET: &str = "pl4nted/secret+access-key";

/// A place of the shared region; `name` is letters and digits, this test's only.
pub(crate) async fn place(name: &'static str) -> Place<'static> {
    tokio::task::spawn_blocking(move || Place::new(Ecs::shared(), name)).await.unwrap()
}

/// The reference of an image whose application answers with `tag`; `behaviour` as `responder.go` says.
pub(crate) fn image(place: &Place<'_>, tag: &str, behaviour: &str) -> String {
    let repository = format!("app-{}", place.name);
    place.ecs.image(&repository, tag, behaviour).0
}

/// The account of a place.
pub(crate) fn account(place: &Place<'_>) -> AwsAccount {
    AwsAccount {
        connector: "aws".into(),
        region: REGION.into(),
        credential: AwsCredential::ManualConfig {
            access_key: place.key.as_str().into(),
            secret_key: proto::text::placeholder(&SecretRef("aws_secret_key".into()), 77).into(),
            session_token: None,
        },
        assume_role: None,
        endpoints: BTreeMap::from([(String::new(), place.ecs.endpoint())]),
    }
}

/// A document of the service.
pub(crate) fn document(place: &str, value: Value) -> EcsDocument {
    EcsDocument::Value { place: place.into(), value }
}

/// The definitions of a service `name` with `count` tasks of `image`.
pub(crate) fn definitions(
    place: &Place<'_>,
    name: &str,
    image: &str,
    count: u64,
    group: Option<&str>,
) -> EcsDefinitions {
    let mut service = place.service(name, "x", count, group);
    for key in ["cluster", "taskDefinition"] {
        service.as_object_mut().unwrap().remove(key);
    }
    let task = place.definition(&format!("{}-{name}", place.name), image);
    EcsDefinitions {
        task: Some(TaskDefinition { arn: None, document: Some(document("taskDefinition", task)) }),
        service: Some(document("serviceDefinition", service)),
        ..EcsDefinitions::default()
    }
}

/// A step.
pub(crate) fn spec(place: &Place<'_>, definitions: EcsDefinitions, action: EcsAction) -> EcsSpec {
    EcsSpec {
        account: account(place),
        cluster: place.name.clone(),
        definitions,
        current_task_definition: None,
        earlier: EcsEarlier::default(),
        variables: BTreeMap::new(),
        namespace: None,
        strict: false,
        context: serde_json::Value::Null,
        action,
    }
}

/// A rolling deployment as the seeds write it.
pub(crate) fn rolling() -> EcsAction {
    EcsAction::EcsRollingDeploy {
        same_as_already_running_instances: false,
        force_new_deployment: false,
        skip_steady_state_check: false,
        native: Default::default(),
    }
}

/// The routes of a pair: one listener of a load balancer is that of production, the other one that of the stage.
pub(crate) fn listeners(balancer: &str, production: &str, stage: &str) -> BlueGreenRoutes {
    BlueGreenRoutes {
        load_balancer: balancer.to_owned(),
        prod_listener: production.to_owned(),
        stage_listener: Some(stage.to_owned()),
        ..BlueGreenRoutes::default()
    }
}

/// The other service of a pair, as the seeds write it.
pub(crate) fn create(routes: BlueGreenRoutes) -> EcsAction {
    EcsAction::EcsBlueGreenCreateService {
        routes,
        same_as_already_running_instances: false,
        enable_auto_scaling_in_swap_step: false,
        update_green_service: false,
        traffic_shift: false,
    }
}

/// The task around a step, of the execution `execution`.
pub(crate) fn task(spec: &EcsSpec, execution: &str, identifier: &str) -> StepTask {
    StepTask {
        execution: ExecutionRef {
            execution_id: execution.into(),
            pipeline: "p".into(),
            sequence_id: 1,
            stage: "s".into(),
            node: format!("pipeline.stages.s.{identifier}"),
            attempt: 1,
            rolls_back: None,
        },
        secret_token: 77,
        ..StepTask::of(Step {
            identifier: identifier.into(),
            name: identifier.into(),
            spec: StepSpec::Ecs(Box::new(spec.clone())),
        })
    }
}

/// Its secrets.
pub(crate) fn secrets() -> Vec<(String, String)> {
    vec![("aws_secret_key".to_owned(), SECRET.to_owned())]
}

/// An executor as a freshly started agent has it.
pub(crate) fn executor() -> EcsExecutor {
    let settings = ::aws::Settings { patience: Duration::from_secs(30), ..::aws::Settings::default() };
    EcsExecutor::new(::aws::Client::new(settings).unwrap(), Settings::default())
}

/// The same with a probe.
pub(crate) fn probed(probe: Arc<dyn TransportProbe>) -> EcsExecutor {
    executor().with_probe(probe)
}

/// Runs a step in a world of its own.
pub(crate) async fn run(world: &World, spec: &EcsSpec) -> Result<StepOutput, StepError> {
    executor().run(spec, &world.context().1).await
}

/// Runs a step that must succeed.
pub(crate) async fn succeed(spec: &EcsSpec, execution: &str, identifier: &str) -> (StepOutput, World) {
    let world = World::new(format!("{execution}-{identifier}"), task(spec, execution, identifier), secrets());
    match run(&world, spec).await {
        Ok(output) => (output, world),
        Err(error) => panic!("{}: {error}\n{}", error.code, world.logs.everything()),
    }
}

/// Runs a step that must fail.
pub(crate) async fn fail(spec: &EcsSpec, execution: &str, identifier: &str) -> (StepError, World) {
    let world = World::new(format!("{execution}-{identifier}"), task(spec, execution, identifier), secrets());
    match run(&world, spec).await {
        Ok(output) => panic!("it succeeded with {output:?}\n{}", world.logs.everything()),
        Err(error) => (error, world),
    }
}

/// The undo data that a world's step left behind, as the manager hands it to a rollback step.
pub(crate) fn undo(output: Option<&StepOutput>, world: &World) -> Value {
    let of_output = output.and_then(|output| output.undo.clone());
    let of_checkpoints = || world.marks.history().into_iter().rev().find_map(|checkpoint| checkpoint.undo);
    of_output.or_else(of_checkpoints).unwrap_or_else(|| json!(null))
}
