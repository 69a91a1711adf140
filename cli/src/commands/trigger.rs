//! `delegate trigger list | show ID | events [ID]`.

use crate::client::{Client, ClientArgs};
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, cell, time};
use crate::settings::Env;
use serde_json::Value;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List triggers with their last event and the next time of schedules
    List(ListArgs),
    /// Show one trigger
    Show(ShowArgs),
    /// List what came in and what became of it; with an event's id, everything about it
    Events(EventsArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only those of this pipeline
    #[arg(long, value_name = "ID", default_value = "")]
    pipeline: String,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Identifier of the trigger
    id: String,
    /// Pipeline, where several have a trigger of this identifier
    #[arg(long, value_name = "ID", default_value = "")]
    pipeline: String,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
struct EventsArgs {
    /// Id of an event (`eventCorrelationId`)
    id: Option<String>,
    /// Only those of this pipeline
    #[arg(long, value_name = "ID", default_value = "")]
    pipeline: String,
    /// Only those of this trigger
    #[arg(long, value_name = "ID", default_value = "")]
    trigger: String,
    /// At most so many, newest first
    #[arg(long, value_name = "N", default_value = "50")]
    limit: String,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(args: Args, env: &Env) -> Result<Exit, CliError> {
    match args.action {
        Action::List(args) => {
            let client = Client::new(&args.client, env)?;
            let reply = client.get(&["triggers"], &[("pipeline", &args.pipeline)]).await?;
            let heading = ["PIPELINE", "TRIGGER", "TYPE", "ENABLED", "NEXT (UTC)", "LAST EVENT"];
            show_rows(&reply, args.output, &heading, |row| {
                let last = row.get("lastEvent").and_then(|event| event.get("status")).map(cell);
                vec![
                    field(row, "pipeline"),
                    field(row, "identifier"),
                    field(row, "type"),
                    field(row, "enabled"),
                    time(row.get("nextAt").and_then(Value::as_i64)),
                    last.unwrap_or_default(),
                ]
            });
        }
        Action::Show(args) => {
            let client = Client::new(&args.client, env)?;
            let reply = client.get(&["triggers", &args.id], &[("pipeline", &args.pipeline)]).await?;
            match args.output {
                Format::Json => output::json(&reply),
                Format::Table => output::say(field(&reply, "yaml").trim_end()),
            }
        }
        Action::Events(args) => {
            let client = Client::new(&args.client, env)?;
            if let Some(id) = &args.id {
                output::json(&client.get(&["trigger-events", id], &[]).await?);
                return Ok(Exit::Success);
            }
            let query = [("pipeline", &*args.pipeline), ("trigger", &*args.trigger), ("limit", &*args.limit)];
            let reply = client.get(&["trigger-events"], &query).await?;
            let heading = ["EVENT", "AT (UTC)", "PIPELINE", "TRIGGER", "STATUS", "EXECUTION", "WHY"];
            show_rows(&reply, args.output, &heading, |row| {
                vec![
                    field(row, "eventId"),
                    time(row.get("at").and_then(Value::as_i64)),
                    field(row, "pipeline"),
                    field(row, "trigger"),
                    field(row, "status"),
                    field(row, "executionId"),
                    field(row, "message"),
                ]
            });
        }
    }
    Ok(Exit::Success)
}

fn field(row: &Value, name: &str) -> String {
    row.get(name).map(cell).unwrap_or_default()
}

fn show_rows(reply: &Value, format: Format, heading: &[&str], row: impl Fn(&Value) -> Vec<String>) {
    match format {
        Format::Json => output::json(reply),
        Format::Table => {
            let rows: Vec<Vec<String>> =
                reply.as_array().map_or(&[][..], Vec::as_slice).iter().map(row).collect();
            output::say(output::table(heading, &rows));
        }
    }
}
