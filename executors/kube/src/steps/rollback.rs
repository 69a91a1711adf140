//! `K8sRollingRollback`: the release before comes back, as a whole (settled facts §3.8).

use super::changes;
use super::flags;
use super::pods;
use super::rolling::ids;
use super::routes;
use super::shape;
use crate::KubeExecutor;
use crate::apply::{Options, validate};
use crate::canary::is_canary_name;
use crate::error::bad_spec;
use crate::objects::{Mask, Object, Reference};
use crate::prune::{self, Strictness, candidates};
use crate::release::{History, Item, Release, Status};
use crate::session::Session;
use crate::steady;
use executor_api::Unit;
use executor_api::{Class, Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::result::Output;
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What is to be undone and what is to come back.
struct Found {
    /// The release that failed or is to go.
    current: Option<Release>,
    /// The one that comes back.
    target: Option<Release>,
    /// What K8sApply steps of this stage changed, when no release was made.
    applied: Vec<String>,
    /// Canary objects of this execution.
    canaries: Vec<Item>,
    /// Uids of the pods of the release before the rollback.
    pods_before: Vec<String>,
}

fn pruning(spec: &KubernetesSpec) -> Result<bool, StepError> {
    match spec.action {
        KubernetesAction::K8sRollingRollback { pruning_enabled } => Ok(pruning_enabled),
        _ => Err(bad_spec("KUBE-001", format!("{} is no rollback", spec.action.kind()))),
    }
}

/// Undo data of the forward steps: one document, a list of them, or a map by step.
fn undo_of<'a>(value: &'a Value, step: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) if map.get("step").and_then(Value::as_str) == Some(step) => found.push(value),
        Value::Object(map) => map.values().for_each(|value| undo_of(value, step, found)),
        Value::Array(list) => list.iter().for_each(|value| undo_of(value, step, found)),
        _ => {}
    }
}

async fn find(session: &Session) -> Result<Found, StepError> {
    let history = History::load(session).await?;
    let task = &session.cx.task;
    let (mut rolling, mut applies) = (Vec::new(), Vec::new());
    if let Some(undo) = &task.undo {
        undo_of(undo, "K8sRollingDeploy", &mut rolling);
        undo_of(undo, "K8sApply", &mut applies);
    }
    let number = rolling.last().and_then(|undo| undo.get("releaseNumber")?.as_u64());
    let execution = &task.execution;
    let current = match number {
        Some(number) => history.numbered(number),
        // The forward step died or was aborted before it could answer.
        None => history.covered_by(execution).rev().find(|release| release.ours.stage == execution.stage),
    };
    let applied: Vec<String> = applies
        .iter()
        .filter_map(|undo| undo.get("objects")?.as_array())
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let target = match current {
        Some(current) => history.succeeded_before(current.number),
        None if !applied.is_empty() => history.succeeded(),
        None => None,
    };
    let mut canaries: Vec<Item> = history
        .covered_by(execution)
        .flat_map(Release::items)
        .filter(|item| is_canary_name(&item.reference.name))
        .map(|item| Item { reference: in_namespace(session, item.reference), uid: item.uid })
        .collect();
    canaries.sort_by(|a, b| a.reference.cmp(&b.reference));
    canaries.dedup_by(|a, b| a.reference == b.reference);
    let (current, target) = (current.cloned(), target.cloned());
    let pods_before = pods::before(session).await?;
    Ok(Found { current, target, applied, canaries, pods_before })
}

/// Objects of releases of Harness' own delegate name no namespace when it was that of the infrastructure.
fn in_namespace(session: &Session, mut reference: Reference) -> Reference {
    let namespaced = session.discovery.of_reference(&reference).is_none_or(|resource| resource.namespaced);
    if reference.namespace.is_none() && namespaced {
        reference.namespace = Some(session.namespace.clone());
    }
    reference
}

/// The objects that come back, in their namespaces, with what must not be shown of them.
async fn restored(
    session: &mut Session,
    target: &Release,
    log: &dyn UnitLog,
) -> Result<Vec<Object>, StepError> {
    let mut objects = target.objects.clone();
    let mut mask = Mask::default();
    objects.iter().for_each(|object| mask.add_object(object));
    session.mask = mask;
    session.place(&mut objects, &|_| None);
    let live = shape::live(session, &objects).await?;
    shape::hold_replicas(session, &mut objects, &live, log).await?;
    Ok(objects)
}

/// Objects that only the failed release holds.
fn superfluous(session: &Session, found: &Found) -> Vec<Item> {
    let (Some(current), Some(target)) = (&found.current, &found.target) else { return Vec::new() };
    let mut kept: BTreeSet<Reference> =
        target.items().into_iter().map(|item| in_namespace(session, item.reference)).collect();
    kept.extend(current.ours.versioned.iter().map(|versioned| versioned.reference.clone()));
    let items: Vec<Item> = current
        .items()
        .into_iter()
        .map(|item| Item { reference: in_namespace(session, item.reference), uid: item.uid })
        .collect();
    candidates(&items, &kept)
}

/// A rollback takes fields back from whoever took them since: the state before is what is asked for.
fn options(spec: &KubernetesSpec) -> Result<Options, StepError> {
    let flags = flags::read(&spec.command_flags, "Apply", false)?;
    Ok(Options { force_conflicts: true, ..flags.options })
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let pruning = pruning(spec)?;
    let unit = Unit::begin(cx, "Initialize").await?;
    let mut notices = Vec::new();
    let work = async {
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let found = find(&session).await?;
        for text in told(&session, &found, &mut notices) {
            session.say(unit.log(), Level::Info, &text).await?;
        }
        Ok((session, found))
    };
    let result = work.await;
    let (mut session, mut found) = unit.end(result).await?;
    let nothing = found.target.is_none() && found.canaries.is_empty();
    let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
    let mut put = |key: &str, value: Value| outputs.insert(key.to_owned(), value.into());
    let recreated = found.current.as_ref().filter(|_| pruning).map(|current| current.ours.pruned.clone());
    put("recreatedResourceIds", ids(&recreated.clone().unwrap_or_default()));
    if nothing && found.current.is_none() {
        return Ok(StepOutput { outputs, notices, skipped: true, ..StepOutput::default() });
    }
    if pruning {
        let unit = Unit::begin(cx, "Recreate Pruned Resources").await?;
        let names: Vec<String> = recreated.iter().flatten().map(|item| item.reference.to_string()).collect();
        let text = match names.len() {
            0 => "the failed release pruned nothing".to_owned(),
            _ => format!("these come back with the release before:\n{}", names.join("\n")),
        };
        let result = session.say(unit.log(), Level::Info, &text).await;
        unit.end(result).await?;
        let unit = Unit::begin(cx, "Delete Failed Release Resources").await?;
        let items = superfluous(&session, &found);
        let result = prune::delete(&session, items, Strictness::Lenient, unit.log()).await;
        unit.end(result).await?;
    }
    let unit = Unit::begin(cx, "Rollback").await?;
    let result = roll_back(&mut session, spec, &mut found, unit.log()).await;
    let objects = unit.end(result).await?;
    let unit = Unit::begin(cx, "Wait for Steady State").await?;
    let targets = shape::targets(&objects, false);
    let result = if targets.is_empty() {
        unit.say(Level::Info, "there is no workload to wait for").await.map(|()| steady::Report::default())
    } else {
        steady::wait(session.api.client(), &targets, cx, unit.log()).await.map_err(|e| session.masked(e))
    };
    unit.end(result).await?;
    if let Some(target) = &found.target {
        put("releaseNumber", target.number.into());
    }
    put("releaseName", session.release.as_str().into());
    for (key, value) in pods::outcomes(&session, &found.pods_before).await? {
        put(key, value);
    }
    Ok(StepOutput { outputs, notices, ..StepOutput::default() })
}

fn told(session: &Session, found: &Found, notices: &mut Vec<String>) -> Vec<String> {
    let mut lines = Vec::new();
    match (&found.current, &found.target) {
        (Some(current), Some(target)) => lines.push(format!(
            "release {} number {} ({}) goes, number {} comes back",
            session.release,
            current.number,
            current.status.as_str(),
            target.number
        )),
        (Some(current), None) => {
            lines.push(format!(
                "there is no successful release before number {}: nothing comes back",
                current.number
            ));
        }
        (None, Some(target)) => {
            let text = format!(
                "no rolling deployment ran in this stage, but K8sApply changed objects; release {} number {} is applied again",
                session.release, target.number
            );
            lines.push(text.clone());
            notices.push(text);
        }
        (None, None) if !found.applied.is_empty() => {
            let text = format!(
                "K8sApply changed these objects and there is no successful release to bring back; they stay as they are: {}",
                found.applied.join(", ")
            );
            lines.push(text.clone());
            notices.push(text);
        }
        (None, None) => lines.push("this stage deployed nothing: there is nothing to roll back".to_owned()),
    }
    if !found.canaries.is_empty() {
        let names: Vec<String> = found.canaries.iter().map(|item| item.reference.to_string()).collect();
        let text = format!("canary-removed-by-rollback: {}", names.join(", "));
        lines.push(text.clone());
        notices.push(text);
    }
    lines
}

async fn roll_back(
    session: &mut Session,
    spec: &KubernetesSpec,
    found: &mut Found,
    log: &dyn UnitLog,
) -> Result<Vec<Object>, StepError> {
    if !found.canaries.is_empty() {
        let services = found.canaries.iter().map(|item| &item.reference).filter(|r| r.kind == "Service");
        let services: Vec<String> = services.map(|reference| reference.name.clone()).collect();
        session.learn_places(log).await?;
        routes::leave(session, &services, log).await?;
        prune::delete(session, found.canaries.clone(), Strictness::Lenient, log).await?;
    }
    let (mut back, mut remade) = (Vec::new(), Vec::<Item>::new());
    if let Some(target) = &found.target {
        let objects = restored(session, target, log).await?;
        shape::rights(session, objects.clone(), shape::Records::Releases).await?;
        let mut set = validate(session, objects, options(spec)?, log).await?;
        let state = pods::noted(json!({"v": 1, "release": target.number}), &found.pods_before);
        set.apply(session, &state, None, log).await?;
        back = set.objects().cloned().collect();
        remade = set.done().iter().map(Item::from).collect();
    }
    remember(session, found.target.as_mut(), &remade, log).await?;
    if let Some(current) = found.current.as_mut().filter(|current| current.status != Status::Failed) {
        current.status = Status::Failed;
        History::store(session, current).await?;
    }
    Ok(back)
}

/// Notes which objects of the release that came back were made anew: by their old uids nobody would take them for ours
/// when the release is deleted. Only for releases of our own; the rollback itself does not fail for the note.
async fn remember(
    session: &Session,
    target: Option<&mut Release>,
    remade: &[Item],
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let Some(target) = target else { return Ok(()) };
    let mut changed = false;
    for item in &mut target.ours.inventory {
        let now = remade.iter().find(|now| now.reference == item.reference && now.uid != item.uid);
        if let Some(now) = now.filter(|now| !now.uid.is_empty()) {
            item.uid.clone_from(&now.uid);
            changed = true;
        }
    }
    if !changed {
        return Ok(());
    }
    match History::store(session, target).await {
        Err(error) if !matches!(error.class, Class::Cancelled { .. }) => {
            let text = format!("the objects that were made anew could not be noted: {}", error.what);
            session.say(log, Level::Warn, &text).await
        }
        other => other,
    }
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit("Initialize");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let found = find(&session).await?;
    let mut changes = changes::Changes::default();
    if let Some(target) = &found.target {
        let objects = restored(&mut session, target, log.as_ref()).await?;
        changes = changes::of(&session, objects, options(spec)?).await?;
    }
    changes.deletions(&session, &found.canaries).await?;
    if pruning(spec)? {
        changes.deletions(&session, &superfluous(&session, &found)).await?;
    }
    Ok(changes.plan())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_data_is_found_alone_in_a_list_and_by_step() {
        let one = json!({"v": 1, "step": "K8sRollingDeploy", "releaseNumber": 3});
        for undo in
            [one.clone(), json!([one.clone(), {"step": "K8sApply", "objects": []}]), json!({"deploy": one})]
        {
            let mut found = Vec::new();
            undo_of(&undo, "K8sRollingDeploy", &mut found);
            assert_eq!(found, [&one]);
        }
    }
}
