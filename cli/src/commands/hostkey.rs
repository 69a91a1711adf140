//! `delegate hostkey list | accept HOST[:PORT] KEY | forget HOST[:PORT]`.

use crate::client::{CallArgs, Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, field, time_of};
use crate::settings::Env;
use serde_json::json;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// List known keys
    List(CallArgs),
    /// Trust a key of a host, instead of every other
    Accept(AcceptArgs),
    /// Forget the keys of a host
    Forget(ForgetArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AcceptArgs {
    /// HOST or HOST:PORT as the infrastructure writes the host; port 22 by default
    host: String,
    /// `SHA256:…`, or the public key as in a `.pub` file
    #[arg(required = true, num_args = 1..)]
    key: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// HOST or HOST:PORT; port 22 by default
    host: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// `host:port`; an IPv6 address needs brackets to carry a port.
fn with_port(host: &str) -> String {
    let has_port = match host.rsplit_once(':') {
        Some((before, port)) => {
            !port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && (!before.contains(':') || before.ends_with(']'))
        }
        None => false,
    };
    if has_port { host.to_owned() } else { format!("{host}:22") }
}

/// Runs it.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::List(call) => {
            let reply = call.client(env)?.get(&["hostkeys"], &[]).await?;
            call.output.show(&reply, |reply| {
                output::rows(reply, &["HOST", "FINGERPRINT", "TYPE", "SINCE"], |row| {
                    let field = |name: &str| field(row, name);
                    let kind = field("key").split(' ').next().unwrap_or("").to_owned();
                    vec![field("host"), field("fingerprint"), kind, time_of(row, "since")]
                })
            });
        }
        Action::Accept(args) => {
            let (host, key) = (with_port(&args.host), args.key.join(" "));
            if !key.starts_with("SHA256:") && !key.contains(' ') {
                let message = format!("`{key}` is no key; expected SHA256:… or `ssh-ed25519 AAAA…`");
                return Err(CliError::usage(message)
                    .hint("`ssh-keyscan HOST | ssh-keygen -lf -` prints fingerprints"));
            }
            let body = json!({"key": key}).to_string().into_bytes();
            Client::new(&args.client, env)?.put(&["hostkeys", &host], body, "application/json").await?;
            output::say(format!("host key of {host} accepted"));
        }
        Action::Forget(args) => {
            let host = with_port(&args.host);
            Client::new(&args.client, env)?.delete(&["hostkeys", &host]).await?;
            output::say(format!("host keys of {host} forgotten"));
        }
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_22_unless_written() {
        for (host, full) in [
            ("h", "h:22"),
            ("h:2222", "h:2222"),
            ("[::1]", "[::1]:22"),
            ("[::1]:5", "[::1]:5"),
            ("fe80::1", "fe80::1:22"),
        ] {
            assert_eq!(with_port(host), full);
        }
    }
}
