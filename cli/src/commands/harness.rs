//! `delegate harness check`: what a recorded task of a Harness manager would do here, without doing it.

use crate::exit::{CliError, Exit};
use crate::output::{Format, field, list};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Read a task package of a Harness manager, as `--record` keeps it, and say what would run; nothing is started. Exits 1
    /// when an agent would refuse it, 64 when it is no package
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The package (JSON)
    #[arg(value_name = "PACKAGE.json")]
    file: PathBuf,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// Runs it.
pub(crate) fn run(action: Action) -> Result<Exit, CliError> {
    let Action::Check(args) = action;
    let told = agent::explain_package(&read(&args.file)?)
        .map_err(|problem| CliError::usage(format!("{}: {problem}", args.file.display())))?;
    args.output.show(&told, text);
    let would =
        told.get("runs") == Some(&Value::Bool(true)) && told.get("offered") == Some(&Value::Bool(true));
    Ok(if would { Exit::Success } else { Exit::Failed })
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file).map_err(|error| CliError::file("read", file, &error))
}

fn text(told: &Value) -> String {
    let part = |value: &Value, name: &str| field(value, name);
    let mut lines = vec![format!("task       {} of type {}", part(told, "taskId"), part(told, "type"))];
    if told.get("offered") != Some(&Value::Bool(true)) {
        lines.push(
            "offered    no: an agent with foreign_task_types = harness-cd does not take this type".to_owned(),
        );
    }
    match (told.get("step"), told.get("failure")) {
        (Some(step), _) => {
            lines.push(format!("would run  {} `{}`", part(step, "type"), part(step, "identifier")));
            lines.push(format!("on         {}", part(step, "target")));
        }
        (None, Some(failure)) => {
            lines.push(format!("refused    {} {}", part(failure, "code"), part(failure, "message")));
            lines.push(format!("to do      {}", part(failure, "hint")));
        }
        (None, None) => {}
    }
    let texts = |name: &str| list(told, name).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    for (label, name) in [("units     ", "units"), ("secrets   ", "secrets")] {
        if !texts(name).is_empty() {
            lines.push(format!("{label} {}", texts(name).join(", ")));
        }
    }
    lines.extend(texts("notices").iter().map(|notice| format!("note       {notice}")));
    for one in list(told, "capabilities") {
        lines.push(format!("must hold  {}", part(one, "check")));
    }
    lines.join("\n")
}
