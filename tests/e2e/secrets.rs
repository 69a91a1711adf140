//! Planted secrets are found nowhere but where they are used.

use e2e::peers::sshd::Sshd;
use e2e::recorder::Recorder;
use e2e::world::{AgentProcess, Layout, Manager, load_ssh, ssh_entities};
use std::path::Path;
use std::time::Duration;

/// Twenty values: plain, with quotes, several lines, URL and JSON characters, long and short.
fn planted() -> Vec<String> {
    (0..20)
        .map(|n| match n % 5 {
            0 => format!("plain-S3cr3t-{n}-aaaabbbbcccc"),
            1 => format!("qu\"ote's-{n}-\\back-zzzz"),
            2 => format!("first line {n} qwerty\nsecond line {n} asdfgh\nthird {n} zxcvbn"),
            3 => format!("p@ss w%rd/{n}?x=y&z=+{n}"),
            _ => format!("ünïcödé-{n}-{}", "x".repeat(100 + n)),
        })
        .collect()
}

/// Every form in which a value must not be seen.
fn forms(value: &str) -> Vec<String> {
    use std::fmt::Write;
    let mut all = vec![value.to_owned()];
    all.extend(value.lines().filter(|l| l.len() > 3).map(str::to_owned));
    let json = serde_json::to_string(value).unwrap();
    all.push(json.trim_matches('"').to_owned());
    let mut url = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            url.push(byte as char);
        } else {
            write!(url, "%{byte:02X}").unwrap();
        }
    }
    all.push(url);
    all.push(base64(value.as_bytes()));
    all
}

fn base64(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("base64")
        .arg("-w0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    // The padding, and the last character before it, depend on what follows.
    text.trim_end_matches('=').to_owned()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|w| w == needle)
}

/// Every file below a folder.
fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_planted_secrets_are_found_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let ssh = dir.path().join("ssh");
    let sshd = Sshd::start(&ssh, 1).await;
    let mut manager = Manager::start(dir.path());
    let values = planted();
    let mut script = String::new();
    for (n, value) in values.iter().enumerate() {
        manager.set_secret(&format!("planted_{n}"), value.as_bytes());
        // Quoted as a here-document, so that the shell leaves every character as it is.
        script.push_str(&format!(
            "V{n}=$(cat <<'END_{n}'\n<+secrets.getValue(\"planted_{n}\")>\nEND_{n}\n)\necho \"raw $V{n} end\"\nprintf '%s' \"$V{n}\" | base64 -w0; echo\nprintf 'x%s' \"$V{n}\" | base64 -w0; echo\nprintf 'xy%s' \"$V{n}\" | base64 -w0; echo\necho \"error $V{n}\" >&2\nprintf '%s' \"$V{n}\" | sha256sum\n"
        ));
    }
    script.push_str("sleep 1\n");
    let entities = ssh_entities(dir.path(), &sshd, "planted", &[("use", &script)], Layout::Steps).unwrap();
    load_ssh(&manager, &entities, &sshd);
    let real = manager.url.clone();
    let recorder = Recorder::start(real.trim_start_matches("http://").parse().unwrap()).await;
    manager.url = format!("http://{}", recorder.address);
    let agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
    manager.url = real;

    let id = manager.start_pipeline(&["planted"]);
    let mut command_lines = Vec::new();
    let view = e2e::wait::until("the run ends", Duration::from_secs(60), || {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            command_lines.extend(std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
        }
        let view = manager.show(&id);
        async move { view["endedAt"].is_number().then_some(view) }
    })
    .await;
    assert_eq!(view["status"], "Success", "{view:#}");
    let logs = manager.ok(&["execution", "logs", &id]);
    // The script saw the real values: it printed their digests.
    for value in &values {
        use std::io::Write;
        let mut child = std::process::Command::new("sha256sum")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        let digest = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(
            logs.contains(digest.split_whitespace().next().unwrap()),
            "a secret reached the script changed: {value}"
        );
    }
    assert!(logs.contains("**************"));

    let mut places: Vec<(String, Vec<u8>)> = vec![
        ("execution logs".into(), logs.into_bytes()),
        ("execution show".into(), manager.ok(&["execution", "show", &id, "--output", "json"]).into_bytes()),
        ("process list".into(), command_lines),
        ("wire between agent and manager".into(), recorder.bytes()),
    ];
    drop(agent);
    let mut paths = Vec::new();
    for part in ["manager", "agent-zone-a", "manager.log", "agent-zone-a.log"] {
        let path = dir.path().join(part);
        if path.is_dir() { files(&path, &mut paths) } else { paths.push(path) }
    }
    places
        .extend(paths.into_iter().map(|p| (p.display().to_string(), std::fs::read(&p).unwrap_or_default())));
    for (place, bytes) in &places {
        for value in &values {
            for form in forms(value) {
                assert!(!contains(bytes, form.as_bytes()), "`{form}` stands in {place}");
            }
        }
    }
}
