//! Files of a document's store.

use super::Reader;
use crate::error::{bad_spec, log_closed};
use executor_api::{Level, StepError};
use proto::task::{FileStore, GitSource};
use std::sync::{Arc, Mutex, PoisonError};

/// One file. Its text may hold placeholders of secrets, and no clear ones.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

/// The files of `store`, in the order in which its paths name them.
pub(super) async fn files(reader: &Reader<'_>, store: &FileStore) -> Result<Vec<File>, StepError> {
    match store {
        FileStore::Inline { path, content } => {
            let path = if path.trim().is_empty() { "inline".to_owned() } else { path.trim().to_owned() };
            Ok(vec![File { path, text: content.as_str().to_owned() }])
        }
        FileStore::Git(source) => git(reader, source).await,
    }
}

async fn git(reader: &Reader<'_>, source: &GitSource) -> Result<Vec<File>, StepError> {
    let say = |text: String| async move { reader.log.line(Level::Info, &text).await.map_err(log_closed) };
    say(format!("Fetching {} from {} …", source.paths.join(", "), source.connector.identifier)).await?;
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&told);
    let notice: sources::Notice = Arc::new(move |text: &str| {
        keep.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    });
    let access = sources::Access::new(reader.executor.sources()?, reader.cx, notice);
    let fetched = sources::fetch_files(&access, source, &reader.cx.scratch.join("git")).await;
    let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    for text in told {
        say(text).await?;
    }
    let fetched = fetched?;
    say(format!("Commit {}", fetched.commit)).await?;
    fetched
        .files
        .into_iter()
        .map(|file| match String::from_utf8(file.bytes) {
            Ok(text) => Ok(File { path: file.path, text }),
            Err(_) => {
                let what = format!("{} is no text (UTF-8); expected YAML or JSON", file.path);
                Err(bad_spec("ECS-010", what))
            }
        })
        .collect()
}
