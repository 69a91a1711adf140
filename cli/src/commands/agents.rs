//! `delegate agents`.

use crate::client::{Client, ClientArgs};
use crate::commands::apply::list;
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, cell};
use crate::settings::Env;
use serde_json::Value;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

/// Lists agents with what they run.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<Exit, CliError> {
    let reply = Client::new(&args.client, env)?.get(&["agents"], &[]).await?;
    match args.output {
        Format::Json => output::json(&reply),
        Format::Table => output::say(table(&reply)),
    }
    Ok(Exit::Success)
}

fn table(reply: &Value) -> String {
    let rows: Vec<Vec<String>> = reply
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|agent| {
            let field = |name: &str| agent.get(name).map(cell).unwrap_or_default();
            let connected = if agent.get("connected") == Some(&Value::Bool(true)) { "yes" } else { "no" };
            let capacity = match agent.get("capacity").and_then(Value::as_u64) {
                None | Some(0) => "?".to_owned(),
                Some(capacity) => capacity.to_string(),
            };
            let tasks = list(agent, "tasks").iter().map(|task| {
                let step = task.get("step").map(cell).unwrap_or_default();
                if step.is_empty() { task.get("taskId").map(cell).unwrap_or_default() } else { step }
            });
            vec![
                field("name"),
                field("tags"),
                field("version"),
                connected.to_owned(),
                format!("{}/{capacity}", field("busy")),
                tasks.collect::<Vec<_>>().join(","),
            ]
        })
        .collect();
    output::table(&["NAME", "TAGS", "VERSION", "CONNECTED", "BUSY", "TASKS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_capacity_and_tasks() {
        let reply = serde_json::json!([{
            "name": "a", "tags": ["vm", "eu"], "version": "0.1.0", "connected": true, "busy": 1, "capacity": 256,
            "tasks": [{"taskId": "t", "step": "Deploy", "executionId": "e"}],
        }]);
        assert_eq!(
            table(&reply),
            "NAME  TAGS   VERSION  CONNECTED  BUSY   TASKS\na     vm,eu  0.1.0    yes        1/256  Deploy"
        );
    }
}
