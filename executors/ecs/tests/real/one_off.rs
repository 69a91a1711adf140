//! EcsRunTask as a one-off task: real containers that end well, badly, late, never, or do not begin.

use crate::peer::aws::{Fault, Place};
use crate::peer::{document, image, place, secrets, spec, task};
use executor_api::testing::{CrashAt, World, until_ok};
use executor_api::{
    CancelReason, CancelStage, Checkpoints as _, Class, Executor as _, Plan, StepError, StepOutput,
};
use executor_ecs::{EcsExecutor, Settings};
use proto::task::{EcsAction, EcsDefinitions, EcsSpec, RunTaskShape, TaskDefinition};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A step that runs `command` in the container of `definition`, changed by `change`.
struct Job<'a> {
    at: &'a Place<'static>,
    definition: String,
}

struct Shape {
    request: Value,
    until_stopped: bool,
    skip: bool,
    overrides: Option<Value>,
    network_from_service: Option<String>,
    stop_on_abort: bool,
}

impl Job<'_> {
    fn spec(&self, command: &[&str], change: impl FnOnce(&mut Shape)) -> EcsSpec {
        let mut shape = Shape {
            request: json!({"launchType": "FARGATE", "networkConfiguration": self.at.network(),
                "overrides": {"containerOverrides": [{"name": "app", "command": command}]}}),
            until_stopped: true,
            skip: false,
            overrides: None,
            network_from_service: None,
            stop_on_abort: true,
        };
        change(&mut shape);
        let shape = RunTaskShape::Run {
            task: Some(TaskDefinition { arn: Some(self.definition.clone()), document: None }),
            request: document("runTaskRequestDefinition", shape.request),
            wait_until_stopped: shape.until_stopped,
            skip_steady_state_check: shape.skip,
            overrides: shape.overrides,
            network_from_service: shape.network_from_service,
            stop_on_abort: shape.stop_on_abort,
        };
        spec(self.at, EcsDefinitions::default(), EcsAction::EcsRunTask { shape: Box::new(shape) })
    }

    /// Tasks that an execution started, running and stopped.
    fn started(&self, execution: &str) -> Vec<Value> {
        let execution = format!("{}-{execution}", self.at.name);
        let of = |status: &str| {
            let asked = json!({"cluster": self.at.name, "startedBy": execution, "desiredStatus": status});
            self.at.ecs.aws("ecs", "ListTasks", asked)["taskArns"].as_array().unwrap().clone()
        };
        let arns: Vec<Value> = of("RUNNING").into_iter().chain(of("STOPPED")).collect();
        if arns.is_empty() {
            return arns;
        }
        let asked = json!({"cluster": self.at.name, "tasks": arns, "include": ["TAGS"]});
        self.at.ecs.aws("ecs", "DescribeTasks", asked)["tasks"].as_array().unwrap().clone()
    }

    fn calls(&self, operation: &str) -> usize {
        self.at.calls(0).iter().filter(|call| call.ends_with(&format!(":{operation}"))).count()
    }
}

async fn job(name: &'static str, at: &Place<'static>) -> String {
    at.register(&format!("{name}-job"), &image(at, "1", "web"))
}

fn executor() -> EcsExecutor {
    let aws = ::aws::Settings { patience: Duration::from_secs(30), ..::aws::Settings::default() };
    let settings = Settings {
        poll: Duration::from_millis(500),
        no_room: Duration::from_millis(300),
        log_settle: Duration::from_secs(2),
        ..Settings::default()
    };
    EcsExecutor::new(::aws::Client::new(aws).unwrap(), settings)
}

fn world(spec: &EcsSpec, execution: &str) -> World {
    // Client tokens are of one region, which these tests share.
    let execution = format!("{}-{execution}", spec.cluster);
    World::new(format!("{execution}-job"), task(spec, &execution, "job"), secrets())
}

async fn run(spec: &EcsSpec, execution: &str) -> (Result<StepOutput, StepError>, World) {
    let world = world(spec, execution);
    let result = executor().run(spec, &world.context().1).await;
    (result, world)
}

async fn succeed(spec: &EcsSpec, execution: &str) -> (StepOutput, World) {
    let (result, world) = run(spec, execution).await;
    (result.unwrap_or_else(|e| panic!("{}: {e}\n{}", e.code, world.logs.everything())), world)
}

async fn fail(spec: &EcsSpec, execution: &str) -> (StepError, World) {
    let (result, world) = run(spec, execution).await;
    match result {
        Ok(output) => panic!("it succeeded with {output:?}\n{}", world.logs.everything()),
        Err(error) => (error, world),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_over_at_once_succeeds_and_its_whole_output_is_shown() {
    let at = place("onea").await;
    let job = Job { at: &at, definition: job("onea", &at).await };
    // The network comes from a service that has no tasks.
    at.ecs.aws("ecs", "CreateService", at.service("web", &job.definition, 0, None));
    let words: Vec<String> = (1..=40).map(|n| format!("word-{n}")).collect();
    let mut command = vec!["job", "0"];
    command.extend(words.iter().map(String::as_str));
    let spec = job.spec(&["replaced"], |shape| {
        shape.request.as_object_mut().unwrap().remove("networkConfiguration");
        shape.network_from_service = Some("web".into());
        shape.overrides = Some(json!({"command": command}));
    });
    let planned = world(&spec, "e0");
    let Plan::Diff { text, hash } = executor().plan(&spec, &planned.context().1).await.unwrap() else {
        panic!("no plan")
    };
    assert!(text.contains("run 1 task of onea-job:1 in cluster onea") && text.contains("word-20"), "{text}");
    let Plan::Diff { hash: again, .. } = executor().plan(&spec, &planned.context().1).await.unwrap() else {
        panic!("no plan")
    };
    assert_eq!(hash, again);
    assert!(job.started("e0").is_empty());
    let (output, world) = succeed(&spec, "e1").await;
    let log = world.logs.everything();
    let shown: Vec<usize> =
        words.iter().map(|word| log.matches(&format!("[app] {word}\n")).count()).collect();
    assert_eq!(shown, vec![1; 40], "each line once\n{log}");
    let started = job.started("e1");
    assert_eq!(started.len(), 1);
    assert_eq!(output.outputs["taskArns"].value, json!([started[0]["taskArn"]]));
    assert_eq!(output.outputs["exitCodes"].value, json!({"app": 0}));
    assert_eq!(output.outputs["taskDefinitionArn"].value, json!(job.definition));
    let tag = |key: &str| {
        let tags = started[0]["tags"].as_array().unwrap();
        tags.iter().find(|tag| tag["key"] == key).map(|tag| tag["value"].clone())
    };
    assert_eq!(tag("delegate:execution"), Some(json!("onea-e1")));
    assert_eq!(job.calls("RunTask"), 1);
    // A second agent with the same memory knows that all is done.
    world.restart();
    executor().run(&spec, &world.context().1).await.unwrap();
    assert_eq!(job.started("e1").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_is_told_with_family_container_and_code_and_runs_anew_in_the_next_attempt() {
    let at = place("oneb").await;
    let job = Job { at: &at, definition: job("oneb", &at).await };
    let spec = job.spec(&["job", "3", "so", "far"], |_| ());
    let (error, world) = fail(&spec, "e1").await;
    assert_eq!((error.code, error.class), ("ECS-075", Class::RemoteFailed { code: 3 }));
    assert!(
        error.what.contains("1 of 1 task of oneb-job:1 failed")
            && error.what.contains("container app ended with exit code 3"),
        "{error}"
    );
    assert!(world.logs.everything().contains("[app] far\n"), "{}", world.logs.everything());
    let mut second = task(&spec, "oneb-e1", "job");
    second.execution.attempt = 2;
    let again = World::new("e1-job-2", second, secrets());
    let error = executor().run(&spec, &again.context().1).await.unwrap_err();
    assert_eq!(error.code, "ECS-075");
    assert_eq!(job.started("e1").len(), 2, "each attempt runs the job");
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_tasks_are_started_in_two_calls_and_each_one_s_output_is_shown() {
    let at = place("onec").await;
    let job = Job { at: &at, definition: job("onec", &at).await };
    let spec = job.spec(&["job", "0", "done"], |shape| shape.request["count"] = json!(12));
    let (output, world) = succeed(&spec, "e1").await;
    assert_eq!(output.outputs["taskArns"].value.as_array().unwrap().len(), 12);
    assert_eq!((job.started("e1").len(), job.calls("RunTask")), (12, 2));
    assert_eq!(world.logs.everything().matches("/app] done\n").count(), 12, "{}", world.logs.everything());
    assert!(job.calls("DescribeTasks") < 60, "tasks are looked at together");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_is_waited_for_and_what_never_fits_fails_without_leaving_tasks() {
    let at = place("oned").await;
    let job = Job { at: &at, definition: job("oned", &at).await };
    let spec = job.spec(&["job", "0"], |_| ());
    let failures = |reason: &str| {
        let body = json!({"tasks": [], "failures": [{"arn": "arn:aws:ecs:us-east-1:1:container-instance/i", "reason": reason}]});
        Fault::instead(body).on("ecs", "RunTask").by(&at.key)
    };
    let tight = at.ecs.fault(failures("RESOURCE:MEMORY").times(2));
    let (_, world) = succeed(&spec, "e1").await;
    drop(tight);
    let log = world.logs.everything();
    assert_eq!(log.matches("no room yet: ").count(), 2, "{log}");
    assert!(log.contains("1 of 1 not started (RESOURCE:MEMORY)"), "{log}");
    assert_eq!(job.started("e1").len(), 1);
    {
        let _never = at.ecs.fault(failures("ATTRIBUTE"));
        let (error, _) = fail(&spec, "e2").await;
        assert_eq!(error.code, "ECS-074");
        assert!(error.what.contains("oned-job:1 cannot be started: ATTRIBUTE"), "{error}");
    }
    assert!(job.started("e2").is_empty());
    // The timer ends while there is no room: the text says so.
    let _tight = at.ecs.fault(failures("RESOURCE:CPU"));
    let world = crate::one_off::world(&spec, "e3");
    let (handle, cx) = world.context();
    let deadline = async {
        until_ok("no room is told", Duration::from_secs(90), async || {
            match world.logs.everything().contains("no room yet") {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            }
        })
        .await;
        handle.cancel(CancelReason::Deadline, CancelStage::Ask);
        std::future::pending::<()>().await;
    };
    let executor = executor();
    let result =
        tokio::select! { result = executor.run(&spec, &cx) => result, () = deadline => unreachable!() };
    let error = result.unwrap_err();
    assert_eq!(error.class, Class::Cancelled { reason: CancelReason::Deadline });
    assert!(error.what.contains("RESOURCE:CPU"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_fails_the_step_with_ecs_reason() {
    let at = place("onee").await;
    let good = image(&at, "1", "web");
    let missing = good.rsplit_once(':').unwrap().0.to_owned() + ":nothing";
    let definition = at.register("onee-job", &missing);
    let job = Job { at: &at, definition };
    let (error, _) = fail(&job.spec(&["job", "0"], |_| ()), "e1").await;
    assert_eq!(error.code, "ECS-076", "{error}");
    assert!(error.what.contains("onee-job:1") && error.what.contains("CannotPullContainerError"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_stops_the_tasks_unless_the_step_says_otherwise() {
    let at = place("onef").await;
    let job = Job { at: &at, definition: job("onef", &at).await };
    let abort = async |spec: &EcsSpec, execution: &str, reason: CancelReason| {
        let world = world(spec, execution);
        let (handle, cx) = world.context();
        let aborted = async {
            until_ok("the task prints", Duration::from_secs(90), async || {
                match world.logs.everything().contains("[app] web of revision") {
                    true => Ok(()),
                    false => Err(world.logs.everything()),
                }
            })
            .await;
            handle.cancel(reason, CancelStage::Ask);
            std::future::pending::<()>().await;
        };
        let executor = executor();
        let result =
            tokio::select! { result = executor.run(spec, &cx) => result, () = aborted => unreachable!() };
        (result.unwrap_err(), world)
    };
    let spec = job.spec(&["web"], |_| ());
    let (error, world) = abort(&spec, "e1", CancelReason::User).await;
    assert_eq!(error.class, Class::Cancelled { reason: CancelReason::User });
    assert!(error.what.contains("1 RUNNING") && error.what.contains("stopped: task"), "{error}");
    let started = job.started("e1");
    assert_eq!(started[0]["lastStatus"], "STOPPED");
    let why = started[0]["stoppedReason"].as_str().unwrap();
    assert!(why.contains("delegate: aborted (execution onef-e1"), "{why}");
    // What it printed when it was told to end is shown too.
    assert!(world.logs.everything().contains("[app] terminated\n"), "{}", world.logs.everything());
    assert_eq!(world.marks.unannounced(), Vec::<String>::new());
    let spec = job.spec(&["web"], |shape| shape.stop_on_abort = false);
    let (error, _) = abort(&spec, "e2", CancelReason::Deadline).await;
    assert!(error.what.contains("stopOnAbort is false"), "{error}");
    assert_eq!(job.started("e2")[0]["lastStatus"], "RUNNING");
    // An agent that goes down leaves the task to the next one.
    let spec = job.spec(&["web"], |_| ());
    let (error, world) = abort(&spec, "e3", CancelReason::Drain).await;
    assert_eq!(error.class, Class::Cancelled { reason: CancelReason::Drain });
    assert_eq!(job.started("e3")[0]["lastStatus"], "RUNNING");
    world.restart();
    let (handle, cx) = world.context();
    handle.cancel(CancelReason::User, CancelStage::Ask);
    let error = executor().run(&spec, &cx).await.unwrap_err();
    assert_eq!(error.class, Class::Cancelled { reason: CancelReason::User });
    assert_eq!(job.started("e3")[0]["lastStatus"], "STOPPED", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_to_run_is_left_running() {
    let at = place("oneg").await;
    let job = Job { at: &at, definition: job("oneg", &at).await };
    let running = |shape: &mut Shape| shape.until_stopped = false;
    let (output, _) = succeed(&job.spec(&["web"], running), "e1").await;
    assert_eq!(output.outputs["tasks"].value[0]["lastStatus"], "RUNNING");
    assert_eq!(job.started("e1")[0]["lastStatus"], "RUNNING");
    // One that is over before anybody saw it run is no failure; one that failed is.
    let (output, _) = succeed(&job.spec(&["job", "0"], running), "e2").await;
    assert_eq!(output.outputs["taskArns"].value.as_array().unwrap().len(), 1);
    let (error, _) = fail(&job.spec(&["missing-behaviour"], running), "e3").await;
    assert_eq!((error.code, error.class), ("ECS-075", Class::RemoteFailed { code: 64 }));
    let (_, world) = succeed(&job.spec(&["web"], |shape| shape.skip = true), "e4").await;
    assert!(world.logs.everything().contains("does not wait"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_and_throttling_start_nothing_twice() {
    let at = place("oneh").await;
    let job = Job { at: &at, definition: job("oneh", &at).await };
    let spec = job.spec(&["job", "0"], |_| ());
    {
        let _lost = at.ecs.fault(Fault::lost().on("ecs", "RunTask").by(&at.key).times(1));
        succeed(&spec, "e1").await;
    }
    assert_eq!(job.started("e1").len(), 1);
    let _slow = at.ecs.fault(Fault::throttled().on("ecs", "RunTask").by(&at.key).times(2));
    succeed(&spec, "e2").await;
    assert_eq!(job.started("e2").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_anywhere_leaves_one_task_and_the_next_waits_for_it() {
    let at = place("onei").await;
    let job = Job { at: &at, definition: job("onei", &at).await };
    let places = (1..=2)
        .map(CrashAt::AfterCheckpoint)
        .chain([CrashAt::BeforeCall(1), CrashAt::AfterCall(1)])
        .enumerate();
    for (n, crash) in places {
        let execution = format!("e{n}");
        let spec = job.spec(&["job", "0", "printed"], |_| ());
        let world = world(&spec, &execution);
        world.marks.crash_at(crash);
        let (_handle, cx) = world.context();
        let first = executor().with_probe(Arc::new(world.marks.clone()));
        tokio::select! {
            result = first.run(&spec, &cx) => panic!("{crash:?} was not reached: {result:?}"),
            () = world.marks.crashed() => {}
        }
        drop((first, cx));
        world.restart();
        let second = executor().with_probe(Arc::new(world.marks.clone()));
        let (_handle, cx) = world.context();
        let output = second.run(&spec, &cx).await;
        let output = output.unwrap_or_else(|e| panic!("{crash:?}: {e}\n{}", world.logs.everything()));
        assert_eq!(world.marks.unannounced(), Vec::<String>::new(), "{crash:?}");
        let started = job.started(&execution);
        assert_eq!(started.len(), 1, "{crash:?}");
        assert_eq!(output.outputs["taskArns"].value, json!([started[0]["taskArn"]]), "{crash:?}");
        assert!(world.logs.everything().contains("[app] printed\n"), "{crash:?}");
        assert!(world.marks.history().len() >= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_is_told_before_anything_is_started() {
    let at = place("onej").await;
    let reference = image(&at, "1", "web");
    let mut quiet = at.definition("onej-quiet", &reference);
    quiet["containerDefinitions"][0].as_object_mut().unwrap().remove("logConfiguration");
    let made = at.ecs.aws("ecs", "RegisterTaskDefinition", quiet);
    let job =
        Job { at: &at, definition: made["taskDefinition"]["taskDefinitionArn"].as_str().unwrap().into() };
    let wrong = job.spec(&["job", "0"], |shape| {
        shape.request = json!({"count": 0, "overrides": {"containerOverrides": [{"name": "web"}]}});
    });
    let (error, _) = fail(&wrong, "e1").await;
    assert_eq!(error.code, "ECS-073");
    for part in ["count is 0", "the task has app", "networkFromService"] {
        assert!(error.what.contains(part), "{part}: {error}");
    }
    let nobody = job.spec(&["job", "0"], |shape| shape.network_from_service = Some("nobody".into()));
    let (error, _) = fail(&nobody, "e1").await;
    assert!(error.what.contains("networkFromService: service nobody is not active"), "{error}");
    assert_eq!(job.calls("RunTask"), 0);
    // Output that goes nowhere is said once.
    let (_, world) = succeed(&job.spec(&["job", "0"], |shape| shape.request["count"] = json!(2)), "e2").await;
    let log = world.logs.everything();
    assert_eq!(
        log.matches("the output of container app is not shown: it has no log configuration").count(),
        1,
        "{log}"
    );
}
