//! `delegate trigger list | show ID | events [ID]`.

use crate::client::CallArgs;
use crate::commands::entities;
use crate::exit::{CliError, Exit};
use crate::output::{self, cell, field, time_of};
use crate::settings::Env;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// List triggers with their last event and the next time of schedules
    List(ListArgs),
    /// Show one trigger
    Show(ShowArgs),
    /// List what came in and what became of it; with an event's id, everything about it
    Events(EventsArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only those of this pipeline
    #[arg(long, value_name = "ID", default_value = "")]
    pipeline: String,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Identifier of the trigger
    id: String,
    /// Pipeline, where several have a trigger of this identifier
    #[arg(long, value_name = "ID", default_value = "")]
    pipeline: String,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
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
    #[command(flatten)]
    call: CallArgs,
}

/// Runs it.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    match action {
        Action::List(args) => {
            let client = args.call.client(env)?;
            let reply = client.get(&["triggers"], &[("pipeline", &args.pipeline)]).await?;
            let heading = ["PIPELINE", "TRIGGER", "TYPE", "ENABLED", "NEXT (UTC)", "LAST EVENT"];
            args.call.output.show(&reply, |reply| {
                output::rows(reply, &heading, |row| {
                    let last = row.get("lastEvent").and_then(|event| event.get("status")).map(cell);
                    vec![
                        field(row, "pipeline"),
                        field(row, "identifier"),
                        field(row, "type"),
                        field(row, "enabled"),
                        time_of(row, "nextAt"),
                        last.unwrap_or_default(),
                    ]
                })
            });
        }
        Action::Show(args) => {
            let client = args.call.client(env)?;
            let reply = client.get(&["triggers", &args.id], &[("pipeline", &args.pipeline)]).await?;
            args.call.output.show(&reply, entities::yaml);
        }
        Action::Events(args) => {
            let client = args.call.client(env)?;
            if let Some(id) = &args.id {
                output::json(&client.get(&["trigger-events", id], &[]).await?);
                return Ok(Exit::Success);
            }
            let query = [("pipeline", &*args.pipeline), ("trigger", &*args.trigger), ("limit", &*args.limit)];
            let reply = client.get(&["trigger-events"], &query).await?;
            let heading = ["EVENT", "AT (UTC)", "PIPELINE", "TRIGGER", "STATUS", "EXECUTION", "WHY"];
            args.call.output.show(&reply, |reply| {
                output::rows(reply, &heading, |row| {
                    vec![
                        field(row, "eventId"),
                        time_of(row, "at"),
                        field(row, "pipeline"),
                        field(row, "trigger"),
                        field(row, "status"),
                        field(row, "executionId"),
                        field(row, "message"),
                    ]
                })
            });
        }
    }
    Ok(Exit::Success)
}
