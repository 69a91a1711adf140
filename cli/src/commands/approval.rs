//! `delegate approval list | show ID | approve ID | reject ID`.

use crate::client::CallArgs;
use crate::commands::pipeline;
use crate::exit::{CliError, Exit};
use crate::output::{self, cell, field, time_of};
use crate::settings::Env;
use serde_json::{Value, json};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// List what waits for approval
    List(ListArgs),
    /// Show one, also after it was decided
    Show(ShowArgs),
    /// Approve
    Approve(DecideArgs),
    /// Reject: one rejection is the end of it
    Reject(DecideArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// All of this execution, decided ones too
    #[arg(long, value_name = "ID")]
    execution: Option<String>,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Approval
    id: String,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DecideArgs {
    /// Approval
    id: String,
    /// Value of an approver input; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pipeline::input)]
    input: Vec<(String, String)>,
    /// Kept with the execution
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    call: CallArgs,
}

/// Runs it.
pub(crate) async fn run(action: Action, env: &Env) -> Result<Exit, CliError> {
    let (reply, format) = match action {
        Action::List(args) => {
            let query: Vec<(&str, &str)> =
                args.execution.as_deref().map(|id| ("execution", id)).into_iter().collect();
            let reply = args.call.client(env)?.get(&["approvals"], &query).await?;
            args.call.output.show(&reply, table);
            return Ok(Exit::Success);
        }
        Action::Show(args) => {
            (args.call.client(env)?.get(&["approvals", &args.id], &[]).await?, args.call.output)
        }
        Action::Approve(args) => (decide(&args, "approve", env).await?, args.call.output),
        Action::Reject(args) => (decide(&args, "reject", env).await?, args.call.output),
    };
    format.show(&reply, text);
    Ok(Exit::Success)
}

async fn decide(args: &DecideArgs, verb: &str, env: &Env) -> Result<Value, CliError> {
    let body = json!({"inputs": pipeline::inputs(&args.input), "comments": args.comment});
    args.call.client(env)?.post(&["approvals", &args.id, verb], &body).await
}

fn table(reply: &Value) -> String {
    output::rows(reply, &["APPROVAL", "PIPELINE", "STEP", "STATUS", "UNTIL", "MESSAGE"], |one| {
        let deadline = time_of(one, "deadline");
        let run = format!("{} #{}", field(one, "pipeline"), field(one, "sequenceId"));
        let message = field(one, "message").lines().next().unwrap_or_default().to_owned();
        vec![field(one, "id"), run, field(one, "step"), field(one, "status"), deadline, message]
    })
}

fn text(one: &Value) -> String {
    let mut lines = vec![
        format!(
            "{} {} ({} #{})",
            field(one, "status"),
            field(one, "step"),
            field(one, "pipeline"),
            field(one, "sequenceId")
        ),
        field(one, "message").trim_end().to_owned(),
    ];
    if field(one, "status") == "WAITING" {
        lines.extend(asked(one));
    }
    for activity in one.get("approvalActivities").and_then(Value::as_array).into_iter().flatten() {
        let who = activity.get("user").map(|user| field(user, "email")).unwrap_or_default();
        let at = time_of(activity, "approvedAt");
        lines.push(format!("{at} {} {who} {}", field(activity, "action"), field(activity, "comments")));
    }
    lines.join("\n")
}

/// Who may decide, until when, and what an approval brings.
fn asked(one: &Value) -> Vec<String> {
    let list = |value: Option<&Value>| {
        let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().map(cell).collect::<Vec<_>>().join(", ")
    };
    let approvers = one.get("approvers").unwrap_or(&Value::Null);
    let groups = list(approvers.get("userGroups"));
    let mut lines = vec![format!(
        "needs {} of {groups} until {}",
        field(approvers, "minimumCount"),
        time_of(one, "deadline")
    )];
    for input in one.get("approverInputs").and_then(Value::as_array).into_iter().flatten() {
        let mut rules = Vec::new();
        if input.get("required") == Some(&Value::Bool(true)) {
            rules.push("required".to_owned());
        }
        for (key, said) in [("label", "label"), ("regex", "matches"), ("defaultValue", "default")] {
            let value = field(input, key);
            if !value.is_empty() {
                rules.push(format!("{said} {value}"));
            }
        }
        let allowed = list(input.get("allowed"));
        if !allowed.is_empty() {
            rules.push(format!("one of {allowed}"));
        }
        lines.push(
            format!("  --input {}=…  {}", field(input, "name"), rules.join("; ")).trim_end().to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_a_table() {
        let reply = json!([{"id": "e.t", "pipeline": "p", "sequenceId": 2, "step": "gate", "status": "WAITING",
            "deadline": 1_715_004_000_000_i64, "message": "Deploy?\nmore"}]);
        assert_eq!(
            table(&reply),
            "APPROVAL  PIPELINE  STEP  STATUS   UNTIL                MESSAGE\ne.t       p #2      gate  WAITING  2024-05-06 14:00:00  Deploy?"
        );
        let one = json!({"status": "WAITING", "step": "gate", "pipeline": "p", "sequenceId": 2, "message": "Deploy?\n",
            "deadline": 1_715_004_000_000_i64, "approvers": {"userGroups": ["a", "b"], "minimumCount": 2},
            "approverInputs": [{"name": "t", "required": true, "regex": "C.*", "allowed": null},
                {"name": "z", "required": false, "defaultValue": "eu", "allowed": ["eu", "us"]}]});
        assert_eq!(
            text(&one),
            "WAITING gate (p #2)\nDeploy?\nneeds 2 of a, b until 2024-05-06 14:00:00\n  --input t=…  required; matches C.*\n  \
             --input z=…  default eu; one of eu, us"
        );
    }
}
