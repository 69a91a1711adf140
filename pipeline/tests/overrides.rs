//! Overrides of services by environment and infrastructure: pipeline.md 4.8.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::Plan;
use pipeline::entities::{CatalogEntity, EntityKind, Snapshot, parse_entities};
use pipeline::plan::{NodeKind, TargetPlan};
use pipeline::planner::plan;
use support::*;

fn stored(more: &str) -> Snapshot {
    let mut all = catalog();
    if !more.is_empty() {
        let entities = parse_entities("more.yaml", more).unwrap_or_else(|faults| panic!("{faults:#?}"));
        for entity in entities {
            all.entities.retain(|old| (old.kind, &old.id) != (entity.kind, &entity.id));
            all.entities.push(CatalogEntity::from(entity));
        }
    }
    all
}

fn deployed(more: &str) -> TargetPlan {
    let yaml = deployment(&noop("a", ""), "").replacen(
        "  name: p\n",
        "  name: p\n  orgIdentifier: o\n  projectIdentifier: j\n",
        1,
    );
    let plan: Plan =
        plan("p.yaml", &yaml, &stored(more), &options()).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let stage = plan.nodes.iter().find_map(|node| match &node.kind {
        NodeKind::Stage(stage) => stage.target.clone(),
        _ => None,
    });
    stage.unwrap()
}

fn level(target: &TargetPlan) -> String {
    let variables = &target.service.definition.variables;
    variables.iter().find(|variable| variable.name == "LEVEL").unwrap().value.text()
}

fn over(refs: &str, value: &str) -> String {
    format!(
        "---\noverrides: {{environmentRef: prod, {refs} spec: {{variables: [{{name: LEVEL, type: String, value: {value}}}]}}}}\n"
    )
}

#[test]
fn the_narrower_override_outweighs_the_wider_one() {
    // Each level is added to those before it, the weightiest first in the file: the order of storing means nothing.
    let levels = [
        ("", "env-global"),
        ("serviceRef: web,", "env-service"),
        ("infraIdentifier: farm,", "infra-global"),
        ("serviceRef: web, infraIdentifier: farm,", "infra-service"),
    ];
    assert_eq!(level(&deployed("")), "info");
    let mut documents = String::new();
    for (refs, value) in levels {
        documents = over(refs, value) + &documents;
        assert_eq!(level(&deployed(&documents)), value);
    }
    // Those of other services, environments and infrastructures do not apply.
    let other = over("serviceRef: api,", "x")
        + &over("infraIdentifier: lab,", "x")
        + &over("", "x").replace("prod", "qa");
    assert_eq!(level(&deployed(&other)), "info");
}

#[test]
fn within_a_kind_the_nearer_scope_outweighs() {
    let account = over("identifier: a,", "account");
    let org = over("identifier: b, orgIdentifier: o,", "org");
    let project = over("identifier: c, orgIdentifier: o, projectIdentifier: j,", "project");
    let foreign = over("identifier: d, orgIdentifier: o, projectIdentifier: k,", "foreign");
    assert_eq!(level(&deployed(&(project.clone() + &org + &account + &foreign))), "project");
    assert_eq!(level(&deployed(&(org + &account + &foreign))), "org");
    // A wider kind of a nearer scope stays behind a narrower kind of a wider one.
    assert_eq!(level(&deployed(&(project + &over("serviceRef: web,", "account")))), "account");
}

#[test]
fn the_environment_itself_overrides() {
    let with =
        |more: &str| format!("environment: {{identifier: prod, name: Prod, type: Production, {more}}}\n");
    let variables = with(
        "variables: [{name: LEVEL, type: String, value: warn}, {name: ONLY_ENV, type: String, value: x}]",
    );
    let target = deployed(&variables);
    assert_eq!(level(&target), "warn", "a variable of the environment outweighs that of the service");
    assert!(target.service.definition.variables.iter().all(|variable| variable.name != "ONLY_ENV"));
    assert_eq!(target.environment.variables.len(), 2);
    let overrides = with(
        "overrides: {variables: [{name: LEVEL, type: String, value: error}, {name: NEW, type: String, value: n}]}",
    );
    let target = deployed(&overrides);
    assert_eq!(level(&target), "error");
    assert!(target.service.definition.variables.iter().any(|variable| variable.name == "NEW"));
    // An override of the whole environment is a variable of the environment too.
    let target = deployed(&over("", "global"));
    assert_eq!(target.environment.variables[0].value.text(), "global");
}

#[test]
fn config_files_are_replaced_by_identifier_and_manifests_are_kept() {
    let file = |id: &str| {
        format!(
            "{{configFile: {{identifier: {id}, spec: {{store: {{type: Inline, spec: {{path: a.properties, content: c}}}}}}}}}}"
        )
    };
    let document = format!(
        "serviceOverrides:\n  environmentRef: prod\n  serviceRef: web\n  variableOverrides: [{{name: LEVEL, type: String, value: old-form}}]\n  configFiles: [{}, {}]\n  manifests: [{{manifest: {{identifier: m, type: Values, spec: {{store: {{type: Inline, spec: {{content: 'a: 1'}}}}}}}}}}]\n",
        file("props"),
        file("more")
    );
    let target = deployed(&document);
    let ids: Vec<&str> =
        target.service.definition.config_files.iter().map(|file| file.identifier.as_str()).collect();
    assert_eq!(ids, ["props", "more"]);
    assert!(matches!(
        target.service.definition.config_files[0].store,
        pipeline::model::service::Store::Inline { .. }
    ));
    assert_eq!(level(&target), "old-form");
    assert_eq!(target.service.document["spec"]["manifests"][0]["manifest"]["identifier"], "m");
}

#[test]
fn an_override_is_an_entity_of_its_own() {
    let read = |text: &str| parse_entities("o.yaml", text);
    let entity = &read("overrides: {environmentRef: prod, serviceRef: web, type: ENV_SERVICE_OVERRIDE, spec: {variables: [{name: A, type: String, value: b}]}}").unwrap()[0];
    assert_eq!((entity.kind, entity.id.as_str()), (EntityKind::Override, "prod_web"));
    assert_eq!(EntityKind::from_name("override"), Some(EntityKind::Override));
    let fault = |text: &str| read(text).unwrap_err()[0].to_string();
    let variables = "spec: {variables: [{name: A, type: String, value: b}]}";
    assert!(
        fault(&format!("overrides: {{serviceRef: web, {variables}}}"))
            .contains("`environmentRef` is missing")
    );
    assert!(
        fault(&format!("overrides: {{environmentRef: prod, type: INFRA_GLOBAL_OVERRIDE, {variables}}}"))
            .contains("ENV_GLOBAL_OVERRIDE")
    );
    assert!(fault("overrides: {environmentRef: prod}").contains("holds neither"));
    assert!(
        fault("overrides: {environmentRef: prod, spec: {variables: [{name: A, type: Text, value: b}]}}")
            .contains("variable type")
    );
}
