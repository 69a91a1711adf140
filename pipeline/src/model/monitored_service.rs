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
    spec.known(&["feature", "metricPacks", "dataSourceType"]);
    let connector = spec.required("connectorRef", findings);
    let list = spec.sub("metricDefinitions");
    let nodes = spec.list("metricDefinitions", findings);
    spec.finish(findings);
    let (Some(()), Some(connector), Some(identifier)) = (known, connector, identifier) else { return };
    for (index, node) in nodes.iter().enumerate() {
        let metric = read_metric(node, &format!("{list}[{index}]"), &identifier.text(), &connector, findings);
        metrics.extend(metric);
    }
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
    };
    enabled.then_some(metric)
}
