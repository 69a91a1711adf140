//! The seeds' three ECS pipelines, byte for byte, with an agent that is killed at every change that it makes: a checkpoint stands
//! in front of each. Nothing is done twice, no request fails, and the pipelines succeed as if nothing had been.

use crate::ecs_world::{BASE, FAMILY, SERVICE, World, seed, succeeded};
use e2e::peers::aws::Clients;
use serde_json::json;

/// Runs a pipeline of the seeds with an agent that dies at each change.
async fn outlived(world: &mut World, pipeline: &str, factor: u32) -> Vec<String> {
    let clients = Clients::start(world.prod);
    world.publish("1", "web 80");
    let before = world.last_call();
    let execution = world.begin(&seed(pipeline), factor);
    let (view, killed) = world.killed_at_each_change(&execution, before).await;
    succeeded(&view, world);
    world.answers("1").await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", BASE], "{killed:?}: {seen:?}");
    let which = json!({"familyPrefix": FAMILY});
    let made = world.ecs.aws("ecs", "ListTaskDefinitions", which)["taskDefinitionArns"].clone();
    assert_eq!(made.as_array().unwrap().len(), 11, "one revision beside the ten: {made:#}");
    killed
}

fn times(killed: &[String], operation: &str) -> usize {
    killed.iter().filter(|one| *one == operation).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rolling_seed_outlives_an_agent_that_dies_at_every_change() {
    let mut world = World::with_base("web 80").await;
    world.autoscale(SERVICE);
    let scaling = world.scaling(SERVICE);
    let killed = outlived(&mut world, "ecs-rolling-pipeline.yaml", 60).await;
    assert_eq!(
        (times(&killed, "RegisterTaskDefinition"), times(&killed, "UpdateService")),
        (1, 1),
        "{killed:?}"
    );
    // Suspended and resumed.
    assert_eq!(times(&killed, "RegisterScalableTarget"), 2, "{killed:?}");
    assert_eq!(world.scaling(SERVICE), scaling);
    assert_eq!(world.services(), [SERVICE]);
    assert_eq!(world.place().until_steady(SERVICE)["runningCount"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blue_green_seed_outlives_an_agent_that_dies_at_every_change() {
    let mut world = World::with_base("web 80").await;
    world.autoscale(SERVICE);
    let scaling = world.scaling(SERVICE);
    let killed = outlived(&mut world, "ecs-blue-green-pipeline.yaml", 30).await;
    for operation in ["RegisterTaskDefinition", "CreateService", "DeleteService"] {
        assert_eq!(times(&killed, operation), 1, "{operation} of {killed:?}");
    }
    // 10, 50 and 100 percent.
    assert_eq!(times(&killed, "ModifyListener"), 3, "{killed:?}");
    assert_eq!(world.weights(), [0, 100]);
    assert_eq!(world.services(), ["myapp-service-green"]);
    assert_eq!((world.scaling(SERVICE), world.scaling("myapp-service-green")), (None, scaling));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_seed_outlives_an_agent_that_dies_at_every_change() {
    let mut world = World::with_entities().await;
    let killed = outlived(&mut world, "ecs-canary-pipeline.yaml", 60).await;
    for operation in ["RegisterTaskDefinition", "CreateService", "DeleteService"] {
        assert_eq!(times(&killed, operation), 1, "{operation} of {killed:?}");
    }
    assert_eq!(world.services(), [SERVICE]);
    assert_eq!(world.place().until_steady(SERVICE)["runningCount"], 3);
}
