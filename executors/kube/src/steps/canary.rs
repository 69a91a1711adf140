//! `K8sCanaryDeploy`: a smaller copy of the workload beside the stable one.
//!
//! The number of pods is decided once and stands in the checkpoint. A later canary step of the same stage goes on with
//! the same release and the same copy, and gives it another number of pods. Weights of routes go up only after the pods
//! are ready and down before they go, so that the canary never gets more than its share of the capacity.

use super::changes;
use super::copies::Live;
use super::deploy::{self, Pods};
use super::pods;
use super::render::{self, Fetched};
use super::routes::{self, Plan as RoutePlan};
use super::shape::{self, Records};
use crate::KubeExecutor;
use crate::apply::{Set, validate};
use crate::bluegreen;
use crate::canary::{self, Prepared, STABLE, SUFFIX, TRACK, Target};
use crate::error::bad_spec;
use crate::objects::{Gvk, Object};
use crate::release::{History, Release};
use crate::session::Session;
use crate::steady;
use crate::traffic;
use crate::variant::{self, Fault, RELEASE_LABEL};
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::task::{Instances, KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};

const KIND: &str = "K8sCanaryDeploy";

struct Told<'a> {
    instances: Instances,
    skip_dry_run: bool,
    routing: Option<&'a Value>,
}

fn told(spec: &KubernetesSpec) -> Result<Told<'_>, StepError> {
    match &spec.action {
        KubernetesAction::K8sCanaryDeploy { instances, skip_dry_run, traffic_routing } => Ok(Told {
            instances: *instances,
            skip_dry_run: *skip_dry_run,
            routing: traffic_routing.as_ref().filter(|routing| !routing.is_null()),
        }),
        other => Err(bad_spec("KUBE-001", format!("{} is no canary", other.kind()))),
    }
}

/// Everything that is known before the first change.
struct Ready {
    number: u64,
    earlier: Option<Release>,
    prepared: Prepared,
    workload: Object,
    target: Target,
    stable: Option<Live>,
    /// The canary that is there already.
    before: Option<Live>,
    routes: Option<RoutePlan>,
    set: Set,
    own: Vec<String>,
    /// Uids of the pods of the release before it.
    pods_before: Vec<String>,
}

impl Ready {
    fn state(&self) -> Value {
        let state = json!({"v": 1, "canary": {"release": self.number, "replicas": self.target.replicas,
            "raised": self.target.raised, "workload": self.workload.reference().to_string()}});
        pods::noted(state, &self.pods_before)
    }

    fn undo(&self, session: &Session, deployed: bool) -> Value {
        json!({"v": 1, "releaseName": session.release, "releaseNumber": self.number,
            "canaryWorkload": self.own.join(","), "canaryWorkloadDeployed": deployed})
    }

    /// What stands in the cluster once the canary was accepted.
    fn in_cluster(&self) -> String {
        format!(
            "{} with {} pods asked for, beside the stable {}; K8sCanaryDelete removes it",
            self.workload.reference(),
            self.target.replicas,
            self.prepared.stable_name
        )
    }
}

/// Number of pods: what an earlier life of this task decided, else from the stable workload of now.
fn decided(cx: &StepContext, instances: Instances, stable: u32) -> Target {
    let earlier = cx.checkpoints.history().iter().find_map(|checkpoint| {
        let canary = checkpoint.state.get("canary")?;
        let replicas = u32::try_from(canary.get("replicas")?.as_u64()?).ok()?;
        Some(Target { replicas, raised: canary.get("raised")?.as_bool()? })
    });
    earlier.unwrap_or_else(|| canary::target(instances, stable))
}

/// Whether the stable pods can be told apart from the canary's.
fn tracked(stable: Option<&Live>) -> bool {
    stable.is_none_or(|live| {
        variant::pod_labels(&live.object.value).get(TRACK).is_some_and(|track| track == STABLE)
    })
}

async fn initialize(
    session: &mut Session,
    spec: &KubernetesSpec,
    fetched: &mut Fetched,
    log: &dyn UnitLog,
) -> Result<Ready, StepError> {
    let told = told(spec)?;
    let history = History::load(session).await?;
    let (number, earlier) = deploy::number(&history, &session.cx, |found| found.ours.step == KIND);
    let options = deploy::options(spec, told.skip_dry_run)?;
    shape::rights(session, fetched.preview(), Records::Releases).await?;
    let objects = deploy::objects(session, fetched, number, None)?;
    session.add_places(&objects);
    let documents: Vec<Value> = objects.into_iter().map(|object| object.value).collect();
    let skip_versioning = spec.manifest.as_ref().is_some_and(|manifest| manifest.skip_versioning);
    let services = told.routing.map(|_| bluegreen::services(&documents, &session.namespace));
    let primary = match services {
        Some(Ok(found)) => documents.get(found.primary).cloned(),
        _ => None,
    };
    let mut prepared = canary::prepare(documents, &session.release, &session.namespace, skip_versioning)
        .map_err(Fault::into_step)?;
    let namespace = variant::namespace(&prepared.workload, &session.namespace).to_owned();
    let version = prepared.workload.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let gvk = Gvk::new(version, &prepared.kind);
    let stable = session.live(&gvk, &namespace, &prepared.stable_name).await?;
    let before = session.live(&gvk, &namespace, variant::name(&prepared.workload)).await?;
    let live_replicas = stable.as_ref().and_then(|live| canary::replicas(&live.object.value));
    let current = live_replicas.or(prepared.manifest_replicas).unwrap_or(1);
    let target = decided(&session.cx, told.instances, current);
    prepared.scale(target.replicas);
    let text = match told.instances {
        Instances::Count(count) => format!("{count} pods beside {current} stable ones"),
        Instances::Percentage(percent) => {
            let raised = if target.raised { " (at least one)" } else { "" };
            format!("{percent} % of {current} stable pods: {}{raised}", target.replicas)
        }
    };
    session.say(log, Level::Info, &text).await?;
    manage(&mut prepared, stable.as_ref());
    absent(session, &mut prepared).await?;
    let routes = match told.routing {
        None => None,
        Some(routing) => {
            if primary.is_some() && !tracked(stable.as_ref()) {
                let text = format!(
                    "the pods of {} carry no label {TRACK}: {STABLE}, so that no Service can select them without the canary",
                    prepared.stable_name
                );
                return Err(Fault::Unroutable(text).into_step());
            }
            let plan = routes::for_canary(session, routing, primary.as_ref(), &namespace)?;
            prepared.if_absent.extend(plan.services.iter().cloned());
            routes::try_out(session, &plan, log).await?;
            Some(plan)
        }
    };
    let own = prepared.own(&session.namespace);
    let mut documents = prepared.shared.clone();
    documents.extend(prepared.if_absent.iter().cloned());
    documents.extend(prepared.configuration.iter().cloned());
    documents.push(prepared.workload.clone());
    let objects = deploy::wrapped(documents, "the manifest of the canary")?;
    let workload = Object::new(prepared.workload.clone(), "the manifest of the canary")
        .map_err(|problem| bad_spec("KUBE-010", problem))?;
    let set = validate(session, objects, options, log).await?;
    let pods_before = pods::before(session).await?;
    Ok(Ready { number, earlier, prepared, workload, target, stable, before, routes, set, own, pods_before })
}

/// Istio objects that the manifest hands over. While the stable pods cannot be told apart they are left alone: a subset
/// without pods answers every request with an error.
fn manage(prepared: &mut Prepared, stable: Option<&Live>) {
    if tracked(stable) {
        traffic::manage(&mut prepared.shared);
        return;
    }
    let managed = |document: &Value| {
        variant::group(document) == "networking.istio.io" && variant::annotated(document, canary::MANAGED)
    };
    let (left, kept): (Vec<Value>, Vec<Value>) =
        std::mem::take(&mut prepared.shared).into_iter().partition(managed);
    prepared.shared = kept;
    for document in left {
        let name = variant::reference(&document, "");
        prepared.notices.push(format!(
            "{} waits for the rolling step, which labels the stable pods",
            name.trim_start_matches('/')
        ));
    }
}

/// Leaves out what the cluster has already.
async fn absent(session: &Session, prepared: &mut Prepared) -> Result<(), StepError> {
    for document in std::mem::take(&mut prepared.if_absent) {
        let gvk = Gvk::new(
            document.get("apiVersion").and_then(Value::as_str).unwrap_or_default(),
            variant::kind(&document),
        );
        let namespace = variant::namespace(&document, &session.namespace).to_owned();
        match session.live(&gvk, &namespace, variant::name(&document)).await? {
            Some(_) => prepared.later.push(variant::reference(&document, &session.namespace)),
            None => prepared.if_absent.push(document),
        }
    }
    Ok(())
}

async fn prepare(unit: &Unit, session: &Session, ready: &Ready) -> Result<(), StepError> {
    let mut text =
        format!("release {} of {}\ncanary:\n{}", ready.number, session.release, ready.own.join("\n"));
    if !ready.prepared.later.is_empty() {
        text.push_str(&format!(
            "\nleft as they are until the rolling step:\n{}",
            ready.prepared.later.join("\n")
        ));
    }
    for notice in &ready.prepared.notices {
        text.push_str(&format!("\n{notice}"));
    }
    unit.say(Level::Info, &session.mask.hide(&text)).await
}

async fn apply(
    session: &mut Session,
    ready: &mut Ready,
    release: &mut Release,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    // The history names the release before anything of it exists, so that an abort at any place finds it.
    History::store(session, release).await?;
    if let Some(before) = &ready.before {
        let percent = canary::capacity_share(ready.target.replicas, deploy::ready(ready.stable.as_ref()));
        if canary::replicas(&before.object.value).is_some_and(|now| now > ready.target.replicas) {
            routes::lower(session, percent, log).await?;
        }
    }
    let (state, undo) = (ready.state(), ready.undo(session, false));
    let result = ready.set.apply(session, &state, Some(&undo), log).await;
    let deployed = match &result {
        Ok(_) => true,
        // Part of the set was applied; the outcome must not say less than the cluster, which is not asked any more after
        // a cancel.
        Err(_) => {
            let (gvk, namespace) = (ready.workload.gvk(), ready.workload.namespace().unwrap_or_default());
            ready.set.has_applied(&ready.workload)
                || session
                    .live(&gvk, namespace, ready.workload.name())
                    .await
                    .is_ok_and(|found| found.is_some())
        }
    };
    if deployed {
        let undo = ready.undo(session, true);
        session.api.announce("the canary was accepted", Vec::new(), state, Some(undo)).await?;
    }
    let applied = result
        .map_err(|error| if deployed { deploy::with_state(error, &ready.in_cluster()) } else { error })?;
    deploy::note(release, &applied);
    Ok(())
}

async fn wait(session: &Session, ready: &Ready, log: &dyn UnitLog) -> Result<steady::Report, StepError> {
    let targets = [deploy::target(&ready.workload, &session.namespace)];
    let report = steady::wait(session.api.client(), &targets, &session.cx, log).await;
    report.map_err(|error| deploy::with_state(error, &ready.in_cluster()))
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let mut fetched = render::in_unit(executor, spec, &[], cx).await?;
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        let ready = initialize(&mut session, spec, &mut fetched, unit.log()).await?;
        Ok((session, ready))
    };
    let result = work.await;
    let (mut session, mut ready) = unit.end(result).await?;
    let unit = Unit::begin(cx, "Prepare").await?;
    let result = prepare(&unit, &session, &ready).await;
    unit.end(result).await?;
    if let Some(plan) = &ready.routes {
        routes::show(&session, plan).await?;
    }
    let objects = ready.set.objects().cloned().collect();
    let mut release = deploy::release(ready.number, ready.earlier.take(), objects, spec, cx);
    let unit = Unit::begin(cx, "Apply").await?;
    let result = apply(&mut session, &mut ready, &mut release, unit.log()).await;
    deploy::end(unit, &session, &mut release, result).await?;
    let unit = Unit::begin(cx, "Wait for Steady State").await?;
    let result = wait(&session, &ready, unit.log()).await;
    let report = deploy::end(unit, &session, &mut release, result).await?;
    let unit = Unit::begin(cx, "Wrap Up").await?;
    let result = wrap_up(&mut session, &ready, &mut release, &report, &unit).await;
    let pods = deploy::end(unit, &session, &mut release, result).await?;
    let [_, (_, list)] = pods::outcomes(&session, &ready.pods_before).await?;
    let outputs = deploy::outputs([
        ("releaseName", session.release.clone().into()),
        ("releaseNumber", ready.number.into()),
        ("targetInstances", ready.target.replicas.into()),
        ("canaryWorkload", ready.own.join(",").into()),
        ("canaryWorkloadDeployed", true.into()),
        ("podIps", pods.ips()),
        ("k8sPodList", list),
        ("manifest", fetched.outcome()),
    ]);
    let undo = Some(ready.undo(&session, true));
    Ok(StepOutput { outputs, undo, notices: ready.prepared.notices, ..StepOutput::default() })
}

async fn wrap_up(
    session: &mut Session,
    ready: &Ready,
    release: &mut Release,
    report: &steady::Report,
    unit: &Unit,
) -> Result<Pods, StepError> {
    for target in &report.targets {
        unit.say(Level::Info, &session.mask.hide(&format!("{}: {}", target.target, target.summary))).await?;
    }
    let namespace = ready.workload.namespace().unwrap_or(&session.namespace).to_owned();
    let pods = Pods::find(session, &namespace, &[(RELEASE_LABEL, &session.release), (TRACK, SUFFIX)]).await?;
    if let Some(plan) = &ready.routes {
        let stable = session.live(&ready.workload.gvk(), &namespace, &ready.prepared.stable_name).await?;
        // Pods beyond those asked for are about to go, and count no more.
        let pods_that_stay = pods.ready().min(ready.target.replicas);
        let percent = canary::capacity_share(pods_that_stay, deploy::ready(stable.as_ref()));
        let applied = routes::apply(session, plan, Some(percent), unit.log()).await;
        let applied = applied.map_err(|error| deploy::with_state(error, &ready.in_cluster()))?;
        deploy::note(release, &applied);
    }
    // It stays in progress: the rolling step of the stage completes it.
    History::store(session, release).await?;
    Ok(pods)
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let mut fetched = render::in_unit(executor, spec, &[], cx).await?;
    let log = cx.logs.unit("Initialize");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let ready = initialize(&mut session, spec, &mut fetched, log.as_ref()).await?;
    let objects = ready.set.objects().cloned().collect();
    let mut changes = changes::of(&session, objects, deploy::options(spec, true)?).await?;
    if let Some(plan) = &ready.routes {
        changes.absorb(routes::difference(&session, plan, None).await?);
    }
    Ok(changes.plan())
}
