//! `helm` and `kustomize`: started with a clean environment in a folder of their own, their answer taken from standard
//! output. No secret is ever an argument.

use super::error;
use executor_api::{StepContext, StepError, Stream};
use process::{Collected, Program};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Rendered output beyond this is refused when it is read; keeping a little more is enough to see that.
const MAX_OUTPUT: usize = 12 << 20;
/// How long a program has to end by itself when it is cancelled.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// A folder for one rendering, inside the task's private directory; removed when dropped.
pub(super) fn folder(cx: &StepContext) -> Result<TempDir, StepError> {
    let made = std::fs::create_dir_all(&cx.scratch)
        .and_then(|()| tempfile::Builder::new().prefix("manifests-").tempdir_in(&cx.scratch));
    made.map_err(|source| error::disk("make a folder in", &cx.scratch, source))
}

/// Writes files below `folder`. A path that leads out of it was refused when it was fetched; it is skipped here.
pub(super) async fn put(folder: &Path, path: &str, content: &str) -> Result<PathBuf, StepError> {
    let inside: PathBuf = path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    let to = folder.join(inside);
    let made = match to.parent() {
        Some(parent) => tokio::fs::create_dir_all(parent).await,
        None => Ok(()),
    };
    let written = match made {
        Ok(()) => tokio::fs::write(&to, content).await,
        Err(failed) => Err(failed),
    };
    written.map_err(|source| error::disk("write", &to, source))?;
    Ok(to)
}

/// A `helm` whose own files lie in `work`, so that it neither reads nor leaves anything of a user's.
pub(super) fn helm(work: &Path) -> Program {
    let own = work.join("helm");
    let mut program = Program::new("helm").directory(work);
    for (name, folder) in
        [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        program = program.env(name, own.join(folder).display().to_string());
    }
    program.env("HOME", own.display().to_string())
}

/// Advice when `helm` is missing.
pub(super) const NO_HELM: &str =
    "install helm 3 or 4 on the agent (in its PATH), or choose an agent that has it by `delegateSelectors`";

/// The one command whose standard output is quoted when it fails.
pub(super) const UPDATE: &str = "helm repo update";

/// Runs a program and gives what it printed.
///
/// **Errors**: KUBE-060 it is missing; KUBE-061 it refused.
pub(super) async fn output(
    program: &Program,
    name: &str,
    wanted: &str,
    hint: &str,
    cx: &StepContext,
) -> Result<String, StepError> {
    let kept = Collected::up_to(MAX_OUTPUT);
    let ended = process::run(program, &kept, cx.clock.as_ref(), &cx.cancel, KILL_AFTER)
        .await
        .map_err(|source| error::program(source, wanted, hint))?;
    if let Some((reason, _)) = ended.cancelled {
        return Err(error::cancelled(reason));
    }
    if !ended.exit.success() {
        let mut said = kept.text(Stream::Stderr);
        if name == UPDATE {
            // Here the reason stands on the other stream. Rendered text, which may hold secrets, is never quoted.
            said = format!("{}{said}", kept.text(Stream::Stdout));
        }
        // The end of what it said holds the reason; the beginning may be pages of warnings.
        let from = said.char_indices().rev().nth(1999).map_or(0, |(at, _)| at);
        return Err(error::refused(name, ended.exit.status(), said.get(from..).unwrap_or_default()));
    }
    if kept.was_cut() {
        return Err(error::too_much(name, "its output is larger than 10 MiB"));
    }
    Ok(kept.text(Stream::Stdout))
}
