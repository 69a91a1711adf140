//! `K8sApply`: chosen files of the manifest, without a release.

use super::addresses;
use super::changes;
use super::flags::{self, Flags};
use super::render::{self, Fetched};
use super::rolling::ids;
use super::shape;
use crate::KubeExecutor;
use crate::apply::{Options, validate};
use crate::error::bad_spec;
use crate::objects::{Object, Reference};
use crate::prune::{self, Strictness, candidates, selects};
use crate::release::{History, Inventory, Item, follow};
use crate::session::Session;
use crate::steady;
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::result::Output;
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

struct Asked<'a> {
    files: &'a [String],
    skip_dry_run: bool,
    skip_steady_state_check: bool,
}

fn asked(spec: &KubernetesSpec) -> Result<Asked<'_>, StepError> {
    match &spec.action {
        KubernetesAction::K8sApply { file_paths, skip_dry_run, skip_steady_state_check, .. } => Ok(Asked {
            files: file_paths,
            skip_dry_run: *skip_dry_run,
            skip_steady_state_check: *skip_steady_state_check,
        }),
        _ => Err(bad_spec("KUBE-001", format!("{} is no apply", spec.action.kind()))),
    }
}

struct Shaped {
    flags: Flags,
    history: History,
    objects: Vec<Object>,
}

async fn shaped(
    session: &mut Session,
    spec: &KubernetesSpec,
    fetched: &mut Fetched,
    log: &dyn UnitLog,
) -> Result<Shaped, StepError> {
    let flags = flags::read(&spec.command_flags, "Apply", true)?;
    // The releases matter to workloads, to what may be pruned and to a manifest that asks for the number.
    let needed = flags.prune
        || fetched.asks_for_release()
        || fetched.preview().iter().any(|o| o.pod_template().is_some());
    let history = if needed { History::records(session).await? } else { History::default() };
    let number = history.releases().last().map_or(0, |release| release.number);
    let (mut objects, mask) = fetched.objects(number, None, false)?;
    session.mask = mask;
    let definitions = crate::apply::Definitions::of(&objects);
    session.place(&mut objects, &|object| definitions.namespaced(object));
    follow(&mut objects, history.succeeded(), &session.namespace);
    let live = shape::live(session, &objects).await?;
    shape::hold_replicas(session, &mut objects, &live, log).await?;
    Ok(Shaped { flags, history, objects })
}

/// What `--prune` may delete: what K8sApply steps of this release put there, that this one does not hold, that the
/// selector fits, and that belongs to no release.
async fn to_prune(session: &Session, shaped: &Shaped) -> Result<Vec<Item>, StepError> {
    if !shaped.flags.prune {
        return Ok(Vec::new());
    }
    let inventory = Inventory::load(session).await?;
    let mut kept: BTreeSet<Reference> = shaped.objects.iter().map(Object::reference).collect();
    kept.extend(
        shaped.history.releases().iter().flat_map(|release| release.items()).map(|item| item.reference),
    );
    let found = candidates(&inventory.items, &kept);
    let Some(selector) = &shaped.flags.selector else { return Ok(found) };
    let mut chosen = Vec::new();
    for item in found {
        let Some(path) = session.path_of(&item.reference) else { continue };
        let what = format!("read {}", item.reference);
        let live: Option<Value> =
            session.api.find(&path).await.map_err(|f| f.step(&what, &session.api.target))?;
        let labels = live.and_then(|live| live.pointer("/metadata/labels").cloned()).unwrap_or(Value::Null);
        let fits = selects(selector, &labels).map_err(|problem| bad_spec("KUBE-037", problem))?;
        if fits {
            chosen.push(item);
        }
    }
    Ok(chosen)
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let asked = asked(spec)?;
    let mut fetched = render::in_unit(executor, spec, asked.files, cx).await?;

    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        shape::rights(&session, fetched.preview(), shape::Records::Inventory).await?;
        let shaped = shaped(&mut session, spec, &mut fetched, unit.log()).await?;
        if !shaped.flags.needless.is_empty() {
            let text = format!("flags that change nothing here: {}", shaped.flags.needless.join(" "));
            session.say(unit.log(), Level::Info, &text).await?;
        }
        prune::permitted(&session, &to_prune(&session, &shaped).await?).await?;
        let options = Options { skip_dry_run: asked.skip_dry_run, ..shaped.flags.options };
        let set = validate(&session, shaped.objects.clone(), options, unit.log()).await?;
        Ok((session, shaped, set))
    };
    let result = work.await;
    let (mut session, shaped, mut set) = unit.end(result).await?;

    let unit = Unit::begin(cx, "Prepare").await?;
    let lines: Vec<String> = set.objects().map(|object| object.reference().to_string()).collect();
    let result = session.say(unit.log(), Level::Info, &lines.join("\n")).await;
    unit.end(result).await?;

    let unit = Unit::begin(cx, "Apply").await?;
    let undo = json!({"v": 1, "step": "K8sApply", "objects": lines});
    let work = async {
        let result = set.apply(&mut session, &json!({"v": 1}), Some(&undo), unit.log()).await;
        // What was applied is ours, also when the rest was refused.
        let recorded = Inventory::record(&session, set.done(), &[]).await;
        result?;
        recorded?;
        let pruned = to_prune(&session, &shaped).await?;
        let deleted = prune::delete(&session, pruned, Strictness::Strict, unit.log()).await?;
        let references: Vec<Reference> = deleted.iter().map(|item| item.reference.clone()).collect();
        if !references.is_empty() {
            Inventory::record(&session, &[], &references).await?;
        }
        Ok(())
    };
    let result = work.await;
    unit.end(result).await?;

    let mut report = steady::Report::default();
    if !asked.skip_steady_state_check {
        let unit = Unit::begin(cx, "Wait for Steady State").await?;
        let targets = shape::targets(set.objects(), true);
        let result = if targets.is_empty() {
            unit.say(Level::Info, "there is no workload to wait for")
                .await
                .map(|()| steady::Report::default())
        } else {
            steady::wait(session.api.client(), &targets, cx, unit.log()).await.map_err(|e| session.masked(e))
        };
        report = unit.end(result).await?;
    }
    let unit = Unit::begin(cx, "Wrap Up").await?;
    let work = async {
        summary(&session, &report, unit.log()).await?;
        addresses::told(&session, set.objects(), unit.log()).await
    };
    let result = work.await;
    let reached = unit.end(result).await?;
    let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
    outputs.insert("manifest".to_owned(), fetched.outcome().into());
    if let Some(reached) = reached {
        outputs.insert("loadBalancer".to_owned(), reached.into());
    }
    if shaped.flags.prune {
        outputs.insert("prunedResourceIds".to_owned(), ids(&prune::announced(&session)).into());
    }
    Ok(StepOutput { outputs, undo: Some(undo), ..StepOutput::default() })
}

async fn summary(session: &Session, report: &steady::Report, log: &dyn UnitLog) -> Result<(), StepError> {
    for target in &report.targets {
        session.say(log, Level::Info, &format!("{}: {}", target.target, target.summary)).await?;
    }
    Ok(())
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit("Fetch Files");
    let mut fetched = render::fetch(executor, spec, asked(spec)?.files, cx, log.as_ref()).await?;
    let log = cx.logs.unit("Initialize");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let shaped = shaped(&mut session, spec, &mut fetched, log.as_ref()).await?;
    let mut changes = changes::of(&session, shaped.objects.clone(), shaped.flags.options).await?;
    changes.deletions(&session, &to_prune(&session, &shaped).await?).await?;
    Ok(changes.plan())
}
