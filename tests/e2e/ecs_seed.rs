//! The seeds' ECS world, and the rolling pipeline, byte for byte, in it.

use crate::ecs_world::package;
use crate::ecs_world::{
    BASE, CLUSTER, LIMIT, PROD_HOST, SERVICE, World, failed_and_back, seed, succeeded, updates,
};
use e2e::peers::aws::{self, Clients};
use e2e::wait::until;
use e2e::world::step;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_world_of_the_seeds_is_as_they_name_it() {
    let world = World::start().await;
    let place = world.place();
    let service = place.until_steady(SERVICE);
    assert_eq!(service["runningCount"], 3);
    assert!(service["taskDefinition"].as_str().unwrap().ends_with(":task-definition/myapp-task:10"));
    let clients = Clients::start(world.prod);
    assert_eq!(aws::get(world.prod, "/health"), r#"{"status":"UP"}"#);
    assert_eq!(aws::get(world.prod, "/"), BASE);
    assert!(aws::get(world.test, "/").starts_with("503"), "nobody is green");
    let average = r#"avg(container_cpu_usage_seconds_total{container_name="myapp-container"})"#;
    let seconds = world.prometheus.query(average).await["data"]["result"][0]["value"][1].clone();
    assert!(seconds.as_str().unwrap().parse::<f64>().unwrap() < 80.0, "{seconds}");
    let seed = std::fs::read_to_string(package("seeds/ecs-service-full.yaml")).unwrap();
    let entity = world.localised(&seed);
    assert!(entity.contains(&world.groups[0]) && !entity.contains("12345678\n"), "{entity}");
    // As the seed's own script asks. The command line of Python knows the region by this name only.
    let asked = std::process::Command::new(aws::command_line().join("aws"))
        .args(["ecs", "describe-services", "--cluster", CLUSTER, "--services", SERVICE])
        .args(["--query", "services[0].runningCount", "--output", "text"])
        .envs(world.ecs.env())
        .envs([
            ("AWS_ACCESS_KEY_ID", "AKIASEED"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_DEFAULT_REGION", aws::REGION),
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), "3", "{asked:?}");
    assert_eq!(place.calls(0), ["ecs:DescribeServices"]);
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), [BASE], "{seen:?}");
    assert!(world.ecs.aliases().iter().any(|(_, address)| *address == world.prod), "{PROD_HOST}");
    world.publish("1", "web");
    let tags = world.ecs.aws("ecr", "ListImages", json!({"repositoryName": "myapp"}));
    assert_eq!(tags["imageIds"].as_array().unwrap().len(), 2);
    assert!(world.agent.process.is_some() && !world.manager.url.is_empty());
    assert_eq!(world.listeners.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rolling_seed_deploys_rolls_back_and_outlives_its_agent() {
    let mut world = World::with_entities().await;
    let clients = Clients::start(world.prod);
    world.publish("1", "web");
    let view = world.run(&seed("ecs-rolling-pipeline.yaml")).await;
    succeeded(&view, &world);
    world.answers("1").await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", BASE], "{seen:?}");
    let good = world.place().until_steady(SERVICE)["taskDefinition"].clone();
    let which = json!({"taskDefinition": good});
    let definition = world.ecs.aws("ecs", "DescribeTaskDefinition", which)["taskDefinition"].clone();
    // Family and roles stay those of revision 10, though the seed's own definition names no role.
    assert_eq!(definition["family"], "myapp-task");
    assert_eq!(definition["executionRoleArn"], "arn:aws:iam::123456789012:role/ecsTaskExecutionRole");
    world.autoscale(SERVICE);
    let scaling = world.scaling(SERVICE);
    assert!(matches!(&scaling, Some((3, 10, false, names)) if *names == ["cpu"]), "{scaling:?}");
    // The real command line was asked by the script, with the connector's key.
    assert!(world.log(&view).contains("Verifying deployment..."), "{}", world.log(&view));
    assert!(!world.log(&view).contains("aws-secret-of-the-seed"));

    // Its tasks end at once.
    world.publish("2", "crash");
    let clients = Clients::start(world.prod);
    let view = world.run(&seed("ecs-rolling-pipeline.yaml")).await;
    failed_and_back(&view, &world);
    let failed = step(&view, "Rolling_Deployment");
    let said = failed["failure"]["message"].as_str().unwrap();
    assert!(
        failed["status"] == "Failed" && said.contains(SERVICE) && said.contains("exit code 1"),
        "{failed:#}"
    );
    assert_eq!(step(&view, "Health_Check")["status"], "NotStarted", "{view:#}");
    assert_eq!(step(&view, "Rolling_Rollback")["status"], "Success", "{view:#}");
    world.answers("1").await;
    assert_eq!(world.place().until_steady(SERVICE)["taskDefinition"], good);
    assert_eq!(world.scaling(SERVICE), scaling);

    // The metric says no; the agent dies while its rollback step puts the old revision back.
    world.publish("3", "web");
    world.exhausted().await;
    let execution = world.begin(&seed("ecs-rolling-pipeline.yaml"), 60);
    world.until_step(&execution, "Health_Check", &["Running", "Success"]).await;
    world.killed_during("ecs", "UpdateService").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    failed_and_back(&view, &world);
    assert_eq!(step(&view, "Continuous_Verification")["failure"]["class"], "Verification", "{view:#}");
    assert_eq!(step(&view, "Rolling_Rollback")["status"], "Success", "{view:#}");
    world.answers("1").await;
    assert_eq!(world.place().until_steady(SERVICE)["taskDefinition"], good);
    assert_eq!(world.scaling(SERVICE), scaling);
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", "3"], "{seen:?}");

    // No image of that tag: nothing is changed at all.
    let before = world.place().calls(0).len();
    let view = world.run(&seed("ecs-rolling-pipeline.yaml")).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    let changed: Vec<String> = world.place().calls(0).split_off(before);
    assert!(
        changed.iter().all(|call| !["Register", "Update", "Create"].iter().any(|verb| call.contains(verb))),
        "{changed:?}"
    );

    // The agent dies while the new tasks are waited for.
    world.publish("5", "late 2");
    world.rested().await;
    let clients = Clients::start(world.prod);
    let before = world.last_call();
    let execution = world.begin(&seed("ecs-rolling-pipeline.yaml"), 60);
    world.killed_after(before, "UpdateService", |call| updates(call, SERVICE)).await;
    assert!(matches!(world.scaling(SERVICE), Some((3, 10, true, _))), "{:?}", world.scaling(SERVICE));
    let view = world.manager.finished(&execution, LIMIT).await;
    succeeded(&view, &world);
    world.answers("5").await;
    assert_eq!(world.calls_that(before, |call| updates(call, SERVICE)).len(), 1, "it was sent once");
    assert_eq!(world.scaling(SERVICE), scaling);

    // Somebody ends it while the new tasks are waited for: nothing is taken back, but the service may scale again.
    world.publish("6", "late 5");
    let execution = world.begin(&seed("ecs-rolling-pipeline.yaml"), 60);
    until("scaling is suspended", LIMIT, async || {
        matches!(world.scaling(SERVICE), Some((3, 10, true, _))).then_some(())
    })
    .await;
    world.manager.ok(&["execution", "abort", &execution]);
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Aborted"), &json!(false)), "{view:#}");
    let told = world.manager.ok(&["execution", "show", &execution]);
    assert!(told.contains(&format!("delegate execution rollback {execution}")), "{told}");
    assert_eq!(world.scaling(SERVICE), scaling);
    let said = world.manager.json(&["execution", "rollback", &execution, "--output", "json"]);
    assert_eq!(said["status"], "Success", "{said:#}\n{}", world.log(&said));
    world.answers("5").await;
    assert_eq!(world.place().until_steady(SERVICE)["runningCount"], 3);
    assert_eq!(world.scaling(SERVICE), scaling);
    let seen = clients.stop();
    assert!(seen.keys().all(|body| ["1", "5", "6"].contains(&body.as_str())), "{seen:?}");
}
