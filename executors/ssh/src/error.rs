//! Every way in which SSH work fails, classified once (D9).

use executor_api::{CancelReason, Class, SecretError, StepError};

/// Code of a script that was started, is gone, and left no exit code.
pub(crate) const VANISHED: &str = "SSH-013";

/// A failure at the border to the host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the name {host} could not be resolved")]
    Resolve {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} could not be reached: {why}")]
    Connect { address: String, why: String },
    #[error("the SSH handshake with {address} failed: {why}")]
    Handshake { address: String, why: String },
    #[error("the key of {host} is not known: {algorithm} {fingerprint}")]
    UnknownHostKey { host: String, algorithm: String, fingerprint: String },
    #[error("the key of {host} has changed: expected {expected}, presented {presented}")]
    ChangedHostKey { host: String, expected: String, presented: String },
    #[error("{user}@{host} refused the key {fingerprint} ({algorithm}); it offers: {methods}")]
    Refused { user: String, host: String, algorithm: String, fingerprint: String, methods: String },
    #[error("the private key in secret `{secret}` cannot be used: {why}")]
    BadKey { secret: String, why: String },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the connection to {host} was lost: {why}")]
    Lost { host: String, why: String },
    #[error("{host} refused a channel: {why}")]
    Channel { host: String, why: String },
    #[error("the host did not answer as expected: {what}")]
    Protocol { what: String },
    #[error("the working folder on {host} cannot be used: {why}")]
    Folder { host: String, why: String },
    #[error("{what}")]
    Exit { what: String, code: i32 },
    #[error("the script on {host} vanished: {evidence}")]
    Vanished { host: String, evidence: String },
    #[error("{interpreter} is not installed on {host}")]
    Interpreter { interpreter: String, host: String },
    #[error("cannot start in {directory} on {host}")]
    Directory { directory: String, host: String },
    #[error("not enough space on {host} for {path}: {needed} bytes needed, {free} free")]
    DiskFull { host: String, path: String, needed: u64, free: u64 },
    #[error("{host} denied access to {path}")]
    Denied { host: String, path: String },
    #[error("the file transfer to {host} failed at {path}: {why}")]
    Transfer { host: String, path: String, why: String },
    #[error("{path} on {host} has SHA-256 {found} after the copy, expected {wanted}")]
    Corrupt { host: String, path: String, found: String, wanted: String },
    #[error("{0}")]
    Spec(String),
    #[error("{what}")]
    Cancelled { reason: CancelReason, what: String },
    #[error("the log pipeline is closed")]
    Logs,
    #[error(transparent)]
    Checkpoint(#[from] executor_api::CheckpointError),
    #[error("local file {path}: {source}")]
    Local {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Source(StepError),
}

impl From<executor_api::ExportError> for Error {
    fn from(error: executor_api::ExportError) -> Self {
        match error {
            executor_api::ExportError::Secret(error) => Error::Secret(error),
            other => Error::Spec(other.to_string()),
        }
    }
}

impl From<executor_api::LogClosed> for Error {
    fn from(_: executor_api::LogClosed) -> Self {
        Error::Logs
    }
}

impl Error {
    /// Whether connecting again may help.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Resolve { .. } | Error::Connect { .. } | Error::Handshake { .. } | Error::Lost { .. }
        )
    }

    /// The step's error; `host` is what it happened to.
    pub(crate) fn into_step(self, host: &str) -> StepError {
        let (class, code, hint): (Class, &'static str, Option<String>) = match &self {
            Error::Resolve { .. } => (
                Class::Connectivity,
                "SSH-001",
                Some("check the host name in the infrastructure, or add a host alias to the agent".into()),
            ),
            Error::Connect { .. } => (
                Class::Connectivity,
                "SSH-002",
                Some("check that the host is up, and that a firewall lets this agent reach its SSH port".into()),
            ),
            Error::Handshake { .. } => (
                Class::Connectivity,
                "SSH-003",
                Some("check that an SSH server listens there, and its log (MaxStartups, algorithms)".into()),
            ),
            Error::UnknownHostKey { host, fingerprint, .. } => (
                Class::Authentication,
                "SSH-004",
                Some(format!(
                    "compare it with the host's own (ssh-keygen -lf), then run: delegate hostkey accept {host} {fingerprint}"
                )),
            ),
            Error::ChangedHostKey { host, presented, .. } => (
                Class::Authentication,
                "SSH-005",
                Some(format!(
                    "if the host was reinstalled, compare the key with the host's own (ssh-keygen -lf), then run: \
                     delegate hostkey accept {host} {presented}"
                )),
            ),
            Error::Refused { user, .. } => (
                Class::Authentication,
                "SSH-006",
                Some(format!("add the public key to ~{user}/.ssh/authorized_keys, or correct the user or the key")),
            ),
            Error::BadKey { .. } => (
                Class::Authentication,
                "SSH-007",
                Some("store the key in OpenSSH, PEM or PKCS#8 form, with its passphrase if it has one".into()),
            ),
            Error::Secret(_) => {
                (Class::BadSpec, "SSH-008", Some("set it: delegate secret set NAME --file F".into()))
            }
            Error::Lost { .. } => (
                Class::Connectivity,
                "SSH-009",
                Some("the script may still run on the host; run the step again when the host is back".into()),
            ),
            Error::Channel { .. } => (
                Class::Connectivity,
                "SSH-010",
                Some("check MaxSessions and the login shell of the user on the host".into()),
            ),
            Error::Exit { code, .. } if *code > 128 => (
                Class::RemoteFailed { code: *code },
                "SSH-012",
                Some("the log shows the last output; look for an out-of-memory kill (dmesg) on the host".into()),
            ),
            Error::Exit { code, .. } => (
                Class::RemoteFailed { code: *code },
                "SSH-011",
                Some("the log of the unit shows what the script printed".into()),
            ),
            Error::Vanished { .. } => (
                Class::RemoteFailed { code: 255 },
                VANISHED,
                Some("look at what the script had done on the host before it is run again".into()),
            ),
            Error::Interpreter { interpreter, .. } => (
                Class::RemoteFailed { code: 127 },
                "SSH-014",
                Some(format!("install {interpreter} on the host, or choose another shell for the unit")),
            ),
            Error::Directory { .. } => (
                Class::RemoteFailed { code: 1 },
                "SSH-015",
                Some("create the working directory, or let the login user enter it".into()),
            ),
            Error::Folder { .. } => (
                Class::RemoteFailed { code: 1 },
                "SSH-016",
                Some(
                    "the login user needs a writable home directory or /var/tmp with free space; ~/.delegate must be \
                     its own, of mode 0700 and no link"
                        .into(),
                ),
            ),
            Error::DiskFull { path, .. } => (
                Class::RemoteFailed { code: 1 },
                "SSH-017",
                Some(format!("free space on the file system of {path}")),
            ),
            Error::Denied { .. } => (
                Class::Authorization,
                "SSH-018",
                Some("let the login user write there, or copy to a place it owns and move it with sudo".into()),
            ),
            Error::Transfer { .. } => (
                Class::RemoteFailed { code: 1 },
                "SSH-019",
                Some("check that the host's SSH server has the sftp subsystem, and that the path is right".into()),
            ),
            Error::Corrupt { .. } => (
                Class::RemoteFailed { code: 1 },
                "SSH-020",
                Some("the damaged copy was removed; check memory and disk of the host".into()),
            ),
            Error::Spec(_) => (Class::BadSpec, "SSH-021", None),
            Error::Cancelled { reason, .. } => (Class::Cancelled { reason: *reason }, "SSH-022", None),
            Error::Logs => (Class::Cancelled { reason: CancelReason::Drain }, "SSH-023", None),
            Error::Checkpoint(_) => {
                (Class::Bug, "SSH-024", Some("check the disk of the agent's data directory".into()))
            }
            Error::Protocol { .. } => (
                Class::RemoteFailed { code: 255 },
                "SSH-025",
                Some("log in by hand and check that /bin/sh works and that login scripts end".into()),
            ),
            Error::Local { .. } => {
                (Class::Bug, "SSH-026", Some("check the disk and the rights of the agent's cache".into()))
            }
            Error::Source(_) => (Class::Bug, "SSH-026", None),
        };
        let what = self.to_string();
        if let Error::Source(mut inner) = self {
            inner.target.get_or_insert_with(|| host.to_owned());
            return inner;
        }
        let what = if what.contains(host) { what } else { format!("{host}: {what}") };
        let mut error = StepError::new(class, code, what).target(host);
        error.hint = hint;
        error.source(self)
    }
}

/// The name of signal `n`, as far as every Linux has it.
pub(crate) fn signal_name(n: i32) -> &'static str {
    match n {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => "a signal",
    }
}
