//! What AWS and the way to it answer, turned into [`StepError`] once.

use crate::operation::Service;
use crate::session::Session;
use executor_api::{CancelReason, Class, StepError};
use std::error::Error as StdError;
use std::time::Duration;

/// Why a call has no good answer. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The service refused it.
    #[error("{}", said(code, message, *status))]
    Refused {
        /// Which service.
        service: Service,
        /// Which action.
        operation: &'static str,
        /// The code of the answer, without namespace; empty when it has none.
        code: String,
        /// What the service says.
        message: String,
        /// HTTP status.
        status: u16,
        /// For AWS' support.
        request_id: Option<String>,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// No connection, or it broke.
    #[error("{cause}")]
    Connection {
        /// Innermost cause.
        cause: String,
        /// Whether the request may have reached the server.
        reached: bool,
        /// The foreign error.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// The certificate of the endpoint is not trusted.
    #[error("{0}")]
    Tls(String),
    /// There are no credentials to sign with; nothing was sent.
    #[error(transparent)]
    Credentials(#[from] CredentialFault),
    /// An endpoint or an alias is written wrongly; nothing was sent.
    #[error("{0}")]
    Endpoint(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// An answer that is none of AWS.
    #[error("{0}")]
    Strange(String),
    /// Ended on request.
    #[error("cancelled")]
    Cancelled(CancelReason),
}

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// Nobody has any, or what is configured cannot be used.
    #[error("{0}")]
    Missing(String),
    /// They are not accepted where others are to be got for them.
    #[error("{0}")]
    Invalid(String),
    /// They have expired.
    #[error("{0}")]
    Expired(String),
    /// The role may not be assumed.
    #[error("{0}")]
    Denied(String),
    /// Where they come from did not answer.
    #[error("{0}")]
    Unreachable(String),
}

fn said(code: &str, message: &str, status: u16) -> String {
    match (code.is_empty(), message.is_empty()) {
        (false, false) => format!("{code}: {message}"),
        (false, true) => code.to_owned(),
        (true, false) => format!("HTTP {status}: {message}"),
        (true, true) => format!("HTTP {status}"),
    }
}

/// Codes that ask to slow down (the standard retry mode of AWS' SDKs). `LimitExceeded` is a quota and not among them.
const THROTTLING: [&str; 12] = [
    "Throttling",
    "Throttled",
    "RequestThrottled",
    "TooManyRequests",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "ProvisionedThroughputExceeded",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2Throttled",
    "TransactionInProgress",
    "RequestRateExceeded",
];
/// Codes of refusals that pass by themselves, whatever their status.
const PASSING: [&str; 3] = ["RequestTimeout", "ConcurrentUpdate", "ServiceUnavailable"];
/// Codes for rights that are missing.
const DENIED: [&str; 5] =
    ["AccessDenied", "UnauthorizedOperation", "NotAuthorized", "AuthorizationError", "OptInRequired"];
/// Codes for keys that are not known.
const UNKNOWN_KEY: [&str; 8] = [
    "UnrecognizedClient",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "InvalidSignature",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "AuthFailure",
];
/// Codes that a wrong clock may be behind.
const TIME: [&str; 6] = [
    "RequestTimeTooSkewed",
    "RequestExpired",
    "RequestInTheFuture",
    "InvalidSignature",
    "SignatureDoesNotMatch",
    "AuthFailure",
];

/// JSON services write `ClusterNotFoundException` where the API reference of others has `ClusterNotFound`.
fn bare(code: &str) -> &str {
    code.strip_suffix("Exception").unwrap_or(code)
}

impl Fault {
    /// The code of the refusal, if the service gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Fault::Refused { code, .. } if !code.is_empty() => Some(code),
            _ => None,
        }
    }

    /// Whether the refusal has this code; with or without `Exception` at its end.
    pub fn is(&self, code: &str) -> bool {
        self.code().is_some_and(|found| bare(found) == bare(code))
    }

    fn is_one_of(&self, codes: &[&str]) -> bool {
        self.code().is_some_and(|found| codes.contains(&bare(found)))
    }

    /// Whether a right is missing.
    pub fn is_denied(&self) -> bool {
        self.is_one_of(&DENIED)
    }

    /// Whether the service asks to slow down.
    pub fn is_throttled(&self) -> bool {
        self.is_one_of(&THROTTLING) || matches!(self, Fault::Refused { status: 429, .. })
    }

    /// Whether temporary credentials have run out.
    pub fn is_expired(&self) -> bool {
        self.is_one_of(&["ExpiredToken", "TokenRefreshRequired"])
    }

    /// Whether it is not known what became of the request.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Fault::Connection { reached, .. } => *reached,
            // Whoever answered so, it may have passed the request on.
            Fault::Timeout(_) | Fault::Strange(_) => true,
            Fault::Refused { status, .. } => *status >= 500 && !self.is_throttled(),
            _ => false,
        }
    }

    /// Whether the same request may do better a moment later.
    pub fn may_pass(&self) -> bool {
        match self {
            Fault::Connection { .. } | Fault::Timeout(_) => true,
            Fault::Credentials(CredentialFault::Unreachable(_)) => true,
            // 501 is an emulator's or a proxy's "never".
            Fault::Refused { status, .. } => {
                (*status >= 500 && *status != 501) || self.is_throttled() || self.is_one_of(&PASSING)
            }
            _ => false,
        }
    }

    /// Whether the service surely did not do it.
    pub(crate) fn was_not_carried_out(&self) -> bool {
        match self {
            Fault::Connection { reached, .. } => !reached,
            Fault::Credentials(_) | Fault::Endpoint(_) | Fault::Tls(_) => true,
            Fault::Refused { status, .. } => self.is_throttled() || *status < 500,
            Fault::Timeout(_) | Fault::Strange(_) | Fault::Cancelled(_) => false,
        }
    }

    /// Whether a wrong clock may be behind it.
    pub(crate) fn is_about_time(&self) -> bool {
        self.is_one_of(&TIME)
    }

    /// The error of a step that wanted `what` (`update service web`).
    pub fn step(self, what: &str, session: &Session) -> StepError {
        let made = match &self {
            Fault::Refused { .. } => self.refused(what, session),
            Fault::Connection { cause, .. } => {
                StepError::new(Class::Connectivity, "AWS-007", format!("{what}: AWS cannot be reached ({cause})"))
                    .hint("check the endpoint, DNS, proxy and firewall between the agent's zone and AWS; `delegate connector test` shows which stage fails")
            }
            Fault::Tls(problem) => {
                StepError::new(Class::Connectivity, "AWS-008", format!("{what}: TLS with the endpoint failed: {problem}"))
                    .hint("set `ca_file` of the agent to the authority of a proxy or private endpoint, and use a name that stands in its certificate")
            }
            Fault::Credentials(fault) => without_credentials(fault, what),
            Fault::Endpoint(problem) => StepError::new(Class::BadSpec, "AWS-002", format!("{what}: {problem}"))
                .hint("correct the endpoint of the connector, the agent's AWS_ENDPOINT_URL variables or its `host_aliases`"),
            Fault::Timeout(limit) => {
                let text = format!("{what}: AWS did not answer within {} s", limit.as_secs());
                StepError::new(Class::Timeout, "AWS-010", text).hint("check the way to the endpoint; run the step again")
            }
            Fault::Strange(problem) => {
                StepError::new(Class::Connectivity, "AWS-011", format!("{what}: what answered is not AWS: {problem}"))
                    .hint("check the endpoint: a proxy or another service may stand there")
            }
            Fault::Cancelled(reason) => {
                StepError::new(Class::Cancelled { reason: *reason }, "AWS-013", format!("{what}: the step was cancelled"))
            }
        };
        let made = made.target(session.target());
        match self {
            Fault::Connection { source: Some(source), .. } => StepError { source: Some(source), ..made },
            _ => made,
        }
    }

    fn refused(&self, what: &str, session: &Session) -> StepError {
        let Fault::Refused { service, operation, code, message, status, request_id, retry_after } = self
        else {
            return StepError::new(Class::Bug, "AWS-012", what);
        };
        let text = match request_id {
            Some(id) => format!("{what}: {self} ({} {operation}, request {id})", service.title()),
            None => format!("{what}: {self} ({} {operation})", service.title()),
        };
        if self.is_denied() {
            let own = format!("{}:{operation}", service.iam_prefix());
            return denied(what, &own, message, session);
        }
        if self.is_throttled() {
            return StepError::new(Class::Throttled { retry_after: *retry_after }, "AWS-009", text)
                .hint("other callers use up the account's API limits in this region: run fewer deployments beside each other, or ask AWS to raise the limit");
        }
        if self.is_expired() {
            return StepError::new(Class::Authentication, "AWS-004", text).hint(
                "the credentials have expired; renew those of the connector, or let the agent assume a role",
            );
        }
        if self.is_one_of(&["RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"]) {
            return StepError::new(Class::Authentication, "AWS-015", text)
                .hint("the agent's clock and AWS' differ: synchronise the machine's time");
        }
        if self.is_one_of(&UNKNOWN_KEY) {
            return StepError::new(Class::Authentication, "AWS-003", text)
                .hint("check access key and secret key of the connector; `aws sts get-caller-identity` with them must succeed");
        }
        if *status >= 500 {
            return StepError::new(Class::Connectivity, "AWS-014", text).hint(
                "the service has a fault of its own; look at the AWS Health dashboard and run the step again",
            );
        }
        let bare = bare(code);
        let wrong = bare.contains("Invalid") || bare.contains("Validation") || bare.ends_with("NotFound");
        let class = if wrong { Class::BadSpec } else { Class::RemoteFailed { code: i32::from(*status) } };
        StepError::new(class, "AWS-012", text).hint("correct what the message names, then run the step again")
    }
}

fn without_credentials(fault: &CredentialFault, what: &str) -> StepError {
    match fault {
        CredentialFault::Missing(problem) => {
            StepError::new(Class::Authentication, "AWS-001", format!("{what}: no AWS credentials: {problem}"))
                .hint("give the connector keys, or the agent a role: IRSA, Pod Identity, a task or instance role, or its AWS_ variables")
        }
        CredentialFault::Invalid(problem) => {
            StepError::new(Class::Authentication, "AWS-003", format!("{what}: the credentials are not accepted: {problem}"))
                .hint("check access key and secret key of the connector; `aws sts get-caller-identity` with them must succeed")
        }
        CredentialFault::Expired(problem) => {
            StepError::new(Class::Authentication, "AWS-004", format!("{what}: the credentials have expired: {problem}"))
                .hint("the credentials have expired; renew those of the connector, or let the agent assume a role")
        }
        CredentialFault::Denied(problem) => {
            StepError::new(Class::Authorization, "AWS-005", format!("{what}: the role cannot be assumed: {problem}"))
                .hint("the role's trust policy must name the caller (and the external id of the connector), and the caller needs sts:AssumeRole on the role")
        }
        CredentialFault::Unreachable(problem) => {
            let text = format!("{what}: where credentials come from did not answer: {problem}");
            StepError::new(Class::Connectivity, "AWS-007", text)
                .hint("check that the agent reaches STS in its region, or the metadata service of its machine")
        }
    }
}

/// Says who lacks which right on what, with the least policy statement for it.
fn denied(what: &str, own: &str, message: &str, session: &Session) -> StepError {
    // Shown only: a call may need more than its own action (iam:PassRole), and AWS' text is where that is said.
    let action =
        after(message, "not authorized to perform: ").filter(|found| found.contains(':')).unwrap_or(own);
    let resource = after(message, "on resource: ").map(|found| found.trim_end_matches('.')).unwrap_or("*");
    let who = session.known_caller().map_or_else(|| "the caller".to_owned(), |caller| caller.arn);
    let statement = serde_json::json!({"Effect": "Allow", "Action": action, "Resource": resource});
    let mut text = format!("{what}: {who} may not {action}");
    if resource != "*" {
        text.push_str(&format!(" on {resource}"));
    }
    if !message.is_empty() {
        text.push_str(&format!(": {message}"));
    }
    StepError::new(Class::Authorization, "AWS-006", text)
        .hint(format!("the least statement that a policy of the caller needs: {statement}"))
}

/// The word that follows `marker`.
fn after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(marker)?;
    rest.split_whitespace().next()
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
