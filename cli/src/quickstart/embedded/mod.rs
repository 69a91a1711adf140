//! The embedded SSH target: for machines without `sshd`, a small SSH server of our own on loopback.
//!
//! It offers what deployments use: login with one key, programs, and files over SFTP. No terminals, no forwarding. Whoever
//! holds the client key acts as the user who started it, as with an `sshd` that this user starts.

mod program;
mod session;
mod sftp;

use crate::exit::{CliError, Exit};
use crate::output::say;
use crate::settings::Env;
use crate::shutdown::Signals;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::Server as _;
use russh::{MethodKind, MethodSet};
use session::{Access, Server};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File that the private key of the client is written to
    #[arg(long)]
    pub(crate) key_file: PathBuf,
    /// User name that may log in; everything runs as the current user
    #[arg(long)]
    pub(crate) user: String,
}

/// Serves until SIGTERM, with fresh keys; prints `target ready PORT`.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<Exit, CliError> {
    let (host_key, client_key) = (fresh_key()?, fresh_key()?);
    let text = client_key
        .to_openssh(LineEnding::LF)
        .map_err(|e| CliError::failed(format!("the client key cannot be written down: {e}")))?;
    super::private_file(&args.key_file, &text)?;
    let access = Arc::new(Access {
        user: args.user.clone(),
        key: client_key.public_key().key_data().clone(),
        path: env.get("PATH").unwrap_or("/usr/bin:/bin").to_owned(),
        home: std::env::current_dir()
            .map_err(|e| CliError::failed(format!("the current folder is unknown: {e}")))?,
    });
    let config = russh::server::Config {
        keys: vec![host_key],
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(100),
        // A script may be quiet for longer than any limit.
        inactivity_timeout: None,
        nodelay: true,
        ..russh::server::Config::default()
    };
    let error = |e: std::io::Error| CliError::failed(format!("no port can be listened on: {e}"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(error)?;
    let port = listener.local_addr().map_err(error)?.port();
    let mut signals = Signals::take()?;
    say(format!("target ready {port}"));
    let mut server = Server { access };
    let running = server.run_on_socket(Arc::new(config), &listener);
    tokio::select! {
        result = running => {
            result.map_err(|e| CliError::failed(format!("the server failed: {e}")))?;
        }
        _ = signals.next() => {}
    }
    Ok(Exit::Success)
}

fn fresh_key() -> Result<PrivateKey, CliError> {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
        .map_err(|e| CliError::failed(format!("no key can be made: {e}")))
}
