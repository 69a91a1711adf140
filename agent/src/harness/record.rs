//! A folder of recordings: packages of a Harness manager and what they were answered with, without secrets. So that drift of the
//! manager's shapes can be found (`delegate harness check`) and reported.

use proto::package::TaskPackage;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are kept; the oldest go first.
const MAX_FILES: usize = 500;
/// A file that would be larger is not written.
const MAX_BYTES: usize = 4 << 20;
const ENDS: [&str; 2] = [".package.json", ".answer.kryo"];

/// Writes recordings. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Path>);

impl Recorder {
    /// Makes the folder, for its owner only.
    pub(crate) fn new(dir: PathBuf) -> std::io::Result<Recorder> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Recorder(dir.into()))
    }

    /// Keeps a package that was accepted at `at` (epoch milliseconds).
    pub(crate) async fn package(&self, at: u64, task: &str, package: &Arc<TaskPackage>) {
        let (to, task, package) = (self.clone(), task.to_owned(), package.clone());
        let work = tokio::task::spawn_blocking(move || match ::dialect::recorded_package(&package) {
            Some(bytes) => to.write(&name(at, &task, ENDS[0]), &bytes),
            None => tracing::warn!(task, "the package is no JSON without its secrets, so it is not recorded"),
        });
        told(work.await);
    }

    /// Keeps an answer; secrets were taken out of it before.
    pub(crate) async fn answer(&self, at: u64, task: &str, bytes: bytes::Bytes) {
        let (to, name) = (self.clone(), name(at, task, ENDS[1]));
        told(tokio::task::spawn_blocking(move || to.write(&name, &bytes)).await);
    }

    /// Blocks. A recording that cannot be written is told and changes nothing else.
    fn write(&self, name: &str, bytes: &[u8]) {
        let file = self.0.join(name);
        if bytes.len() > MAX_BYTES {
            tracing::warn!(file = %file.display(), bytes = bytes.len(), "too large to be recorded");
            return;
        }
        let made =
            std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&file);
        if let Err(error) = made.and_then(|mut made| made.write_all(bytes)) {
            tracing::warn!(file = %file.display(), %error, "a recording cannot be written");
        }
        self.prune();
    }

    fn prune(&self) {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return };
        // What is not ours stays.
        let ours = |name: &String| ENDS.iter().any(|end| name.ends_with(end));
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(ours);
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        let surplus = names.len().saturating_sub(MAX_FILES);
        for name in names.iter().take(surplus) {
            if let Err(error) = std::fs::remove_file(self.0.join(name)) {
                tracing::debug!(name, %error, "an old recording stays");
            }
        }
    }
}

fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "a recording was not written");
    }
}

/// Sorts by time; the same for package and answer of a task.
fn name(at: u64, task: &str, end: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let task: String = task.chars().take(64).map(plain).collect();
    format!("{at:015}-{task}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn recordings_are_private_and_bounded_in_number_and_size() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("records");
        let recorder = Recorder::new(folder.clone()).unwrap();
        std::fs::write(folder.join("notes.txt"), "mine").unwrap();
        for n in 0..MAX_FILES as u64 + 20 {
            recorder.write(&name(n, "../t/1", ENDS[1]), b"x");
        }
        recorder.write(&name(9_999, "large", ENDS[1]), &vec![0; MAX_BYTES + 1]);
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names.len(), MAX_FILES + 1);
        assert_eq!(names[0], "000000000000020-___t_1.answer.kryo");
        assert!(folder.join("notes.txt").exists());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(&names[0]))), (0o700, 0o600));
    }
}
