//! Selector precedence: pipeline.md 2.9. The first level with selectors wins entirely.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::planner::{plan, validate};
use pipeline::{Mode, Plan};
use support::*;

/// Levels from the outside to the inside; the infrastructure `farm` has the selector Zone-B of its own.
const LEVELS: [&str; 5] = ["pipeline", "stage", "outer", "inner", "step"];

fn nested(written: &[&str]) -> String {
    let on = |level: &str| match written.contains(&level) {
        true => format!("delegateSelectors: [ {level} ]"),
        false => "description: none".to_owned(),
    };
    let step = format!(
        "- stepGroup:
    identifier: outer
    name: outer
    {}
    steps:
      - stepGroup:
          identifier: inner
          name: inner
          {}
          steps:
            - step:
                identifier: a
                name: a
                type: Noop
                spec: {{line: x, {}}}
",
        on("outer"),
        on("inner"),
        if written.contains(&"step") { "delegateSelectors: [Step]" } else { "timeout: 1m" }
    );
    deployment(&step, "").replacen("  name: p\n", &format!("  name: p\n  {}\n", on("pipeline")), 1).replacen(
        "        name: s\n",
        &format!("        name: s\n        {}\n", on("stage")),
        1,
    )
}

fn winner(yaml: &str, stored: &Snapshot) -> Vec<(String, Vec<String>)> {
    let plan: Plan =
        plan("p.yaml", yaml, stored, &options()).unwrap_or_else(|faults| panic!("{faults:#?}\n{yaml}"));
    let world = World::start_with(plan);
    world.tasks[0].selectors.iter().map(|set| (set.origin.clone(), set.selectors.clone())).collect()
}

#[test]
fn the_inner_level_wins_over_every_outer_one() {
    let origins = ["pipeline", "stage", "stepGroup", "stepGroup", "step"];
    for (index, level) in LEVELS.iter().enumerate() {
        // With every outer level written too, and alone.
        for written in [&LEVELS[..=index], &LEVELS[index..=index]] {
            let won = winner(&nested(written), &catalog());
            assert_eq!(won, [(origins[index].to_owned(), vec![(*level).to_owned()])], "{written:?}");
        }
    }
    let won = winner(&nested(&[]), &catalog());
    assert_eq!(won, [("infrastructure".to_owned(), vec!["zone-b".to_owned()])]);
}

#[test]
fn connectors_count_only_when_nothing_else_does() {
    let more = "connector:
  identifier: ssh1
  name: ssh1
  type: Ssh
  spec: {host: h9, sshKeyRef: key, delegateSelectors: [Near, ssh]}
---
infrastructureDefinition:
  identifier: bare
  name: bare
  environmentRef: prod
  type: Pdc
  spec: {connectorRef: ssh1, credentialsRef: key}
";
    let mut stored = catalog();
    let entities = parse_entities("more.yaml", more).unwrap_or_else(|faults| panic!("{faults:#?}"));
    stored.entities.extend(entities.into_iter().map(CatalogEntity::from));
    let yaml = deployment_on("infrastructureDefinitions: [{identifier: bare}]", &script("a", "x", ""), "")
        .replace("serviceRef: web", "serviceRef: plain");
    stored.entities.extend(
        parse_entities(
            "s.yaml",
            "service: {identifier: plain, name: plain, serviceDefinition: {type: Ssh, spec: {}}}",
        )
        .unwrap()
        .into_iter()
        .map(CatalogEntity::from),
    );
    assert_eq!(
        winner(&yaml, &stored),
        [("connector:ssh1".to_owned(), vec!["near".to_owned(), "ssh".to_owned()])]
    );
    let stage =
        yaml.replacen("        name: s\n", "        name: s\n        delegateSelectors: [stage]\n", 1);
    assert_eq!(winner(&stage, &stored), [("stage".to_owned(), vec!["stage".to_owned()])]);
}

#[test]
fn an_expression_that_names_a_later_step_is_refused() {
    let says = |id: &str, line: &str| noop(id, "").replace("line: x", &format!("line: '{line}'"));
    let faults = |yaml: &str| {
        let found = validate("p.yaml", yaml, None, Mode::Lenient).faults;
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let later = "<+execution.steps.b.output.outputVariables.v>";
    assert!(
        faults(&custom("", &(says("a", later) + &noop("b", "")), ""))
            .contains("names the step `b`, which runs later than `a`")
    );
    let absolute = "<+pipeline.stages.s.spec.execution.steps.b.status>";
    assert!(faults(&custom("", &(says("a", absolute) + &noop("b", "")), "")).contains("runs later"));
    // Earlier ones, and forward steps seen from a rollback step, are what outputs are for.
    assert_eq!(faults(&custom("", &(noop("b", "") + &says("a", later)), "")), "");
    assert_eq!(faults(&custom("", &noop("b", ""), &says("a", later))), "");
    let rollback = "<+pipeline.stages.s.spec.execution.rollbackSteps.b.status>";
    assert!(faults(&custom("", &says("a", rollback), &noop("b", ""))).contains("runs later"));
}

#[test]
fn connectors_that_no_version_supports_are_refused_by_name() {
    for kind in ["Azure", "Gcp", "AzureKeyVault", "GcpSecretManager"] {
        let text = format!("connector: {{identifier: c, name: c, type: {kind}, spec: {{}}}}");
        let faults = parse_entities("c.yaml", &text).unwrap_err();
        assert!(
            faults[0].message.contains(&format!("connector type `{kind}` is not supported")),
            "{faults:?}"
        );
    }
}
