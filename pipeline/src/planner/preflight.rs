//! What a run will need, for warnings before it starts.

use crate::machine::{Builder, Need, State};
use crate::plan::{NodeKind, Plan};

/// Looks ahead over every step. What depends on earlier steps is left out: it is not known yet.
pub fn preflight(plan: &Plan) -> Vec<Need> {
    let state = State::new(plan.clone());
    let mut needs = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        if !matches!(node.kind, NodeKind::Step { .. } | NodeKind::Artifact) {
            continue;
        }
        if let Some(need) = Builder::look_ahead(plan, &state, index) {
            needs.push(need);
        }
    }
    needs
}
