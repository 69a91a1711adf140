//! `delegate token …` and `delegate apikey …`: the same three actions on two kinds.

use crate::client::CallArgs;
use crate::exit::{CliError, Exit};
use crate::output::{self, field, time_of};
use crate::settings::Env;
use serde_json::json;

/// Actions of `apikey`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyAction {
    /// Make one; its value is shown once
    Create(KeyCreateArgs),
    /// List them; values are never shown
    List(CallArgs),
    /// Revoke one; it is refused from then on
    Revoke(NamedArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeyCreateArgs {
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
    #[command(flatten)]
    call: CallArgs,
}

/// Actions of `token`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Make one; its value is shown once
    Create(NamedArgs),
    /// List them; values are never shown
    List(CallArgs),
    /// Revoke one; it is refused from then on
    Revoke(NamedArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct NamedArgs {
    /// Name
    name: String,
    #[command(flatten)]
    call: CallArgs,
}

/// `delegate token`.
pub(crate) async fn tokens(action: Action, env: &Env) -> Result<Exit, CliError> {
    act(action, "tokens", "token", env).await
}

/// `delegate apikey`.
pub(crate) async fn keys(action: KeyAction, env: &Env) -> Result<Exit, CliError> {
    let action = match action {
        KeyAction::Create(args) => return create_key(&args, env).await,
        KeyAction::List(args) => Action::List(args),
        KeyAction::Revoke(args) => Action::Revoke(args),
    };
    act(action, "apikeys", "API key", env).await
}

async fn create_key(args: &KeyCreateArgs, env: &Env) -> Result<Exit, CliError> {
    let body = json!({"name": args.name, "user": args.user, "role": args.role});
    let reply = args.call.client(env)?.post(&["apikeys"], &body).await?;
    args.call.output.show(&reply, |reply| {
        let field = |name: &str| field(reply, name);
        output::tell(format!(
            "API key {} ({}) created; it is shown this once:",
            field("name"),
            field("role")
        ));
        field("apiKey")
    });
    Ok(Exit::Success)
}

async fn act(action: Action, path: &str, what: &str, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::Create(args) => {
            let client = args.call.client(env)?;
            let reply = client.post(&[path], &json!({"name": args.name})).await?;
            args.call.output.show(&reply, |reply| {
                output::tell(format!("{what} {} created; it is shown this once:", args.name));
                field(reply, "value")
            });
        }
        Action::List(call) => {
            let reply = call.client(env)?.get(&[path], &[]).await?;
            call.output.show(&reply, |reply| {
                output::rows(reply, &["NAME", "CREATED", "REVOKED"], |row| {
                    vec![field(row, "name"), time_of(row, "createdAt"), time_of(row, "revokedAt")]
                })
            });
        }
        Action::Revoke(args) => {
            args.call.client(env)?.delete(&[path, &args.name]).await?;
            let reply = json!({"name": args.name, "revoked": true});
            args.call.output.show(&reply, |_| format!("{what} {} revoked", args.name));
        }
    }
    Ok(Exit::Success)
}
