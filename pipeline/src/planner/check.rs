//! What expressions name, looked at before the run: what can never be resolved refuses it.

use super::hosts::need_secret;
use super::target::Lookups;
use crate::fault::{Fault, Findings};
use crate::model::step::{Spec, Unit, UnitKind};
use crate::model::{Field, as_text};
use crate::plan::{NodeKind, Plan, ROOT};
use crate::rules;
use crate::scope::NodeScope;
use expr::{Lookup, Scope, Segment, Target};
use serde_json::Value as Json;

/// First names whose values exist only while a run is under way.
const AT_RUN_TIME: [&str; 14] = [
    "httpResponseCode",
    "httpResponseBody",
    "httpMethod",
    "httpUrl",
    "kubernetes",
    "targetGroupArn",
    "artifact",
    "artifacts",
    "instance",
    "approval",
    "trigger",
    "eventPayload",
    "currentTime",
    "currentDate",
];

/// Properties of nodes that exist only while a run is under way.
const RUN_PROPERTIES: [&str; 9] = [
    "output",
    "outcome",
    "status",
    "currentStatus",
    "liveStatus",
    "startTs",
    "endTs",
    "retryCount",
    "executionUrl",
];

/// Checks every expression of every step.
pub(super) fn references(plan: &Plan, lookups: &Lookups<'_>, running: bool, findings: &mut Findings) {
    for (index, node) in plan.nodes.iter().enumerate() {
        let mut fields: Vec<&Field> = vec![&node.name];
        fields.extend(node.when.as_ref().and_then(|when| when.condition.as_ref()));
        fields.extend(&node.selectors);
        if let Some(looping) = &node.looping {
            fields.extend(looping.fields());
            fields.extend(looping.node_name());
        }
        let mut made: Vec<Field> = Vec::new();
        match &node.kind {
            NodeKind::Step { spec, .. } => step_fields(spec, &node.name, &mut fields, &mut made),
            NodeKind::Stage(stage) => {
                fields.extend(stage.variables.iter().map(|variable| &variable.value));
                if let Some(target) = &stage.target {
                    fields.extend(target.service.definition.variables.iter().map(|v| &v.value));
                    fields.extend(target.environment.variables.iter().map(|v| &v.value));
                    let infrastructure = &target.infrastructure;
                    fields.extend(&infrastructure.selectors);
                    let place = [&infrastructure.namespace, &infrastructure.release_name];
                    fields.extend(place.into_iter().flatten());
                    fields.extend(target.service.definition.ecs.iter().flat_map(|ecs| ecs.fields()));
                    for manifest in &target.service.definition.manifests {
                        fields.extend(manifest.fields());
                    }
                }
            }
            NodeKind::Pipeline => fields.extend(plan.variables.iter().map(|variable| &variable.value)),
            NodeKind::Group => fields.extend(node.variables.iter().map(|variable| &variable.value)),
            NodeKind::Artifact | NodeKind::Parallel => {}
        }
        for field in fields.into_iter().chain(&made) {
            check_field(plan, index, field, lookups, running, findings);
        }
        if let Some(field) = &node.selectors
            && !matches!(field.value, Json::Array(_))
            && !field.text().contains("<+")
        {
            findings.fault(&field.at, &field.path, "`delegateSelectors` must be a list");
        }
    }
    secret_variables(plan, lookups, findings);
}

fn secret_variables(plan: &Plan, lookups: &Lookups<'_>, findings: &mut Findings) {
    let scope = plan.run.scope();
    let stages = plan.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Stage(stage) => Some(stage),
        _ => None,
    });
    let lists = stages.flat_map(|stage| {
        let target = stage.target.iter().flat_map(|target| {
            target.service.definition.variables.iter().chain(&target.environment.variables)
        });
        stage.variables.iter().chain(target)
    });
    let groups = plan.nodes.iter().flat_map(|node| &node.variables);
    for variable in plan.variables.iter().chain(lists).chain(groups) {
        let text = variable.value.text();
        if variable.kind == crate::model::VariableKind::Secret && !text.is_empty() && !text.contains("<+") {
            need_secret(&text, &variable.value, lookups, &scope, findings);
        }
    }
}

fn step_fields<'a>(spec: &'a Spec, name: &Field, fields: &mut Vec<&'a Field>, made: &mut Vec<Field>) {
    match spec {
        Spec::Command { host, units, env, .. } => {
            fields.extend(host);
            fields.extend(env.iter().map(|(_, value)| value));
            units.iter().for_each(|unit| unit_fields(unit, fields));
        }
        Spec::ShellScript { host, credential, script, working_directory, env, .. } => {
            fields.push(script);
            fields.extend([host, credential, working_directory].into_iter().flatten());
            fields.extend(env.iter().map(|(_, value)| value));
        }
        Spec::Http { url, method, headers, body, assertion, outputs, request_timeout } => {
            fields.extend([url, method]);
            for (key, value) in headers {
                fields.extend([key, value]);
            }
            fields.extend(body);
            fields.extend(assertion);
            fields.extend(request_timeout);
            made.extend(
                outputs.iter().map(|output| Field::made(output.value.clone(), name.path.clone(), &name.at)),
            );
        }
        Spec::Kubernetes(step) => fields.extend(step.fields()),
        Spec::Ecs(step) => fields.extend(step.fields()),
        Spec::Verify(verify) => {
            fields.extend(&verify.metric_name);
            fields.extend(&verify.query);
            fields.extend(verify.threshold.as_ref().map(|(_, value)| value));
            fields.extend(&verify.duration);
            fields.extend(verify.labels.iter().map(|(_, value)| value));
            if let Some(own) = &verify.cloud_watch {
                fields.extend(
                    [&own.namespace, &own.dimensions, &own.statistic, &own.region].into_iter().flatten(),
                );
                fields.extend([&own.log_group, &own.log_stream_prefix].into_iter().flatten());
            }
            if let Some(canary) = &verify.canary {
                fields.extend(&canary.sensitivity);
                for metric in &canary.metrics {
                    fields.extend([&metric.name, &metric.query]);
                    fields.extend(&metric.node_label);
                    fields.extend(&metric.fail_fast);
                }
            }
        }
        Spec::Policy { sets, payload } => fields.extend([sets, payload]),
        Spec::Approval(approval) => {
            fields.extend([&approval.message, &approval.groups]);
            let more = [&approval.minimum, &approval.disallow_executor, &approval.disallowed_emails];
            fields.extend(more.into_iter().flatten());
            fields.extend([&approval.callback_id, &approval.auto_reject].into_iter().flatten());
            fields.extend(approval.inputs.iter().filter_map(|input| input.default.as_ref()));
            if let Some(auto) = &approval.auto {
                fields.extend([&auto.time, &auto.time_zone]);
                fields.extend(&auto.comments);
            }
        }
        Spec::Wait { duration } => fields.push(duration),
        Spec::Barrier { barrier } => fields.push(barrier),
        Spec::Noop { line } => fields.push(line),
    }
}

fn unit_fields<'a>(unit: &'a Unit, fields: &mut Vec<&'a Field>) {
    match &unit.kind {
        UnitKind::Script { script, working_directory, .. } => {
            fields.push(script);
            fields.extend(working_directory);
        }
        UnitKind::Copy { destination, .. } => fields.push(destination),
        UnitKind::Download { destination, source } => {
            fields.push(destination);
            if let Some(source) = source {
                fields.extend([&source.connector, &source.repository, &source.path]);
            }
        }
    }
}

fn check_field(
    plan: &Plan,
    node: usize,
    field: &Field,
    lookups: &Lookups<'_>,
    running: bool,
    findings: &mut Findings,
) {
    if super::inputs::is_open(field) {
        return;
    }
    let mut texts = Vec::new();
    leaves(&field.value, &mut texts);
    for text in texts {
        if crate::model::input_rules::is_execution_input(&text) {
            continue;
        }
        if text.contains(expr::PLACEHOLDER_HEAD) {
            let message = "the text imitates the placeholder of a secret";
            let hint = "write `<+secrets.getValue(\"name\")>`".to_owned();
            findings.push(Fault::at(&field.at, &field.path, message).suggest(Some(hint)));
            continue;
        }
        let references = match expr::references(&text) {
            Ok(references) => references,
            Err(error) => {
                findings.fault(&field.at, &field.path, error.to_string());
                continue;
            }
        };
        for reference in references {
            if let Target::Path(path) = &reference.target {
                let names: Vec<&str> = path.iter().filter_map(Segment::name).collect();
                rules::r15_expression(&names, &expr::path_text(path), field, findings);
            }
            match &reference.target {
                Target::Secret(name) if !reference.dynamic => {
                    need_secret(name, field, lookups, &plan.run.scope(), findings);
                }
                Target::Path(path) if !reference.optional => {
                    let is_input = path.first().and_then(Segment::name) == Some("input");
                    if let Some(other) = named_run(plan, node, path)
                        && super::order::is_later(plan, node, other)
                    {
                        let written = expr::path_text(path);
                        if let Some(fault) = super::order::later(plan, node, other, &written, field) {
                            findings.push(fault);
                        }
                        continue;
                    }
                    if is_input && !running || can_resolve(plan, node, path, reference.dynamic, lookups) {
                        continue;
                    }
                    if path.iter().filter_map(Segment::name).any(|name| lookups.unread.contains(name)) {
                        continue;
                    }
                    let written = expr::path_text(path);
                    let known = known_paths(plan, node);
                    let near = expr::nearest(&written, known.iter().map(String::as_str));
                    let suggestion =
                        (!near.is_empty()).then(|| format!("did you mean `{}`?", near.join("` or `")));
                    let message = format!("`<+{written}>` leads nowhere");
                    findings.push(Fault::at(&field.at, &field.path, message).suggest(suggestion));
                }
                Target::Secret(_) | Target::Path(_) | Target::Functor(..) => {}
            }
        }
    }
}

/// Every text of a value, those inside of lists and maps included.
fn leaves(value: &Json, texts: &mut Vec<String>) {
    match value {
        Json::Array(list) => list.iter().for_each(|item| leaves(item, texts)),
        Json::Object(map) => map.values().for_each(|item| leaves(item, texts)),
        single => texts.extend(as_text(single).as_str().map(str::to_owned)),
    }
}

/// Whether a path is known now or may come to be during the run.
fn can_resolve(plan: &Plan, node: usize, path: &[Segment], dynamic: bool, lookups: &Lookups<'_>) -> bool {
    let Some(first) = path.first().and_then(Segment::name) else { return true };
    if dynamic || AT_RUN_TIME.contains(&first) {
        return true;
    }
    if ["repeat", "strategy", "matrix"].contains(&first) {
        return super::order::in_loop(plan, node, first, path.get(1).and_then(Segment::name));
    }
    if let Some(second) = path.get(1).and_then(Segment::name)
        && ["repeat", "strategy", "matrix"].contains(&second)
        && first != "pipeline"
    {
        return super::order::in_loop(plan, node, second, path.get(2).and_then(Segment::name));
    }
    // Who started a run, and whether by mail address, differs from run to run; nobody is null.
    if first == "pipeline" && path.get(1).and_then(Segment::name) == Some("triggeredBy") {
        return matches!(path.get(2).and_then(Segment::name), Some("name" | "email" | "triggerIdentifier"));
    }
    let scope = NodeScope::planning(plan, node);
    if let Lookup::Found { .. } = scope.lookup(path) {
        return true;
    }
    // Nothing is known of services, environments and infrastructures without a catalogue, or while inputs are open.
    let from_entities = [
        "service",
        "serviceVariables",
        "serviceConfig",
        "serviceDefinition",
        "env",
        "infra",
        "infrastructure",
    ];
    let unknown = lookups.catalog.is_none() || plan.target_of(node).is_none();
    let deploys = plan
        .stage_of(node)
        .is_none_or(|(_, stage)| stage.kind == crate::model::pipeline::StageKind::Deployment);
    if unknown && deploys && from_entities.contains(&first) {
        return true;
    }
    // A property of a node that exists: the path up to the property leads to it.
    path.iter().enumerate().skip(1).any(|(at, segment)| {
        let is_property = segment.name().is_some_and(|name| RUN_PROPERTIES.contains(&name));
        let mut head: Vec<Segment> = path.get(..at).unwrap_or_default().to_vec();
        head.push(Segment::from("identifier"));
        is_property && matches!(scope.lookup(&head), Lookup::Found { .. })
    })
}

/// The node whose outputs, status or times a path names.
fn named_run(plan: &Plan, node: usize, path: &[Segment]) -> Option<usize> {
    let (other, used) = NodeScope::planning(plan, node).named_node(path)?;
    let property = path.get(used).and_then(Segment::name)?;
    RUN_PROPERTIES.contains(&property).then_some(other)
}

/// Paths that a message may suggest at a node.
pub fn known_paths(plan: &Plan, node: usize) -> Vec<String> {
    let mut paths: Vec<String> = [
        "pipeline.name",
        "pipeline.identifier",
        "pipeline.sequenceId",
        "pipeline.executionId",
        "pipeline.startTs",
        "pipeline.triggeredBy.name",
        "pipeline.triggeredBy.email",
        "pipeline.triggerType",
        "stage.name",
        "stage.identifier",
        "account.identifier",
        "org.identifier",
        "project.identifier",
        "currentTime",
        "currentDate",
    ]
    .map(str::to_owned)
    .to_vec();
    paths.extend(plan.variables.iter().map(|variable| format!("pipeline.variables.{}", variable.name)));
    let mut outer = plan.node(node);
    while let Some(group) = outer {
        paths.extend(group.variables.iter().map(|v| format!("stepGroup.variables.{}", v.name)));
        outer = group.parent.and_then(|parent| plan.node(parent));
    }
    if let Some((_, stage)) = plan.stage_of(node) {
        paths.extend(stage.variables.iter().map(|variable| format!("stage.variables.{}", variable.name)));
        if let Some(target) = &stage.target {
            let fixed = [
                "service.name",
                "service.identifier",
                "service.type",
                "env.name",
                "env.identifier",
                "env.type",
                "infra.name",
                "infra.infraIdentifier",
                "infra.connectorRef",
                "infra.cluster",
                "infra.region",
                "stage.output.hosts",
                "artifact.tag",
                "artifact.image",
                "artifact.imagePath",
                "artifact.digest",
                "INFRA_KEY",
            ];
            paths.extend(fixed.map(str::to_owned));
            let variables = &target.service.definition.variables;
            paths.extend(variables.iter().map(|variable| format!("serviceVariables.{}", variable.name)));
            paths.extend(target.environment.variables.iter().map(|v| format!("env.variables.{}", v.name)));
        }
        let stage = plan.stage_of(node).map_or(ROOT, |(index, _)| index);
        for (index, step) in plan.nodes.iter().enumerate() {
            let in_stage = plan.stage_of(index).is_some_and(|(at, _)| at == stage);
            if in_stage && matches!(step.kind, NodeKind::Step { .. }) && !step.in_rollback {
                paths.push(format!("execution.steps.{}.output", step.identifier));
                if let NodeKind::Step { spec, .. } = &step.kind {
                    let (Spec::Command { outputs, .. }
                    | Spec::ShellScript { outputs, .. }
                    | Spec::Http { outputs, .. }) = &**spec
                    else {
                        continue;
                    };
                    let prefix = format!("execution.steps.{}.output.outputVariables", step.identifier);
                    paths.extend(outputs.iter().map(|output| format!("{prefix}.{}", output.name)));
                }
            }
        }
    }
    paths
}
