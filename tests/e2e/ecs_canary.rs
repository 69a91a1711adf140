//! The seed's canary pipeline, byte for byte, in the seeds' ECS world.

use crate::ecs_world::{BASE, LIMIT, SERVICE, World, failed_and_back, halves, seed, succeeded, updates};
use e2e::peers::aws::{self, Clients};
use e2e::wait::until;
use e2e::world::step;
use serde_json::json;
use std::collections::BTreeMap;

const PIPELINE: &str = "ecs-canary-pipeline.yaml";

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_seed_grows_goes_and_deploys_all() {
    let world = World::with_entities().await;
    let clients = Clients::start(world.prod);
    world.publish("1", "web");
    let execution = world.begin(&seed(PIPELINE), 60);
    let mut most = BTreeMap::new();
    for id in ["Verify_Canary_10", "Verify_Canary_25", "Verify_Canary_50"] {
        let [_, late] = halves(&world, &clients, &execution, id).await;
        most.insert(id, late);
    }
    let view = world.manager.finished(&execution, LIMIT).await;
    succeeded(&view, &world);
    for seen in most.values() {
        assert!(
            seen.get("1").is_some_and(|count| *count > 0) && seen.get(BASE).is_some_and(|count| *count > 0),
            "{most:?}"
        );
    }
    world.answers("1").await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", BASE], "{seen:?}");
    assert_eq!(world.services(), [SERVICE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_seed_takes_back_what_is_bad_and_outlives_its_agent() {
    let mut world = World::with_entities().await;
    let base = world.place().describe(SERVICE)["taskDefinition"].clone();
    let clients = Clients::start(world.prod);

    // Its tasks end at once: nobody but the canary was touched, and that is gone.
    world.publish("1", "crash");
    let view = world.run(&seed(PIPELINE)).await;
    failed_and_back(&view, &world);
    let failed = step(&view, "Canary_Deploy_10");
    assert_eq!(failed["status"], "Failed", "{view:#}");
    let said = failed["failure"]["message"].as_str().unwrap();
    assert!(said.contains("myapp-serviceCanary") && said.contains("exit code 1"), "{said}");
    assert_eq!(step(&view, "undo_Canary_Deploy_10")["status"], "Success", "{view:#}");
    assert_eq!(world.services(), [SERVICE]);
    world.answers(BASE).await;

    // It answers well, but somebody's requests fail while it is watched.
    world.publish("2", "web");
    let execution = world.begin(&seed(PIPELINE), 60);
    world.until_step(&execution, "Verify_Canary_10", &["Running"]).await;
    until("the verification has seen that", LIMIT, async || {
        assert_eq!(aws::traffic(world.prod, "/fail?code=503", 10).values().sum::<usize>(), 10);
        let running = step(&world.manager.show(&execution), "Verify_Canary_10")["status"] == "Running";
        (!running).then_some(())
    })
    .await;
    let view = world.manager.finished(&execution, LIMIT).await;
    failed_and_back(&view, &world);
    assert_eq!(step(&view, "Verify_Canary_10")["failure"]["class"], "Verification", "{view:#}");
    assert_eq!(step(&view, "undo_Canary_Deploy_10")["status"], "Success", "{view:#}");
    assert_eq!(world.services(), [SERVICE]);
    world.answers(BASE).await;
    assert_eq!(world.place().until_steady(SERVICE)["taskDefinition"], base);

    // The agent dies while the canary is made, while it is deleted, and while all others are replaced.
    world.publish("3", "web");
    let before = world.last_call();
    let execution = world.begin(&seed(PIPELINE), 60);
    world.killed_during("ecs", "CreateService").await;
    world.until_step(&execution, "Verify_Canary_50", &["Running"]).await;
    world.killed_during("ecs", "DeleteService").await;
    world.killed_after(before, "UpdateService", |call| updates(call, SERVICE)).await;
    let view = world.manager.finished(&execution, LIMIT).await;
    succeeded(&view, &world);
    world.answers("3").await;
    assert_eq!(world.services(), [SERVICE]);
    assert_eq!(world.calls_that(before, |call| updates(call, SERVICE)).len(), 1, "each change was sent once");
    assert_eq!(world.place().until_steady(SERVICE)["runningCount"], 3);

    // Somebody ends it while the canary is watched: it stays until somebody else rolls that back.
    world.publish("4", "web");
    let execution = world.begin(&seed(PIPELINE), 60);
    world.until_step(&execution, "Verify_Canary_10", &["Running"]).await;
    world.manager.ok(&["execution", "abort", &execution]);
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Aborted"), &json!(false)), "{view:#}");
    assert_eq!(world.place().until_steady("myapp-serviceCanary")["runningCount"], 1);
    let said = world.manager.json(&["execution", "rollback", &execution, "--output", "json"]);
    assert_eq!(said["status"], "Success", "{said:#}\n{}", world.log(&said));
    assert_eq!(world.services(), [SERVICE]);
    world.answers("3").await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["2", "3", "4", BASE], "{seen:?}");
}
