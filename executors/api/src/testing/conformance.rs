//! The suite that every executor passes.
//!
//! An executor writes a [`Harness`] over its real peer and calls [`run`] in one of its tests. Each case has a key of
//! its own, so that effects on the target can be told apart; every fault of a case is a panic that names the case.

use super::{CrashAt, World, until, until_ok};
use crate::{
    CancelReason, CancelStage, Class, Executor, Recovery, StepError, StepOutput, Stream, TransportProbe,
};
use futures::future::BoxFuture;
use proto::failure::FailureKind;
use proto::task::StepTask;
use std::sync::Arc;
use std::time::Duration;

/// The spec type of a harness' executor.
pub type SpecOf<H> = <<H as Harness>::Executor as Executor>::Spec;

/// One step to run.
pub struct Case<S> {
    /// The spec that the executor gets.
    pub spec: S,
    /// The task document around it.
    pub task: StepTask,
}

/// A foreign error and what it must become.
pub struct ErrorCase<S> {
    /// What is wrong with the target.
    pub name: String,
    /// A step that runs into it.
    pub case: Case<S>,
    /// The class it must have.
    pub kind: FailureKind,
    /// The code it must have.
    pub code: &'static str,
}

/// What the suite needs to know of one executor and its peer.
pub trait Harness: Send + Sync {
    /// The executor under test.
    type Executor: Executor + 'static;

    /// An executor as a freshly started agent has it: it shares no memory with an earlier one. It reports its
    /// mutating calls to `probe`.
    fn executor(&self, probe: Arc<dyn TransportProbe>) -> Self::Executor;

    /// A step that succeeds within a few seconds. It should use every kind of mutating call, and a planted secret
    /// wherever a secret may stand.
    fn succeeding(&self, key: &str) -> Case<SpecOf<Self>>;

    /// A step that goes on for at least a minute unless it is ended. `None` when there is no such step.
    fn lasting(&self, key: &str) -> Option<Case<SpecOf<Self>>>;

    /// Whether the lasting step has begun its work on the target.
    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool>;

    /// How often the effect of the step took place on the target. `None` for executors that change nothing.
    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>>;

    /// Whatever of the step is still on the target after it ended: processes, folders. Empty when it is clean.
    fn left_behind<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Vec<String>>;

    /// Every kind of foreign error.
    fn errors(&self) -> Vec<ErrorCase<SpecOf<Self>>>;

    /// Secrets of the tasks by scoped id. Their values must show up nowhere.
    fn planted(&self) -> Vec<(String, String)>;

    /// Whether a step goes on while no agent is there (drain, crash), so that a later one attaches.
    fn outlives_the_agent(&self) -> bool {
        false
    }

    /// Further changes to the world of a case: aliases, a clock.
    fn prepare(&self, _world: &mut World) {}

    /// Limit for each case, and for an effect on the target to be seen.
    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// How one process life ended.
enum Life {
    Returned(Result<StepOutput, StepError>),
    Died,
}

struct Suite<'a, H: Harness> {
    harness: &'a H,
    prefix: String,
}

/// Runs the whole suite.
///
/// # Panics
/// On the first fault, with the name of the case.
pub async fn run<H: Harness>(harness: &H) {
    let unique = std::process::id();
    let suite = Suite { harness, prefix: format!("conf{unique}") };
    suite.run_twice_is_once().await;
    suite.cancelled_before_the_start().await;
    suite.cancelled_on_the_way(CancelReason::User).await;
    suite.cancelled_on_the_way(CancelReason::Deadline).await;
    suite.drained().await;
    suite.crashes().await;
    suite.refused_checkpoints().await;
    suite.errors().await;
}

impl<H: Harness> Suite<'_, H> {
    fn key(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn world(&self, key: &str, case: &Case<SpecOf<H>>) -> World {
        let mut world = World::new(key, case.task.clone(), self.harness.planted());
        self.harness.prepare(&mut world);
        world
    }

    async fn bounded<T>(&self, name: &str, work: impl Future<Output = T>) -> T {
        match tokio::time::timeout(self.harness.limit(), work).await {
            Ok(value) => value,
            Err(_) => panic!("{name}: did not end within {:?}", self.harness.limit()),
        }
    }

    /// One life of the agent: recover first when there is a history, as the agent does.
    async fn live(&self, name: &str, world: &World, spec: &SpecOf<H>) -> (Option<Recovery>, Life) {
        let executor = self.harness.executor(Arc::new(world.marks.clone()));
        let (_handle, cx) = world.context();
        let work = async {
            let mut recovery = None;
            if world.marks.count() > 0 {
                match executor.recover(spec, &cx).await {
                    Ok(vanished @ Recovery::Vanished { .. }) => {
                        return (
                            Some(vanished),
                            Life::Returned(Err(StepError::new(Class::Bug, "KIT-000", "vanished"))),
                        );
                    }
                    Ok(found) => recovery = Some(found),
                    Err(error) => panic!("{name}: recover failed: {error}"),
                }
            }
            tokio::select! {
                result = executor.run(spec, &cx) => (recovery, Life::Returned(result)),
                () = world.marks.crashed() => (recovery, Life::Died),
            }
        };
        self.bounded(name, work).await
    }

    async fn succeed(&self, name: &str, world: &World, spec: &SpecOf<H>) -> StepOutput {
        match self.live(name, world, spec).await.1 {
            Life::Returned(Ok(output)) => output,
            Life::Returned(Err(error)) => {
                panic!("{name}: {} {error}\n{}", error.code, world.logs.everything())
            }
            Life::Died => panic!("{name}: died without a planned crash"),
        }
    }

    async fn expect_effects(&self, name: &str, key: &str, wanted: usize) {
        // A target may show an effect a moment after it answered (a server writes its log last); it never shows one
        // too many first.
        let what = format!("{name}: the effect takes place {wanted} times");
        let found = until_ok(&what, self.harness.limit(), async || match self.harness.effects(key).await {
            Some(found) if found < wanted => Err(found),
            found => Ok(found.unwrap_or(wanted)),
        });
        assert_eq!(found.await, wanted, "{what}");
    }

    async fn expect_clean(&self, name: &str, key: &str, world: &World) {
        until_ok(&format!("{name}: nothing is left on the target"), self.harness.limit(), async || {
            let left = self.harness.left_behind(key).await;
            if left.is_empty() { Ok(()) } else { Err((left, world.logs.everything())) }
        })
        .await;
        self.expect_announced(name, world);
        self.expect_no_secret(name, world, None);
    }

    fn expect_announced(&self, name: &str, world: &World) {
        let bare = world.marks.unannounced();
        assert!(bare.is_empty(), "{name}: mutating calls without a checkpoint of their own: {bare:?}");
    }

    /// Planted secrets must stand in no log line, checkpoint or error. The log is searched as the executor wrote it,
    /// before any masking: an executor must not rely on the masker.
    fn expect_no_secret(&self, name: &str, world: &World, error: Option<&StepError>) {
        use crate::Checkpoints as _;
        let history = world.marks.history();
        let checkpoints = serde_json::to_string(&history).unwrap_or_default();
        let error = error.map(|e| format!("{e:?} {}", serde_json::json!(e.to_failure()))).unwrap_or_default();
        let log = world.logs.everything();
        for (id, value) in self.harness.planted() {
            let escaped = serde_json::json!(value).to_string();
            let escaped = escaped.trim_matches('"');
            for (place, text) in [("a log line", &log), ("a checkpoint", &checkpoints), ("an error", &error)]
            {
                for form in value.lines().filter(|line| line.len() >= 6).chain([value.as_str(), escaped]) {
                    assert!(!text.contains(form), "{name}: secret `{id}` stands in {place}");
                }
            }
        }
    }

    async fn run_twice_is_once(&self) {
        let (name, key) = ("run twice = once", self.key("twice"));
        let case = self.harness.succeeding(&key);
        let world = self.world(&key, &case);
        let first = self.succeed(name, &world, &case.spec).await;
        self.expect_effects(name, &key, 1).await;
        self.expect_clean(name, &key, &world).await;
        world.restart();
        let second = self.succeed(name, &world, &case.spec).await;
        self.expect_effects(name, &key, 1).await;
        if self.harness.effects(&key).await.is_some() {
            assert_eq!(first.outputs, second.outputs, "{name}: outputs differ");
        }
        self.expect_clean(name, &key, &world).await;
    }

    async fn cancelled_before_the_start(&self) {
        for reason in
            [CancelReason::User, CancelReason::Deadline, CancelReason::Drain, CancelReason::LeaseLost]
        {
            let name = format!("cancel before the start: {reason:?}");
            let key = self.key(&format!("early{reason:?}"));
            let case = self.harness.succeeding(&key);
            let world = self.world(&key, &case);
            let executor = self.harness.executor(Arc::new(world.marks.clone()));
            let (handle, cx) = world.context();
            handle.cancel(reason, CancelStage::Ask);
            let error = match self.bounded(&name, executor.run(&case.spec, &cx)).await {
                Err(error) => error,
                Ok(_) => panic!("{name}: ran nevertheless"),
            };
            self.expect_cancelled(&name, &error, reason);
            assert_eq!(world.marks.calls(), Vec::<String>::new(), "{name}: touched the target");
            self.expect_effects(&name, &key, 0).await;
            self.expect_clean(&name, &key, &world).await;
        }
    }

    fn expect_cancelled(&self, name: &str, error: &StepError, reason: CancelReason) {
        let right = match (error.class, reason) {
            (Class::Cancelled { reason: found }, wanted) => found == wanted,
            (Class::Timeout, CancelReason::Deadline) => true,
            _ => false,
        };
        assert!(right, "{name}: class {:?} ({}: {error})", error.class, error.code);
    }

    async fn begin(&self, name: &str, key: &str) {
        let begun = async || self.harness.begun(key).await.then_some(());
        until(&format!("{name}: the step begins"), self.harness.limit(), begun).await;
    }

    async fn cancelled_on_the_way(&self, reason: CancelReason) {
        let name = format!("cancel on the way: {reason:?}");
        let key = self.key(&format!("midway{reason:?}"));
        let Some(case) = self.harness.lasting(&key) else { return };
        let world = self.world(&key, &case);
        let executor = self.harness.executor(Arc::new(world.marks.clone()));
        let (handle, cx) = world.context();
        let cancel = async {
            self.begin(&name, &key).await;
            handle.cancel(reason, CancelStage::Ask);
        };
        let work = async { tokio::join!(executor.run(&case.spec, &cx), cancel).0 };
        let error = match self.bounded(&name, work).await {
            Err(error) => error,
            Ok(_) => panic!("{name}: ended as if nothing had happened"),
        };
        self.expect_cancelled(&name, &error, reason);
        self.expect_no_secret(&name, &world, Some(&error));
        self.expect_clean(&name, &key, &world).await;
    }

    /// On drain the step returns; where it outlives the agent, the next one attaches and ends it.
    async fn drained(&self) {
        let name = "drain";
        let key = self.key("drain");
        let Some(case) = self.harness.lasting(&key) else { return };
        let world = self.world(&key, &case);
        let executor = self.harness.executor(Arc::new(world.marks.clone()));
        let (handle, cx) = world.context();
        let drain = async {
            self.begin(name, &key).await;
            handle.cancel(CancelReason::Drain, CancelStage::Ask);
        };
        let work = async { tokio::join!(executor.run(&case.spec, &cx), drain).0 };
        match self.bounded(name, work).await {
            Err(error) => self.expect_cancelled(name, &error, CancelReason::Drain),
            Ok(_) => panic!("{name}: ended as if nothing had happened"),
        }
        drop(executor);
        world.restart();
        let executor = self.harness.executor(Arc::new(world.marks.clone()));
        let (handle, cx) = world.context();
        if self.harness.outlives_the_agent() {
            let found = match self.bounded(name, executor.recover(&case.spec, &cx)).await {
                Ok(found) => found,
                Err(error) => panic!("{name}: recover failed: {error}"),
            };
            assert_eq!(found, Recovery::Running, "{name}");
        }
        handle.cancel(CancelReason::User, CancelStage::Kill);
        let error = match self.bounded(name, executor.run(&case.spec, &cx)).await {
            Err(error) => error,
            Ok(_) => panic!("{name}: ended as if nothing had happened"),
        };
        self.expect_cancelled(name, &error, CancelReason::User);
        self.expect_clean(name, &key, &world).await;
    }

    async fn crashes(&self) {
        let probe = self.key("crash0");
        let case = self.harness.succeeding(&probe);
        let world = self.world(&probe, &case);
        self.succeed("crash: the undisturbed run", &world, &case.spec).await;
        let (checkpoints, calls) = (world.marks.count(), world.marks.calls().len());
        if self.harness.effects(&probe).await.is_some() {
            assert!(calls > 0, "an executor that changes the target must report its mutating calls");
        }
        let wanted = target_output(&world, &probe);
        let after = (1..=checkpoints).map(CrashAt::AfterCheckpoint);
        let before = (1..=checkpoints).map(CrashAt::BeforeCheckpoint);
        let calls = (1..=calls).flat_map(|n| [CrashAt::BeforeCall(n), CrashAt::AfterCall(n)]);
        for (n, at) in after.chain(before).chain(calls).enumerate() {
            let key = self.key(&format!("crash{}", n + 1));
            let found = self.crash(at, &key).await;
            if let Some(found) = found {
                assert_eq!(found, wanted, "crash {at:?}: lines of the target were lost or doubled");
            }
        }
    }

    /// Crashes once, recovers and runs. Returns what the target printed, unless the step vanished.
    async fn crash(&self, at: CrashAt, key: &str) -> Option<Vec<(String, String)>> {
        let name = format!("crash {at:?}");
        let case = self.harness.succeeding(key);
        let world = self.world(key, &case);
        world.marks.crash_at(at);
        if let Life::Returned(result) = self.live(&name, &world, &case.spec).await.1 {
            panic!("{name}: the place was not reached: {:?}", result.err().map(|e| e.to_string()));
        }
        world.restart();
        let finished = match self.live(&name, &world, &case.spec).await {
            (Some(Recovery::Vanished { evidence }), _) => {
                assert!(!evidence.is_empty(), "{name}: vanished without evidence");
                if let Some(found) = self.harness.effects(key).await {
                    assert!(found <= 1, "{name}: the effect took place {found} times");
                }
                false
            }
            (_, Life::Returned(Ok(_))) => {
                self.expect_effects(&name, key, 1).await;
                true
            }
            (found, Life::Returned(Err(error))) => {
                panic!("{name}: recover said {found:?}, run failed: {error}\n{}", world.logs.everything())
            }
            (_, Life::Died) => panic!("{name}: died again without a planned crash"),
        };
        self.expect_clean(&name, key, &world).await;
        finished.then(|| target_output(&world, key))
    }

    /// When a checkpoint cannot be made durable, the mutation must not happen.
    async fn refused_checkpoints(&self) {
        let key = self.key("refused");
        let case = self.harness.succeeding(&key);
        let world = self.world(&key, &case);
        let name = "a checkpoint is refused";
        world.marks.crash_at(CrashAt::RefuseCheckpoint(1));
        match self.live(name, &world, &case.spec).await.1 {
            Life::Returned(Err(error)) => {
                assert_eq!(world.marks.calls(), Vec::<String>::new(), "{name}: touched the target");
                self.expect_effects(name, &key, 0).await;
                self.expect_no_secret(name, &world, Some(&error));
            }
            Life::Returned(Ok(_)) if self.harness.effects(&key).await.is_none() => {}
            Life::Returned(Ok(_)) => panic!("{name}: went on without it"),
            Life::Died => panic!("{name}: died"),
        }
    }

    async fn errors(&self) {
        for (n, wanted) in self.harness.errors().into_iter().enumerate() {
            let name = format!("remote error: {}", wanted.name);
            let key = self.key(&format!("error{n}"));
            let world = self.world(&key, &wanted.case);
            match self.live(&name, &world, &wanted.case.spec).await.1 {
                Life::Returned(Err(error)) => {
                    assert_eq!(
                        (error.class.kind(), error.code),
                        (wanted.kind, wanted.code),
                        "{name}: {error}\n{}",
                        world.logs.everything()
                    );
                    assert!(error.target.is_some(), "{name}: names no target: {error}");
                    self.expect_no_secret(&name, &world, Some(&error));
                    self.expect_announced(&name, &world);
                }
                Life::Returned(Ok(_)) => panic!("{name}: succeeded\n{}", world.logs.everything()),
                Life::Died => panic!("{name}: died"),
            }
        }
    }
}

/// What the target printed, by unit and stream, with the key of the case taken out: equal for equal steps.
fn target_output(world: &World, key: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for unit in world.logs.units() {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for line in world.logs.output(&unit, stream) {
                all.push((format!("{unit} {stream:?}"), line.replace(key, "KEY")));
            }
        }
    }
    all
}
