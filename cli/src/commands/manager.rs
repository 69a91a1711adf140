//! `delegate manager`.

use crate::exit::{CliError, Exit, chain};
use crate::output;
use crate::settings::Env;
use crate::shutdown::until_stopped;
use manager::app::{HostKeyMode, ManagerConfig};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where everything lives; made with mode 0700
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8840")]
    pub(crate) listen: String,
    /// Certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Allow an address that is not loopback without TLS
    #[arg(long)]
    pub(crate) insecure_http: bool,
    /// How long a step waits while no connected agent satisfies its selectors: 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = span)]
    pub(crate) agent_wait: Duration,
    /// SSH host keys: `strict` (only known ones), `accept-new` (the first is learned) or `off` (not checked); a changed key
    /// fails under the first two. An agent overrides it for its zone with DELEGATE_KNOWN_HOSTS_MODE
    #[arg(long, value_name = "MODE", default_value = "accept-new")]
    pub(crate) host_keys: HostKeyMode,
}

/// `500ms`, `30s`, `5m`, `1h`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; expected a number with a unit such as 30s, 5m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// Runs a manager until it is told to stop. Prints `manager ready URL` once requests are answered.
pub(crate) async fn run(args: Args, env: &Env) -> Result<Exit, CliError> {
    let mut config = ManagerConfig::new(args.data_dir);
    config.listen = args.listen;
    config.tls_cert = args.tls_cert;
    config.tls_key = args.tls_key;
    config.insecure_http = args.insecure_http;
    config.agent_wait = args.agent_wait;
    config.host_keys = args.host_keys;
    config.key_file = env.get("DELEGATE_MANAGER_KEY_FILE").map(PathBuf::from);
    let stop = CancellationToken::new();
    let work = manager::server::run(config, stop.clone(), |url| output::say(format!("manager ready {url}")));
    match until_stopped(|_| stop.cancel(), work).await? {
        Some(Err(error)) => Err(CliError::failed(chain(&error))),
        Some(Ok(())) | None => Ok(Exit::Success),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(span("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert!(["", "5", "m", "5d", "99999999999999999999s"].iter().all(|text| span(text).is_err()));
    }
}
