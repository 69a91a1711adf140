//! What a Kubernetes stage must have as a whole, before it runs: its cluster, one manifest, steps that fit together.

use crate::fault::{Fault, Findings};
use crate::model::step::Spec;
use crate::model::step_k8s::K8sAction;
use crate::plan::{NodeKind, Plan};
use crate::rules;

/// Types of steps that bring a version to a cluster.
const DEPLOYS: [&str; 3] = ["K8sApply", "K8sRollingDeploy", "K8sCanaryDeploy"];

/// Checks every Kubernetes step, and decides rule R12.
pub(super) fn check(plan: &mut Plan, findings: &mut Findings) {
    let mut only_look = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let NodeKind::Step { spec, .. } = &node.kind else { continue };
        let Spec::Kubernetes(step) = &**spec else { continue };
        let Some((stage, stage_plan)) = plan.stage_of(index) else { continue };
        let path = node.name.path.strip_suffix(".name").unwrap_or(&node.name.path);
        let mut fault = |message: &str, hint: Option<&str>| {
            findings.push(Fault::at(&node.name.at, path, message).suggest(hint.map(str::to_owned)));
        };
        let of_stage = |kinds: &[&str], before: usize| {
            plan.nodes.iter().take(before).enumerate().any(|(at, other)| {
                let fits =
                    matches!(&other.kind, NodeKind::Step { kind, .. } if kinds.contains(&kind.as_str()));
                fits && !other.in_rollback && plan.stage_of(at).is_some_and(|(of, _)| of == stage)
            })
        };
        let all = plan.nodes.len();
        match &step.action {
            K8sAction::K8sCanaryDelete {} if !of_stage(&["K8sCanaryDeploy"], all) => {
                fault("the stage has no K8sCanaryDeploy whose canary could be deleted", None);
            }
            K8sAction::K8sBGSwapServices {} if !of_stage(&["K8sBlueGreenDeploy"], all) => {
                fault("the stage has no K8sBlueGreenDeploy whose Services could be swapped", None);
            }
            _ => {}
        }
        if let Some(target) = &stage_plan.target
            && !target.infrastructure.kind.is_empty()
        {
            if target.infrastructure.kind != "KubernetesDirect" {
                let message = format!(
                    "a Kubernetes step needs a cluster; the stage's infrastructure is of type {}",
                    target.infrastructure.kind
                );
                fault(&message, Some("use an infrastructure of type KubernetesDirect"));
            }
            let primary: Vec<&str> = target
                .service
                .definition
                .manifests
                .iter()
                .filter(|manifest| manifest.kind.is_primary())
                .map(|manifest| manifest.identifier.as_str())
                .collect();
            if step.renders()
                && step.manifest.is_none()
                && primary.len() != 1
                && !target.service.document.is_null()
            {
                let message = match primary.len() {
                    0 => format!("the service `{}` has no manifest", target.service.identifier),
                    _ => format!(
                        "the service `{}` has several manifests ({}); a stage deploys exactly one",
                        target.service.identifier,
                        primary.join(", ")
                    ),
                };
                fault(&message, Some("expected one of K8sManifest, HelmChart or Kustomize"));
            }
        }
        match &step.action {
            K8sAction::K8sBlueGreenDeploy { .. } if !node.in_rollback => {
                let swaps = plan.nodes.iter().any(
                    |other| matches!(&other.kind, NodeKind::Step { kind, .. } if kind == "K8sBGSwapServices"),
                );
                if !swaps && of_stage(&DEPLOYS, index) {
                    rules::r12_blue_green_as_health(&node.name, findings);
                    only_look.push(index);
                }
            }
            K8sAction::K8sCanaryDeploy { .. } if of_stage(&["K8sRollingDeploy"], index) => {
                rules::canary_after_rolling(&node.name, findings);
            }
            _ => {}
        }
    }
    for index in only_look {
        if let Some(NodeKind::Step { spec, .. }) = plan.nodes.get_mut(index).map(|node| &mut node.kind)
            && let Spec::Kubernetes(step) = &mut **spec
            && let K8sAction::K8sBlueGreenDeploy { check_only, .. } = &mut step.action
        {
            *check_only = true;
        }
    }
}
