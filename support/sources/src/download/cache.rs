//! The cache on the agent's disk.

use crate::error;
use executor_api::{Clock, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncSeekExt;
use url::Url;

/// What one URL gave last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

/// A download that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) validator: String,
    pub(super) bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct PartialNote {
    validator: String,
}

/// The cache, seen by one URL.
pub(super) struct Cache {
    root: PathBuf,
    key: String,
}

impl Cache {
    pub(super) fn at(root: &Path, url: &Url) -> Self {
        Cache { root: root.to_owned(), key: hex::encode(Sha256::digest(url.as_str().as_bytes())) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn content(&self, sha256: &str) -> PathBuf {
        let shard: String = sha256.chars().take(2).collect();
        self.root.join("sha256").join(shard).join(sha256)
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index").join(format!("{}.json", self.key))
    }

    pub(super) fn partial_path(&self) -> PathBuf {
        self.root.join("partial").join(&self.key)
    }

    fn note_path(&self) -> PathBuf {
        self.root.join("partial").join(format!("{}.json", self.key))
    }

    /// What the URL gave last. An unreadable note counts as none: it only costs a transfer.
    pub(super) async fn indexed(&self) -> Option<Entry> {
        let entry: Entry = serde_json::from_slice(&fs::read(self.index_path()).await.ok()?).ok()?;
        let is_name = entry.sha256.len() == 64 && entry.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_name.then_some(entry)
    }

    /// The content with this checksum, if it is there and its bytes still give it. A damaged file is removed.
    pub(super) async fn verified(&self, sha256: &str) -> Result<Option<Entry>, StepError> {
        let path = self.content(sha256);
        let Ok((sum, bytes)) = hash(path.clone()).await else { return Ok(None) };
        if sum != sha256 {
            // Whoever makes room may have been quicker.
            return match fs::remove_file(&path).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(error::local_disk("remove", &path, e))
                }
                _ => Ok(None),
            };
        }
        // The time of the last use is what `prune` goes by; failing to set it only makes the file look older.
        let used = path.clone();
        drop(tokio::task::spawn_blocking(move || touch(&used)).await);
        Ok(Some(Entry { sha256: sum, bytes, ..Entry::default() }))
    }

    pub(super) async fn partial_bytes(&self) -> u64 {
        fs::metadata(self.partial_path()).await.map_or(0, |meta| meta.len())
    }

    /// A cut download that can be resumed.
    pub(super) async fn partial(&self) -> Option<Partial> {
        let note: PartialNote = serde_json::from_slice(&fs::read(self.note_path()).await.ok()?).ok()?;
        let bytes = self.partial_bytes().await;
        (bytes > 0).then_some(Partial { validator: note.validator, bytes })
    }

    /// Opens the partial file for writing behind `from` bytes. From 0 it begins anew, resumable if there is a validator.
    pub(super) async fn open_partial(&self, from: u64, validator: Option<String>) -> Result<File, StepError> {
        let path = self.partial_path();
        let failed = |source| error::local_disk("write", &path, source);
        private_dir(&self.root.join("partial")).await?;
        if from == 0 {
            self.drop_partial().await?;
            if let Some(validator) = validator {
                let note = serde_json::to_vec(&PartialNote { validator }).map_err(|e| failed(e.into()))?;
                write_private(&self.note_path(), &note).await?;
            }
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).write(true).truncate(false).mode(0o600).open(&path).await.map_err(failed)?;
        file.set_len(from).await.map_err(failed)?;
        file.seek(std::io::SeekFrom::Start(from)).await.map_err(failed)?;
        Ok(file)
    }

    pub(super) async fn drop_partial(&self) -> Result<(), StepError> {
        // The note first: bytes without it are never resumed.
        for path in [self.note_path(), self.partial_path()] {
            match fs::remove_file(&path).await {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error::local_disk("remove", &path, source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn hash_partial(&self) -> Result<(String, u64), StepError> {
        let path = self.partial_path();
        hash(path.clone()).await.map_err(|source| error::local_disk("read", &path, source))
    }

    /// Moves the partial file to its place and remembers what the URL gave.
    pub(super) async fn file(&self, entry: &Entry) -> Result<(), StepError> {
        let to = self.content(&entry.sha256);
        if let Some(folder) = to.parent() {
            private_dir(folder).await?;
        }
        fs::rename(self.partial_path(), &to)
            .await
            .map_err(|source| error::local_disk("move", &to, source))?;
        self.drop_partial().await?;
        private_dir(&self.root.join("index")).await?;
        let path = self.index_path();
        let text = serde_json::to_vec(entry).map_err(|e| error::local_disk("write", &path, e.into()))?;
        write_private(&path, &text).await
    }
}

/// A file used within this time is kept: whoever asked for it may not have opened it yet.
const IN_USE: Duration = Duration::from_secs(60);

/// Makes room: removes cached files, longest unused first, until at most `max_bytes` remain. Returns the bytes removed.
/// Files used within the last minute stay, also when more than `max_bytes` remain then.
///
/// **Errors**: the cache folder cannot be read; single files that cannot be removed are passed over.
pub async fn prune(cache: &Path, max_bytes: u64) -> std::io::Result<u64> {
    let root = cache.join("sha256");
    let in_use = now().checked_sub(IN_USE).unwrap_or(SystemTime::UNIX_EPOCH);
    tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        let shards = match std::fs::read_dir(&root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            shards => shards?,
        };
        for shard in shards {
            for file in std::fs::read_dir(shard?.path())? {
                let file = file?;
                let meta = file.metadata()?;
                files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), file.path()));
            }
        }
        files.sort();
        let mut left: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let mut removed = 0;
        for (used, bytes, path) in files {
            if left <= max_bytes || used > in_use {
                break;
            }
            // Somebody may have come to use it since the list was made.
            let still = std::fs::metadata(&path).and_then(|meta| meta.modified()).is_ok_and(|at| at == used);
            if still && std::fs::remove_file(path).is_ok() {
                left -= bytes;
                removed += bytes;
            }
        }
        Ok(removed)
    })
    .await
    .map_err(std::io::Error::other)?
}

async fn private_dir(path: &Path) -> Result<(), StepError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).await.map_err(|source| error::local_disk("make", path, source))
}

/// Written beside and renamed, so that a crash leaves the old or the new text.
async fn write_private(path: &Path, text: &[u8]) -> Result<(), StepError> {
    let beside = path.with_extension("tmp");
    let written = async {
        fs::write(&beside, text).await?;
        fs::rename(&beside, path).await
    };
    written.await.map_err(|source| error::local_disk("write", path, source))
}

/// SHA-256 in hex and length. On a thread of its own: it is pure computing for as long as the file is long.
async fn hash(path: PathBuf) -> std::io::Result<(String, u64)> {
    tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path)?;
        let mut sum = Sha256::new();
        let mut bytes = 0;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((hex::encode(sum.finalize()), bytes));
            }
            bytes += read as u64;
            sum.update(buffer.get(..read).unwrap_or_default());
        }
    })
    .await
    .map_err(std::io::Error::other)?
}

fn touch(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.set_modified(now())
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(executor_api::SystemClock.wall())
}
