//! Stages that are copied when the run is planned: several services or environments, and loops whose items say what is
//! deployed where. The target of a stage must be known before the run, so each copy is a stage of its own.

use super::target::{Lookups, root, stored};
use crate::entities::EntityKind;
use crate::fault::{Fault, Findings, did_you_mean};
use crate::machine::{field_value, named_iterations, render};
use crate::model::Field;
use crate::model::env_group::read_environment_group;
use crate::model::looping::{Items, LoopKind, MAX_ITERATIONS};
use crate::model::pipeline::{GroupChoice, Place, Several, Stage, Target};
use crate::plan::{Copies, Iteration, Plan, ROOT};
use crate::scope::NodeScope;
use crate::yaml::Node;
use serde_json::Value as Json;

/// The copies of a stage with what each stands for, and how they run; `None`: the stage is one stage.
pub(super) fn copies(
    plan: &Plan,
    stage: &Stage,
    lookups: &Lookups<'_>,
    findings: &mut Findings,
) -> Option<(Vec<(Stage, Iteration)>, Copies)> {
    let mut target = stage.target.as_ref()?;
    let of_group;
    if let Some(group) = &target.group {
        let places = group_places(plan, group, lookups, findings);
        of_group = Target {
            group: None,
            places: Some(Several { values: places, parallel: group.parallel }),
            ..target.clone()
        };
        target = &of_group;
    }
    let several = target.services.is_some() || target.places.is_some();
    let looping = stage.frame.looping.as_ref();
    if !several {
        let looping = looping.filter(|_| names_iteration(target))?;
        return looped(plan, stage, looping, findings);
    }
    if looping.is_some() {
        let message = "a stage with several services or environments cannot have a `strategy` of its own";
        findings.fault(&stage.frame.at, &stage.frame.path, message);
    }
    let none = || (Vec::new(), Copies { at_once: 1, skip_queued: false });
    let services = target.services.as_ref().map_or(0, |services| services.values.len());
    let Some(places) = places(plan, stage, target, lookups, findings) else { return Some(none()) };
    let total = services.max(1).saturating_mul(places.len().max(1));
    if total > MAX_ITERATIONS {
        let message = format!("the stage stands for {total} deployments; the limit is {MAX_ITERATIONS}");
        findings.fault(&stage.frame.at, &stage.frame.path, message);
        return Some(none());
    }
    let services_at_once = target.services.as_ref().is_some_and(|several| several.parallel);
    let places_at_once = target.places.as_ref().is_some_and(|several| several.parallel);
    let mut made = Vec::new();
    for service in 0..services.max(1) {
        for place in 0..places.len().max(1) {
            let mut copy = Target { services: None, places: None, group: None, ..target.clone() };
            let mut postfix = String::new();
            let mut item = serde_json::Map::new();
            if let Some((reference, inline)) =
                target.services.as_ref().and_then(|several| several.values.get(service))
            {
                postfix.push_str(&format!("_{service}"));
                item.insert("serviceRef".to_owned(), text(reference.as_ref()));
                copy.service_ref.clone_from(reference);
                copy.service_inline.clone_from(inline);
            }
            if let Some(at) = places.get(place) {
                postfix.push_str(&format!("_{place}"));
                item.insert("environmentRef".to_owned(), text(at.environment_ref.as_ref()));
                item.insert("identifier".to_owned(), text(at.infrastructure_ref.as_ref()));
                copy.all = at.all;
                copy.environment_ref.clone_from(&at.environment_ref);
                copy.infrastructure_ref.clone_from(&at.infrastructure_ref);
                copy.infrastructure_inline.clone_from(&at.infrastructure_inline);
                // One environment with several infrastructures says it once for all of them.
                copy.environment_inputs = at.environment_inputs.clone().or(copy.environment_inputs);
                copy.override_inputs = at.override_inputs.clone().or(copy.override_inputs);
            }
            let iteration = Iteration {
                index: made.len(),
                total,
                item: Json::Object(item),
                is_host: false,
                kind: LoopKind::Matrix,
                postfix,
            };
            made.push((place, copied(stage, copy, &iteration), iteration));
        }
    }
    // Services at once and environments one after the other: every service passes an environment before the next.
    if services_at_once && !places_at_once {
        made.sort_by_key(|(place, ..)| *place);
    }
    let at_once = match (services_at_once, places_at_once) {
        (true, true) => total,
        (true, false) => services.max(1),
        (false, true) => places.len().max(1),
        (false, false) => 1,
    };
    let made = made.into_iter().map(|(_, stage, iteration)| (stage, iteration)).collect();
    Some((made, Copies { at_once, skip_queued: false }))
}

fn text(field: Option<&Field>) -> Json {
    field.map_or(Json::Null, |field| Json::String(field.text()))
}

fn copied(stage: &Stage, target: Target, iteration: &Iteration) -> Stage {
    let mut copy = stage.clone();
    copy.frame.identifier.push_str(&iteration.ending());
    copy.frame.name.value = Json::String(format!("{}{}", copy.frame.name.text(), iteration.ending()));
    copy.frame.looping = None;
    copy.target = Some(target);
    copy
}

/// Whether something that must be known before the run names the iteration.
fn names_iteration(target: &Target) -> bool {
    let names = |text: &str| {
        ["<+matrix.", "<+repeat.", "<+strategy.", "<+stage.matrix."].iter().any(|n| text.contains(n))
    };
    let inline = |node: &Option<(Node, String)>| {
        node.as_ref().is_some_and(|(node, _)| names(&node.to_json().to_string()))
    };
    [&target.service_ref, &target.environment_ref, &target.infrastructure_ref]
        .into_iter()
        .flatten()
        .any(|field| names(&field.text()))
        || inline(&target.service_inline)
        || inline(&target.infrastructure_inline)
}

fn looped(
    plan: &Plan,
    stage: &Stage,
    looping: &crate::model::step::Looping,
    findings: &mut Findings,
) -> Option<(Vec<(Stage, Iteration)>, Copies)> {
    let scope = NodeScope::planning(plan, ROOT);
    let context = super::context(plan, &scope);
    let none = || Some((Vec::new(), Copies { at_once: 1, skip_queued: false }));
    let mut items = match looping.expand(&|field| field_value(field, &context)) {
        Ok(items) => items,
        Err(error) => {
            let field = looping.fields().into_iter().find(|field| field.path.ends_with(error.key));
            let (at, path) =
                field.map_or((&stage.frame.at, &stage.frame.path), |field| (&field.at, &field.path));
            let message = format!(
                "the target of the stage names the iteration, so the loop must be known before the run: {}",
                error.why
            );
            findings.fault(at, path, message);
            return none();
        }
    };
    if let Some(name) = looping.node_name() {
        let named = named_iterations(&mut items, |iteration| {
            let scope = NodeScope { iteration: Some(iteration), ..NodeScope::planning(plan, ROOT) };
            render(name, &super::context(plan, &scope), expr::Mode::Throw)
        });
        if let Err(error) = named {
            findings.fault(&name.at, &name.path, error.to_string());
            return none();
        }
    }
    let Items { limit, skip_queued, .. } = items;
    let made = (0..items.items.len()).filter_map(|index| Iteration::fixed(&items, index));
    let made = made.map(|iteration| {
        let target = stage.target.clone().unwrap_or_default();
        (copied(stage, target, &iteration), iteration)
    });
    Some((made.collect(), Copies { at_once: limit, skip_queued }))
}

/// Environment and infrastructure pairs, with `deployToAll` written out.
fn places(
    plan: &Plan,
    stage: &Stage,
    target: &Target,
    lookups: &Lookups<'_>,
    findings: &mut Findings,
) -> Option<Vec<Place>> {
    let mut all = Vec::new();
    for place in target.places.iter().flat_map(|several| &several.values) {
        if !place.all {
            all.push(place.clone());
            continue;
        }
        let Some(field) = &place.environment_ref else { continue };
        let Some(catalog) = lookups.catalog else {
            all.push(place.clone());
            continue;
        };
        let environment = super::target::known(plan, ROOT, field, findings)?;
        let before = all.len();
        let scope = plan.run.scope();
        for entity in catalog.entities(EntityKind::Infrastructure) {
            // What is stored elsewhere cannot be meant; `find` judges the scope of each by itself.
            if lookups.find_quietly(EntityKind::Infrastructure, &entity.id, &scope).is_none() {
                continue;
            }
            let root = root(entity, &["infrastructureDefinition", "infrastructure"], findings);
            let of = root.as_ref().and_then(|root| root.get("environmentRef")).and_then(Node::as_str);
            if of == Some(environment.as_str()) {
                let reference = Field::made(entity.id.clone(), field.path.clone(), &field.at);
                all.push(Place { infrastructure_ref: Some(reference), all: false, ..place.clone() });
            }
        }
        if all.len() == before {
            let message = format!("the environment `{environment}` has no infrastructure to deploy to");
            findings.fault(&field.at, &field.path, message);
        }
    }
    if all.is_empty() && target.places.is_some() {
        findings.fault(&stage.frame.at, &stage.frame.path, "the stage names no environment to deploy to");
        return None;
    }
    Some(all)
}

/// The environments of a group that a stage goes to.
fn group_places(
    plan: &Plan,
    group: &GroupChoice,
    lookups: &Lookups<'_>,
    findings: &mut Findings,
) -> Vec<Place> {
    let field = &group.reference;
    let named = || match group.places.is_empty() {
        false => group.places.clone(),
        true => vec![Place { environment_ref: Some(field.clone()), all: true, ..Place::default() }],
    };
    let Some(reference) = super::target::known(plan, ROOT, field, findings) else { return Vec::new() };
    if lookups.catalog.is_none() {
        return named();
    }
    let scope = plan.run.scope();
    let entity = lookups.find(EntityKind::EnvironmentGroup, &reference, field, &scope, findings);
    let read = entity
        .and_then(|entity| root(entity, &["environmentGroup"], findings))
        .and_then(|root| stored(findings, |own| read_environment_group(&root, own)));
    let Some(read) = read else { return Vec::new() };
    if group.places.is_empty() {
        let place = |id: &String| {
            let reference = Field::made(id.clone(), field.path.clone(), &field.at);
            Place { environment_ref: Some(reference), all: true, ..Place::default() }
        };
        return read.environments.iter().map(place).collect();
    }
    for place in &group.places {
        let Some(environment) = &place.environment_ref else { continue };
        let Some(id) = super::target::known(plan, ROOT, environment, findings) else { continue };
        if !read.environments.contains(&id) {
            let message = format!("the environment `{id}` does not belong to the group `{reference}`");
            let near = did_you_mean(&id, read.environments.iter().map(String::as_str));
            findings.push(Fault::at(&environment.at, &environment.path, message).suggest(near));
        }
    }
    group.places.clone()
}
