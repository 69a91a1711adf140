//! The typed documents of steps.

use super::build::{Builder, bad_field};
use crate::model::Field;
use crate::model::step::{CanaryVerify, CloudWatchVerify, Spec, ThresholdKind, Unit, UnitKind, Verify};
use expr::Target;
use proto::failure::{Failure, FailureKind};
use proto::task::{
    AwsAccount, CanaryAnalysis, CanaryMetric, CloudWatchScope, CommandSpec, CommandUnit, Comparison,
    DownloadSource, HttpSpec, LogScope, MetricProvider, NoopSpec, OutputVariable, Sensitivity,
    ShellScriptSpec, StepSpec, Threshold, VerifySpec,
};
use proto::text::Text;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Resolves the fields of a step.
pub(super) fn build(
    builder: &mut Builder<'_>,
    spec: &Spec,
    timeout_ms: u64,
) -> Result<StepSpec, Box<Failure>> {
    match spec {
        Spec::Command { host, units, env, outputs, .. } => {
            for (name, value) in env {
                let value = builder.lenient(value)?;
                builder.step_env.insert(name.clone(), value);
            }
            let target = Some(builder.ssh_target(host.as_ref())?);
            let units = units.iter().map(|unit| command_unit(builder, unit)).collect::<Result<_, _>>()?;
            Ok(StepSpec::Command(CommandSpec { target, units, output_variables: outputs.clone() }))
        }
        Spec::ShellScript { host, credential, shell, script, working_directory, env, outputs } => {
            for (name, value) in env {
                let value = Text(builder.strict(value)?);
                builder.step_env.insert(name.clone(), value);
            }
            let working_directory = builder.optional(working_directory.as_ref())?.map(Text);
            let script = builder.lenient(script)?;
            let output_variables = outputs.clone();
            let Some(host) = host else {
                return Ok(StepSpec::ShellScript(ShellScriptSpec {
                    shell: *shell,
                    script,
                    working_directory,
                    output_variables,
                }));
            };
            // On a host it is a Command step with one Script unit: executors never see each other.
            let target = Some(builder.explicit_target(host, credential.as_ref())?);
            let kind = proto::task::UnitKind::Script { shell: *shell, script, working_directory };
            let unit = CommandUnit { identifier: "Execute".to_owned(), name: "Execute".to_owned(), kind };
            Ok(StepSpec::Command(CommandSpec { target, units: vec![unit], output_variables }))
        }
        Spec::Http { url, method, headers, body, assertion, outputs, request_timeout } => {
            let headers = headers
                .iter()
                .map(|(key, value)| Ok((builder.strict(key)?, builder.keep(value)?)))
                .collect::<Result<Vec<(String, Text)>, Box<Failure>>>()?;
            let assertion = assertion.as_ref().map(Field::text);
            let context = response_context(builder, assertion.as_deref(), outputs);
            Ok(StepSpec::Http(HttpSpec {
                url: Text(builder.strict(url)?),
                method: builder.strict(method)?,
                headers,
                body: body.as_ref().map(|body| builder.keep(body)).transpose()?,
                assertion,
                output_variables: outputs.clone(),
                timeout_ms: request_timeout
                    .as_ref()
                    .map(|field| builder.duration(field))
                    .transpose()?
                    .or(Some(timeout_ms)),
                context,
                any_status: false,
            }))
        }
        Spec::Kubernetes(step) => {
            super::kubernetes::build(builder, step).map(|spec| StepSpec::Kubernetes(Box::new(spec)))
        }
        Spec::Ecs(step) => super::ecs::build(builder, step).map(|spec| StepSpec::Ecs(Box::new(spec))),
        Spec::Verify(verify) => build_verify(builder, verify).map(StepSpec::Verify),
        Spec::Noop { line } => Ok(StepSpec::Noop(NoopSpec { line: builder.lenient(line)?.0 })),
        Spec::Approval(approval) => Err(bad_field(&approval.message, "the step has no task")),
        Spec::Wait { duration: field }
        | Spec::Barrier { barrier: field }
        | Spec::Policy { payload: field, .. } => Err(bad_field(field, "the step has no task")),
    }
}

fn command_unit(builder: &mut Builder<'_>, unit: &Unit) -> Result<CommandUnit, Box<Failure>> {
    let kind = match &unit.kind {
        UnitKind::Script { shell, script, working_directory } => proto::task::UnitKind::Script {
            shell: *shell,
            script: builder.lenient(script)?,
            working_directory: builder.optional(working_directory.as_ref())?.map(Text),
        },
        UnitKind::Copy { source_type, destination } => proto::task::UnitKind::Copy {
            source_type: *source_type,
            destination_path: Text(builder.strict(destination)?),
        },
        UnitKind::Download { destination, source } => proto::task::UnitKind::DownloadArtifact {
            destination_path: Text(builder.strict(destination)?),
            source: match source {
                Some(source) => Some(DownloadSource {
                    connector: builder.artifactory(&source.connector)?,
                    repository: builder.strict(&source.repository)?,
                    path: builder.strict(&source.path)?,
                    sha256: None,
                }),
                None => None,
            },
        },
    };
    Ok(CommandUnit { identifier: unit.identifier.clone(), name: unit.name.clone(), kind })
}

/// What an assertion names beside the answer, by the paths as written. The agent has no other scope.
fn response_context(builder: &Builder<'_>, assertion: Option<&str>, outputs: &[OutputVariable]) -> Json {
    let mut root = Json::Object(serde_json::Map::new());
    let texts = assertion.into_iter().chain(outputs.iter().map(|output| output.value.as_str()));
    for reference in texts.flat_map(|text| expr::references(text).unwrap_or_default()) {
        let Target::Path(path) = &reference.target else { continue };
        if path.first().and_then(expr::Segment::name).is_some_and(|name| name.starts_with("httpResponse")) {
            continue;
        }
        // Something unresolved is left out: the assertion then says so itself, in its own words.
        let Ok(value) = expr::evaluate(&format!("<+{}>", expr::path_text(path)), &builder.context()) else {
            continue;
        };
        let names: Vec<String> = path.iter().map(ToString::to_string).collect();
        insert(&mut root, &names, value.to_json());
    }
    root
}

fn insert(tree: &mut Json, names: &[String], value: Json) {
    let Some((first, rest)) = names.split_first() else { return };
    let Json::Object(map) = tree else { return };
    if rest.is_empty() {
        map.insert(first.clone(), value);
        return;
    }
    insert(map.entry(first.clone()).or_insert_with(|| Json::Object(serde_json::Map::new())), rest, value);
}

fn build_verify(builder: &mut Builder<'_>, verify: &Verify) -> Result<VerifySpec, Box<Failure>> {
    let mut spec = VerifySpec {
        provider: None,
        metric_name: String::new(),
        query: String::new(),
        threshold: None,
        comparison: None,
        duration_ms: 0,
        fail_on_no_analysis: verify.fail_on_no_analysis,
        variables: BTreeMap::new(),
        stage_started_at: builder.stage_started_at(),
        canary: None,
    };
    match &verify.canary {
        Some(canary) => spec.canary = Some(canary_analysis(builder, canary)?),
        None => compare_with_limit(builder, verify, &mut spec)?,
    }
    for (name, field) in &verify.labels {
        spec.variables.insert(name.clone(), builder.lenient(field)?.0);
    }
    if let Some(field) = &verify.duration {
        spec.duration_ms = builder.duration(field)?;
    }
    Ok(spec)
}

/// One query against a limit, as the inline form writes it.
fn compare_with_limit(
    builder: &mut Builder<'_>,
    verify: &Verify,
    spec: &mut VerifySpec,
) -> Result<(), Box<Failure>> {
    let (Some(connector), Some(query)) = (&verify.connector, &verify.query) else {
        return Err(super::build::bug("a Verify step without connector or query was planned"));
    };
    spec.provider = Some(match verify.provider.as_deref() {
        Some("CloudWatch") => cloud_watch(builder, verify, connector)?,
        Some("CloudWatchLogs") => cloud_watch_logs(builder, verify, connector)?,
        _ => MetricProvider::Prometheus { connector: builder.prometheus(connector)? },
    });
    spec.threshold = match &verify.threshold {
        Some((ThresholdKind::Absolute, field)) => Some(Threshold::Absolute(number(builder, field)?)),
        Some((ThresholdKind::Percentage, field)) => Some(Threshold::Percentage(number(builder, field)?)),
        None => None,
    };
    if let Some(field) = &verify.comparison {
        let text = builder.strict(field)?;
        let unknown = || {
            bad_field(
                field,
                format!("`{}` is no comparison; known are LessOrEqual, GreaterOrEqual", text.trim()),
            )
        };
        spec.comparison = Some(comparison(text.trim()).ok_or_else(unknown)?);
    }
    spec.metric_name = builder.optional(verify.metric_name.as_ref())?.unwrap_or_default();
    spec.query = builder.strict(query)?;
    Ok(())
}

/// The account of a connector, in the region that the step says, else in the infrastructure's.
fn account_of(
    builder: &mut Builder<'_>,
    written: &CloudWatchVerify,
    connector: &Field,
) -> Result<AwsAccount, Box<Failure>> {
    let region = match builder.optional(written.region.as_ref())? {
        Some(region) => Some(region),
        None => builder.stage_region()?,
    };
    builder.aws(connector, region.as_deref())
}

/// CloudWatch Logs, and where the events lie.
fn cloud_watch_logs(
    builder: &mut Builder<'_>,
    verify: &Verify,
    connector: &Field,
) -> Result<MetricProvider, Box<Failure>> {
    let written = verify.cloud_watch.as_deref().cloned().unwrap_or_default();
    let account = account_of(builder, &written, connector)?;
    let mut groups = Vec::new();
    if let Some(field) = &written.log_group {
        let value =
            super::build::field_value(field, &builder.context()).map_err(|error| bad_field(field, error))?;
        let all = match &value {
            Json::Array(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        for group in all {
            match group.as_str().map(str::trim).filter(|name| !name.is_empty()) {
                Some(name) => groups.push(name.to_owned()),
                None => {
                    let text =
                        format!("expected the name of a log group, or a list of names; found `{group}`");
                    return Err(bad_field(field, text));
                }
            }
        }
    }
    let stream_prefix = builder.optional(written.log_stream_prefix.as_ref())?;
    let stream_prefix = stream_prefix.filter(|prefix| !prefix.trim().is_empty());
    Ok(MetricProvider::CloudWatchLogs { account, scope: Box::new(LogScope { groups, stream_prefix }) })
}

/// CloudWatch, and what of the stage the metric is of.
fn cloud_watch(
    builder: &mut Builder<'_>,
    verify: &Verify,
    connector: &Field,
) -> Result<MetricProvider, Box<Failure>> {
    let written = verify.cloud_watch.as_deref().cloned().unwrap_or_default();
    let account = account_of(builder, &written, connector)?;
    let mut scope = CloudWatchScope::default();
    if let Some(target) = builder.target() {
        scope.cluster = builder.optional(target.infrastructure.cluster.as_ref())?;
        if let Some(ecs) = &target.service.definition.ecs {
            // What cannot be resolved is a fault of the steps that deploy the service, and was theirs to tell.
            let text = |value: &Json| {
                let text = expr::render(value.as_str()?, &builder.context(), expr::Mode::Throw).ok()?;
                Some(text).filter(|text| !text.trim().is_empty() && !text.contains("<+"))
            };
            scope.service = ecs.written("serviceName").and_then(text);
            let group = ecs.written("loadBalancers").and_then(|all| all.get(0)?.get("targetGroupArn"));
            scope.target_group_arn = group.and_then(text);
        }
    }
    super::earlier_ecs::cloud_watch_scope(builder, &mut scope);
    scope.namespace = builder.optional(written.namespace.as_ref())?;
    scope.statistic = builder.optional(written.statistic.as_ref())?;
    if let Some(field) = &written.dimensions {
        scope.dimensions = dimensions(builder, field)?;
    }
    Ok(MetricProvider::CloudWatch { account, scope: Box::new(scope) })
}

/// `{name: value}`, or a list of `{name, value}` as AWS writes it.
fn dimensions(builder: &Builder<'_>, field: &Field) -> Result<BTreeMap<String, String>, Box<Failure>> {
    let value =
        super::build::field_value(field, &builder.context()).map_err(|error| bad_field(field, error))?;
    let text = |value: &Json| match crate::model::as_text(value) {
        Json::String(text) => Some(text),
        _ => None,
    };
    let pairs: Option<Vec<(String, String)>> = match &value {
        Json::Object(map) => map.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect(),
        Json::Array(list) => list
            .iter()
            .map(|one| {
                let of = |lower: &str, upper: &str| one.get(lower).or_else(|| one.get(upper)).and_then(text);
                Some((of("name", "Name")?, of("value", "Value")?))
            })
            .collect(),
        _ => None,
    };
    let wrong = || bad_field(field, "expected a map of dimensions, or a list of `{name, value}`");
    Ok(pairs.ok_or_else(wrong)?.into_iter().collect())
}

fn number(builder: &Builder<'_>, field: &Field) -> Result<f64, Box<Failure>> {
    let text = builder.strict(field)?;
    let value = text.trim().parse().ok().filter(|value: &f64| value.is_finite());
    value.ok_or_else(|| bad_field(field, format!("expected a number, found `{text}`")))
}

fn comparison(text: &str) -> Option<Comparison> {
    match text {
        "LessOrEqual" => Some(Comparison::LessOrEqual),
        "GreaterOrEqual" => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}

/// Nodes of the canary of this stage against the rest.
fn canary_analysis(builder: &mut Builder<'_>, canary: &CanaryVerify) -> Result<CanaryAnalysis, Box<Failure>> {
    let sensitivity = match &canary.sensitivity {
        None => Sensitivity::default(),
        Some(field) => match builder.strict(field)?.trim().to_ascii_lowercase().as_str() {
            "high" => Sensitivity::High,
            "medium" => Sensitivity::Medium,
            "low" => Sensitivity::Low,
            other => {
                let message = format!("`{other}` is no sensitivity; known are HIGH, MEDIUM, LOW");
                return Err(bad_field(field, message));
            }
        },
    };
    let mut metrics = Vec::new();
    for metric in &canary.metrics {
        let node_label = builder.optional(metric.node_label.as_ref())?;
        metrics.push(CanaryMetric {
            name: builder.strict(&metric.name)?,
            provider: MetricProvider::Prometheus { connector: builder.prometheus(&metric.connector)? },
            query: builder.strict(&metric.query)?,
            node_label: node_label.unwrap_or_else(|| "pod".to_owned()),
            comparison: metric.comparison.as_deref().and_then(comparison),
            fail_fast: metric.fail_fast.as_ref().map(|field| number(builder, field)).transpose()?,
        });
    }
    // Pods have the name of their workload and a suffix.
    let canary_nodes: Vec<String> = super::earlier::canary_workloads(builder)
        .iter()
        .filter_map(|text| text.rsplit('/').next())
        .map(|name| format!("{name}-*"))
        .collect();
    if canary_nodes.is_empty() {
        let text =
            "a canary verification needs a canary: no K8sCanaryDeploy step of this stage ran before it";
        return Err(Box::new(Failure::new(FailureKind::BadSpec, "PIPE-045", text)));
    }
    Ok(CanaryAnalysis { sensitivity, metrics, canary_nodes })
}
