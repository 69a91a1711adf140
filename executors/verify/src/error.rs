//! Every error of this executor, and the one place where it is classified.

use executor_api::{CancelReason, Class, LogClosed, SecretError, SpecFault, StepError};
use std::time::Duration;

/// What can go wrong with a Verify step. `target` is the provider's URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec is wrong; every fault is named.
    #[error("the Verify step is written wrongly: {}", list(.0))]
    Spec(Vec<SpecFault>),
    /// The limit is violated.
    #[error("verification failed: {reason}; required is {rule} ({direction}) for `{metric}`")]
    Violated {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What was measured.
        metric: String,
        /// Which samples.
        reason: String,
        /// The formula.
        rule: String,
        /// Which side is bad.
        direction: String,
    },
    /// There is not enough to judge by.
    #[error("verification is inconclusive for `{metric}`: {reason}")]
    Inconclusive {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What was measured.
        metric: String,
        /// What is missing.
        reason: String,
    },
    /// No connection to the provider, or it did not answer in time.
    #[error("{target} cannot be reached: {cause}")]
    Unreachable {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What the system says.
        cause: String,
    },
    /// The certificate is not trusted, expired, or for another name.
    #[error("TLS with {target} failed: {problem}")]
    Tls {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What the TLS library says of the certificate.
        problem: String,
    },
    /// The provider does not understand the query.
    #[error("{target} refuses the query: {problem}")]
    Query {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// In the provider's words.
        problem: String,
    },
    /// The provider refuses us.
    #[error("{target} answered HTTP {status}: the credentials of connector `{connector}` are refused")]
    Refused {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// 401 or 403.
        status: u16,
        /// The connector.
        connector: String,
    },
    /// The query gives several series.
    #[error("the query gives {count} series instead of one: {labels}")]
    Series {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// How many.
        count: usize,
        /// The first few, by their labels.
        labels: String,
    },
    /// The provider answers, but not with samples.
    #[error("{target} answered HTTP {status}: {problem}")]
    Answer {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// The status.
        status: u16,
        /// What is wrong with it.
        problem: String,
        /// What the provider asked for.
        retry_after: Option<Duration>,
    },
    /// AWS refuses a call, or cannot be reached; classified already.
    #[error("{}", .0.what)]
    Aws(Box<StepError>),
    /// What a metric is of cannot be told.
    #[error("{problem}")]
    Place {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What was found.
        problem: String,
    },
    /// A log group is not there, or the pattern is none.
    #[error("{problem}")]
    Logs {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What was found.
        problem: String,
    },
    /// CloudWatch has not all samples, and gives no further page.
    #[error("CloudWatch gives the samples of `{metric}` only as `{status}`{}", said(.messages))]
    Incomplete {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What was asked for.
        metric: String,
        /// `InternalError`, `PartialData` or `Forbidden`.
        status: String,
        /// What it says beside that.
        messages: Vec<String>,
    },
    /// A secret of the connector cannot be had.
    #[error("connector `{connector}`: {source}")]
    Secret {
        /// The connector.
        connector: String,
        #[source]
        #[expect(missing_docs, reason = "The foreign error.")]
        source: SecretError,
    },
    /// Ended on request.
    #[error("the verification was cancelled; nothing was changed by it")]
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
}

impl Error {
    /// Whether a later query may go well. The budget for such errors is in the settings.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Error::Unreachable { .. } => true,
            Error::Answer { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            // Calls to AWS have been repeated already.
            Error::Incomplete { status, .. } => status != FORBIDDEN,
            _ => false,
        }
    }
}

impl From<LogClosed> for Error {
    fn from(_: LogClosed) -> Self {
        // The pipeline closes only when the agent goes down.
        Error::Cancelled { reason: CancelReason::Drain }
    }
}

/// Status of samples that the caller may not see.
const FORBIDDEN: &str = "Forbidden";

fn said(messages: &[String]) -> String {
    if messages.is_empty() { String::new() } else { format!(": {}", messages.join("; ")) }
}

fn list(faults: &[SpecFault]) -> String {
    faults.iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect::<Vec<_>>().join("; ")
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        let step = |class, code| StepError::new(class, code, what.clone());
        match error {
            Error::Spec(_) => step(Class::BadSpec, "VER-001").target("the step's spec"),
            Error::Violated { target, .. } => step(Class::Verification, "VER-002")
                .target(target)
                .hint("The log lists every sample. If the wrong side is taken as bad, write `comparison`."),
            Error::Inconclusive { target, .. } => step(Class::Verification, "VER-003")
                .target(target)
                .hint("Try the query in the provider's own page; `failOnNoAnalysis: false` lets a step without data pass."),
            Error::Unreachable { target, .. } => step(Class::Connectivity, "VER-004")
                .target(target)
                .hint("Check the connector's URL and that the agent's zone may reach it."),
            Error::Query { target, .. } => step(Class::BadSpec, "VER-005").target(target),
            Error::Refused { target, status, .. } => {
                let class = if status == 403 { Class::Authorization } else { Class::Authentication };
                step(class, "VER-006").target(target).hint("Check user, password or token of the connector.")
            }
            Error::Series { target, .. } => step(Class::BadSpec, "VER-007")
                .target(target)
                .hint("Join them: `sum(…)`, `max(…)` or `avg(…)` around the query, or select one by its labels."),
            Error::Answer { target, status: 429, retry_after, .. } => {
                step(Class::Throttled { retry_after }, "VER-008").target(target)
            }
            Error::Answer { target, status, .. } => {
                step(Class::RemoteFailed { code: i32::from(status) }, "VER-008")
                    .target(target)
                    .hint("Check the connector's URL, its path included: `URL/api/v1/query?query=up` must answer.")
            }
            Error::Tls { target, .. } => step(Class::Connectivity, "VER-009")
                .target(target)
                .hint("Give the agent the right CA (`--ca-file`), or ask by the name in the certificate."),
            Error::Secret { connector, source } => {
                step(Class::BadSpec, "VER-010").target(format!("connector {connector}")).source(source)
            }
            Error::Aws(error) => *error,
            Error::Place { target, .. } => step(Class::BadSpec, "VER-012").target(target).hint(
                "Write `dimensions` in the step, or in the query: `avg(AWS/ApplicationELB:TargetResponseTime{TargetGroup=…, LoadBalancer=…})`.",
            ),
            Error::Logs { target, .. } => step(Class::BadSpec, "VER-014").target(target).hint(
                "`aws logs filter-log-events --log-group-name G --filter-pattern P` shows what the step asks for.",
            ),
            Error::Incomplete { target, status, .. } => {
                let class = if status == FORBIDDEN { Class::Authorization } else { Class::Connectivity };
                step(class, "VER-013").target(target).hint(
                    "The caller needs cloudwatch:GetMetricData, also in the account that owns the metric; otherwise run the step again.",
                )
            }
            Error::Cancelled { reason } => step(Class::Cancelled { reason }, "VER-011"),
        }
    }
}
