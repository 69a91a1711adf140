//! Everything that a program has started, found again by a mark in its environment.
//!
//! A process group is left by `setsid`, a parent by a double fork; the environment stays. So a tree is the processes that
//! carry the mark, those of the program's own group, and whatever descends from either. Only a process that clears its
//! environment, leaves the group and loses its parent escapes.

use executor_api::{Cancel, CancelStage, Clock};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Between two looks at a tree that is being ended.
const LOOK: Duration = Duration::from_millis(50);

/// How long killed processes may take to go: the kernel needs a moment, a hanging file system longer.
const GOING: Duration = Duration::from_secs(15);

/// 128 random bits in hex.
pub fn random_mark() -> String {
    let mut bytes = [0u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// A tree of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    mark: String,
    spared: Option<String>,
    group: Option<i32>,
}

/// One process of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Process id.
    pub pid: i32,
    /// Name of its program, for people.
    pub name: String,
}

/// How a tree ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing of it ran any more.
    Gone,
    /// It ended when it was asked to.
    Ended,
    /// Something of it had to be killed.
    Killed,
}

/// What ending a tree came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub how: End,
    /// Processes that could not be ended: those of another user, or stuck in the kernel.
    pub left: Vec<Member>,
}

/// One line of the process table.
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    name: String,
    marked: bool,
    spared: bool,
}

impl Tree {
    /// The tree of processes that carry `variable=value` in their environment.
    pub fn marked(variable: &str, value: &str) -> Tree {
        Tree { mark: format!("{variable}={value}"), spared: None, group: None }
    }

    /// Adds the members of a process group, which a program that clears its environment does not leave by that.
    #[must_use]
    pub fn group(mut self, group: i32) -> Tree {
        self.group = Some(group);
        self
    }

    /// Leaves out processes that carry `variable=value` in their environment, though they be of the group.
    #[must_use]
    pub fn sparing(mut self, variable: &str, value: &str) -> Tree {
        self.spared = Some(format!("{variable}={value}"));
        self
    }

    /// Every living process of the tree, in no order. Reads `/proc`; blocks for some milliseconds. Without a readable
    /// `/proc` nothing is found.
    pub fn members(&self) -> Vec<Member> {
        let all = self.table();
        let mut found: BTreeSet<i32> = all
            .iter()
            .filter(|p| !p.spared && (p.marked || self.group == Some(p.group)))
            .map(|p| p.pid)
            .collect();
        // Descent goes as deep as it goes; a round that finds nobody new ends it.
        loop {
            let before = found.len();
            for process in &all {
                if found.contains(&process.parent) && !process.spared {
                    found.insert(process.pid);
                }
            }
            if found.len() == before {
                break;
            }
        }
        all.into_iter()
            .filter(|p| found.contains(&p.pid))
            .map(|p| Member { pid: p.pid, name: p.name })
            .collect()
    }

    /// Whether `pid` lives and carries the mark.
    pub fn holds(&self, pid: i32) -> bool {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        carries(&environ, &self.mark)
    }

    /// Sends `signal` to every process of the tree once. Returns how many there were.
    pub fn signal(&self, signal: Signal) -> usize {
        let members = self.members();
        for member in &members {
            send(member.pid, signal);
        }
        members.len()
    }

    /// Ends the tree: asks each process to end, and kills what is left after `kill_after`, or as soon as `cancel` asks for
    /// it. Processes that appear meanwhile are ended too; it returns when nothing is left and `settled` says that nothing
    /// is about to be started, or when what is left cannot be ended.
    ///
    /// **Cancel**: what was signalled stays signalled. **Repeat**: safe.
    pub async fn end(
        &self,
        clock: &dyn Clock,
        cancel: &Cancel,
        kill_after: Duration,
        settled: impl Fn() -> bool,
    ) -> Ending {
        let start = clock.mono();
        // The time that processes are given counts from the moment in which the first was asked: looking for them may
        // take long on a loaded machine.
        let mut begun = None;
        let mut asked: BTreeSet<i32> = BTreeSet::new();
        let mut how = End::Gone;
        loop {
            // The order matters: whatever is started before this is seen by the look that follows.
            let quiet = settled();
            let members = self.look().await;
            if members.is_empty() && quiet {
                return Ending { how, left: Vec::new() };
            }
            let now = clock.mono();
            let waited = begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
            let killing =
                waited >= kill_after || cancel.requested().is_some_and(|(_, s)| s >= CancelStage::Kill);
            if now.saturating_duration_since(begun.unwrap_or(start)) >= kill_after + GOING {
                return Ending { how, left: members };
            }
            if !members.is_empty() {
                begun = begun.or(Some(now));
            }
            for member in &members {
                if killing {
                    how = End::Killed;
                    send(member.pid, Signal::SIGKILL);
                } else if asked.insert(member.pid) {
                    how = End::Ended;
                    send(member.pid, Signal::SIGTERM);
                    // A stopped process takes no other signal.
                    send(member.pid, Signal::SIGCONT);
                }
            }
            clock.sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Vec<Member> {
        let tree = self.clone();
        tokio::task::spawn_blocking(move || tree.members()).await.unwrap_or_default()
    }

    fn table(&self) -> Vec<Process> {
        let own = std::process::id().try_into().unwrap_or(0);
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| *pid != own).filter_map(|pid| self.process(pid)).collect()
    }

    fn process(&self, pid: i32) -> Option<Process> {
        let dir = format!("/proc/{pid}");
        let stat = std::fs::read_to_string(Path::new(&dir).join("stat")).ok()?;
        // The name stands in brackets and may hold anything, brackets too.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default();
        let mut fields = tail.split_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X") {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        // That of another user's process cannot be read; it is found by group or descent, if at all.
        let environ = std::fs::read(Path::new(&dir).join("environ")).unwrap_or_default();
        let spared = self.spared.as_ref().is_some_and(|mark| carries(&environ, mark));
        Some(Process { pid, parent, group, name, marked: carries(&environ, &self.mark), spared })
    }
}

/// Whether an environment as the kernel shows it holds this entry.
fn carries(environ: &[u8], entry: &str) -> bool {
    environ.split(|byte| *byte == 0).any(|one| one == entry.as_bytes())
}

/// A process that is gone already, or that is not ours to signal, is met again by the next look.
fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
        Err(error) => debug_assert!(false, "kill {pid}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_entry_counts() {
        assert!(carries(b"A=1\0M=abc\0B=2\0", "M=abc"));
        assert!(carries(b"M=abc", "M=abc"));
        assert!(!carries(b"XM=abc\0M=abcd\0", "M=abc"));
        assert!(!carries(b"", "M=abc"));
    }
}
