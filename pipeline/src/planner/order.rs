//! What the shape of the tree forbids: loops that cannot run, identifiers that iterations would take twice, expressions
//! that name a step which runs later.

use crate::fault::{Fault, Findings};
use crate::machine::field_value;
use crate::model::looping::LoopKind;
use crate::model::step::Looping;
use crate::plan::{NodeKind, Plan, PlanNode};
use crate::scope::NodeScope;
use std::collections::BTreeMap;

/// Expands every loop whose items are known already: one that is too long or has no combination refuses the run.
pub(super) fn loops(plan: &Plan, findings: &mut Findings) {
    for (index, node) in plan.nodes.iter().enumerate() {
        let Some(looping) = &node.looping else { continue };
        if looping.fields().into_iter().any(super::inputs::is_open) {
            continue;
        }
        let scope = NodeScope::planning(plan, index);
        let context = super::context(plan, &scope);
        // What names an output or an outer loop is judged when the loop begins.
        if let Err(error) = looping.expand(&|field| field_value(field, &context))
            && !error.unresolved
        {
            let field = looping.fields().into_iter().find(|field| field.path.contains(error.key));
            let field = field.unwrap_or(&node.name);
            findings.fault(&field.at, &field.path, format!("`{}` of the loop: {}", error.key, error.why));
        }
    }
}

/// Iterations take the identifier of their node with a postfix: no other node may have it.
pub(super) fn identifiers(plan: &Plan, findings: &mut Findings) {
    let mut paths: BTreeMap<&str, &PlanNode> = BTreeMap::new();
    for node in plan.nodes.iter().filter(|node| !matches!(node.kind, NodeKind::Parallel)) {
        if let Some(other) = paths.insert(&node.path, node)
            && (other.fixed.is_some() || node.fixed.is_some())
        {
            let message =
                format!("the copies of a stage take the identifier `{}`; use another one", node.identifier);
            findings.fault(&node.name.at, &node.name.path, message);
        }
    }
    for node in plan.nodes.iter() {
        let per_host = matches!(node.kind, NodeKind::Step { per_host: true, .. });
        if node.looping.is_none() && !per_host {
            continue;
        }
        let named = node.looping.as_ref().is_some_and(|looping| looping.node_name().is_some());
        let first = format!("{}_", node.path);
        for (path, other) in paths.range(first.as_str()..).take_while(|(path, _)| path.starts_with(&first)) {
            let rest = path.get(first.len()..).unwrap_or_default();
            let counted = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit() || c == '_');
            if counted || named && !rest.contains('.') {
                let message = format!(
                    "the identifier `{}` may be that of an iteration of `{}`; use another one",
                    other.identifier, node.identifier
                );
                findings.fault(&other.name.at, &other.name.path, message);
            }
        }
    }
}

/// Whether `repeat.…`, `strategy.…` or `matrix.…` can have a value at a node.
pub(super) fn in_loop(plan: &Plan, node: usize, first: &str, second: Option<&str>) -> bool {
    // Variables are resolved where they are used, which may be inside of a loop of a step.
    if plan.node(node).is_none_or(|node| matches!(node.kind, NodeKind::Pipeline | NodeKind::Stage(_))) {
        return true;
    }
    let mut at = Some(node);
    while let Some(node) = at.and_then(|at| plan.node(at)) {
        let fits = match (first, &node.looping, &node.fixed) {
            ("matrix", Some(Looping::Matrix { axes, .. }), _) => {
                second.is_none_or(|axis| axes.iter().any(|(name, _)| name == axis))
            }
            ("matrix", _, Some(fixed)) => second.is_none_or(|axis| fixed.item.get(axis).is_some()),
            ("repeat", Some(Looping::Repeat { .. } | Looping::Parallelism { .. }), _) => true,
            ("repeat", _, Some(fixed)) => fixed.kind != LoopKind::Matrix,
            ("strategy", Some(_), _) | ("strategy", _, Some(_)) => true,
            ("strategy", None, None) => second == Some("node"),
            _ => false,
        };
        if fits || first != "matrix" && matches!(node.kind, NodeKind::Step { per_host: true, .. }) {
            return true;
        }
        at = node.parent;
    }
    false
}

/// Whether `other` begins only after `node` is done.
pub(super) fn is_later(plan: &Plan, node: usize, other: usize) -> bool {
    let chain = |start: usize| {
        let mut chain = vec![start];
        while let Some(parent) = chain.last().and_then(|at| plan.node(*at)).and_then(|node| node.parent) {
            chain.push(parent);
        }
        chain.reverse();
        chain
    };
    let (own, its) = (chain(node), chain(other));
    let common = own.iter().zip(&its).take_while(|(a, b)| a == b).count();
    let (Some(scope), Some(a), Some(b)) =
        (common.checked_sub(1).and_then(|at| own.get(at)), own.get(common), its.get(common))
    else {
        return false;
    };
    let Some(scope) = plan.node(*scope) else { return false };
    if matches!(scope.kind, NodeKind::Parallel) {
        return false;
    }
    let place = |list: &[usize], node: usize| list.iter().position(|child| *child == node);
    match (place(&scope.children, *a), place(&scope.children, *b)) {
        (Some(a), Some(b)) => a < b,
        (Some(_), None) => place(&scope.rollback, *b).is_some(),
        (None, Some(_)) => false,
        (None, None) => place(&scope.rollback, *a) < place(&scope.rollback, *b),
    }
}

/// The fault of an expression that names such a node.
pub(super) fn later(
    plan: &Plan,
    node: usize,
    other: usize,
    written: &str,
    field: &crate::model::Field,
) -> Option<Fault> {
    let (own, other) = (plan.node(node)?, plan.node(other)?);
    let what = if matches!(other.kind, NodeKind::Stage(_)) { "stage" } else { "step" };
    let message = format!(
        "`<+{written}>` names the {what} `{}`, which runs later than `{}`",
        other.identifier, own.identifier
    );
    Some(Fault::at(&field.at, &field.path, message))
}
