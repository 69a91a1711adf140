//! Files to the host over SFTP: checked for space, written beside the destination, verified, then put in place.

use crate::command::Job;
use crate::error::Error;
use crate::holder::{self, leaf_key};
use crate::memory::{Memory, UnitEnd};
use crate::session::Lease;
use executor_api::{Level, UnitLog};
use proto::task::{ArtifactSource, CommandUnit, CopySource, DownloadSource, FileStore, UnitKind};
use russh_sftp::client::SftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use secrecy::ExposeSecret;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes handed to the SFTP writer at once; it keeps sixteen packets of 32 KiB in flight (ssh-perf.md §5).
const CHUNK: usize = 256 << 10;

/// Content on the agent's side.
enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// One file to put on the host.
struct Item {
    /// Name or relative path below the destination directory.
    name: String,
    content: Content,
    size: u64,
    sha256: String,
    mode: u32,
}

impl Item {
    fn bytes(name: String, bytes: Vec<u8>, mode: u32) -> Item {
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Item { name, size: bytes.len() as u64, sha256, mode, content: Content::Bytes(bytes) }
    }
}

impl Job<'_> {
    /// A Copy or DownloadArtifact unit.
    ///
    /// **Cancel**: the destination is as before; a part file beside it is removed by the next try or by hand.
    /// **Repeat**: what is already identical is not sent again.
    pub(crate) async fn transfer(
        &self,
        unit: &CommandUnit,
        memory: &mut Memory,
        log: &Arc<dyn UnitLog>,
    ) -> Result<UnitEnd, Error> {
        let log = log.as_ref();
        let (items, destination, single) = match &unit.kind {
            UnitKind::DownloadArtifact { destination_path, source } => {
                let source = match source {
                    Some(source) => source.clone(),
                    None => self.artifact()?,
                };
                (vec![self.download(&source, log).await?], destination_path, true)
            }
            UnitKind::Copy { source_type: CopySource::Artifact, destination_path } => {
                (vec![self.download(&self.artifact()?, log).await?], destination_path, true)
            }
            UnitKind::Copy { source_type: CopySource::Config, destination_path } => {
                let items = self.config_files(log).await?;
                let single = items.len() == 1;
                (items, destination_path, single)
            }
            UnitKind::Script { .. } => return Err(Error::Spec("a script is no transfer".into())),
        };
        let destination = self.cx.secrets.reveal(destination)?;
        let destination = destination.expose_secret();
        let call = format!("copy {}", unit.identifier);
        memory
            .record(self.cx, format!("copy {} file(s) to {}", items.len(), self.host), vec![call.clone()])
            .await?;
        self.shared.probe.before(&self.cx.task_id, &call).await;
        let mut tries = 0;
        let done = loop {
            let done = self.put_all(&items, destination, single, log).await;
            match done {
                // A cut connection: what is there already is found identical, the rest is sent again.
                Err(error) if error.is_transient() && tries < 3 => {
                    tries += 1;
                    log.line(Level::Warn, &format!("{error}; trying again")).await?;
                }
                done => break done,
            }
        };
        self.shared.probe.after(&self.cx.task_id, &call).await;
        let paths = done?;
        let mut end = UnitEnd::default();
        if let (true, Some(item), Some(path)) = (single, items.first(), paths.first()) {
            end.outputs.insert("fileName".into(), json!(item.name));
            end.outputs.insert("sha256".into(), json!(item.sha256));
            end.outputs.insert("bytes".into(), json!(item.size));
            end.outputs.insert("path".into(), json!(path));
        }
        log.line(Level::Info, "Command finished with status 0").await?;
        Ok(end)
    }

    fn artifact(&self) -> Result<DownloadSource, Error> {
        match self.cx.task.artifact.as_ref().map(|a| (&a.source, &a.digest)) {
            Some((ArtifactSource::ArtifactoryRegistry(source), digest)) => {
                let mut source = source.clone();
                if source.sha256.is_none() {
                    source.sha256 = digest.as_ref().map(|d| d.trim_start_matches("sha256:").to_owned());
                }
                Ok(source)
            }
            Some((
                ArtifactSource::DockerRegistry { image_path, .. } | ArtifactSource::Ecr { image_path, .. },
                _,
            )) => Err(Error::Spec(format!(
                "the artifact is the image {image_path}; only a file can be copied to a host"
            ))),
            None => Err(Error::Spec("the stage has no artifact to copy".into())),
        }
    }

    fn access(&self) -> sources::Access {
        let notice: sources::Notice = Arc::new(|text: &str| tracing::info!("{text}"));
        sources::Access::new(self.shared.client.clone(), self.cx, notice)
    }

    async fn download(&self, source: &DownloadSource, log: &dyn UnitLog) -> Result<Item, Error> {
        let text = format!("Downloading {} from {} …", source.path, source.connector.identifier);
        log.line(Level::Info, &text).await?;
        let got = sources::download(&self.access(), source, &self.cx.cache).await.map_err(Error::Source)?;
        let origin = if got.from_cache { "unchanged, from the agent's cache" } else { "downloaded" };
        log.line(
            Level::Info,
            &format!("{} {origin}: {} bytes, SHA-256 {}", got.file_name, got.bytes, got.sha256),
        )
        .await?;
        Ok(Item {
            name: got.file_name,
            content: Content::File(got.path),
            size: got.bytes,
            sha256: got.sha256,
            mode: 0o644,
        })
    }

    async fn config_files(&self, log: &dyn UnitLog) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        for file in &self.cx.task.config_files {
            match &file.store {
                FileStore::Inline { path, content } => {
                    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                    let content = self.cx.secrets.reveal(content)?;
                    items.push(Item::bytes(name, content.expose_secret().as_bytes().to_vec(), 0o644));
                }
                FileStore::Git(source) => {
                    let text = format!(
                        "Fetching {} from {} …",
                        source.paths.join(", "),
                        source.connector.identifier
                    );
                    log.line(Level::Info, &text).await?;
                    let fetched = sources::fetch_files(&self.access(), source, &self.cx.scratch.join("git"))
                        .await
                        .map_err(Error::Source)?;
                    log.line(Level::Info, &format!("Commit {}", fetched.commit)).await?;
                    for file in fetched.files {
                        let name = below(&file.path, &source.paths);
                        items.push(Item::bytes(name, file.bytes, file.mode));
                    }
                }
            }
        }
        Ok(items)
    }

    async fn put_all(
        &self,
        items: &[Item],
        destination: &str,
        single: bool,
        log: &dyn UnitLog,
    ) -> Result<Vec<String>, Error> {
        let session = self.session(log).await?;
        let answer = self.ask(&session, |nonce| holder::expand(nonce, destination)).await?;
        let (kind, path) = answer.split_once(' ').unwrap_or(("file", destination));
        let is_directory = !single || kind == "dir" || path.ends_with('/');
        let (sftp, _permit) = session.sftp().await?;
        let mut paths = Vec::new();
        for item in items {
            let path = if is_directory {
                format!("{}/{}", path.trim_end_matches('/'), item.name)
            } else {
                path.to_owned()
            };
            let path = if path.starts_with('/') {
                path
            } else {
                // A relative path is relative to the login directory for SFTP as for a script.
                let home = sftp.canonicalize(".").await.map_err(|e| self.sftp_error(&path, &e))?;
                format!("{home}/{path}")
            };
            let part = format!(
                "{path}.part-{}",
                leaf_key(&self.cx.task_id, &self.cx.task.execution.node, &item.name)
                    .get(2..14)
                    .unwrap_or_default()
            );
            self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(part.clone());
            let put = self.put(&session, &sftp, item, &path, &part, log).await;
            self.parts.lock().unwrap_or_else(PoisonError::into_inner).clear();
            if let Err(error) = put {
                // An SFTP server that answers nothing any more is a lost connection, whatever the write said.
                if matches!(error, Error::Transfer { .. }) && sftp.canonicalize(".").await.is_err() {
                    return Err(Error::Lost {
                        host: self.host.clone(),
                        why: "the transfer broke off".into(),
                    });
                }
                // The part is of no use: a later try sends it anew.
                sftp.remove_file(part).await.unwrap_or_default();
                return Err(error);
            }
            paths.push(path);
        }
        sftp.close().await.unwrap_or_default();
        Ok(paths)
    }

    fn sftp_error(&self, path: &str, error: &SftpError) -> Error {
        let (host, path) = (self.host.clone(), path.to_owned());
        match error {
            SftpError::Status(status) => match status.status_code {
                StatusCode::PermissionDenied => Error::Denied { host, path },
                StatusCode::NoConnection | StatusCode::ConnectionLost => {
                    Error::Lost { host, why: status.error_message.clone() }
                }
                _ => Error::Transfer { host, path, why: status.error_message.clone() },
            },
            SftpError::IO(why) => Error::Lost { host, why: why.clone() },
            SftpError::Timeout => Error::Lost { host, why: "SFTP did not answer in time".into() },
            other => Error::Transfer { host, path, why: other.to_string() },
        }
    }

    async fn host_sum(&self, session: &Lease, path: &str) -> Result<Option<String>, Error> {
        let answer = self.ask(session, |nonce| holder::checksum(nonce, path)).await?;
        Ok(answer.strip_prefix("sum ").map(|s| s.trim().to_owned()).filter(|s| s.len() == 64))
    }

    async fn put(
        &self,
        session: &Lease,
        sftp: &SftpSession,
        item: &Item,
        path: &str,
        part: &str,
        log: &dyn UnitLog,
    ) -> Result<(), Error> {
        let fail = |e: SftpError| self.sftp_error(path, &e);
        let present = match sftp.metadata(path).await {
            Ok(found) => Some(found),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => None,
            Err(error) => return Err(fail(error)),
        };
        if let Some(found) = &present {
            if found.is_dir() {
                let why = "it is a directory".to_owned();
                return Err(Error::Transfer { host: self.host.clone(), path: path.to_owned(), why });
            }
            if found.size == Some(item.size)
                && self.host_sum(session, path).await?.as_deref() == Some(item.sha256.as_str())
            {
                log.line(Level::Info, &format!("{path} is identical already; skipped")).await?;
                return Ok(());
            }
        }
        let folder =
            path.rsplit_once('/').map_or(".", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        self.make_folders(sftp, folder).await?;
        if let Some(free) = self.free(sftp, folder).await {
            // A tenth more than the file: a target that is full to the last byte breaks something else.
            let needed = item.size + item.size / 10;
            if free < needed {
                return Err(Error::DiskFull { host: self.host.clone(), path: path.to_owned(), needed, free });
            }
        }
        log.line(Level::Info, &format!("Copying {} ({} bytes) to {path} …", item.name, item.size)).await?;
        let sent = self.send(sftp, item, part, log).await;
        if let Err(error) = sent {
            // SFTP has one code for every failed write; a full file system is recognised by looking.
            return Err(match self.free(sftp, folder).await {
                Some(free) if free < (1 << 20) && !error.is_transient() => Error::DiskFull {
                    host: self.host.clone(),
                    path: path.to_owned(),
                    needed: item.size,
                    free,
                },
                _ => error,
            });
        }
        let size = sftp.metadata(part).await.map_err(fail)?.size;
        let sum = self.host_sum(session, part).await?;
        if size != Some(item.size) || sum.as_deref().is_some_and(|s| s != item.sha256) {
            return Err(Error::Corrupt {
                host: self.host.clone(),
                path: path.to_owned(),
                found: sum.unwrap_or_else(|| format!("unknown, {} bytes", size.unwrap_or_default())),
                wanted: item.sha256.clone(),
            });
        }
        let mut attributes = FileAttributes::empty();
        attributes.permissions = Some(item.mode);
        sftp.set_metadata(part, attributes).await.map_err(fail)?;
        if present.is_none() && sftp.rename(part, path).await.is_ok() {
            return Ok(());
        }
        // SFTP version 3 refuses to rename over an existing file.
        let answer = self.ask(session, |nonce| holder::replace(nonce, part, path)).await?;
        if answer != "ok" {
            let why = answer.trim_start_matches("failed").trim().to_owned();
            return Err(Error::Transfer { host: self.host.clone(), path: path.to_owned(), why });
        }
        Ok(())
    }

    async fn free(&self, sftp: &SftpSession, folder: &str) -> Option<u64> {
        let info = sftp.fs_info(folder).await.ok().flatten()?;
        Some(info.blocks_avail.saturating_mul(info.fragment_size))
    }

    async fn make_folders(&self, sftp: &SftpSession, folder: &str) -> Result<(), Error> {
        if sftp.try_exists(folder).await.map_err(|e| self.sftp_error(folder, &e))? {
            return Ok(());
        }
        let mut path = String::new();
        for part in folder.split('/') {
            path.push_str(part);
            let missing = !path.is_empty()
                && !sftp.try_exists(path.as_str()).await.map_err(|e| self.sftp_error(&path, &e))?;
            // Another step may make it in between.
            if missing
                && let Err(error) = sftp.create_dir(path.as_str()).await
                && !sftp.try_exists(path.as_str()).await.unwrap_or(false)
            {
                return Err(self.sftp_error(&path, &error));
            }
            path.push('/');
        }
        Ok(())
    }

    async fn send(
        &self,
        sftp: &SftpSession,
        item: &Item,
        part: &str,
        log: &dyn UnitLog,
    ) -> Result<(), Error> {
        let mut attributes = FileAttributes::empty();
        attributes.permissions = Some(0o600);
        let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
        let mut file = sftp
            .open_with_flags_and_attributes(part, flags, attributes)
            .await
            .map_err(|e| self.sftp_error(part, &e))?;
        let broken = |e: std::io::Error| Error::Transfer {
            host: self.host.clone(),
            path: part.to_owned(),
            why: e.to_string(),
        };
        match &item.content {
            Content::Bytes(bytes) => file.write_all(bytes).await.map_err(broken)?,
            Content::File(path) => {
                let local = |source| Error::Local { path: path.display().to_string(), source };
                let mut source = tokio::fs::File::open(path).await.map_err(local)?;
                let mut buffer = vec![0u8; CHUNK];
                let (mut sent, mut told, mut told_at) = (0u64, 0u64, self.cx.clock.mono());
                loop {
                    let read = source.read(&mut buffer).await.map_err(local)?;
                    if read == 0 {
                        break;
                    }
                    file.write_all(buffer.get(..read).unwrap_or_default()).await.map_err(broken)?;
                    sent += read as u64;
                    let tenth = sent * 10 / item.size.max(1);
                    let now = self.cx.clock.mono();
                    if tenth > told && now.duration_since(told_at) > Duration::from_secs(5) {
                        (told, told_at) = (tenth, now);
                        log.line(Level::Info, &format!("{} %: {sent} of {} bytes", tenth * 10, item.size))
                            .await?;
                    }
                }
            }
        }
        file.flush().await.map_err(broken)?;
        file.close().await.map_err(broken)
    }
}

/// Where a file of a repository goes below the destination: a file that was asked for by its own path keeps its name, one
/// out of a folder its path below that folder.
fn below(path: &str, asked: &[String]) -> String {
    for folder in asked {
        let folder = folder.trim_matches('/').trim_start_matches("./");
        if let Some(rest) = path.strip_prefix(folder).and_then(|r| r.strip_prefix('/')) {
            return rest.to_owned();
        }
        if folder.is_empty() || folder == "." {
            return path.to_owned();
        }
    }
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_place_below_the_folder_that_was_asked_for() {
        let asked = ["conf/app".to_owned(), "other/one.txt".to_owned()];
        assert_eq!(below("conf/app/sub/x.yml", &asked), "sub/x.yml");
        assert_eq!(below("other/one.txt", &asked), "one.txt");
        assert_eq!(below("a/b", &["/".to_owned()]), "a/b");
    }
}
