//! `delegate quickstart --embedded-target` with the real binary: green, and rolled back with `--break`.
#![cfg(feature = "ssh")]
#![allow(clippy::unwrap_used, reason = "Tests may panic.")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs quickstart with its folder below `tmp`, and checks that nothing of it stays: neither files nor processes.
fn quickstart(arguments: &[&str]) -> Output {
    let tmp = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_delegate"))
        .arg("quickstart")
        .args(arguments)
        .env("TMPDIR", tmp.path())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let left: Vec<_> = std::fs::read_dir(tmp.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?} is left\n{}", text(&output));
    let running = processes_below(tmp.path());
    assert!(running.is_empty(), "still running: {running:?}\n{}", text(&output));
    output
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Command lines of processes that name `dir`, or whose folder lies in it.
fn processes_below(dir: &Path) -> Vec<String> {
    let dir = std::fs::canonicalize(dir).unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while it is looked at.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let below = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir));
        if below || line.contains(&*dir.to_string_lossy()) {
            found.push(line);
        }
    }
    found
}

#[test]
fn the_embedded_target_takes_a_deployment() {
    let output = quickstart(&["--embedded-target"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("embedded SSH server (as asked for)"), "{text}");
    assert!(text.contains(r#"answers {"status":"UP","version":"2.0.0"}"#), "{text}");
}

#[test]
fn a_broken_version_is_rolled_back_on_the_embedded_target() {
    let output = quickstart(&["--break", "--embedded-target"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("HTTP-008"), "the health check itself must fail\n{text}");
    assert!(text.contains(r#"answers {"status":"UP","version":"1.0.0"}"#), "{text}");
}

/// Without OpenSSH on the machine, and without anybody asking, the embedded target stands in and says why.
#[test]
fn a_machine_without_openssh_gets_the_embedded_target() {
    // The folders of daemons are searched too, so `sshd` must be impossible to start rather than to find.
    let tmp = tempfile::tempdir().unwrap();
    let bin = tmp.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let sshd = bin.join("sshd");
    std::fs::write(&sshd, "#!/bin/sh\necho no >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&sshd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let keygen = bin.join("ssh-keygen");
    std::fs::write(&keygen, "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(&keygen, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_delegate"))
        .arg("quickstart")
        .env("PATH", path)
        .env("TMPDIR", tmp.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("embedded SSH server (the OpenSSH server here cannot be used by this user)"),
        "{text}"
    );
}
