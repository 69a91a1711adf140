//! What a stage of ECS must have as a whole, before it runs: its cluster, its definitions, steps that fit together.

use crate::fault::{Fault, Findings};
use crate::model::Field;
use crate::model::ecs::{Document, EcsAction, EcsStep, RunTaskShape, Shift, unrecognised};
use crate::model::step::Spec;
use crate::plan::{NodeKind, Plan, PlanNode, TargetPlan};
use crate::rules;

/// Decides what is ended by an EcsRunTask step whose name says neither blue nor green (rule R9, shape 6). It can be told only
/// where entities are known.
pub(super) fn settle(plan: &mut Plan, known: bool, findings: &mut Findings) {
    let mut decided: Vec<(usize, String)> = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let Some(EcsStep { action: EcsAction::EcsRunTask { shape }, .. }) = step(node) else { continue };
        let RunTaskShape::TerminateNamed { words } = shape else { continue };
        let names = service_names(plan, index);
        let all: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
        match words.named(all.iter().copied()) {
            Some(name) => {
                let path = step_path(&node.name);
                let what = format!("drains and deletes the service `{name}`");
                rules::r9_shape(&node.name.at, path, &what, findings);
                decided.push((index, name.to_owned()));
            }
            // A name that is not known yet may still fit when the step starts.
            None if !known || names.iter().any(Option::is_none) => {}
            None => {
                let why = match all.as_slice() {
                    [] => "its name says neither blue nor green".to_owned(),
                    names => format!("its name says neither blue nor green nor {}", names.join(" nor ")),
                };
                findings.push(Fault::at(&node.name.at, step_path(&node.name), unrecognised(&why)));
            }
        }
    }
    for (index, which) in decided {
        if let Some(NodeKind::Step { spec, .. }) = plan.nodes.get_mut(index).map(|node| &mut node.kind)
            && let Spec::Ecs(step) = &mut **spec
        {
            step.action = EcsAction::EcsRunTask { shape: RunTaskShape::Terminate { which } };
        }
    }
}

fn step(node: &PlanNode) -> Option<&EcsStep> {
    match &node.kind {
        NodeKind::Step { spec, .. } => match &**spec {
            Spec::Ecs(step) => Some(step),
            _ => None,
        },
        _ => None,
    }
}

fn step_path(name: &Field) -> &str {
    name.path.strip_suffix(".name").unwrap_or(&name.path)
}

/// Names of the services that a stage deploys: its own, and those of its green steps. `None`: not known yet.
fn service_names(plan: &Plan, node: usize) -> Vec<Option<String>> {
    let mut names = Vec::new();
    let literal = |text: &str| (!text.contains("<+")).then(|| text.to_owned());
    if let Some(target) = plan.target_of(node) {
        match &target.service.definition.ecs {
            Some(ecs) => match &ecs.service {
                Some(Document::Value(_)) => {
                    names.extend(ecs.written("serviceName").and_then(|name| name.as_str()).map(literal));
                }
                Some(Document::File { .. }) => names.push(None),
                None => {}
            },
            None if target.service.document.is_null() => names.push(None),
            None => {}
        }
    } else if plan.stage_of(node).is_some_and(|(_, stage)| stage.target.is_none()) {
        names.push(None);
    }
    let green = steps_of_stage(plan, node).filter_map(|(_, step)| match &step.action {
        EcsAction::EcsRunTask { shape: RunTaskShape::Green { service, .. } } => {
            Some(literal(&service.text()))
        }
        _ => None,
    });
    names.extend(green);
    names
}

/// Forward steps of ECS in the stage of a node, in their order.
fn steps_of_stage(plan: &Plan, node: usize) -> impl Iterator<Item = (usize, &EcsStep)> {
    let stage = plan.stage_of(node).map(|(stage, _)| stage);
    plan.nodes.iter().enumerate().filter_map(move |(index, node)| {
        let inside = !node.in_rollback && plan.stage_of(index).map(|(stage, _)| stage) == stage;
        step(node).filter(|_| inside).map(|step| (index, step))
    })
}

/// Checks every ECS step; its definitions only where entities are known.
pub(super) fn check(plan: &Plan, known: bool, findings: &mut Findings) {
    for (index, node) in plan.nodes.iter().enumerate() {
        let Some(own) = step(node) else { continue };
        let Some((_, stage)) = plan.stage_of(index) else { continue };
        let path = step_path(&node.name);
        let mut fault = |message: &str, hint: Option<&str>| {
            findings.push(Fault::at(&node.name.at, path, message).suggest(hint.map(str::to_owned)));
        };
        let before: Vec<&EcsAction> = steps_of_stage(plan, index)
            .take_while(|(at, _)| *at < index)
            .map(|(_, step)| &step.action)
            .collect();
        if let Some((message, hint)) = misplaced(&own.action, &before) {
            fault(message, hint);
        }
        if !own.place.is_whole() && !matches!(own.action, EcsAction::EcsUndo { .. }) {
            let own_place = matches!(own.action, EcsAction::EcsScale { .. } | EcsAction::EcsRunTask { .. });
            let hint = match own_place {
                true => "use an infrastructure of type ECS, or write `connectorRef`, `region` and `cluster`",
                false => "use an infrastructure of type ECS",
            };
            match &stage.target {
                None if stage.kind != crate::model::pipeline::StageKind::Deployment => {
                    fault("an ECS step needs a cluster, and its stage deploys to none", Some(hint));
                }
                Some(target) if !["", "ECS"].contains(&target.infrastructure.kind.as_str()) => {
                    let message = format!(
                        "an ECS step needs a cluster; the stage's infrastructure is of type {}",
                        target.infrastructure.kind
                    );
                    fault(&message, Some(hint));
                }
                _ => {}
            }
        }
        if let Some(target) = stage.target.as_ref().filter(|_| known)
            && !target.service.document.is_null()
            && !node.in_rollback
        {
            let registers = before.iter().any(|action| {
                matches!(
                    action,
                    EcsAction::EcsRunTask {
                        shape: RunTaskShape::Register { .. } | RunTaskShape::Green { .. }
                    }
                )
            });
            for (message, hint) in missing(&own.action, target, registers) {
                fault(&message, Some(hint));
            }
        }
    }
}

/// What a step cannot do without an earlier one of its stage, or beside it.
fn misplaced(action: &EcsAction, before: &[&EcsAction]) -> Option<(&'static str, Option<&'static str>)> {
    let canary = || before.iter().any(|action| matches!(action, EcsAction::EcsCanaryDeploy { .. }));
    let setup = || before.iter().any(|action| matches!(action, EcsAction::EcsServiceSetup { .. }));
    let creates = |shifts: Option<bool>| {
        before.iter().any(|action| match action {
            EcsAction::EcsBlueGreenCreateService { traffic_shift, .. } => {
                shifts.is_none_or(|shifts| shifts == *traffic_shift)
            }
            _ => false,
        })
    };
    let deploys = || before.iter().any(|action| matches!(action, EcsAction::EcsRollingDeploy { .. }));
    match action {
        EcsAction::EcsContinueDeployment { .. } if !deploys() => Some((
            "the stage has no EcsRollingDeploy before it whose deployment could be continued",
            Some("write an EcsRollingDeploy with `gates` before it"),
        )),
        EcsAction::EcsCanaryDelete {} if !canary() => {
            Some(("the stage has no EcsCanaryDeploy before it whose canary could be deleted", None))
        }
        EcsAction::EcsBlueGreenSwapTargetGroups { .. } if !creates(None) => Some((
            "the stage has no EcsBlueGreenCreateService before it whose target groups could be swapped",
            None,
        )),
        EcsAction::EcsBlueGreenSwapTargetGroups { .. } if !creates(Some(false)) => Some((
            "the service was created to have its traffic shifted by weights, not to be swapped",
            Some("use EcsBlueGreenTrafficShift, or create the service without `isTrafficShift`"),
        )),
        EcsAction::EcsBlueGreenTrafficShift { shift: Shift::Inherit { .. } } if !creates(Some(true)) => {
            Some((
                "the stage has no EcsBlueGreenCreateService with `isTrafficShift: true` before it to inherit from",
                Some("create the service with `isTrafficShift: true`, or write a shift of type Standalone"),
            ))
        }
        EcsAction::EcsUpgradeContainer { .. } if !setup() => {
            Some(("the stage has no EcsServiceSetup before it whose service could be upgraded", None))
        }
        _ => None,
    }
}

/// Definitions that the service of a stage lacks for a step.
fn missing(action: &EcsAction, target: &TargetPlan, registers: bool) -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    let service = &target.service;
    let (needs_service, needs_task) = match action {
        EcsAction::EcsRollingDeploy { .. }
        | EcsAction::EcsCanaryDeploy { .. }
        | EcsAction::EcsBlueGreenCreateService { .. }
        | EcsAction::EcsServiceSetup { .. } => (true, true),
        EcsAction::EcsCanaryDelete {} => (true, false),
        EcsAction::EcsRunTask { shape } => match shape {
            RunTaskShape::Run { task, .. } => (false, task.is_none()),
            RunTaskShape::Register { document } => (false, document.value.get("family").is_none()),
            RunTaskShape::Green { document, .. } => (true, document.value.get("family").is_none()),
            RunTaskShape::Shift { blue_target_group_arn, green_target_group_arn, .. } => {
                (blue_target_group_arn.is_none() || green_target_group_arn.is_none(), false)
            }
            RunTaskShape::Terminate { which } => (which == "blue" || which == "green", false),
            RunTaskShape::Describe { .. }
            | RunTaskShape::Command { .. }
            | RunTaskShape::TerminateNamed { .. } => (false, false),
        },
        _ => (false, false),
    };
    if !needs_service && !needs_task {
        return all;
    }
    let Some(ecs) = &service.definition.ecs else {
        let message = format!(
            "the service `{}` is of type {}, and the step deploys one of type ECS",
            service.identifier, service.definition.kind
        );
        all.push((message, "write `serviceDefinition: {type: ECS, …}`"));
        return all;
    };
    if needs_service && ecs.service.is_none() {
        let message = format!("the service `{}` has no service definition", service.identifier);
        all.push((
            message,
            "write `serviceDefinition` in its spec, or a manifest of type EcsServiceDefinition",
        ));
    }
    if needs_task && !registers && ecs.task.is_none() {
        let message = format!("the service `{}` has no task definition", service.identifier);
        all.push((
            message,
            "write `taskDefinition` or `ecsTaskDefinitionArn`, or a manifest of type EcsTaskDefinition",
        ));
    }
    all
}
