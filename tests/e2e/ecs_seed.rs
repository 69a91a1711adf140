//! The seeds' ECS pipelines, byte for byte, against the region.

use crate::ecs_world::{BASE, CLUSTER, LIMIT, PROD_HOST, SERVICE, World, package};
use e2e::peers::aws::{self, Clients};
use e2e::wait::until;
use e2e::world::step;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

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

fn seed(name: &str) -> PathBuf {
    package("seeds").join(name)
}

/// Every step that is not one of a rollback, with its status.
fn of_stage(view: &Value) -> Vec<String> {
    view["stages"][0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["identifier"].as_str().unwrap(), one["status"].as_str().unwrap()))
        .collect()
}

fn succeeded(view: &Value, world: &World) {
    assert_eq!(
        (&view["status"], &view["rolledBack"]),
        (&json!("Success"), &json!(false)),
        "{view:#}\n{}",
        world.log(view)
    );
    assert!(of_stage(view).iter().all(|one| one.ends_with(" Success")), "{view:#}");
}

fn failed_and_back(view: &Value, world: &World) {
    assert_eq!(
        (&view["status"], &view["rolledBack"]),
        (&json!("Failed"), &json!(true)),
        "{view:#}\n{}",
        world.log(view)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rolling_seed_deploys_and_rolls_back() {
    let world = World::with_entities().await;
    let place = world.place();
    let clients = Clients::start(world.prod);
    world.publish("1", "web");
    let view = world.run(&seed("ecs-rolling-pipeline.yaml")).await;
    succeeded(&view, &world);
    world.answers("1").await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", BASE], "{seen:?}");
    let good = place.until_steady(SERVICE)["taskDefinition"].clone();
    // The real command line was asked by the script, with the connector's key.
    assert!(world.log(&view).contains("Verifying deployment..."), "{}", world.log(&view));
    assert!(!world.log(&view).contains("aws-secret-of-the-seed"));

    // Its tasks end at once.
    world.publish("2", "crash");
    let clients = Clients::start(world.prod);
    let view = world.run(&seed("ecs-rolling-pipeline.yaml")).await;
    failed_and_back(&view, &world);
    assert_eq!(step(&view, "Rolling_Deployment")["status"], "Failed", "{view:#}");
    assert_eq!(step(&view, "Rolling_Rollback")["status"], "Success", "{view:#}");
    world.answers("1").await;
    assert_eq!(place.until_steady(SERVICE)["taskDefinition"], good);

    // The metric says no.
    world.publish("3", "web");
    world.exhausted().await;
    let view = world.run(&seed("ecs-rolling-pipeline.yaml")).await;
    failed_and_back(&view, &world);
    assert_eq!(step(&view, "Continuous_Verification")["failure"]["class"], "Verification", "{view:#}");
    assert_eq!(step(&view, "Rolling_Rollback")["status"], "Success", "{view:#}");
    world.answers("1").await;
    assert_eq!(place.until_steady(SERVICE)["taskDefinition"], good);
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", "3"], "{seen:?}");

    // No image of that tag: nothing is changed at all.
    let before = place.calls(0).len();
    let view = world.run(&seed("ecs-rolling-pipeline.yaml")).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    let changed: Vec<String> = place.calls(0).split_off(before);
    assert!(
        changed.iter().all(|call| !["Register", "Update", "Create"].iter().any(|verb| call.contains(verb))),
        "{changed:?}"
    );
}

/// What clients saw while a step ran, in two halves.
async fn halves(world: &World, clients: &Clients, execution: &str, id: &str) -> [BTreeMap<String, usize>; 2] {
    let running = || step(&world.manager.show(execution), id)["status"] == "Running";
    until("the step runs", LIMIT, async || running().then_some(())).await;
    let mut seen = vec![clients.seen()];
    until("the step has run", LIMIT, async || {
        let now = clients.seen();
        let runs = running();
        if runs {
            seen.push(now);
        }
        (!runs).then_some(())
    })
    .await;
    let marks = [&seen[0], &seen[seen.len() / 2], &seen[seen.len() - 1]];
    [(0, 1), (1, 2)].map(|(from, to)| {
        let before = |body: &String| marks[from].get(body).copied().unwrap_or(0);
        marks[to].iter().map(|(body, count)| (body.clone(), count - before(body))).collect()
    })
}

/// By chance this is wrong once in a million times.
fn shared_by(halves: &[BTreeMap<String, usize>; 2], body: &str, share: f64) {
    let fits = |seen: &BTreeMap<String, usize>| {
        let total: usize = seen.values().sum();
        total >= 100 && aws::within_chance(seen.get(body).copied().unwrap_or(0), total, share)
    };
    assert!(halves.iter().any(fits), "{body} has not {share} of {halves:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not run yet: manager and executor of ECS came together only at the end of the session"]
async fn the_blue_green_seed_shifts_by_weights_and_ends_blue() {
    let world = World::with_entities().await;
    let clients = Clients::start(world.prod);
    world.publish("1", "web");
    let file = seed("ecs-blue-green-pipeline.yaml");
    // Slower than the others: 30 s for a share to be seen.
    let execution = world.manager.start_pipeline(&[file.to_str().unwrap(), "--rehearse", "10"]);
    let ten = halves(&world, &clients, &execution, "Verify_10_Percent").await;
    let fifty = halves(&world, &clients, &execution, "Verify_50_Percent").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    succeeded(&view, &world);
    shared_by(&ten, "1", 0.1);
    shared_by(&fifty, "1", 0.5);
    world.answers("1").await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", BASE], "{seen:?}");
    let blue = world.place().describe(SERVICE);
    assert!(blue["status"] == "INACTIVE" || blue["runningCount"] == 0, "{blue:#}");
    assert_eq!(world.place().until_steady("myapp-service-green")["runningCount"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_seed_grows_goes_and_deploys_all() {
    let world = World::with_entities().await;
    let clients = Clients::start(world.prod);
    world.publish("1", "web");
    let file = seed("ecs-canary-pipeline.yaml");
    let execution = world.manager.start_pipeline(&[file.to_str().unwrap(), "--rehearse", "30"]);
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
    let names = world.ecs.aws("ecs", "ListServices", json!({"cluster": CLUSTER}));
    assert_eq!(names["serviceArns"].as_array().unwrap().len(), 1, "{names:#}");
}
