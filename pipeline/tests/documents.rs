//! Documents: what is refused, where, with which suggestion; and every tolerance rule with its notice.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::Mode;
use pipeline::entities::{EntityKind, LookupError, find, parse_entities};
use pipeline::planner::{PlanOptions, plan, preflight, validate};
use support::*;

/// The only fault, as a person reads it.
fn only(yaml: &str) -> String {
    let faults = faults(yaml);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults[0].to_string()
}

#[test]
fn an_unknown_step_is_refused_by_name_with_its_place() {
    let fault = only(&custom("", &noop("a", "").replace("Noop", "Comand"), ""));
    assert!(
        fault.starts_with("p.yaml:15:25: pipeline.stages[0].stage.spec.execution.steps[0].step.type"),
        "{fault}"
    );
    assert!(
        fault.contains("`Comand` is not a known step type; supported step types are Command, "),
        "{fault}"
    );
    assert!(fault.contains("did you mean `Command`?"), "{fault}");
    let fault = only(&custom("", &noop("a", "").replace("Noop", "JiraApproval"), ""));
    assert!(fault.contains("not supported by this version"), "{fault}");
}

#[test]
fn malformed_yaml_is_told_with_its_place() {
    let faults = faults("pipeline:\n  name: x\n stages: []\n");
    assert_eq!((faults[0].line, faults[0].source.as_str()), (3, "p.yaml"), "{faults:?}");
    assert!(only("piepline:\n  name: x\n").contains("did you mean `pipeline`?"));
    assert!(only("- a\n").contains("expected a document with the root key `pipeline`"));
    assert!(only("").contains("no document"));
    let two = custom("", &noop("a", ""), "") + "---\nservice: {name: x}\n";
    assert!(only(&two).contains("one document"));
}

#[test]
fn a_missing_connector_names_the_nearest() {
    let step = "- step:
    identifier: v
    name: v
    type: Verify
    spec:
      type: Prometheus
      spec: {connectorRef: prmo, metricName: m, query: up, threshold: {type: Absolute, spec: {value: 1}}}
      duration: 5m
";
    let fault = only(&deployment(step, ""));
    assert!(fault.contains("the connector `prmo` does not exist (did you mean `prom`?)"), "{fault}");
    assert!(fault.contains("spec.spec.connectorRef"), "{fault}");
}

#[test]
fn every_fault_is_told_at_once() {
    let steps = noop("a", "when: {condition: true}")
        + &noop("a", "timeout: soon")
        + &script("b", "echo <+pipeline.variables.colour> <+secrets.getValue(\"nope\")>", "")
        + &noop("c", "delegateSelector: [x]");
    let found: Vec<String> = faults(&deployment(&steps, "")).iter().map(ToString::to_string).collect();
    let all = found.join("\n");
    for expected in [
        "`stageStatus` is missing",
        "the step identifier `a` was used before",
        "`delegateSelector` is not a known key (did you mean `delegateSelectors`?)",
        "`soon` is not a duration",
    ] {
        assert!(all.contains(expected), "{expected}\n{all}");
    }
    // Expressions are looked at once the document itself is right.
    let found: Vec<String> = faults(&deployment(
        &script("b", "echo <+pipeline.variables.colour> <+secrets.getValue(\"nope\")>", ""),
        "",
    ))
    .iter()
    .map(ToString::to_string)
    .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains(
            "`<+pipeline.variables.colour>` leads nowhere (did you mean `pipeline.variables.color`?)"
        ),
        "{found:?}"
    );
    assert!(
        found[1].contains("the secret `nope` has no value (set it with `delegate secret set nope --stdin`)")
    );
}

#[test]
fn references_that_only_a_run_can_answer_are_let_through() {
    let text = "echo <+execution.steps.a.output.outputVariables.v> <+artifact.tag> <+stage.output.hosts> \
                <+pipeline.variables.nope ?: \"x\"> <+pipeline.stages.s.startTs> <+currentTime>";
    planned(&deployment(&(noop("a", "") + &script("b", &text.replace('\'', ""), "")), ""));
    let fault =
        only(&deployment(&script("b", "echo <+execution.steps.zz.output.outputVariables.v>", ""), ""));
    assert!(fault.contains("leads nowhere"), "{fault}");
}

#[test]
fn missing_service_environment_infrastructure_and_login() {
    let base = deployment(&noop("a", ""), "");
    assert!(
        only(&base.replace("serviceRef: web", "serviceRef: wep"))
            .contains("the service `wep` does not exist (did you mean `web`?)")
    );
    assert!(
        only(&base.replace("environmentRef: prod", "environmentRef: prd"))
            .contains("the environment `prd` does not exist")
    );
    assert!(
        only(&base.replace("identifier: farm", "identifier: fram"))
            .contains("the infrastructure `fram` does not exist")
    );
    let inline = "infrastructureDefinitions: [{identifier: x, inputs: {type: Pdc, spec: {hosts: [h1], credentialsRef: kee}}}]";
    let fault = only(&deployment_on(inline, &noop("a", ""), ""));
    assert!(fault.contains("`kee` is not a secret of type SSHKey (did you mean `key`?)"), "{fault}");
}

#[test]
fn pdc_hosts_come_from_a_connector_and_are_filtered() {
    let hosts = |spec: &str| {
        let inline = format!(
            "infrastructureDefinitions: [{{identifier: x, inputs: {{type: Pdc, spec: {{credentialsRef: key, {spec}}}}}}}]"
        );
        let plan = planned(&deployment_on(&inline, &script("a", "x", ""), ""));
        preflight(&plan)[0].hosts.iter().map(|host| host.host.clone()).collect::<Vec<_>>()
    };
    assert_eq!(hosts("connectorRef: hosts"), ["h1:2022", "h2:2222", "h3:2022"]);
    assert_eq!(
        hosts("connectorRef: hosts, hostFilter: {type: HostNames, spec: {value: 'h3, h1'}}"),
        ["h1:2022", "h3:2022"]
    );
    assert_eq!(
        hosts("connectorRef: hosts, hostFilter: {type: HostAttributes, spec: {value: {tier: db}}}"),
        ["h2:2222"]
    );
    assert_eq!(hosts("hosts: <+pipeline.variables.color>"), ["blue:2022"]);
    let inline = "infrastructureDefinitions: [{identifier: x, inputs: {type: Pdc, spec: {credentialsRef: key, connectorRef: hosts, hostFilter: {type: HostNames, spec: {value: [h9]}}}}}]";
    let found: Vec<String> =
        faults(&deployment_on(inline, &noop("a", ""), "")).iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|fault| fault.contains("no host `h9`; it has h1, h2:2222, h3")), "{found:?}");
}

#[test]
fn inputs_fill_variables_and_missing_ones_refuse_the_run() {
    let head = "variables:
  - {name: tag, type: String, value: '<+input>.allowedValues(v1,v2)'}
  - {name: count, type: Number, value: <+input>, default: 3}
  - {name: free, type: String, value: '', required: true}
";
    let yaml = custom(
        head,
        &noop("a", "")
            .replace("{line: x}", "{line: '<+pipeline.variables.tag> <+pipeline.variables.count>'}"),
        "",
    );
    let found: Vec<String> = faults(&yaml).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("the input `tag` is missing: `pipeline.variables.tag` has no value (give it with `--input tag=VALUE`)"), "{found:?}");
    assert!(found[1].contains("the input `free` is missing"), "{found:?}");
    let with = |pairs: &[(&str, &str)]| PlanOptions {
        inputs: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..options()
    };
    let mut world = World::start_with(planned_with(&yaml, &with(&[("tag", "v2"), ("free", "x")])));
    let task = world.answer(success());
    let json = serde_json::to_value(&task.task.step).unwrap();
    assert_eq!(json["spec"]["line"], "v2 3");
    let error =
        |pairs: &[(&str, &str)]| plan("p.yaml", &yaml, &catalog(), &with(pairs)).unwrap_err()[0].to_string();
    assert!(error(&[("tag", "v3"), ("free", "x")]).contains("`v3` is not allowed; allowed are v1, v2"));
    assert!(error(&[("tag", "v1"), ("free", "x"), ("count", "many")]).contains("must be a number"));
    assert!(error(&[("tga", "v1"), ("tag", "v1"), ("free", "x")]).contains("did you mean `tag`?"));
    // Validation asks for no inputs, not even where one names an entity.
    let open = deployment(&noop("a", "timeout: <+pipeline.variables.color>"), "")
        .replace("environmentRef: prod", "environmentRef: <+pipeline.variables.color>")
        .replace("value: blue", "value: <+input>");
    let validation = validate("p.yaml", &open, Some(&catalog()), Mode::Lenient);
    assert!(validation.faults.is_empty(), "{:?}", validation.faults);
    let validation = validate("p.yaml", &yaml, Some(&catalog()), Mode::Lenient);
    assert!(validation.faults.is_empty(), "{:?}", validation.faults);
}

#[test]
fn an_input_file_has_the_shape_of_the_pipeline() {
    let yaml =
        deployment(&noop("a", "timeout: <+input>"), "").replace("serviceRef: web", "serviceRef: <+input>");
    assert_eq!(faults(&yaml).len(), 2, "{:?}", faults(&yaml));
    let file = "pipeline:
  identifier: p
  variables: [{name: color, type: String, value: red}]
  stages:
    - stage:
        identifier: s
        spec:
          service: {serviceRef: web}
          execution: {steps: [{step: {identifier: a, timeout: 7m}}]}
";
    let options = PlanOptions { inputs_file: Some(("in.yaml".into(), file.into())), ..options() };
    let mut world = World::start_with(planned_with(&yaml, &options));
    let task = world.answer(success());
    assert_eq!(task.timeout_ms, 420_000);
    assert_eq!(task.task.env["color"].as_str(), "red");
}

#[test]
fn entities_are_found_by_id_canonical_id_and_unique_name_in_scope() {
    let text = "connector: {identifier: a-b, name: one, type: Prometheus, spec: {url: u}}
---
connector: {identifier: other, name: twin, type: Prometheus, spec: {url: u}}
---
connector: {identifier: third, name: twin, orgIdentifier: o, projectIdentifier: p, type: Prometheus, spec: {url: u}}
---
connector: {identifier: far, name: far, orgIdentifier: o, projectIdentifier: q, type: Prometheus, spec: {url: u}}
---
connector: {identifier: wide, name: wide, orgIdentifier: o, type: Prometheus, spec: {url: u}}
";
    let entities = parse_entities("e.yaml", text).unwrap();
    assert_eq!(entities[2].scope, "o/p");
    let catalog = pipeline::entities::Snapshot {
        entities: entities.into_iter().map(Into::into).collect(),
        secrets: vec![],
    };
    let id = |reference: &str| find(&catalog, EntityKind::Connector, reference, "o/p").map(|e| e.id.clone());
    assert_eq!(id("a-b").unwrap(), "a-b");
    assert_eq!(id("a_b").unwrap(), "a-b");
    assert_eq!(id("one").unwrap(), "a-b");
    assert_eq!(id("twin").unwrap(), "third", "the own scope hides the wider one");
    assert_eq!(id("account.other").unwrap(), "other");
    assert_eq!(id("org.wide").unwrap(), "wide");
    assert_eq!(id("far"), Err(LookupError::NotFound { near: vec![] }), "never fuzzy about scope");
    assert!(matches!(id("a-c"), Err(LookupError::NotFound { near }) if near == ["a-b"]));
    let near = find(&catalog, EntityKind::Connector, "twin", "").map(|e| e.id.clone());
    assert_eq!(near.unwrap(), "other");
}

#[test]
fn entities_with_faults_are_refused_with_places() {
    let found = parse_entities(
        "e.yaml",
        "connector:\n  name: x\n  type: Gcp\n  spec: {}\n---\nconector: {name: y}\n",
    )
    .unwrap_err();
    assert_eq!((found[0].line, found[0].column), (3, 9), "{found:?}");
    assert!(found[0].message.contains("`Gcp` is not supported"));
    assert_eq!(found[1].line, 6);
    assert_eq!(found[1].suggestion.as_deref(), Some("did you mean `connector`?"));
    let clear = "secret: {name: x, type: SecretText, spec: {valueType: Inline, value: hunter2}}";
    let found = parse_entities("e.yaml", clear).unwrap_err();
    assert!(found[0].message.contains("a value in clear is refused"));
    assert!(!found[0].to_string().contains("hunter2"));
}

#[test]
fn an_entity_keeps_its_own_text() {
    let entities = parse_entities("e.yaml", ENTITIES).unwrap();
    for entity in &entities {
        let again = parse_entities("x", &entity.yaml).unwrap();
        assert_eq!(again.len(), 1, "{}", entity.yaml);
        assert_eq!((again[0].kind, &again[0].id), (entity.kind, &entity.id));
    }
}

// --- rules ---

#[test]
fn r1_names_stand_in_for_identifiers() {
    let yaml = custom("", &noop("a-1.b", "").replace("    identifier: a-1.b\n", ""), "");
    let plan = planned(&yaml);
    assert!(codes(&plan).contains(&"R1.identifier-from-name"), "{:?}", codes(&plan));
    assert!(planned(&custom("", &noop("a-1.b", ""), "")).notices.iter().any(|n| n.code == "R1.identifier"));
}

#[test]
fn r2_types_have_aliases() {
    let inline = "infrastructureDefinitions: [{identifier: x, inputs: {type: SshWinRmAzure, spec: {hostname: h7, credentialsRef: key}}}]";
    let plan = planned(&deployment_on(inline, &noop("a", ""), ""));
    assert!(codes(&plan).contains(&"R2.type-alias"));
    let azure = inline.replace("hostname: h7", "subscriptionId: s, hostname: h7");
    assert!(only(&deployment_on(&azure, &noop("a", ""), "")).contains("supported are Pdc"));
}

#[test]
fn r3_inline_is_laid_over_the_entity() {
    let yaml = deployment(&script("a", "x", ""), "").replace(
        "service: {serviceRef: web}",
        "service: {serviceRef: web, serviceDefinition: {type: Ssh, spec: {variables: [{name: LEVEL, value: debug}, {name: MORE, value: 1}]}}}",
    );
    let mut world = World::start(&yaml);
    let task = world.answer(success());
    assert_eq!((task.task.env["LEVEL"].as_str(), task.task.env["MORE"].as_str()), ("debug", "1"));
    assert!(task.task.env.contains_key("TOKEN"));
    assert!(codes(&world.state.plan).contains(&"R3.overlay"));
}

#[test]
fn r4_infrastructure_selectors_are_noticed() {
    assert!(codes(&planned(&deployment(&noop("a", ""), ""))).contains(&"R4.infrastructure-selectors"));
}

#[test]
fn r6_and_r7_and_r8() {
    let wrapped =
        script("a", "x", "").replace("- {identifier: u, name: u,", "- commandUnit: {identifier: u,");
    let plan = planned(&deployment(&wrapped, ""));
    assert!(
        codes(&plan).contains(&"R6.unit-name") && codes(&plan).contains(&"R7.implicit-hosts"),
        "{:?}",
        codes(&plan)
    );
    let explicit = script("a", "x", "").replace("onDelegate: false", "onDelegate: false\n      host: h1");
    assert!(!codes(&planned(&deployment(&explicit, ""))).contains(&"R7.implicit-hosts"));
    let fault = only(&custom("", &script("a", "x", ""), ""));
    assert!(fault.contains("its stage has no infrastructure"), "{fault}");
}

#[test]
fn r11_inherits_from_the_verify_before_it() {
    let first = "- step:
    identifier: v1
    name: v1
    type: Verify
    spec:
      type: Prometheus
      spec: {connectorRef: prom, metricName: m, query: up, threshold: {type: Absolute, spec: {value: 1}}}
      duration: 5m
";
    let second = "- step: {identifier: v2, name: v2, type: Verify, timeout: 5m, spec: {duration: 10m}}\n";
    let mut world = World::start(&deployment(&format!("{first}{second}"), ""));
    world.answer(success());
    let task = world.answer(success());
    let json = serde_json::to_value(&task.task.step).unwrap();
    assert_eq!(
        (json["spec"]["query"].as_str(), json["spec"]["durationMs"].as_u64()),
        (Some("up"), Some(600_000))
    );
    assert_eq!(task.timeout_ms, 720_000, "R18: the window and two minutes");
    let codes = codes(&world.state.plan);
    for code in ["R10.inline-verify", "R11.inherit", "R11.flat-duration", "R18.verify-timeout"] {
        assert!(codes.contains(&code), "{code} {codes:?}");
    }
}

#[test]
fn a_verify_without_a_source_is_skipped_with_a_notice() {
    let step = "- step: {identifier: v, name: v, type: Verify, spec: {type: Canary, spec: {sensitivity: MEDIUM, duration: 5m}}}\n";
    let world = World::start(&deployment(step, ""));
    assert_eq!(world.step("v"), "Skipped");
    assert!(codes(&world.state.plan).contains(&"verify.no-health-source"));
}

#[test]
fn r16_defaults_depend_on_rollback_steps() {
    let with = planned(&deployment(&noop("a", ""), &noop("undo", "")));
    assert!(
        with.notices.iter().any(|n| n.code == "R16.default-strategy" && n.assumed.contains("StageRollback"))
    );
    let without = planned(&deployment(&noop("a", ""), ""));
    assert!(
        without
            .notices
            .iter()
            .any(|n| n.code == "R16.default-strategy" && n.assumed.contains("MarkAsFailure"))
    );
}

#[test]
fn r17_null_specs_are_empty() {
    let plan = planned(&custom("", &noop("a", "").replace("spec: {line: x}", "spec:"), ""));
    assert!(codes(&plan).contains(&"R17.null-spec"));
}

#[test]
fn strict_mode_refuses_what_lenient_assumes() {
    let options = PlanOptions { mode: Mode::Strict, ..options() };
    let faults = plan("p.yaml", &deployment(&script("a", "x", ""), ""), &catalog(), &options).unwrap_err();
    assert!(
        faults.iter().any(|fault| fault.message.starts_with("R7.implicit-hosts: strict mode")),
        "{faults:?}"
    );
}

#[test]
fn strategies_are_checked_where_they_stand() {
    let with = |text: &str| custom("", &noop("a", text), "");
    let on = |errors: &str, action: &str| {
        format!("failureStrategies: [{{onFailure: {{errors: [{errors}], action: {action}}}}}]")
    };
    assert!(only(&with(&on("AllErrors, Timeout", "{type: Ignore}"))).contains("must stand alone"));
    assert!(only(&with(&on("Timout", "{type: Ignore}"))).contains("did you mean `Timeout`?"));
    assert!(
        only(&with(&on("AllErrors", "{type: StepGroupRollback}")))
            .contains("only allowed inside a step group")
    );
    assert!(
        only(&with(&on("AllErrors", "{type: RetryStepGroup}"))).contains("only allowed inside a step group")
    );
    let two = "failureStrategies: [{onFailure: {errors: [Timeout], action: {type: Ignore}}}, {onFailure: {errors: [Timeout], action: {type: Abort}}}]";
    assert!(only(&with(two)).contains("two different actions"));
    let rollback = custom("", &noop("a", ""), &noop("u", &on("AllErrors", "{type: StageRollback}")));
    assert!(only(&rollback).contains("cannot be rolled back"));
}

#[test]
fn r15_old_spellings_are_noticed() {
    let plan =
        planned(&deployment(&script("a", "echo <+currentDate.year> <+serviceConfig.variables>", ""), ""));
    let found: Vec<&str> =
        plan.notices.iter().filter(|n| n.code == "R15.expression").map(|n| n.assumed.as_str()).collect();
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_forged_placeholder_is_refused() {
    let fault = only(&deployment(&script("a", "echo ${ngSecretManager.obtain(\"pem\", 99)}", ""), ""));
    assert!(fault.contains("imitates the placeholder"), "{fault}");
}

#[test]
fn a_fault_of_the_text_hides_no_other_one() {
    let steps = noop("a", "timeout: 1q")
        + &noop("b", "").replace("line: x", "line: <+execution.steps.c.output.x> <+pipeline.variables.colr>")
        + &noop("c", "")
        + "- step: {identifier: d, name: d, type: Nop, spec: {line: x}}\n"
        + &noop("e", "").replace("line: x", "line: <+execution.steps.d.output.x>")
        + "- step: {identifier: f, name: f, type: Wait, spec: {duration: 5x}}\n";
    let found = faults(&custom("variables: [{name: color, type: String, value: blue}]", &steps, ""));
    let told: Vec<&str> = found.iter().map(|fault| fault.message.as_str()).collect();
    for part in [
        "`1q` is not a duration",
        "runs later than `b`",
        "`<+pipeline.variables.colr>` leads nowhere",
        "`Nop` is not a known step type",
        "`5x` is not a duration",
    ] {
        assert!(told.iter().any(|message| message.contains(part)), "{part}: {told:#?}");
    }
    // What refers to the step that could not be read is right as it stands.
    assert_eq!(found.len(), 5, "{told:#?}");
}
