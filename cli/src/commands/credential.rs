//! `delegate token …` and `delegate apikey …`: the same three actions on two kinds.

use crate::client::{Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, cell, time};
use crate::settings::Env;
use serde_json::{Value, json};

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    action: Action,
}

/// Arguments of `apikey`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, clap::Subcommand)]
enum KeyAction {
    /// Make one; its value is shown once
    Create(KeyCreateArgs),
    /// List them; values are never shown
    List(ListArgs),
    /// Revoke one; it is refused from then on
    Revoke(NamedArgs),
}

#[derive(Debug, clap::Args)]
struct KeyCreateArgs {
    /// Name; default: the email of the user
    #[arg(required_unless_present = "user")]
    name: Option<String>,
    /// The user that it belongs to
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// What it may do: viewer reads, executor runs, aborts and approves, admin does everything. Default: viewer for a
    /// user's key, admin for one without user
    #[arg(long, value_parser = ["viewer", "executor", "admin"])]
    role: Option<String>,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make one; its value is shown once
    Create(NamedArgs),
    /// List them; values are never shown
    List(ListArgs),
    /// Revoke one; it is refused from then on
    Revoke(NamedArgs),
}

#[derive(Debug, clap::Args)]
struct NamedArgs {
    /// Name
    name: String,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

/// `delegate token`.
pub(crate) async fn tokens(args: TokenArgs, env: &Env) -> Result<Exit, CliError> {
    act(args.action, "tokens", "token", env).await
}

/// `delegate apikey`.
pub(crate) async fn keys(args: KeyArgs, env: &Env) -> Result<Exit, CliError> {
    let action = match args.action {
        KeyAction::Create(args) => return create_key(&args, env).await,
        KeyAction::List(args) => Action::List(args),
        KeyAction::Revoke(args) => Action::Revoke(args),
    };
    act(action, "apikeys", "API key", env).await
}

async fn create_key(args: &KeyCreateArgs, env: &Env) -> Result<Exit, CliError> {
    let body = json!({"name": args.name, "user": args.user, "role": args.role});
    let reply = Client::new(&args.client, env)?.post(&["apikeys"], &body).await?;
    match args.output {
        Format::Json => output::json(&reply),
        Format::Table => {
            let field = |name: &str| reply.get(name).map(cell).unwrap_or_default();
            output::tell(format!(
                "API key {} ({}) created; it is shown this once:",
                field("name"),
                field("role")
            ));
            output::say(field("apiKey"));
        }
    }
    Ok(Exit::Success)
}

async fn act(action: Action, path: &str, what: &str, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::Create(args) => {
            let client = Client::new(&args.client, env)?;
            let reply = client.post(&[path], &json!({"name": args.name})).await?;
            match args.output {
                Format::Json => output::json(&reply),
                Format::Table => {
                    output::tell(format!("{what} {} created; it is shown this once:", args.name));
                    output::say(reply.get("value").map(cell).unwrap_or_default());
                }
            }
        }
        Action::List(args) => {
            let reply = Client::new(&args.client, env)?.get(&[path], &[]).await?;
            match args.output {
                Format::Json => output::json(&reply),
                Format::Table => {
                    let rows: Vec<Vec<String>> = reply
                        .as_array()
                        .map_or(&[][..], Vec::as_slice)
                        .iter()
                        .map(|row| {
                            let at = |name: &str| time(row.get(name).and_then(Value::as_i64));
                            vec![
                                row.get("name").map(cell).unwrap_or_default(),
                                at("createdAt"),
                                at("revokedAt"),
                            ]
                        })
                        .collect();
                    output::say(output::table(&["NAME", "CREATED", "REVOKED"], &rows));
                }
            }
        }
        Action::Revoke(args) => {
            Client::new(&args.client, env)?.delete(&[path, &args.name]).await?;
            match args.output {
                Format::Json => output::json(&json!({"name": args.name, "revoked": true})),
                Format::Table => output::say(format!("{what} {} revoked", args.name)),
            }
        }
    }
    Ok(Exit::Success)
}
