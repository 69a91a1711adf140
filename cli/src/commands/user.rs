//! `delegate user create NAME | list | delete EMAIL | whoami`.

use crate::client::{Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, cell};
use crate::settings::Env;
use serde_json::{Value, json};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a user; API keys are given with `apikey create --user EMAIL`
    Create(CreateArgs),
    /// List users with their own groups
    List(PlainArgs),
    /// Delete a user and revoke every key of theirs
    Delete(DeleteArgs),
    /// Show whom the API key in use belongs to and what it may do
    Whoami(PlainArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Name; it also stands for the email when none is given
    name: String,
    /// Identity in groups, keys and approvals
    #[arg(long)]
    email: Option<String>,
    /// Groups the user is in, beside those whose document names the email
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    groups: Vec<String>,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
struct PlainArgs {
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// Email of the user
    email: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(args: Args, env: &Env) -> Result<Exit, CliError> {
    match args.action {
        Action::Create(args) => {
            let body = json!({"name": args.name, "email": args.email, "groups": args.groups});
            let reply = Client::new(&args.client, env)?.post(&["users"], &body).await?;
            match args.output {
                Format::Json => output::json(&reply),
                Format::Table => {
                    output::say(format!("user {} {}", field(&reply, "email"), field(&reply, "result")));
                }
            }
        }
        Action::List(args) => {
            let reply = Client::new(&args.client, env)?.get(&["users"], &[]).await?;
            match args.output {
                Format::Json => output::json(&reply),
                Format::Table => output::say(table(&reply)),
            }
        }
        Action::Delete(args) => {
            Client::new(&args.client, env)?.delete(&["users", &args.email]).await?;
            output::say(format!("user {} deleted, keys revoked", args.email));
        }
        Action::Whoami(args) => {
            let reply = Client::new(&args.client, env)?.get(&["whoami"], &[]).await?;
            match args.output {
                Format::Json => output::json(&reply),
                Format::Table => {
                    let user = reply.get("user").filter(|user| !user.is_null());
                    let groups = user.map_or_else(
                        || "no user".to_owned(),
                        |user| format!("user {}, own groups: {}", field(user, "email"), groups(user)),
                    );
                    output::say(format!("{} ({}), {groups}", field(&reply, "owner"), field(&reply, "role")));
                }
            }
        }
    }
    Ok(Exit::Success)
}

fn field(value: &Value, name: &str) -> String {
    value.get(name).map(cell).unwrap_or_default()
}

fn groups(user: &Value) -> String {
    let groups = user.get("groups").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    groups.iter().map(cell).collect::<Vec<_>>().join(",")
}

fn table(reply: &Value) -> String {
    let rows: Vec<Vec<String>> = reply
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|user| vec![field(user, "email"), field(user, "name"), groups(user)])
        .collect();
    output::table(&["EMAIL", "NAME", "GROUPS"], &rows)
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
