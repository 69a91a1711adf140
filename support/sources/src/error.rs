//! Every failure of this crate, one constructor a code. The pages are `docs/errors/SRC-*.md`.

use executor_api::{CancelReason, Class, SecretError, StepError};
use reqwest::StatusCode;
use std::time::Duration;
use url::Url;

/// `url` as it may be shown: without user, password, query and fragment, any of which may hold a token.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        // Such a URL cannot have them, and no host to name either.
        return url.scheme().to_owned();
    }
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// The part of a URL that names the server.
pub(crate) fn server(url: &Url) -> String {
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => shown(url),
    }
}

fn at(error: StepError, url: &Url) -> StepError {
    error.target(shown(url))
}

pub(crate) fn unreachable(url: &Url, source: reqwest::Error) -> StepError {
    let reason = innermost(&source);
    no_connection(url, &reason).source(source.without_url())
}

pub(crate) fn no_connection(url: &Url, reason: &str) -> StepError {
    let what = format!("{} could not be reached: {reason}", server(url));
    at(StepError::new(Class::Connectivity, "SRC-001", what), url).hint(
        "check name, port, firewall and that the server runs; an agent's `host_aliases` apply to it too",
    )
}

pub(crate) fn cut(url: &Url, source: reqwest::Error) -> StepError {
    let reason = innermost(&source);
    let what = format!("the connection to {} was lost during the answer: {reason}", server(url));
    at(StepError::new(Class::Connectivity, "SRC-001", what), url).source(source.without_url())
}

pub(crate) fn cut_short(url: &Url, got: u64, expected: u64) -> StepError {
    let what = format!("{} ended its answer after {got} of {expected} bytes", server(url));
    at(StepError::new(Class::Connectivity, "SRC-001", what), url)
}

pub(crate) fn secret(what: &str, source: SecretError) -> StepError {
    let class = match source {
        SecretError::Missing(_) => Class::BadSpec,
        SecretError::Sealed(_) => Class::Authentication,
        SecretError::Forged(_) => Class::Authorization,
    };
    StepError::new(class, "SRC-002", format!("{what}: {source}"))
        .hint("`delegate secret list` shows what the manager has; the connector names the secret")
        .source(source)
}

pub(crate) fn tls(url: &Url, reason: &str, source: reqwest::Error) -> StepError {
    let what = format!("the TLS certificate of {} was not accepted: {reason}", server(url));
    at(StepError::new(Class::Authentication, "SRC-003", what), url)
        .hint("give the agent the issuing authority with `--ca-file` / DELEGATE_CA_FILE; the name is checked too")
        .source(source.without_url())
}

pub(crate) fn unauthorized(url: &Url, connector: &str) -> StepError {
    let what = format!("{} refused the credentials of connector `{connector}` (HTTP 401)", server(url));
    at(StepError::new(Class::Authentication, "SRC-004", what), url)
        .hint("check user name and secret of the connector; a token may have expired")
}

pub(crate) fn forbidden(url: &Url, connector: &str) -> StepError {
    let what = format!("the user of connector `{connector}` may not read {} (HTTP 403)", shown(url));
    at(StepError::new(Class::Authorization, "SRC-005", what), url)
        .hint("grant read access, or use a connector whose user has it")
}

pub(crate) fn artifact_missing(url: &Url) -> StepError {
    at(StepError::new(Class::BadSpec, "SRC-006", format!("artifact missing: {} (HTTP 404)", shown(url))), url)
        .hint("check repository and path, and that the build has published this version")
}

/// `by_author`: the expected value stands in the step; otherwise the server named it.
pub(crate) fn checksum(url: &Url, expected: &str, got: &str, by_author: bool) -> StepError {
    let (class, who) =
        if by_author { (Class::BadSpec, "the step") } else { (Class::Connectivity, "the server") };
    let what = format!("{} is corrupt: {who} expects sha256 {expected}, the bytes have {got}", shown(url));
    at(StepError::new(class, "SRC-007", what), url)
        .hint("the file was discarded; publish it again, or correct the expected checksum")
}

pub(crate) fn bad_url(field: &str, value: &str, expected: &str) -> StepError {
    StepError::new(
        Class::BadSpec,
        "SRC-008",
        format!("{field}: `{value}` is not usable; expected {expected}"),
    )
}

pub(crate) fn server_error(url: &Url, status: StatusCode) -> StepError {
    let what = format!("{} answered HTTP {} to {}", server(url), status.as_u16(), shown(url));
    at(StepError::new(Class::Connectivity, "SRC-009", what), url)
        .hint("look into the server's own log; the step may be run again when it has recovered")
}

pub(crate) fn throttled(url: &Url, retry_after: Option<Duration>) -> StepError {
    let wait = retry_after.map_or_else(String::new, |span| format!(", come back in {} s", span.as_secs()));
    let what = format!("{} asks to slow down (HTTP 429{wait})", server(url));
    at(StepError::new(Class::Throttled { retry_after }, "SRC-010", what), url)
        .hint("use a connector with an account of its own, or run fewer steps at once")
}

pub(crate) fn deadline(doing: &str) -> StepError {
    StepError::new(Class::Timeout, "SRC-011", format!("the step's time ran out while {doing}"))
        .hint("raise the step's timeout if the server is only slow")
}

pub(crate) fn cancelled(doing: &str, reason: CancelReason) -> StepError {
    match reason {
        CancelReason::Deadline => deadline(doing),
        reason => {
            StepError::new(Class::Cancelled { reason }, "SRC-012", format!("ended on request while {doing}"))
        }
    }
}

pub(crate) fn unexpected(url: &Url, what: impl Into<String>, kind: &str) -> StepError {
    let what = format!("{} does not answer like {kind}: {}", shown(url), what.into());
    at(StepError::new(Class::BadSpec, "SRC-013", what), url)
        .hint("check the URL of the connector and its type")
}

pub(crate) fn local_disk(doing: &str, path: &std::path::Path, source: std::io::Error) -> StepError {
    StepError::new(Class::Bug, "SRC-014", format!("the agent failed to {doing} {}: {source}", path.display()))
        .hint("check free space and rights of the agent's data directory")
        .source(source)
}

pub(crate) fn tag_missing(image: &str, tag: &str, url: &Url, known: &str) -> StepError {
    at(StepError::new(Class::BadSpec, "SRC-015", format!("image {image} has no tag `{tag}`; {known}")), url)
        .hint("check that the build has pushed this tag")
}

pub(crate) fn reference_missing(kind: &str, name: &str, url: &Url, known: &str) -> StepError {
    at(
        StepError::new(Class::BadSpec, "SRC-016", format!("{} has no {kind} `{name}`; {known}", shown(url))),
        url,
    )
}

pub(crate) fn repository_missing(url: &Url) -> StepError {
    at(
        StepError::new(
            Class::BadSpec,
            "SRC-016",
            format!("there is no Git repository at {} (HTTP 404)", shown(url)),
        ),
        url,
    )
    .hint("check the URL; many servers also call a repository missing that the credentials may not read")
}

/// `git-upload-pack` gave up. Servers have no code for it, only words; most of them mean that there is no such repository
/// for this key.
pub(crate) fn refused_over_ssh(url: &Url, words: &str) -> StepError {
    let words: String = words.trim().chars().take(300).collect();
    let what = format!("there is no Git repository at {} for this key: {words}", shown(url));
    at(StepError::new(Class::BadSpec, "SRC-016", what), url)
        .hint("check the path, and that the key may read the repository (`ssh -T` says whom the server takes it for)")
}

pub(crate) fn path_missing(path: &str, reference: &str, url: &Url, known: &str) -> StepError {
    let what = format!("{} has no file or folder `{path}` at {reference}; {known}", shown(url));
    at(StepError::new(Class::BadSpec, "SRC-017", what), url)
}

pub(crate) fn entry_refused(path: &str, kind: &str, url: &Url) -> StepError {
    let what = format!("`{path}` in {} is a {kind}, which is not copied", shown(url));
    at(StepError::new(Class::BadSpec, "SRC-018", what), url)
        .hint("name regular files or folders that hold only such")
}

pub(crate) fn too_large(url: &Url, what: &str, limit: u64) -> StepError {
    at(
        StepError::new(
            Class::BadSpec,
            "SRC-019",
            format!("{what} of {} is larger than {limit} bytes", shown(url)),
        ),
        url,
    )
}

pub(crate) fn redirect(url: &Url, problem: &str) -> StepError {
    at(StepError::new(Class::Connectivity, "SRC-020", format!("{} redirects {problem}", shown(url))), url)
        .hint("put the final URL into the connector")
}

/// The last error of a chain: for `reqwest` the only one that says what happened.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The TLS fault in a chain of errors, if that is what it ends in.
pub(crate) fn tls_fault<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<rustls::Error>() {
            return Some(fault);
        }
        if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(fault) = tls_fault(inner)
        {
            return Some(fault);
        }
        next = error.source();
    }
    None
}
