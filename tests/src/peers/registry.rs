//! Docker's registry with small images.

use crate::peers::owned::Owned;
use crate::wait::free_port;
use std::path::Path;
use std::process::Command;

/// A registry, open unless it is [`Registry::closed`].
#[derive(Debug)]
pub struct Registry {
    _server: Owned,
    /// Its port.
    pub port: u16,
}

impl Registry {
    /// Starts it under `dir`.
    ///
    /// # Panics
    /// When the program is missing or does not start.
    pub async fn start(dir: &Path) -> Registry {
        Registry::with(dir, "").await
    }

    /// Starts it under `dir` for one user.
    ///
    /// # Panics
    /// When a program is missing or it does not start.
    pub async fn closed(dir: &Path, user: &str, password: &str) -> Registry {
        // bcrypt is the only kind that it reads.
        let made = Command::new("htpasswd").args(["-Bbn", user, password]).output().expect("htpasswd runs");
        assert!(made.status.success(), "htpasswd: {}", String::from_utf8_lossy(&made.stderr));
        let users = dir.join("registry-users");
        std::fs::write(&users, made.stdout).expect("users");
        Registry::with(dir, &format!("auth: {{htpasswd: {{realm: closed, path: {}}}}}\n", users.display()))
            .await
    }

    async fn with(dir: &Path, auth: &str) -> Registry {
        let dir = dir.join("registry");
        std::fs::create_dir_all(&dir).expect("folder");
        let port = free_port();
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\nhttp: {{addr: '127.0.0.1:{port}', secret: test}}\n{auth}",
            dir.display()
        );
        std::fs::write(&config, text).expect("config");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        Registry { _server: Owned::listening(command, &dir.join("out"), port).await, port }
    }

    /// Pushes an image without layers under `tags`; returns its digest.
    ///
    /// # Panics
    /// When the registry refuses.
    pub async fn push(&self, name: &str, tags: &[String]) -> String {
        let client = reqwest::Client::new();
        let base = format!("http://127.0.0.1:{}/v2/{name}", self.port);
        let config =
            br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        // The SHA-256 of the text above; `sha256sum` says the same.
        let digest = sha256(config);
        let reply = client.post(format!("{base}/blobs/uploads/")).send().await.expect("upload");
        let location = reply.headers()["location"].to_str().expect("location").to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let put = client.put(format!("{location}{separator}digest={digest}")).body(config.to_vec());
        assert!(put.send().await.expect("blob").status().is_success());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{digest}"}},"layers":[]}}"#,
            config.len()
        );
        for tag in tags {
            let put = client
                .put(format!("{base}/manifests/{tag}"))
                .header("content-type", "application/vnd.docker.distribution.manifest.v2+json")
                .body(manifest.clone());
            let reply = put.send().await.expect("manifest");
            assert!(reply.status().is_success(), "tag {tag}: {}", reply.status());
        }
        sha256(manifest.as_bytes())
    }
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum runs");
    child.stdin.take().expect("input").write_all(bytes).expect("input");
    let output = child.wait_with_output().expect("its end");
    format!(
        "sha256:{}",
        String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default()
    )
}
