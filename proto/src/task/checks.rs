//! Steps that look: Http and Verify.

use crate::task::aws::AwsAccount;
use crate::task::command::OutputVariable;
use crate::task::source::HttpConnector;
use crate::text::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The Http step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpSpec {
    /// URL; placeholders allowed.
    pub url: Text,
    /// Method, any case.
    pub method: String,
    /// Headers in their order.
    #[serde(default)]
    pub headers: Vec<(String, Text)>,
    /// Body.
    #[serde(default)]
    pub body: Option<Text>,
    /// Expression text, evaluated on the agent over `httpResponseCode` and `httpResponseBody`; every other reference
    /// was resolved by the manager into `context`.
    #[serde(default)]
    pub assertion: Option<String>,
    /// Outputs as expressions over the response.
    #[serde(default)]
    pub output_variables: Vec<OutputVariable>,
    /// Limit of the request alone, milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Values of the other references in `assertion` and `outputVariables`, as one JSON object by first name.
    #[serde(default)]
    pub context: Value,
    /// Harness passes on any status without an assertion; set, this does too (`http.noAssertion: harness`).
    #[serde(default)]
    pub any_status: bool,
}

/// The Verify step in its inline form (rule R10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// Where the numbers come from. `None`: no health source, the step is skipped with a notice.
    #[serde(default)]
    pub provider: Option<MetricProvider>,
    /// Label of the metric; gives the direction unless `comparison` does.
    #[serde(default)]
    pub metric_name: String,
    /// Query text, with `$baseline`, `$canary`, `$deploymentTag`.
    pub query: String,
    /// The limit.
    #[serde(default)]
    pub threshold: Option<Threshold>,
    /// `LessOrEqual` or `GreaterOrEqual`; wins over the guessed direction.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// Length of the window in real time, milliseconds; divided by the rehearsal factor on the agent.
    pub duration_ms: u64,
    /// `false`: no data in the whole window passes.
    #[serde(default = "yes")]
    pub fail_on_no_analysis: bool,
    /// Values of `$baseline`, `$canary`, `$deploymentTag`.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// When the stage started, epoch milliseconds: the control window of a percentage threshold ends there.
    #[serde(default)]
    pub stage_started_at: u64,
    /// Compares nodes with each other instead of one series with a limit; provider, query and threshold above are unused
    /// then.
    #[serde(default)]
    pub canary: Option<CanaryAnalysis>,
}

/// Canary nodes against the rest, at the same time (Verify `type: Canary`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAnalysis {
    /// How small a difference fails.
    #[serde(default)]
    pub sensitivity: Sensitivity,
    /// What is compared: the metrics of the health sources. None: the step is skipped with a notice.
    pub metrics: Vec<CanaryMetric>,
    /// Names of the canary's nodes; `web-canary-*` means every name that begins so. Every other node is control.
    pub canary_nodes: Vec<String>,
}

/// How small a difference fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sensitivity {
    /// A tenth worse.
    High,
    /// A quarter worse.
    #[default]
    Medium,
    /// Half as much again.
    Low,
}

/// One metric of a health source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryMetric {
    /// Name for messages; gives the direction unless `comparison` does.
    pub name: String,
    /// Where the numbers come from.
    pub provider: MetricProvider,
    /// A query that gives one series for each node.
    pub query: String,
    /// The label that names the node.
    pub node_label: String,
    /// `LessOrEqual` or `GreaterOrEqual`; wins over the guessed direction.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// A canary node beyond this value fails the step at once.
    #[serde(default)]
    pub fail_fast: Option<f64>,
}

fn yes() -> bool {
    true
}

/// Where the numbers come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum MetricProvider {
    /// Prometheus HTTP API.
    Prometheus {
        /// The server.
        connector: HttpConnector,
    },
    /// CloudWatch metrics.
    CloudWatch {
        /// The account.
        account: AwsAccount,
        /// What of the stage's ECS deployment the metric is of.
        #[serde(default)]
        scope: Box<CloudWatchScope>,
    },
    /// Events of CloudWatch Logs that match a pattern, counted.
    CloudWatchLogs {
        /// The account.
        account: AwsAccount,
        /// Where they are looked for.
        scope: Box<LogScope>,
    },
}

/// Where events are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogScope {
    /// Names of log groups.
    pub groups: Vec<String>,
    /// How the names of their streams begin; every stream when it is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_prefix: Option<String>,
}

/// What a CloudWatch metric is of: the stage's service and target groups, as far as they are known when the step starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudWatchScope {
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Name of the service.
    pub service: Option<String>,
    /// ARN of the target group that gets what is verified (green, or the only one).
    pub target_group_arn: Option<String>,
    /// ARN of the target group to compare with (blue).
    pub baseline_target_group_arn: Option<String>,
    /// ARN of the load balancer.
    pub load_balancer_arn: Option<String>,
    /// Written in the step: namespace instead of the one that the metric's name gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Written in the step: dimensions instead of those above; empty when none are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<String, String>,
    /// Written in the step: statistic instead of the one of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistic: Option<String>,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum Threshold {
    /// Compared with the value itself.
    Absolute(f64),
    /// A ceiling in percent, or a deviation from the control window: settled facts §3.2.
    Percentage(f64),
}

/// Which side of the threshold is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Higher is worse.
    LessOrEqual,
    /// Lower is worse.
    GreaterOrEqual,
}
