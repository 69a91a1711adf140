//! Several services and environments in one stage, and references that are resolved when the run is planned.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::planner::{PlanOptions, plan, validate};
use pipeline::view::execution_view;
use pipeline::{Fault, Mode, Plan};
use proto::failure::FailureKind;
use support::*;

const MORE: &str = "
service:
  identifier: api
  name: Api
  serviceDefinition: {type: Ssh, spec: {variables: [{name: LEVEL, type: String, value: debug}]}}
---
environment: {identifier: qa, name: Qa, type: PreProduction}
---
infrastructureDefinition:
  identifier: lab
  name: lab
  environmentRef: qa
  type: Pdc
  spec: {credentialsRef: key, hosts: [q1]}
---
infrastructureDefinition:
  identifier: lab2
  name: lab2
  environmentRef: qa
  type: Pdc
  spec: {credentialsRef: key, hosts: [q2]}
";

fn stored() -> Snapshot {
    let mut all = catalog();
    all.entities.extend(parse_entities("more.yaml", MORE).unwrap().into_iter().map(CatalogEntity::from));
    all
}

/// A deployment stage whose service and environment are written out.
fn stage(what: &str, where_to: &str, more: &str) -> String {
    let step = noop("a", "").replace(
        "line: x",
        "line: '<+service.identifier> <+env.identifier> <+infra.name> <+serviceVariables.LEVEL>'",
    );
    let mut yaml = deployment("", "").replace("          service: {serviceRef: web}\n", "");
    let start = yaml.find("          environment:\n").unwrap();
    let end = yaml.find("          execution:\n").unwrap();
    yaml.replace_range(start..end, &format!("          {what}\n          {where_to}\n"));
    for line in step.lines() {
        yaml.push_str(&format!("              {line}\n"));
    }
    yaml.replace("        type: Deployment\n", &format!("        type: Deployment\n        {more}\n"))
}

fn made(yaml: &str) -> Result<Plan, Vec<Fault>> {
    plan("p.yaml", yaml, &stored(), &options())
}

/// What each deployment says, in its order, and how many began at once.
fn deployed(yaml: &str) -> (Vec<String>, usize) {
    let plan = made(yaml).unwrap_or_else(|faults| panic!("{faults:#?}\n{yaml}"));
    let mut world = World::start_with(plan);
    let at_once = world.tasks.len();
    let mut lines = Vec::new();
    while let Some(task) = world.tasks.front() {
        match &task.task.step.spec {
            proto::task::StepSpec::Noop(spec) => {
                lines.push(serde_json::to_value(spec).unwrap()["line"].as_str().unwrap().to_owned());
            }
            other => panic!("{other:?}"),
        }
        world.answer(success());
    }
    assert_eq!(world.finished.as_deref(), Some("Success"));
    (lines, at_once)
}

const SERVICES: &str = "services: {values: [{serviceRef: web}, {serviceRef: api}], metadata: {parallel: P}}";
const PLACES: &str = "environments: {values: [{environmentRef: prod, infrastructureDefinitions: [{identifier: farm}]}, {environmentRef: qa, infrastructureDefinitions: [{identifier: lab}]}], metadata: {parallel: P}}";
const PROD: &str = "environment: {environmentRef: prod, infrastructureDefinitions: [{identifier: farm}]}";

#[test]
fn services_and_environments_expand_like_a_matrix() {
    let with = |text: &str, parallel: bool| text.replace(": P}", &format!(": {parallel}}}"));
    let (lines, at_once) = deployed(&stage(&with(SERVICES, false), PROD, ""));
    assert_eq!(
        (lines.as_slice(), at_once),
        (["web prod farm info".to_owned(), "api prod farm debug".to_owned()].as_slice(), 1)
    );
    let (_, at_once) = deployed(&stage(&with(SERVICES, true), PROD, ""));
    assert_eq!(at_once, 2);
    let (lines, at_once) = deployed(&stage(&with(SERVICES, false), &with(PLACES, false), ""));
    assert_eq!(lines, ["web prod farm info", "web qa lab info", "api prod farm debug", "api qa lab debug"]);
    assert_eq!(at_once, 1);
    // Every service passes an environment before the next environment begins.
    let (lines, at_once) = deployed(&stage(&with(SERVICES, true), &with(PLACES, false), ""));
    assert_eq!(lines, ["web prod farm info", "api prod farm debug", "web qa lab info", "api qa lab debug"]);
    assert_eq!(at_once, 2);
    assert_eq!(deployed(&stage(&with(SERVICES, true), &with(PLACES, true), "")).1, 4);
    let world = World::start_with(made(&stage(&with(SERVICES, true), &with(PLACES, true), "")).unwrap());
    let ids: Vec<String> =
        execution_view(&world.state, None).stages.into_iter().map(|stage| stage.identifier).collect();
    assert_eq!(ids, ["s_0_0", "s_0_1", "s_1_0", "s_1_1"]);
}

#[test]
fn one_deployment_that_fails_stops_no_other() {
    let mut world = World::start_with(made(&stage(&SERVICES.replace(": P}", ": false}"), PROD, "")).unwrap());
    world.answer(failed(FailureKind::RemoteFailed));
    world.answer(success());
    assert_eq!(world.status("pipeline.stages.s_0"), "Failed");
    assert_eq!(world.status("pipeline.stages.s_1"), "Success");
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

#[test]
fn deploy_to_all_means_every_infrastructure_of_the_environment() {
    let (lines, _) = deployed(&stage(
        "service: {serviceRef: web}",
        "environment: {environmentRef: qa, deployToAll: true}",
        "",
    ));
    assert_eq!(lines, ["web qa lab info", "web qa lab2 info"]);
    let two = "environment: {environmentRef: qa, infrastructureDefinitions: [{identifier: lab2}, {identifier: lab}]}";
    assert_eq!(
        deployed(&stage("service: {serviceRef: web}", two, "")).0,
        ["web qa lab2 info", "web qa lab info"]
    );
}

#[test]
fn a_matrix_may_say_what_is_deployed_where() {
    let where_to = "environment: {environmentRef: <+matrix.to.env>, infrastructureDefinitions: [{identifier: <+matrix.to.infra>}]}";
    let matrix = "strategy: {matrix: {svc: [web, api], to: [{env: qa, infra: lab}, {env: prod, infra: farm}], exclude: [{svc: api, to: {env: qa, infra: lab}}], maxConcurrency: 1}}";
    let (lines, at_once) = deployed(&stage("service: {serviceRef: <+matrix.svc>}", where_to, matrix));
    assert_eq!(lines, ["web qa lab info", "web prod farm info", "api prod farm debug"]);
    assert_eq!(at_once, 1);
    let unknown = matrix.replace("[web, api]", "<+execution.steps.a.output.x>");
    let faults = made(&stage("service: {serviceRef: <+matrix.svc>}", where_to, &unknown)).unwrap_err();
    assert!(faults.iter().any(|fault| fault.message.contains("must be known before the run")), "{faults:?}");
}

#[test]
fn references_may_be_expressions_and_inputs() {
    let where_to = "environment: {environmentRef: <+pipeline.variables.env>, infrastructureDefinitions: [{identifier: <+input>}]}";
    let yaml = stage("service: {serviceRef: web}", where_to, "").replace(
        "    - {name: color,",
        "    - {name: env, type: String, value: <+input>}\n    - {name: color,",
    );
    let inputs = "pipeline: {stages: [{stage: {identifier: s, spec: {environment: {infrastructureDefinitions: [{identifier: lab}]}}}}]}";
    let options = PlanOptions {
        inputs: [("env".to_owned(), "qa".to_owned())].into(),
        inputs_file: Some(("in.yaml".to_owned(), inputs.to_owned())),
        ..options()
    };
    let made = plan("p.yaml", &yaml, &stored(), &options);
    // A list whose only element has no fixed identifier is filled by its place.
    let plan = made.unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(
        plan.nodes
            .iter()
            .find_map(|n| match &n.kind {
                pipeline::plan::NodeKind::Stage(stage) =>
                    stage.target.as_ref().map(|t| t.infrastructure.identifier.clone()),
                _ => None,
            })
            .unwrap(),
        "lab"
    );
    let faults = plan_without(&yaml);
    let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(
        text.iter().any(|f| f.contains("`env` is missing") || f.contains("pipeline.variables.env")),
        "{text:?}"
    );
    assert!(text.iter().any(|f| f.contains("infrastructureDefinitions")), "{text:?}");
    assert!(validate("p.yaml", &yaml, Some(&stored()), Mode::Lenient).faults.is_empty());
}

fn plan_without(yaml: &str) -> Vec<Fault> {
    plan("p.yaml", yaml, &stored(), &options()).unwrap_err()
}

#[test]
fn what_cannot_be_expanded_is_refused() {
    let text = |faults: Vec<Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let services = SERVICES.replace(": P}", ": true}");
    let both = stage(&services, PROD, "strategy: {repeat: {times: 2}}");
    assert!(text(made(&both).unwrap_err()).contains("cannot have a `strategy`"));
    let unknown = stage(&services.replace("serviceRef: api", "serviceRef: apo"), PROD, "");
    assert!(text(made(&unknown).unwrap_err()).contains("did you mean `api`?"));
    let group = stage("service: {serviceRef: web}", "environmentGroup: {envGroupRef: g}", "");
    assert!(text(made(&group).unwrap_err()).contains("names no environment of the group"));
    let none = stage("services: {values: []}", PROD, "");
    assert!(text(made(&none).unwrap_err()).contains("`values` lists nothing"));
}
