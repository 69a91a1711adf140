//! Speed of a wait on the AWS peer: how soon a service that has become stable is noticed, against `aws ecs update-service` and
//! `aws ecs wait services-stable`; what fifty waits at once ask for, against fifty of its waiters; memory.
//!
//! With `ECS_SPEED_FULL` set everything is measured and printed as `figure NAME VALUE`, each test in a process of its own. An
//! ordinary test run takes smaller numbers and wider limits.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

#[path = "real/peer.rs"]
mod peer;

use executor_api::Executor as _;
use executor_api::testing::World;
use executor_api::testing::figures::{self, figure, highest_rss, median};
use peer::aws::{Place, REGION};
use peer::{definitions, executor, image, place, rolling, secrets, spec, task};
use proto::task::{EcsAction, EcsDefinitions, TaskCount};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Whether everything is measured, as `make bench` asks.
fn full() -> bool {
    figures::full("ECS_SPEED_FULL")
}

/// Id of the deployment that is primary.
fn primary(service: &Value) -> String {
    service["deployments"][0]["id"].as_str().unwrap_or_default().to_owned()
}

/// When a service is first seen stable on another deployment than `before`: completed, alone, with all of its tasks. That is
/// what the waiter of the command line waits for, and rather later than what ECS calls completed.
fn stable_at(at: &Place<'_>, service: &str, before: &str) -> Instant {
    at.until(service, "steady on another deployment", |now| Place::is_steady(now) && primary(now) != before);
    Instant::now()
}

/// Seconds from stable to noticed; `act` starts a rollout and returns when it takes it for done.
async fn noticed(at: &'static Place<'static>, service: &'static str, act: impl Future<Output = ()>) -> f64 {
    let before = primary(&at.describe(service));
    let watch = tokio::task::spawn_blocking(move || stable_at(at, service, &before));
    act.await;
    let done = Instant::now();
    let stable = watch.await.unwrap();
    // Noticed before this test saw it: at once.
    done.checked_duration_since(stable).unwrap_or_default().as_secs_f64()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The command line, as somebody with the key `key`.
fn command(at: &Place<'_>, key: &str) -> Command {
    let mut command = Command::new(peer::aws::command_line().join("aws"));
    command.env_clear().envs(at.ecs.env());
    command.env("PATH", "/usr/bin:/bin").env("HOME", at.ecs.dir()).env("AWS_PAGER", "");
    command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", "x").env("AWS_DEFAULT_REGION", REGION);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stable_service_is_noticed_at_once() {
    let at: &'static Place<'static> = Box::leak(Box::new(place("speeda").await));
    let reference = image(at, "1", "web");
    let definition = at.register("web-speeda", &reference);
    at.run("ours", &definition, 1, None);
    at.run("theirs", &definition, 1, None);
    let (mine, peers) = if full() { (15, 9) } else { (2, 1) };
    let mut ours = Vec::new();
    for run in 0..mine {
        // Another revision each time, as a deployment brings it.
        let mut given = definitions(at, "ours", &reference, 1, None);
        if let Some(task) = &mut given.task {
            let mut document = at.definition("web-speeda", &reference);
            document["containerDefinitions"][0]["environment"] =
                json!([{"name": "RUN", "value": run.to_string()}]);
            task.document = Some(peer::document("taskDefinition", document));
        }
        let spec = spec(at, given, rolling());
        let execution = format!("run{run}");
        let world = World::new(execution.as_str(), task(&spec, &execution, "roll"), secrets());
        let executor = executor();
        let (_handle, cx) = world.context();
        let act = async {
            if let Err(error) = executor.run(&spec, &cx).await {
                panic!("{error}\n{}", world.logs.everything());
            }
        };
        ours.push(noticed(at, "ours", act).await);
    }
    let mut theirs = Vec::new();
    for _ in 0..peers {
        let act = async {
            tokio::task::spawn_blocking(|| {
                let of = ["--cluster", at.name.as_str()];
                let mut update = command(at, "AKIAWAITER");
                update
                    .args(["ecs", "update-service", "--force-new-deployment", "--service", "theirs"])
                    .args(of);
                assert!(update.status().unwrap().success());
                let mut wait = command(at, "AKIAWAITER");
                wait.args(["ecs", "wait", "services-stable", "--services", "theirs"]).args(of);
                assert!(wait.status().unwrap().success());
            })
            .await
            .unwrap();
        };
        theirs.push(noticed(at, "theirs", act).await);
    }
    let (most, peer_most) = (largest(&ours), largest(&theirs));
    let (middle, peer_middle) = (median(&ours), median(&theirs));
    println!("ours {ours:?}\ntheirs {theirs:?}");
    figure("noticed-median-s", middle);
    figure("noticed-max-s", most);
    figure("waiter-median-s", peer_middle);
    figure("waiter-max-s", peer_most);
    // An ordinary run shows that a stable service is noticed at all; how soon is the bench's business.
    assert!(!full() || middle <= 5.0, "{ours:?}");
}

/// Calls that look at services and tasks.
fn looks(at: &Place<'_>, key: &str, after: u64) -> usize {
    let waits = [
        "DescribeServices",
        "ListTasks",
        "DescribeTasks",
        "DescribeServiceDeployments",
        "ListServiceDeployments",
    ];
    let calls = at.ecs.calls(after).into_iter();
    calls.filter(|call| call.key == key && waits.contains(&call.operation.as_str())).count()
}

/// Waiters as the command line has them, each in a thread: fifty processes of it would measure this machine.
const WAITERS: &str = "
import boto3, botocore.config, sys, threading
cluster, names = sys.argv[1], sys.argv[2].split(',')
config = botocore.config.Config(max_pool_connections=len(names))
ecs = boto3.client('ecs', config=config)
def roll(name):
    ecs.update_service(cluster=cluster, service=name, desiredCount=2)
    ecs.get_waiter('services_stable').wait(cluster=cluster, services=[name])
threads = [threading.Thread(target=roll, args=(name,)) for name in names]
[t.start() for t in threads]
[t.join() for t in threads]
";

#[tokio::test(flavor = "multi_thread")]
async fn many_waits_ask_together() {
    let at: &'static Place<'static> = Box::leak(Box::new(place("speedb").await));
    let number = if full() { 50 } else { 8 };
    let definition = at.register("web-speedb", &image(at, "1", "web"));
    let names: &'static [String] = Box::leak((0..number).map(|n| format!("s{n}")).collect());
    for name in names {
        at.ecs.aws("ecs", "CreateService", at.service(name, &definition, 1, None));
    }
    for name in names {
        at.until_steady(name);
    }
    let executor = executor();
    let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
    let steps = names.iter().map(|name| {
        let executor = executor.clone();
        async move {
            let action = EcsAction::EcsScale {
                service: name.clone(),
                instances: TaskCount::Count(2),
                skip_steady_state_check: false,
            };
            let spec = spec(at, EcsDefinitions::default(), action);
            let world = World::new(name.as_str(), task(&spec, "many", name), secrets());
            let (_handle, cx) = world.context();
            if let Err(error) = executor.run(&spec, &cx).await {
                panic!("{name}: {error}\n{}", world.logs.everything());
            }
        }
    });
    let began = Instant::now();
    futures::future::join_all(steps).await;
    let took = began.elapsed().as_secs_f64();
    let rss = highest_rss();
    // Each step looks once before it sends anything; that is no wait.
    let ours = looks(at, &at.key, before) - number;
    for name in names {
        at.ecs.aws("ecs", "UpdateService", json!({"cluster": at.name, "service": name, "desiredCount": 1}));
    }
    for name in names {
        at.until_steady(name);
    }
    let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
    let began = Instant::now();
    let waited = tokio::task::spawn_blocking(move || {
        let named = command(at, "AKIAWAITER");
        let python = peer::aws::command_line().join("python");
        let mut waiters = Command::new(python);
        waiters.env_clear();
        for (name, value) in named.get_envs() {
            waiters.env(name, value.unwrap_or_default());
        }
        waiters.args(["-c", WAITERS, at.name.as_str(), &names.join(",")]);
        assert!(waiters.status().unwrap().success());
    });
    waited.await.unwrap();
    let waiters_took = began.elapsed().as_secs_f64();
    let theirs = looks(at, "AKIAWAITER", before);
    println!("ours {ours} looks in {took} s, waiters {theirs} in {waiters_took} s");
    let (ours, theirs) = (u32::try_from(ours).unwrap(), u32::try_from(theirs).unwrap());
    figure("many-looks", f64::from(ours));
    figure("many-waiter-looks", f64::from(theirs));
    figure("many-looks-ratio", f64::from(ours) / f64::from(theirs));
    figure("many-seconds", took);
    figure("many-waiter-seconds", waiters_took);
    figure("many-rss-mib", rss);
    assert!(ours <= theirs || !full(), "{ours} against {theirs}");
    assert!(rss <= if full() { 120.0 } else { 250.0 }, "{rss} MiB");
}
