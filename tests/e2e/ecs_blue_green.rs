//! The seed's blue-green pipeline, byte for byte, in the seeds' ECS world.
//!
//! Its verifications compare response times of blue and green. Answers take a set time here: what a busy machine adds to a
//! millisecond would decide otherwise.

use crate::ecs_world::{
    BASE, CLUSTER, LIMIT, SERVICE, World, failed_and_back, halves, seed, shared_by, succeeded,
};
use e2e::peers::aws::{Clients, within_chance};
use e2e::wait::until;
use e2e::world::step;
use serde_json::{Value, json};

const PIPELINE: &str = "ecs-blue-green-pipeline.yaml";
/// The other service of the pair.
const GREEN: &str = "myapp-service-green";
/// How fast what is good answers.
const GOOD: &str = "web 80";
/// Windows of five minutes become ten seconds: enough requests for a share to be seen.
const FACTOR: u32 = 30;
/// So many clients at once, since each waits for its answers.
const CLIENTS: usize = 8;

fn status(world: &World, service: &str) -> String {
    world.place().describe(service)["status"].as_str().unwrap_or("MISSING").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blue_green_seed_shifts_by_weights_and_outlives_its_agent() {
    let mut world = World::with_base(GOOD).await;
    world.autoscale(SERVICE);
    let scaling = world.scaling(SERVICE);
    let clients = Clients::many(world.prod, CLIENTS);
    world.publish("1", GOOD);
    let execution = world.begin(&seed(PIPELINE), FACTOR);
    let ten = halves(&world, &clients, &execution, "Verify_10_Percent").await;
    let fifty = halves(&world, &clients, &execution, "Verify_50_Percent").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    succeeded(&view, &world);
    shared_by(&ten, "1", 0.1);
    shared_by(&fifty, "1", 0.5);
    world.answers("1").await;
    assert_eq!(world.weights(), [0, 100]);
    assert_eq!((status(&world, SERVICE), status(&world, GREEN)), ("INACTIVE".into(), "ACTIVE".into()));
    assert_eq!(world.place().until_steady(GREEN)["runningCount"], 3);
    // How blue scaled is how its heir scales.
    assert_eq!((world.scaling(SERVICE), world.scaling(GREEN)), (None, scaling.clone()));

    // Once more, with blue and green the other way round. The agent dies while green is made, while the weights are set, while
    // it verifies, and while blue is ended.
    world.publish("2", GOOD);
    let before = world.last_call();
    let execution = world.begin(&seed(PIPELINE), FACTOR);
    world.killed_during("ecs", "CreateService").await;
    world.until_step(&execution, "Verify_10_Percent", &["Running"]).await;
    world.killed_during("elbv2", "ModifyListener").await;
    world.until_step(&execution, "Verify_50_Percent", &["Running"]).await;
    world.agent.kill9();
    world.agent.launch();
    world.killed_during("ecs", "UpdateService").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    succeeded(&view, &world);
    world.answers("2").await;
    assert_eq!(world.weights(), [100, 0]);
    assert_eq!((status(&world, SERVICE), status(&world, GREEN)), ("ACTIVE".into(), "INACTIVE".into()));
    assert_eq!((world.scaling(SERVICE), world.scaling(GREEN)), (scaling, None));
    let registered = world.calls_that(before, |call| call.operation == "RegisterTaskDefinition").len();
    assert_eq!(registered, 1, "one revision, however often it dies");
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", "2", BASE], "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blue_green_seed_takes_back_what_is_bad() {
    let world = World::with_base(GOOD).await;
    world.autoscale(SERVICE);
    let blue = world.place().describe(SERVICE)["taskDefinition"].clone();
    let (weights, scaling) = (world.weights(), world.scaling(SERVICE));
    assert_eq!(weights, [1, 0]);
    let unchanged = async |view: &Value| {
        world.answers(BASE).await;
        assert_eq!((world.weights(), world.scaling(SERVICE)), (weights, scaling.clone()));
        let services = world.ecs.aws("ecs", "ListServices", json!({"cluster": CLUSTER}));
        let green = world.place().describe(GREEN);
        assert_eq!(
            services["serviceArns"].as_array().unwrap().len(),
            1,
            "{green:#}\n{view:#}\n{}",
            world.log(view)
        );
        let live = world.place().until_steady(SERVICE);
        assert_eq!((&live["taskDefinition"], &live["runningCount"]), (&blue, &json!(3)));
    };
    let clients = Clients::many(world.prod, CLIENTS);

    // Its tasks end at once: no request is ever sent there.
    world.publish("1", "crash");
    let execution = world.begin(&seed(PIPELINE), FACTOR);
    let view = world.manager.finished(&execution, LIMIT).await;
    failed_and_back(&view, &world);
    let failed = step(&view, "Deploy_Green");
    let said = failed["failure"]["message"].as_str().unwrap();
    assert!(
        failed["status"] == "Failed" && said.contains(GREEN) && said.contains("exit code 1"),
        "{failed:#}"
    );
    assert_eq!(step(&view, "undo_Deploy_Green")["status"], "Success", "{view:#}");
    unchanged(&view).await;

    // It answers well, but too slowly.
    world.publish("2", "web 300");
    let execution = world.begin(&seed(PIPELINE), FACTOR);
    let view = world.manager.finished(&execution, LIMIT).await;
    failed_and_back(&view, &world);
    let failed = step(&view, "Verify_10_Percent");
    assert_eq!(failed["failure"]["class"], "Verification", "{view:#}");
    assert_eq!(step(&view, "undo_Route_10_Percent")["status"], "Success", "{view:#}");
    assert_eq!(step(&view, "undo_Deploy_Green")["status"], "Success", "{view:#}");
    unchanged(&view).await;

    // Somebody ends it in the middle: everything stays as it is, and how to go back is told.
    world.publish("3", GOOD);
    let execution = world.begin(&seed(PIPELINE), FACTOR);
    world.until_step(&execution, "Verify_50_Percent", &["Running"]).await;
    world.manager.ok(&["execution", "abort", &execution]);
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Aborted"), &json!(false)), "{view:#}");
    let told = world.manager.ok(&["execution", "show", &execution]);
    assert!(told.contains(&format!("delegate execution rollback {execution}")), "{told}");
    assert_eq!((world.weights(), world.scaling(SERVICE)), ([50, 50], scaling.clone()));
    for service in [SERVICE, GREEN] {
        assert_eq!(world.place().until_steady(service)["runningCount"], 3, "{service}");
    }
    let from = clients.seen();
    let (old, new) = until("some hundred requests were answered", LIMIT, async || {
        let now = clients.seen();
        let since = |body: &str| now.get(body).unwrap_or(&0) - from.get(body).unwrap_or(&0);
        let (old, new) = (since(BASE), since("3"));
        (old + new >= 300).then_some((old, new))
    })
    .await;
    assert!(within_chance(new, old + new, 0.5), "{new} of {}", old + new);

    // And back.
    let said = world.manager.json(&["execution", "rollback", &execution, "--output", "json"]);
    assert_eq!(said["status"], "Success", "{said:#}");
    unchanged(&said).await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["2", "3", BASE], "{seen:?}");
}
