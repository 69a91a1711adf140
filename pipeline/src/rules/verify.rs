//! Rules about the Verify step: R10 (inline form), R11 (gaps), R18 (timeout).

use crate::fault::{Fault, Findings, did_you_mean};
use crate::model::duration::show_duration;
use crate::model::read::{Field, Reader, one_of};
use crate::model::step::{CanaryVerify, CloudWatchVerify, Spec, ThresholdKind, Verify};
use crate::yaml::Node;

/// Metric providers of the inline form, and those that come later.
const PROVIDERS: [&str; 3] = ["Prometheus", "CloudWatch", "CloudWatchLogs"];
const LATER: [&str; 2] = ["Datadog", "NewRelic"];

/// Harness' own kinds of verification: they need a monitored service, which this manager does not have yet.
const HARNESS_KINDS: [&str; 6] = ["Auto", "Rolling", "Canary", "Bluegreen", "LoadTest", "SimpleVerification"];

/// Added to the window: the time a query and its answer may take at its end.
const SLACK_MS: u64 = 120_000;

/// R10 and R11: a Verify step with an inline query; what it leaves out is inherited from the Verify before it.
pub fn r10_r11_verify(
    spec: &mut Reader<'_>,
    step: &mut Reader<'_>,
    earlier: &mut Vec<Verify>,
    findings: &mut Findings,
) -> Option<Spec> {
    let kind = spec.field("type", findings);
    let inner_node = spec.node("spec");
    let flat_duration = spec.any("duration").or_else(|| step.any("duration"));
    spec.known(&["isMultiServicesOrEnvs"]);
    let canary = read_canary(spec, findings);
    let at = spec.at().clone();
    let path = spec.path().to_owned();

    let mut verify = Verify {
        provider: None,
        connector: None,
        metric_name: None,
        query: None,
        threshold: None,
        comparison: None,
        duration: None,
        fail_on_no_analysis: true,
        labels: Vec::new(),
        canary: None,
        cloud_watch: None,
    };
    let harness_kind =
        kind.as_ref().is_some_and(|kind| HARNESS_KINDS.iter().any(|k| k.eq_ignore_ascii_case(&kind.text())));
    if let Some(inner) = inner_node {
        read_inner(&mut verify, inner, &spec.sub("spec"), findings);
    }
    if let (Some(duration), None) = (flat_duration, &verify.duration) {
        let assumed = format!("`duration` ({}) beside `type` is that of the window", duration.text());
        findings.notice("R11.flat-duration", &duration.at, &duration.path, assumed);
        verify.duration = Some(duration);
    }
    match &kind {
        // Whether there is a health source is known when the service is.
        Some(kind) if kind.text().eq_ignore_ascii_case("Canary") => {
            let sensitivity = inner_node.and_then(|node| node.get("sensitivity"));
            let sensitivity =
                sensitivity.map(|node| Field::new(node, format!("{}.sensitivity", spec.sub("spec"))));
            verify.canary = Some(CanaryVerify { sensitivity, ..canary });
            if verify.duration.is_none() {
                findings.fault(&at, &path, "`duration` of the verification is missing");
            }
        }
        Some(_) if harness_kind => {
            let assumed = "no health source is configured: the step is skipped";
            findings.notice("verify.no-health-source", &at, &path, assumed);
        }
        Some(kind) => {
            let text = kind.text();
            match PROVIDERS.iter().find(|name| name.eq_ignore_ascii_case(&text)) {
                Some(name) => {
                    let assumed = format!("an inline {name} query is judged against its threshold");
                    findings.notice("R10.inline-verify", &kind.at, &kind.path, assumed);
                    verify.provider = Some((*name).to_owned());
                }
                None => {
                    let known = PROVIDERS.join(", ");
                    let message = if LATER.contains(&text.as_str()) {
                        format!(
                            "metric provider `{text}` is not supported by this version; supported are {known}"
                        )
                    } else {
                        format!(
                            "`{text}` is no kind of verification; supported are {known}, {}",
                            HARNESS_KINDS.join(", ")
                        )
                    };
                    let names = PROVIDERS.into_iter().chain(HARNESS_KINDS);
                    findings
                        .push(Fault::at(&kind.at, &kind.path, message).suggest(did_you_mean(&text, names)));
                    return None;
                }
            }
        }
        None => {}
    }
    if !harness_kind && (kind.is_none() || inner_node.is_none()) {
        inherit(&mut verify, earlier, &at, &path, findings);
    }
    if verify.provider.as_deref() == Some("CloudWatch") && verify.query.is_none() {
        verify.query = verify.metric_name.as_ref().map(|metric| {
            let query = format!("avg({})", metric.text());
            findings.notice("R10.metric-query", &metric.at, &metric.path, format!("the query is `{query}`"));
            Field::made(query, metric.path.clone(), &metric.at)
        });
    }
    if verify.provider.is_some() {
        let lacks_group = verify.provider.as_deref() == Some("CloudWatchLogs")
            && verify.cloud_watch.as_ref().is_none_or(|own| own.log_group.is_none());
        for (what, missing) in [
            ("connectorRef", verify.connector.is_none()),
            ("query", verify.query.is_none()),
            ("logGroup", lacks_group),
            ("threshold", verify.threshold.is_none()),
            ("duration", verify.duration.is_none()),
        ] {
            if missing {
                findings.fault(&at, &path, format!("`{what}` of the verification is missing"));
            }
        }
    }
    earlier.push(verify.clone());
    Some(Spec::Verify(Box::new(verify)))
}

/// Where the metrics of a canary verification come from.
fn read_canary(spec: &mut Reader<'_>, findings: &mut Findings) -> CanaryVerify {
    let mut canary = CanaryVerify::default();
    if let Some(mut service) = spec.map("monitoredService", findings) {
        let kind = service.required("type", findings);
        let known = [("Default", false), ("Configured", true)];
        let configured = kind.and_then(|kind| one_of(&kind, "type of monitored service", &known, findings));
        if let Some(mut inner) = service.map("spec", findings) {
            let reference = inner.field("monitoredServiceRef", findings);
            inner.finish(findings);
            canary.monitored_service = reference.filter(|_| configured == Some(true));
        }
        service.finish(findings);
    }
    let path = spec.sub("healthSources");
    for (index, node) in spec.list("healthSources", findings).iter().enumerate() {
        let mut source = Reader::new(node, format!("{path}[{index}]"), findings);
        canary.health_sources.extend(source.required("identifier", findings).map(|field| field.text()));
        source.finish(findings);
    }
    canary
}

/// R11: what is missing is taken from the nearest earlier Verify of the same stage that asks the same provider.
fn inherit(
    verify: &mut Verify,
    earlier: &[Verify],
    at: &crate::fault::Place,
    path: &str,
    findings: &mut Findings,
) {
    let fits = |base: &&Verify| {
        base.provider.is_some() && (verify.provider.is_none() || base.provider == verify.provider)
    };
    let Some(base) = earlier.iter().rev().find(fits) else {
        if verify.provider.is_none() {
            let assumed = "no health source is configured: the step is skipped";
            findings.notice("verify.no-health-source", at, path, assumed);
        }
        return;
    };
    let own = std::mem::replace(verify, base.clone());
    findings.notice("R11.inherit", at, path, "what is missing is taken from the Verify step before it");
    verify.provider = own.provider.or_else(|| verify.provider.take());
    verify.connector = own.connector.or_else(|| verify.connector.take());
    verify.metric_name = own.metric_name.or_else(|| verify.metric_name.take());
    verify.query = own.query.or_else(|| verify.query.take());
    verify.threshold = own.threshold.or_else(|| verify.threshold.take());
    verify.comparison = own.comparison.or_else(|| verify.comparison.take());
    verify.duration = own.duration.or_else(|| verify.duration.take());
    verify.cloud_watch = own.cloud_watch.or_else(|| verify.cloud_watch.take());
    if !own.labels.is_empty() {
        verify.labels = own.labels;
    }
}

fn read_inner(verify: &mut Verify, node: &Node, path: &str, findings: &mut Findings) {
    let mut inner = Reader::new(node, path, findings);
    inner.known(&["sensitivity", "trafficSplitPercentage"]);
    let of_metric = CloudWatchVerify {
        namespace: inner.field("namespace", findings),
        dimensions: inner.any("dimensions"),
        statistic: inner.field("statistic", findings),
        region: inner.field("region", findings),
        log_group: inner.any("logGroup"),
        log_stream_prefix: inner.field("logStreamPrefix", findings),
    };
    verify.cloud_watch = Some(of_metric).filter(|own| *own != CloudWatchVerify::default()).map(Box::new);
    verify.connector = inner.field("connectorRef", findings);
    verify.metric_name = inner.field("metricName", findings);
    verify.query = inner.field("query", findings);
    verify.comparison = inner.field("comparison", findings);
    verify.duration = inner.field("duration", findings);
    verify.fail_on_no_analysis = inner.flag("failOnNoAnalysis", findings).unwrap_or(true);
    for key in ["baseline", "canary", "deploymentTag"] {
        if let Some(field) = inner.field(key, findings) {
            verify.labels.push((key.to_owned(), field));
        }
    }
    if let Some(mut threshold) = inner.map("threshold", findings) {
        let kind = threshold.required("type", findings).and_then(|kind| {
            let known = [("Absolute", ThresholdKind::Absolute), ("Percentage", ThresholdKind::Percentage)];
            one_of(&kind, "threshold type", &known, findings)
        });
        let value = match threshold.map("spec", findings) {
            Some(mut spec) => {
                let value = spec.required("value", findings);
                spec.finish(findings);
                value
            }
            None => threshold.required("value", findings),
        };
        threshold.finish(findings);
        verify.threshold = kind.zip(value);
    }
    inner.finish(findings);
}

/// R18: a Verify step may take its window and two minutes, even when its own timeout is shorter.
pub fn r18_verify_timeout(
    name: &Field,
    step_ms: Option<u64>,
    duration_ms: u64,
    findings: &mut Findings,
) -> Option<u64> {
    let least = duration_ms.saturating_add(SLACK_MS);
    match step_ms {
        Some(step_ms) if step_ms < least => {
            let assumed = format!(
                "the timeout {} would end the analysis of {}; it is {}",
                show_duration(step_ms),
                show_duration(duration_ms),
                show_duration(least)
            );
            let path = name.path.strip_suffix(".name").unwrap_or(&name.path);
            findings.notice("R18.verify-timeout", &name.at, path, assumed);
            Some(least)
        }
        other => other,
    }
}
