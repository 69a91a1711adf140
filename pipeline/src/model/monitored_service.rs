//! Monitored services: what is measured of a service in an environment.

use super::identity;
use super::read::{Field, Reader, one_of};
use crate::fault::Findings;
use crate::yaml::Node;
use serde::{Deserialize, Serialize};

/// A document with the root `monitoredService`.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitoredService {
    /// Identifier; by custom `SERVICE_ENVIRONMENT`, where Verify steps look when they name none.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// Every metric that deployments are verified by.
    pub metrics: Vec<HealthMetric>,
}

/// One metric of a health source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthMetric {
    /// Identifier of its health source.
    pub source: String,
    /// Name of the metric.
    pub name: Field,
    /// Where to ask.
    pub connector: Field,
    /// What to ask; one series for each node.
    pub query: Field,
    /// Label that names the node (`serviceInstanceFieldName`); `pod` when none is written.
    pub node_label: Option<Field>,
    /// `LessOrEqual` when higher values are worse, `GreaterOrEqual` when lower ones are; guessed from the name if both
    /// or none are written.
    pub comparison: Option<String>,
    /// A node of the canary beyond this value fails the verification at once (a metric threshold `FailImmediately` with
    /// an absolute criterion).
    #[serde(default)]
    pub fail_fast: Option<Field>,
}

/// Metric providers of health sources that are asked.
const PROVIDERS: [(&str, ()); 1] = [("Prometheus", ())];

/// Reads the map below `monitoredService`.
pub fn read_monitored_service(root: &Node, findings: &mut Findings) -> Option<MonitoredService> {
    let mut reader = Reader::new(root, "monitoredService", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "description", "tags", "type"]);
    reader.known(&[
        "serviceRef",
        "environmentRef",
        "environmentRefList",
        "dependencies",
        "notificationRuleRefs",
    ]);
    let identity = identity(&mut reader, "monitored service", findings);
    let mut metrics = Vec::new();
    if let Some(mut sources) = reader.map("sources", findings) {
        sources.known(&["changeSources"]);
        let path = sources.sub("healthSources");
        for (index, node) in sources.list("healthSources", findings).iter().enumerate() {
            read_source(node, &format!("{path}[{index}]"), &mut metrics, findings);
        }
        sources.finish(findings);
    }
    reader.finish(findings);
    let (identifier, name) = identity?;
    Some(MonitoredService { identifier, name: name.text(), metrics })
}

fn read_source(node: &Node, path: &str, metrics: &mut Vec<HealthMetric>, findings: &mut Findings) {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["name", "version"]);
    let identifier = reader.required("identifier", findings);
    let kind = reader.required("type", findings);
    let known = kind.and_then(|kind| one_of(&kind, "type of health source", &PROVIDERS, findings));
    let Some(mut spec) = reader.map("spec", findings) else {
        findings.fault(&node.at, &reader.sub("spec"), "`spec` is missing");
        return;
    };
    reader.finish(findings);
    spec.known(&["feature", "dataSourceType"]);
    let mut limits: Vec<Limit> = Vec::new();
    let packs = spec.sub("metricPacks");
    for (index, pack) in spec.list("metricPacks", findings).iter().enumerate() {
        read_pack(pack, &format!("{packs}[{index}]"), &mut limits, findings);
    }
    let connector = spec.required("connectorRef", findings);
    let list = spec.sub("metricDefinitions");
    let nodes = spec.list("metricDefinitions", findings);
    spec.finish(findings);
    let (Some(()), Some(connector), Some(identifier)) = (known, connector, identifier) else { return };
    for (index, node) in nodes.iter().enumerate() {
        let metric = read_metric(node, &format!("{list}[{index}]"), &identifier.text(), &connector, findings);
        let Some(mut metric) = metric else { continue };
        if let Some(limit) = limits.iter().find(|limit| limit.metric == metric.name.text()) {
            metric.fail_fast = Some(limit.value.clone());
            // The side of the limit is the bad one.
            metric.comparison = Some(limit.comparison.to_owned());
        }
        metrics.push(metric);
    }
}

/// A threshold that fails at once.
struct Limit {
    metric: String,
    value: Field,
    comparison: &'static str,
}

fn read_pack(node: &Node, path: &str, limits: &mut Vec<Limit>, findings: &mut Findings) {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["identifier", "metrics"]);
    let list = reader.sub("metricThresholds");
    for (index, node) in reader.list("metricThresholds", findings).iter().enumerate() {
        let mut threshold = Reader::new(node, format!("{list}[{index}]"), findings);
        threshold.known(&["metricType", "groupName", "spec", "metricIdentifier"]);
        let metric = threshold.required("metricName", findings);
        let at_once = match threshold.required("type", findings) {
            Some(kind) if kind.text() == "FailImmediately" => true,
            Some(kind) => {
                let text =
                    format!("a metric threshold of type `{}` has no effect in this version", kind.text());
                findings.remark("not-supported-yet", &kind.at, &kind.path, text);
                false
            }
            None => false,
        };
        if let Some(mut criteria) = threshold.map("criteria", findings) {
            let known = [("Absolute", true), ("Percentage", false)];
            let kind = criteria.required("type", findings);
            let absolute = kind.as_ref().and_then(|kind| one_of(kind, "type of criteria", &known, findings));
            if let (Some(false), Some(kind)) = (absolute, &kind) {
                let text =
                    "a percentage is judged by the sensitivity of the step; this threshold has no effect";
                findings.remark("not-supported-yet", &kind.at, &kind.path, text);
            }
            if let Some(mut spec) = criteria.map("spec", findings) {
                let sides = [("greaterThan", "LessOrEqual"), ("lessThan", "GreaterOrEqual")];
                for (key, comparison) in sides {
                    if let (Some(value), Some(metric)) = (spec.field(key, findings), &metric)
                        && at_once
                        && absolute == Some(true)
                    {
                        limits.push(Limit { metric: metric.text(), value, comparison });
                    }
                }
                spec.finish(findings);
            }
            criteria.finish(findings);
        }
        threshold.finish(findings);
    }
    reader.finish(findings);
}

fn read_metric(
    node: &Node,
    path: &str,
    source: &str,
    connector: &Field,
    findings: &mut Findings,
) -> Option<HealthMetric> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&[
        "identifier",
        "groupName",
        "isManualQuery",
        "sli",
        "prometheusMetric",
        "serviceFilter",
        "envFilter",
    ]);
    reader.known(&["additionalFilters", "aggregation"]);
    let name = reader.required("metricName", findings);
    let query = reader.required("query", findings);
    let mut node_label = reader.field("serviceInstanceFieldName", findings);
    let mut enabled = true;
    let mut sides: Vec<String> = Vec::new();
    let mut risk = |reader: &mut Reader<'_>, findings: &mut Findings| {
        if let Some(mut profile) = reader.map("riskProfile", findings) {
            profile.known(&["riskCategory", "category", "metricType"]);
            let types = profile.list("thresholdTypes", findings);
            sides.extend(types.iter().filter_map(|node| node.as_str().map(str::to_owned)));
            profile.finish(findings);
        }
    };
    risk(&mut reader, findings);
    if let Some(mut analysis) = reader.map("analysis", findings) {
        analysis.known(&["liveMonitoring"]);
        risk(&mut analysis, findings);
        if let Some(mut deployment) = analysis.map("deploymentVerification", findings) {
            enabled = deployment.flag("enabled", findings).unwrap_or(true);
            node_label = deployment.field("serviceInstanceFieldName", findings).or(node_label);
            deployment.finish(findings);
        }
        analysis.finish(findings);
    }
    reader.finish(findings);
    let acts = |side: &str| sides.iter().any(|own| own == side);
    let comparison = match (acts("ACT_WHEN_HIGHER"), acts("ACT_WHEN_LOWER")) {
        (true, false) => Some("LessOrEqual".to_owned()),
        (false, true) => Some("GreaterOrEqual".to_owned()),
        _ => None,
    };
    let metric = HealthMetric {
        source: source.to_owned(),
        name: name?,
        connector: connector.clone(),
        query: query?,
        node_label,
        comparison,
        fail_fast: None,
    };
    enabled.then_some(metric)
}
