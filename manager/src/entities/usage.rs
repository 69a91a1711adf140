//! Which entities an execution uses.

use crate::app::App;
use crate::engine::{Engine, EngineError};
use pipeline::plan::{NodeKind, Plan};
use std::collections::BTreeSet;

/// One entity that an execution uses: kind and id.
pub(crate) type Use = (&'static str, String);

/// The entities that a plan was made of.
///
/// The plan is frozen, so a deleted entity would not stop the run; but what a person sees as in use must not vanish
/// under it, and secrets are looked up late.
pub(crate) fn uses(plan: &Plan) -> BTreeSet<Use> {
    let mut uses = BTreeSet::new();
    uses.insert(("pipeline", plan.run.pipeline.clone()));
    for (reference, connector) in &plan.connectors {
        uses.insert(("connector", reference.clone()));
        uses.insert(("connector", connector.identifier.clone()));
    }
    for node in &plan.nodes {
        let NodeKind::Stage(stage) = &node.kind else { continue };
        let Some(target) = &stage.target else { continue };
        uses.insert(("service", target.service.identifier.clone()));
        uses.insert(("environment", target.environment.identifier.clone()));
        uses.insert(("infrastructure", target.infrastructure.identifier.clone()));
    }
    for need in pipeline::planner::preflight(plan) {
        for secret in need.secrets {
            uses.extend(crate::secrets::scoped_candidates(&secret).map(|id| ("secret", id.to_owned())));
        }
    }
    uses
}

/// An open execution that uses the entity, if there is one.
pub(crate) async fn in_use(
    app: &App,
    engine: &Engine,
    kind: &str,
    id: &str,
) -> Result<Option<String>, EngineError> {
    for execution_id in app.store.open_executions().await? {
        let Some((_, record)) = engine.record(&execution_id).await? else { continue };
        if uses(&record.machine.plan).iter().any(|(used, name)| *used == kind && name == id) {
            return Ok(Some(execution_id));
        }
    }
    Ok(None)
}
