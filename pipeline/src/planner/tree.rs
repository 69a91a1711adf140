//! The nodes of a plan.

use super::target::Lookups;
use crate::fault::Findings;
use crate::model::Field;
use crate::model::duration::parse_duration;
use crate::model::failure::{Strategies, over};
use crate::model::pipeline::{Pipeline, Stage, StageNode, Target};
use crate::model::step::{Frame, Looping, Spec, StepNode};
use crate::plan::{NodeKind, Plan, PlanNode, ROOT, StagePlan};
use crate::rules;
use crate::scope::NodeScope;
use std::collections::BTreeMap;

/// A deployment stage whose entities are still to be looked up.
pub(super) struct Open {
    pub(super) stage: usize,
    pub(super) frame: Frame,
    pub(super) target: Target,
}

/// What a list of steps hands down to its members.
#[derive(Clone)]
struct Level {
    parent: usize,
    /// Id of the nearest enclosing node that is no parallel block.
    base: String,
    /// Words between that id and a member's identifier.
    words: &'static str,
    strategies: Strategies,
    in_rollback: bool,
    /// A written loop encloses the members.
    in_loop: bool,
    /// The stage has hosts.
    deploys: bool,
}

/// Builds every node and gives back the stages that deploy something.
pub(super) fn grow(
    plan: &mut Plan,
    pipeline: Pipeline,
    lookups: &Lookups<'_>,
    findings: &mut Findings,
) -> Vec<Open> {
    let mut open = Vec::new();
    plan.nodes.push(PlanNode {
        part: "pipeline".to_owned(),
        path: "pipeline".to_owned(),
        selectors: pipeline.selectors,
        ..PlanNode::bare(&pipeline.identifier, pipeline.name, NodeKind::Pipeline)
    });
    let children = stages(plan, pipeline.stages, ROOT, lookups, &mut open, findings);
    if let Some(root) = plan.nodes.get_mut(ROOT) {
        root.children = children;
    }
    if let Some(timeout) = pipeline.timeout {
        plan_timeout(plan, ROOT, &timeout, findings);
    }
    open
}

fn push(plan: &mut Plan, node: PlanNode) -> usize {
    plan.nodes.push(node);
    plan.nodes.len() - 1
}

fn block(parent: usize, path: String, in_rollback: bool, name: Field) -> PlanNode {
    PlanNode {
        parent: Some(parent),
        part: path.clone(),
        path,
        in_rollback,
        ..PlanNode::bare("parallel", name, NodeKind::Parallel)
    }
}

fn from_frame(frame: &Frame, kind: NodeKind, parent: usize, base: &str, words: &str) -> PlanNode {
    let part = format!("{words}.{}", frame.identifier);
    PlanNode {
        parent: Some(parent),
        path: format!("{base}.{part}"),
        part,
        when: frame.when.clone(),
        selectors: frame.selectors.clone(),
        looping: frame.looping.clone(),
        ..PlanNode::bare(&frame.identifier, frame.name.clone(), kind)
    }
}

fn stages(
    plan: &mut Plan,
    nodes: Vec<StageNode>,
    parent: usize,
    lookups: &Lookups<'_>,
    open: &mut Vec<Open>,
    findings: &mut Findings,
) -> Vec<usize> {
    let mut children = Vec::new();
    for (index, node) in nodes.into_iter().enumerate() {
        match node {
            StageNode::Stage(stage) => match super::copies::copies(plan, &stage, lookups, findings) {
                None => children.push(one_stage(plan, *stage, parent, open, findings)),
                Some((copies, how)) => {
                    let path = format!("copies_{parent}_{index}");
                    let at = push(plan, block(parent, path, false, stage.frame.name.clone()));
                    let mut made: Vec<usize> = Vec::new();
                    for (copy, iteration) in copies {
                        let node = one_stage(plan, copy, at, open, findings);
                        if let Some(node) = plan.nodes.get_mut(node) {
                            node.fixed = Some(iteration);
                            node.follows = made.first().copied();
                        }
                        made.push(node);
                    }
                    if let Some(node) = plan.nodes.get_mut(at) {
                        node.children = made;
                        node.copies = Some(how);
                    }
                    children.push(at);
                }
            },
            StageNode::Parallel(members) => {
                let path = format!("parallel_{parent}_{index}");
                let name = plan.nodes.first().map(|root| root.name.clone());
                let Some(name) = name else { continue };
                let at = push(plan, block(parent, path, false, name));
                let inner = stages(plan, members, at, lookups, open, findings);
                if let Some(node) = plan.nodes.get_mut(at) {
                    node.children = inner;
                }
                children.push(at);
            }
        }
    }
    children
}

fn one_stage(
    plan: &mut Plan,
    stage: Stage,
    parent: usize,
    open: &mut Vec<Open>,
    findings: &mut Findings,
) -> usize {
    let kind = NodeKind::Stage(Box::new(StagePlan {
        kind: stage.kind,
        variables: stage.variables,
        tags: stage.tags,
        target: None,
        artifact: None,
    }));
    let mut node = from_frame(&stage.frame, kind, parent, "pipeline", "stages");
    node.strategies = stage.strategies.clone();
    let base = node.path.clone();
    let index = push(plan, node);
    let level = Level {
        parent: index,
        base,
        words: "spec.execution.steps",
        strategies: stage.strategies,
        in_rollback: false,
        in_loop: false,
        deploys: stage.target.is_some(),
    };
    let children = steps(plan, stage.steps, &level, findings);
    // Rollback steps only see strategies that are written inside their own section.
    let level = Level {
        words: "spec.execution.rollbackSteps",
        strategies: Strategies::new(),
        in_rollback: true,
        ..level
    };
    let rollback = steps(plan, stage.rollback, &level, findings);
    if let Some(node) = plan.nodes.get_mut(index) {
        node.children = children;
        node.rollback = rollback;
    }
    if let Some(timeout) = &stage.frame.timeout {
        plan_timeout(plan, index, timeout, findings);
    }
    if let Some(target) = stage.target {
        open.push(Open { stage: index, frame: stage.frame, target });
    }
    index
}

fn steps(plan: &mut Plan, nodes: Vec<StepNode>, level: &Level, findings: &mut Findings) -> Vec<usize> {
    let mut children = Vec::new();
    for (index, node) in nodes.into_iter().enumerate() {
        match node {
            StepNode::Step(step) => {
                let runs_on_host = matches!(step.spec, Spec::Command { on_delegate: false, .. });
                let has_host = matches!(&step.spec, Spec::Command { host: Some(_), .. });
                let looped = level.in_loop || step.frame.looping.is_some();
                if runs_on_host
                    && !has_host
                    && let Some(looping) = &step.frame.looping
                    && !level.in_loop
                    && !matches!(looping, Looping::Repeat { items: Some(_), .. })
                {
                    let message = "the step runs on a host, and its loop does not say which: write `host`, or put the step into a group that loops";
                    findings.fault(&step.frame.at, &step.frame.path, message);
                }
                let per_host = runs_on_host && !has_host && !looped && level.deploys;
                if runs_on_host && !has_host && !looped {
                    if level.deploys {
                        rules::r7_implicit_hosts(&step.frame, findings);
                    } else {
                        let message =
                            "the step runs on a host, but its stage has no infrastructure; write `host`";
                        findings.fault(&step.frame.at, &step.frame.path, message);
                    }
                }
                let strategies = match &step.frame.strategies {
                    Some(own) => over(&level.strategies, own),
                    None => level.strategies.clone(),
                };
                let kind =
                    NodeKind::Step { kind: step.kind.clone(), spec: Box::new(step.spec.clone()), per_host };
                let mut node = from_frame(&step.frame, kind, level.parent, &level.base, level.words);
                node.strategies = strategies;
                node.in_rollback = level.in_rollback;
                let at = push(plan, node);
                if let Some(timeout) = &step.frame.timeout {
                    plan_timeout(plan, at, timeout, findings);
                }
                children.push(at);
            }
            StepNode::Group(group) => {
                let strategies = match &group.frame.strategies {
                    Some(own) => over(&level.strategies, own),
                    None => level.strategies.clone(),
                };
                let mut node =
                    from_frame(&group.frame, NodeKind::Group, level.parent, &level.base, level.words);
                node.strategies = strategies.clone();
                node.in_rollback = level.in_rollback;
                node.variables.clone_from(&group.variables);
                let base = node.path.clone();
                let at = push(plan, node);
                let inner = Level {
                    parent: at,
                    base,
                    words: "steps",
                    strategies,
                    // Only a repeat goes over hosts; copies and matrices of a group leave rule R7 to its steps.
                    in_loop: level.in_loop || matches!(group.frame.looping, Some(Looping::Repeat { .. })),
                    ..level.clone()
                };
                let members = steps(plan, group.steps, &inner, findings);
                let undo = Level {
                    words: "rollbackSteps",
                    strategies: Strategies::new(),
                    in_rollback: true,
                    ..inner
                };
                let rollback = steps(plan, group.rollback, &undo, findings);
                if let Some(node) = plan.nodes.get_mut(at) {
                    node.children = members;
                    node.rollback = rollback;
                }
                if let Some(timeout) = &group.frame.timeout {
                    plan_timeout(plan, at, timeout, findings);
                }
                children.push(at);
            }
            StepNode::Parallel(members) => {
                let Some(name) = plan.nodes.get(level.parent).map(|node| node.name.clone()) else { continue };
                let path = format!("parallel_{}_{index}", level.parent);
                let at = push(plan, block(level.parent, path, level.in_rollback, name));
                let inner = Level { parent: at, ..level.clone() };
                let inner = steps(plan, members, &inner, findings);
                if let Some(node) = plan.nodes.get_mut(at) {
                    node.children = inner;
                }
                children.push(at);
            }
        }
    }
    children
}

/// Timeouts are resolved before the run: they may name inputs and variables.
fn plan_timeout(plan: &mut Plan, index: usize, field: &Field, findings: &mut Findings) {
    if super::inputs::is_open(field) {
        return;
    }
    let text = {
        let scope = NodeScope::planning(plan, index);
        let context = super::context(plan, &scope);
        crate::machine::render(field, &context, expr::Mode::Throw)
    };
    match text {
        Ok(text) if text.trim().is_empty() => {}
        Ok(text) => match parse_duration(&text) {
            Some(ms) => {
                if let Some(node) = plan.nodes.get_mut(index) {
                    node.timeout_ms = Some(ms);
                }
            }
            // A total of zero means the default (pipeline.md 2.7).
            None if text.chars().all(|c| matches!(c, '0' | 's' | 'm' | 'h' | 'd' | 'w' | ' ')) => {}
            None => {
                findings.fault(&field.at, &field.path, format!("`{text}` is not a duration such as `10m`"))
            }
        },
        Err(error) if error.kind == expr::Kind::Refused => {}
        Err(error) => findings.fault(&field.at, &field.path, error.to_string()),
    }
}

/// R18: a Verify step may take its window and two minutes.
pub(super) fn timeouts(plan: &mut Plan, findings: &mut Findings) {
    let mut longer: BTreeMap<usize, u64> = BTreeMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let NodeKind::Step { spec, .. } = &node.kind else { continue };
        let scope = NodeScope::planning(plan, index);
        let context = super::context(plan, &scope);
        let duration = match &**spec {
            Spec::Verify(verify) => verify.duration.as_ref(),
            Spec::Wait { duration } => Some(duration),
            _ => None,
        };
        let Some(field) = duration.filter(|field| !super::inputs::is_open(field)) else { continue };
        match crate::machine::render(field, &context, expr::Mode::Throw) {
            Ok(text) => match parse_duration(&text) {
                Some(ms) if matches!(**spec, Spec::Verify(_)) => {
                    if let Some(ms) = rules::r18_verify_timeout(&node.name, node.timeout_ms, ms, findings) {
                        longer.insert(index, ms);
                    }
                }
                Some(_) => {}
                None => findings.fault(
                    &field.at,
                    &field.path,
                    format!("`{text}` is not a duration such as `10m`"),
                ),
            },
            // What names an output is known only when the step starts.
            Err(error) if error.is_unresolved() || error.kind == expr::Kind::Refused => {}
            Err(error) => findings.fault(&field.at, &field.path, error.to_string()),
        }
    }
    for (index, ms) in longer {
        if let Some(node) = plan.nodes.get_mut(index) {
            node.timeout_ms = Some(ms);
        }
    }
}
