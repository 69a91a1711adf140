//! The seeds' ECS pipelines, byte for byte, against the region.

use crate::ecs_world::{BASE, CLUSTER, PROD_HOST, SERVICE, World, package};
use e2e::peers::aws::{self, Clients};
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
