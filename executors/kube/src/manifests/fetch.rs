//! Files of stores: Git through `sources`, inline content with its secrets opened.

use super::error;
use executor_api::{Level, StepContext, StepError, UnitLog};
use proto::task::{FileStore, GitSource, Manifest};
use proto::text::Text;
use secrecy::ExposeSecret;
use std::sync::{Arc, Mutex, PoisonError};

/// One file. Inline content may hold clear secrets.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

/// Files of one store.
#[derive(Clone, Default)]
pub(super) struct Files {
    /// Without duplicates, in the order in which the paths name them.
    pub(super) all: Vec<File>,
    /// What the store itself names: files and folders.
    pub(super) roots: Vec<String>,
    /// Of a Git store.
    pub(super) commit: Option<String>,
}

impl Files {
    pub(super) fn get(&self, path: &str) -> Option<&File> {
        let path = clean(path);
        self.all.iter().find(|file| file.path == path)
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.all.iter().map(|file| file.path.clone()).collect()
    }
}

/// A path without `.`, doubled and outer slashes.
pub(super) fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.trim().split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

/// Whether `path` is `folder` or lies below it.
pub(super) fn below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The content of a store that holds one file: the patch of `K8sPatch`. Its secrets are opened.
///
/// **Errors**: those of [`super::load`]; KUBE-069 when the store holds several files.
pub async fn read_store(
    client: &sources::Client,
    store: &FileStore,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<String, StepError> {
    let files = Fetch { client, cx, log }.store(store, &[]).await?;
    match files.all.as_slice() {
        [one] => Ok(one.text.clone()),
        many => Err(error::spec(format!("expected one file, the store gives {}", many.len()))),
    }
}

/// What fetching needs.
pub(super) struct Fetch<'a> {
    pub(super) client: &'a sources::Client,
    pub(super) cx: &'a StepContext,
    pub(super) log: &'a dyn UnitLog,
}

impl Fetch<'_> {
    pub(super) async fn line(&self, text: &str) -> Result<(), StepError> {
        self.log.line(Level::Info, text).await.map_err(|_| error::log_closed())
    }

    /// The primary manifest with the values files that lie beside it, from one commit.
    pub(super) async fn primary(&self, manifest: &Manifest, beside: &[String]) -> Result<Files, StepError> {
        match &manifest.store {
            Some(FileStore::Git(source)) if manifest.optional_values => self.git(source, &[], beside).await,
            Some(store) => self.store(store, beside).await,
            None if !manifest.files.is_empty() => {
                let mut files = Files::default();
                for file in &manifest.files {
                    let one = self.inline(&file.path, &file.content)?;
                    files.all.extend(one.all);
                    files.roots.extend(one.roots);
                }
                Ok(files)
            }
            None => Err(error::spec(format!("the manifest `{}` has no store", manifest.identifier))),
        }
    }

    /// Every file of a store; `beside` are further paths of the same commit.
    pub(super) async fn store(&self, store: &FileStore, beside: &[String]) -> Result<Files, StepError> {
        match store {
            FileStore::Inline { path, content } => self.inline(path, content),
            FileStore::Git(source) => self.git(source, beside, &[]).await,
        }
    }

    fn inline(&self, path: &str, content: &Text) -> Result<Files, StepError> {
        let path = if path.trim().is_empty() { "inline.yaml".to_owned() } else { clean(path) };
        let text = self.cx.secrets.reveal(content).map_err(|source| error::secret(&path, source))?;
        let file = File { path: path.clone(), text: text.expose_secret().to_owned() };
        Ok(Files { all: vec![file], roots: vec![path], commit: None })
    }

    /// `beside` are further paths of the same commit; those of `optional` may be missing in it.
    async fn git(
        &self,
        source: &GitSource,
        beside: &[String],
        optional: &[String],
    ) -> Result<Files, StepError> {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let keep = Arc::clone(&told);
        let notice: sources::Notice = Arc::new(move |text: &str| {
            keep.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
        });
        let mut asked = source.clone();
        asked.paths.extend(beside.iter().cloned());
        self.line(&format!("Fetching {} from {} …", asked.paths.join(", "), source.connector.identifier))
            .await?;
        let access = sources::Access::new(self.client.clone(), self.cx, notice);
        let fetched = sources::fetch_some(&access, &asked, optional, &self.cx.scratch.join("git")).await;
        let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        for text in told {
            self.line(&text).await?;
        }
        let fetched = fetched?;
        self.line(&format!("Commit {}", fetched.commit)).await?;
        let mut all = Vec::with_capacity(fetched.files.len());
        for file in fetched.files {
            // Charts hold binary files too (icons); what is to be a manifest is checked when it is read.
            let text = String::from_utf8(file.bytes)
                .unwrap_or_else(|bytes| String::from_utf8_lossy(bytes.as_bytes()).into_owned());
            all.push(File { path: file.path, text });
        }
        let roots = source.paths.iter().map(|path| clean(path)).collect();
        Ok(Files { all, roots, commit: Some(fetched.commit) })
    }

    /// Values in the order of their weight: those beside the manifest, then the overrides. Each is a mapping. With
    /// `optional` those beside it may be missing.
    pub(super) async fn values(
        &self,
        primary: &Files,
        beside: &[String],
        optional: bool,
        overrides: &[FileStore],
    ) -> Result<Vec<File>, StepError> {
        let mut values = Vec::new();
        for path in beside {
            match primary.get(path) {
                Some(file) => values.push(file.clone()),
                None if optional => {
                    self.line(&format!("The values file {path} is not there; it is optional")).await?;
                }
                None => {
                    return Err(error::not_there(
                        "valuesPaths",
                        std::slice::from_ref(path),
                        &primary.paths(),
                    ));
                }
            }
        }
        for store in overrides {
            values.extend(self.store(store, &[]).await?.all);
        }
        values.retain(|file| !file.text.trim().is_empty());
        for file in &values {
            super::yaml::check_values(file)?;
        }
        Ok(values)
    }
}
