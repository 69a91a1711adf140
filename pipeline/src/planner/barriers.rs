//! Barriers: what steps wait at must be declared, and what is declared should be used.

use crate::fault::{Fault, Findings, did_you_mean};
use crate::model::Field;
use crate::model::step::Spec;
use crate::plan::{NodeKind, Plan};

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
    for field in declared.iter().filter(|field| !used.contains(&field.text())) {
        let text = format!("no step waits at the barrier `{}`", field.text());
        findings.remark("barrier-unused", &field.at, &field.path, text);
    }
    plan.barriers = used;
}
