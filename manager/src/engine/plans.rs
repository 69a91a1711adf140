//! Nodes of plans that are in memory, so that many runs of one pipeline keep them once.

use pipeline::plan::{Nodes, Plan, PlanNode};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, Weak};

/// Versions of one pipeline that are looked through; inputs and edits make more.
const VERSIONS: usize = 8;

/// Pipelines with nodes that somebody keeps, by identifier.
#[derive(Default)]
pub(super) struct Plans {
    known: Mutex<HashMap<String, Vec<Weak<Vec<PlanNode>>>>>,
}

impl Plans {
    /// Has `plan` share its nodes with an equal one in memory; else others will share these. Whether it does.
    pub(super) fn share(&self, plan: &mut Plan) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(&plan.run.pipeline) {
            // Whatever nobody keeps any more goes, or every pipeline that ever ran would leave an entry.
            known.retain(|_, versions| versions.iter().any(|one| one.strong_count() > 0));
        }
        let versions = known.entry(plan.run.pipeline.clone()).or_default();
        versions.retain(|one| one.strong_count() > 0);
        if versions.iter().any(|one| plan.nodes.share(one)) {
            return true;
        }
        if versions.len() >= VERSIONS {
            versions.remove(0);
        }
        versions.push(Nodes::handle(&plan.nodes));
        false
    }
}
