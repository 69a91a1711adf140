//! Waits for an execution: view, log lines, Ctrl-C, and a manager that goes away for a moment.

use crate::client::{Client, LogLine, LogStream};
use crate::exit::{CliError, Exit};
use crate::output;
use crate::progress::{Progress, has_ended};
use crate::shutdown::Signals;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a manager may be away before the client gives up; the execution goes on anyway.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
/// Between two tries while it is away.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Between two looks at steps that wait.
const TICK: Duration = Duration::from_secs(1);
/// How long log lines may still come after the end.
const LOG_GRACE: Duration = Duration::from_secs(15);

/// How waiting ended.
pub(crate) enum Watched {
    /// The execution ended: its last view.
    Ended(Value),
    /// Ctrl-C.
    Interrupted,
}

/// Waits until execution `id` has ended; `follow` shows its log lines.
///
/// **Errors**: the manager refuses, or stays away for more than a minute. The execution goes on in either case.
pub(crate) async fn watch(
    client: &Client,
    id: &str,
    follow: bool,
    progress: &mut Progress,
) -> Result<Watched, CliError> {
    let mut signals = Signals::take()?;
    let mut logs = Logs::new(client, id, follow);
    let mut version: Option<u64> = None;
    let mut away_since: Option<Instant> = None;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut poll = Box::pin(client.execution(id, version));
    let view = loop {
        let result = tokio::select! {
            result = &mut poll => result,
            line = logs.next() => {
                if let Some(line) = line {
                    progress.log(&line);
                }
                continue;
            }
            _ = ticks.tick() => {
                progress.tick();
                continue;
            }
            _ = signals.next() => {
                progress.finish();
                return Ok(Watched::Interrupted);
            }
        };
        match result {
            Ok(view) => {
                away_since = None;
                progress.update(&view);
                if has_ended(&view) {
                    break view;
                }
                version = view.get("version").and_then(Value::as_u64).or(version);
                if version.is_none() {
                    // A manager without versions is asked again after a moment instead of at once.
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
            Err(error) if error.exit == Exit::Unavailable => {
                let since = *away_since.get_or_insert_with(|| {
                    progress.note(format!("{}; trying again", error.message));
                    Instant::now()
                });
                if since.elapsed() > AWAY_LIMIT {
                    progress.finish();
                    return Err(
                        error.hint(format!("the execution goes on; look again with: {}", follow_command(id)))
                    );
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(error) => {
                progress.finish();
                return Err(error);
            }
        }
        poll = Box::pin(client.execution(id, version));
    };
    drop(poll);
    let grace = Instant::now() + LOG_GRACE;
    logs.ending = true;
    while let Ok(Some(line)) = tokio::time::timeout_at(grace, logs.next()).await {
        progress.log(&line);
    }
    progress.finish();
    Ok(Watched::Ended(view))
}

/// What to paste to follow an execution.
pub(crate) fn follow_command(id: &str) -> String {
    format!("delegate execution logs {id} --follow")
}

/// Tells that the execution goes on, and how to follow or end it.
pub(crate) fn tell_interrupted(id: &str) -> Exit {
    output::tell(format!("execution {id} goes on"));
    output::tell(format!("  follow it:  {}", follow_command(id)));
    output::tell(format!("  end it:     delegate execution abort {id}"));
    Exit::Interrupted
}

/// Log lines of an execution, over reconnections: a stream that is opened again begins at the first line, so lines that
/// were shown are left out by their numbers.
struct Logs<'c> {
    client: &'c Client,
    id: &'c str,
    follow: bool,
    ending: bool,
    stream: Option<LogStream>,
    shown: HashMap<(String, String), u64>,
}

impl<'c> Logs<'c> {
    fn new(client: &'c Client, id: &'c str, follow: bool) -> Self {
        Logs { client, id, follow, ending: false, stream: None, shown: HashMap::new() }
    }

    /// The next line that was not shown. Without `follow` it never returns; at the end of an ended execution it gives
    /// `None`.
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            if !self.follow {
                return if self.ending { None } else { std::future::pending().await };
            }
            let Some(stream) = &mut self.stream else {
                match self.client.logs(self.id, None, true).await {
                    Ok(stream) => self.stream = Some(stream),
                    Err(_) if self.ending => return None,
                    // The view says what is wrong with the manager.
                    Err(_) => tokio::time::sleep(TRY_AGAIN).await,
                }
                continue;
            };
            match stream.next().await {
                Ok(Some(line)) => {
                    let next = self.shown.entry((line.step.clone(), line.unit.clone())).or_insert(0);
                    if line.seq >= *next {
                        *next = line.seq + 1;
                        return Some(line);
                    }
                }
                Ok(None) => {
                    self.follow = false;
                }
                Err(_) => self.stream = None,
            }
        }
    }
}
