//! Verify `type: Canary`: each canary node against all other nodes at the same time.
//!
//! ```text
//! metrics × [series by node] ─► canary nodes | the rest ─compare─► worst node ─► verdict
//! ```
//! A node that is clearly worse at several looks in a row ends the analysis early, as does a value beyond a written
//! limit; everything else is decided at the end of the window.

use crate::error::Error;
use crate::judge::{Direction, Point, number};
use crate::mannwhitney::{Comparison, MIN_SAMPLES, Measure, Side, compare};
use crate::prometheus::Server;
use crate::spec::{bad_url, direction_by, fill, is_raw_counter, step_of};
use crate::{MIN_RETRY_PAUSE, VerifyExecutor, millis, now_ms};
use executor_api::{Level, SpecFault, StepContext, StepOutput, UnitLog};
use proto::logs::rfc3339;
use proto::task::{CanaryAnalysis, CanaryMetric, MetricProvider, VerifySpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// So many looks in a row that find a node worse end the analysis.
const LOOKS: u32 = 3;
/// Nodes that a line names.
const SHOWN: usize = 5;

/// Every fault that can be seen without I/O.
pub(crate) fn check(spec: &VerifySpec, canary: &CanaryAnalysis) -> Result<(), Vec<SpecFault>> {
    let mut faults = Vec::new();
    let mut fault = |field: String, problem: String| faults.push(SpecFault { field, problem });
    if canary.canary_nodes.iter().all(|pattern| pattern.trim_matches('*').is_empty()) {
        fault(
            "canary.canaryNodes".into(),
            "is empty; expected names of nodes, `*` at the end for any".into(),
        );
    }
    for (index, metric) in canary.metrics.iter().enumerate() {
        let at = |field: &str| format!("canary.metrics[{index}].{field}");
        if metric.query.trim().is_empty() {
            fault(at("query"), "is empty; expected a PromQL expression".into());
        }
        if metric.node_label.trim().is_empty() {
            fault(
                at("nodeLabel"),
                "is empty; expected the label that names the node, for example `pod`".into(),
            );
        }
        let MetricProvider::Prometheus { connector } = &metric.provider else {
            fault(at("provider"), "canary nodes can be compared only with metrics of Prometheus".into());
            continue;
        };
        if let Some(problem) = bad_url(connector) {
            fault(at("connectorRef"), problem);
        }
    }
    if spec.duration_ms == 0 {
        fault("duration".into(), "is 0; expected for example `10m`".into());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Whether a node is one of the canary.
fn is_canary(patterns: &[String], node: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => node.starts_with(prefix),
        None => node == pattern,
    })
}

/// One metric, decided.
struct Watched<'a> {
    metric: &'a CanaryMetric,
    server: Server,
    query: String,
    direction: Direction,
    /// Looks in a row at which each node was worse.
    worse: BTreeMap<String, u32>,
}

/// What one look at a metric found.
struct Look {
    /// By canary node.
    nodes: Vec<(String, Vec<Point>, Comparison)>,
    control: Vec<f64>,
    controls: usize,
    series: BTreeMap<String, Vec<Point>>,
}

impl Look {
    /// The canary node that stands worst.
    fn worst(&self, direction: Direction) -> Option<&(String, Vec<Point>, Comparison)> {
        let badness = |comparison: &Comparison| match direction {
            Direction::HigherIsWorse => comparison.estimate,
            Direction::LowerIsWorse => -comparison.estimate,
        };
        self.nodes.iter().max_by(|a, b| {
            let by = |n: &(String, Vec<Point>, Comparison)| (n.2.is_worse(direction), badness(&n.2));
            let (a, b) = (by(a), by(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
    }
}

impl VerifyExecutor {
    /// Runs the analysis to its verdict.
    pub(crate) async fn canary(
        &self,
        spec: &VerifySpec,
        canary: &CanaryAnalysis,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<StepOutput, Error> {
        if canary.metrics.is_empty() {
            let notice = "no health source is configured; the verification is skipped".to_owned();
            log.line(Level::Warn, &notice).await?;
            return Ok(StepOutput { skipped: true, notices: vec![notice], ..StepOutput::default() });
        }
        check(spec, canary).map_err(Error::Spec)?;
        let factor = cx.task.rehearsal.unwrap_or(1);
        let real = Duration::from_millis(spec.duration_ms);
        let (span, step) = (real / factor.max(1), step_of(real, factor));
        let mut watched = Vec::new();
        for metric in &canary.metrics {
            let MetricProvider::Prometheus { connector } = &metric.provider else { continue };
            let (server, alias) = self.connector.open(connector, cx).await?;
            if let Some(line) = alias {
                log.line(Level::Info, &line).await?;
            }
            let query = fill(&metric.query, &spec.variables, step);
            let (direction, because) = direction_by(metric.comparison, &metric.name, &query);
            log.line(Level::Info, &format!("metric `{}` of {}: {query}", metric.name, server.target()))
                .await?;
            log.line(
                Level::Info,
                &format!("  direction: {direction} ({because}); nodes by label `{}`", metric.node_label),
            )
            .await?;
            if is_raw_counter(&query) {
                let text = "  verify.raw-counter: the query reads a counter without rate() or increase(); it only grows";
                log.line(Level::Warn, text).await?;
            }
            watched.push(Watched { metric, server, query, direction, worse: BTreeMap::new() });
        }
        let (start_ms, _) = self.start(cx, log).await?;
        let text = format!(
            "window: {} s from {}, a sample every {} s; canary nodes: {}; sensitivity {:?}",
            number(span.as_secs_f64()),
            rfc3339(start_ms),
            number(step.as_secs_f64()),
            canary.canary_nodes.join(", "),
            canary.sensitivity
        );
        log.line(Level::Info, &text).await?;
        let end_ms = start_ms.saturating_add(millis(span));
        loop {
            let upto = now_ms(cx).clamp(start_ms, end_ms);
            let mut looks = Vec::new();
            for metric in &mut watched {
                let look = self.look(metric, canary, (start_ms, upto), step, cx, log).await?;
                early(metric, &look)?;
                looks.push(look);
            }
            if upto >= end_ms {
                return conclude(spec, canary, &watched, &looks, log).await;
            }
            let next = upto.saturating_add(millis(step).max(1)).min(end_ms);
            let wait = u64::try_from(next.saturating_sub(now_ms(cx))).unwrap_or(0).max(1);
            cx.clock.sleep(Duration::from_millis(wait)).await;
        }
    }

    async fn look(
        &self,
        watched: &Watched<'_>,
        canary: &CanaryAnalysis,
        (from, upto): (i64, i64),
        step: Duration,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<Look, Error> {
        let pause = cx.rehearsed(self.config.retry_pause).max(MIN_RETRY_PAUSE);
        let mut errors = 0;
        let series = loop {
            let asked = watched.server.by_label(&watched.query, &watched.metric.node_label, from, upto, step);
            match asked.await {
                Ok(series) => break series,
                Err(error) if error.may_pass() && errors < self.config.error_budget => {
                    errors += 1;
                    let budget = self.config.error_budget;
                    log.line(Level::Warn, &format!("{error}; failed query {errors} of {budget} tolerated"))
                        .await?;
                    cx.clock.sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (test, rest): (Vec<_>, Vec<_>) =
            series.iter().partition(|(node, _)| is_canary(&canary.canary_nodes, node));
        let control: Vec<f64> = rest.iter().flat_map(|(_, points)| points.iter().map(|p| p.value)).collect();
        let measure = Measure::of(canary.sensitivity);
        let nodes = test.into_iter().map(|(node, points)| {
            let values: Vec<f64> = points.iter().map(|p| p.value).collect();
            (node.clone(), points.clone(), compare(&values, &control, &measure))
        });
        Ok(Look { nodes: nodes.collect(), controls: rest.len(), control, series: series.clone() })
    }
}

/// Ends the analysis when there is no doubt any more.
fn early(watched: &mut Watched<'_>, look: &Look) -> Result<(), Error> {
    let direction = watched.direction;
    if let Some(limit) = watched.metric.fail_fast {
        let beyond = |value: f64| match direction {
            Direction::HigherIsWorse => value > limit,
            Direction::LowerIsWorse => value < limit,
        };
        for (node, points, _) in &look.nodes {
            if let Some(point) = points.iter().find(|point| beyond(point.value)) {
                let reason = format!(
                    "canary node {node} is at {}, beyond the limit {}",
                    number(point.value),
                    number(limit)
                );
                return Err(violated(watched, reason));
            }
        }
    }
    for (node, points, comparison) in &look.nodes {
        let enough = points.len() >= MIN_SAMPLES && look.control.len() >= MIN_SAMPLES;
        let looks = watched.worse.entry(node.clone()).or_insert(0);
        *looks = if enough && comparison.is_worse(direction) { *looks + 1 } else { 0 };
        if *looks >= LOOKS {
            let reason = format!("canary node {node} {} at {LOOKS} looks in a row", told(comparison, look));
            return Err(violated(watched, reason));
        }
    }
    Ok(())
}

fn violated(watched: &Watched<'_>, reason: String) -> Error {
    Error::Violated {
        target: watched.server.target().to_owned(),
        metric: watched.metric.name.clone(),
        reason,
        rule: "no canary node clearly worse than the rest".into(),
        direction: watched.direction.to_string(),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count == 0.0 { f64::NAN } else { sum / count }
}

/// A comparison in words.
fn told(comparison: &Comparison, look: &Look) -> String {
    let what = match comparison.side {
        Side::High => "lies above the rest",
        Side::Low => "lies below the rest",
        Side::Same => "is like the rest",
        Side::NoData => "has too few samples",
    };
    let Comparison { lower, upper, estimate, ratio, .. } = comparison;
    let ratio = if ratio.is_nan() { String::new() } else { format!(", ratio {}", number(*ratio)) };
    format!(
        "{what} (difference {} [{} … {}]{ratio}; the mean of {} others is {})",
        number(*estimate),
        number(*lower),
        number(*upper),
        look.controls,
        number(mean(look.control.iter().copied()))
    )
}

/// A small picture of a series.
fn sparkline(points: &[Point]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = || points.iter().map(|point| point.value).filter(|value| value.is_finite());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let bar = |value: f64| {
        let part = if high > low { (value - low) / (high - low) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Between 0 and 7.")]
        let index = (part * 7.0).round() as usize;
        BARS.get(index).copied().unwrap_or('█')
    };
    let skip = points.len().saturating_sub(60);
    values().skip(skip).map(bar).collect()
}

/// The verdict at the end of the window.
async fn conclude(
    spec: &VerifySpec,
    canary: &CanaryAnalysis,
    watched: &[Watched<'_>],
    looks: &[Look],
    log: &dyn UnitLog,
) -> Result<StepOutput, Error> {
    let mut worse = None;
    let mut unknown = Vec::new();
    for (metric, look) in watched.iter().zip(looks) {
        let name = &metric.metric.name;
        if look.nodes.is_empty() || look.controls == 0 {
            let missing = if look.nodes.is_empty() { "canary nodes" } else { "other nodes" };
            let found: Vec<&str> = look.series.keys().map(String::as_str).take(SHOWN).collect();
            unknown.push(format!("`{name}` has no samples of {missing} (found: {})", found.join(", ")));
        }
        for (node, points, comparison) in &look.nodes {
            let bad = comparison.is_worse(metric.direction);
            let level = if bad { Level::Warn } else { Level::Info };
            log.line(level, &format!("{name}  {node}  {}  {}", sparkline(points), told(comparison, look)))
                .await?;
            if comparison.side == Side::NoData {
                unknown.push(format!(
                    "`{name}` has {} samples of {node} and {} of the rest",
                    points.len(),
                    look.control.len()
                ));
            }
        }
        if let Some((node, _, comparison)) = look.worst(metric.direction)
            && comparison.is_worse(metric.direction)
            && worse.is_none()
        {
            worse = Some(violated(metric, format!("canary node {node} {}", told(comparison, look))));
        }
    }
    if let Some(error) = worse {
        return Err(error);
    }
    let mut notices = Vec::new();
    let verdict = match unknown.first() {
        Some(reason) if spec.fail_on_no_analysis => {
            let metric = watched.first();
            return Err(Error::Inconclusive {
                target: metric.map(|m| m.server.target().to_owned()).unwrap_or_default(),
                metric: metric.map(|m| m.metric.name.clone()).unwrap_or_default(),
                reason: reason.clone(),
            });
        }
        Some(reason) => {
            let text = format!("inconclusive, and `failOnNoAnalysis: false` lets it pass: {reason}");
            log.line(Level::Warn, &text).await?;
            notices.push(text);
            "Inconclusive"
        }
        None => {
            log.line(Level::Info, "passed: no canary node is clearly worse than the rest").await?;
            "Pass"
        }
    };
    let outputs = [
        ("verdict", json!(verdict)),
        ("sensitivity", json!(canary.sensitivity)),
        (
            "metrics",
            watched.iter().zip(looks).map(|(metric, look)| output(metric, look)).collect::<Vec<_>>().into(),
        ),
    ];
    let outputs = outputs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    Ok(StepOutput { outputs, notices, ..StepOutput::default() })
}

/// Everything needed to judge again.
fn output(metric: &Watched<'_>, look: &Look) -> Value {
    // JSON has no infinities and no NaN.
    let number = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
    let series =
        |points: &[Point]| points.iter().map(|p| json!([p.at_ms, number(p.value)])).collect::<Vec<_>>();
    let nodes: Vec<Value> = look
        .nodes
        .iter()
        .map(|(node, points, c)| {
            json!({"node": node, "side": format!("{:?}", c.side), "samples": points.len(),
                "mean": number(mean(points.iter().map(|p| p.value))), "lower": number(c.lower),
                "upper": number(c.upper), "estimate": number(c.estimate), "ratio": number(c.ratio)})
        })
        .collect();
    let all: serde_json::Map<String, Value> =
        look.series.iter().map(|(node, points)| (node.clone(), series(points).into())).collect();
    json!({"name": metric.metric.name, "query": metric.query, "direction": metric.direction.to_string(),
        "controlMean": number(mean(look.control.iter().copied())), "controlNodes": look.controls,
        "nodes": nodes, "series": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_nodes_are_told_by_name_or_beginning() {
        let patterns = ["web-canary-*".to_owned(), "one".to_owned()];
        for (node, is) in [("web-canary-abc", true), ("one", true), ("one-2", false), ("web-abc", false)] {
            assert_eq!(is_canary(&patterns, node), is, "{node}");
        }
    }

    #[test]
    fn a_sparkline_shows_the_shape() {
        let points =
            |values: &[f64]| values.iter().map(|v| Point { at_ms: 0, value: *v }).collect::<Vec<_>>();
        assert_eq!(sparkline(&points(&[0.0, 1.0, 7.0, f64::INFINITY, 3.5])), "▁▂█▅");
        assert_eq!(sparkline(&points(&[2.0, 2.0])), "▁▁");
        assert_eq!(sparkline(&[]), "");
    }
}
