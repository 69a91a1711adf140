//! Runtime inputs: pipeline.md 2.8.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::planner::{PlanOptions, plan, validate};
use pipeline::{Fault, Mode};
use support::*;

/// A pipeline whose variable `v` is this input.
fn asking(input: &str) -> String {
    custom(
        &format!(
            "variables:\n  - {{name: list, type: String, value: \"x,y\"}}\n  - name: v\n    type: String\n    value: '{input}'"
        ),
        &noop("a", ""),
        "",
    )
}

fn given(input: &str, value: &str) -> Result<String, Vec<Fault>> {
    let options = PlanOptions { inputs: [("v".to_owned(), value.to_owned())].into(), ..options() };
    let plan = plan("p.yaml", &asking(input), &catalog(), &options)?;
    Ok(plan.variables[1].value.text())
}

#[test]
fn what_an_input_allows() {
    let refused = |input: &str, value: &str| given(input, value).unwrap_err()[0].message.clone();
    assert_eq!(given("<+input>.allowedValues(a,b)", "b").unwrap(), "b");
    assert!(refused("<+input>.allowedValues(a,b)", "c").contains("`c` is not allowed; allowed are a, b"));
    assert_eq!(given("<+input>.default(a).selectOneFrom(a,b)", "b").unwrap(), "b");
    assert_eq!(given("<+input>.selectManyFrom(a,b,c)", "a,c").unwrap(), "a,c");
    assert!(refused("<+input>.selectManyFrom(a,b,c)", "a,d").contains("`d` is not allowed"));
    assert!(refused("<+input>.regex(v[0-9]+)", "v1-rc").contains("does not match"));
    assert_eq!(given("<+input>.regex(v[0-9]+).default(v1)", "v22").unwrap(), "v22");
    // Expressions among the allowed values.
    assert_eq!(given("<+input>.allowedValues(z,<+pipeline.variables.list>)", "x,y").unwrap(), "x,y");
    assert_eq!(
        given("<+input>.allowedValues(jexl(<+pipeline.variables.list>.split(\",\")))", "y").unwrap(),
        "y"
    );
    assert!(
        refused("<+input>.allowedValues(jexl(<+pipeline.variables.list>.split(\",\")))", "z")
            .contains("not allowed")
    );
}

#[test]
fn a_default_counts_when_nothing_is_given() {
    let plan = planned(&asking("<+input>.allowedValues(a,b).default(b)"));
    assert_eq!(plan.variables[1].value.text(), "b");
}

#[test]
fn rules_that_contradict_themselves_are_faults_of_the_pipeline() {
    let fault = |input: &str| {
        let faults = validate("p.yaml", &asking(input), None, Mode::Lenient).faults;
        faults.first().map(ToString::to_string).unwrap_or_default()
    };
    assert!(fault("<+input>.allowedValues(a,b).default(c)").contains("the default does not meet the rules"));
    assert!(fault("<+input>.regex([)").contains("not a regular expression"));
    assert!(fault("<+input>.alowedValues(a)").contains("did you mean `allowedValues`?"));
    assert!(fault("<+input>.default(a").contains("is not a suffix"));
    assert_eq!(fault("<+input>.default(a)"), "");
}

#[test]
fn everything_that_is_missing_is_told_at_once_by_its_full_name() {
    let yaml = custom(
        "variables:\n  - {name: one, type: String, value: <+input>}\n  - {name: two, type: String, required: true}",
        &noop("a", "timeout: <+input>"),
        "",
    )
    .replace("        type: Custom\n", "        type: Custom\n        variables: [{name: three, type: String, required: true}]\n");
    let text: Vec<String> = faults(&yaml).iter().map(ToString::to_string).collect();
    for name in [
        "pipeline.variables.one",
        "pipeline.variables.two",
        "pipeline.stages.s.variables.three",
        "pipeline.stages.s.spec.execution.steps.a.timeout",
    ] {
        assert!(text.iter().any(|fault| fault.contains(name)), "{name}: {text:#?}");
    }
    assert!(validate("p.yaml", &yaml, None, Mode::Lenient).faults.is_empty(), "only a run must bring them");
}

#[test]
fn a_file_of_inputs_is_held_to_the_same_rules() {
    let yaml = custom("", &noop("a", "timeout: <+input>.allowedValues(5m,10m)"), "");
    let with = |timeout: &str| {
        let text = format!(
            "pipeline: {{stages: [{{stage: {{identifier: s, spec: {{execution: {{steps: [{{step: {{identifier: a, timeout: {timeout}}}}}]}}}}}}}}]}}"
        );
        let options = PlanOptions { inputs_file: Some(("in.yaml".to_owned(), text)), ..options() };
        plan("p.yaml", &yaml, &catalog(), &options)
    };
    assert!(with("5m").is_ok());
    assert!(with("1h").unwrap_err()[0].to_string().starts_with("in.yaml:1:"));
}
