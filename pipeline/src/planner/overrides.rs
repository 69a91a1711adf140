//! Which overrides apply to a stage, in the order of their weight (pipeline.md 4.8).

use super::target::{Lookups, root, stored};
use crate::entities::EntityKind;
use crate::fault::Findings;
use crate::model::overrides::{Override, OverrideKind, read_override};
use crate::rules::canonical;
use crate::yaml::{Map, Node, Value};

/// What is deployed where, as far as it is known.
pub(super) struct Spot<'a> {
    pub(super) scope: &'a str,
    pub(super) environment: &'a str,
    pub(super) service: &'a str,
    /// `None`: not known yet; overrides of infrastructures are left out.
    pub(super) infrastructure: Option<&'a str>,
}

/// Every override that applies, the weightiest last.
pub(super) fn applying(lookups: &Lookups<'_>, spot: &Spot<'_>, findings: &mut Findings) -> Vec<Override> {
    let Some(catalog) = lookups.catalog else { return Vec::new() };
    let org = spot.scope.split('/').next().unwrap_or_default();
    // Account, then organisation, then project: the nearer one outweighs within its kind.
    let weight = |scope: &str| match scope {
        "" => Some(0),
        scope if scope == spot.scope => Some(2),
        scope if scope == org => Some(1),
        _ => None,
    };
    let same = |written: &str, id: &str| {
        let bare =
            written.strip_prefix("account.").or_else(|| written.strip_prefix("org.")).unwrap_or(written);
        bare == id || canonical(bare) == canonical(id)
    };
    let mut hits: Vec<(OverrideKind, u8, Override)> = Vec::new();
    for entity in catalog.entities(EntityKind::Override) {
        let Some(weight) = weight(&entity.scope) else { continue };
        let Some(root) = root(entity, &crate::entities::OVERRIDE_ROOTS, findings) else { continue };
        let Some(read) = stored(findings, |own| read_override(&root, "overrides", own)) else { continue };
        let fits = same(&read.environment, spot.environment)
            && read.service.as_ref().is_none_or(|service| same(service, spot.service))
            && read.infrastructure.as_ref().is_none_or(|infrastructure| {
                spot.infrastructure.is_some_and(|known| same(infrastructure, known))
            });
        if fits {
            hits.push((read.kind, weight, read));
        }
    }
    hits.sort_by_key(|(kind, weight, read)| (*kind, *weight, read.identifier.clone()));
    hits.into_iter().map(|(.., read)| read).collect()
}

/// What the environment entity itself changes: its `overrides`, and its variables where the service has one of that
/// name.
pub(super) fn of_environment(entity: &Node, names: &[&str]) -> Vec<Node> {
    let mut all = Vec::new();
    let has = |variable: &&Node| {
        variable.get("name").and_then(Node::as_str).is_some_and(|name| names.contains(&name))
    };
    let list = entity.get("variables").and_then(Node::as_list).unwrap_or_default();
    let known: Vec<Node> = list.iter().filter(has).cloned().collect();
    if !known.is_empty() {
        let mut map = Map::default();
        map.set("variables", Node { value: Value::List(known), at: entity.at.clone() });
        all.push(Node { value: Value::Map(map), at: entity.at.clone() });
    }
    all.extend(entity.get("overrides").cloned());
    all
}
