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
    assert_eq!(filled("rate(x[$__interval]) + ${__interval} $deploymentTag"), "rate(x[60000ms]) + 60000ms t");
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
    for query in
        ["rate(http_requests_total[5m])", "sum(increase (a_total[1m]))", "up", "total_errors", "x_total_rate"]
    {
        assert!(!is_raw_counter(query), "{query}");
    }
    assert!(
        decide(&spec("a", "a_total", absolute(1.0)), 1).unwrap().notices[0].starts_with("verify.raw-counter")
    );
}

#[test]
fn faults_are_named_and_a_missing_provider_has_none() {
    let mut bad = spec("", " ", percentage(-1.0));
    bad.duration_ms = 0;
    if let Some(MetricProvider::Prometheus { connector }) = &mut bad.provider {
        connector.url = "prometheus:9090".into();
    }
    let fields: Vec<_> = check(&bad, 1).unwrap_err().into_iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["query", "connectorRef", "threshold.value", "duration"]);
    bad.provider = None;
    assert_eq!(check(&bad, 1), Ok(()));
    let mut without = spec("", "q", absolute(1.0));
    without.threshold = None;
    assert_eq!(check(&without, 1).unwrap_err()[0].field, "threshold");
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

fn cloudwatch(
    metric: &str,
    query: &str,
    threshold: serde_json::Value,
    scope: serde_json::Value,
) -> VerifySpec {
    let account =
        json!({"connector": "aws", "region": "us-east-1", "credential": {"type": "InheritFromDelegate"}});
    serde_json::from_value(json!({
        "provider": {"type": "CloudWatch", "account": account, "scope": scope},
        "metricName": metric, "query": query, "threshold": threshold, "durationMs": 300_000,
    }))
    .unwrap()
}

#[test]
fn the_seeds_queries_of_cloudwatch_are_decided() {
    let scope = json!({"cluster": "c", "service": "s", "targetGroupArn": "arn:green", "baselineTargetGroupArn": "arn:blue"});
    let latency =
        cloudwatch("TargetResponseTime", "avg(TargetResponseTime)", percentage(20.0), scope.clone());
    assert_eq!(check(&latency, 1), Ok(()));
    let analysis = decide(&latency, 1).unwrap();
    assert_eq!(analysis.rule.to_string(), "(value - control) / |control| * 100 <= 20");
    assert!(analysis.because.ends_with("deviation from the other target group at the same time"));
    assert_eq!((analysis.span.as_secs(), analysis.step.as_secs(), analysis.absent_is_zero), (300, 60, false));
    let errors = cloudwatch(
        "HTTPCode_Target_5XX_Count",
        "sum(HTTPCode_Target_5XX_Count)",
        absolute(10.0),
        json!({"cluster": "c", "service": "s"}),
    );
    let analysis = decide(&errors, 60).unwrap();
    assert_eq!(analysis.rule.to_string(), "total <= 10");
    assert_eq!((analysis.span.as_secs(), analysis.step.as_secs(), analysis.absent_is_zero), (10, 1, true));
    // A label of another kind decides direction and reading; the metric decides what its absence means.
    let labelled = cloudwatch("memory", "p99(TargetResponseTime)", percentage(20.0), scope);
    assert_eq!(decide(&labelled, 1).unwrap().rule.formula, Formula::Value { limit: 20.0 });
    let before =
        cloudwatch("", "avg(RequestCount)", percentage(20.0), json!({"targetGroupArn": "arn:green"}));
    assert!(decide(&before, 1).unwrap().because.ends_with("the equal window before the stage"));
}

#[test]
fn windows_of_cloudwatch_hold_enough_samples() {
    let scope = json!({"cluster": "c", "service": "s"});
    let mut short = cloudwatch("", "avg(CPUUtilization)", absolute(80.0), scope);
    short.duration_ms = 120_000;
    assert_eq!(check(&short, 1).unwrap_err()[0].field, "duration");
    assert_eq!(check(&short, 60), Ok(()));
    for factor in [2, 7, 60, 6000] {
        let analysis = decide(&short, factor).unwrap();
        assert!(analysis.span >= analysis.step * 5, "{factor}: {analysis:?}");
    }
    let own = VerifySpec { query: "avg(Shop:Orders)".into(), ..short };
    assert_eq!(check(&own, 1), Ok(()));
    assert_eq!(decide(&own, 1).unwrap().step.as_secs(), 20);
}

#[test]
fn faults_of_cloudwatch_are_named() {
    let mut bad = cloudwatch("", "avg(Orders", percentage(-1.0), json!({}));
    bad.duration_ms = 0;
    if let Some(MetricProvider::CloudWatch { account, .. }) = &mut bad.provider {
        account.region.clear();
    }
    let fields: Vec<_> = check(&bad, 1).unwrap_err().into_iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["connectorRef", "query", "threshold.value", "duration"]);
}
