//! `delegate agents`.

use crate::client::CallArgs;
use crate::exit::{CliError, Exit};
use crate::output::{self, field, list};
use crate::settings::Env;
use serde_json::Value;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) call: CallArgs,
}

/// Lists agents with what they run.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<Exit, CliError> {
    let reply = args.call.client(env)?.get(&["agents"], &[]).await?;
    args.call.output.show(&reply, table);
    Ok(Exit::Success)
}

fn table(reply: &Value) -> String {
    output::rows(reply, &["NAME", "TAGS", "VERSION", "CONNECTED", "BUSY", "TASKS"], |agent| {
        let field = |name: &str| field(agent, name);
        let connected = if agent.get("connected") == Some(&Value::Bool(true)) { "yes" } else { "no" };
        let capacity = match agent.get("capacity").and_then(Value::as_u64) {
            None | Some(0) => "?".to_owned(),
            Some(capacity) => capacity.to_string(),
        };
        let tasks = list(agent, "tasks").iter().map(|task| {
            let step = output::field(task, "step");
            if step.is_empty() { output::field(task, "taskId") } else { step }
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
