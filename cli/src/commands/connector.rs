//! `delegate connector test ID`.

use crate::client::CallArgs;
use crate::exit::{CliError, Exit};
use crate::output::{duration, field, list};
use crate::settings::Env;
use serde_json::{Value, json};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Try a connector, or an SSHKey secret, on an agent
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Connector, or SSHKey secret
    id: String,
    /// Host to log in to; needed for an SSHKey secret
    #[arg(long)]
    host: Option<String>,
    /// Where it stands, if several scopes have one of this id: ORG/PROJECT, ORG, or nothing for the account
    #[arg(long)]
    scope: Option<String>,
    /// Selectors of the agent to test on, comma-separated; default: the connector's
    #[arg(long, value_delimiter = ',')]
    selectors: Vec<String>,
    #[command(flatten)]
    call: CallArgs,
}

/// Runs it: 0 when every stage passed, 1 otherwise.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    let Action::Test(args) = action;
    let mut body = serde_json::Map::new();
    if let Some(host) = &args.host {
        body.insert("host".to_owned(), json!(host));
    }
    if let Some(scope) = &args.scope {
        body.insert("scope".to_owned(), json!(scope));
    }
    if !args.selectors.is_empty() {
        body.insert("selectors".to_owned(), json!(args.selectors));
    }
    let body = Value::Object(body);
    let reply = args.call.client(env)?.post(&["connectors", &args.id, "test"], &body).await?;
    args.call.output.show(&reply, |reply| report(&args.id, reply));
    Ok(if reply.get("ok") == Some(&Value::Bool(true)) { Exit::Success } else { Exit::Failed })
}

fn report(id: &str, reply: &Value) -> String {
    let mut lines = Vec::new();
    for stage in list(reply, "stages") {
        let field = |name: &str| field(stage, name);
        let mark = if stage.get("ok") == Some(&Value::Bool(true)) { "ok    " } else { "failed" };
        let took = duration(stage.get("durationMs").and_then(Value::as_u64).unwrap_or(0));
        lines.push(format!("{mark} {} ({took}) {}", field("stage"), field("message")).trim_end().to_owned());
        if !field("hint").is_empty() {
            lines.push(format!("       hint: {}", field("hint")));
        }
    }
    let agent = field(reply, "agent");
    let verdict = if reply.get("ok") == Some(&Value::Bool(true)) { "works" } else { "does not work" };
    lines.push(format!("{id} {verdict} from agent {agent}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_the_stage_that_failed() {
        let reply = json!({"ok": false, "agent": "a1", "stages": [
            {"stage": "connect", "durationMs": 3, "ok": true, "message": "", "hint": null},
            {"stage": "login", "durationMs": 20, "ok": false, "message": "key refused", "hint": "add the key"},
        ]});
        assert_eq!(
            report("c", &reply),
            "ok     connect (3ms)\nfailed login (20ms) key refused\n       hint: add the key\nc does not work from agent a1"
        );
    }
}
