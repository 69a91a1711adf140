//! What can go wrong before there are objects, with class and code (D9): KUBE-060 to KUBE-079.

use executor_api::{CancelReason, Class, StepError};
use process::ProcessError;
use std::path::Path;

/// A program of this agent is missing or cannot be started.
pub(super) fn program(source: ProcessError, wanted: &str, hint: &str) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-060", format!("{wanted} cannot be done: {source}"))
        .hint(hint)
        .target("agent")
        .source(source)
}

/// A program refused what it was given.
pub(super) fn refused(program: &str, status: i32, said: &str) -> StepError {
    let said = if said.trim().is_empty() { "it said nothing" } else { said.trim() };
    StepError::new(Class::BadSpec, "KUBE-061", format!("`{program}` ended with status {status}: {said}"))
        .hint("run the same program on the same files to see it; the text above is the program's own")
}

/// What a step or manifest names is not among its files.
pub(super) fn not_there(field: &str, missing: &[String], known: &[String]) -> StepError {
    let mut parts = Vec::new();
    for path in missing {
        let near = near(path, known);
        parts.push(match near.is_empty() {
            true => format!("`{path}`"),
            false => format!("`{path}` (near: {})", near.join(", ")),
        });
    }
    let shown: Vec<&str> = known.iter().take(20).map(String::as_str).collect();
    let more = known.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!(
        "{field} names {}, which the manifest does not hold; it holds {}{more}",
        parts.join(", "),
        shown.join(", ")
    );
    StepError::new(Class::BadSpec, "KUBE-062", text)
        .hint("paths are relative to the root of the repository, or to a path of the manifest")
}

/// Paths that may have been meant: near as a whole, or near in as many of their last parts as were written.
fn near<'a>(path: &str, known: &'a [String]) -> Vec<&'a str> {
    let near = sources::nearest(path, known.iter().map(String::as_str), 3);
    if !near.is_empty() {
        return near;
    }
    let parts = path.split('/').count();
    let tail = |known: &'a str| {
        let from = known.rmatch_indices('/').nth(parts - 1).map_or(0, |(at, _)| at + 1);
        known.get(from..).unwrap_or(known)
    };
    let tails = sources::nearest(path, known.iter().map(|known| tail(known)), 3);
    known.iter().map(String::as_str).filter(|known| tails.contains(&tail(known))).take(3).collect()
}

/// There is nothing to work with.
pub(super) fn nothing(why: &str) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-063", why.to_owned())
        .hint("manifests are files that end in .yaml, .yml or .json; values.yaml is never one of them")
}

/// A file is no YAML, or a document of it is no object.
pub(super) fn unreadable(file: &str, line: usize, problem: &str) -> StepError {
    let text = format!("{file}, line {line}: {problem}");
    StepError::new(Class::BadSpec, "KUBE-064", text).target(file)
}

/// A file is larger or deeper than any manifest is.
pub(super) fn too_much(file: &str, problem: &str) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-065", format!("{file}: {problem}"))
        .hint("split the file; what an API server stores is at most 1.5 MiB per object")
        .target(file)
}

/// Rule R13: nothing says what the placeholder of an image stands for.
pub(super) fn image_tag(problem: &str) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-066", problem.to_owned())
        .hint("give the service an artifact, or a variable `imageTag`")
}

/// A secret that a manifest names.
pub(super) fn secret(file: &str, source: executor_api::SecretError) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-067", format!("{file}: {source}"))
        .hint("set it: delegate secret set NAME --file F")
        .source(source)
}

/// The agent's own disk.
pub(super) fn disk(what: &str, path: &Path, source: std::io::Error) -> StepError {
    let text = format!("cannot {what} {}: {source}", path.display());
    StepError::new(Class::Bug, "KUBE-068", text)
        .hint("check space and rights of the agent's data directory")
        .source(source)
}

/// The manifest is written in a way that cannot be done.
pub(super) fn spec(problem: impl Into<String>) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-069", problem)
}

/// A repository of charts has not what was asked for.
pub(super) fn chart(problem: impl Into<String>) -> StepError {
    StepError::new(Class::BadSpec, "KUBE-070", problem)
}

/// The step was cancelled while files were fetched or rendered.
pub(super) fn cancelled(reason: CancelReason) -> StepError {
    StepError::new(
        Class::Cancelled { reason },
        "KUBE-071",
        "cancelled before anything was applied; the cluster is as it was",
    )
}

/// The log pipeline has closed: the agent goes down.
pub(super) fn log_closed() -> StepError {
    StepError::new(Class::Cancelled { reason: CancelReason::Drain }, "KUBE-072", "the log pipeline is closed")
}
