//! Waits on the AWS peer (`tests/peers/aws`): its scheduler, real containers.

#[path = "../../../../tests/src/peers/aws.rs"]
mod peer;

use super::*;
use crate::EcsExecutor;
use crate::documents::arn::short;
use crate::session::ecs;
use aws::Repeat;
use executor_api::testing::{World, until};
use executor_api::{CancelHandle, CancelReason, CancelStage, Class, LogSink as _};
use peer::{Ecs, Fault, Place, REGION};
use proto::task::{AwsAccount, AwsCredential, EcsAction, EcsSpec, Step, StepSpec, StepTask, TaskCount};
use proto::text::SecretRef;
use serde_json::json;
use std::collections::BTreeMap;

/// A place, and a step's session in it.
struct Setting {
    place: Place<'static>,
    world: World,
    session: Session,
    cancel: CancelHandle,
    /// Behind it a task counts once it is healthy, so that a rollout takes as long as its tasks do.
    group: Option<String>,
}

fn account(place: &Place<'_>) -> AwsAccount {
    AwsAccount {
        connector: "aws".into(),
        region: REGION.into(),
        credential: AwsCredential::ManualConfig {
            access_key: place.key.as_str().into(),
            secret_key: proto::text::placeholder(&SecretRef("key".into()), 7).into(),
            session_token: None,
        },
        assume_role: None,
        endpoints: BTreeMap::from([(String::new(), place.ecs.endpoint())]),
    }
}

async fn session(place: &Place<'_>, world: &World) -> (Session, CancelHandle) {
    let settings = crate::Settings { heartbeat: Duration::from_secs(10), ..crate::Settings::default() };
    let executor = EcsExecutor::new(aws::Client::new(aws::Settings::default()).unwrap(), settings);
    let (cancel, cx) = world.context();
    let log = world.logs.unit("u");
    (Session::open(&executor, &spec(place), &cx, log.as_ref()).await.unwrap(), cancel)
}

fn spec(place: &Place<'_>) -> EcsSpec {
    EcsSpec {
        account: account(place),
        cluster: place.name.clone(),
        definitions: proto::task::EcsDefinitions::default(),
        current_task_definition: None,
        earlier: proto::task::EcsEarlier::default(),
        variables: BTreeMap::new(),
        namespace: None,
        strict: false,
        context: serde_json::Value::Null,
        action: EcsAction::EcsScale {
            service: "web".into(),
            instances: TaskCount::Count(1),
            skip_steady_state_check: false,
        },
    }
}

impl Setting {
    async fn new(name: &'static str) -> Setting {
        let place = tokio::task::spawn_blocking(move || Place::new(Ecs::shared(), name)).await.unwrap();
        let step = Step {
            identifier: "wait".into(),
            name: "wait".into(),
            spec: StepSpec::Ecs(Box::new(spec(&place))),
        };
        let task = StepTask { secret_token: 7, ..StepTask::of(step) };
        let world = World::new(name, task, [("key".to_owned(), "secret".to_owned())]);
        let (session, cancel) = session(&place, &world).await;
        Setting { place, world, session, cancel, group: None }
    }

    /// With a load balancer.
    async fn balanced(name: &'static str) -> Setting {
        let mut at = Setting::new(name).await;
        let balancer = at.place.balancer("lb");
        let group = balancer.group("g");
        balancer.listener(80, &[(&group, 1)]);
        at.group = Some(group);
        at
    }

    /// Registers a revision of `web` that behaves so.
    fn revision(&self, tag: &str, behaviour: &str) -> String {
        let (image, _) = self.place.ecs.image(&format!("app-{}", self.place.name), tag, behaviour);
        self.place.register(&format!("web-{}", self.place.name), &image)
    }

    async fn create(&self, definition: &str, count: u64, configuration: Value) -> Target {
        let mut input = self.place.service("web", definition, count, self.group.as_deref());
        input["deploymentConfiguration"] = configuration;
        if self.group.is_some() {
            // The peer divides it by twenty.
            input["healthCheckGracePeriodSeconds"] = json!(2400);
        }
        let made = self.session.change("c", ecs("CreateService"), input, Repeat::OnlyIfNotReached).await;
        target_of(&made.unwrap())
    }

    async fn update(&self, change: Value) -> Target {
        let mut input = json!({"cluster": self.place.name, "service": "web"});
        input.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let made = self.session.change("c", ecs("UpdateService"), input, Repeat::Safe).await;
        target_of(&made.unwrap())
    }

    async fn wait(&self, target: &Target) -> Result<Report, StepError> {
        let log = self.world.logs.unit("u");
        let wait = wait(&self.session, target, log.as_ref(), Options::default());
        // What the log says then tells whether it was the peer that stood still.
        match tokio::time::timeout(Duration::from_secs(240), wait).await {
            Ok(result) => result,
            Err(_) => panic!("no end after four minutes: {}\n{}", self.place.describe("web"), self.log()),
        }
    }

    async fn fails(&self, target: &Target) -> StepError {
        match self.wait(target).await {
            Ok(report) => panic!("it succeeded: {report:?}\n{}", self.log()),
            Err(error) => error,
        }
    }

    async fn succeeds(&self, target: &Target) -> Report {
        self.wait(target).await.unwrap_or_else(|error| panic!("{}: {error}\n{}", error.code, self.log()))
    }

    fn log(&self) -> String {
        self.world.logs.everything()
    }

    /// Waits for a line of the log.
    async fn says(&self, what: &str) {
        until(&format!("the log says {what}"), Duration::from_secs(120), async || {
            self.log().contains(what).then_some(())
        })
        .await;
    }
}

fn breaker(rollback: bool) -> Value {
    json!({"maximumPercent": 200, "minimumHealthyPercent": 100,
        "deploymentCircuitBreaker": {"enable": true, "rollback": rollback}})
}

fn no_breaker() -> Value {
    json!({"maximumPercent": 200, "minimumHealthyPercent": 100,
        "deploymentCircuitBreaker": {"enable": false, "rollback": false}})
}

fn revisions(report: &Report) -> Vec<&str> {
    report.instances.iter().map(|task| short(task["taskDefinitionArn"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_reported_with_its_tasks_and_a_failing_one_with_its_evidence() {
    let at = Setting::new("steadya").await;
    let good = at.revision("1", "web");
    let target = at.create(&good, 2, breaker(true)).await;
    let report = at.succeeds(&target).await;
    assert_eq!(revisions(&report), ["web-steadya:1", "web-steadya:1"]);
    let next = at.revision("2", "web");
    let report = at.succeeds(&at.update(json!({"taskDefinition": next})).await).await;
    assert_eq!(revisions(&report), ["web-steadya:2", "web-steadya:2"]);
    // The breaker brings revision 2 back.
    let bad = at.revision("3", "crash");
    let target = at.update(json!({"taskDefinition": bad})).await;
    assert_eq!(target.previous_task_definition.as_deref(), Some(next.as_str()));
    let error = at.fails(&target).await;
    assert_eq!(error.code, "ECS-030", "{error}");
    assert!(error.what.contains("web-steadya:3 failed and AWS rolled it back to web-steadya:2"), "{error}");
    assert!(error.what.contains("exit code"), "{error}");
    let log = at.log();
    for part in ["stopped: container app ended with exit code", "at sha256:", "last lines of container app"] {
        assert!(log.contains(part), "no {part} in\n{log}");
    }
    // Each event once.
    let events: Vec<&str> = log.lines().filter(|line| line.starts_with("# AWS Event")).collect();
    let mut once = events.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), events.len(), "{events:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_aws_gives_up_without_a_rollback_fails_as_that() {
    let at = Setting::new("steadyb").await;
    let target = at.create(&at.revision("1", "crash"), 1, breaker(false)).await;
    let error = at.fails(&target).await;
    assert_eq!(error.code, "ECS-032", "{error}");
    assert!(error.what.contains("nothing was rolled back"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_can_never_run_end_the_wait_early_without_a_breaker() {
    let at = Setting::new("steadyc").await;
    let good = at.revision("1", "web");
    at.succeeds(&at.create(&good, 1, no_breaker()).await).await;
    let image = format!("{}/app-{}:none", peer::ECR, at.place.name);
    let missing = at.place.register("web-steadyc", &image);
    let error = at.fails(&at.update(json!({"taskDefinition": missing})).await).await;
    assert_eq!(error.code, "ECS-033", "{error}\n{}", at.log());
    assert!(error.what.contains("CannotPullContainerError"), "{error}");
    assert!(error.what.contains("web-steadyc:1 with 1 of 1 tasks running"), "{error}");
    let crash = at.revision("2", "crash");
    let error = at.fails(&at.update(json!({"taskDefinition": crash})).await).await;
    assert_eq!(error.code, "ECS-035", "{error}\n{}", at.log());
    assert!(matches!(error.class, Class::RemoteFailed { code } if code != 0), "{:?}", error.class);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_an_autoscaler_changes_meanwhile_is_no_failure() {
    let at = Setting::balanced("steadyd").await;
    at.succeeds(&at.create(&at.revision("1", "web"), 2, breaker(true)).await).await;
    let slow = at.revision("2", "late 4");
    let target = at.update(json!({"taskDefinition": slow})).await;
    let wait = at.wait(&target);
    let meddle = async {
        at.says("web-steadyd:2").await;
        at.place.ecs.aws(
            "ecs",
            "UpdateService",
            json!({"cluster": at.place.name, "service": "web", "desiredCount": 3}),
        );
    };
    let (report, ()) = tokio::join!(wait, meddle);
    let report = report.unwrap_or_else(|error| panic!("{error}\n{}", at.log()));
    assert!(revisions(&report).iter().filter(|of| **of == "web-steadyd:2").count() >= 2, "{report:?}");
    assert!(at.log().contains("desired 3"), "{}", at.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_deploys_meanwhile_supersedes_us_and_is_named() {
    let at = Setting::balanced("steadye").await;
    at.succeeds(&at.create(&at.revision("1", "web"), 1, breaker(true)).await).await;
    let target = at.update(json!({"taskDefinition": at.revision("2", "late 20")})).await;
    let other = at.revision("3", "web");
    let meddle = async {
        at.says("web-steadye:2").await;
        let change = json!({"cluster": at.place.name, "service": "web", "taskDefinition": other});
        at.place.ecs.aws("ecs", "UpdateService", change);
    };
    let (error, ()) = tokio::join!(at.fails(&target), meddle);
    assert_eq!(error.code, "ECS-031", "{error}");
    assert!(error.what.contains("of web-steadye:3 took over before ours was complete"), "{error}");
    // Nothing is undone over it.
    assert_eq!(at.place.until_steady("web")["taskDefinition"], other.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_again_knows_its_deployment_by_its_id() {
    let at = Setting::balanced("steadyf").await;
    at.succeeds(&at.create(&at.revision("1", "web"), 1, breaker(true)).await).await;
    let target = at.update(json!({"taskDefinition": at.revision("2", "late 3")})).await;
    let text = serde_json::to_string(&target).unwrap();
    // The first life ends in the middle.
    let (first, _) = session(&at.place, &at.world).await;
    let log = at.world.logs.unit("u");
    let cut =
        tokio::time::timeout(Duration::from_secs(3), wait(&first, &target, log.as_ref(), Options::default()));
    assert!(cut.await.is_err(), "it was over too soon: {}", at.log());
    let target: Target = serde_json::from_str(&text).unwrap();
    assert_eq!(revisions(&at.succeeds(&target).await), ["web-steadyf:2"]);
    // The next one fails and is rolled back while no agent looks.
    let target = at.update(json!({"taskDefinition": at.revision("3", "crash")})).await;
    let id = target.deployment.clone().unwrap();
    at.place.until("web", "rolled back", |now| {
        let ours = now["deployments"]
            .as_array()
            .unwrap()
            .iter()
            .any(|d| d["id"] == id.as_str() && d["status"] == "PRIMARY");
        !ours && now["deployments"][0]["rolloutState"] == "COMPLETED"
    });
    let (again, _) = session(&at.place, &at.world).await;
    let error = wait(&again, &target, log.as_ref(), Options::default()).await.unwrap_err();
    assert_eq!(error.code, "ECS-030", "{error}\n{}", at.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_and_a_timeout_say_how_far_it_was() {
    for (name, reason) in [("steadyg", CancelReason::User), ("steadyh", CancelReason::Deadline)] {
        let at = Setting::balanced(name).await;
        let target = at.create(&at.revision("1", "late 60"), 2, breaker(true)).await;
        let abort = async {
            at.says("desired 2").await;
            at.cancel.cancel(reason, CancelStage::Ask);
        };
        let (error, ()) = tokio::join!(at.fails(&target), abort);
        assert_eq!((error.code, error.class), ("ECS-037", Class::Cancelled { reason }));
        assert!(error.what.contains(&format!("of 2 tasks of web-{name}:1 run")), "{error}");
        assert!(error.what.contains("the service is left as it is"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_from_before_our_write_are_waited_out_and_an_outage_is_told() {
    let at = Setting::new("steadyi").await;
    at.succeeds(&at.create(&at.revision("1", "web"), 1, breaker(true)).await).await;
    let describe = |fault: Fault| fault.on("ecs", "DescribeServices").by(&at.place.key);
    let target = {
        // What is asked now stays what is answered for a while.
        let before = at.session.service("web").await.unwrap().unwrap();
        assert_eq!(before["runningCount"], 1);
        at.update(json!({"taskDefinition": at.revision("2", "web")})).await
    };
    let stale = at.place.ecs.fault(describe(Fault::stale()).times(2));
    let report = at.succeeds(&target).await;
    drop(stale);
    assert_eq!(revisions(&report), ["web-steadyi:2"]);
    let target = at.update(json!({"taskDefinition": at.revision("3", "web")})).await;
    let denied = at.place.ecs.fault(describe(Fault::denied("ecs:DescribeServices")));
    let error = at.fails(&target).await;
    drop(denied);
    assert_eq!(error.code, "AWS-006", "{error}");
    // Throttled for a while, it goes on.
    let throttled = at.place.ecs.fault(describe(Fault::throttled()).times(3));
    assert_eq!(revisions(&at.succeeds(&target).await), ["web-steadyi:3"]);
    drop(throttled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_somebody_deletes_fails_and_drains_before_it_is_gone() {
    let at = Setting::balanced("steadyj").await;
    let target = at.create(&at.revision("1", "late 60"), 1, breaker(true)).await;
    let delete = async {
        at.says("desired 1").await;
        let input = json!({"cluster": at.place.name, "service": "web", "force": true});
        at.place.ecs.aws("ecs", "DeleteService", input);
    };
    let (error, ()) = tokio::join!(at.fails(&target), delete);
    assert_eq!(error.code, "ECS-036", "{error}");
    let log = at.world.logs.unit("u");
    wait_inactive(&at.session, "web", log.as_ref()).await.unwrap();
    assert_eq!(at.place.describe("web")["status"], "INACTIVE");
    // One that nobody ever made is gone too.
    wait_inactive(&at.session, "nobody", log.as_ref()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_tasks_is_steady_and_drained() {
    let at = Setting::new("steadyk").await;
    at.succeeds(&at.create(&at.revision("1", "web"), 2, breaker(true)).await).await;
    let target = at.update(json!({"desiredCount": 0})).await;
    let log = at.world.logs.unit("u");
    assert!(drain(&at.session, "web", log.as_ref(), Duration::from_secs(120)).await.unwrap());
    assert_eq!(at.succeeds(&target).await.instances, Vec::<Value>::new());
    assert_eq!(instances(&at.session, "web").await.unwrap(), Vec::<Value>::new());
    // A count that somebody sets meanwhile ends a drain.
    at.update(json!({"desiredCount": 1})).await;
    let settled = crate::Settings { settle: Duration::from_secs(4), ..at.session.settings.clone() };
    let mut impatient = at.session.clone();
    impatient.settings = settled;
    let error = drain(&impatient, "web", log.as_ref(), Duration::from_secs(120)).await.unwrap_err();
    assert_eq!(error.code, "ECS-040", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_on_one_cluster_share_their_calls() {
    let at = Setting::new("steadyl").await;
    let definition = at.revision("1", "web");
    let names: Vec<String> = (0..12).map(|number| format!("none{number}")).collect();
    let mut targets = Vec::new();
    for name in &names {
        let mut input = at.place.service(name, &definition, 0, None);
        input["deploymentConfiguration"] = no_breaker();
        let made = at.session.change("c", ecs("CreateService"), input, Repeat::OnlyIfNotReached).await;
        targets.push(target_of(&made.unwrap()));
    }
    let before = at.place.ecs.calls(0).last().map_or(0, |call| call.number);
    let waits = targets.iter().map(|target| at.succeeds(target));
    futures::future::join_all(waits).await;
    let calls = at.place.calls(before);
    assert!(calls.iter().all(|call| call == "ecs:DescribeServices"), "{calls:?}");
    assert!(calls.len() <= 4, "{calls:?}");
}

/// What a number of rollouts with a task each took.
struct Taken {
    calls: Vec<String>,
    /// How many calls the waiter of AWS' command line would have made: one for each service at once and every 15 seconds.
    waiters: f64,
    /// From when each was stable until its wait was over.
    noticed: Vec<Duration>,
}

async fn rollouts(at: &Setting, number: usize) -> Taken {
    let definition = at.revision("1", "web");
    let names: Vec<String> = (0..number).map(|number| format!("many{number}")).collect();
    let mut targets = Vec::new();
    for name in &names {
        let mut input = at.place.service(name, &definition, 1, None);
        input["deploymentConfiguration"] = no_breaker();
        let made = at.session.change("c", ecs("CreateService"), input, Repeat::OnlyIfNotReached).await;
        targets.push(target_of(&made.unwrap()));
    }
    let before = at.place.ecs.calls(0).last().map_or(0, |call| call.number);
    let begun = std::time::Instant::now();
    let (cluster, watched) = (at.place.name.clone(), names.clone());
    let watcher = tokio::task::spawn_blocking(move || stable(&cluster, &watched));
    let waits = targets.iter().map(async |target| {
        let report = at.succeeds(target).await;
        assert_eq!(report.instances.len(), 1, "{report:?}");
        std::time::Instant::now()
    });
    let ends = futures::future::join_all(waits).await;
    let calls = at.place.calls(before);
    let stable = watcher.await.unwrap();
    let rounds = stable.iter().map(|at| 1.0 + ((*at - begun).as_secs_f64() / 15.0).ceil());
    let mut noticed: Vec<Duration> =
        ends.iter().zip(&stable).map(|(end, stable)| end.saturating_duration_since(*stable)).collect();
    noticed.sort();
    Taken { calls, waiters: rounds.sum(), noticed }
}

/// When each service was stable, as a neighbour sees it that looks all the time.
fn stable(cluster: &str, services: &[String]) -> Vec<std::time::Instant> {
    let mut at = vec![None; services.len()];
    while at.contains(&None) {
        for (chunk, first) in services.chunks(10).zip((0..).step_by(10)) {
            let said =
                Ecs::shared().aws("ecs", "DescribeServices", json!({"cluster": cluster, "services": chunk}));
            for service in said["services"].as_array().unwrap() {
                let place = services.iter().position(|name| service["serviceName"] == name.as_str()).unwrap();
                assert!((first..first + 10).contains(&place));
                let one = service["deployments"].as_array().unwrap().len() == 1;
                let done = service["deployments"][0]["rolloutState"] == "COMPLETED";
                if one && done && service["runningCount"] == service["desiredCount"] {
                    at[place].get_or_insert_with(std::time::Instant::now);
                }
            }
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    at.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_that_end_together_list_their_tasks_together() {
    let at = Setting::new("steadym").await;
    let taken = rollouts(&at, 8).await;
    let lists = taken.calls.iter().filter(|call| *call == "ecs:ListTasks").count();
    assert!(lists < 8, "{:?}", taken.calls);
}

/// Memory that this process holds, MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts fifty containers; cargo test -p executor-ecs --lib fifty -- --ignored --nocapture"]
async fn fifty_rollouts_of_one_agent() {
    use std::io::Write as _;
    let at = Setting::new("steadyn").await;
    let taken = rollouts(&at, 50).await;
    let middle = taken.noticed[taken.noticed.len() / 2];
    let text = format!(
        "{} calls, waiters {}; noticed after {middle:?}, at most {:?}; {} MiB resident\n",
        taken.calls.len(),
        taken.waiters,
        taken.noticed.last(),
        resident()
    );
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(taken.calls.len() as f64 <= taken.waiters / 3.0, "{text}{:?}", taken.calls);
}
