use super::*;
use crate::entities::{CatalogEntity, EntityKind, Snapshot, parse_entities};
use crate::fault::{Fault, Findings, Mode};
use crate::machine::State;
use crate::plan::ROOT;
use crate::planner::{PlanOptions, plan};
use crate::scope::NodeScope;
use crate::yaml::parse_documents;
use serde_json::{Value as Json, json};

const PIPELINE: &str = r#"
pipeline:
  name: payment-service-cd
  identifier: payment-service_cd
  orgIdentifier: default
  projectIdentifier: platform
  variables:
    - {name: imageTag, type: String, required: true, value: <+input>, default: latest}
    - {name: targetEnvironment, type: String, required: true, value: "<+input>.allowedValues(int-stable,prod)"}
    - {name: note, type: String, value: "<+input>.regex([a-z.]*).default(none)"}
  stages:
    - stage:
        identifier: s
        name: Deploy to <+pipeline.variables.targetEnvironment>
        type: Custom
        spec:
          execution:
            steps:
              - step: {identifier: n, name: n, type: Noop, spec: {line: "<+pipeline.variables.imageTag>"}}
  triggers:
    - trigger:
        name: App Image Built
        identifier: app_image_trigger
        enabled: true
        source:
          type: Webhook
          spec:
            type: Custom
            spec:
              payloadConditions:
                - {key: service_name, operator: Equals, value: "payment-service"}
                - {key: image_tag, operator: NotNull, value: ""}
        inputYaml: |
          pipeline:
            identifier: payment-service_cd
            variables:
              imageTag: <+trigger.payload.image_tag>
              targetEnvironment: <+trigger.payload.target_env>
"#;

fn the_trigger() -> Trigger {
    let documents = parse_documents("p.yaml", PIPELINE).unwrap();
    let mut findings = Findings::new(Mode::Lenient);
    let triggers = inline(documents[0].get("pipeline").unwrap(), &mut findings);
    assert_eq!(findings.faults, []);
    let codes: Vec<&str> = findings.notices.iter().map(|notice| notice.code.as_str()).collect();
    assert!(codes.contains(&"R14.inline-trigger") && codes.contains(&"R20.operator"), "{codes:?}");
    assert!(codes.contains(&"R21.payload-key"), "{codes:?}");
    triggers.into_iter().next().unwrap()
}

fn facts(payload: Json) -> TriggerFacts {
    TriggerFacts::webhook("app_image_trigger", "ev", payload, [("X-Team".to_owned(), "payments".to_owned())])
}

fn planned(payload: Json) -> Result<crate::Plan, Vec<Fault>> {
    let trigger = the_trigger();
    let options = PlanOptions {
        sequence_id: 1,
        started_by: "dev@corp.io".to_owned(),
        inputs_file: Some(("inputYaml".to_owned(), trigger.input_yaml.unwrap())),
        trigger: Some(facts(payload)),
        ..PlanOptions::default()
    };
    plan("p.yaml", PIPELINE, &Snapshot::default(), &options)
}

fn shown(plan: &crate::Plan, text: &str) -> String {
    let scope = NodeScope::planning(plan, ROOT);
    let context = crate::planner::context(plan, &scope);
    expr::render(text, &context, expr::Mode::Null).unwrap()
}

#[test]
fn the_seeds_trigger_fires_on_its_own_event_only() {
    let trigger = the_trigger();
    assert_eq!(
        (trigger.pipeline.as_str(), trigger.scope.as_str()),
        ("payment-service_cd", "default/platform")
    );
    let good = json!({"service_name": "payment-service", "image_tag": "v2.3.1", "target_env": "prod"});
    assert_eq!(judge(&trigger, &facts(good), 0), Ok(()));
    for (payload, part) in [
        (json!({"service_name": "payment-service"}), "`image_tag` NotNull does not hold: found nothing"),
        (json!({"service_name": "payment-service", "image_tag": null}), "found nothing"),
        (json!({"service_name": "other", "image_tag": "v1"}), "found `other`"),
        (json!("text"), "found nothing"),
        (json!([1, 2]), "found nothing"),
    ] {
        let (verdict, why) = judge(&trigger, &facts(payload.clone()), 0).unwrap_err();
        assert_eq!(verdict, Verdict::NoMatchingTriggerForPayloadConditions, "{payload}");
        assert!(why.contains(part), "{why}");
    }
    let disabled = Trigger { enabled: false, ..trigger };
    let (verdict, _) = judge(&disabled, &facts(json!({})), 0).unwrap_err();
    assert_eq!(verdict, Verdict::NoEnabledCustomTriggerFound);
}

fn trigger_of(spec: &str) -> Result<Trigger, Vec<Fault>> {
    let text = format!(
        "trigger:\n  identifier: t\n  name: t\n  pipelineIdentifier: p\n  source:\n    type: Webhook\n    spec:\n      type: Custom\n      spec: {spec}\n"
    );
    parse("t.yaml", &text)
}

#[test]
fn headers_and_jexl_are_conditions_too() {
    for (spec, verdict) in [
        ("{headerConditions: [{key: X-TEAM, operator: Equals, value: payments}]}", None),
        (
            "{headerConditions: [{key: \"<+trigger.header['X-Team']>\", operator: Equals, value: payments}]}",
            None,
        ),
        (
            "{headerConditions: [{key: x-team, operator: Equals, value: web}]}",
            Some(Verdict::NoMatchingTriggerForHeaderConditions),
        ),
        ("{jexlCondition: '<+trigger.payload.n> > 2 && <+eventPayload.a.b> == \"x\"'}", None),
        ("{jexlCondition: '<+trigger.payload.n> > 5'}", Some(Verdict::NoMatchingTriggerForJexlConditions)),
        // Neither true nor false refuses.
        ("{jexlCondition: '<+trigger.payload.n>'}", Some(Verdict::NoMatchingTriggerForJexlConditions)),
        // A body cannot name a secret: it is never resolved.
        (
            "{jexlCondition: '<+trigger.payload.evil> == \"x\"'}",
            Some(Verdict::NoMatchingTriggerForJexlConditions),
        ),
        ("{payloadConditions: [{key: a.b, operator: In, value: 'x,y'}]}", None),
        ("{payloadConditions: [{key: x-y, operator: Equals, value: dash}]}", None),
        ("{payloadConditions: [{key: list.1, operator: Equals, value: two}]}", None),
        ("{payloadConditions: [{key: '<+trigger.payload[\"x-y\"]>', operator: Equals, value: dash}]}", None),
    ] {
        let trigger = trigger_of(spec).unwrap_or_else(|faults| panic!("{spec}: {faults:?}"));
        let payload = json!({
            "n": 3, "a": {"b": "x"}, "x-y": "dash", "list": ["one", "two"],
            "evil": "<+secrets.getValue(\"k\")>",
        });
        let judged = judge(&trigger, &facts(payload), 0);
        assert_eq!(judged.clone().err().map(|(verdict, _)| verdict), verdict, "{spec}: {judged:?}");
    }
}

#[test]
fn faults_of_a_trigger_name_place_and_nearest_name() {
    for (spec, part) in [
        ("{payloadConditions: [{key: a, operator: Equal, value: x}]}", "did you mean `Equals`?"),
        ("{payloadCondition: []}", "did you mean `payloadConditions`?"),
        ("{payloadConditions: [{key: a, operator: Regex, value: '('}]}", "not a regular expression"),
        ("{payloadConditions: [{operator: Equals}]}", "`key` is missing"),
    ] {
        let faults = trigger_of(spec).unwrap_err();
        let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(
            text.iter().any(|text| text.contains(part) && text.contains("t.yaml:9:")),
            "{spec}: {text:?}"
        );
    }
    for (text, part) in [
        (
            "trigger: {identifier: t, source: {type: Webhook, spec: {type: Custom}}}",
            "`pipelineIdentifier` is missing",
        ),
        ("trigger: {identifier: t, pipelineIdentifier: p}", "`source` is missing"),
        (
            "trigger: {identifier: t, pipelineIdentifier: p, source: {type: Webhook, spec: {type: Github}}}",
            "`Github` are not supported yet",
        ),
        (
            "trigger: {identifier: t, pipelineIdentifier: p, source: {type: Artifact, spec: {type: Ecr}}}",
            "`Artifact` are not supported yet",
        ),
        (
            "trigger: {identifier: t, pipelineIdentifier: p, source: {type: Scheduled, spec: {type: Cron, spec: {expression: '61 * * * *'}}}}",
            "`61` is not a minute",
        ),
        (
            "trigger: {identifier: t, pipelineIdentifier: p, enable: false, source: {type: Webhook, spec: {type: Custom}}}",
            "did you mean `enabled`?",
        ),
        (
            "trigger: {identifier: t, pipelineIdentifier: p, stagesToExecute: [a], source: {type: Webhook, spec: {type: Custom}}}",
            "running some stages",
        ),
        (
            "trigger: {identifier: t, pipelineIdentifier: p, inputYaml: 'pipeline: {identifier: q}', source: {type: Webhook, spec: {type: Custom}}}",
            "about the pipeline `q`",
        ),
        (
            "trigger: {identifier: t, pipelineIdentifier: p, inputYaml: 'x: y', source: {type: Webhook, spec: {type: Custom}}}",
            "root key `pipeline`",
        ),
    ] {
        let faults = parse("t.yaml", text).unwrap_err();
        assert!(faults.iter().any(|fault| fault.to_string().contains(part)), "{text}: {faults:?}");
    }
}

#[test]
fn the_event_fills_the_inputs() {
    let plan = planned(json!({"image_tag": "v2.3.1", "target_env": "prod"})).unwrap();
    assert_eq!(shown(&plan, "<+pipeline.variables.imageTag>"), "v2.3.1");
    assert_eq!(shown(&plan, "<+pipeline.stages.s.name>"), "Deploy to prod");
    assert_eq!(
        shown(&plan, "<+trigger.payload.image_tag> <+eventPayload.target_env> <+trigger.type>"),
        "v2.3.1 prod Custom"
    );
    assert_eq!(
        shown(&plan, "<+pipeline.triggerType> <+pipeline.triggeredBy.name> <+pipeline.triggeredBy.email>"),
        "WEBHOOK_CUSTOM app_image_trigger null"
    );
    assert!(plan.notices.iter().any(|notice| notice.code == "R22.variables-map"), "{:?}", plan.notices);
    // The event is part of the stored plan; plans without one stay readable.
    let mut stored = serde_json::to_value(State::new(plan.clone())).unwrap();
    let state: State = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(state.plan.run.trigger, plan.run.trigger);
    stored["plan"]["run"].as_object_mut().unwrap().remove("trigger");
    assert!(serde_json::from_value::<State>(stored).unwrap().plan.run.trigger.is_none());
}

#[test]
fn inputs_that_the_event_does_not_give_or_that_are_not_allowed_refuse_the_run() {
    let faults = planned(json!({"image_tag": "v1"})).unwrap_err();
    assert!(faults[0].to_string().contains("target_env"), "{faults:?}");
    assert_eq!(faults[0].source, "inputYaml");
    let faults = planned(json!({"image_tag": "v1", "target_env": "mars"})).unwrap_err();
    assert!(faults[0].message.contains("`mars` is not allowed; allowed are int-stable, prod"), "{faults:?}");
    let faults = planned(json!({"image_tag": "v1", "target_env": "<+secrets.getValue('k')>"})).unwrap_err();
    assert!(faults[0].message.contains("is not allowed"), "{faults:?}");
}

#[test]
fn text_of_the_event_is_never_resolved() {
    let evil = "<+secrets.getValue(\"k\")> <+pipeline.name>";
    let plan = planned(json!({"image_tag": evil, "target_env": "prod"})).unwrap();
    assert_eq!(shown(&plan, "<+pipeline.variables.imageTag>"), evil);
    assert_eq!(shown(&plan, "x<+pipeline.variables.imageTag>"), format!("x{evil}"));
    let plan = planned(json!({"image_tag": "<", "target_env": "prod"})).unwrap();
    assert_eq!(shown(&plan, "<+pipeline.variables.imageTag>+pipeline.name>"), "<+pipeline.name>");
}

fn catalog(texts: &[&str]) -> Snapshot {
    let entities = texts.iter().flat_map(|text| parse_entities("sets.yaml", text).unwrap());
    Snapshot { entities: entities.map(CatalogEntity::from).collect(), secrets: vec![] }
}

const SETS: &str = r#"
inputSet:
  identifier: base
  name: base
  orgIdentifier: default
  projectIdentifier: platform
  pipeline:
    identifier: payment-service_cd
    variables:
      - {name: imageTag, type: String, value: v1}
      - {name: targetEnvironment, type: String, value: int-stable}
---
inputSet:
  identifier: prod
  name: prod
  orgIdentifier: default
  projectIdentifier: platform
  pipeline:
    identifier: payment-service_cd
    variables: {targetEnvironment: prod}
---
overlayInputSet:
  identifier: both
  name: both
  orgIdentifier: default
  projectIdentifier: platform
  pipelineIdentifier: payment-service_cd
  inputSetReferences: [base, prod]
"#;

#[test]
fn input_sets_are_laid_over_in_order_and_explicit_inputs_last() {
    let catalog = catalog(&[PIPELINE, SETS]);
    let pipeline = catalog.entities.iter().find(|entity| entity.kind == EntityKind::Pipeline).unwrap();
    let run = |names: &[&str], inputs: &[(&str, &str)]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let options = PlanOptions {
            input_sets: crate::input_sets::resolve(&catalog, pipeline, &names).unwrap(),
            inputs: inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            sequence_id: 1,
            ..PlanOptions::default()
        };
        let plan = plan("p.yaml", PIPELINE, &catalog, &options).unwrap();
        shown(&plan, "<+pipeline.variables.imageTag> <+pipeline.variables.targetEnvironment>")
    };
    assert_eq!(run(&["base"], &[]), "v1 int-stable");
    assert_eq!(run(&["base", "prod"], &[]), "v1 prod");
    assert_eq!(run(&["prod", "base"], &[]), "v1 int-stable");
    assert_eq!(run(&["both"], &[]), "v1 prod");
    assert_eq!(run(&["both"], &[("imageTag", "v9")]), "v9 prod");
}

#[test]
fn an_input_set_that_is_not_there_is_named_with_the_nearest_one() {
    let catalog = catalog(&[PIPELINE, SETS]);
    let pipeline = catalog.entities.iter().find(|entity| entity.kind == EntityKind::Pipeline).unwrap();
    let faults = crate::input_sets::resolve(&catalog, pipeline, &["bas".to_owned()]).unwrap_err();
    assert!(
        faults[0].to_string().contains("the inputSet `bas` does not exist (did you mean `base`?)"),
        "{faults:?}"
    );
    let ring = "overlayInputSet: {identifier: a, name: a, pipelineIdentifier: p, inputSetReferences: [b]}\n---\n\
                overlayInputSet: {identifier: b, name: b, pipelineIdentifier: p, inputSetReferences: [a]}\n";
    let catalog = self::catalog(&[ring]);
    let pipeline = CatalogEntity {
        kind: EntityKind::Pipeline,
        id: "p".into(),
        name: "p".into(),
        scope: String::new(),
        yaml: String::new(),
    };
    let faults = crate::input_sets::resolve(&catalog, &pipeline, &["a".to_owned()]).unwrap_err();
    assert!(faults[0].message.contains("name each other"), "{faults:?}");
}
