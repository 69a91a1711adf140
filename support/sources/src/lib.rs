//! Registries, artifact repositories and Git over HTTP or SSH: resolve a tag, list, download with checksum and resume.
//!
//! Everything goes through [`Access`]: one HTTP client with verified TLS, host aliases (D17), credentials of a connector,
//! retries by class inside the step's deadline, and cancellation. Foreign errors are classified here, once, into
//! `StepError`s with codes `SRC-…`; no type of the HTTP or Git library leaves the crate, except the response that
//! [`Answer`] wraps.
//!
//! Every call only reads the remote side, so each may be repeated, and dropping one leaves nothing behind but a partial
//! download that the next one goes on with.

mod docker;
mod download;
mod error;
mod git;
mod http;
mod near;
mod probe;

pub use docker::{ResolvedImage, list_tags, resolve_tag};
pub use download::{Downloaded, Located, download, locate, prune};
pub use git::{Conversation, Ended, FetchedFile, FetchedFiles, Tunnel, fetch_files, fetch_some};
pub use http::{Access, Answer, Backoff, Call, Client, ClientError, ClientOptions, Notice, Retry, trusting};
pub use near::nearest;
pub use probe::{probe_artifactory, probe_docker, probe_git, probe_prometheus};
