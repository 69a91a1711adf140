//! What the API server and the way to it answer, turned into [`StepError`] once.

use executor_api::{CancelReason, CheckpointError, Class, LogClosed, SecretError, StepError};
use kube::core::Status;
use std::error::Error as StdError;
use std::time::Duration;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The server refused it.
    #[error("{}", .status.message)]
    Refused { status: Box<Status>, retry_after: Option<Duration> },
    /// No connection, or it broke.
    #[error("{cause}")]
    Connection {
        cause: String,
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// The certificate of the server is not trusted.
    #[error("{0}")]
    Tls(String),
    /// The credentials could not be made: an exec plugin failed, a token file is gone.
    #[error("{0}")]
    Credentials(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// An answer that is no Kubernetes answer.
    #[error("{0}")]
    Strange(String),
    /// Ended on request.
    #[error("cancelled")]
    Cancelled(CancelReason),
}

impl Fault {
    /// The HTTP status, if the server answered.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Fault::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether it is not known what became of the request.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self, Fault::Connection { .. } | Fault::Timeout(_))
    }

    /// Whether the same request may do better a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Fault::Connection { .. } => true,
            // A server that starts answers 429, 500 (its post-start hooks) with Retry-After, 503 or 504.
            Fault::Refused { status, retry_after } => {
                matches!(status.code, 429 | 503 | 504) || (status.code == 500 && retry_after.is_some())
            }
            _ => false,
        }
    }

    /// The causes that the server names: field, reason, message.
    pub(crate) fn causes(&self) -> Vec<(&str, &str, &str)> {
        let Fault::Refused { status, .. } = self else { return Vec::new() };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.map(|cause| (cause.field.as_str(), cause.reason.as_str(), cause.message.as_str())).collect()
    }

    /// Whether one of the causes has this reason.
    pub(crate) fn has_cause(&self, reason: &str) -> bool {
        self.causes().iter().any(|(_, found, _)| *found == reason)
    }

    /// The error of a step that wanted `what` (`apply ns/Deployment/web`) from `target`, the cluster.
    pub(crate) fn step(self, what: &str, target: &str) -> StepError {
        let made = match &self {
            Fault::Refused { status, retry_after } => refused(&self, status, *retry_after, what),
            Fault::Connection { cause, .. } => {
                StepError::new(Class::Connectivity, "KUBE-011", format!("{what}: the API server cannot be reached ({cause})"))
                    .hint("check the URL of the connector, and that the agent's zone may reach the API server")
            }
            Fault::Tls(problem) => {
                StepError::new(Class::Connectivity, "KUBE-012", format!("{what}: TLS with the API server failed: {problem}"))
                    .hint("give the connector the CA of the cluster, as PEM, and use a name that stands in its certificate")
            }
            Fault::Credentials(problem) => {
                StepError::new(Class::Authentication, "KUBE-013", format!("{what}: no credentials: {problem}"))
                    .hint("run the exec plugin or look at the token file of the kubeconfig on the agent's machine, as its user")
            }
            Fault::Timeout(limit) => StepError::new(
                Class::Timeout,
                "KUBE-015",
                format!("{what}: the API server did not answer within {} s", limit.as_secs()),
            )
            .hint("look for slow admission webhooks and an overloaded API server"),
            Fault::Strange(problem) => StepError::new(
                Class::Connectivity,
                "KUBE-011",
                format!("{what}: what answered is not a Kubernetes API server: {problem}"),
            )
            .hint("check the URL of the connector: a proxy or another service may stand there"),
            Fault::Cancelled(reason) => cancelled(*reason, what),
        };
        let made = made.target(target);
        match self {
            Fault::Connection { source: Some(source), .. } => StepError { source: Some(source), ..made },
            _ => made,
        }
    }
}

fn refused(fault: &Fault, status: &Status, retry_after: Option<Duration>, what: &str) -> StepError {
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    let remote = Class::RemoteFailed { code: i32::from(status.code) };
    match status.code {
        401 => StepError::new(Class::Authentication, "KUBE-013", format!("{what}: the API server does not know these credentials"))
            .hint("the token or certificate of the connector is wrong or expired; renew it and run `delegate connector test`"),
        403 if fault.has_cause("NamespaceTerminating") => {
            StepError::new(remote, "KUBE-023", format!("{what}: {said}"))
                .hint("wait until the namespace is gone; `kubectl get namespace NAME -o yaml` says what holds it")
        }
        403 => StepError::new(Class::Authorization, "KUBE-014", format!("{what}: {said}"))
            .hint("give the account of the connector a role with this verb on this resource, or look at the quota or policy that is named"),
        404 => StepError::new(Class::BadSpec, "KUBE-035", format!("{what}: {said}"))
            .hint("create what is missing first, or add it to the manifests"),
        409 if fault.has_cause("FieldManagerConflict") => conflict(fault, what),
        409 => StepError::new(remote, "KUBE-027", format!("{what}: {said}"))
            .hint("somebody changed it at the same time; run the step again"),
        400 | 422 => {
            let immutable = said.contains("field is immutable") || said.contains("may not change");
            let (code, hint) = if immutable {
                ("KUBE-024", "delete the object and let the step create it again, or give it another name")
            } else {
                ("KUBE-017", "correct the manifest at the field that is named")
            };
            StepError::new(Class::BadSpec, code, format!("{what}: {said}")).hint(hint)
        }
        // An unknown field in a strict server-side apply.
        500 if said.contains("failed to create typed patch object") => {
            StepError::new(Class::BadSpec, "KUBE-017", format!("{what}: {said}"))
                .hint("correct the manifest at the field that is named")
        }
        429 => StepError::new(Class::Throttled { retry_after }, "KUBE-016", format!("{what}: the API server asks to slow down"))
            .hint("look at priority levels (`kubectl get --raw /debug/api_priority_and_fairness/dump_priority_levels`)"),
        _ => StepError::new(remote, "KUBE-029", format!("{what}: the API server answered {}: {said}", status.code))
            .hint("an admission webhook may be away: `kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations`"),
    }
}

fn conflict(fault: &Fault, what: &str) -> StepError {
    let fields: Vec<String> = fault
        .causes()
        .into_iter()
        .filter(|(_, reason, _)| *reason == "FieldManagerConflict")
        .map(|(field, _, message)| format!("{} ({message})", field.trim_start_matches('.')))
        .collect();
    let text = format!("{what}: fields belong to somebody else: {}", fields.join(", "));
    StepError::new(Class::BadSpec, "KUBE-019", text).hint(
        "take these fields out of the manifest, or take them over with the command flag `--force-conflicts` of Apply",
    )
}

/// The error of a step that was ended on request. `state` says what is in the cluster.
pub(crate) fn cancelled(reason: CancelReason, state: &str) -> StepError {
    StepError::new(Class::Cancelled { reason }, "KUBE-028", format!("the step was cancelled: {state}"))
}

/// The intent could not be made durable, so nothing was sent.
pub(crate) fn not_recorded(error: CheckpointError) -> StepError {
    StepError::new(Class::Bug, "KUBE-030", format!("nothing was changed, because {error}"))
        .hint("look at the agent's journal: its disk may be full")
        .source(error)
}

/// The log pipeline closes only when the agent goes down.
pub(crate) fn log_closed(_: LogClosed) -> StepError {
    cancelled(CancelReason::Drain, "the agent goes down")
}

/// A secret of the connector or the manifest cannot be had.
pub(crate) fn no_secret(field: &str, error: SecretError) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-031", format!("{field}: {error}"))
        .hint("check that the secret exists in this scope and that this agent may read it")
        .source(error)
}

/// A manifest or setting is wrong, found before the cluster was asked.
pub(crate) fn bad_spec(code: &'static str, what: impl Into<String>) -> StepError {
    StepError::new(Class::BadSpec, code, what)
}

impl From<kube::Error> for Fault {
    fn from(error: kube::Error) -> Fault {
        match error {
            kube::Error::Api(status) => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                Fault::Refused {
                    retry_after: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
                    status,
                }
            }
            kube::Error::Auth(error) => Fault::Credentials(error.to_string()),
            kube::Error::SerdeError(error) => Fault::Strange(error.to_string()),
            other => of_transport(other),
        }
    }
}

fn of_transport(error: kube::Error) -> Fault {
    let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
    let mut innermost = String::new();
    while let Some(at) = next {
        if let Some(auth) = at.downcast_ref::<kube::client::AuthError>() {
            return Fault::Credentials(auth.to_string());
        }
        if let Some(tls) = at.downcast_ref::<rustls::Error>() {
            return Fault::Tls(tls.to_string());
        }
        innermost = at.to_string();
        next = match at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => at.source(),
        };
    }
    Fault::Connection { cause: innermost, source: Some(Box::new(error)) }
}
