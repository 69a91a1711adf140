//! From the inline form of a seed to a rule, a window and a query. **Source**: settled facts §3.2, facts C3.2.

use crate::cloudwatch::{Statistic, Wanted, period};
use crate::judge::{Aggregate, Direction, Formula, MIN_POINTS, Rule, number};
use executor_api::SpecFault;
use proto::task::{CloudWatchScope, Comparison, HttpConnector, MetricProvider, Threshold, VerifySpec};
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
    /// What a query of CloudWatch asks for.
    pub(crate) wanted: Option<Wanted>,
    /// Things a person should read.
    pub(crate) notices: Vec<String>,
}

/// Every fault that can be seen without I/O. `factor` is the rehearsal's.
pub(crate) fn check(spec: &VerifySpec, factor: u32) -> Result<(), Vec<SpecFault>> {
    if let Some(canary) = &spec.canary {
        return crate::canary::check(spec, canary);
    }
    let mut faults = Vec::new();
    let fault = |field: &str, problem: String| SpecFault { field: field.into(), problem };
    match &spec.provider {
        // Without a source the step is skipped, whatever else it says.
        None => return Ok(()),
        Some(MetricProvider::Prometheus { connector }) => {
            if spec.query.trim().is_empty() {
                faults.push(fault("query", "is empty; expected a PromQL expression".into()));
            }
            faults.extend(bad_url(connector).map(|problem| fault("connectorRef", problem)));
        }
        Some(MetricProvider::CloudWatch { account, scope }) => {
            if account.region.trim().is_empty() {
                faults
                    .push(fault("connectorRef", "names no region; expected for example `us-east-1`".into()));
            }
            match wanted(spec, scope, step_of(Duration::from_millis(spec.duration_ms), factor)) {
                Ok((_, wanted)) => faults.extend(too_short(spec, &wanted, factor)),
                Err(found) => faults.extend(found),
            }
        }
        Some(MetricProvider::CloudWatchLogs { account, scope }) => {
            if account.region.trim().is_empty() {
                faults
                    .push(fault("connectorRef", "names no region; expected for example `us-east-1`".into()));
            }
            if scope.groups.iter().all(|group| group.trim().is_empty()) {
                faults.push(fault("logGroup", "is empty; expected the name of a log group".into()));
            }
            if spec.query.trim().is_empty() {
                faults.push(fault("query", "is empty; expected a pattern, for example `ERROR`".into()));
            }
        }
    }
    match spec.threshold {
        None => faults.push(fault(
            "threshold",
            "is missing; expected `{type: Absolute, spec: {value: N}}` or Percentage".into(),
        )),
        Some(Threshold::Absolute(value)) if !value.is_finite() => {
            faults.push(fault("threshold.value", format!("{value} is not a number to compare with")));
        }
        Some(Threshold::Percentage(value)) if !value.is_finite() || value < 0.0 => {
            faults.push(fault("threshold.value", format!("{value} is not a percentage; expected 0 or more")));
        }
        Some(_) => {}
    }
    if spec.duration_ms == 0 {
        faults.push(fault("duration", "is 0; expected for example `10m`".into()));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// The query of CloudWatch with its variables in place, and what it asks for.
fn wanted(
    spec: &VerifySpec,
    scope: &CloudWatchScope,
    step: Duration,
) -> Result<(String, Wanted), Vec<SpecFault>> {
    let text = if spec.query.trim().is_empty() { &spec.metric_name } else { &spec.query };
    let query = fill(text, &spec.variables, step);
    Wanted::read(&query, scope).map(|wanted| (query, wanted))
}

/// A window that can never hold enough samples of a metric that has one each minute.
fn too_short(spec: &VerifySpec, wanted: &Wanted, factor: u32) -> Option<SpecFault> {
    let least = Duration::from_secs(60).saturating_mul(u32::try_from(MIN_POINTS).unwrap_or(u32::MAX));
    let real = Duration::from_millis(spec.duration_ms);
    let short = factor <= 1 && wanted.is_of_aws() && !real.is_zero() && real < least;
    short.then(|| SpecFault {
        field: "duration".into(),
        problem: format!(
            "is {} s; `{}` has one sample a minute and {MIN_POINTS} are needed: expected at least 5m",
            number(real.as_secs_f64()),
            wanted.name
        ),
    })
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

/// Decides how `spec` is judged. `factor` is the rehearsal's. `None` for what `check` refuses.
pub(crate) fn decide(spec: &VerifySpec, factor: u32) -> Option<Analysis> {
    let real = Duration::from_millis(spec.duration_ms);
    let (span, step) = (real / factor.max(1), step_of(real, factor));
    let base = match &spec.provider {
        Some(MetricProvider::CloudWatch { scope, .. }) => cloudwatch(spec, scope, (span, step), factor)?,
        Some(MetricProvider::CloudWatchLogs { .. }) => logs(spec, (span, step), factor),
        _ => prometheus(spec, (span, step)),
    };
    let (formula, reading) = match spec.threshold? {
        Threshold::Absolute(limit) => (Formula::Value { limit }, None),
        Threshold::Percentage(percent) if is_ceiling(&base.label) => {
            let text = format!("the threshold of {percent} percent is read as a ceiling of `{}`", base.label);
            (Formula::Value { limit: percent }, Some(text))
        }
        Threshold::Percentage(percent) => {
            let control = if base.beside {
                "the other target group at the same time"
            } else {
                "the equal window before the stage"
            };
            let text = format!("the threshold of {percent} percent is read as a deviation from {control}");
            (Formula::Deviation { percent }, Some(text))
        }
    };
    let mut analysis = base.analysis;
    analysis.rule.formula = formula;
    analysis.because = [Some(analysis.because), reading].into_iter().flatten().collect::<Vec<_>>().join("; ");
    Some(analysis)
}

/// What a provider decides.
struct Base {
    /// The name that says what a percentage means.
    label: String,
    /// There is a control at the same time.
    beside: bool,
    /// Its formula is decided afterwards.
    analysis: Analysis,
}

fn prometheus(spec: &VerifySpec, (span, step): (Duration, Duration)) -> Base {
    let (direction, because) = direction_by(spec.comparison, &spec.metric_name, &spec.query);
    let query = fill(&spec.query, &spec.variables, step);
    let mut notices = Vec::new();
    if is_raw_counter(&query) {
        notices.push(
            "verify.raw-counter: the query reads a counter without rate() or increase(); it only grows, and is judged as written"
                .to_owned(),
        );
    }
    let rule = Rule { direction, formula: Formula::Value { limit: 0.0 }, aggregate: Aggregate::Mean };
    let absent_is_zero = is_count_absent_when_zero(&spec.metric_name);
    let analysis = Analysis { rule, because, span, step, query, absent_is_zero, wanted: None, notices };
    Base { label: spec.metric_name.clone(), beside: false, analysis }
}

fn cloudwatch(
    spec: &VerifySpec,
    scope: &CloudWatchScope,
    (span, step): (Duration, Duration),
    factor: u32,
) -> Option<Base> {
    let (query, wanted) = wanted(spec, scope, step).ok()?;
    let label = if spec.metric_name.trim().is_empty() { &wanted.name } else { &spec.metric_name };
    let (direction, because) = direction_by(spec.comparison, label, &wanted.name);
    // A rehearsal is too short for samples a minute apart; it looks for closer ones, and as many as `step_of` aims at.
    let step = period(step, wanted.is_of_aws() && factor <= 1);
    let span = if factor > 1 { span.max(step.saturating_mul(10)) } else { span };
    let aggregate = if wanted.statistic == Statistic::Sum { Aggregate::Total } else { Aggregate::Mean };
    let rule = Rule { direction, formula: Formula::Value { limit: 0.0 }, aggregate };
    let beside = wanted.baseline(scope).is_some();
    let label = label.clone();
    let absent_is_zero = wanted.absent_is_zero();
    let notices = Vec::new();
    let wanted = Some(wanted);
    let analysis = Analysis { rule, because, span, step, query, absent_is_zero, wanted, notices };
    Some(Base { label, beside, analysis })
}

/// Events that match are counted; a period without one has 0.
fn logs(spec: &VerifySpec, (span, step): (Duration, Duration), factor: u32) -> Base {
    let query = fill(&spec.query, &spec.variables, step);
    let (direction, because) = match spec.comparison {
        None => (Direction::HigherIsWorse, "events that match are taken for bad ones".to_owned()),
        written => direction_by(written, &spec.metric_name, &query),
    };
    let step = period(step, false);
    let span = if factor > 1 { span.max(step.saturating_mul(10)) } else { span };
    let rule = Rule { direction, formula: Formula::Value { limit: 0.0 }, aggregate: Aggregate::Total };
    let notices = Vec::new();
    let analysis =
        Analysis { rule, because, span, step, query, absent_is_zero: false, wanted: None, notices };
    // A percentage of a count is always a deviation, whatever the check is called.
    Base { label: String::new(), beside: false, analysis }
}

/// A tenth of the window, within 1 s and 60 s, divided by the rehearsal factor; not below 250 ms, because scrapes are
/// hardly ever closer than that.
pub(crate) fn step_of(real: Duration, factor: u32) -> Duration {
    let step = (real / 10).clamp(Duration::from_secs(1), Duration::from_secs(60));
    (step / factor.max(1)).max(Duration::from_millis(250))
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
#[path = "spec_tests.rs"]
mod tests;
