//! Progress of an execution: a live view on a terminal, plain lines elsewhere. It goes to standard error; log lines go
//! to standard output unless that is kept for a JSON document.

use crate::client::LogLine;
use crate::output::{self, cell, duration, field, list};
use crate::settings::Env;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Redraws of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// A wait shorter than this is part of every run.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// What a step waits for.
struct Waiting {
    reason: String,
    since: Instant,
    told: bool,
}

/// Shows changes of an execution's view and its log lines.
pub(crate) struct Progress {
    live: Option<MultiProgress>,
    bars: BTreeMap<String, ProgressBar>,
    seen: BTreeMap<String, String>,
    waiting: BTreeMap<String, Waiting>,
    logs_to_stderr: bool,
    color: bool,
}

/// One step of a view with its place.
pub(crate) struct StepRow<'v> {
    /// `stage/group/step`.
    pub(crate) path: String,
    /// It stands under `rollbackSteps`.
    pub(crate) rollback: bool,
    /// How deep it is nested below its stage.
    pub(crate) depth: usize,
    /// The step's object.
    pub(crate) step: &'v Value,
}

/// Every step of a view in order; groups before what they hold.
pub(crate) fn steps(view: &Value) -> Vec<StepRow<'_>> {
    let mut rows = Vec::new();
    for stage in list(view, "stages") {
        let name = stage.get("identifier").map(cell).unwrap_or_default();
        for (field, rollback) in [("steps", false), ("rollbackSteps", true)] {
            collect(list(stage, field), &name, rollback, 0, &mut rows);
        }
    }
    rows
}

fn collect<'v>(steps: &'v [Value], above: &str, rollback: bool, depth: usize, rows: &mut Vec<StepRow<'v>>) {
    for step in steps {
        let path = format!("{above}/{}", step.get("identifier").map(cell).unwrap_or_default());
        rows.push(StepRow { path: path.clone(), rollback, depth, step });
        collect(list(step, "steps"), &path, rollback, depth + 1, rows);
    }
}

/// Whether an execution has ended.
pub(crate) fn has_ended(view: &Value) -> bool {
    let status = view.get("status").and_then(Value::as_str).unwrap_or("");
    !matches!(status, "" | "NotStarted" | "Queued" | "Paused") && !is_under_way(status)
}

/// Whether it runs or waits for somebody or something.
fn is_under_way(status: &str) -> bool {
    matches!(status, "Running" | "WaitStepRunning") || status.ends_with("Waiting")
}

/// What a failed step says: message, hint, code.
pub(crate) fn failure_lines(step: &Value) -> Vec<String> {
    let Some(failure) = step.get("failure").filter(|failure| failure.is_object()) else { return Vec::new() };
    let field = |name: &str| field(failure, name);
    let mut lines = vec![format!("{}: {}", field("code"), field("message"))];
    if !field("hint").is_empty() {
        lines.push(format!("hint: {}", field("hint")));
    }
    lines
}

impl Progress {
    /// `json`: standard output is kept for the document.
    pub(crate) fn new(env: &Env, json: bool) -> Progress {
        let terminal = console::Term::stderr().is_term() && env.get("TERM") != Some("dumb");
        let color = terminal && env.get("NO_COLOR").is_none();
        Progress {
            live: terminal.then(MultiProgress::new),
            bars: BTreeMap::new(),
            seen: BTreeMap::new(),
            waiting: BTreeMap::new(),
            logs_to_stderr: json,
            color,
        }
    }

    /// One line for people.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        self.quietly(|| output::tell(text.as_ref()));
    }

    /// A log line with its origin.
    pub(crate) fn log(&self, line: &LogLine) {
        let text = log_text(line);
        self.quietly(|| if self.logs_to_stderr { output::tell(&text) } else { output::say(&text) });
    }

    /// Writes without disturbing the spinners.
    fn quietly(&self, write: impl FnOnce()) {
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
    }

    /// Shows what changed since the last view.
    pub(crate) fn update(&mut self, view: &Value) {
        for row in steps(view) {
            let status = row.step.get("status").map(cell).unwrap_or_default();
            let key = if row.rollback { format!("{} (rollback)", row.path) } else { row.path.clone() };
            self.waiting_for(&key, row.step);
            if self.seen.get(&key) == Some(&status) {
                continue;
            }
            self.seen.insert(key.clone(), status.clone());
            // A group says nothing that its steps do not say.
            if list(row.step, "steps").is_empty() {
                self.changed(&key, &status, row.step);
            }
        }
    }

    /// Takes note of what a step waits for; it is told by [`Progress::tick`] when it lasts.
    fn waiting_for(&mut self, key: &str, step: &Value) {
        let reason = step.get("waitingFor").map(cell).unwrap_or_default();
        if reason.is_empty() {
            self.waiting.remove(key);
        } else if self.waiting.get(key).is_none_or(|waiting| waiting.reason != reason) {
            self.waiting.insert(key.to_owned(), Waiting { reason, since: Instant::now(), told: false });
        }
    }

    /// Tells what steps have been waiting for a while. To be called about once a second.
    pub(crate) fn tick(&mut self) {
        let mut lines = Vec::new();
        for (key, waiting) in &mut self.waiting {
            if !waiting.told && waiting.since.elapsed() >= WORTH_TELLING {
                waiting.told = true;
                lines.push(format!("{key} waits: {}", waiting.reason));
            }
        }
        lines.iter().for_each(|line| self.note(line));
    }

    fn changed(&mut self, key: &str, status: &str, step: &Value) {
        match status {
            "NotStarted" | "Queued" | "" => {}
            status if is_under_way(status) => self.started(key, step),
            _ => self.ended(key, status, step),
        }
    }

    fn started(&mut self, key: &str, step: &Value) {
        let Some(live) = &self.live else {
            let agent = step.get("agent").map(cell).filter(|a| !a.is_empty());
            let on = agent.map(|agent| format!(" on {agent}")).unwrap_or_default();
            return self.note(format!("{key}: Running{on}"));
        };
        let bar = live.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template(if self.color {
            "{spinner:.cyan} {msg} {elapsed}"
        } else {
            "{spinner} {msg} {elapsed}"
        }) {
            bar.set_style(style);
        }
        bar.set_message(key.to_owned());
        bar.enable_steady_tick(TICK);
        self.bars.insert(key.to_owned(), bar);
    }

    fn ended(&mut self, key: &str, status: &str, step: &Value) {
        if let Some(bar) = self.bars.remove(key) {
            bar.finish_and_clear();
        }
        let took = step.get("durationMs").and_then(Value::as_u64).map(duration);
        let took = took.map(|took| format!(" ({took})")).unwrap_or_default();
        self.note(format!("{key}: {}{took}", self.paint(status)));
        for line in failure_lines(step) {
            self.note(format!("    {line}"));
        }
    }

    fn paint(&self, status: &str) -> String {
        let style = console::Style::new().force_styling(self.color);
        match status {
            "Success" | "IgnoreFailed" => style.green(),
            "Skipped" => style.dim(),
            _ => style.red(),
        }
        .apply_to(status)
        .to_string()
    }

    /// Removes the spinners.
    pub(crate) fn finish(&mut self) {
        for bar in std::mem::take(&mut self.bars).into_values() {
            bar.finish_and_clear();
        }
    }
}

/// `[step/unit] text`.
pub(crate) fn log_text(line: &LogLine) -> String {
    format!("[{}/{}] {}", line.step, line.unit, line.out)
}

/// An execution for people: status, stages, steps, failures.
pub(crate) fn summary(view: &Value) -> String {
    let field = |name: &str| field(view, name);
    let mut head = format!("execution {}  {}", field("executionId"), field("status"));
    let sequence = field("sequenceId");
    if !sequence.is_empty() {
        head = format!("{head}  ({} #{sequence})", field("pipeline"));
    }
    if view.get("rolledBack") == Some(&Value::Bool(true)) {
        head.push_str("  rolled back");
    } else if field("status") == "Failed" {
        head.push_str("  not rolled back");
    }
    // The factor, or only that it is one.
    match view.get("rehearsal") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::Bool(true)) => head.push_str("  rehearsal"),
        Some(factor) => head.push_str(&format!("  rehearsal {}x", cell(factor))),
    }
    let mut lines = vec![head];
    let rows = steps(view);
    for stage in list(view, "stages") {
        let field = |name: &str| output::field(stage, name);
        let (stage, waiting) = (field("identifier"), field("waitingFor"));
        lines.push(format!("stage {stage}: {}", field("status")));
        if !waiting.is_empty() {
            lines.push(format!("    waits: {waiting}"));
        }
        let hint = field("hint");
        if !hint.is_empty() {
            lines.push(format!("    hint: {hint}"));
        }
        let prefix = format!("{stage}/");
        for row in rows.iter().filter(|row| row.path.starts_with(&prefix)) {
            lines.extend(step_lines(row));
        }
    }
    lines.join("\n")
}

fn step_lines(row: &StepRow<'_>) -> Vec<String> {
    let field = |name: &str| field(row.step, name);
    let indent = "  ".repeat(row.depth + 1);
    let took = row.step.get("durationMs").and_then(Value::as_u64).map(duration).unwrap_or_default();
    let agent = if field("agent").is_empty() { String::new() } else { format!("on {}", field("agent")) };
    let rollback = match (row.rollback, row.step.get("generated") == Some(&Value::Bool(true))) {
        (true, true) => "rollback (generated)",
        (true, false) => "rollback",
        (false, _) => "",
    };
    let parts = [field("identifier"), field("type"), field("status"), took, agent, rollback.to_owned()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let mut lines = vec![format!("{indent}{}", parts.join("  "))];
    for line in failure_lines(row.step) {
        lines.push(format!("{indent}    {line}"));
    }
    let waiting = field("waitingFor");
    if !waiting.is_empty() {
        lines.push(format!("{indent}    waits: {waiting}"));
    }
    let status = field("status");
    // A host that fared as its step did says nothing more.
    let telling = |host: &&Value| {
        host.get("status").map(cell) != Some(status.clone())
            || host.get("failure").is_some_and(Value::is_object)
    };
    for host in list(row.step, "hosts").iter().filter(telling) {
        let host_field = |name: &str| output::field(host, name);
        let message = host.pointer("/failure/message").map(cell).unwrap_or_default();
        lines.push(
            format!("{indent}    {}: {} {message}", host_field("host"), host_field("status"))
                .trim_end()
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view() -> Value {
        json!({
            "executionId": "e1", "status": "Failed", "rolledBack": true, "rehearsal": 60, "pipeline": "p", "sequenceId": 3,
            "stages": [{"identifier": "s", "status": "Failed",
                "steps": [
                    {"identifier": "a", "type": "Command", "status": "Success", "durationMs": 1200, "agent": "ag", "failure": null},
                    {"identifier": "g", "type": "StepGroup", "status": "Failed", "steps": [
                        {"identifier": "b", "type": "Http", "status": "Failed", "durationMs": 5,
                         "failure": {"code": "HTTP-002", "message": "assertion is false", "hint": "look at the body"},
                         "hosts": [{"host": "h1", "status": "Failed", "failure": {"message": "down"}}]}]}],
                "rollbackSteps": [{"identifier": "r", "type": "Command", "status": "Success", "durationMs": 9}]}],
        })
    }

    #[test]
    fn the_summary_names_every_step_and_why_it_failed() {
        assert_eq!(
            summary(&view()),
            "execution e1  Failed  (p #3)  rolled back  rehearsal 60x\n\
             stage s: Failed\n  a  Command  Success  1.2s  on ag\n  g  StepGroup  Failed\n    b  Http  Failed  5ms\n\
             \x20       HTTP-002: assertion is false\n        hint: look at the body\n        h1: Failed down\n\
             \x20 r  Command  Success  9ms  rollback"
        );
    }

    #[test]
    fn ends_are_told_from_states_on_the_way() {
        for (status, ended) in [
            ("Running", false),
            ("NotStarted", false),
            ("ApprovalWaiting", false),
            ("InterventionWaiting", false),
            ("Success", true),
            ("Aborted", true),
        ] {
            assert_eq!(has_ended(&json!({"status": status})), ended, "{status}");
        }
    }

    #[test]
    fn log_lines_carry_their_origin() {
        let line: LogLine =
            serde_json::from_str(r#"{"step":"s","unit":"u","seq":0,"level":"INFO","out":"hi"}"#).unwrap();
        assert_eq!(log_text(&line), "[s/u] hi");
    }
}
