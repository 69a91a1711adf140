//! `delegate get KIND [ID]` and `delegate delete KIND ID`.

use crate::client::{Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, cell, time};
use crate::settings::Env;
use serde_json::Value;

const KINDS: [&str; 8] = [
    "connector",
    "secret",
    "service",
    "environment",
    "environmentGroup",
    "infrastructure",
    "pipeline",
    "userGroup",
];

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// connector, secret, service, environment, environmentGroup, infrastructure, pipeline or userGroup
    #[arg(value_parser = kind)]
    pub(crate) kind: String,
    /// Show this one
    pub(crate) id: Option<String>,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// connector, secret, service, environment, environmentGroup, infrastructure, pipeline or userGroup
    #[arg(value_parser = kind)]
    pub(crate) kind: String,
    /// Which one
    pub(crate) id: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// The kind that a word means: plurals and short forms too.
fn kind(word: &str) -> Result<String, String> {
    let lower = word.to_lowercase();
    let singular = match lower.as_str() {
        "env" | "envs" => "environment",
        "environmentgroup" | "environmentgroups" | "envgroup" | "envgroups" => "environmentGroup",
        "infra" | "infras" => "infrastructure",
        "group" | "groups" | "usergroup" | "usergroups" => "userGroup",
        other => other.strip_suffix('s').filter(|s| KINDS.contains(s)).unwrap_or(other),
    };
    if KINDS.contains(&singular) {
        Ok(singular.to_owned())
    } else {
        Err(format!("expected one of {}", KINDS.join(", ")))
    }
}

/// Lists or shows.
pub(crate) async fn get(args: &GetArgs, env: &Env) -> Result<Exit, CliError> {
    let client = Client::new(&args.client, env)?;
    let Some(id) = &args.id else {
        let reply = client.get(&["entities"], &[("kind", &args.kind)]).await?;
        match args.output {
            Format::Json => output::json(&reply),
            Format::Table => output::say(entity_table(&reply)),
        }
        return Ok(Exit::Success);
    };
    let reply = client.get(&["entities", &args.kind, id], &[]).await?;
    match args.output {
        Format::Json => output::json(&reply),
        Format::Table => output::say(reply.get("yaml").map(cell).unwrap_or_default().trim_end()),
    }
    Ok(Exit::Success)
}

fn entity_table(reply: &Value) -> String {
    let rows: Vec<Vec<String>> = reply
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|row| {
            let field = |name: &str| row.get(name).map(cell).unwrap_or_default();
            vec![
                field("id"),
                field("name"),
                field("scope"),
                time(row.get("updatedAt").and_then(Value::as_i64)),
            ]
        })
        .collect();
    output::table(&["ID", "NAME", "SCOPE", "UPDATED"], &rows)
}

/// Deletes.
pub(crate) async fn delete(args: &DeleteArgs, env: &Env) -> Result<Exit, CliError> {
    Client::new(&args.client, env)?.delete(&["entities", &args.kind, &args.id]).await?;
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
        assert!(kind("host").unwrap_err().contains("connector"));
    }
}
