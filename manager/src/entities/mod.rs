//! Entities: applying documents, the catalogue for the planner, and who uses what.

mod clear_values;
mod rego;
mod usage;

pub(crate) use usage::in_use;

use crate::app::App;
use crate::secrets::{LocalSecrets, SecretsError};
use crate::store::{Applied, Entity, StoreError};
use clear_values::ClearValue;
use pipeline::entities::{CatalogEntity, EntityKind, ParsedEntity, Snapshot, parse_entities};
use pipeline::fault::{Fault, Notice};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file as a client sends it.
#[derive(Deserialize)]
pub(crate) struct Document {
    /// File name, for messages.
    pub(crate) source: String,
    /// Its text: one or more YAML documents.
    pub(crate) yaml: String,
}

/// What applying one entity did.
#[derive(Debug, Serialize)]
pub(crate) struct AppliedEntity {
    kind: &'static str,
    id: String,
    scope: String,
    source: String,
    result: Applied,
}

/// What applying documents did.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    results: Vec<AppliedEntity>,
    notices: Vec<Notice>,
}

/// Nothing was applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The documents are not what they should be.
    #[error("the documents are invalid")]
    Invalid(Vec<Fault>),
    /// The store failed. What was applied before stays; applying again is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller may change nothing, and this would.
    #[error("the {kind} `{id}` would be changed")]
    WouldChange {
        /// Its kind.
        kind: &'static str,
        /// Its identifier.
        id: String,
    },
    /// An inline secret could not be stored.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

struct Checked {
    source: String,
    entity: ParsedEntity,
    value: Option<ClearValue>,
}

/// Applies documents: all or nothing as far as they can be judged; **Repeat**: safe.
///
/// With `may_change` false only documents that are stored as they stand pass.
///
/// Inline values of secrets go into the sealed store before their documents are stored without them.
pub(crate) async fn apply(
    app: &App,
    secrets: &LocalSecrets,
    documents: Vec<Document>,
    may_change: bool,
) -> Result<Outcome, ApplyError> {
    let policies = rego::written(&documents);
    let checked = check(documents);
    let (mut faults, remarks) = rego::read(&app.judges, policies).await;
    let (checked, mut notices) = match checked {
        Ok(checked) if faults.is_empty() => checked,
        Ok(_) => return Err(ApplyError::Invalid(faults)),
        Err(mut found) => {
            found.append(&mut faults);
            return Err(ApplyError::Invalid(found));
        }
    };
    notices.extend(remarks);
    if !may_change {
        refuse_changes(app, &checked).await?;
    }
    let now = app.clock.wall();
    let mut results = Vec::with_capacity(checked.len());
    for Checked { source, entity, value } in checked {
        let mut stored = None;
        if let Some(value) = value {
            stored = Some(secrets.set(&entity.id, &value.value, now).await?);
            notices.push(Notice {
                code: "secret.inline-value".to_owned(),
                yaml_path: "secret.spec.value".to_owned(),
                assumed: format!(
                    "the value of `{}` went into the sealed store and is not kept in the document; take it out of the file",
                    entity.id
                ),
                source: source.clone(),
                line: value.at.line,
                column: value.at.column,
            });
        }
        let document = app
            .store
            .apply_entity(Entity {
                kind: entity.kind.name().to_owned(),
                id: entity.id.clone(),
                scope: entity.scope.clone(),
                name: entity.name,
                yaml: entity.yaml,
                updated_at: now,
            })
            .await?;
        let result = match (document, stored) {
            (Applied::Unchanged, Some(Applied::Created | Applied::Changed)) => Applied::Changed,
            (document, _) => document,
        };
        results.push(AppliedEntity {
            kind: entity.kind.name(),
            id: entity.id,
            scope: entity.scope,
            source,
            result,
        });
    }
    Ok(Outcome { results, notices })
}

/// Refuses the first document that is not stored as it stands. A clear secret value always counts as a change.
async fn refuse_changes(app: &App, checked: &[Checked]) -> Result<(), ApplyError> {
    for Checked { entity, value, .. } in checked {
        let stored = app.store.entity(entity.kind.name(), &entity.scope, &entity.id).await?;
        let same = stored.is_some_and(|stored| stored.yaml == entity.yaml && stored.name == entity.name);
        if !same || value.is_some() {
            return Err(ApplyError::WouldChange { kind: entity.kind.name(), id: entity.id.clone() });
        }
    }
    Ok(())
}

/// Reads every document and reports every fault of all of them.
fn check(documents: Vec<Document>) -> Result<(Vec<Checked>, Vec<Notice>), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut notices = Vec::new();
    let mut checked = Vec::new();
    let mut seen: BTreeMap<(EntityKind, String, String), String> = BTreeMap::new();
    for document in documents {
        let cleaned = match clear_values::take_out(&document.source, &document.yaml) {
            Ok(cleaned) => cleaned,
            Err(place) => {
                let message = "the value cannot be told apart from the text around it (an anchor, an alias, several lines)";
                let hint = "leave `value` out and run `delegate secret set NAME --stdin`".to_owned();
                faults.push(Fault::at(&place, "secret.spec.value", message).suggest(Some(hint)));
                continue;
            }
        };
        let entities = match parse_entities(&document.source, &cleaned.text) {
            Ok(entities) => entities,
            Err(mut found) => {
                faults.append(&mut found);
                continue;
            }
        };
        // Every document of a file without faults gave one entity, in order.
        let mut values = cleaned.values.into_iter().peekable();
        for (index, mut entity) in entities.into_iter().enumerate() {
            notices.append(&mut entity.notices);
            let key = (entity.kind, entity.scope.clone(), entity.id.clone());
            if let Some(other) = seen.insert(key, document.source.clone()) {
                let message = format!("the {} `{}` stands in {other} too", entity.kind.name(), entity.id);
                faults.push(Fault::at(&entity.at, entity.kind.name(), message));
            }
            let value = values.next_if(|value| value.document == index);
            checked.push(Checked { source: document.source.clone(), entity, value });
        }
    }
    if faults.is_empty() { Ok((checked, notices)) } else { Err(faults) }
}

/// Everything stored, as the planner wants it.
pub(crate) async fn catalog(app: &App) -> Result<Snapshot, StoreError> {
    let entities = app
        .store
        .entities("")
        .await?
        .into_iter()
        .filter_map(|entity| {
            let kind = EntityKind::from_name(&entity.kind)?;
            let Entity { id, name, scope, yaml, .. } = entity;
            Some(CatalogEntity { kind, id, name, scope, yaml })
        })
        .collect();
    let secrets = app.store.secrets().await?.into_iter().map(|(id, _)| id).collect();
    Ok(Snapshot { entities, secrets })
}
