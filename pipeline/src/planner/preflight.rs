//! What a run will need, for warnings before it starts.

use crate::machine::{Builder, SelectorSet, State};
use crate::plan::{NodeKind, Plan};
use serde::{Deserialize, Serialize};

/// What one step needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// Node of the plan.
    pub node: String,
    /// Identifier of the step.
    pub step: String,
    /// Harness task family.
    pub task_type: String,
    /// Selectors with their origins; empty: any agent.
    pub selectors: Vec<SelectorSet>,
    /// Hosts.
    pub hosts: Vec<SshNeed>,
    /// Secrets.
    pub secrets: Vec<String>,
}

/// A host that a step logs in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshNeed {
    /// `host:port`, as host keys are stored.
    pub host: String,
    /// Whether a key of it is known.
    pub known: bool,
}

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
