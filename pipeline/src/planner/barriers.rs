//! Barriers: what steps wait at must be declared, and what is declared should be used.

use crate::fault::{Fault, Findings, did_you_mean};
use crate::model::Field;
use crate::model::step::Spec;
use crate::plan::{NodeKind, Plan};
use std::collections::BTreeMap;

/// Refuses names that nobody declared and keeps those that are used.
pub(super) fn check(plan: &mut Plan, declared: &[Field], findings: &mut Findings) {
    let names: Vec<String> = declared.iter().map(Field::text).collect();
    let mut used: Vec<String> = Vec::new();
    for node in &plan.nodes {
        let NodeKind::Step { spec, .. } = &node.kind else { continue };
        let Spec::Barrier { barrier } = &**spec else { continue };
        let name = barrier.text();
        if !names.contains(&name) {
            let message = format!("the barrier `{name}` is not declared in `flowControl.barriers`");
            let near = did_you_mean(&name, names.iter().map(String::as_str));
            findings.push(Fault::at(&barrier.at, &barrier.path, message).suggest(near));
        }
        if !used.contains(&name) {
            used.push(name);
        }
    }
    in_sequence(plan, findings);
    for field in declared.iter().filter(|field| !used.contains(&field.text())) {
        let text = format!("no step waits at the barrier `{}`", field.text());
        findings.remark("barrier-unused", &field.at, &field.path, text);
    }
    plan.barriers = used;
}

/// Two steps of one barrier that can only run one after the other wait for each other for ever.
fn in_sequence(plan: &Plan, findings: &mut Findings) {
    let mut met: BTreeMap<(String, bool), Vec<usize>> = BTreeMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let NodeKind::Step { spec, .. } = &node.kind else { continue };
        let Spec::Barrier { barrier } = &**spec else { continue };
        // Rollback steps wait for rollback steps only.
        let others = met.entry((barrier.text(), node.in_rollback)).or_default();
        if let Some(other) = others.iter().find(|other| !beside(plan, **other, index)) {
            let first = plan.node(*other).map(|node| node.identifier.clone()).unwrap_or_default();
            let message = format!(
                "the step waits at the barrier `{}` for `{first}`, which stands before it in the same sequence: neither could ever go on",
                barrier.text()
            );
            findings.push(Fault::at(&barrier.at, &barrier.path, message).suggest(Some(
                "put them into branches of one `parallel` block, let all copies of the stage run at once, or use two barriers"
                    .to_owned(),
            )));
        }
        others.push(index);
    }
}

/// Whether two nodes may run at the same time: the innermost node that holds both starts its members together. Copies of a
/// stage that take turns do not: the first would wait for one that begins after it has ended.
fn beside(plan: &Plan, a: usize, b: usize) -> bool {
    let above =
        |node: usize| std::iter::successors(Some(node), |at| plan.node(*at).and_then(|node| node.parent));
    let common = above(a).find(|one| above(b).any(|other| other == *one));
    common.and_then(|common| plan.node(common)).is_some_and(|node| {
        matches!(node.kind, NodeKind::Parallel)
            && node.copies.as_ref().is_none_or(|copies| copies.at_once >= node.children.len())
    })
}
