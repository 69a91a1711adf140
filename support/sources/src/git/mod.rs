//! Files of a Git repository over HTTPS or SSH, at a branch, a tag or a commit.
//!
//! The messages of the smart HTTP protocol (2, and 0 for servers or proxies that do not pass the version on) go through the
//! shared client; packs are checked and read by gitoxide's `gix-pack` and `gix-object`. The whole `gix` with a transport of
//! its own would not see host aliases, the step's deadline and cancellation, and the retry policy (ADR 0004).
//!
//! One commit is fetched, without history. A server that can filter sends trees first and then only the files asked for.

mod answer;
mod ssh;
mod tree;
mod wire;

pub use ssh::{Conversation, Ended, Tunnel};

use crate::error;
use crate::http::{Access, Call};
use crate::near;
use answer::{Chunks, Failed};
use executor_api::StepError;
use gix_hash::ObjectId;
use proto::task::{GitReference, GitSource, HttpAuth, HttpConnector};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, BufWriter};
use tree::{Found, Objects, Problem};
use url::Url;
use wire::{Advertisement, FetchAnswer, Line, Lines, Message, Part, Reference};

const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
/// References of a large repository.
const MAX_REFERENCE_BYTES: u64 = 64 << 20;
/// A pack of one commit. More is no place for config files.
const MAX_PACK_BYTES: u64 = 512 << 20;
/// All files of one call together: they are held in memory.
const MAX_FILES_BYTES: u64 = 64 << 20;

/// Files of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFiles {
    /// The commit they belong to, 40 hex digits.
    pub commit: String,
    /// In the order of the paths asked for; inside a folder by name. None twice.
    pub files: Vec<FetchedFile>,
}

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub struct FetchedFile {
    /// Path from the root of the repository, without `.` and `..`.
    pub path: String,
    /// Content.
    pub bytes: Vec<u8>,
    /// `0o644`, or `0o755` for an executable one.
    pub mode: u32,
}

impl std::fmt::Debug for FetchedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FetchedFile({}, {} bytes, {:o})", self.path, self.bytes.len(), self.mode)
    }
}

/// Fetches the files and folders (with all below them) that `source` names. `scratch` takes the packs for the time of the
/// call; it is made if it is not there.
///
/// **Errors**: `BadSpec` SRC-016 no such repository, branch, tag or commit; SRC-017 no such path; both name the nearest;
/// SRC-018 a symbolic link, submodule or LFS pointer; SRC-019 too large; those of [`Access::send`].
/// **Cancel**, **Repeat**: safe; nothing is left.
pub async fn fetch_files(
    access: &Access,
    source: &GitSource,
    scratch: &Path,
) -> Result<FetchedFiles, StepError> {
    fetch_some(access, source, &[], scratch).await
}

/// The same, with those of the files `optional` that are there.
pub async fn fetch_some(
    access: &Access,
    source: &GitSource,
    optional: &[String],
    scratch: &Path,
) -> Result<FetchedFiles, StepError> {
    let needed = source.paths.len();
    if needed == 0 {
        return Err(error::bad_url("paths", "[]", "at least one file or folder"));
    }
    let paths = source.paths.iter().chain(optional);
    let paths = paths.map(|path| tree::parts(path)).collect::<Result<Vec<_>, _>>()?;
    let made = tokio::fs::create_dir_all(scratch).await;
    let folder = made
        .and_then(|()| tempfile::Builder::new().prefix("git-").tempdir_in(scratch))
        .map_err(|source| error::local_disk("make a folder in", scratch, source))?;
    let remote = Remote::open(access, &source.connector).await?;
    let commit = remote.resolve(&source.reference).await?;
    let id = ObjectId::from_hex(commit.as_bytes())
        .map_err(|_| error::bad_url("commit", &commit, "the 40 hexadecimal digits of a commit"))?;

    let named = describe(&source.reference);
    let trees_only = remote.filters();
    let pack = folder.path().join("tree.pack");
    remote.fetch(std::slice::from_ref(&commit), trees_only, &pack).await.map_err(|failed| {
        match (&source.reference, failed) {
            // The server's words say no more than that it did not want to; with a commit that means it has none such.
            (GitReference::Commit(name), Failed::Refused(_)) => {
                let known = "the server does not have it, or does not hand out single commits";
                error::reference_missing("commit", name, &remote.base, known)
            }
            (_, failed) => failed.classify(&remote.base),
        }
    })?;
    let trees = Arc::new(remote.index(pack, folder.path().join("tree")).await?);
    let (objects, wanted) = (Arc::clone(&trees), paths);
    let found = remote.blocking(&named, move || objects.select(&id, &wanted, needed)).await?;

    let files = if trees_only {
        let mut wants: Vec<String> = found.iter().map(|file| file.id.to_string()).collect();
        wants.sort();
        wants.dedup();
        let pack = folder.path().join("files.pack");
        if wants.is_empty() {
            trees
        } else {
            remote.fetch(&wants, false, &pack).await.map_err(|failed| failed.classify(&remote.base))?;
            Arc::new(remote.index(pack, folder.path().join("files")).await?)
        }
    } else {
        trees
    };
    let files = remote.blocking(&named, move || read(&files, found)).await?;
    let total: u64 = files.iter().map(|file| file.bytes.len() as u64).sum();
    if total > MAX_FILES_BYTES {
        return Err(error::too_large(&remote.base, "what was asked for", MAX_FILES_BYTES));
    }
    Ok(FetchedFiles { commit, files })
}

/// Checks that the repository answers and takes the credentials. Used by the connector test. Returns a remark.
pub(crate) async fn ping(access: &Access, connector: &HttpConnector) -> Result<String, StepError> {
    let remote = Remote::open(access, connector).await?;
    Ok(match &remote.advertisement {
        Advertisement::V2 { .. } => "the repository answers with protocol 2".to_owned(),
        Advertisement::V0 { references, .. } => format!("the repository has {} references", references.len()),
    })
}

fn describe(reference: &GitReference) -> String {
    match reference {
        GitReference::Branch(name) => format!("branch `{name}`"),
        GitReference::Tag(name) => format!("tag `{name}`"),
        GitReference::Commit(name) => format!("commit `{name}`"),
    }
}

fn read(objects: &Objects, found: Vec<Found>) -> Result<Vec<FetchedFile>, Problem> {
    let mut files = Vec::with_capacity(found.len());
    let mut left = MAX_FILES_BYTES;
    for file in found {
        let bytes = objects.file(&file.id)?;
        if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
            return Err(Problem::Refused { path: file.path, kind: "Git LFS pointer" });
        }
        let mode = if file.executable { 0o755 } else { 0o644 };
        match left.checked_sub(bytes.len() as u64) {
            Some(rest) => left = rest,
            // One file over the limit goes along, so that the caller sees it and says so.
            None => {
                files.push(FetchedFile { path: file.path, bytes, mode });
                break;
            }
        }
        files.push(FetchedFile { path: file.path, bytes, mode });
    }
    Ok(files)
}

/// One repository.
struct Remote<'a> {
    access: &'a Access,
    connector: &'a HttpConnector,
    credentials: HeaderMap,
    /// Without trailing slash.
    base: Url,
    advertisement: Advertisement,
    /// Set when it is reached over SSH; then nothing goes over HTTP.
    talk: Option<ssh::Talk>,
}

impl<'a> Remote<'a> {
    async fn open(access: &'a Access, connector: &'a HttpConnector) -> Result<Self, StepError> {
        let field = format!("connector `{}`, url", connector.identifier);
        if let HttpAuth::Ssh(target) = &connector.auth {
            let (base, talk, advertisement) = ssh::open(access, connector, target).await?;
            let credentials = HeaderMap::new();
            let remote = Remote { access, connector, credentials, base, advertisement, talk: Some(talk) };
            return remote.checked();
        }
        let asked = Url::parse(connector.url.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| error::bad_url(&field, &connector.url, "an http or https URL of a repository"))?;
        let mut credentials = access.credentials(connector)?;
        let mut url = below(&asked, "info/refs");
        url.set_query(Some("service=git-upload-pack"));
        let call = Call::get(url, &connector.identifier)
            .credentials(credentials.clone())
            .header(GIT_PROTOCOL, HeaderValue::from_static("version=2"));
        let (answer, body) = access.fetch(&call, MAX_REFERENCE_BYTES).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(error::repository_missing(&asked)),
            status => {
                return Err(error::unexpected(
                    &asked,
                    format!("HTTP {}", status.as_u16()),
                    "a Git repository",
                ));
            }
        }
        let smart = answer
            .header(CONTENT_TYPE)
            .is_some_and(|kind| kind.starts_with("application/x-git-upload-pack-"));
        if !smart {
            return Err(error::unexpected(
                &asked,
                "it does not speak the smart HTTP protocol",
                "a Git repository",
            ));
        }
        // A renamed repository answers from its new place; the next requests go there, without credentials if it is
        // another host's.
        let mut base = answer.url.clone();
        if base.origin() != asked.origin() {
            credentials = HeaderMap::new();
        }
        base.set_query(None);
        let path = base.path().strip_suffix("/info/refs").unwrap_or(asked.path()).to_owned();
        base.set_path(&path);
        let advertisement =
            Advertisement::parse(&body).map_err(|e| error::unexpected(&base, e.0, "a Git repository"))?;
        Remote { access, connector, credentials, base, advertisement, talk: None }.checked()
    }

    fn checked(self) -> Result<Self, StepError> {
        match self.capability("object-format") {
            Some(format) if format != "sha1" => Err(error::unexpected(
                &self.base,
                format!("its object format is {format}"),
                "a SHA-1 repository",
            )),
            _ => Ok(self),
        }
    }

    fn capability(&self, name: &str) -> Option<&str> {
        match &self.advertisement {
            Advertisement::V2 { capabilities } | Advertisement::V0 { capabilities, .. } => {
                capabilities.get(name).map(String::as_str)
            }
        }
    }

    /// Whether trees can be fetched without the files in them.
    fn filters(&self) -> bool {
        matches!(self.advertisement, Advertisement::V2 { .. }) && self.fetch_feature("filter")
    }

    fn fetch_feature(&self, name: &str) -> bool {
        self.capability("fetch").is_some_and(|features| features.split(' ').any(|feature| feature == name))
    }

    /// The commit that a reference stands for.
    async fn resolve(&self, reference: &GitReference) -> Result<String, StepError> {
        let (kind, folder, name) = match reference {
            GitReference::Branch(name) => ("branch", "refs/heads/", name),
            GitReference::Tag(name) => ("tag", "refs/tags/", name),
            GitReference::Commit(id) => {
                let id = id.trim().to_ascii_lowercase();
                if wire::is_id(&id) {
                    return Ok(id);
                }
                return Err(error::bad_url("commitId", &id, "the 40 hexadecimal digits of a commit"));
            }
        };
        let name = name.trim();
        let short = name.strip_prefix(folder).unwrap_or(name);
        if short.is_empty() || short.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(error::bad_url(kind, name, "a name without white space"));
        }
        let full = format!("{folder}{short}");
        let matching = self.references(&full).await?;
        if let Some(found) = matching.into_iter().find(|reference| reference.name == full) {
            return Ok(found.peeled.unwrap_or(found.id));
        }
        let all = self.references(folder).await?;
        let names: Vec<String> = all
            .iter()
            .filter_map(|reference| reference.name.strip_prefix(folder))
            .map(str::to_owned)
            .collect();
        Err(error::reference_missing(kind, short, &self.base, &near::phrase(short, &names, kind)))
    }

    /// References whose names begin with `prefix`.
    async fn references(&self, prefix: &str) -> Result<Vec<Reference>, StepError> {
        match &self.advertisement {
            Advertisement::V0 { references, .. } => Ok(references
                .iter()
                .filter(|reference| reference.name.starts_with(prefix))
                .cloned()
                .collect()),
            Advertisement::V2 { .. } => {
                let body = self
                    .command("ls-refs")
                    .line("peel")
                    .line(&format!("ref-prefix {prefix}"))
                    .flush()
                    .into_bytes();
                let body = match &self.talk {
                    Some(talk) => talk.ask(self.access, &self.base, body, MAX_REFERENCE_BYTES).await?,
                    None => {
                        let (answer, body) = self.access.fetch(&self.call(body), MAX_REFERENCE_BYTES).await?;
                        self.expect_ok(answer.status)?;
                        body.to_vec()
                    }
                };
                wire::references(&body).map_err(|e| error::unexpected(&self.base, e.0, "a Git repository"))
            }
        }
    }

    fn command(&self, name: &str) -> Message {
        let mut message = Message::default().line(&format!("command={name}"));
        if self.capability("object-format").is_some() {
            message = message.line("object-format=sha1");
        }
        message.delimiter()
    }

    fn call(&self, body: Vec<u8>) -> Call {
        let mut call = Call::get(below(&self.base, "git-upload-pack"), &self.connector.identifier)
            .credentials(self.credentials.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-git-upload-pack-request"))
            .header(ACCEPT, HeaderValue::from_static("application/x-git-upload-pack-result"));
        if matches!(self.advertisement, Advertisement::V2 { .. }) {
            call = call.header(GIT_PROTOCOL, HeaderValue::from_static("version=2"));
        }
        call.method = Method::POST;
        call.body = body.into();
        call
    }

    fn expect_ok(&self, status: StatusCode) -> Result<(), StepError> {
        if status == StatusCode::OK {
            return Ok(());
        }
        Err(error::unexpected(&self.base, format!("HTTP {}", status.as_u16()), "a Git repository"))
    }

    /// Fetches `wants` into a pack file.
    async fn fetch(&self, wants: &[String], trees_only: bool, pack: &Path) -> Result<(), Failed> {
        let want = |id: &String| format!("want {id}");
        let body = match &self.advertisement {
            Advertisement::V2 { .. } => {
                let mut message = self.command("fetch").line("no-progress").line("ofs-delta");
                if self.fetch_feature("shallow") {
                    message = message.line("deepen 1");
                }
                if trees_only {
                    message = message.line("filter blob:none");
                }
                message.lines(wants.iter().map(want)).line("done").flush().into_bytes()
            }
            Advertisement::V0 { capabilities, .. } => {
                let usable = ["side-band-64k", "ofs-delta", "no-progress", "shallow"];
                let used: Vec<&str> =
                    usable.into_iter().filter(|name| capabilities.contains_key(*name)).collect();
                if !used.contains(&"side-band-64k") {
                    let problem = "it does not know side-band-64k";
                    return Err(
                        error::unexpected(&self.base, problem, "a Git server of the last ten years").into()
                    );
                }
                let mut wants = wants.iter().map(want);
                let first = wants.next().unwrap_or_default();
                let mut message =
                    Message::default().line(&format!("{first} {}", used.join(" "))).lines(wants);
                if used.contains(&"shallow") {
                    message = message.line("deepen 1");
                }
                message.flush().line("done").into_bytes()
            }
        };
        if let Some(talk) = &self.talk {
            // What a conversation has got out of step with cannot be asked again.
            let answer = talk.say(body).await;
            return self.receive(Chunks::Ssh(answer), pack).await;
        }
        let call = self.call(body);
        let mut retry = self.access.retry();
        loop {
            match self.transfer(&call, pack).await {
                Err(Failed::Step(error)) => retry.after(error).await?,
                done => return done,
            }
        }
    }

    async fn transfer(&self, call: &Call, pack: &Path) -> Result<(), Failed> {
        let mut answer = self.access.send(call).await?;
        self.expect_ok(answer.status)?;
        self.receive(Chunks::Http(&mut answer), pack).await
    }

    /// Writes the pack of an answer into a file.
    async fn receive(&self, mut answer: Chunks<'_>, pack: &Path) -> Result<(), Failed> {
        let failed = |source| error::local_disk("write", pack, source);
        let file = tokio::fs::File::create(pack).await.map_err(failed)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let (mut lines, mut fetch, mut bytes) = (Lines::default(), FetchAnswer::default(), 0u64);
        'answer: while let Some(chunk) = answer.next(self.access, &self.base).await? {
            lines.push(&chunk);
            let malformed = |e: wire::Malformed| error::unexpected(&self.base, e.0, "a Git repository");
            while let Some(line) = lines.next().map_err(malformed)? {
                // A conversation goes on behind the pack; an HTTP answer is over by itself.
                if line == Line::Flush && bytes > 0 {
                    break 'answer;
                }
                match fetch.next(line) {
                    Part::Pack(part) => {
                        bytes += part.len() as u64;
                        if bytes > MAX_PACK_BYTES {
                            return Err(error::too_large(&self.base, "the commit", MAX_PACK_BYTES).into());
                        }
                        file.write_all(&part).await.map_err(failed)?;
                    }
                    Part::Refused(words) => return Err(Failed::Refused(words)),
                    Part::Other => {}
                }
            }
        }
        file.flush().await.map_err(failed)?;
        if bytes == 0 {
            return Err(error::cut_short(&self.base, 0, 1).into());
        }
        Ok(())
    }

    async fn index(&self, pack: PathBuf, folder: PathBuf) -> Result<Objects, StepError> {
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|source| error::local_disk("make", &folder, source))?;
        self.blocking("the pack", move || Objects::open(&pack, &folder)).await
    }

    /// Runs file and inflate work on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        reference: &str,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, StepError> {
        let done = self.access.bounded("reading a Git pack", tokio::task::spawn_blocking(work)).await?;
        let problem = match done {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(problem)) => problem,
            Err(panicked) => Problem::Damaged(panicked.to_string()),
        };
        Err(match problem {
            Problem::Damaged(what) => error::unexpected(&self.base, what, "a Git repository"),
            Problem::Missing { path, known } => {
                let known = near::phrase(&path, &known, "file");
                error::path_missing(&path, reference, &self.base, &known)
            }
            Problem::Refused { path, kind } => error::entry_refused(&path, kind, &self.base),
            Problem::TooMany => error::too_large(&self.base, "the tree", MAX_PACK_BYTES),
        })
    }
}

fn below(base: &Url, tail: &str) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.set_path(&format!("{}/{tail}", base.path().trim_end_matches('/')));
    url
}
