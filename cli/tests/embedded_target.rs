//! The embedded SSH target against OpenSSH's own clients.
#![cfg(feature = "ssh")]
#![allow(clippy::unwrap_used, reason = "Tests may panic.")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

struct Target {
    dir: tempfile::TempDir,
    port: String,
    child: Child,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Target {
    fn start() -> Target {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_delegate"))
            .args(["quickstart-target", "--user", "me", "--key-file"])
            .arg(dir.path().join("key"))
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.strip_prefix("target ready ").unwrap().trim().to_owned();
        Target { dir, port, child }
    }

    /// A client with the right key; what follows the options is up to the caller.
    fn client(&self, program: &str, user: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-i"]).arg(self.dir.path().join("key"));
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            command.args(["-o", option]);
        }
        command.args(["-o", &format!("Port={}", self.port), "-o", &format!("User={user}")]);
        command
    }

    fn run(&self, user: &str, script: &str, input: &[u8]) -> Output {
        let mut command = self.client("ssh", user);
        command.args(["127.0.0.1", script]);
        with_input(command, input)
    }
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // A program may end without reading everything.
    writer.join().unwrap().unwrap_or_default();
    output
}

#[test]
fn programs_get_their_input_and_give_outputs_and_status() {
    let target = Target::start();
    // More than a window of data, so that flow control takes part.
    let input: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).take(5_000_000).collect();
    let output = target.run("me", "cat; echo oops >&2; exit 7", &input);
    assert_eq!(output.status.code(), Some(7));
    assert!(output.stdout == input, "{} bytes of {}", output.stdout.len(), input.len());
    assert_eq!(output.stderr, b"oops\n");

    let output = target.run("me", "echo \"$USER $HOME\"; pwd", b"");
    let home = std::fs::canonicalize(target.dir.path()).unwrap().display().to_string();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("me {home}\n{home}\n"));
}

#[test]
fn a_killed_program_is_told_from_an_ended_one() {
    let target = Target::start();
    // OpenSSH's client ends with 255 and no text of its own after an exit signal; a status of 137 would be passed on.
    let output = target.run("me", "echo before; kill -KILL $$", b"");
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(output.stdout, b"before\n");
}

#[test]
fn nobody_else_gets_in() {
    let target = Target::start();
    let output = target.run("root", "echo in", b"");
    assert_eq!(output.status.code(), Some(255));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
    // Another key with the right name.
    let other = target.dir.path().join("other");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other).status();
    assert!(made.unwrap().success());
    std::fs::rename(&other, target.dir.path().join("key")).unwrap();
    let output = target.run("me", "echo in", b"");
    assert_eq!(output.status.code(), Some(255));
    assert!(output.stdout.is_empty());
}

#[test]
fn files_arrive_over_sftp_and_are_never_renamed_over_others() {
    let target = Target::start();
    let dir = target.dir.path();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(dir.join("local"), &content).unwrap();
    std::fs::write(dir.join("taken"), "old").unwrap();
    // A leading minus lets the batch go on after an error; `-l` asks the server for a plain version 3 rename.
    let batch = "pwd\nmkdir made\nput local made/part\nchmod 600 made/part\nrename -l made/part made/whole\n\
                 -rename -l made/whole taken\ndf made\nput local gone\nrm gone\n-rm never\n";
    let mut command = target.client("sftp", "me");
    command.args(["-b", "-", "127.0.0.1"]).current_dir(dir);
    let output = with_input(command, batch.as_bytes());
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(std::fs::read(dir.join("made/whole")).unwrap() == content, "{text}");
    assert!(!dir.join("made/part").exists() && !dir.join("gone").exists(), "{text}");
    assert_eq!(std::fs::read_to_string(dir.join("taken")).unwrap(), "old", "{text}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&dir.join("made/whole").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(text.contains("%Capacity") || text.contains("Avail"), "{text}");
}
