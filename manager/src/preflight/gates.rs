//! What approvals and policy steps name: a gate that nobody could open is told of before the run gets there.

use super::Warning;
use crate::policy::{select, step};
use pipeline::entities::Snapshot;
use pipeline::model::Field;
use pipeline::model::step::Spec;
use pipeline::plan::{NodeKind, Plan};

/// A warning for each user group and policy set that a step names and that does not exist. What an expression gives is not
/// known yet.
pub(super) fn missing(plan: &Plan, catalog: &Snapshot, scope: &str) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for node in &plan.nodes {
        let NodeKind::Step { spec, .. } = &node.kind else { continue };
        match &**spec {
            Spec::Approval(approval) => {
                let away: Vec<String> = literals(&approval.groups)
                    .into_iter()
                    .filter(|group| !plan.run.groups.contains(group))
                    .collect();
                if !away.is_empty() {
                    let (groups, step) = (away.join(", "), &node.identifier);
                    warnings.push(Warning {
                        code: "approval.no-group",
                        message: format!("the user groups {groups} of the approval `{step}` do not exist"),
                        hint: "apply a `userGroup` with exactly this identifier before the run; groups are looked up when it starts"
                            .to_owned(),
                    });
                }
            }
            Spec::Policy { sets, .. } => {
                if let Err(error) = select(catalog, scope, &literals(sets)) {
                    let failure = step::not_selected(&error);
                    warnings.push(Warning {
                        code: "policy.no-set",
                        message: format!("the policy step `{}`: {}", node.identifier, failure.message),
                        hint: failure.hint.unwrap_or_default(),
                    });
                }
            }
            _ => {}
        }
    }
    warnings
}

/// The texts of a list that hold no expression.
fn literals(field: &Field) -> Vec<String> {
    let texts = match field.value.as_array() {
        Some(list) => list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        None => vec![field.text()],
    };
    texts.into_iter().filter(|text| !text.is_empty() && !text.contains("<+")).collect()
}
