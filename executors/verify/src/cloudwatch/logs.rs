//! CloudWatch Logs: how many events match a pattern in each period. **Source**: facts C3.5; FilterLogEvents of the API
//! reference.
//!
//! The events are counted here. What was counted in a period that is over for a while is not asked for again, so that a
//! look costs as much at the end of a window as at its beginning.

use super::{Samples, Statistic};
use crate::error::Error;
use crate::judge::Point;
use aws::{Fault, Operation, Service, Session, document};
use executor_api::StepContext;
use proto::task::{AwsAccount, LogScope};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FILTER_LOG_EVENTS: Operation = Service::Logs.op("FilterLogEvents");
/// Pages of one question; one has 10,000 events at most.
const PAGES: usize = 100;
/// Events that are shown of a step.
const SHOWN: usize = 5;
/// Letters of an event that are shown.
const LETTERS: usize = 300;
/// So long after its end a period may get events; AWS names no limit, most come within seconds.
const LATE_MS: i64 = 120_000;

/// Groups of logs in which a pattern is looked for.
pub(crate) struct Logs {
    session: Session,
    groups: Vec<String>,
    prefix: Option<String>,
    pattern: String,
    step_ms: i64,
    target: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Matches of periods that get no more, by their beginning.
    counted: BTreeMap<i64, u64>,
    /// Ids of events that were shown.
    shown: BTreeSet<String>,
    /// Lines for the log.
    notes: Vec<String>,
}

impl Logs {
    /// Connects. Asks nothing yet.
    pub(crate) async fn open(
        client: &aws::Client,
        (account, scope): (&AwsAccount, &LogScope),
        pattern: &str,
        step: Duration,
        cx: &StepContext,
    ) -> Result<Logs, Error> {
        let session = client.session(account, cx).await.map_err(|error| Error::Aws(Box::new(error)))?;
        let target = format!("CloudWatch Logs of {}", session.target());
        Ok(Logs {
            session,
            groups: scope.groups.clone(),
            prefix: scope.stream_prefix.clone(),
            pattern: pattern.to_owned(),
            step_ms: crate::millis(step).max(1),
            target,
            seen: Mutex::default(),
        })
    }

    /// For messages.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Lines that say what is asked for.
    pub(crate) fn shown(&self) -> Vec<String> {
        let of = match &self.prefix {
            Some(prefix) => format!(", streams {prefix}…"),
            None => String::new(),
        };
        vec![format!(
            "counts events of {}{of} that match `{}` ({} of each period)",
            self.groups.join(", "),
            self.pattern,
            Statistic::Sum
        )]
    }

    /// Lines of the session for the log, and events that matched.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = self.session.notes();
        notes.append(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).notes);
        notes
    }

    /// How many events matched in each period from `from` to before `until`. `wall`: now, epoch milliseconds.
    ///
    /// **Cancel**: safe; a question changes nothing.
    pub(crate) async fn samples(&self, from: i64, until: i64, wall: i64) -> Result<Samples, Error> {
        let (counts, missing) = self.known(from, until);
        let Some(first) = missing else { return Ok(points(&counts)) };
        let mut found: BTreeMap<i64, u64> = BTreeMap::new();
        let mut at = first;
        while at < until {
            found.insert(at, 0);
            at = at.saturating_add(self.step_ms);
        }
        for group in &self.groups {
            self.count(group, first, until, &mut found).await?;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, count) in &found {
            if at.saturating_add(self.step_ms).saturating_add(LATE_MS) <= wall {
                seen.counted.insert(*at, *count);
            }
        }
        drop(seen);
        found.extend(counts);
        Ok(points(&found))
    }

    /// Periods that were counted, and the first that was not.
    fn known(&self, from: i64, until: i64) -> (BTreeMap<i64, u64>, Option<i64>) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = BTreeMap::new();
        let mut at = from;
        while at < until {
            let Some(count) = seen.counted.get(&at) else { return (counts, Some(at)) };
            counts.insert(at, *count);
            at = at.saturating_add(self.step_ms);
        }
        (counts, None)
    }

    async fn count(
        &self,
        group: &str,
        from: i64,
        until: i64,
        found: &mut BTreeMap<i64, u64>,
    ) -> Result<(), Error> {
        // The end of FilterLogEvents is inclusive, that of a window is not.
        let mut input = json!({"logGroupName": group, "startTime": from, "endTime": until.saturating_sub(1),
            "filterPattern": self.pattern});
        if let (Some(prefix), Value::Object(members)) = (&self.prefix, &mut input) {
            members.insert("logStreamNamePrefix".to_owned(), prefix.as_str().into());
        }
        for _ in 0..PAGES {
            let answer = self.session.read(FILTER_LOG_EVENTS, input.clone()).await;
            let answer = answer.map_err(|fault| self.failed(fault, group))?;
            for event in document::list(&answer, &["events"]) {
                let Some(at) = document::whole(event, &["timestamp"]) else { continue };
                let period = from.saturating_add(
                    at.saturating_sub(from).div_euclid(self.step_ms).saturating_mul(self.step_ms),
                );
                if let Some(count) = found.get_mut(&period) {
                    *count += 1;
                    self.show(group, event);
                }
            }
            // A page may be empty although others follow it.
            let Some(next) = document::text(&answer, &["nextToken"]) else { return Ok(()) };
            if document::text(&input, &["nextToken"]) == Some(next) {
                return Ok(());
            }
            let next = Value::from(next);
            if let Value::Object(members) = &mut input {
                members.insert("nextToken".to_owned(), next);
            }
        }
        Err(Error::Logs {
            target: self.target.clone(),
            problem: format!("more events of {group} match than {PAGES} pages hold; narrow the pattern"),
        })
    }

    /// Keeps the first few events for the log: a number alone does not say what is wrong.
    fn show(&self, group: &str, event: &Value) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |name: &str| document::text(event, &[name]).unwrap_or_default();
        let id = match text("eventId") {
            "" => event.to_string(),
            id => id.to_owned(),
        };
        if seen.shown.len() >= SHOWN || !seen.shown.insert(id) {
            return;
        }
        let message: String = text("message").trim_end().chars().take(LETTERS).collect();
        seen.notes.push(format!("matched in {group} {}: {message}", text("logStreamName")));
        if seen.shown.len() == SHOWN {
            seen.notes.push("further events that match are counted and not shown".to_owned());
        }
    }

    fn failed(&self, fault: Fault, group: &str) -> Error {
        if fault.is("ResourceNotFoundException") {
            let problem = format!("there is no log group `{group}`");
            return Error::Logs { target: self.target.clone(), problem };
        }
        if fault.is("InvalidParameterException") {
            let problem = format!("the pattern `{}` is not accepted: {fault}", self.pattern);
            return Error::Logs { target: self.target.clone(), problem };
        }
        Error::Aws(Box::new(fault.step(&format!("look for events in {group}"), &self.session)))
    }
}

fn points(counts: &BTreeMap<i64, u64>) -> Samples {
    #[expect(clippy::cast_precision_loss, reason = "Nobody counts so many events.")]
    let judged = counts.iter().map(|(at, count)| Point { at_ms: *at, value: *count as f64 }).collect();
    Samples { judged, control: None }
}
