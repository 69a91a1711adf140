//! Objects of a fetched pack: commit, trees, files. Blocking; runs on a thread of its own.

use crate::error;
use executor_api::StepError;
use gix_hash::ObjectId;
use gix_object::Kind;
use gix_object::tree::EntryKind;
use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Most entries that are looked at: a tree that names itself many times over would grow without end.
const MAX_ENTRIES: usize = 200_000;
/// Largest single object. Config files are small; a delta that claims more is refused before memory is given.
const MAX_OBJECT_BYTES: usize = 64 << 20;

/// Why objects could not be read.
#[derive(Debug)]
pub(super) enum Problem {
    /// The pack is damaged or not what was asked for.
    Damaged(String),
    /// The path is not there; these are.
    Missing { path: String, known: Vec<String> },
    /// An entry that is not copied.
    Refused { path: String, kind: &'static str },
    /// More entries than a config store has.
    TooMany,
}

/// A file found in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: String,
    pub(super) id: ObjectId,
    pub(super) executable: bool,
}

/// An indexed pack.
pub(super) struct Objects(Option<gix_pack::Bundle>);

impl Objects {
    /// Indexes the pack at `pack` inside `folder`, checking every object.
    pub(super) fn open(pack: &Path, folder: &Path) -> Result<Self, Problem> {
        let damaged = |what: &dyn std::fmt::Display| Problem::Damaged(what.to_string());
        let file = std::fs::File::open(pack).map_err(|e| damaged(&e))?;
        let options = gix_pack::bundle::write::Options {
            // The agent does other things on the other cores.
            thread_limit: Some(1),
            alloc_limit_bytes: Some(MAX_OBJECT_BYTES),
            ..Default::default()
        };
        let written = gix_pack::Bundle::write_to_directory(
            &mut BufReader::new(file),
            Some(folder),
            &mut gix_utils::progress::Discard,
            &AtomicBool::new(false),
            None::<gix_object::find::Never>,
            gix_hash::Kind::Sha1,
            options,
        )
        .map_err(|e| damaged(&e))?;
        let bundle = written.to_bundle().transpose().map_err(|e| damaged(&e))?;
        Ok(Objects(bundle))
    }

    fn read(&self, id: &ObjectId, kind: Kind) -> Result<Vec<u8>, Problem> {
        let mut out = Vec::new();
        let found = match &self.0 {
            Some(bundle) => bundle
                .find(id, &mut out, &mut gix_zlib::Inflate::default(), &mut gix_pack::cache::Never)
                .map_err(|e| Problem::Damaged(e.to_string()))?
                .map(|(data, _)| data.kind),
            None => None,
        };
        match found {
            Some(found) if found == kind => Ok(out),
            Some(found) => Err(Problem::Damaged(format!("object {id} is a {found}, not a {kind}"))),
            None => Err(Problem::Damaged(format!("object {id} was not sent"))),
        }
    }

    /// The bytes of a file.
    pub(super) fn file(&self, id: &ObjectId) -> Result<Vec<u8>, Problem> {
        self.read(id, Kind::Blob)
    }

    /// Every file that `paths` name in the tree of `commit`, folders with all that is below them. Those after the first
    /// `needed` may be missing.
    pub(super) fn select(
        &self,
        commit: &ObjectId,
        paths: &[Vec<String>],
        needed: usize,
    ) -> Result<Vec<Found>, Problem> {
        let data = self.read(commit, Kind::Commit)?;
        let root = gix_object::CommitRefIter::from_bytes(&data, gix_hash::Kind::Sha1)
            .tree_id()
            .map_err(|e| Problem::Damaged(e.to_string()))?;
        let mut budget = MAX_ENTRIES;
        let mut files = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, path) in paths.iter().enumerate() {
            let before = files.len();
            match self.entry(&root, path, &mut budget)? {
                Some(Entry { kind: EntryKind::Tree, id, .. }) => {
                    self.below(&id, &path.join("/"), &mut budget, true, &mut files)?;
                }
                Some(Entry { kind: EntryKind::Link, .. }) => {
                    return Err(refused(&path.join("/"), "symbolic link"));
                }
                Some(Entry { kind: EntryKind::Commit, .. }) => {
                    return Err(refused(&path.join("/"), "submodule"));
                }
                Some(Entry { kind, id, .. }) => files.push(Found {
                    path: path.join("/"),
                    id,
                    executable: kind == EntryKind::BlobExecutable,
                }),
                None if index >= needed => {}
                None => {
                    let mut all = Vec::new();
                    let mut budget = 10_000;
                    // For the error text only: what fits into the budget is enough.
                    drop(self.below(&root, "", &mut budget, false, &mut all));
                    let known = all.into_iter().map(|found| found.path).collect();
                    return Err(Problem::Missing { path: path.join("/"), known });
                }
            }
            let fresh: Vec<Found> =
                files.drain(before..).filter(|file| seen.insert(file.path.clone())).collect();
            files.extend(fresh);
        }
        Ok(files)
    }

    fn entry(&self, root: &ObjectId, path: &[String], budget: &mut usize) -> Result<Option<Entry>, Problem> {
        let mut here = Entry { kind: EntryKind::Tree, id: *root, name: String::new() };
        for part in path {
            if here.kind != EntryKind::Tree {
                return Ok(None);
            }
            match self.entries(&here.id, budget)?.into_iter().find(|entry| entry.name == *part) {
                Some(entry) => here = entry,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// Adds every file below a tree. Strict: refuses what is not a plain file instead of leaving it out.
    fn below(
        &self,
        tree: &ObjectId,
        prefix: &str,
        budget: &mut usize,
        strict: bool,
        files: &mut Vec<Found>,
    ) -> Result<(), Problem> {
        let mut open = vec![(*tree, prefix.to_owned())];
        while let Some((tree, prefix)) = open.pop() {
            for entry in self.entries(&tree, budget)? {
                let path = if prefix.is_empty() { entry.name } else { format!("{prefix}/{}", entry.name) };
                match entry.kind {
                    EntryKind::Tree => open.push((entry.id, path)),
                    EntryKind::Link if strict => return Err(refused(&path, "symbolic link")),
                    EntryKind::Commit if strict => return Err(refused(&path, "submodule")),
                    EntryKind::Link | EntryKind::Commit => {}
                    EntryKind::Blob => files.push(Found { path, id: entry.id, executable: false }),
                    EntryKind::BlobExecutable => files.push(Found { path, id: entry.id, executable: true }),
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    fn entries(&self, tree: &ObjectId, budget: &mut usize) -> Result<Vec<Entry>, Problem> {
        let data = self.read(tree, Kind::Tree)?;
        let mut entries = Vec::new();
        for entry in gix_object::TreeRefIter::from_bytes(&data, gix_hash::Kind::Sha1) {
            let entry = entry.map_err(|e| Problem::Damaged(e.to_string()))?;
            *budget = budget.checked_sub(1).ok_or(Problem::TooMany)?;
            let name = entry.filename.to_string();
            // A name like `..` would leave the folder that files are copied to.
            if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
                return Err(refused(&name, "file with an unsafe name"));
            }
            entries.push(Entry { kind: entry.mode.kind(), id: entry.oid.to_owned(), name });
        }
        Ok(entries)
    }
}

struct Entry {
    kind: EntryKind,
    id: ObjectId,
    name: String,
}

fn refused(path: &str, kind: &'static str) -> Problem {
    Problem::Refused { path: path.to_owned(), kind }
}

/// The parts of a path in a repository; empty for its root.
pub(super) fn parts(path: &str) -> Result<Vec<String>, StepError> {
    let parts: Vec<String> =
        path.trim().split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
    if parts.iter().any(|part| part == ".." || part.contains(['\\', '\0', '\n'])) {
        return Err(error::bad_url("paths", path, "a path inside the repository, without `..`"));
    }
    Ok(parts)
}
