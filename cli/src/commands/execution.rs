//! `delegate execution list | show ID | logs ID | abort ID | intervene ID | input ID | rerun ID | rollback ID`.

use crate::client::{CallArgs, Client, ClientArgs};
use crate::commands::pipeline;
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, field, time_of};
use crate::progress::{self, log_text};
use crate::settings::Env;
use crate::shutdown::Signals;
use clap::ValueEnum as _;
use serde_json::{Value, json};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// List executions, newest first
    List(ListArgs),
    /// Show one, also while it runs
    Show(ShowArgs),
    /// Print the log lines of all steps
    Logs(LogsArgs),
    /// End an execution; no rollback step runs
    Abort(ShowArgs),
    /// Decide about a failed step that waits for it, or end a Wait step early
    Intervene(InterveneArgs),
    /// Give a step the inputs that it asks for when it is reached
    Input(InputArgs),
    /// Run the pipeline again, as it stands now, with the inputs of this execution
    Rerun(AgainArgs),
    /// Undo a finished execution: run the rollback steps of every stage that ran
    Rollback(AgainArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct InterveneArgs {
    /// Execution
    id: String,
    /// Step, with its loop postfix; or its whole node id
    #[arg(long, value_name = "ID")]
    step: String,
    /// What follows; `MarkAsSuccess` and `MarkAsFailure` also end a Wait step
    #[arg(long, value_enum, ignore_case = true)]
    action: Decision,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InputArgs {
    /// Execution
    id: String,
    /// Step, with its loop postfix; or its whole node id
    #[arg(long, value_name = "ID")]
    step: String,
    /// Value of an input; what is left out takes its default
    #[arg(long, value_name = "NAME=VALUE", value_parser = pipeline::input)]
    input: Vec<(String, String)>,
    #[command(flatten)]
    call: CallArgs,
}

/// Harness' own names.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Decision {
    Retry,
    Ignore,
    MarkAsSuccess,
    MarkAsFailure,
    Abort,
    StageRollback,
    StepGroupRollback,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AgainArgs {
    /// Execution
    id: String,
    /// Show log lines as they come
    #[arg(long)]
    follow: bool,
    /// Return as soon as it runs
    #[arg(long, conflicts_with = "follow")]
    detach: bool,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only of this pipeline
    #[arg(long, value_name = "ID")]
    pipeline: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Execution
    id: String,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Execution
    id: String,
    /// Only of this step, with its loop children and units
    #[arg(long, value_name = "ID")]
    step: Option<String>,
    /// From the first line to the end of the execution
    #[arg(long)]
    follow: bool,
    /// Form of the result: JSON is one object a line
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::List(args) => {
            let limit = args.limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(args.pipeline.as_deref().map(|id| ("pipeline", id)));
            let reply = args.call.client(env)?.get(&["executions"], &query).await?;
            args.call.output.show(&reply, table);
            Ok(Exit::Success)
        }
        Action::Show(args) => {
            let view = args.call.client(env)?.execution(&args.id, None).await?;
            args.call.output.show(&view, progress::summary);
            Ok(Exit::Success)
        }
        Action::Abort(args) => {
            let client = args.call.client(env)?;
            let view = client.post(&["executions", &args.id, "abort"], &json!({})).await?;
            args.call.output.show(&view, progress::summary);
            Ok(Exit::Success)
        }
        Action::Intervene(args) => {
            let client = args.call.client(env)?;
            let action = args.action.to_possible_value().map(|value| value.get_name().to_owned());
            let body = json!({"step": args.step, "action": action});
            let view = client.post(&["executions", &args.id, "intervene"], &body).await?;
            args.call.output.show(&view, progress::summary);
            Ok(Exit::Success)
        }
        Action::Input(args) => {
            let client = args.call.client(env)?;
            let body = json!({"step": args.step, "inputs": pipeline::inputs(&args.input)});
            let view = client.post(&["executions", &args.id, "inputs"], &body).await?;
            args.call.output.show(&view, progress::summary);
            Ok(Exit::Success)
        }
        Action::Rerun(args) => again(&args, "rerun", env).await,
        Action::Rollback(args) => again(&args, "rollback", env).await,
        Action::Logs(args) => logs(&args, env).await,
    }
}

/// Starts an execution that follows from another one, and waits for it.
async fn again(args: &AgainArgs, what: &str, env: &Env) -> Result<Exit, CliError> {
    let client = args.call.client(env)?;
    let reply = client.post(&["executions", &args.id, what], &json!({})).await?;
    let (follow, detach) = (args.follow, args.detach);
    let note = format!("{what} of execution {}", args.id);
    pipeline::started(
        &client,
        &reply,
        &note,
        pipeline::Waiting { follow, detach, output: args.call.output },
        env,
    )
    .await
}

async fn logs(args: &LogsArgs, env: &Env) -> Result<Exit, CliError> {
    let client = Client::new(&args.client, env)?;
    let mut signals = Signals::take()?;
    let mut stream = client.logs(&args.id, args.step.as_deref(), args.follow).await?;
    loop {
        let line = tokio::select! {
            line = stream.next() => line?,
            _ = signals.next() => return Ok(Exit::Interrupted),
        };
        let Some(line) = line else { return Ok(Exit::Success) };
        match args.output {
            Format::Table => output::say(log_text(&line)),
            Format::Json => output::say(
                json!({"step": line.step, "unit": line.unit, "seq": line.seq, "level": line.level, "out": line.out}).to_string(),
            ),
        }
    }
}

fn table(reply: &Value) -> String {
    output::rows(reply, &["EXECUTION", "PIPELINE", "STATUS", "BY", "STARTED", "ENDED"], |row| {
        let field = |name: &str| field(row, name);
        let at = |name: &str| time_of(row, name);
        let run = format!("{} #{}", field("pipeline"), field("sequenceId"));
        vec![field("executionId"), run, field("status"), field("startedBy"), at("createdAt"), at("endedAt")]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_a_table() {
        let reply = json!([{"executionId": "e", "pipeline": "p", "sequenceId": 2, "status": "Success", "startedBy": "admin",
            "createdAt": 1_715_004_000_000_i64, "endedAt": null}]);
        assert_eq!(
            table(&reply),
            "EXECUTION  PIPELINE  STATUS   BY     STARTED              ENDED\ne          p #2      Success  admin  2024-05-06 14:00:00"
        );
    }
}
