//! From the inline form of a seed to a rule, a window and a query. **Source**: settled facts §3.2, facts C3.2.

use crate::judge::{Direction, Formula, Rule};
use executor_api::SpecFault;
use proto::task::{Comparison, HttpConnector, MetricProvider, Threshold, VerifySpec};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names that say "higher is worse". They go first: `http_request_errors_total` counts errors, not requests.
const BAD: [&str; 22] = [
    "error",
    "fail",
    "5xx",
    "4xx",
    "50x",
    "latency",
    "duration",
    "responsetime",
    "response_time",
    "cpu",
    "memory",
    "mem_",
    "utilization",
    "percent",
    "saturation",
    "queue",
    "backlog",
    "drop",
    "timeout",
    "restart",
    "unhealthy",
    "lag",
];

/// Names that say "lower is worse".
const GOOD: [&str; 10] = [
    "request",
    "success",
    "throughput",
    "healthy",
    "available",
    "availability",
    "uptime",
    "rps",
    "qps",
    "hits",
];

/// Names for which a percentage is a ceiling and not a deviation.
const CEILING: [&str; 4] = ["cpu", "memory", "utilization", "percent"];

/// PromQL functions that turn a counter into a rate or a difference.
const RATES: [&str; 8] = ["rate", "irate", "increase", "delta", "idelta", "resets", "changes", "deriv"];

/// An analysis, decided.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Analysis {
    pub(crate) rule: Rule,
    /// Why this direction, for the log.
    pub(crate) because: String,
    /// Length of the window, divided by the rehearsal factor.
    pub(crate) span: Duration,
    /// Distance of the samples.
    pub(crate) step: Duration,
    /// The query with its variables in place.
    pub(crate) query: String,
    /// Missing samples are zeroes.
    pub(crate) absent_is_zero: bool,
    /// Things a person should read.
    pub(crate) notices: Vec<String>,
}

/// Every fault that can be seen without I/O.
pub(crate) fn check(spec: &VerifySpec) -> Result<(), Vec<SpecFault>> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, problem: String| faults.push(SpecFault { field: field.into(), problem });
    if let Some(canary) = &spec.canary {
        return crate::canary::check(spec, canary);
    }
    // Without a source the step is skipped, whatever else it says.
    let Some(MetricProvider::Prometheus { connector }) = &spec.provider else { return Ok(()) };
    if spec.query.trim().is_empty() {
        fault("query", "is empty; expected a PromQL expression".into());
    }
    if let Some(problem) = bad_url(connector) {
        fault("connectorRef", problem);
    }
    match spec.threshold {
        None => fault(
            "threshold",
            "is missing; expected `{type: Absolute, spec: {value: N}}` or Percentage".into(),
        ),
        Some(Threshold::Absolute(value)) if !value.is_finite() => {
            fault("threshold.value", format!("{value} is not a number to compare with"))
        }
        Some(Threshold::Percentage(value)) if !value.is_finite() || value < 0.0 => {
            fault("threshold.value", format!("{value} is not a percentage; expected 0 or more"));
        }
        Some(_) => {}
    }
    if spec.duration_ms == 0 {
        fault("duration", "is 0; expected for example `10m`".into());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What is wrong with a connector's URL.
pub(crate) fn bad_url(connector: &HttpConnector) -> Option<String> {
    match url::Url::parse(connector.url.trim()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => None,
        _ => Some(format!(
            "the URL `{}` of connector `{}` is not an http or https URL",
            connector.url, connector.identifier
        )),
    }
}

/// Decides how `spec` is judged. `factor` is the rehearsal's. `None` if there is no threshold, which `check` refuses.
pub(crate) fn decide(spec: &VerifySpec, factor: u32) -> Option<Analysis> {
    let real = Duration::from_millis(spec.duration_ms);
    let step = step_of(real, factor);
    let (direction, because) = direction_of(spec);
    let (formula, reading) = match spec.threshold? {
        Threshold::Absolute(limit) => (Formula::Value { limit }, None),
        Threshold::Percentage(percent) if is_ceiling(&spec.metric_name) => {
            let text =
                format!("the threshold of {percent} percent is read as a ceiling of `{}`", spec.metric_name);
            (Formula::Value { limit: percent }, Some(text))
        }
        Threshold::Percentage(percent) => {
            let text = format!(
                "the threshold of {percent} percent is read as a deviation from the equal window before the stage"
            );
            (Formula::Deviation { percent }, Some(text))
        }
    };
    let query = fill(&spec.query, &spec.variables, step);
    let mut notices = Vec::new();
    if is_raw_counter(&query) {
        notices.push(
            "verify.raw-counter: the query reads a counter without rate() or increase(); it only grows, and is judged as written"
                .to_owned(),
        );
    }
    Some(Analysis {
        rule: Rule { direction, formula },
        because: [Some(because), reading].into_iter().flatten().collect::<Vec<_>>().join("; "),
        span: real / factor.max(1),
        step,
        query,
        absent_is_zero: is_count_absent_when_zero(&spec.metric_name),
        notices,
    })
}

/// A tenth of the window, within 1 s and 60 s, divided by the rehearsal factor; not below 250 ms, because scrapes are
/// hardly ever closer than that.
pub(crate) fn step_of(real: Duration, factor: u32) -> Duration {
    let step = (real / 10).clamp(Duration::from_secs(1), Duration::from_secs(60));
    (step / factor.max(1)).max(Duration::from_millis(250))
}

fn direction_of(spec: &VerifySpec) -> (Direction, String) {
    direction_by(spec.comparison, &spec.metric_name, &spec.query)
}

/// Which side is bad: as written, else as the name says, else the query.
pub(crate) fn direction_by(comparison: Option<Comparison>, name: &str, query: &str) -> (Direction, String) {
    match comparison {
        Some(Comparison::LessOrEqual) => {
            return (Direction::HigherIsWorse, "`comparison: LessOrEqual` is written".into());
        }
        Some(Comparison::GreaterOrEqual) => {
            return (Direction::LowerIsWorse, "`comparison: GreaterOrEqual` is written".into());
        }
        None => {}
    }
    let name = if name.trim().is_empty() { query } else { name };
    let lower = name.to_lowercase();
    let said = |words: &[&'static str]| words.iter().find(|word| lower.contains(*word)).copied();
    match (said(&BAD), said(&GOOD)) {
        (Some(word), _) => (Direction::HigherIsWorse, format!("the name says `{word}`")),
        (None, Some(word)) => (Direction::LowerIsWorse, format!("the name says `{word}`")),
        (None, None) => {
            (Direction::HigherIsWorse, "the name says nothing; write `comparison` if this is wrong".into())
        }
    }
}

fn is_ceiling(metric_name: &str) -> bool {
    let name = metric_name.to_lowercase();
    CEILING.iter().any(|word| name.contains(word))
}

/// Load balancers report no sample at all for a period without such a response.
fn is_count_absent_when_zero(metric_name: &str) -> bool {
    metric_name.starts_with("HTTPCode_") && metric_name.ends_with("_Count")
}

/// Puts `$baseline`, `$canary`, `$deploymentTag` and `$__interval` in place, also in the form `${…}`. Values stand
/// inside quotes of PromQL, so quotes and backslashes in them are escaped. Other dollars stay.
pub(crate) fn fill(query: &str, variables: &BTreeMap<String, String>, step: Duration) -> String {
    let interval = format!("{}ms", step.as_millis());
    let mut out = String::with_capacity(query.len());
    let mut rest = query;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        let (body, closed) = match after.strip_prefix('{') {
            Some(braced) => (braced, true),
            None => (after, false),
        };
        let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(body.len());
        let name = body.get(..end).unwrap_or_default();
        let tail = body.get(end..).unwrap_or_default();
        let tail = if closed { tail.strip_prefix('}') } else { Some(tail) };
        let value = match name {
            "__interval" => Some(interval.clone()),
            _ => variables.get(name).or_else(|| variables.get(&format!("${name}"))).map(|v| escaped(v)),
        };
        match (value, tail) {
            (Some(value), Some(tail)) if !name.is_empty() => {
                out.push_str(&value);
                rest = tail;
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Whether the query reads a counter as it stands: a name that ends like a counter's, and no function that makes a rate.
pub(crate) fn is_raw_counter(query: &str) -> bool {
    let mut counter = false;
    let mut words =
        query.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).peekable();
    while let Some(word) = words.next() {
        let name = word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        let opens = word.ends_with('(')
            || (word.ends_with(char::is_whitespace) && words.peek().is_some_and(|w| *w == "("));
        if opens && RATES.contains(&name) {
            return false;
        }
        counter |= name.ends_with("_total") && !opens;
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(metric: &str, query: &str, threshold: serde_json::Value) -> VerifySpec {
        serde_json::from_value(json!({
            "provider": {"type": "Prometheus", "connector": {"identifier": "prom", "url": "http://h:9090"}},
            "metricName": metric, "query": query, "threshold": threshold, "durationMs": 600_000,
        }))
        .unwrap()
    }

    fn absolute(value: f64) -> serde_json::Value {
        json!({"type": "Absolute", "value": value})
    }

    fn percentage(value: f64) -> serde_json::Value {
        json!({"type": "Percentage", "value": value})
    }

    #[test]
    fn names_give_the_direction() {
        for (name, wanted) in [
            ("http_requests_total", Direction::LowerIsWorse),
            ("http_request_errors_total", Direction::HigherIsWorse),
            ("http_request_duration_seconds", Direction::HigherIsWorse),
            ("TargetResponseTime", Direction::HigherIsWorse),
            ("HTTPCode_Target_5XX_Count", Direction::HigherIsWorse),
            ("CPUUtilization", Direction::HigherIsWorse),
            ("success_rate", Direction::LowerIsWorse),
            ("Throughput", Direction::LowerIsWorse),
            ("UnHealthyHostCount", Direction::HigherIsWorse),
            ("HealthyHostCount", Direction::LowerIsWorse),
            ("foo", Direction::HigherIsWorse),
        ] {
            assert_eq!(decide(&spec(name, "q", absolute(1.0)), 1).unwrap().rule.direction, wanted, "{name}");
        }
        let named_by_query = decide(&spec("", "sum(rate(errors_total[1m]))", absolute(1.0)), 1).unwrap();
        assert_eq!(named_by_query.rule.direction, Direction::HigherIsWorse);
    }

    #[test]
    fn a_written_comparison_wins() {
        let mut written = spec("error_rate", "q", absolute(1.0));
        written.comparison = Some(Comparison::GreaterOrEqual);
        let analysis = decide(&written, 1).unwrap();
        assert_eq!(analysis.rule.direction, Direction::LowerIsWorse);
        assert!(analysis.because.contains("comparison"));
        assert_eq!(analysis.rule.to_string(), "value >= 1");
    }

    #[test]
    fn percentages_are_ceilings_or_deviations() {
        let ceiling = decide(&spec("CPUUtilization", "q", percentage(80.0)), 1).unwrap();
        assert_eq!(ceiling.rule.formula, Formula::Value { limit: 80.0 });
        let deviation = decide(&spec("TargetResponseTime", "q", percentage(20.0)), 1).unwrap();
        assert_eq!(deviation.rule.formula, Formula::Deviation { percent: 20.0 });
    }

    #[test]
    fn windows_and_steps_follow_the_rehearsal() {
        for (duration_ms, factor, span_ms, step_ms) in [
            (600_000, 1, 600_000, 60_000),
            (300_000, 1, 300_000, 30_000),
            (3_600_000, 1, 3_600_000, 60_000),
            (5_000, 1, 5_000, 1_000),
            (600_000, 60, 10_000, 1_000),
            (600_000, 600, 1_000, 250),
            (600_000, 0, 600_000, 60_000),
        ] {
            let mut spec = spec("a", "q", absolute(1.0));
            spec.duration_ms = duration_ms;
            let analysis = decide(&spec, factor).unwrap();
            assert_eq!((analysis.span.as_millis(), analysis.step.as_millis()), (span_ms, step_ms));
        }
    }

    #[test]
    fn variables_are_filled_and_escaped() {
        let variables = BTreeMap::from(
            [("canary", "v2"), ("baseline", "a\"b\\c"), ("$deploymentTag", "t")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let step = Duration::from_secs(60);
        let filled = |query| fill(query, &variables, step);
        assert_eq!(filled("x{v=\"$canary\",w=\"${baseline}\"}"), "x{v=\"v2\",w=\"a\\\"b\\\\c\"}");
        assert_eq!(
            filled("rate(x[$__interval]) + ${__interval} $deploymentTag"),
            "rate(x[60000ms]) + 60000ms t"
        );
        assert_eq!(
            filled("label_replace(x,\"a\",\"$1\",\"b\",\"(.*)$\")"),
            "label_replace(x,\"a\",\"$1\",\"b\",\"(.*)$\")"
        );
        assert_eq!(filled("$canaryX ${canary $ ${} $"), "$canaryX ${canary $ ${} $");
    }

    #[test]
    fn raw_counters_are_noticed() {
        for query in ["http_requests_total", "sum(http_requests_total{a=\"b\"})", "a_total - b_total"] {
            assert!(is_raw_counter(query), "{query}");
        }
        for query in [
            "rate(http_requests_total[5m])",
            "sum(increase (a_total[1m]))",
            "up",
            "total_errors",
            "x_total_rate",
        ] {
            assert!(!is_raw_counter(query), "{query}");
        }
        assert!(
            decide(&spec("a", "a_total", absolute(1.0)), 1).unwrap().notices[0]
                .starts_with("verify.raw-counter")
        );
    }

    #[test]
    fn faults_are_named_and_a_missing_provider_has_none() {
        let mut bad = spec("", " ", percentage(-1.0));
        bad.duration_ms = 0;
        if let Some(MetricProvider::Prometheus { connector }) = &mut bad.provider {
            connector.url = "prometheus:9090".into();
        }
        let fields: Vec<_> = check(&bad).unwrap_err().into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["query", "connectorRef", "threshold.value", "duration"]);
        bad.provider = None;
        assert_eq!(check(&bad), Ok(()));
        let mut without = spec("", "q", absolute(1.0));
        without.threshold = None;
        assert_eq!(check(&without).unwrap_err()[0].field, "threshold");
        assert!(decide(&without, 1).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_taken(query: String, name: String, value: String, factor: u32, duration_ms: u64) {
            let mut spec = spec(&name, &query, absolute(1.0));
            spec.duration_ms = duration_ms;
            spec.variables = BTreeMap::from([("canary".to_owned(), value)]);
            let analysis = decide(&spec, factor).unwrap();
            prop_assert!(analysis.step >= Duration::from_millis(250));
            prop_assert!(query.contains('$') || analysis.query == query);
        }
    }
}
