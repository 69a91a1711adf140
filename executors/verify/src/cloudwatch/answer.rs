//! The request of GetMetricData and what comes back.

use super::metric::Metric;
use super::query::Statistic;
use crate::judge::Point;
use aws::document;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Samples that one answer holds at most (GetMetricData's own limit).
const PAGE: u64 = 100_800;

/// What is asked for: one statistic of up to two metrics, in periods of one length.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) statistic: Statistic,
    /// Judged, and the control beside it.
    pub(crate) metrics: Vec<(&'static str, &'a Metric)>,
    pub(crate) period_s: u64,
}

impl Asked<'_> {
    /// The input of the call for the periods from `from` to before `until`, epoch milliseconds.
    pub(crate) fn input(&self, from: i64, until: i64) -> Value {
        let queries: Vec<Value> = self
            .metrics
            .iter()
            .map(|(id, metric)| {
                let pair = |(name, value)| json!({"Name": name, "Value": value});
                let dimensions: Vec<Value> = metric.dimensions.iter().map(pair).collect();
                let mut what = json!({"Namespace": metric.namespace, "MetricName": metric.name});
                // An empty list is not the same as none.
                if let (Value::Object(what), false) = (&mut what, dimensions.is_empty()) {
                    what.insert("Dimensions".to_owned(), dimensions.into());
                }
                let stat =
                    json!({"Metric": what, "Period": self.period_s, "Stat": self.statistic.to_string()});
                json!({"Id": id, "MetricStat": stat, "ReturnData": true})
            })
            .collect();
        json!({
            "MetricDataQueries": queries,
            "StartTime": proto::logs::rfc3339(from),
            "EndTime": proto::logs::rfc3339(until),
            "ScanBy": "TimestampAscending",
            "MaxDatapoints": PAGE,
        })
    }
}

/// What came back, page by page.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    samples: BTreeMap<String, BTreeMap<i64, f64>>,
    /// The status of each query at its last page.
    status: BTreeMap<String, String>,
    /// What CloudWatch says beside the samples.
    pub(crate) messages: Vec<String>,
}

impl Found {
    /// Takes a page in.
    ///
    /// **Errors**: it is no answer of GetMetricData.
    pub(crate) fn take(&mut self, page: &Value) -> Result<(), String> {
        if page.get("MetricDataResults").is_none_or(|results| !results.is_array()) {
            return Err("the answer holds no `MetricDataResults`".to_owned());
        }
        for result in document::list(page, &["MetricDataResults"]) {
            let Some(id) = document::text(result, &["Id"]) else {
                return Err("a result has no `Id`".to_owned());
            };
            let times = document::list(result, &["Timestamps"]);
            let values = document::list(result, &["Values"]);
            if times.len() != values.len() {
                return Err(format!("{} times and {} values do not fit", times.len(), values.len()));
            }
            let samples = self.samples.entry(id.to_owned()).or_default();
            for (time, value) in times.iter().zip(values) {
                let (Some(at_ms), Some(value)) = (document::time(time, &[]), document::number(value, &[]))
                else {
                    return Err(format!("the sample {value} at {time} cannot be read"));
                };
                if !value.is_nan() {
                    samples.insert(at_ms, value);
                }
            }
            let status = document::text(result, &["StatusCode"]).unwrap_or("Complete");
            self.status.insert(id.to_owned(), status.to_owned());
            self.messages.extend(messages(result));
        }
        self.messages.extend(messages(page));
        Ok(())
    }

    /// Samples of the query `id` within the periods, in the order of time.
    pub(crate) fn points(&self, id: &str, from: i64, until: i64) -> Vec<Point> {
        let Some(samples) = self.samples.get(id) else { return Vec::new() };
        if from >= until {
            return Vec::new();
        }
        samples.range(from..until).map(|(at_ms, value)| Point { at_ms: *at_ms, value: *value }).collect()
    }

    /// A query whose samples are not all there although there is no further page, with its status.
    pub(crate) fn incomplete(&self) -> Option<(&str, &str)> {
        let not_all = |status: &&String| status.as_str() != "Complete";
        let mut found = self.status.iter().filter(|(_, status)| not_all(status));
        found.next().map(|(id, status)| (id.as_str(), status.as_str()))
    }
}

fn messages(value: &Value) -> Vec<String> {
    let all = document::list(value, &["Messages"]).iter();
    all.filter_map(|message| {
        let code = document::text(message, &["Code"]).unwrap_or_default();
        let text = document::text(message, &["Value"]).unwrap_or_default();
        (!code.is_empty() || !text.is_empty()).then(|| format!("{code}: {text}"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(id: &str, status: &str, times: Value, values: Value) -> Value {
        json!({"MetricDataResults": [{"Id": id, "StatusCode": status, "Timestamps": times, "Values": values}]})
    }

    #[test]
    fn pages_come_together_in_the_order_of_time() {
        let mut found = Found::default();
        found
            .take(&page("test", "PartialData", json!([1_700_000_060, 1_700_000_000.0]), json!([2, 1.5])))
            .unwrap();
        assert_eq!(found.incomplete(), Some(("test", "PartialData")));
        let second = page("test", "Complete", json!(["2023-11-14T22:15:20Z"]), json!(["3"]));
        found.take(&second).unwrap();
        assert_eq!(found.incomplete(), None);
        let points = found.points("test", 1_700_000_000_000, 1_700_000_120_000);
        let wanted = [(1_700_000_000_000, 1.5), (1_700_000_060_000, 2.0)];
        assert_eq!(points, wanted.map(|(at_ms, value)| Point { at_ms, value }));
        assert_eq!(found.points("test", 1_700_000_120_000, i64::MAX).len(), 1);
        assert!(found.points("control", 0, i64::MAX).is_empty());
        assert!(found.points("test", 5, 5).is_empty() && found.points("test", 6, 5).is_empty());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for odd in [
            json!({}),
            json!({"MetricDataResults": {}}),
            json!({"MetricDataResults": [{}]}),
            page("a", "Complete", json!([1]), json!([])),
            page("a", "Complete", json!(["yesterday"]), json!([1])),
        ] {
            assert!(Found::default().take(&odd).is_err(), "{odd}");
        }
        let mut found = Found::default();
        found.take(&json!({"MetricDataResults": [], "Messages": [{"Code": "x", "Value": "y"}]})).unwrap();
        assert_eq!(found.messages, ["x: y"]);
    }

    #[test]
    fn the_request_names_metric_statistic_and_period() {
        let metric = Metric {
            namespace: "AWS/ECS".into(),
            name: "CPUUtilization".into(),
            dimensions: [("ClusterName".to_owned(), "c".to_owned())].into(),
        };
        let asked =
            Asked { statistic: Statistic::Percentile(99.9), metrics: vec![("test", &metric)], period_s: 60 };
        let input = asked.input(1_700_000_000_000, 1_700_000_060_000);
        assert_eq!(input["StartTime"], "2023-11-14T22:13:20.000Z");
        let stat = &input["MetricDataQueries"][0]["MetricStat"];
        assert_eq!(stat["Stat"], "p99.9");
        assert_eq!(stat["Period"], 60);
        assert_eq!(stat["Metric"]["Dimensions"], json!([{"Name": "ClusterName", "Value": "c"}]));
    }

    proptest! {
        #[test]
        fn any_numbers_are_read_or_refused(times: Vec<f64>, values: Vec<f64>, from: i64, until: i64) {
            let mut found = Found::default();
            let _any = found.take(&page("a", "Complete", json!(times), json!(values)));
            let points = found.points("a", from, until);
            prop_assert!(points.is_sorted_by_key(|point| point.at_ms));
        }
    }
}
