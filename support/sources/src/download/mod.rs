//! Files from Artifactory and any other HTTP repository, into a cache keyed by content.
//!
//! ```text
//! cache/sha256/ab/abcdef…      content, named by its own checksum, read-only by convention
//! cache/index/KEY.json         what a URL gave last: validators and checksum
//! cache/partial/KEY{,.json}    a download that was cut, and what it is a part of
//! ```
//!
//! A cached file is used only after its bytes were hashed again and, unless the step itself names the checksum, after
//! the server confirmed with this task's credentials that it is still current.

mod cache;
mod location;

pub use cache::prune;

use crate::error;
use crate::http::{Access, Answer, Call};
use cache::{Cache, Entry};
use executor_api::StepError;
use proto::task::DownloadSource;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Method, StatusCode};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncWriteExt, BufWriter};
use url::Url;

/// The checksum that Artifactory, and others after it, send with a file.
const X_CHECKSUM_SHA256: HeaderName = HeaderName::from_static("x-checksum-sha256");

/// A file that is now in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Where it lies. Not to be changed; open it soon, [`prune`] may remove what was not used for long.
    pub path: PathBuf,
    /// Its checksum in lower-case hex, computed from the bytes on the disk.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Last part of its path in the repository.
    pub file_name: String,
    /// Where it comes from, for messages and outputs.
    pub url: String,
    /// Whether no byte of it was transferred by this call.
    pub from_cache: bool,
}

/// Brings one file into `cache` and verifies it: against the step's checksum, the server's, or both.
///
/// A cut connection is resumed where it broke, also by a later call and after a restart, if the server gave a strong
/// validator. Two calls for the same file share one transfer.
///
/// **Errors**: `BadSpec` SRC-006 missing, SRC-007 corrupt (wrong against the step), SRC-008 unusable path;
/// `Connectivity` SRC-007 corrupt (wrong against the server's own checksum); those of [`Access::send`].
/// **Cancel**: leaves a partial file that the next call goes on with. **Repeat**: safe.
pub async fn download(
    access: &Access,
    source: &DownloadSource,
    cache: &Path,
) -> Result<Downloaded, StepError> {
    let url = location::of(source)?;
    let file_name = location::file_name(&url)?;
    let expected = location::checksum(source)?;
    let cache = Cache::at(cache, &url);
    // One transfer per file: whoever comes second finds it in the cache.
    let lock = access.client.download_lock(&format!("{} {}", cache.root().display(), cache.key()));
    let _held = access.bounded("waiting for another download of the same file", lock.lock()).await?;

    let found = |entry: Entry, from_cache| Downloaded {
        path: cache.content(&entry.sha256),
        sha256: entry.sha256,
        bytes: entry.bytes,
        file_name: file_name.clone(),
        url: error::shown(&url),
        from_cache,
    };
    if let Some(sha256) = &expected
        && let Some(entry) = cache.verified(sha256).await?
    {
        access.notice(&format!("{file_name}: cached, sha256 {sha256}"));
        return Ok(found(entry, true));
    }
    let known = match cache.indexed().await {
        Some(entry) if expected.as_ref().is_none_or(|sha256| *sha256 == entry.sha256) => {
            cache.verified(&entry.sha256).await?.map(|content| Entry { bytes: content.bytes, ..entry })
        }
        _ => None,
    };
    let transfer = Transfer { access, source, url: &url, cache: &cache, expected: expected.as_deref() };
    match transfer.run(known.as_ref()).await? {
        Some(entry) => Ok(found(entry, false)),
        None => match known {
            Some(entry) => {
                access.notice(&format!("{file_name}: unchanged on the server, taken from the cache"));
                Ok(found(entry, true))
            }
            None => Err(error::unexpected(&url, "HTTP 304 to an unconditional request", "a file server")),
        },
    }
}

/// What a server says of a file without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where it lies, for messages and outputs.
    pub url: String,
    /// Last part of its path.
    pub file_name: String,
    /// Lower-case hex, when the server sends `X-Checksum-Sha256` (Artifactory does).
    pub sha256: Option<String>,
    /// Its size, when the server says it.
    pub bytes: Option<u64>,
}

/// Asks whether a file is there, and for the checksum to pin it by, without transferring it.
///
/// **Errors**: as [`download`], but for the cache.
pub async fn locate(access: &Access, source: &DownloadSource) -> Result<Located, StepError> {
    let url = location::of(source)?;
    let file_name = location::file_name(&url)?;
    let connector = &source.connector;
    let mut call = Call::get(url.clone(), &connector.identifier).credentials(access.credentials(connector)?);
    call.method = Method::HEAD;
    let mut answer = access.send(&call).await?;
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        // One byte tells the same; the connection is closed instead of reading a server that sends all.
        call.method = Method::GET;
        call = call.header(RANGE, HeaderValue::from_static("bytes=0-0"));
        answer = access.send(&call).await?;
    }
    let whole = || answer.header(CONTENT_LENGTH)?.parse().ok();
    let bytes = match answer.status {
        StatusCode::OK => whole(),
        StatusCode::PARTIAL_CONTENT => {
            answer.header(CONTENT_RANGE).and_then(|range| range.rsplit_once('/')?.1.trim().parse().ok())
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Some(0),
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(error::artifact_missing(&url)),
        status => return Err(error::unexpected(&url, format!("HTTP {}", status.as_u16()), "a file server")),
    };
    Ok(Located { url: error::shown(&url), file_name, sha256: promised(&answer), bytes })
}

struct Transfer<'a> {
    access: &'a Access,
    source: &'a DownloadSource,
    url: &'a Url,
    cache: &'a Cache,
    expected: Option<&'a str>,
}

impl Transfer<'_> {
    /// Transfers until the file is whole and right. `None`: the server says that `known` is current.
    async fn run(&self, known: Option<&Entry>) -> Result<Option<Entry>, StepError> {
        let mut retry = self.access.retry();
        loop {
            let before = self.resumable().await;
            let error = match self.attempt(known).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if self.resumable().await > before {
                retry.progressed();
            }
            retry.after(error).await?;
        }
    }

    /// Bytes that the next attempt need not fetch again.
    async fn resumable(&self) -> u64 {
        self.cache.partial().await.map_or(0, |partial| partial.bytes)
    }

    async fn attempt(&self, known: Option<&Entry>) -> Result<Option<Entry>, StepError> {
        let connector = &self.source.connector;
        let mut call = Call::get(self.url.clone(), &connector.identifier)
            .credentials(self.access.credentials(connector)?);
        let partial = self.cache.partial().await;
        if let Some(partial) = &partial {
            call = call.header(RANGE, value(&format!("bytes={}-", partial.bytes))?);
            call = call.header(IF_RANGE, value(&partial.validator)?);
        } else if let Some(known) = known {
            if let Some(etag) = &known.etag {
                call = call.header(IF_NONE_MATCH, value(etag)?);
            } else if let Some(date) = &known.last_modified {
                call = call.header(IF_MODIFIED_SINCE, value(date)?);
            }
        }
        let mut answer = self.access.once(&call).await?;
        let from = match answer.status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => match (&partial, range_start(&answer)) {
                (Some(partial), Some(start)) if start == partial.bytes => start,
                _ => {
                    self.cache.drop_partial().await?;
                    return Err(error::cut_short(self.url, 0, partial.map_or(0, |partial| partial.bytes)));
                }
            },
            StatusCode::NOT_MODIFIED => return Ok(None),
            StatusCode::RANGE_NOT_SATISFIABLE if partial.is_some() => {
                // What we have is no prefix of what there is: begin again.
                self.cache.drop_partial().await?;
                return Err(error::cut_short(self.url, 0, 0));
            }
            StatusCode::UNAUTHORIZED => return Err(error::unauthorized(self.url, &connector.identifier)),
            StatusCode::FORBIDDEN => return Err(error::forbidden(self.url, &connector.identifier)),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(error::artifact_missing(self.url)),
            status => {
                return Err(error::unexpected(
                    self.url,
                    format!("HTTP {}", status.as_u16()),
                    "a file server",
                ));
            }
        };
        self.store(&mut answer, from).await.map(Some)
    }

    /// Writes the body behind the first `from` bytes, then checks and files the whole.
    async fn store(&self, answer: &mut Answer, from: u64) -> Result<Entry, StepError> {
        let mut entry = Entry {
            etag: answer.header(ETAG).map(str::to_owned),
            last_modified: answer.header(LAST_MODIFIED).map(str::to_owned),
            ..Entry::default()
        };
        let promised = promised(answer);
        let length: Option<u64> = answer.header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        // Each write to the disk is a hop to another thread, so small parts are gathered.
        let file = self.cache.open_partial(from, validator(answer)).await?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let failed = |source| error::local_disk("write", &self.cache.partial_path(), source);
        let mut got = 0u64;
        let ended = loop {
            match answer.chunk(self.access).await {
                Ok(Some(part)) => {
                    got += part.len() as u64;
                    file.write_all(&part).await.map_err(failed)?;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Also after a cut: what came so far is where the next attempt begins.
        file.flush().await.map_err(failed)?;
        file.get_ref().sync_data().await.map_err(failed)?;
        drop(file);
        ended?;
        if let Some(length) = length.filter(|length| got < *length) {
            return Err(error::cut_short(self.url, got, length));
        }
        (entry.sha256, entry.bytes) = self.cache.hash_partial().await?;
        for (sum, by_author) in [(self.expected, true), (promised.as_deref(), false)] {
            if let Some(sum) = sum.filter(|sum| *sum != entry.sha256) {
                self.cache.drop_partial().await?;
                return Err(error::checksum(self.url, sum, &entry.sha256, by_author));
            }
        }
        self.cache.file(&entry).await?;
        self.access.client.count_transfer();
        Ok(entry)
    }
}

fn value(text: &str) -> Result<HeaderValue, StepError> {
    HeaderValue::from_str(text).map_err(|_| error::bad_url("header", "range or validator", "printable text"))
}

/// The checksum that the server sends along.
fn promised(answer: &Answer) -> Option<String> {
    let sum = answer.header(X_CHECKSUM_SHA256)?.trim().to_ascii_lowercase();
    (!sum.is_empty()).then_some(sum)
}

/// What `If-Range` accepts: a strong entity tag, else a date.
fn validator(answer: &Answer) -> Option<String> {
    match answer.header(ETAG) {
        Some(tag) if !tag.starts_with("W/") => Some(tag.to_owned()),
        _ => answer.header(LAST_MODIFIED).map(str::to_owned),
    }
}

/// `bytes 100-199/200` gives 100.
fn range_start(answer: &Answer) -> Option<u64> {
    answer
        .header(CONTENT_RANGE)?
        .trim()
        .strip_prefix("bytes")?
        .trim_start()
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}
