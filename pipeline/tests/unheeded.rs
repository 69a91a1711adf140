//! What this version does not act on is refused if it would change what runs or where, and told otherwise; nothing is
//! ignored in silence.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::fault::Mode;
use pipeline::planner::validate;
use support::*;

fn told(yaml: &str) -> String {
    let validation = validate("p.yaml", yaml, None, Mode::Lenient);
    let faults = validation.faults.iter().map(|fault| format!("fault {}: {}\n", fault.path, fault.message));
    let notices =
        validation.notices.iter().map(|n| format!("notice {} {}: {}\n", n.code, n.yaml_path, n.assumed));
    faults.chain(notices).collect()
}

#[test]
fn templates_and_stages_of_other_kinds_are_refused_by_name() {
    let step = custom("", "- step: {identifier: a, name: a, template: {templateRef: t}}\n", "");
    assert!(
        told(&step).contains("`template` is not supported: templates are resolved before"),
        "{}",
        told(&step)
    );
    let group = custom("", "- stepGroup: {identifier: g, name: g, template: {templateRef: t}}\n", "");
    assert!(told(&group).contains("stepGroup.template: `template` is not supported"), "{}", told(&group));
    let insert = custom("", "- insert: {identifier: i}\n", "");
    assert!(told(&insert).contains("`insert` is not supported"), "{}", told(&insert));
    let stage = "pipeline: {identifier: p, name: p, stages: [{stage: {identifier: s, name: s, template: {templateRef: t}}}]}";
    assert!(told(stage).contains("stage.template: `template` is not supported"), "{}", told(stage));
    let pipeline = "pipeline: {identifier: p, name: p, template: {templateRef: t}}";
    assert!(told(pipeline).contains("pipeline.template: `template` is not supported"), "{}", told(pipeline));
    let chained = custom("", &noop("a", ""), "").replace("type: Custom", "type: Pipeline");
    assert!(told(&chained).contains("stages of the type `Pipeline` are not supported"), "{}", told(&chained));
}

#[test]
fn what_would_change_where_is_refused() {
    let on = |rest: &str| told(&deployment_on(rest, &noop("a", ""), ""));
    let filters = on("deployToAll: true\n            filters: [{identifier: f, type: tags}]");
    assert!(filters.contains("environment.filters: `filters` is not supported"), "{filters}");
    let provisioned =
        on("provisioner: {steps: []}\n            infrastructureDefinitions: [{identifier: farm}]");
    assert!(provisioned.contains("`provisioner` is not supported"), "{provisioned}");
    let gitops = deployment(&noop("a", ""), "")
        .replace("deploymentType: Ssh", "deploymentType: Ssh\n          gitOpsEnabled: true");
    assert!(told(&gitops).contains("GitOps stages are not supported"), "{}", told(&gitops));
    let plain = deployment(&noop("a", ""), "")
        .replace("deploymentType: Ssh", "deploymentType: Ssh\n          gitOpsEnabled: false");
    assert!(!told(&plain).contains("fault pipeline"), "{}", told(&plain));
}

#[test]
fn what_has_no_effect_is_told() {
    let rules = custom("notificationRules: [{name: n, enabled: true}]", &noop("a", ""), "");
    assert!(told(&rules).contains("notice not-supported-yet pipeline.notificationRules: `notificationRules` has no effect in this version: nobody is notified"), "{}", told(&rules));
    let skip = deployment(&noop("a", ""), "")
        .replace("deploymentType: Ssh", "deploymentType: Ssh\n          skipInstances: true");
    assert!(told(&skip).contains("every host is deployed to"), "{}", told(&skip));
}

#[test]
fn the_older_filters_of_hosts_count() {
    let hosts = |filter: &str| {
        let stage = deployment_on("infrastructureDefinitions: [{identifier: other}]", &script("a", "true", ""), "").replace(
            "          environment:\n            environmentRef: prod\n            infrastructureDefinitions: [{identifier: other}]\n",
            &format!("          infrastructure:\n            environmentRef: prod\n            infrastructureDefinition: {{type: Pdc, spec: {{credentialsRef: key, connectorRef: hosts, {filter}}}}}\n"),
        );
        let mut world = World::start(&stage);
        let mut hosts = Vec::new();
        while let Some(task) = world.tasks.front() {
            hosts.push(match &task.task.step.spec {
                proto::task::StepSpec::Command(command) => command.target.clone().unwrap().host,
                other => panic!("{other:?}"),
            });
            world.answer(success());
        }
        hosts
    };
    assert_eq!(hosts("delegateSelectors: [a]"), ["h1", "h2", "h3"]);
    assert_eq!(hosts("hostFilters: [h1, h3]"), ["h1", "h3"]);
    assert_eq!(hosts("attributeFilters: {tier: web}"), ["h1"]);
}

#[test]
fn variables_of_a_step_group_are_known_inside_of_it() {
    let group = "- stepGroup:
    identifier: g
    name: g
    variables:
      - {name: word, type: String, value: 'hi <+pipeline.variables.who>'}
      - {name: more, type: String, default: fallback}
    steps:
      - step: {identifier: a, name: a, type: Noop, spec: {line: '<+stepGroup.variables.word> <+stepGroup.variables.more>'}}
";
    let yaml = custom("variables: [{name: who, type: String, value: ann}]", group, "");
    let world = World::start(&yaml);
    match &world.tasks[0].task.step.spec {
        proto::task::StepSpec::Noop(noop) => assert_eq!(noop.line, "hi ann fallback"),
        other => panic!("{other:?}"),
    }
    let found = faults(&yaml.replace("variables.word> ", "variables.wort> "));
    assert!(found[0].message.contains("leads nowhere"), "{found:?}");
    let near = found[0].suggestion.clone().unwrap();
    assert!(near.contains("`stepGroup.variables.word`"), "{near}");
    let circle = faults(&yaml.replace("hi <+pipeline.variables.who>", "<+stepGroup.variables.word>"));
    assert!(circle[0].message.contains("`stepGroup.variables.word` refers to itself"), "{circle:?}");
}
