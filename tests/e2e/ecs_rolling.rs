//! A rolling deployment from the command line to what answers at the load balancer. Service and pipeline are the seed's
//! without the parts that have nothing to do with it: the artifact's tag is written into the image, and the steps that look
//! at AWS beside the deployment are left out.

use crate::ecs_world::{BASE, SERVICE, World, package};
use e2e::peers::aws::Clients;
use e2e::world::{step, steps};
use serde_json::Value;
use std::path::PathBuf;

const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/myapp:<+pipeline.sequenceId>";

/// `text` without what lies from the line that contains `from` up to the line that contains `to`.
fn without(text: &str, from: &str, to: &str) -> String {
    let mut kept = Vec::new();
    let (mut inside, mut found) = (false, false);
    for line in text.lines() {
        if line.contains(from) {
            (inside, found) = (true, true);
        }
        if inside && line.contains(to) {
            inside = false;
        }
        if !inside {
            kept.push(line);
        }
    }
    assert!(found && !inside, "`{from}` … `{to}` is not in the seed");
    kept.join("\n") + "\n"
}

/// Applies the service; returns the pipeline's file.
fn shortened(world: &World) -> PathBuf {
    let seed = |name: &str| std::fs::read_to_string(package("seeds").join(name)).unwrap();
    let service = without(&seed("ecs-service-full.yaml"), "      artifacts:", "      taskDefinition:")
        .replace("<+artifact.image>", IMAGE)
        .replace("name: myapp-ecs-service", "name: myapp-short");
    world.manager.apply("service-short", &world.localised(&service));
    let pipeline = without(&seed("ecs-rolling-pipeline.yaml"), "# Step 1:", "# Step 3:");
    let pipeline = without(&pipeline, "# Step 4:", "# Step 5:");
    let pipeline = without(&pipeline, "            serviceDefinition:", "          infrastructure:")
        .replace("serviceRef: myapp-ecs-service", "serviceRef: myapp-short");
    let pipeline: String = pipeline
        .lines()
        .filter(|line| !line.contains("<+serviceConfig.artifacts.primary.tag>"))
        .map(|line| format!("{line}\n"))
        .collect();
    let file = world.file("ecs-rolling-short.yaml");
    std::fs::write(&file, pipeline).unwrap();
    file
}

fn statuses(view: &Value) -> Vec<(String, String)> {
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    steps(view)
        .iter()
        .map(|one| (text(one, "identifier"), text(one, "status")))
        .filter(|(id, _)| ["Rolling", "Health", "Continuous"].iter().any(|known| id.starts_with(known)))
        .collect()
}

fn expected(all: [(&str, &str); 4]) -> Vec<(String, String)> {
    all.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_brings_the_new_revision_and_takes_back_what_is_bad() {
    let world = World::with_entities().await;
    let place = world.place();
    let pipeline = shortened(&world);
    let clients = Clients::start(world.prod);

    // 1: the new revision comes, and nobody who asks meanwhile is refused.
    world.publish("1", "web");
    let view = world.run(&pipeline).await;
    let told = |view: &Value| format!("{view:#}\n{}", world.log(view));
    assert_eq!((&view["status"], &view["rolledBack"]), (&"Success".into(), &false.into()), "{}", told(&view));
    assert_eq!(
        statuses(&view),
        expected([
            ("Rolling_Deployment", "Success"),
            ("Health_Check", "Success"),
            ("Continuous_Verification", "Success"),
            ("Rolling_Rollback", "NotStarted"),
        ])
    );
    world.answers("1").await;
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", BASE], "{seen:?}");
    let service = place.until_steady(SERVICE);
    assert_eq!((&service["runningCount"], &service["desiredCount"]), (&3.into(), &3.into()));
    let good = service["taskDefinition"].clone();
    let definition = world.ecs.aws(
        "ecs",
        "DescribeTaskDefinition",
        serde_json::json!({"taskDefinition": good}),
    )["taskDefinition"]
        .clone();
    // Family and roles stay those of revision 10, though the seed's own definition names none.
    assert_eq!(definition["family"], "myapp-task");
    assert_eq!(definition["executionRoleArn"], "arn:aws:iam::123456789012:role/ecsTaskExecutionRole");
    assert!(!world.log(&view).contains("aws-secret-of-the-seed"));

    // 2: its tasks end at once: the step says so with the tasks' words, and the revision before it is there.
    world.publish("2", "crash");
    let clients = Clients::start(world.prod);
    let view = world.run(&pipeline).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&"Failed".into(), &true.into()), "{}", told(&view));
    assert_eq!(
        statuses(&view),
        expected([
            ("Rolling_Deployment", "Failed"),
            ("Health_Check", "NotStarted"),
            ("Continuous_Verification", "NotStarted"),
            ("Rolling_Rollback", "Success"),
        ]),
        "{}",
        told(&view)
    );
    let failure = &step(&view, "Rolling_Deployment")["failure"];
    assert!(failure["message"].as_str().unwrap().contains(SERVICE), "{failure:#}");
    world.answers("1").await;
    assert_eq!(place.until_steady(SERVICE)["taskDefinition"], good);
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1"], "{seen:?}");

    // 3: it answers well, but the metric says no: the verification takes it back.
    world.publish("3", "web");
    world.exhausted().await;
    let clients = Clients::start(world.prod);
    let view = world.run(&pipeline).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&"Failed".into(), &true.into()), "{}", told(&view));
    assert_eq!(
        statuses(&view),
        expected([
            ("Rolling_Deployment", "Success"),
            ("Health_Check", "Success"),
            ("Continuous_Verification", "Failed"),
            ("Rolling_Rollback", "Success"),
        ]),
        "{}",
        told(&view)
    );
    assert_eq!(step(&view, "Continuous_Verification")["failure"]["class"], "Verification", "{view:#}");
    world.answers("1").await;
    assert_eq!(place.until_steady(SERVICE)["taskDefinition"], good);
    let seen = clients.stop();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1", "3"], "{seen:?}");
}
