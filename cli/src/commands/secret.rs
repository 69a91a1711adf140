//! `delegate secret set NAME [--file F|--stdin]`, `list`, `rm`. A value never stands on the command line.

use crate::client::{CallArgs, Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, cell, field, list, time_of};
use crate::settings::Env;
use std::io::Read;
use std::path::PathBuf;

/// Secrets are keys and passwords, not files.
const MAX_BYTES: u64 = 1 << 20;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Create or change a secret; asks for the value on a terminal
    Set(SetArgs),
    /// List names; values are never shown
    List(CallArgs),
    /// Remove a secret
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// Name; `org.NAME` and `account.NAME` for wider scopes
    name: String,
    /// Read the value from a file, byte for byte
    #[arg(long, value_name = "FILE", conflicts_with = "stdin")]
    file: Option<PathBuf>,
    /// Read the value from standard input; the line end of a single line is left out
    #[arg(long)]
    stdin: bool,
    // Caught here so that the refusal does not repeat the value, as clap's own message would.
    #[arg(hide = true, num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
    refused: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Name
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::Set(args) => set(args, env).await,
        Action::List(call) => {
            let reply = call.client(env)?.get(&["secrets"], &[]).await?;
            call.output.show(&reply, |reply| {
                output::rows(reply, &["NAME", "UPDATED"], |row| {
                    vec![field(row, "id"), time_of(row, "updatedAt")]
                })
            });
            Ok(Exit::Success)
        }
        Action::Rm(args) => {
            Client::new(&args.client, env)?.delete(&["secrets", &args.name]).await?;
            output::say(format!("secret {} removed", args.name));
            Ok(Exit::Success)
        }
    }
}

async fn set(args: SetArgs, env: &Env) -> Result<Exit, CliError> {
    if !args.refused.is_empty() || args.name.contains('=') {
        return Err(CliError::usage(
            "a value on the command line is refused: everybody on this machine can read it there",
        )
        .hint("use --stdin or --file FILE, or give neither and type it at the prompt"));
    }
    let client = Client::new(&args.client, env)?;
    let value = value(&args)?;
    let reply = client.put(&["secrets", &args.name], value, "application/octet-stream").await?;
    for warning in list(&reply, "warnings") {
        output::tell(format!("warning: {}", cell(warning)));
    }
    let result = reply.get("result").map(cell).filter(|r| !r.is_empty()).unwrap_or_else(|| "set".to_owned());
    output::say(format!("secret {} {result}", args.name));
    Ok(Exit::Success)
}

fn value(args: &SetArgs) -> Result<Vec<u8>, CliError> {
    let value = if let Some(path) = &args.file {
        let file = std::fs::File::open(path).map_err(|e| CliError::file("read", path, &e))?;
        bounded(file).map_err(|e| CliError::file("read", path, &e))?
    } else if args.stdin {
        let read = bounded(std::io::stdin().lock());
        single_line(read.map_err(|e| CliError::usage(format!("standard input cannot be read: {e}")))?)
    } else {
        let term = console::Term::stderr();
        if !console::user_attended() || !term.is_term() {
            return Err(CliError::usage("there is no terminal to type the value at")
                .hint("use --stdin or --file FILE"));
        }
        output::tell(format!("value of {} (not shown):", args.name));
        let typed = term.read_secure_line();
        typed.map_err(|e| CliError::usage(format!("the terminal cannot be read: {e}")))?.into_bytes()
    };
    match value.len() {
        0 => Err(CliError::usage("the value is empty")),
        n if n as u64 > MAX_BYTES => {
            Err(CliError::usage(format!("the value has more than {MAX_BYTES} bytes")))
        }
        _ => Ok(value),
    }
}

fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut value)?;
    Ok(value)
}

/// `echo value | delegate secret set …` means the value without its line end; a key of many lines keeps its own.
fn single_line(mut value: Vec<u8>) -> Vec<u8> {
    if value.iter().filter(|b| **b == b'\n').count() == 1 && value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_of_one_line_is_no_part_of_the_value() {
        assert_eq!(single_line(b"pw\n".to_vec()), b"pw");
        assert_eq!(single_line(b"pw\r\n".to_vec()), b"pw");
        assert_eq!(single_line(b"a\nb\n".to_vec()), b"a\nb\n");
        assert_eq!(single_line(b"\npw".to_vec()), b"\npw");
    }
}
