//! What Kubernetes steps of the same stage did before: their outcomes and undo data, and when a later step has nothing to
//! do. ECS has its own in [`super::earlier_ecs`].

use super::super::state::{Run, Status};
use super::build::Builder;
use crate::model::step::Spec;
use crate::model::step_k8s::K8sAction;
use crate::plan::NodeKind;
use serde_json::{Value as Json, json};

pub(super) fn in_rollback(builder: &Builder<'_>) -> bool {
    builder.node().is_some_and(|node| node.in_rollback)
}

pub(super) fn output(run: &Run, name: &str) -> Option<String> {
    let value = &run.outputs.get(name)?.value;
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Whether a step was given to an agent, whatever came of it.
pub(super) fn began(run: &Run) -> bool {
    run.attempt > 0 && run.status != Status::Skipped
}

/// Forward runs of this stage of a step type, the latest first.
fn forward<'a>(builder: &Builder<'a>, kind: &str) -> Vec<&'a Run> {
    let (plan, state) = (builder.plan, builder.state);
    let Some((stage, _)) = plan.stage_of(builder.scope.node) else { return Vec::new() };
    let fits = |run: &&Run| {
        let of_kind = plan.node(run.node).is_some_and(|node| {
            !node.in_rollback && matches!(&node.kind, NodeKind::Step { kind: own, .. } if own == kind)
        });
        of_kind && plan.stage_of(run.node).is_some_and(|(index, _)| index == stage)
    };
    let mut runs: Vec<&Run> = state.runs.values().filter(fits).collect();
    runs.sort_by_key(|run| std::cmp::Reverse((run.started_at, run.node)));
    runs
}

pub(super) fn latest<'a>(builder: &Builder<'a>, kind: &str, fits: impl Fn(&Run) -> bool) -> Option<&'a Run> {
    forward(builder, kind).into_iter().find(|run| fits(run))
}

/// What belongs to the canary of this stage: `[namespace/]Kind/name`.
pub(super) fn canary_workloads(builder: &Builder<'_>) -> Vec<String> {
    let of = |run: &Run| match output(run, "canaryWorkload") {
        Some(text) => Some(text),
        // A canary that failed or was aborted left no outcome; what it announced stands in its undo data.
        None => run.undo.as_ref().and_then(|undo| undo.get("canaryWorkload")?.as_str().map(str::to_owned)),
    };
    let named = latest(builder, "K8sCanaryDeploy", |run| of(run).is_some()).and_then(of);
    let workloads = named.iter().flat_map(|text| text.split(',')).map(str::trim);
    workloads.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// Why a step has nothing to do, if so: rollback steps of what never began, a deletion that was done.
pub(super) fn nothing_to_do(builder: &Builder<'_>, spec: &Spec) -> Option<String> {
    let step = match spec {
        Spec::Kubernetes(step) => step,
        Spec::Ecs(step) => return super::earlier_ecs::nothing_to_do(builder, step),
        _ => return None,
    };
    let ran = |kind: &str| latest(builder, kind, began).is_some();
    let back = in_rollback(builder);
    match &step.action {
        K8sAction::K8sRollingRollback { .. } => {
            let any = ["K8sRollingDeploy", "K8sApply", "K8sCanaryDeploy"].iter().any(|kind| ran(kind));
            (!any).then(|| {
                "no step of this stage has changed the cluster: there is nothing to roll back".to_owned()
            })
        }
        K8sAction::K8sCanaryDelete {} if back && !ran("K8sCanaryDeploy") => {
            Some("no canary of this stage was deployed".to_owned())
        }
        K8sAction::K8sCanaryDelete {}
            if back && latest(builder, "K8sCanaryDelete", |run| run.status == Status::Success).is_some() =>
        {
            Some("the canary of this stage was deleted already".to_owned())
        }
        K8sAction::K8sCanaryDelete {} if !back && !ran("K8sCanaryDeploy") => {
            Some("the canary step of this stage was skipped".to_owned())
        }
        K8sAction::K8sBGSwapServices {} => {
            let skipped = |run: &Run| {
                run.outputs.get("stageDeploymentSkipped").is_some_and(|output| {
                    output.value == Json::Bool(true) || output.value.as_str() == Some("true")
                })
            };
            if latest(builder, "K8sBlueGreenDeploy", skipped).is_some() {
                return Some(
                    "the manifest is that of the primary colour: nothing was deployed, nothing is swapped"
                        .to_owned(),
                );
            }
            // One that died between the two Services has not succeeded, but it has moved production.
            let moved = |run: &Run| run.status == Status::Success || run.undo.is_some();
            let swapped = latest(builder, "K8sBGSwapServices", moved).is_some();
            (back && !swapped).then(|| "the Services of this stage were not swapped".to_owned())
        }
        _ => None,
    }
}

/// Undo data of a rollback step: that of the latest rolling deployment as it stands, and beside it what applies and
/// canaries of the stage recorded (settled facts §3.8): `apply` and `canary`, lists with the latest first.
pub(super) fn undo(builder: &Builder<'_>) -> Option<Json> {
    let all = |kind: &str| -> Vec<Json> {
        forward(builder, kind).into_iter().filter_map(|run| run.undo.clone()).collect()
    };
    let rolling = all("K8sRollingDeploy").into_iter().next();
    let (apply, canary) = (all("K8sApply"), all("K8sCanaryDeploy"));
    if rolling.is_none() && apply.is_empty() && canary.is_empty() {
        return None;
    }
    let mut undo = rolling.unwrap_or_else(|| json!({}));
    if let Some(map) = undo.as_object_mut() {
        for (key, list) in [("apply", apply), ("canary", canary)] {
            if !list.is_empty() {
                map.insert(key.to_owned(), Json::Array(list));
            }
        }
    }
    Some(undo)
}
