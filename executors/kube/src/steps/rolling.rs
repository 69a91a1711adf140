//! `K8sRollingDeploy`: the whole manifest as a new release, waited for, remembered.

use super::addresses;
use super::changes;
use super::flags;
use super::pods;
use super::render::{self, Fetched};
use super::shape::{self, Records, Rolling};
use crate::KubeExecutor;
use crate::apply::{Set, validate};
use crate::error::bad_spec;
use crate::objects::{Object, Reference, Role};
use crate::prune::{self, Strictness, candidates};
use crate::release::{History, Item, Ours, Release, Status, Versioned};
use crate::session::Session;
use crate::steady::{self, Report};
use executor_api::Unit;
use executor_api::{CancelReason, Class, Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::result::Output;
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

struct Asked {
    skip_dry_run: bool,
    pruning: bool,
    in_canary_workflow: bool,
}

fn asked(spec: &KubernetesSpec) -> Result<Asked, StepError> {
    match spec.action {
        KubernetesAction::K8sRollingDeploy { skip_dry_run, pruning_enabled, in_canary_workflow } => {
            Ok(Asked { skip_dry_run, pruning: pruning_enabled, in_canary_workflow })
        }
        _ => Err(bad_spec("KUBE-001", format!("{} is no rolling deployment", spec.action.kind()))),
    }
}

/// What is known before anything is validated.
struct Shaped {
    history: History,
    number: u64,
    /// The record that this task, or the canary step before it, has made already.
    earlier: Option<Release>,
    objects: Vec<Object>,
    versioned: Vec<Versioned>,
}

async fn shaped(
    session: &mut Session,
    spec: &KubernetesSpec,
    fetched: &mut Fetched,
    log: &dyn UnitLog,
) -> Result<Shaped, StepError> {
    let asked = asked(spec)?;
    let history = History::load(session).await?;
    let reference = &session.cx.task.execution;
    let earlier = history.of_task(&session.cx.task_id).or_else(|| {
        // The canary step of this stage has opened the release; this step completes it.
        let of_stage = history.of_execution(&reference.execution_id, &reference.stage);
        of_stage.filter(|release| asked.in_canary_workflow && release.status == Status::InProgress)
    });
    let earlier = earlier.cloned();
    let number = earlier.as_ref().map_or_else(|| history.next(), |release| release.number);
    let (mut objects, mask) = fetched.objects(number, None, true)?;
    session.mask = mask;
    let definitions = crate::apply::Definitions::of(&objects);
    session.place(&mut objects, &|object| definitions.namespaced(object));
    let live = shape::live(session, &objects).await?;
    shape::hold_replicas(session, &mut objects, &live, log).await?;
    let how = Rolling {
        in_canary_workflow: asked.in_canary_workflow,
        skip_versioning: spec.manifest.as_ref().is_some_and(|manifest| manifest.skip_versioning),
    };
    let versioned = shape::rolling(&mut objects, session, number, &history, &live, how);
    Ok(Shaped { history, number, earlier, objects, versioned })
}

/// Everything ready for the first change.
struct Ready {
    session: Session,
    history: History,
    release: Release,
    set: Set,
    candidates: Vec<Item>,
    /// Uids of the pods of the release before it.
    pods_before: Vec<String>,
}

async fn initialize(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
    fetched: &mut Fetched,
    log: &dyn UnitLog,
) -> Result<Ready, StepError> {
    let asked = asked(spec)?;
    let flags = flags::read(&spec.command_flags, "Apply", false)?;
    let options = crate::apply::Options { skip_dry_run: asked.skip_dry_run, ..flags.options };
    let mut session = Session::open(executor, spec, cx, log).await?;
    shape::rights(&session, fetched.preview(), Records::Releases).await?;
    let Shaped { history, number, earlier, objects, versioned } =
        shaped(&mut session, spec, fetched, log).await?;
    let text = format!("release {} number {number}, {} objects", session.release, objects.len());
    session.say(log, Level::Info, &text).await?;
    let set = validate(&session, objects, options, log).await?;
    let objects: Vec<Object> = set.objects().cloned().collect();
    let ours = Ours {
        task: cx.task_id.clone(),
        execution: cx.task.execution.execution_id.clone(),
        stage: cx.task.execution.stage.clone(),
        step: spec.action.kind().to_owned(),
        versioned,
        // A task that goes on after a crash keeps what it knew.
        inventory: earlier.as_ref().map(|release| release.ours.inventory.clone()).unwrap_or_default(),
        pruned: earlier.as_ref().map(|release| release.ours.pruned.clone()).unwrap_or_default(),
        ..Ours::default()
    };
    let mut release = Release::new(number, objects, ours);
    release.annotations = annotations(cx);
    if let Some(earlier) = earlier {
        release.version = earlier.version;
        release.uid = earlier.uid;
        release.labels = earlier.labels;
        release.status = if earlier.ours.task == cx.task_id { earlier.status } else { Status::InProgress };
    }
    let candidates = if asked.pruning { to_prune(&history, &release) } else { Vec::new() };
    if !candidates.is_empty() {
        prune::permitted(&session, &candidates).await?;
        let names: Vec<String> = candidates.iter().map(|item| item.reference.to_string()).collect();
        let text = format!("to be pruned at the end:\n{}", names.join("\n"));
        session.say(log, Level::Info, &text).await?;
    }
    let pods_before = pods::before(&session).await?;
    Ok(Ready { session, history, release, set, candidates, pods_before })
}

/// Objects of the release before that this one does not hold. Versioned ones are left to the clean-up of the history:
/// a rollback may need them.
fn to_prune(history: &History, release: &Release) -> Vec<Item> {
    if !release.ours.pruned.is_empty() {
        return release.ours.pruned.clone();
    }
    let Some(before) = history.succeeded_before(release.number) else { return Vec::new() };
    let mut after: BTreeSet<Reference> = release.objects.iter().map(Object::reference).collect();
    after.extend(before.ours.versioned.iter().map(|versioned| versioned.reference.clone()));
    candidates(&before.items(), &after)
}

fn annotations(cx: &StepContext) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            found.push((key.to_owned(), value.to_owned()));
        }
    };
    if let Some(service) = &cx.task.service {
        add("harness.io/service", &service.identifier);
    }
    if let Some(infrastructure) = &cx.task.infrastructure {
        add("harness.io/env", &infrastructure.environment);
        add("harness.io/infra", &infrastructure.identifier);
        add("harness.io/infra-key", &infrastructure.key);
    }
    found
}

async fn prepare(ready: &mut Ready, log: &dyn UnitLog) -> Result<(), StepError> {
    let mut lines = Vec::new();
    for object in ready.set.objects().filter(|object| matches!(object.role(), Role::Managed | Role::Custom)) {
        lines.push(format!("{} {}", object.reference(), object.images().join(", ")));
    }
    let text = match lines.len() {
        0 => "the manifest holds no workload: everything is applied, nothing is waited for".to_owned(),
        _ => format!("workloads:\n{}", lines.join("\n")),
    };
    ready.session.say(log, Level::Info, &text).await?;
    let own = |object: &&Object| {
        matches!(object.kind(), "ConfigMap" | "Secret") && object.name() == ready.session.release
    };
    if let Some(object) = ready.set.objects().find(own) {
        let text = format!(
            "{} is named like the release: Harness' own delegate keeps its older history under that name",
            object.reference()
        );
        ready.session.say(log, Level::Warn, &text).await?;
    }
    if !has_namespace(ready).await? {
        let text = format!(
            "the namespace {} comes with the release; the release is stored when it exists",
            ready.session.namespace
        );
        return ready.session.say(log, Level::Info, &text).await;
    }
    if ready.release.version.is_empty() || ready.release.status == Status::InProgress {
        ready.release.status = Status::InProgress;
        History::store(&ready.session, &mut ready.release).await?;
    }
    Ok(())
}

/// Whether the namespace of the release exists; it may be an object of the set.
async fn has_namespace(ready: &Ready) -> Result<bool, StepError> {
    let session = &ready.session;
    let of_set = |object: &Object| {
        object.kind() == "Namespace" && object.group().is_empty() && object.name() == session.namespace
    };
    if !ready.set.objects().any(of_set) {
        return Ok(true);
    }
    let path = format!("/api/v1/namespaces/{}", crate::rest::encode(&session.namespace));
    let found = session.api.find::<Value>(&path).await;
    let found = found.map_err(|f| f.step("look at the namespace", &session.api.target))?;
    Ok(found.is_some())
}

/// Undo data: the number is all that a rollback needs, the rest is in the history.
fn undo(release: &Release) -> Value {
    json!({"v": 1, "step": "K8sRollingDeploy", "releaseNumber": release.number,
        "prunedResourceIds": ids(&release.ours.pruned)})
}

/// Objects as Harness' outcomes name them.
pub(super) fn ids(items: &[Item]) -> Value {
    items
        .iter()
        .map(|item| {
            let reference = &item.reference;
            json!({"kind": reference.kind, "name": reference.name, "namespace": reference.namespace, "versioned": false})
        })
        .collect()
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let mut fetched = render::in_unit(executor, spec, &[], cx).await?;
    let unit = Unit::begin(cx, "Initialize").await?;
    let result = initialize(executor, spec, cx, &mut fetched, unit.log()).await;
    let mut ready = unit.end(result).await?;
    let unit = Unit::begin(cx, "Prepare").await?;
    let result = prepare(&mut ready, unit.log()).await;
    unit.end(result).await?;
    match deploy(&mut ready, cx).await {
        Ok(report) => finish(ready, spec, cx, &fetched, &report).await,
        Err(error) => {
            failed(&mut ready, &error).await;
            Err(error)
        }
    }
}

async fn deploy(ready: &mut Ready, cx: &StepContext) -> Result<Report, StepError> {
    let unit = Unit::begin(cx, "Apply").await?;
    let state = pods::noted(json!({"v": 1, "release": ready.release.number}), &ready.pods_before);
    let undo = undo(&ready.release);
    let result = ready.set.apply(&mut ready.session, &state, Some(&undo), unit.log()).await;
    ready.release.ours.inventory = inventory(&ready.release.ours.inventory, &ready.set);
    unit.end(result).await?;
    let unit = Unit::begin(cx, "Wait for Steady State").await?;
    let targets = shape::targets(ready.set.objects(), false);
    let result = if targets.is_empty() {
        let told = unit.say(Level::Info, "there is no workload to wait for").await;
        told.map(|()| Report::default())
    } else {
        steady::wait(ready.session.api.client(), &targets, cx, unit.log())
            .await
            .map_err(|e| ready.session.masked(e))
    };
    unit.end(result).await
}

/// What was applied now, and what an earlier life of the task had applied.
fn inventory(before: &[Item], set: &Set) -> Vec<Item> {
    let mut items: Vec<Item> = set.done().iter().map(Item::from).collect();
    items.extend(
        before.iter().filter(|old| !set.done().iter().any(|new| new.reference == old.reference)).cloned(),
    );
    items
}

/// Remembers that the release failed. An agent that goes down leaves it to the next one.
async fn failed(ready: &mut Ready, error: &StepError) {
    if let Class::Cancelled { reason: CancelReason::Drain | CancelReason::LeaseLost } = error.class {
        return;
    }
    ready.release.status = Status::Failed;
    // The error of the step is the one to report.
    if let Err(error) = History::store(&ready.session, &mut ready.release).await {
        tracing::warn!(%error, "the failed release could not be stored");
    }
}

async fn finish(
    mut ready: Ready,
    spec: &KubernetesSpec,
    cx: &StepContext,
    fetched: &Fetched,
    report: &Report,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, "Wrap Up").await?;
    let work = async {
        wrap_up(&mut ready, report, unit.log()).await?;
        addresses::told(&ready.session, ready.set.objects(), unit.log()).await
    };
    let result = work.await;
    let reached = unit.end(result).await?;
    let mut notices = Vec::new();
    if asked(spec)?.pruning {
        let unit = Unit::begin(cx, "Prune").await?;
        let result = prune_unit(&mut ready, unit.log()).await;
        // Pruning is tidying up: the release has succeeded, whatever becomes of it.
        if let Err(error) = unit.end(result).await {
            if matches!(error.class, Class::Cancelled { .. }) {
                return Err(error);
            }
            notices.push(format!("not everything was pruned: {}", error.what));
        }
    }
    let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
    let mut put = |key: &str, value: Value| outputs.insert(key.to_owned(), value.into());
    put("releaseName", ready.session.release.as_str().into());
    put("releaseNumber", ready.release.number.into());
    put("prunedResourceIds", ids(&ready.release.ours.pruned));
    put("manifest", fetched.outcome());
    if let Some(reached) = reached {
        put("loadBalancer", reached);
    }
    for (key, value) in pods::outcomes(&ready.session, &ready.pods_before).await? {
        put(key, value);
    }
    Ok(StepOutput { outputs, undo: Some(undo(&ready.release)), notices, ..StepOutput::default() })
}

async fn wrap_up(ready: &mut Ready, report: &Report, log: &dyn UnitLog) -> Result<(), StepError> {
    for target in &report.targets {
        ready.session.say(log, Level::Info, &format!("{}: {}", target.target, target.summary)).await?;
    }
    // What will be pruned is written down first, so that a rollback brings it back whenever the agent dies.
    ready.release.ours.pruned.clone_from(&ready.candidates);
    ready.release.status = Status::Succeeded;
    History::store(&ready.session, &mut ready.release).await?;
    ready.history.clean(&ready.session, &ready.release, log).await
}

async fn prune_unit(ready: &mut Ready, log: &dyn UnitLog) -> Result<(), StepError> {
    if ready.candidates.is_empty() {
        let text = match ready.history.succeeded_before(ready.release.number) {
            None => "there is no successful release before this one: nothing to prune",
            Some(_) => "nothing to prune",
        };
        return ready.session.say(log, Level::Info, text).await;
    }
    let items = ready.candidates.clone();
    prune::delete(&ready.session, items, Strictness::Lenient, log).await.map(|_| ())
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit("Fetch Files");
    let mut fetched = render::fetch(executor, spec, &[], cx, log.as_ref()).await?;
    let log = cx.logs.unit("Initialize");
    let flags = flags::read(&spec.command_flags, "Apply", false)?;
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let Shaped { history, number, objects, versioned, .. } =
        shaped(&mut session, spec, &mut fetched, log.as_ref()).await?;
    let release = Release::new(number, objects.clone(), Ours { versioned, ..Ours::default() });
    let mut changes = changes::of(&session, objects, flags.options).await?;
    if asked(spec)?.pruning {
        changes.deletions(&session, &to_prune(&history, &release)).await?;
    }
    Ok(changes.plan())
}

/// The objects of a rolling release as they would be applied now, for K8sDiff.
pub(super) async fn objects(
    session: &mut Session,
    spec: &KubernetesSpec,
    fetched: &mut Fetched,
    log: &dyn UnitLog,
) -> Result<Vec<Object>, StepError> {
    let as_rolling = KubernetesSpec {
        action: KubernetesAction::K8sRollingDeploy {
            skip_dry_run: false,
            pruning_enabled: false,
            in_canary_workflow: false,
        },
        ..spec.clone()
    };
    Ok(shaped(session, &as_rolling, fetched, log).await?.objects)
}
