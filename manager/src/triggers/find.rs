//! Every trigger that is stored: documents of their own, and those that stand in pipelines (rule R14).

use crate::app::App;
use crate::store::{Entity, StoreError};
use pipeline::fault::{Findings, Mode};
use pipeline::trigger::{Trigger, inline, parse};
use pipeline::yaml::parse_documents;

/// A trigger with what it was read from.
pub(crate) struct Stored {
    /// The trigger.
    pub(crate) trigger: Trigger,
    /// It stands in its pipeline.
    pub(crate) inline: bool,
    /// Its document.
    pub(crate) yaml: String,
}

impl Stored {
    /// What the token of its own is made of (`ManagerKey::token`): it stays the same when the document changes.
    pub(crate) fn token_name(&self) -> String {
        let Trigger { scope, pipeline, identifier, .. } = &self.trigger;
        format!("trigger {scope:?} {pipeline:?} {identifier:?}")
    }

    /// The name by which a run finds the pipeline: with its scope, where it has one.
    pub(crate) fn pipeline_name(&self) -> String {
        Trigger::stored_scope(&self.trigger.scope, &self.trigger.pipeline)
    }
}

/// All triggers, ordered by pipeline and identifier. A document of its own hides one of the same identifier that stands
/// in the pipeline.
pub(crate) async fn all(app: &App) -> Result<Vec<Stored>, StoreError> {
    let mut found: Vec<Stored> = Vec::new();
    for Entity { id, yaml, .. } in app.store.entities("trigger").await? {
        match parse(&id, &yaml) {
            Ok(trigger) => found.push(Stored { trigger, inline: false, yaml }),
            // It was checked when it was applied; a newer program may have written it.
            Err(faults) => tracing::error!(trigger = %id, fault = ?faults.first(), "trigger cannot be read"),
        }
    }
    for Entity { id, yaml, .. } in app.store.entities("pipeline").await? {
        let Ok(documents) = parse_documents(&id, &yaml) else { continue };
        let Some(root) = documents.first().and_then(|document| document.get("pipeline")) else { continue };
        for trigger in inline(root, &mut Findings::new(Mode::Lenient)) {
            let same = |other: &Stored| {
                let other = &other.trigger;
                (&other.identifier, &other.pipeline, &other.scope)
                    == (&trigger.identifier, &trigger.pipeline, &trigger.scope)
            };
            if !found.iter().any(same) {
                let document = serde_json::json!({ "trigger": trigger.document });
                // JSON is YAML: what is printed can be applied.
                let yaml = format!("{document:#}\n");
                found.push(Stored { trigger, inline: true, yaml });
            }
        }
    }
    let key = |stored: &Stored| (stored.trigger.pipeline.clone(), stored.trigger.identifier.clone());
    found.sort_by_key(key);
    Ok(found)
}

/// Those that a call means: empty names mean any.
pub(crate) fn named(all: Vec<Stored>, scope: &str, pipeline: &str, trigger: &str) -> Vec<Stored> {
    all.into_iter()
        .filter(|stored| {
            let own = &stored.trigger;
            (pipeline.is_empty() || own.pipeline == pipeline)
                && (trigger.is_empty() || own.identifier == trigger)
                && (scope.is_empty() || own.scope.is_empty() || own.scope == scope)
        })
        .collect()
}
