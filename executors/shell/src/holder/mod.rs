//! The holder of a script: its folder, how it is started, how it stands.
//!
//! ```text
//! run ──writes──► folder ◄── holder (own group) ──► script (mark in its environment)
//!  │                 ▲            │ pipes ─► spoolers ─► o.0 o.65536 … e.0 …
//!  └── follows ──────┴────────────┘ go: its pid; exit: the status, written whole
//! ```
//! The folder is a private one of the task and goes when the task is reported.

mod wrap;

use crate::error::Error;
use executor_api::StepContext;
use process::{Program, Tree, detach, random_mark};
use proto::task::{Shell, ShellScriptSpec};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const HOLD: &str = include_str!("hold.sh");

/// Carries the mark of the holder and its spoolers; what the script starts carries [`MARK`] instead.
const HOLDER: &str = "DELEGATE_HOLD";
const MARK: &str = "DELEGATE_PROCESS";

/// How a script stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Never,
    Running,
    Ended(i32),
    Vanished(String),
}

/// The place of one script on this agent; the same for every process of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    /// Random to others, and the same for this task after a restart.
    mark: String,
}

impl Place {
    pub(crate) fn of(cx: &StepContext) -> Place {
        let mut hash = Sha256::new();
        for part in [&cx.task_id, &cx.task.execution.node, &cx.scratch.display().to_string()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mark = hex::encode(hash.finalize().get(..16).unwrap_or_default());
        Place { dir: cx.scratch.join("script"), mark }
    }

    /// What the script has started, the script included.
    pub(crate) fn tree(&self) -> Tree {
        let tree = Tree::marked(MARK, &self.mark).sparing(HOLDER, &self.mark);
        match self.holder_pid() {
            // A pid that went to a stranger names no group of ours.
            Some(pid) if self.holder().holds(pid) => tree.group(pid),
            _ => tree,
        }
    }

    /// The holder and its spoolers.
    pub(crate) fn holder(&self) -> Tree {
        Tree::marked(HOLDER, &self.mark)
    }

    fn holder_pid(&self) -> Option<i32> {
        fs::read_to_string(self.dir.join("go")).ok()?.trim().parse().ok()
    }

    /// Whether the holder lives.
    pub(crate) fn held(&self) -> bool {
        self.holder_pid().is_some_and(|pid| self.holder().holds(pid))
    }

    /// The script's exit status, once it has ended.
    pub(crate) fn exit(&self) -> Option<i32> {
        fs::read_to_string(self.dir.join("exit")).ok()?.trim().parse().ok()
    }

    /// Why it never came to the script: `interpreter`, `directory`, `folder`.
    pub(crate) fn fault(&self) -> Option<String> {
        fs::read_to_string(self.dir.join("fault")).ok().map(|text| text.trim().to_owned())
    }

    /// The word that ends both streams.
    pub(crate) fn token(&self) -> io::Result<String> {
        Ok(fs::read_to_string(self.dir.join("token"))?.trim().to_owned())
    }

    /// How the script stands. Changes nothing.
    pub(crate) fn look(&self) -> Found {
        if let Some(code) = self.exit() {
            return Found::Ended(code);
        }
        // Read once: a holder that writes its pid right now must not be taken for one that was there and is gone.
        let pid = self.holder_pid();
        let lives = match pid {
            Some(pid) => self.holder().holds(pid),
            // It may be on its way to its first line.
            None => !self.holder().members().is_empty(),
        };
        if lives {
            return Found::Running;
        }
        // It may have ended between the two looks.
        match (self.exit(), pid) {
            (Some(code), _) => Found::Ended(code),
            (None, None) => Found::Never,
            (None, Some(pid)) => Found::Vanished(format!(
                "process {pid}, which held it, is gone (the machine or the container was restarted, or it was killed)"
            )),
        }
    }

    /// Writes the folder and starts the holder.
    ///
    /// **Repeat**: one that was started keeps the script for itself; another ends at once.
    pub(crate) fn launch(
        &self,
        spec: &ShellScriptSpec,
        text: &SecretString,
        env: &[(String, SecretString)],
        directory: Option<&SecretString>,
        spool_limit: u64,
    ) -> Result<tokio::process::Child, Error> {
        self.private(&self.dir)?;
        let (home, tmp) = (self.dir.join("home"), self.dir.join("tmp"));
        self.private(&home)?;
        self.private(&tmp)?;
        let variables: Vec<&str> = spec.output_variables.iter().map(|v| v.value.as_str()).collect();
        let name = if spec.shell == Shell::PowerShell { "script.ps1" } else { "script" };
        let main = wrap::main(spec.shell, &variables);
        let file = if main.is_empty() { name } else { "main" };
        self.write("token", &random_mark())?;
        self.write("hold.sh", HOLD)?;
        self.write(name, text.expose_secret())?;
        self.write("main", &main)?;
        let work = match directory.map(|d| d.expose_secret()) {
            Some(directory) => home.join(directory),
            None => home.clone(),
        };
        let base = process::basics();
        let own_path = base.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let mut program = Program::new("/bin/sh")
            .arg(self.dir.join("hold.sh").display().to_string())
            .arg(self.dir.display().to_string())
            .directory(&self.dir)
            .env("HOME", home.display().to_string())
            .env("TMPDIR", tmp.display().to_string());
        for (name, value) in env {
            program = program.env(name, value.clone());
        }
        program = program
            .env(HOLDER, self.mark.clone())
            .env("DELEGATE_HOLD_PATH", own_path.unwrap_or_default())
            .env("DELEGATE_HOLD_LIMIT", spool_limit.to_string())
            .env("DELEGATE_HOLD_WORK", work.display().to_string())
            .env("DELEGATE_HOLD_PROGRAM", interpreter(spec.shell))
            .env("DELEGATE_HOLD_FILE", file);
        Ok(detach(&program)?)
    }

    fn private(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    }

    /// The variables that the script left, by name. Values over `limit` bytes together are left out; the second value
    /// says so.
    pub(crate) fn variables(&self, limit: usize) -> (Vec<(String, String)>, bool) {
        use std::io::Read;
        let mut raw = Vec::new();
        // A script can make the file as long as it likes; what is read of it is bounded.
        let most = (limit as u64) * 2;
        if let Ok(file) = fs::File::open(self.dir.join("vars"))
            && file.take(most).read_to_end(&mut raw).is_err()
        {
            return (Vec::new(), true);
        }
        let mut cut = raw.len() as u64 == most;
        let mut found = Vec::new();
        let mut room = limit;
        let mut fields = raw.split(|byte| *byte == 0);
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let name = String::from_utf8_lossy(name).into_owned();
            if !executor_api::is_variable_name(&name) {
                continue;
            }
            match room.checked_sub(value.len()) {
                Some(left) => {
                    room = left;
                    found.push((name, String::from_utf8_lossy(value).into_owned()));
                }
                None => cut = true,
            }
        }
        (found, cut)
    }
}

/// The program that runs scripts of this kind.
pub(crate) fn interpreter(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => "bash",
        Shell::Sh => "sh",
        Shell::PowerShell => "pwsh",
        Shell::Python => "python3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_holder_that_writes_its_pid_between_two_looks_runs() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { dir: dir.path().to_owned(), mark: random_mark() };
        let mut holder = Command::new("sleep").arg("600").env(HOLDER, &place.mark).spawn().unwrap();
        // Its environment can be read once it has become the other program.
        let begun = std::time::Instant::now();
        let pid = i32::try_from(holder.id()).unwrap();
        while !place.holder().holds(pid) {
            assert!(begun.elapsed() < std::time::Duration::from_secs(30), "it does not begin");
            std::thread::yield_now();
        }
        // Whoever reads it first finds nothing yet; who reads it twice would find something else, and waits here.
        let go = dir.path().join("go");
        assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
        let writer = std::thread::spawn(move || drop(fs::OpenOptions::new().write(true).open(&go).unwrap()));
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(place.look()));
        let found = receiver.recv_timeout(std::time::Duration::from_secs(30));
        holder.kill().unwrap();
        holder.wait().unwrap();
        writer.join().unwrap();
        assert_eq!(found, Ok(Found::Running));
    }
}
