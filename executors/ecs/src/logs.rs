//! What containers print, as the log driver `awslogs` brings it to CloudWatch Logs.
//!
//! A stream is read from its beginning by GetLogEvents and the token of the last answer, so that each line is seen once. The
//! end of a stream is never told: it is over when its task has stopped and nothing has come for a while
//! ([`crate::Settings::log_settle`]).

use crate::session::Session;
use aws::document::{list, text};
use aws::{Fault, Service as Aws};
use executor_api::{Level, StepError, UnitLog};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// So long one look at a stream may take; logs must not keep a step from seeing its tasks.
const LIMIT: Duration = Duration::from_secs(15);
/// Streams that one round looks at: an account may ask for 10 to 25 in a second.
const ROUND: usize = 20;
/// Pages of one stream in a row.
const PAGES: usize = 20;

/// Where a container's output lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) stream: String,
}

/// Why it lies where nobody looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// The container has no log configuration.
    Nowhere,
    /// It has another driver.
    Driver(String),
    /// Without a prefix the stream is named by the container's runtime id, which is known on EC2 hosts only.
    NoPrefix,
    /// It goes to another region.
    Region(String),
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Elsewhere::Nowhere => f.write_str("it has no log configuration"),
            Elsewhere::Driver(driver) => write!(f, "its log driver is {driver}, not awslogs"),
            Elsewhere::NoPrefix => {
                f.write_str("its log configuration lacks awslogs-group or awslogs-stream-prefix")
            }
            Elsewhere::Region(region) => write!(f, "its log goes to region {region}"),
        }
    }
}

/// Where a container of a task definition writes when it runs in the task `task`.
pub(crate) fn place(container: &Value, task: &str, region: &str) -> Result<Place, Elsewhere> {
    let Some(log) = container.get("logConfiguration").filter(|log| !log.is_null()) else {
        return Err(Elsewhere::Nowhere);
    };
    match text(log, &["logDriver"]) {
        Some("awslogs") => {}
        driver => return Err(Elsewhere::Driver(driver.unwrap_or("none").to_owned())),
    }
    let option = |name: &str| text(log, &["options", name]);
    if let Some(other) = option("awslogs-region").filter(|other| *other != region) {
        return Err(Elsewhere::Region(other.to_owned()));
    }
    let (Some(group), Some(prefix)) = (option("awslogs-group"), option("awslogs-stream-prefix")) else {
        return Err(Elsewhere::NoPrefix);
    };
    let name = text(container, &["name"]).unwrap_or_default();
    Ok(Place { group: group.to_owned(), stream: format!("{prefix}/{name}/{task}") })
}

/// One stream that is followed.
#[derive(Clone, Debug)]
struct Tail {
    task: String,
    place: Place,
    /// Stands before each line.
    label: String,
    token: Option<String>,
    /// Since when its task is stopped.
    stopped: Option<Instant>,
    /// When the last line came, or the task stopped.
    news: Option<Instant>,
    done: bool,
}

/// The streams of all tasks of a step.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    all: Vec<Tail>,
    next: usize,
    /// Containers of which it was said that they are not shown.
    told: Vec<String>,
}

impl Tails {
    /// Follows the containers of a task. `many`: lines say which task they are of. `positions` are those of an earlier life.
    /// Returns what a person should know of containers whose output is not shown, each once.
    pub(crate) fn follow(
        &mut self,
        definition: &Value,
        task: &str,
        region: &str,
        many: bool,
        positions: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let mut said = Vec::new();
        if self.all.iter().any(|tail| tail.task == task) {
            return said;
        }
        for container in list(definition, &["containerDefinitions"]) {
            let name = text(container, &["name"]).unwrap_or_default();
            match place(container, task, region) {
                Ok(place) => {
                    let short: String = task.chars().take(8).collect();
                    let label = if many { format!("{short}/{name}") } else { name.to_owned() };
                    let token = positions.get(&place.stream).cloned();
                    let tail = Tail {
                        task: task.to_owned(),
                        place,
                        label,
                        token,
                        stopped: None,
                        news: None,
                        done: false,
                    };
                    self.all.push(tail);
                }
                Err(why) if !self.told.iter().any(|told| told == name) => {
                    self.told.push(name.to_owned());
                    said.push(format!("the output of container {name} is not shown: {why}"));
                }
                Err(_) => {}
            }
        }
        said
    }

    /// The task has stopped: its streams get no more than what is on its way.
    pub(crate) fn stopped(&mut self, task: &str, now: Instant) {
        for tail in self.all.iter_mut().filter(|tail| tail.task == task && tail.stopped.is_none()) {
            (tail.stopped, tail.news) = (Some(now), Some(now));
        }
    }

    /// Whether every stream of a stopped task was read to its end.
    pub(crate) fn complete(&self) -> bool {
        self.all.iter().all(|tail| tail.done || tail.stopped.is_none())
    }

    /// How far each stream was read, for the next life.
    pub(crate) fn positions(&self) -> BTreeMap<String, String> {
        let read = |tail: &Tail| Some((tail.place.stream.clone(), tail.token.clone()?));
        self.all.iter().filter_map(read).collect()
    }

    /// Writes what is new. At most [`ROUND`] streams are looked at; the next round goes on with the others.
    ///
    /// **Errors**: the log is closed. What AWS refuses ends the one stream with a warning, and nothing else. **Cancel**: ends
    /// at once; what was not written yet is read again. **Repeat**: safe.
    pub(crate) async fn read(&mut self, session: &Session, log: &dyn UnitLog) -> Result<(), StepError> {
        let count = self.all.len();
        let mut looked = 0;
        for step in 0..count {
            if looked == ROUND {
                break;
            }
            let index = (self.next + step) % count;
            let Some(tail) = self.all.get_mut(index).filter(|tail| !tail.done) else { continue };
            looked += 1;
            tail.read(session, log).await?;
            if looked == ROUND {
                self.next = index + 1;
            }
        }
        Ok(())
    }
}

impl Tail {
    async fn read(&mut self, session: &Session, log: &dyn UnitLog) -> Result<(), StepError> {
        for _ in 0..PAGES {
            let mut input = json!({"logGroupName": self.place.group, "logStreamName": self.place.stream, "startFromHead": true});
            if let (Some(token), Value::Object(members)) = (&self.token, &mut input) {
                members.insert("nextToken".to_owned(), token.as_str().into());
            }
            let ask = session.read(Aws::Logs.op("GetLogEvents"), input);
            let answer = match tokio::time::timeout(LIMIT, ask).await {
                Ok(Ok(answer)) => answer,
                // The stream comes with the first line; a task that never began has none.
                Ok(Err(fault)) if fault.is("ResourceNotFoundException") => break,
                Ok(Err(Fault::Cancelled(_))) => return Ok(()),
                Ok(Err(fault)) if fault.may_pass() => break,
                Ok(Err(fault)) => {
                    self.done = true;
                    let text = format!(
                        "the log of {} ({} {}) cannot be read: {fault}",
                        self.label, self.place.group, self.place.stream
                    );
                    return session.say(log, Level::Warn, &text).await;
                }
                Err(_) => break,
            };
            let events = list(&answer, &["events"]);
            for message in events.iter().filter_map(|event| text(event, &["message"])) {
                for line in message.trim_end_matches(['\n', '\r']).split('\n') {
                    session.say(log, Level::Info, &format!("[{}] {line}", self.label)).await?;
                }
            }
            if !events.is_empty() {
                self.news = Some(session.cx.clock.mono());
            }
            // The end is reached when the token stays the same (the reference of GetLogEvents).
            let next = text(&answer, &["nextForwardToken"]).map(str::to_owned);
            let end = next.is_none() || next == self.token;
            self.token = next.or(self.token.take());
            if end {
                break;
            }
        }
        if let (Some(_), Some(news)) = (self.stopped, self.news) {
            let quiet = session.cx.clock.mono().saturating_duration_since(news);
            self.done = quiet >= session.settings.log_settle;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(options: Value) -> Value {
        json!({"name": "app", "logConfiguration": {"logDriver": "awslogs", "options": options}})
    }

    #[test]
    fn a_stream_is_found_by_prefix_container_and_task_or_it_is_said_why_not() {
        let full = container(
            json!({"awslogs-group": "/g", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "p"}),
        );
        let at = |container: &Value| place(container, "0a1b", "eu-west-1");
        assert_eq!(at(&full), Ok(Place { group: "/g".into(), stream: "p/app/0a1b".into() }));
        assert_eq!(at(&container(json!({"awslogs-group": "/g"}))), Err(Elsewhere::NoPrefix));
        assert_eq!(at(&json!({"name": "app"})), Err(Elsewhere::Nowhere));
        let other = json!({"name": "app", "logConfiguration": {"logDriver": "json-file"}});
        assert_eq!(at(&other), Err(Elsewhere::Driver("json-file".into())));
        let far = container(
            json!({"awslogs-group": "/g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}),
        );
        assert_eq!(at(&far), Err(Elsewhere::Region("us-east-1".into())));
    }

    #[test]
    fn what_is_not_shown_is_said_once_and_positions_come_back() {
        let definition = json!({"containerDefinitions": [{"name": "quiet"},
            container(json!({"awslogs-group": "/g", "awslogs-stream-prefix": "p"}))]});
        let mut tails = Tails::default();
        let kept = BTreeMap::from([("p/app/t1".to_owned(), "f/7".to_owned())]);
        assert_eq!(tails.follow(&definition, "t1", "r", true, &kept).len(), 1);
        assert!(tails.follow(&definition, "t2", "r", true, &kept).is_empty());
        assert!(tails.follow(&definition, "t2", "r", true, &kept).is_empty());
        assert_eq!(tails.all.len(), 2);
        assert_eq!(tails.positions(), kept);
        assert!(tails.complete(), "no task has stopped");
        tails.stopped("t1", Instant::now());
        assert!(!tails.complete());
    }
}
