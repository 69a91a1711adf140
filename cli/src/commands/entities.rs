//! `delegate get KIND [ID]` and `delegate delete KIND ID`.

use crate::client::{CallArgs, Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, field, time_of};
use crate::settings::Env;
use pipeline::entities::EntityKind;
use serde_json::Value;

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[arg(value_parser = kind, help = one_of_the_kinds())]
    pub(crate) kind: String,
    /// Show this one
    pub(crate) id: Option<String>,
    /// Where it stands, if several scopes have one of this id: ORG/PROJECT, ORG, or nothing for the account
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Option<String>,
    #[command(flatten)]
    pub(crate) call: CallArgs,
}

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    #[arg(value_parser = kind, help = one_of_the_kinds())]
    pub(crate) kind: String,
    /// Which one
    pub(crate) id: String,
    /// Where it stands, if several scopes have one of this id: ORG/PROJECT, ORG, or nothing for the account
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// The kind that a word means: plurals and short forms too.
fn kind(word: &str) -> Result<String, String> {
    let meant = match word.to_ascii_lowercase().as_str() {
        "env" | "envs" => Some(EntityKind::Environment),
        "envgroup" | "envgroups" => Some(EntityKind::EnvironmentGroup),
        "infra" | "infras" => Some(EntityKind::Infrastructure),
        "group" | "groups" => Some(EntityKind::UserGroup),
        _ => EntityKind::meant(word),
    };
    meant.map(|kind| kind.name().to_owned()).ok_or_else(|| format!("expected one of {}", EntityKind::names()))
}

fn one_of_the_kinds() -> String {
    format!("One of {}; also in the plural", EntityKind::names())
}

/// Lists or shows.
pub(crate) async fn get(args: &GetArgs, env: &Env) -> Result<Exit, CliError> {
    let client = args.call.client(env)?;
    let Some(id) = &args.id else {
        let mut reply = client.get(&["entities"], &[("kind", &args.kind)]).await?;
        if let (Some(scope), Some(rows)) = (&args.scope, reply.as_array_mut()) {
            rows.retain(|row| row.get("scope").and_then(Value::as_str) == Some(scope));
        }
        args.call.output.show(&reply, entity_table);
        return Ok(Exit::Success);
    };
    let reply = client.get(&["entities", &args.kind, id], &within(args.scope.as_deref())).await?;
    args.call.output.show(&reply, yaml);
    Ok(Exit::Success)
}

/// The scope as a query.
fn within(scope: Option<&str>) -> Vec<(&str, &str)> {
    scope.map(|scope| ("scope", scope)).into_iter().collect()
}

fn entity_table(reply: &Value) -> String {
    output::rows(reply, &["ID", "NAME", "SCOPE", "UPDATED"], |row| {
        let field = |name: &str| field(row, name);
        vec![field("id"), field("name"), field("scope"), time_of(row, "updatedAt")]
    })
}

/// The document of an entity, for people.
pub(crate) fn yaml(reply: &Value) -> String {
    field(reply, "yaml").trim_end().to_owned()
}

/// Deletes.
pub(crate) async fn delete(args: &DeleteArgs, env: &Env) -> Result<Exit, CliError> {
    let segments = ["entities", &args.kind, &args.id];
    Client::new(&args.client, env)?.delete_with(&segments, &within(args.scope.as_deref())).await?;
    output::say(format!("{} {} deleted", args.kind, args.id));
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_may_stand_in_the_plural() {
        assert_eq!(kind("Pipelines").unwrap(), "pipeline");
        assert_eq!(kind("infra").unwrap(), "infrastructure");
        assert_eq!(kind("policies").unwrap(), "policy");
        assert_eq!(kind("serviceOverrides").unwrap(), "override");
        assert_eq!(kind("envgroups").unwrap(), "environmentGroup");
        let refused = kind("host").unwrap_err();
        for known in EntityKind::ALL {
            assert_eq!(kind(known.name()).unwrap(), known.name());
            assert!(refused.contains(known.name()), "{refused}");
        }
    }
}
