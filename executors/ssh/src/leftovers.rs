//! What could not be removed from a host that was away, to be swept at the next connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Put before a folder whose script could not be ended: that is made up for before the folder goes.
pub(crate) const UNENDED: &str = "end:";

/// Folders of units by `user@host:port`. Kept in a file when there is a path.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    path: Option<PathBuf>,
    list: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Leftovers {
    /// Reads the list. An unreadable one is said so and begun afresh: it only saves disk space on hosts.
    pub(crate) fn open(path: Option<PathBuf>) -> Self {
        let list = path.as_deref().and_then(|path| std::fs::read(path).ok()).map(|text| {
            serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, "the list of folders left on hosts cannot be read");
                BTreeMap::new()
            })
        });
        Leftovers { path, list: Mutex::new(list.unwrap_or_default()) }
    }

    /// What is to be swept at `place`.
    pub(crate) fn at(&self, place: &str) -> Vec<String> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.get(place).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// Notes folders.
    pub(crate) fn add(&self, place: &str, keys: &[String]) {
        self.change(|list| list.entry(place.to_owned()).or_default().extend(keys.iter().cloned()));
    }

    /// They are gone.
    pub(crate) fn remove(&self, place: &str, keys: &[String]) {
        self.change(|list| {
            if let Some(left) = list.get_mut(place) {
                left.retain(|key| !keys.contains(key));
                if left.is_empty() {
                    list.remove(place);
                }
            }
        });
    }

    fn change(&self, what: impl FnOnce(&mut BTreeMap<String, BTreeSet<String>>)) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let before = list.clone();
        what(&mut list);
        if *list == before {
            return;
        }
        let Some(path) = &self.path else { return };
        let text = serde_json::to_vec(&*list).unwrap_or_default();
        if let Err(error) = write_whole(path, &text) {
            tracing::warn!(%error, "the list of folders left on hosts cannot be written");
        }
    }
}

/// Writes a file so that a reader sees the old content or the new one: temporary file, sync, rename.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_survives_a_restart_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("left.json");
        Leftovers::open(Some(path.clone())).add("u@h:22", &["a".into(), "b".into()]);
        let again = Leftovers::open(Some(path.clone()));
        assert_eq!(again.at("u@h:22"), ["a", "b"]);
        again.remove("u@h:22", &["a".into(), "b".into()]);
        assert!(Leftovers::open(Some(path)).at("u@h:22").is_empty());
    }
}
