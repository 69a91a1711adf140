//! The private SSH target: a server of our own configuration, for the current user, on a high port.

use super::World;
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
    pub(super) kind: String,
    pub(super) user: String,
    pub(super) port: u16,
    /// Private key that may log in.
    pub(super) client_key: PathBuf,
    pub(super) child: Child,
}

impl Target {
    /// Starts OpenSSH; where that is impossible, or with `embedded`, the embedded server. Fresh keys lie below the
    /// world's folder.
    pub(super) async fn start(world: &World, embedded: bool) -> Result<Target, CliError> {
        let ssh = world.dir.join("ssh");
        std::fs::create_dir(&ssh).map_err(|e| CliError::file("made", &ssh, &e))?;
        // A container may run a user without a name; OpenSSH lets nobody in whom it cannot look up.
        let user = output_of("id", {
            let mut command = Command::new("id");
            command.arg("-un");
            command
        })
        .await;
        let why =
            match (embedded, user.as_deref(), find(&world.path, "sshd"), find(&world.path, "ssh-keygen")) {
                (true, ..) => "as asked for".to_owned(),
                (false, Ok(user), Some(sshd), Some(keygen)) => {
                    match Target::openssh(world, &ssh, user, &sshd, &keygen).await {
                        Ok(target) => return Ok(target),
                        Err(error) => {
                            tracing::debug!(%error, "OpenSSH cannot be used");
                            "the OpenSSH server here cannot be used by this user".to_owned()
                        }
                    }
                }
                (false, Err(_), ..) => "the current user has no name for OpenSSH".to_owned(),
                (false, ..) => "no OpenSSH server is installed".to_owned(),
            };
        let user = user.unwrap_or_else(|_| "quickstart".to_owned());
        Target::embedded(world, &ssh, user, &why).await
    }

    async fn openssh(
        world: &World,
        ssh: &Path,
        user: &str,
        sshd: &Path,
        keygen: &Path,
    ) -> Result<Target, CliError> {
        let (host_key, client_key) = (ssh.join("host_key"), ssh.join("client_key"));
        for key in [&host_key, &client_key] {
            let mut command = Command::new(keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", "quickstart", "-f"]).arg(key);
            output_of("ssh-keygen", command).await?;
        }
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
        let (mut child, _) = Child::start("sshd", command, &world.dir, None).await?;
        let deadline = Instant::now() + LISTEN_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if child.has_ended() || Instant::now() >= deadline {
                let log = std::fs::read_to_string(world.dir.join("sshd.log")).unwrap_or_default();
                return Err(CliError::failed(format!("sshd does not listen: {}", log.trim())));
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
        // A server that listens may still refuse this user: no login shell, a locked account, a rule of the system.
        let Some(ssh) = find(&world.path, "ssh") else {
            return Err(CliError::failed("no SSH client is installed to try the login with"));
        };
        let mut command = Command::new(ssh);
        command.args(["-F", "none", "-p", &port.to_string(), "-l", user, "-i"]).arg(&client_key);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ConnectTimeout=5",
        ] {
            command.args(["-o", option]);
        }
        command.args(["127.0.0.1", "exit 0"]);
        output_of("ssh", command).await?;
        Ok(Target { kind: "OpenSSH server".to_owned(), user: user.to_owned(), port, client_key, child })
    }

    /// A child of this binary that serves SSH itself.
    #[cfg(feature = "ssh")]
    async fn embedded(world: &World, ssh: &Path, user: String, why: &str) -> Result<Target, CliError> {
        let client_key = ssh.join("embedded_client_key");
        let mut command = world.own(&[
            "quickstart-target",
            "--user",
            &user,
            "--key-file",
            &client_key.display().to_string(),
        ]);
        command.current_dir(&world.home);
        let (child, line) = Child::start("target", command, &world.dir, Some("target ready ")).await?;
        let port = line
            .trim()
            .parse()
            .map_err(|_| CliError::failed(format!("the embedded SSH server named no port but `{line}`")))?;
        Ok(Target { kind: format!("embedded SSH server ({why})"), user, port, client_key, child })
    }

    #[cfg(not(feature = "ssh"))]
    async fn embedded(_: &World, _: &Path, _: String, why: &str) -> Result<Target, CliError> {
        Err(CliError::failed(format!("there is no SSH server to deploy to ({why})"))
            .hint("this binary was built without the feature `ssh`, which brings an embedded one"))
    }
}

/// Runs a program to its end; its output, trimmed.
pub(super) async fn output_of(name: &str, mut command: Command) -> Result<String, CliError> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|e| CliError::failed(format!("{name} cannot be started: {e}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(CliError::failed(format!("{name} failed ({}): {}", output.status, text.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
