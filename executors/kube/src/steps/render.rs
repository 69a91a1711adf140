//! From the manifest of a step to objects, with a mask for every secret that went into them.

use crate::KubeExecutor;
use crate::error::bad_spec;
use crate::manifests::{self, Loaded};
use crate::objects::{Mask, Object, parse_text};
use executor_api::Unit;
use executor_api::{SecretText, StepContext, StepError, UnitLog};
use proto::task::{FileStore, KubernetesSpec};
use secrecy::ExposeSecret as _;
use secrets::Recorder;
use std::sync::PoisonError;

/// A rendered manifest.
pub(crate) struct Fetched {
    pub(crate) loaded: Loaded,
    secrets: Vec<SecretText>,
}

/// Fetches and renders the manifest of the step in its own unit; `files` chooses among its files.
pub(crate) async fn in_unit(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    files: &[String],
    cx: &StepContext,
) -> Result<Fetched, StepError> {
    let unit = Unit::begin(cx, "Fetch Files").await?;
    let result = fetch(executor, spec, files, cx, unit.log()).await;
    unit.end(result).await
}

/// Fetches and renders the manifest of the step; `files` chooses among its files.
pub(crate) async fn fetch(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    files: &[String],
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<Fetched, StepError> {
    let recorder = Recorder::new(cx.secrets.clone());
    let cx = StepContext { secrets: recorder.clone(), ..cx.clone() };
    let loaded = manifests::load(&executor.sources()?, spec, files, &cx, log).await?;
    let secrets = recorder.seen();
    executor.told.lock().unwrap_or_else(PoisonError::into_inner).extend(loaded.notices.iter().cloned());
    Ok(Fetched { loaded, secrets })
}

/// The text of a store that holds one file, and what is to be hidden of it.
pub(crate) async fn read_store(
    executor: &KubeExecutor,
    store: &FileStore,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<(String, Mask), StepError> {
    let recorder = Recorder::new(cx.secrets.clone());
    let cx = StepContext { secrets: recorder.clone(), ..cx.clone() };
    let text = manifests::read_store(&executor.sources()?, store, &cx, log).await?;
    let mut mask = Mask::default();
    recorder.seen().iter().for_each(|secret| mask.add(secret.expose_secret()));
    Ok((text, mask))
}

impl Fetched {
    /// Whether a document holds a place for the number or colour of the release.
    pub(crate) fn asks_for_release(&self) -> bool {
        self.loaded.documents.iter().any(|document| document.text.contains("$__HARNESS_INTERNAL_RELEASE_"))
    }

    /// The objects before they know the number of their release: enough to say which rights they take. What cannot be
    /// read is left out here and reported by [`Fetched::objects`].
    pub(crate) fn preview(&self) -> Vec<Object> {
        let documents = self.loaded.documents.iter();
        documents.filter_map(|document| parse_text(&document.source, &document.text).ok()).flatten().collect()
    }

    /// The objects of a release of this number, and what is to be hidden in them. `deploy`: files that say so are left
    /// out (`harness.io/skip-file-for-deploy`).
    ///
    /// **Errors**: `KUBE-010` names every document that is no object.
    pub(crate) fn objects(
        &mut self,
        number: u64,
        color: Option<&str>,
        deploy: bool,
    ) -> Result<(Vec<Object>, Mask), StepError> {
        self.loaded.with_release(number, color);
        let (mut objects, mut faults) = (Vec::new(), Vec::new());
        for document in self.loaded.documents.iter().filter(|document| !(deploy && document.skip_for_deploy))
        {
            match parse_text(&document.source, &document.text) {
                Ok(found) => objects.extend(found),
                Err(found) => faults.extend(found),
            }
        }
        let mut mask = Mask::default();
        self.secrets.iter().for_each(|secret| mask.add(secret.expose_secret()));
        objects.iter().for_each(|object| mask.add_object(object));
        if faults.is_empty() {
            return Ok((objects, mask));
        }
        let texts: Vec<String> = faults.iter().map(|fault| mask.hide(&fault.to_string())).collect();
        Err(bad_spec("KUBE-010", format!("the manifests cannot be read:\n{}", texts.join("\n")))
            .hint("correct the documents at the lines that are named; templates are rendered first"))
    }

    /// Commit or chart, as outcome `manifest`.
    pub(crate) fn outcome(&self) -> serde_json::Value {
        let mut outcome = serde_json::Map::new();
        if let Some(commit) = &self.loaded.commit {
            outcome.insert("commitId".to_owned(), commit.as_str().into());
        }
        if let Some(chart) = &self.loaded.chart {
            let mut info = serde_json::json!({"name": chart.name, "version": chart.version, "repoUrl": chart.repository});
            if let (Some(path), Some(info)) = (&chart.sub_chart_path, info.as_object_mut()) {
                info.insert("subChartPath".to_owned(), path.as_str().into());
            }
            outcome.insert("helmChartInfo".to_owned(), info);
        }
        serde_json::Value::Object(outcome)
    }
}
