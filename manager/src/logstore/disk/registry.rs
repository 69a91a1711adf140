//! Which body belongs to which key: in memory, and as an append-only list on the disk.

use super::body::Body;
use super::{LogError, StreamInfo, io};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LIST: &str = "streams.ndjson";
/// Bodies in one folder, so that no folder gets so long that looking a name up becomes slow.
const IN_FOLDER: u64 = 1000;

/// Something that happened to a key. Field names are short: there is one line for each open and close.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Op {
    #[serde(rename = "o")]
    what: What,
    #[serde(rename = "a")]
    account: String,
    #[serde(rename = "k")]
    key: String,
    /// Number of the body.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Open,
    Reopen,
    /// Closed, its lines became the blob.
    Snapshot,
    /// Closed without a blob.
    Close,
    Blob,
    NoBlob,
}

impl Op {
    fn new(what: What, account: &str, key: &str, number: Option<u64>) -> Self {
        Op { what, account: account.to_owned(), key: key.to_owned(), number }
    }

    pub(super) fn open(account: &str, key: &str, number: u64) -> Self {
        Op::new(What::Open, account, key, Some(number))
    }

    pub(super) fn reopen(account: &str, key: &str) -> Self {
        Op::new(What::Reopen, account, key, None)
    }

    pub(super) fn close(account: &str, key: &str, snapshot: bool) -> Self {
        Op::new(if snapshot { What::Snapshot } else { What::Close }, account, key, None)
    }

    pub(super) fn blob(account: &str, key: &str, number: u64) -> Self {
        Op::new(What::Blob, account, key, Some(number))
    }

    pub(super) fn no_blob(account: &str, key: &str) -> Self {
        Op::new(What::NoBlob, account, key, None)
    }
}

/// The blob of a key.
#[derive(Clone, Debug)]
pub(super) enum Blob {
    /// A closed stream.
    Lines(Arc<Body>),
    /// Uploaded as a whole.
    Raw(Arc<Body>),
}

/// What there is under a key.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyState {
    pub(super) live: Option<Arc<Body>>,
    pub(super) blob: Option<Blob>,
    /// Lines of a stream that was closed without a snapshot.
    pub(super) left: Option<Arc<Body>>,
    numbers: Numbers,
}

#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    live: u64,
    blob: u64,
    left: u64,
}

impl KeyState {
    /// The body that a resumed stream goes on with, and whether it is closed.
    pub(super) fn resumable(&self) -> Option<(Arc<Body>, bool)> {
        if let Some(live) = &self.live {
            return Some((live.clone(), false));
        }
        match &self.blob {
            Some(Blob::Lines(body)) => Some((body.clone(), true)),
            _ => self.left.clone().map(|body| (body, true)),
        }
    }

    fn is_empty(&self) -> bool {
        self.live.is_none() && self.blob.is_none() && self.left.is_none()
    }

    fn drop_blob(&mut self) -> Option<Arc<Body>> {
        self.blob.take().map(|blob| match blob {
            Blob::Lines(body) | Blob::Raw(body) => body,
        })
    }

    /// Bodies that nothing refers to afterwards are returned.
    fn apply(
        &mut self,
        what: What,
        number: u64,
        make: impl FnOnce(u64, bool) -> Arc<Body>,
    ) -> Vec<Arc<Body>> {
        let mut dropped = Vec::new();
        match what {
            What::Open => {
                dropped.extend(self.live.replace(make(number, false)));
                self.numbers.live = number;
            }
            What::Reopen => {
                if self.live.is_none() {
                    if let Some(Blob::Lines(body)) = &self.blob {
                        self.live = Some(body.clone());
                        self.numbers.live = self.numbers.blob;
                        self.blob = None;
                    } else {
                        self.live = self.left.take();
                        self.numbers.live = self.numbers.left;
                    }
                }
            }
            What::Snapshot => {
                if let Some(live) = self.live.take() {
                    dropped.extend(self.drop_blob());
                    dropped.extend(self.left.take());
                    self.blob = Some(Blob::Lines(live));
                    self.numbers.blob = self.numbers.live;
                }
            }
            What::Close => {
                if let Some(live) = self.live.take() {
                    dropped.extend(self.left.replace(live));
                    self.numbers.left = self.numbers.live;
                }
            }
            What::Blob => {
                dropped.extend(self.drop_blob());
                self.blob = Some(Blob::Raw(make(number, true)));
                self.numbers.blob = number;
            }
            What::NoBlob => dropped.extend(self.drop_blob()),
        }
        dropped
    }

    /// The shortest list of operations that leads here.
    fn ops(&self, account: &str, key: &str) -> Vec<Op> {
        let mut ops = Vec::new();
        if self.left.is_some() {
            ops.push(Op::open(account, key, self.numbers.left));
            ops.push(Op::close(account, key, false));
        }
        match &self.blob {
            Some(Blob::Lines(_)) => {
                let left = ops.pop();
                let opened = ops.pop();
                ops.push(Op::open(account, key, self.numbers.blob));
                ops.push(Op::close(account, key, true));
                // A snapshot does away with what was left before it, so what is left came after it.
                ops.extend(opened);
                ops.extend(left);
            }
            Some(Blob::Raw(_)) => ops.push(Op::blob(account, key, self.numbers.blob)),
            None => {}
        }
        if self.live.is_some() {
            ops.push(Op::open(account, key, self.numbers.live));
        }
        ops
    }
}

/// See the module. Every method that writes blocks.
pub(super) struct Registry {
    root: PathBuf,
    list: File,
    keys: BTreeMap<String, BTreeMap<String, KeyState>>,
    next: u64,
}

impl Registry {
    pub(super) fn open(root: &Path) -> Result<Self, LogError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io("make the log folder"))?;
        let path = root.join(LIST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io("read the list of streams")(error)),
        };
        let list = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("open the list of streams"))?;
        let mut registry = Registry { root: root.to_owned(), list, keys: BTreeMap::new(), next: 0 };
        let mut ops = 0_usize;
        let mut dropped = Vec::new();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for (at, line) in text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let op: Op = serde_json::from_slice(line)
                .map_err(|_| LogError::Damaged { path: path.clone(), line: at + 1 })?;
            dropped.extend(registry.apply(&op));
            ops += 1;
        }
        // Erased before a crash that came between the list and the files.
        dropped.iter().try_for_each(|body| body.erase())?;
        let needed: usize = registry.all_ops().map(|ops| ops.len()).sum();
        if ops > 2 * needed + 1000 || whole < text.len() {
            registry.compact(&path)?;
        }
        Ok(registry)
    }

    fn all_ops(&self) -> impl Iterator<Item = Vec<Op>> {
        self.keys
            .iter()
            .flat_map(|(account, keys)| keys.iter().map(move |(key, state)| state.ops(account, key)))
    }

    /// Writes the list anew, without history and without a torn last line.
    fn compact(&mut self, path: &Path) -> Result<(), LogError> {
        let fresh = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(io("write the list of streams"))?;
        let mut text = Vec::new();
        for op in self.all_ops().flatten() {
            line(&op, &mut text)?;
        }
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io("write the list of streams"))?;
        fs::rename(&fresh, path).map_err(io("replace the list of streams"))?;
        self.list = OpenOptions::new().append(true).open(path).map_err(io("open the list of streams"))?;
        Ok(())
    }

    /// The number of a new body.
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// A body by number, not yet belonging to a key.
    pub(super) fn body(&self, number: u64) -> Arc<Body> {
        Arc::new(Body::new(folder(&self.root, number), true))
    }

    pub(super) fn get(&self, account: &str, key: &str) -> Option<&KeyState> {
        self.keys.get(account)?.get(key)
    }

    /// Writes down what happened and returns the bodies that nothing refers to any more.
    pub(super) fn record(&mut self, op: Op) -> Result<Vec<Arc<Body>>, LogError> {
        let mut text = Vec::new();
        line(&op, &mut text)?;
        self.list.write_all(&text).map_err(io("write the list of streams"))?;
        Ok(self.apply(&op))
    }

    fn apply(&mut self, op: &Op) -> Vec<Arc<Body>> {
        let number = op.number.unwrap_or(0);
        self.next = self.next.max(number + 1);
        let root = &self.root;
        let keys = self.keys.entry(op.account.clone()).or_default();
        let state = keys.entry(op.key.clone()).or_default();
        let dropped =
            state.apply(op.what, number, |number, closed| Arc::new(Body::new(folder(root, number), closed)));
        if state.is_empty() {
            keys.remove(&op.key);
        }
        dropped
    }

    pub(super) fn keys(&self, account: &str, prefix: &str, limit: usize) -> Vec<StreamInfo> {
        let Some(keys) = self.keys.get(account) else { return vec![] };
        keys.range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, state)| StreamInfo { key: key.clone(), open: state.live.is_some() })
            .collect()
    }
}

fn folder(root: &Path, number: u64) -> PathBuf {
    root.join((number / IN_FOLDER).to_string()).join(number.to_string())
}

fn line(op: &Op, text: &mut Vec<u8>) -> Result<(), LogError> {
    serde_json::to_writer(&mut *text, op)
        .map_err(|e| LogError::Io { what: "write the list of streams", source: e.into() })?;
    text.push(b'\n');
    Ok(())
}
