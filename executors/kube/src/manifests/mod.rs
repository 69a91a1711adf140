//! From a service's manifest to YAML documents.
//!
//! [`load`] fetches files (Git, inline, repositories of charts), renders them (Go templates and charts through the
//! `helm` program, overlays through `kustomize`), puts the artifact's tag into images (rule R13), and checks that every
//! document is one object within limits. Nothing here talks to a cluster.
//!
//! Secrets: placeholders of inline content and values are opened here, on the agent. Documents then hold clear secrets:
//! they are never logged as a whole by this module, and their `Debug` shows no text.

mod chart;
mod error;
mod fetch;
mod kustomize;
mod program;
mod select;
mod template;
#[cfg(test)]
mod tests;
mod yaml;

pub use fetch::read_store;

use executor_api::{Level, StepContext, StepError, UnitLog};
use fetch::Files;
use proto::task::{KubernetesAction, KubernetesSpec, ManifestKind, Selection};

/// What a manifest renders to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// One object each, in the order of their files; never empty.
    pub documents: Vec<Document>,
    /// The commit that the primary manifest was taken from, 40 hex digits.
    pub commit: Option<String>,
    /// The chart, if it was one.
    pub chart: Option<Chart>,
    /// What was assumed on the way, for people.
    pub notices: Vec<String>,
}

/// One YAML document that holds one mapping.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// The file it came from, for messages.
    pub source: String,
    /// Its text. May hold clear secrets.
    pub text: String,
    /// The first line of its file says `harness.io/skip-file-for-deploy`: Rolling, Canary and BlueGreen leave it out.
    pub skip_for_deploy: bool,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document({}, {} bytes)", self.source, self.text.len())
    }
}

/// What `Chart.yaml` says, for the history of releases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chart {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// URL of the repository; empty for a chart in Git.
    pub repository: String,
    /// Folder of a sub-chart, if one was rendered.
    pub sub_chart_path: Option<String>,
}

/// What Harness puts into values instead of `<+kubernetes.release.revision>`.
const REVISION: &str = "$__HARNESS_INTERNAL_RELEASE_REVISION__";
/// What Harness puts into values instead of `<+kubernetes.release.stageColor>`.
const COLOR: &str = "$__HARNESS_INTERNAL_RELEASE_COLOR__";

impl Loaded {
    /// Puts the number of the release, and the colour if there is one, where values asked for them.
    pub fn with_release(&mut self, number: u64, color: Option<&str>) {
        let number = number.to_string();
        for document in &mut self.documents {
            if document.text.contains(REVISION) {
                document.text = document.text.replace(REVISION, &number);
            }
            if let Some(color) = color
                && document.text.contains(COLOR)
            {
                document.text = document.text.replace(COLOR, color);
            }
        }
    }
}

/// Fetches and renders the manifest of `spec`. `files` chooses among its files (`filePaths`, `manifestPaths`); empty means
/// all of them.
///
/// **Errors**: `BadSpec` KUBE-060..KUBE-070 for what is written wrongly or a program that is missing; those of
/// [`sources::fetch_files`]. **Cancel**: by `cx.cancel`; programs are ended. **Repeat**: safe; it only reads, and works in
/// a folder of its own inside `cx.scratch`.
pub async fn load(
    client: &sources::Client,
    spec: &KubernetesSpec,
    files: &[String],
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<Loaded, StepError> {
    let loading = render(client, spec, files, cx, log);
    tokio::select! {
        loaded = loading => loaded,
        (reason, _) = cx.cancel.wait() => Err(error::cancelled(reason)),
    }
}

/// The files of the manifest that the step's action chooses; empty means all of them.
pub fn chosen(action: &KubernetesAction) -> &[String] {
    match action {
        KubernetesAction::K8sApply { file_paths, .. } => file_paths,
        KubernetesAction::K8sDelete { resources: Selection::Manifests(paths), .. }
        | KubernetesAction::K8sRollout { resources: Selection::Manifests(paths), .. } => paths,
        _ => &[],
    }
}

async fn render(
    client: &sources::Client,
    spec: &KubernetesSpec,
    files: &[String],
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<Loaded, StepError> {
    let Some(manifest) = &spec.manifest else {
        return Err(error::spec(
            "the stage's service has no manifest; expected one of K8sManifest, HelmChart or Kustomize",
        ));
    };
    let verbatim = matches!(spec.action, KubernetesAction::K8sApply { skip_rendering: true, .. });
    let fetch = fetch::Fetch { client, cx, log };
    let work = program::folder(cx)?;
    let mut loaded = match &manifest.kind {
        ManifestKind::K8sManifest { values_paths } => {
            let primary = fetch.primary(manifest, values_paths).await?;
            let values =
                fetch.values(&primary, values_paths, manifest.optional_values, &spec.overrides).await?;
            let chosen = select::manifests(&primary, files)?;
            tell(log, &chosen).await?;
            let documents = if values.is_empty() || verbatim {
                select::verbatim(&chosen)?
            } else {
                template::render(spec, &chosen, &values, work.path(), cx).await?
            };
            Loaded { documents, commit: primary.commit, ..Loaded::default() }
        }
        ManifestKind::HelmChart { .. } => chart::load(&fetch, spec, manifest, files, work.path()).await?,
        ManifestKind::Kustomize { .. } => kustomize::load(&fetch, spec, manifest, files, work.path()).await?,
    };
    if loaded.documents.is_empty() {
        return Err(error::nothing("the manifest renders to no object at all"));
    }
    let tagged = yaml::put_image_tags(&mut loaded.documents, cx)?;
    if let Some((tag, from)) = &tagged.tag {
        let places = tagged.places;
        let text =
            format!("R13.image-tag: {places} image(s) with the tag PLACEHOLDER_TAG got `{tag}`, {from}");
        log.line(Level::Info, &text).await.map_err(|_| error::log_closed())?;
        loaded.notices.push(text);
    }
    Ok(loaded)
}

/// Names the files; a long list is cut.
async fn tell(log: &dyn UnitLog, files: &Files) -> Result<(), StepError> {
    const SHOWN: usize = 100;
    for path in files.all.iter().map(|file| &file.path).take(SHOWN) {
        log.line(Level::Info, &format!("- {path}")).await.map_err(|_| error::log_closed())?;
    }
    if files.all.len() > SHOWN {
        let text = format!("… and {} more files", files.all.len() - SHOWN);
        log.line(Level::Info, &text).await.map_err(|_| error::log_closed())?;
    }
    Ok(())
}
