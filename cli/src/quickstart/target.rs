//! The private SSH target: an OpenSSH server of our own configuration, for the current user, on a high port.

use super::child::Child;
use super::{find, free_port};
use crate::exit::CliError;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

/// How long the server may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// A host to deploy to.
pub(super) struct Target {
    /// What it is, for people.
    pub(super) kind: &'static str,
    pub(super) user: String,
    pub(super) port: u16,
    /// Private key that may log in.
    pub(super) client_key: PathBuf,
    pub(super) children: Vec<Child>,
}

impl Target {
    /// Starts it with fresh keys below `dir`.
    pub(super) async fn start(dir: &Path, path: &str) -> Result<Target, CliError> {
        let (Some(sshd), Some(keygen)) = (find(path, "sshd"), find(path, "ssh-keygen")) else {
            return Err(CliError::failed("there is no OpenSSH server here to deploy to")
                .hint("install it: sudo apt-get install openssh-server"));
        };
        let ssh = dir.join("ssh");
        std::fs::create_dir(&ssh).map_err(|e| CliError::file("made", &ssh, &e))?;
        let (host_key, client_key) = (ssh.join("host_key"), ssh.join("client_key"));
        for key in [&host_key, &client_key] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", "quickstart", "-f"]).arg(key);
            output_of("ssh-keygen", command).await?;
        }
        let user = output_of("id", {
            let mut command = Command::new("id");
            command.arg("-un");
            command
        })
        .await?;
        let (config, port) = (ssh.join("sshd_config"), free_port()?);
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nUseDNS no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\n\
             PrintLastLog no\nLogLevel ERROR\nSubsystem sftp internal-sftp\n",
            host_key.display(),
            client_key.with_extension("pub").display(),
        );
        std::fs::write(&config, text).map_err(|e| CliError::file("written", &config, &e))?;
        // As root, sshd insists on its empty folder; a distribution makes it only when the service starts.
        if user == "root"
            && let Err(error) = std::fs::create_dir_all("/run/sshd")
        {
            tracing::debug!(%error, "/run/sshd cannot be made");
        }
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(&config).stdout(Stdio::null());
        let (child, _) = Child::start("sshd", command, dir, None).await?;
        let deadline = Instant::now() + LISTEN_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() >= deadline {
                let log = std::fs::read_to_string(dir.join("sshd.log")).unwrap_or_default();
                return Err(CliError::failed(format!("sshd does not listen: {}", log.trim())));
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
        Ok(Target { kind: "OpenSSH", user, port, client_key, children: vec![child] })
    }
}

/// Runs a program to its end; its output, trimmed.
pub(super) async fn output_of(name: &str, mut command: Command) -> Result<String, CliError> {
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.map_err(|e| CliError::failed(format!("{name} cannot be started: {e}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(CliError::failed(format!("{name} failed ({}): {}", output.status, text.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
