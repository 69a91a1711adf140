//! `delegate probe`: no-op tasks through queue and agents.

use crate::client::CallArgs;
use crate::exit::{CliError, Exit};
use crate::output::{self, Format, cell, field, list};
use crate::settings::Env;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at unfinished tasks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many tasks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
    /// Selectors, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub(crate) selectors: Vec<String>,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) call: CallArgs,
}

/// Queues the tasks, waits for them, prints how long they took. 1 when one fails or does not end in time.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<Exit, CliError> {
    let client = args.call.client(env)?;
    let body = json!({"count": args.count, "line": "probe", "selectors": args.selectors});
    let reply = client.post(&["probes"], &body).await?;
    let ids: Vec<String> = list(&reply, "taskIds").iter().map(cell).collect();
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut rows = Vec::new();
    for id in &ids {
        loop {
            let row = client.get(&["tasks", id], &[]).await?;
            if row.get("status").map(cell).is_some_and(|status| status.eq_ignore_ascii_case("ended")) {
                rows.push(row);
                break;
            }
            if Instant::now() >= deadline {
                let message = format!(
                    "{} of {} tasks have not ended after {} s",
                    ids.len() - rows.len(),
                    ids.len(),
                    args.timeout
                );
                return Err(
                    CliError::failed(message).hint("`delegate agents` shows who is connected and what runs")
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    let summary = summary(&rows);
    match args.call.output {
        Format::Json => output::json(&summary),
        Format::Table => {
            let field = |name: &str| field(&summary, name);
            output::say(format!(
                "{} of {} tasks succeeded on {}; queued to assigned p50 {} ms, p99 {} ms; to the end p50 {} ms, p99 {} ms",
                field("succeeded"),
                field("count"),
                field("agents"),
                field("assignedP50"),
                field("assignedP99"),
                field("endedP50"),
                field("endedP99"),
            ));
        }
    }
    Ok(if summary.get("succeeded") == summary.get("count") { Exit::Success } else { Exit::Failed })
}

fn summary(rows: &[Value]) -> Value {
    let at = |row: &Value, name: &str| row.get(name).and_then(Value::as_u64);
    let spans = |name: &str| {
        let mut spans: Vec<u64> = rows
            .iter()
            .filter_map(|row| Some(at(row, name)?.saturating_sub(at(row, "createdAt")?)))
            .collect();
        spans.sort_unstable();
        spans
    };
    let (assigned, ended) = (spans("assignedAt"), spans("endedAt"));
    let mut agents: Vec<String> = rows.iter().filter_map(|row| row.get("agent").map(cell)).collect();
    agents.sort();
    agents.dedup();
    let succeeded = rows
        .iter()
        .filter(|row| row.pointer("/result/status").and_then(Value::as_str) == Some("Success"))
        .count();
    json!({
        "count": rows.len(), "succeeded": succeeded, "agents": agents,
        "assignedP50": rank(&assigned, 50), "assignedP99": rank(&assigned, 99),
        "endedP50": rank(&ended, 50), "endedP99": rank(&ended, 99),
    })
}

/// The value that `percent` of the sorted values do not exceed.
fn rank(sorted: &[u64], percent: usize) -> Option<u64> {
    let index = (sorted.len() * percent).div_ceil(100).checked_sub(1)?;
    sorted.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_counts() {
        let row = |n: u64, status: &str| json!({"createdAt": 100, "assignedAt": 100 + n, "endedAt": 110 + n, "agent": "a", "result": {"status": status}});
        let rows: Vec<Value> = (1..=100).map(|n| row(n, if n == 7 { "Failed" } else { "Success" })).collect();
        let summary = summary(&rows);
        assert_eq!(summary["succeeded"], 99);
        assert_eq!((&summary["assignedP50"], &summary["assignedP99"]), (&json!(50), &json!(99)));
        assert_eq!(summary["endedP50"], 60);
        assert_eq!(rank(&[], 50), None);
    }
}
