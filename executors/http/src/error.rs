//! Every error of this executor, and the one place where it is classified.

use executor_api::{CancelReason, CheckpointError, Class, LogClosed, SecretError, SpecFault, StepError};
use std::error::Error as StdError;
use std::time::Duration;

/// What can go wrong with an Http step. `target` is the URL without its query, which may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec is wrong; every fault is named.
    #[error("the Http step is written wrongly: {}", list(.0))]
    Spec(Vec<SpecFault>),
    /// The host name has no address.
    #[error("the host of {target} could not be resolved")]
    Resolve {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        #[source]
        #[expect(missing_docs, reason = "The foreign error.")]
        source: reqwest::Error,
    },
    /// No connection, or it broke.
    #[error("{target}: {problem} ({cause}){}", if *.maybe_done { "; whether the request was carried out is unknown" } else { "" })]
    Connection {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// In which phase.
        problem: &'static str,
        /// What the system says: `Connection refused (os error 111)`.
        cause: String,
        /// A request that changes something had left.
        maybe_done: bool,
        #[source]
        #[expect(missing_docs, reason = "The foreign error.")]
        source: reqwest::Error,
    },
    /// The certificate is not trusted, expired, or for another name.
    #[error("TLS with {target} failed: {problem}")]
    Tls {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// What the TLS library says of the certificate.
        problem: String,
    },
    /// No full answer in time.
    #[error("{target} did not answer within {} ms{}", .limit.as_millis(), if *.maybe_done { "; whether the request was carried out is unknown" } else { "" })]
    Timeout {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// The limit that ran out.
        limit: Duration,
        /// A request that changes something had left.
        maybe_done: bool,
    },
    /// A metadata endpoint of a cloud.
    #[error(
        "{target} is a metadata endpoint of a cloud ({address}); this agent does not ask those for a pipeline"
    )]
    Metadata {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// The address.
        address: String,
    },
    /// The status says no and no assertion says otherwise.
    #[error("{target} answered HTTP {status}")]
    Status {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// The status.
        status: u16,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// The assertion is false.
    #[error("assertion failed: `{assertion}` is false for HTTP {status} of {target}")]
    Assertion {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// Its text.
        assertion: String,
        /// The status.
        status: u16,
    },
    /// The assertion gives no boolean.
    #[error("assertion `{assertion}` is not a valid expression: {problem}")]
    NotBoolean {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// Its text.
        assertion: String,
        /// What it gave instead, or where it is wrong.
        problem: String,
    },
    /// An output cannot be computed.
    #[error("output variable `{name}` cannot be computed: {problem}")]
    Output {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// Its name.
        name: String,
        /// Why.
        problem: String,
    },
    /// A redirect that is not followed.
    #[error("{target} redirects, and the redirect is not followed: {problem}")]
    Redirect {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// Why not.
        problem: String,
    },
    /// The body is needed and too long.
    #[error("the response of {target} is longer than {limit} bytes, and an expression needs all of it")]
    BodyTooLong {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        /// The limit.
        limit: usize,
    },
    /// A secret cannot be had.
    #[error("{field}: {source}")]
    Secret {
        /// Path inside the spec.
        field: String,
        #[source]
        #[expect(missing_docs, reason = "The foreign error.")]
        source: SecretError,
    },
    /// The intent could not be made durable, so nothing was sent.
    #[error("nothing was sent to {target}, because the intent could not be recorded")]
    Checkpoint {
        #[expect(missing_docs, reason = "See the enum.")]
        target: String,
        #[source]
        #[expect(missing_docs, reason = "The foreign error.")]
        source: CheckpointError,
    },
    /// The request was sent by an earlier life of the agent that never saw the answer.
    #[error("{0}")]
    Vanished(String),
    /// Ended on request.
    #[error("the Http step was cancelled{}", if *.maybe_done { "; the request had been sent, whether it was carried out is unknown" } else { "" })]
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// A request that changes something had left.
        maybe_done: bool,
    },
}

impl Error {
    /// Whether another try may help and does no harm. A request that may have been carried out is not repeated unless
    /// `repeatable` says that its method allows it.
    pub(crate) fn may_retry(&self, repeatable: bool) -> bool {
        match self {
            Error::Resolve { .. } => true,
            Error::Connection { maybe_done, .. } => repeatable || !maybe_done,
            _ => false,
        }
    }
}

impl From<LogClosed> for Error {
    fn from(_: LogClosed) -> Self {
        // The pipeline closes only when the agent goes down.
        Error::Cancelled { reason: CancelReason::Drain, maybe_done: false }
    }
}

fn list(faults: &[SpecFault]) -> String {
    faults.iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect::<Vec<_>>().join("; ")
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        let step = |class, code| StepError::new(class, code, what.clone());
        match error {
            Error::Spec(_) => step(Class::BadSpec, "HTTP-001").target("the step's spec"),
            Error::Resolve { target, source } => step(Class::Connectivity, "HTTP-002")
                .target(target)
                .hint("Check the host name, and the DNS of the agent's zone; an agent elsewhere may see the host.")
                .source(source.without_url()),
            Error::Connection { target, source, .. } => step(Class::Connectivity, "HTTP-003")
                .target(target)
                .hint("Check that the service listens there and that the agent's zone may reach it.")
                .source(source.without_url()),
            Error::Tls { target, .. } => step(Class::Connectivity, "HTTP-004")
                .target(target)
                .hint("Give the agent the right CA (`--ca-file`), or ask by the name in the certificate."),
            Error::Timeout { target, .. } => step(Class::Timeout, "HTTP-005").target(target),
            Error::Metadata { target, .. } => step(Class::Authorization, "HTTP-006").target(target),
            Error::Status { target, status, retry_after } => {
                let class = match status {
                    401 => Class::Authentication,
                    403 => Class::Authorization,
                    429 => Class::Throttled { retry_after },
                    _ => Class::RemoteFailed { code: i32::from(status) },
                };
                step(class, "HTTP-007")
                    .target(target)
                    .hint("Write an `assertion` if this status is what the step should accept.")
            }
            Error::Assertion { target, status, .. } => {
                step(Class::RemoteFailed { code: i32::from(status) }, "HTTP-008").target(target)
            }
            Error::NotBoolean { target, .. } => step(Class::BadSpec, "HTTP-009")
                .target(target)
                .hint("An assertion compares, for example `<+httpResponseCode> == 200`."),
            Error::Redirect { target, .. } => {
                step(Class::RemoteFailed { code: 1 }, "HTTP-010").target(target)
            }
            Error::BodyTooLong { target, .. } => {
                step(Class::RemoteFailed { code: 1 }, "HTTP-011").target(target)
            }
            Error::Secret { source, .. } => step(Class::BadSpec, "HTTP-012").target("the step's spec").source(source),
            Error::Checkpoint { target, source } => step(Class::Bug, "HTTP-013")
                .target(target)
                .hint("Look at the agent's journal: its disk may be full.")
                .source(source),
            Error::Vanished(_) => step(Class::Connectivity, "HTTP-014")
                .hint("Look at the target: the request may or may not have been carried out. Then run the step again."),
            Error::Cancelled { reason, .. } => step(Class::Cancelled { reason }, "HTTP-015"),
            Error::Output { target, .. } => step(Class::BadSpec, "HTTP-016").target(target),
        }
    }
}

/// What `error` means for a request to `target`. `unsafe_sent`: the request changes something.
pub(crate) fn of_reqwest(error: reqwest::Error, target: &str, changes: bool) -> Error {
    let target = target.to_owned();
    if let Some(guarded) = find::<crate::connect::Guarded>(&error) {
        return Error::Metadata { target, address: guarded.0.to_string() };
    }
    if let Some(tls) = find::<rustls::Error>(&error) {
        return Error::Tls { target, problem: tls.to_string() };
    }
    if error.is_dns() {
        return Error::Resolve { target, source: error };
    }
    let cause = innermost(&error);
    if error.is_connect() {
        let problem = "no connection could be made";
        return Error::Connection { target, problem, cause, maybe_done: false, source: error };
    }
    Error::Connection {
        target,
        problem: "the connection was lost",
        cause,
        maybe_done: changes,
        source: error,
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut error: &(dyn StdError + 'static) = error;
    while let Some(source) = error.source() {
        error = source;
    }
    // Only the outermost error holds the URL, and with it perhaps a secret.
    if error.is::<reqwest::Error>() { "no further cause is known".to_owned() } else { error.to_string() }
}

/// The first error of type `T` in the chain of sources. I/O errors hide what they wrap from `source`, so they are
/// opened on the way.
fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
