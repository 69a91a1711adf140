//! Environment groups and `useFromStage`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::Plan;
use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::fault::Mode;
use pipeline::plan::NodeKind;
use pipeline::planner::{plan, validate};
use support::*;

const MORE: &str = r#"
environment:
  identifier: qa
  name: QA
  type: PreProduction
  variables:
    - {name: COLOR, type: String, value: <+input>}
---
infrastructureDefinition:
  identifier: lab
  name: lab
  environmentRef: qa
  deploymentType: Ssh
  type: Pdc
  spec: {credentialsRef: key, hosts: [q1]}
---
environmentGroup:
  identifier: everywhere
  name: Everywhere
  envIdentifiers: [qa, prod]
"#;

fn all() -> Snapshot {
    let mut catalog = catalog();
    let more = parse_entities("more.yaml", MORE).unwrap_or_else(|faults| panic!("{faults:?}"));
    catalog.entities.extend(more.into_iter().map(CatalogEntity::from));
    catalog
}

fn stage(id: &str, target: &str) -> String {
    format!(
        "    - stage: {{identifier: {id}, name: {id}, type: Deployment, spec: {{{target}, execution: {{steps: [{{step: {{identifier: a, name: a, type: Noop, spec: {{line: x}}}}}}]}}}}}}\n"
    )
}

fn pipeline(stages: &str) -> String {
    format!("pipeline:\n  identifier: p\n  name: p\n  stages:\n{stages}")
}

fn made(stages: &str) -> Plan {
    let yaml = pipeline(stages);
    plan("p.yaml", &yaml, &all(), &options()).unwrap_or_else(|faults| panic!("{faults:#?}\n{yaml}"))
}

fn refused(stages: &str) -> String {
    let faults = plan("p.yaml", &pipeline(stages), &all(), &options()).unwrap_err();
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

/// Service, environment and infrastructure of every stage.
fn targets(plan: &Plan) -> Vec<(String, String, String)> {
    let target = |kind: &NodeKind| match kind {
        NodeKind::Stage(stage) => {
            let target = stage.target.as_ref()?;
            let names = (
                &target.service.identifier,
                &target.environment.identifier,
                &target.infrastructure.identifier,
            );
            Some((names.0.clone(), names.1.clone(), names.2.clone()))
        }
        _ => None,
    };
    plan.nodes.iter().filter_map(|node| target(&node.kind)).collect()
}

fn named(list: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    list.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
}

#[test]
fn a_stage_goes_to_every_environment_of_a_group() {
    let plan = made(&stage(
        "s",
        "service: {serviceRef: web}, environmentGroup: {envGroupRef: everywhere, deployToAll: true, metadata: {parallel: true}}",
    ));
    assert_eq!(targets(&plan), named(&[("web", "qa", "lab"), ("web", "prod", "farm")]));
    let block = plan.nodes.iter().find_map(|node| node.copies.as_ref()).unwrap();
    assert_eq!(block.at_once, 2);
    let plan = made(&stage(
        "s",
        "service: {serviceRef: web}, environmentGroup: {envGroupRef: everywhere, environments: [{environmentRef: prod, infrastructureDefinitions: [{identifier: farm}]}]}",
    ));
    assert_eq!(targets(&plan), named(&[("web", "prod", "farm")]));
}

#[test]
fn what_a_group_lacks_is_told() {
    let of = |rest: &str| {
        refused(&stage("s", &format!("service: {{serviceRef: web}}, environmentGroup: {{{rest}}}")))
    };
    let unknown = of("envGroupRef: everywher, deployToAll: true");
    assert!(
        unknown.contains("the environmentGroup `everywher` does not exist (did you mean `everywhere`?)"),
        "{unknown}"
    );
    let nothing = of("envGroupRef: everywhere");
    assert!(nothing.contains("write `deployToAll: true` or `environments`"), "{nothing}");
    let other = of("envGroupRef: everywhere, environments: [{environmentRef: pro, deployToAll: true}]");
    assert!(
        other.contains("`pro` does not belong to the group `everywhere` (did you mean `prod`?)"),
        "{other}"
    );
    let empty = parse_entities("g.yaml", "environmentGroup: {identifier: g, name: g}").unwrap_err();
    assert!(empty[0].message.contains("`envIdentifiers` lists nothing"), "{empty:?}");
    // Without a catalogue it is checked as far as that goes.
    let alone = pipeline(&stage(
        "s",
        "service: {serviceRef: web}, environmentGroup: {envGroupRef: everywhere, deployToAll: true}",
    ));
    assert!(validate("p.yaml", &alone, None, Mode::Lenient).faults.is_empty());
}

#[test]
fn a_stage_uses_service_and_environment_of_an_earlier_one() {
    let first = stage(
        "one",
        "service: {serviceRef: web}, environment: {environmentRef: qa, infrastructureDefinitions: [{identifier: lab}]}",
    );
    let second = stage(
        "two",
        "service: {useFromStage: {stage: one}}, environment: {environmentRef: prod, infrastructureDefinitions: [{identifier: farm}]}",
    );
    let third =
        stage("three", "service: {useFromStage: {stage: two}}, environment: {useFromStage: {stage: one}}");
    let plan = made(&[first.as_str(), &second, &third].concat());
    assert_eq!(targets(&plan), named(&[("web", "qa", "lab"), ("web", "prod", "farm"), ("web", "qa", "lab")]));
    // The older form.
    let old = stage(
        "one",
        "serviceConfig: {serviceRef: web}, infrastructure: {environmentRef: prod, infrastructureDefinition: {type: Pdc, spec: {credentialsRef: key, hosts: [h9]}}}",
    ) + &stage(
        "two",
        "serviceConfig: {useFromStage: {stage: one}}, infrastructure: {useFromStage: {stage: one}}",
    );
    let plan = made(&old);
    let keys: Vec<&str> = plan
        .nodes
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::Stage(stage) => stage.target.as_ref().map(|target| target.infrastructure.key.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((keys.len(), keys[0]), (2, keys[1]), "the same service on the same hosts");
}

#[test]
fn only_a_deployment_that_ends_before_can_be_used() {
    let one = stage(
        "one",
        "service: {serviceRef: web}, environment: {environmentRef: qa, infrastructureDefinitions: [{identifier: lab}]}",
    );
    let two = |from: &str| {
        stage(
            "two",
            &format!(
                "service: {{useFromStage: {{stage: {from}}}}}, environment: {{environmentRef: qa, infrastructureDefinitions: [{{identifier: lab}}]}}"
            ),
        )
    };
    let later = refused(&(two("one") + &one));
    assert!(later.contains("no stage `one` ends before this one begins"), "{later}");
    let typing = refused(&(one.clone() + &two("onne")));
    assert!(typing.contains("(did you mean `one`?)"), "{typing}");
    let custom = "    - stage: {identifier: c, name: c, type: Custom, spec: {execution: {steps: [{step: {identifier: a, name: a, type: Noop, spec: {line: x}}}]}}}\n";
    let nothing = refused(&(custom.to_owned() + &two("c")));
    assert!(nothing.contains("deploys nothing that could be used"), "{nothing}");
    let beside: String = (one + &two("one")).lines().map(|line| format!("      {line}\n")).collect();
    let beside = refused(&format!("    - parallel:\n{beside}"));
    assert!(beside.contains("no stage `one` ends before"), "{beside}");
}

#[test]
fn inputs_of_an_environment_count() {
    let plan = made(&stage(
        "s",
        "service: {serviceRef: web}, environment: {environmentRef: qa, environmentInputs: {identifier: qa, variables: [{name: COLOR, type: String, value: red}]}, serviceOverrideInputs: {variables: [{name: LEVEL, type: String, value: debug}]}, infrastructureDefinitions: [{identifier: lab}]}",
    ));
    let target = plan.nodes.iter().find_map(|node| match &node.kind {
        NodeKind::Stage(stage) => stage.target.as_ref(),
        _ => None,
    });
    let target = target.unwrap();
    assert_eq!(target.environment.variables[0].value.text(), "red");
    let level = target.service.definition.variables.iter().find(|variable| variable.name == "LEVEL").unwrap();
    assert_eq!(level.value.text(), "debug");
}

#[test]
fn each_of_several_environments_has_its_own_inputs() {
    let one = |environment: &str, infrastructure: &str, color: &str, level: &str| {
        format!(
            "{{environmentRef: {environment}, environmentInputs: {{identifier: {environment}, variables: [{{name: COLOR, type: String, value: {color}}}]}}, serviceOverrideInputs: {{variables: [{{name: LEVEL, type: String, value: {level}}}]}}, infrastructureDefinitions: [{{identifier: {infrastructure}}}]}}"
        )
    };
    let (qa, prod) = (one("qa", "lab", "red", "debug"), one("prod", "farm", "green", "error"));
    let said = |plan: &Plan| -> Vec<(String, String, String)> {
        let targets = plan.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Stage(stage) => stage.target.as_ref(),
            _ => None,
        });
        let variable = |all: &[pipeline::model::Variable], name: &str| {
            all.iter().find(|one| one.name == name).map(|one| one.value.text()).unwrap_or_default()
        };
        targets
            .map(|target| {
                (
                    target.environment.identifier.clone(),
                    variable(&target.environment.variables, "COLOR"),
                    variable(&target.service.definition.variables, "LEVEL"),
                )
            })
            .collect()
    };
    let expected = [("qa", "red", "debug"), ("prod", "green", "error")]
        .map(|(environment, color, level)| (environment.to_owned(), color.to_owned(), level.to_owned()));
    let several =
        stage("s", &format!("service: {{serviceRef: web}}, environments: {{values: [{qa}, {prod}]}}"));
    assert_eq!(said(&made(&several)), expected);
    let group = stage(
        "s",
        &format!(
            "service: {{serviceRef: web}}, environmentGroup: {{envGroupRef: everywhere, environments: [{qa}, {prod}]}}"
        ),
    );
    assert_eq!(said(&made(&group)), expected);
    // Without inputs of its own, an environment has none of the others'.
    let bare = "{environmentRef: prod, infrastructureDefinitions: [{identifier: farm}]}";
    let mixed =
        stage("s", &format!("service: {{serviceRef: web}}, environments: {{values: [{qa}, {bare}]}}"));
    let bare = ("prod".to_owned(), String::new(), "info".to_owned());
    assert_eq!(said(&made(&mixed)), [expected[0].clone(), bare]);
    let from = refused(&stage(
        "s",
        "service: {serviceRef: web}, environments: {values: [{useFromStage: {stage: x}, environmentRef: qa, infrastructureDefinitions: [{identifier: lab}]}]}",
    ));
    assert!(from.contains("not in a list of environments"), "{from}");
}
