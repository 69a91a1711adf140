//! The seed's VM pipeline, byte for byte, on a booted machine; then a second pipeline with config files from Git.

use crate::vm_world::{HOST, World, package};
use e2e::wait::until;
use e2e::world::step;
use serde_json::Value;
use std::time::Duration;

fn seed() -> String {
    package("seeds/vm-deployment-pipeline.yaml").display().to_string()
}

/// Runs the seed to its end; returns exit code, view and the progress text.
fn run(world: &World, file: &str, extra: &[&str]) -> (Option<i32>, Value, String) {
    let mut args = vec!["pipeline", "run", file, "--output", "json"];
    args.extend_from_slice(extra);
    let output = world.manager.run(&args);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let view = serde_json::from_str(&stdout)
        .unwrap_or_else(|e| panic!("no JSON ({e}), exit {:?}:\n{stdout}\n{stderr}", output.status.code()));
    (output.status.code(), view, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_pipeline_deploys_verifies_and_rolls_back() {
    let world = World::start().await;
    world.runs("0").await;

    // 1: nobody asks for anything yet: the verification says no, and the old version comes back.
    world.publish(1, "UP");
    let (code, view, text) = run(&world, &seed(), &["--rehearse", "60"]);
    assert_eq!((code, view["status"].as_str()), (Some(1), Some("Failed")), "{view:#}\n{text}");
    let verify = step(&view, "Continuous_Verification");
    assert_eq!(verify["failure"]["class"], "Verification", "{verify:#}");
    assert_eq!(step(&view, "Rollback_Application")["status"], "Success");
    world.runs("0").await;
    world.traffic.set_rate(400_000);
    until("the rate rises", Duration::from_secs(30), || async {
        let reply = world.prometheus.query("sum(rate(http_requests_total[5m]))").await;
        let value: f64 = reply["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
        (value > 1000.0).then_some(())
    })
    .await;

    // 2: everything is fine.
    world.publish(2, "UP");
    let (code, view, text) = run(&world, &seed(), &["--rehearse", "60"]);
    assert_eq!((code, view["status"].as_str()), (Some(0), Some("Success")), "{view:#}\n{text}");
    assert_eq!(view["rehearsal"], 60);
    assert_eq!(view["rolledBack"], false);
    let statuses: Vec<&str> = view["stages"][0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["Success"; 9]);
    assert_eq!(step(&view, "Backup_Current_Application")["hosts"][0]["host"], HOST);
    assert_eq!(step(&view, "Backup_Current_Application")["agent"], "zone-a");
    assert_eq!(step(&view, "Health_Check")["outputs"]["httpResponseCode"], 200);
    world.runs("2").await;
    assert_eq!(
        world.vm.get("/opt/myapp/conf/app.properties").unwrap().lines().next(),
        Some("environment=production")
    );
    assert_eq!(world.vm.ok("systemctl is-active myapp"), "active");
    assert_eq!(world.left_on_the_machine(), "");
    let id = view["executionId"].as_str().unwrap();
    let logs = world.manager.ok(&["execution", "logs", id]);
    for line in ["Creating backup...", "Services stopped", "Application extracted", "Smoke tests passed"] {
        assert!(logs.contains(line), "`{line}` is not in the log:\n{logs}");
    }
    assert!(!logs.contains("artifact-pw-1"));

    // 3: the new version says DOWN: the backup comes back.
    world.publish(3, "DOWN");
    let (code, view, text) = run(&world, &seed(), &["--rehearse", "60"]);
    assert_eq!((code, view["status"].as_str()), (Some(1), Some("Failed")), "{view:#}\n{text}");
    assert_eq!(view["rolledBack"], true);
    assert_eq!(step(&view, "Health_Check")["status"], "Failed");
    assert_eq!(step(&view, "Run_Smoke_Tests")["status"], "NotStarted");
    assert_eq!(step(&view, "Rollback_Application")["status"], "Success");
    assert_eq!(step(&view, "Rollback_Application")["rollback"], true);
    world.runs("2").await;
    assert_eq!(world.vm.get("/opt/myapp/version").as_deref(), Some("2\n"));
    assert_eq!(world.vm.get("/opt/myapp/health").as_deref(), Some("UP\n"));
    assert_eq!(world.vm.ok("systemctl is-active myapp"), "active");
    assert_eq!(world.left_on_the_machine(), "");

    // 4: the host is away.
    world.publish(4, "UP");
    world.vm.set_reachable(false);
    let (code, view, text) = run(&world, &seed(), &["--rehearse", "60"]);
    assert_eq!((code, view["status"].as_str()), (Some(1), Some("Failed")), "{view:#}\n{text}");
    let backup = step(&view, "Backup_Current_Application");
    assert_eq!(backup["hosts"][0]["failure"]["class"], "Connectivity", "{backup:#}");
    assert!(backup["hosts"][0]["failure"]["message"].as_str().unwrap().contains(HOST), "{backup:#}");
    world.vm.set_reachable(true);
    world.runs("2").await;

    // 5: somebody aborts while services start (the script sleeps 5 s there).
    world.publish(5, "UP");
    let id = world.manager.start_pipeline(&[&seed(), "--rehearse", "60"]);
    until("services start", Duration::from_secs(60), || async {
        (step(&world.manager.show(&id), "Start_Services")["status"] == "Running").then_some(())
    })
    .await;
    world.manager.ok(&["execution", "abort", &id]);
    let view = world.manager.finished(&id, Duration::from_secs(60)).await;
    assert_eq!(view["status"], "Aborted", "{view:#}");
    assert_eq!(step(&view, "Rollback_Application")["status"], "NotStarted");
    world.manager.ok(&["execution", "abort", &id]);
    assert_eq!(world.left_on_the_machine(), "");

    // A second pipeline: both config files arrive from Git.
    let file = package("seeds/vm-entities/vm-config-pipeline.yaml").display().to_string();
    let (code, view, text) = run(&world, &file, &[]);
    assert_eq!((code, view["status"].as_str()), (Some(0), Some("Success")), "{view:#}\n{text}");
    assert_eq!(world.vm.get("/opt/myapp/conf/app.properties").as_deref(), Some("environment=from-git\n"));
    assert_eq!(
        world.vm.get("/opt/myapp/conf/log4j.xml").as_deref(),
        Some("<Configuration status=\"warn\"/>\n")
    );
    assert_eq!(
        step(&view, "Copy_Config")["outputs"]["outputVariables"]["seen"],
        "INFO production r1",
        "{view:#}"
    );
    let logs = world.manager.ok(&["execution", "logs", view["executionId"].as_str().unwrap()]);
    assert!(logs.contains("a line on stderr") && !logs.contains("git-token-1"), "{logs}");
}

/// `make demo-vm-realtime`: nothing divided, about 12 minutes, what a person would see on the terminal.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 12 minutes; run by make demo-vm-realtime"]
async fn demo_vm_realtime() {
    let world = World::start().await;
    world.traffic.set_rate(400_000);
    world.publish(1, "UP");
    println!("before: version {} answers", world.version().await);
    let status = world.manager.cli(&["pipeline", "run", &seed(), "--follow"]).status().unwrap();
    println!("after: version {} answers; the client ended with {status}", world.version().await);
    assert_eq!(status.code(), Some(0));
    world.runs("1").await;
}
