//! `delegate user create NAME | list | delete EMAIL | whoami`.

use crate::client::{CallArgs, Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, field};
use crate::settings::Env;
use serde_json::{Value, json};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Make a user; API keys are given with `apikey create --user EMAIL`
    Create(CreateArgs),
    /// List users with their own groups
    List(CallArgs),
    /// Delete a user and revoke every key of theirs
    Delete(DeleteArgs),
    /// Show whom the API key in use belongs to and what it may do
    Whoami(CallArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Name; it also stands for the email when none is given
    name: String,
    /// Identity in groups, keys and approvals
    #[arg(long)]
    email: Option<String>,
    /// Groups the user is in, beside those whose document names the email
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    groups: Vec<String>,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Email of the user
    email: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::Create(args) => {
            let body = json!({"name": args.name, "email": args.email, "groups": args.groups});
            let reply = args.call.client(env)?.post(&["users"], &body).await?;
            args.call
                .output
                .show(&reply, |reply| format!("user {} {}", field(reply, "email"), field(reply, "result")));
        }
        Action::List(call) => {
            let reply = call.client(env)?.get(&["users"], &[]).await?;
            call.output.show(&reply, table);
        }
        Action::Delete(args) => {
            Client::new(&args.client, env)?.delete(&["users", &args.email]).await?;
            output::say(format!("user {} deleted, keys revoked", args.email));
        }
        Action::Whoami(call) => {
            let reply = call.client(env)?.get(&["whoami"], &[]).await?;
            call.output.show(&reply, who);
        }
    }
    Ok(Exit::Success)
}

/// Whom a key belongs to and what it may do.
fn who(reply: &Value) -> String {
    let groups = match reply.get("user").filter(|user| !user.is_null()) {
        None => "no user".to_owned(),
        Some(user) => format!("user {}, own groups: {}", field(user, "email"), field(user, "groups")),
    };
    format!("{} ({}), {groups}", field(reply, "owner"), field(reply, "role"))
}

fn table(reply: &Value) -> String {
    output::rows(reply, &["EMAIL", "NAME", "GROUPS"], |user| {
        vec![field(user, "email"), field(user, "name"), field(user, "groups")]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_listed_with_their_groups() {
        let reply = json!([{"email": "a@x.org", "name": "Ann", "groups": ["ops", "qa"]}]);
        assert_eq!(table(&reply), "EMAIL    NAME  GROUPS\na@x.org  Ann   ops,qa");
    }
}
