//! `K8sBlueGreenDeploy`: the colour that takes no production traffic gets the new manifest.
//!
//! The live primary Service says which colour that is, every time. It is read again right before the first change, so
//! that a swap in between does not let the step deploy over production.

use super::changes;
use super::copies::planned;
use super::deploy::{self, Pods};
use super::pods;
use super::render::{self, Fetched};
use super::rolling;
use super::routes::{self, Plan as RoutePlan};
use super::shape::{self, Records};
use crate::KubeExecutor;
use crate::apply::{Definitions, Set, validate};
use crate::bluegreen::{self, COLOR, Color, Prepared};
use crate::canary;
use crate::error::bad_spec;
use crate::objects::{Gvk, Object, Role};
use crate::prune::{self, Strictness};
use crate::release::{History, Item, Release, Status};
use crate::session::Session;
use crate::steady;
use crate::variant::{self, Fault, RELEASE_LABEL};
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::collections::BTreeSet;

struct Told<'a> {
    skip_dry_run: bool,
    pruning: bool,
    skip_unchanged: bool,
    check_only: bool,
    routing: Option<&'a Value>,
}

fn told(spec: &KubernetesSpec) -> Result<Told<'_>, StepError> {
    match &spec.action {
        KubernetesAction::K8sBlueGreenDeploy {
            skip_dry_run,
            pruning_enabled,
            skip_unchanged,
            check_only,
            traffic_routing,
        } => Ok(Told {
            skip_dry_run: *skip_dry_run,
            pruning: *pruning_enabled,
            skip_unchanged: *skip_unchanged,
            check_only: *check_only,
            routing: traffic_routing.as_ref().filter(|routing| !routing.is_null()),
        }),
        other => Err(bad_spec("KUBE-001", format!("{} is no blue-green deployment", other.kind()))),
    }
}

/// Everything that is known before the first change.
struct Ready {
    number: u64,
    earlier: Option<Release>,
    history: History,
    hash: String,
    color: Color,
    workload: Object,
    primary: Object,
    stage: Object,
    notices: Vec<String>,
    routes: Option<RoutePlan>,
    set: Set,
    /// Uids of the pods of the release before it.
    pods_before: Vec<String>,
}

/// What the look at manifest and cluster has found.
enum Look {
    /// A colour is to be deployed.
    Deploy(Box<Ready>),
    /// The manifest is that of production.
    Unchanged { number: u64, primary: String, stage: String, production: Color },
}

impl Ready {
    fn undo(&self, session: &Session) -> Value {
        json!({"v": 1, "releaseName": session.release, "releaseNumber": self.number,
            "primaryServiceName": self.primary.name(), "stageServiceName": self.stage.name(),
            "primaryColor": self.color.other().as_str(), "stageColor": self.color.as_str()})
    }

    fn in_cluster(&self) -> String {
        format!(
            "{} behind {}; production ({}) still selects {}",
            self.workload.reference(),
            self.stage.reference(),
            self.primary.reference(),
            self.color.other().as_str()
        )
    }
}

async fn production(session: &Session, primary: &Object) -> Result<Color, StepError> {
    let namespace = primary.namespace().unwrap_or(&session.namespace);
    let live = session.service(namespace, primary.name()).await?;
    bluegreen::primary_color(live.as_ref().map(|live| &live.object.value), namespace)
        .map_err(Fault::into_step)
}

async fn look(
    session: &mut Session,
    spec: &KubernetesSpec,
    fetched: &mut Fetched,
    log: &dyn UnitLog,
) -> Result<Look, StepError> {
    let told = told(spec)?;
    let values =
        |objects: Vec<Object>| objects.into_iter().map(|object| object.value).collect::<Vec<Value>>();
    // Before the number of the release is put in: with it no two manifests would be equal.
    let mut rendered = fetched.preview();
    let definitions = Definitions::of(&rendered);
    session.place(&mut rendered, &|object| definitions.namespaced(object));
    session.add_places(&rendered);
    let documents = values(rendered.clone());
    let hash = bluegreen::fingerprint(&documents);
    let options = deploy::options(spec, told.skip_dry_run)?;
    shape::rights(session, rendered.clone(), Records::Releases).await?;
    let places = bluegreen::services(&documents, &session.namespace).map_err(Fault::into_step)?;
    let primary = rendered.get(places.primary).ok_or_else(|| Fault::NoService.into_step())?;
    let stage = places.stage.and_then(|place| rendered.get(place)).map(|object| object.name().to_owned());
    let stage = stage.unwrap_or_else(|| format!("{}-stage", primary.name()));
    let production = production(session, primary).await?;
    let history = History::load(session).await?;
    let text = format!(
        "{} selects {}: {} is deployed",
        primary.reference(),
        production.as_str(),
        production.other().as_str()
    );
    session.say(log, Level::Info, &text).await?;
    let current = |release: &&Release| {
        release.status == Status::Succeeded && release.color.as_deref() == Some(production.as_str())
    };
    let in_production = history.releases().iter().rev().find(current);
    if told.skip_unchanged
        && let Some(same) = in_production.filter(|release| release.manifest_hash.as_deref() == Some(&hash))
    {
        return Ok(Look::Unchanged {
            number: same.number,
            primary: primary.name().to_owned(),
            stage,
            production,
        });
    }
    let (number, earlier) = deploy::number(&history, &session.cx, |_| false);
    let documents = values(deploy::objects(session, fetched, number, Some(production.other().as_str()))?);
    let skip_versioning = spec.manifest.as_ref().is_some_and(|manifest| manifest.skip_versioning);
    let prepared =
        bluegreen::prepare(documents, &session.release, &session.namespace, skip_versioning, production);
    let Prepared { mut documents, workload, primary, stage, color, notices } =
        prepared.map_err(Fault::into_step)?;
    if let Some(document) = documents.get_mut(workload) {
        wake(session, document, color).await?;
    }
    let mut objects = deploy::wrapped(documents, "the manifest of the colour")?;
    let mut scaled = shape::live(session, &objects).await?;
    // One without pods was scaled down by us; no autoscaler would wake it.
    scaled.retain(|_, live| canary::replicas(live) != Some(0));
    shape::hold_replicas(session, &mut objects, &scaled, log).await?;
    let at = |place: usize| objects.get(place).cloned().ok_or_else(|| Fault::NoWorkload.into_step());
    let (workload, primary, stage) = (at(workload)?, at(primary)?, at(stage)?);
    let routes = match told.routing {
        None => None,
        Some(routing) => {
            let namespace = primary.namespace().unwrap_or(&session.namespace);
            let plan = routes::for_colors(session, routing, &primary.value, &stage.value, namespace)?;
            routes::try_out(session, &plan, log).await?;
            Some(plan)
        }
    };
    let set = validate(session, objects, options, log).await?;
    let pods_before = pods::before(session).await?;
    let ready = Ready {
        number,
        earlier,
        history,
        hash,
        color,
        workload,
        primary,
        stage,
        notices,
        routes,
        set,
        pods_before,
    };
    Ok(Look::Deploy(Box::new(ready)))
}

/// A manifest that leaves the number of pods to an autoscaler would leave a colour that was scaled down without any.
/// It gets as many as production has now.
async fn wake(session: &Session, document: &mut Value, color: Color) -> Result<(), StepError> {
    if canary::replicas(document).is_some() || variant::kind(document) == "DaemonSet" {
        return Ok(());
    }
    let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let gvk = Gvk::new(version, variant::kind(document));
    let namespace = variant::namespace(document, &session.namespace).to_owned();
    let name = variant::name(document).to_owned();
    let asleep = session.live(&gvk, &namespace, &name).await?;
    if asleep.and_then(|live| canary::replicas(&live.object.value)) != Some(0) {
        return Ok(());
    }
    let other = match name.strip_suffix(color.as_str()) {
        Some(base) => session.live(&gvk, &namespace, &format!("{base}{}", color.other().as_str())).await?,
        None => None,
    };
    let replicas = other.and_then(|live| canary::replicas(&live.object.value)).unwrap_or(1).max(1);
    variant::set(document, &["spec", "replicas"], replicas.into());
    Ok(())
}

async fn apply(
    session: &mut Session,
    ready: &mut Ready,
    release: &mut Release,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let now = production(session, &ready.primary).await?;
    if now == ready.color {
        let expected = ready.color.other().as_str().to_owned();
        let service = ready.primary.reference().to_string();
        return Err(Fault::ServiceChanged { service, found: now.as_str().to_owned(), expected }.into_step());
    }
    History::store(session, release).await?;
    let state = json!({"v": 1, "blueGreen": {"release": ready.number, "color": ready.color.as_str()}});
    let state = pods::noted(state, &ready.pods_before);
    let undo = ready.undo(session);
    let result = ready.set.apply(session, &state, Some(&undo), log).await;
    let deployed = ready.set.has_applied(&ready.workload);
    let applied = result
        .map_err(|error| if deployed { deploy::with_state(error, &ready.in_cluster()) } else { error })?;
    deploy::note(release, &applied);
    Ok(())
}

/// Objects of older releases of this colour that neither the new one nor one of the production colour has.
fn superfluous(ready: &Ready, release: &Release) -> Vec<Item> {
    let others = ready.history.releases().iter().filter(|other| other.number != release.number);
    let (same, production): (Vec<&Release>, Vec<&Release>) =
        others.partition(|other| other.color.as_deref() == Some(ready.color.as_str()));
    let mut kept: BTreeSet<_> = release.items().into_iter().map(|item| item.reference).collect();
    kept.extend(production.iter().flat_map(|other| other.items()).map(|item| item.reference));
    let mut before: Vec<Item> = same.iter().flat_map(|other| other.items()).collect();
    before.sort_by(|a, b| a.reference.cmp(&b.reference));
    before.dedup_by(|a, b| a.reference == b.reference);
    prune::candidates(&before, &kept)
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let told = told(spec)?;
    let mut fetched = render::in_unit(executor, spec, &[], cx).await?;
    if told.check_only {
        return check(executor, spec, cx, &mut fetched).await;
    }
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        let look = look(&mut session, spec, &mut fetched, unit.log()).await?;
        Ok((session, look))
    };
    let result = work.await;
    let (mut session, look) = unit.end(result).await?;
    let mut ready = match look {
        Look::Deploy(ready) => *ready,
        Look::Unchanged { number, primary, stage, production } => {
            let unit = Unit::begin(cx, "Prepare").await?;
            let text = format!(
                "the manifest is that of release {number}, which is in production: nothing is deployed"
            );
            let result = unit.say(Level::Info, &text).await;
            unit.end(result).await?;
            let outputs = deploy::outputs([
                ("releaseName", session.release.clone().into()),
                ("releaseNumber", number.into()),
                ("primaryServiceName", primary.into()),
                ("stageServiceName", stage.into()),
                ("primaryColor", production.as_str().into()),
                ("stageColor", production.other().as_str().into()),
                ("stageDeploymentSkipped", true.into()),
                ("manifest", fetched.outcome()),
            ]);
            return Ok(StepOutput { outputs, ..StepOutput::default() });
        }
    };
    let unit = Unit::begin(cx, "Prepare").await?;
    let result = prepare(&unit, &session, &ready).await;
    unit.end(result).await?;
    if let Some(plan) = &ready.routes {
        routes::show(&session, plan).await?;
    }
    let objects = ready.set.objects().cloned().collect();
    let mut release = deploy::release(ready.number, ready.earlier.take(), objects, spec, cx);
    release.color = Some(ready.color.as_str().to_owned());
    release.environment = Some("stage".to_owned());
    release.manifest_hash = Some(ready.hash.clone());
    let unit = Unit::begin(cx, "Apply").await?;
    let result = apply(&mut session, &mut ready, &mut release, unit.log()).await;
    deploy::end(unit, &session, &mut release, result).await?;
    let unit = Unit::begin(cx, "Wait for Steady State").await?;
    let targets = [deploy::target(&ready.workload, &session.namespace)];
    let result = steady::wait(session.api.client(), &targets, cx, unit.log()).await;
    let result = result.map_err(|error| deploy::with_state(error, &ready.in_cluster()));
    let report = deploy::end(unit, &session, &mut release, result).await?;
    let unit = Unit::begin(cx, "Wrap Up").await?;
    let result = wrap_up(&mut session, &ready, &mut release, &report, &unit).await;
    let pods = deploy::end(unit, &session, &mut release, result).await?;
    let mut pruned = Vec::new();
    if told.pruning {
        let unit = Unit::begin(cx, "Prune").await?;
        let items = superfluous(&ready, &release);
        let result = prune::delete(&session, items, Strictness::Lenient, unit.log()).await;
        pruned = unit.end(result).await?;
    }
    let [_, (_, list)] = pods::outcomes(&session, &ready.pods_before).await?;
    let outputs = deploy::outputs([
        ("releaseName", session.release.clone().into()),
        ("releaseNumber", ready.number.into()),
        ("primaryServiceName", ready.primary.name().into()),
        ("stageServiceName", ready.stage.name().into()),
        ("primaryColor", ready.color.other().as_str().into()),
        ("stageColor", ready.color.as_str().into()),
        ("stageDeploymentSkipped", false.into()),
        ("prunedResourceIds", rolling::ids(&pruned)),
        ("podIps", pods.ips()),
        ("k8sPodList", list),
        ("manifest", fetched.outcome()),
    ]);
    let undo = Some(ready.undo(&session));
    Ok(StepOutput { outputs, undo, notices: ready.notices, ..StepOutput::default() })
}

async fn prepare(unit: &Unit, session: &Session, ready: &Ready) -> Result<(), StepError> {
    let mut text = format!(
        "release {} of {} as {}\nworkload {}\nproduction {} selects {}\nstage {} selects {}",
        ready.number,
        session.release,
        ready.color.as_str(),
        ready.workload.reference(),
        ready.primary.reference(),
        ready.color.other().as_str(),
        ready.stage.reference(),
        ready.color.as_str()
    );
    for notice in &ready.notices {
        text.push_str(&format!("\n{notice}"));
    }
    unit.say(Level::Info, &session.mask.hide(&text)).await
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
    if let Some(plan) = &ready.routes {
        let applied = routes::apply(session, plan, None, unit.log()).await;
        deploy::note(release, &applied.map_err(|error| deploy::with_state(error, &ready.in_cluster()))?);
    }
    release.status = Status::Succeeded;
    History::store(session, release).await?;
    ready.history.clean(session, release, unit.log()).await?;
    let namespace = ready.workload.namespace().unwrap_or(&session.namespace);
    Pods::find(session, namespace, &[(RELEASE_LABEL, &session.release), (COLOR, ready.color.as_str())]).await
}

/// Rule R12: only a look at the health of what an earlier step of the stage deployed. Nothing is sent that changes
/// anything.
async fn check(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
    fetched: &mut Fetched,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        let number = History::load(&session).await?.succeeded().map_or(0, |release| release.number);
        let objects = deploy::objects(&mut session, fetched, number, None)?;
        let watched = objects.iter().filter(|object| object.role() == Role::Managed);
        let targets: Vec<steady::Target> =
            watched.map(|object| deploy::target(object, &session.namespace)).collect();
        if targets.is_empty() {
            return Err(Fault::NoWorkload.into_step());
        }
        let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let text = format!("only the health is looked at, nothing is changed:\n{}", names.join("\n"));
        session.say(unit.log(), Level::Info, &text).await?;
        Ok((session, targets))
    };
    let result = work.await;
    let (session, targets) = unit.end(result).await?;
    let unit = Unit::begin(cx, "Wait for Steady State").await?;
    let result = steady::wait(session.api.client(), &targets, cx, unit.log()).await;
    let report = unit.end(result).await?;
    let mut ips = Vec::new();
    for found in &report.targets {
        let labels = found.object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
        let labels: Vec<(&str, &str)> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .collect();
        if let Value::Array(more) = Pods::find(&session, &found.target.namespace, &labels).await?.ips() {
            ips.extend(more);
        }
    }
    let outputs = deploy::outputs([
        ("releaseName", session.release.clone().into()),
        ("stageDeploymentSkipped", true.into()),
        ("podIps", ips.into()),
        ("manifest", fetched.outcome()),
    ]);
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    if told(spec)?.check_only {
        return Ok(planned(String::new()));
    }
    let mut fetched = render::in_unit(executor, spec, &[], cx).await?;
    let log = cx.logs.unit("Initialize");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    match look(&mut session, spec, &mut fetched, log.as_ref()).await? {
        Look::Unchanged { .. } => Ok(planned(String::new())),
        Look::Deploy(ready) => {
            let objects = ready.set.objects().cloned().collect();
            let mut changes = changes::of(&session, objects, deploy::options(spec, true)?).await?;
            if let Some(plan) = &ready.routes {
                changes.absorb(routes::difference(&session, plan, None).await?);
            }
            Ok(changes.plan())
        }
    }
}

/// After a swap the history says which release is in production: what Harness' own delegate reads.
pub(crate) async fn flip(session: &Session, production: Color) -> Result<(), StepError> {
    let history = History::load(session).await?;
    for (color, environment) in [(production, "primary"), (production.other(), "stage")] {
        let latest = history.releases().iter().rev().find(|release| {
            release.status == Status::Succeeded && release.color.as_deref() == Some(color.as_str())
        });
        if let Some(latest) = latest.filter(|release| release.environment.as_deref() != Some(environment)) {
            let mut release = latest.clone();
            release.environment = Some(environment.to_owned());
            History::store(session, &mut release).await?;
        }
    }
    Ok(())
}
