//! Starting the tasks and following them to their end.

use super::judge::{self, Bad};
use super::{Batch, OneOff, Wish, started_by};
use crate::documents::arn::short;
use crate::documents::reveal;
use crate::error::cancelled;
use crate::logs::Tails;
use crate::session::{Session, ecs};
use crate::steady::tasks::Task;
use aws::document::{list, text};
use aws::{Fault, Repeat};
use executor_api::{Class, Level, StepError, UnitLog};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Most tasks that one RunTask starts.
const AT_ONCE: u32 = 10;
/// Most tasks that one DescribeTasks describes.
const DESCRIBED: usize = 100;
/// Longest pause between two tries to find room.
const LONGEST: Duration = Duration::from_secs(60);
/// So often it is written down how far logs were shown.
const SAVED: Duration = Duration::from_secs(30);
/// Failed tasks that an error text names.
const NAMED: usize = 5;
/// States of tasks whose containers may have printed something.
const BEGUN: [&str; 5] = ["RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"];
/// Tag of tasks: the call that started them.
pub(super) const CALL: &str = "delegate:call";

/// The tasks of one step.
pub(super) struct Watch<'a> {
    pub(super) session: &'a Session,
    pub(super) wish: &'a Wish<'a>,
    pub(super) memory: &'a mut OneOff,
    pub(super) log: &'a dyn UnitLog,
    pub(super) tasks: Vec<Task>,
    pub(super) tails: Tails,
    essential: Vec<String>,
    /// Why not all tasks are placed, with how often.
    unplaced: BTreeMap<String, usize>,
    next_try: Instant,
    pause: Duration,
    /// When this life first knew of tasks; ECS may not show them at once.
    since: Instant,
    saved: Instant,
    heartbeat: Instant,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        session: &'a Session,
        wish: &'a Wish<'a>,
        memory: &'a mut OneOff,
        log: &'a dyn UnitLog,
    ) -> Watch<'a> {
        let now = session.cx.clock.mono();
        let tasks = memory.arns().map(|arn| Task { arn: arn.clone(), ..Task::default() }).collect();
        Watch {
            session,
            wish,
            log,
            tasks,
            tails: Tails::default(),
            essential: judge::essential(&memory.definition),
            unplaced: BTreeMap::new(),
            next_try: now,
            pause: session.settings.no_room,
            since: now,
            saved: now,
            heartbeat: now + session.settings.heartbeat,
            memory,
        }
    }

    /// Starts the tasks and waits for them as the step says. A step that fails does not leave tasks behind, unless it says so.
    ///
    /// **Errors**: `ECS-074` tasks that cannot be placed; `ECS-075` an essential container failed; `ECS-076` a task that did
    /// not run to its end; `ECS-077` a task of which ECS knows no more; those of the account. **Cancel**: the tasks are
    /// stopped, unless somebody goes on with the step. **Repeat**: goes on by the memory.
    pub(super) async fn run(mut self) -> Result<Vec<Task>, StepError> {
        match self.follow().await {
            Ok(()) => Ok(self.tasks),
            Err(error) => Err(self.stop(error).await),
        }
    }

    async fn follow(&mut self) -> Result<(), StepError> {
        if !self.tasks.is_empty() {
            let text = format!("{} goes on: {} were started before", self.memory.name(), self.tasks.len());
            self.say(Level::Info, &text).await?;
        }
        let begun = self.session.cx.clock.mono();
        loop {
            self.start().await?;
            if self.wish.skip_wait && self.memory.missing() == 0 {
                return self.say(Level::Info, "the step does not wait for the tasks").await;
            }
            self.look().await?;
            self.tails.read(self.session, self.log).await?;
            self.save().await?;
            if self.is_over()? {
                return Ok(());
            }
            let now = self.session.cx.clock.mono();
            if now >= self.heartbeat {
                self.heartbeat = now + self.session.settings.heartbeat;
                let text = format!("waiting for {}: {}", self.memory.name(), self.state());
                self.say(Level::Info, &text).await?;
            }
            let young = now.saturating_duration_since(begun) < Duration::from_secs(60);
            let pause = if young { self.session.settings.poll } else { self.session.settings.slow_poll };
            self.session.pause(pause, &self.state()).await?;
        }
    }

    pub(super) async fn say(&self, level: Level, text: &str) -> Result<(), StepError> {
        self.session.say(self.log, level, text).await
    }

    /// For people: what is there, and what is missing.
    pub(super) fn state(&self) -> String {
        let mut text = format!("tasks of {}: {}", self.memory.name(), judge::states(&self.tasks));
        let missing = self.memory.missing();
        if missing > 0 {
            text.push_str(&format!("; {missing} of {} not started", self.memory.count));
        }
        if !self.unplaced.is_empty() {
            text.push_str(&format!(" ({})", in_words(&self.unplaced)));
        }
        text
    }

    fn fault(&self, fault: Fault, what: &str) -> StepError {
        match fault {
            Fault::Cancelled(reason) => cancelled(reason, &self.state()),
            fault => self.session.fault(fault, what),
        }
    }

    // --- starting ---

    /// The call to make now: the one whose answer was never heard, or another one for what is missing.
    fn next_batch(&mut self) -> Option<usize> {
        if let Some(open) = self.memory.batches.iter().position(|batch| !batch.answered) {
            return Some(open);
        }
        let count = self.memory.missing().min(AT_ONCE);
        if count == 0 {
            return None;
        }
        let number = self.memory.batches.len();
        let attempt = self.session.cx.task.execution.attempt;
        let token = self.session.token(&format!("run task, attempt {attempt}, call {number}"), 64);
        self.memory.batches.push(Batch { token, count, ..Batch::default() });
        Some(number)
    }

    async fn start(&mut self) -> Result<(), StepError> {
        let failed = self.tasks.iter().any(|task| judge::bad(task, &self.essential).is_some());
        if self.session.cx.clock.mono() < self.next_try || failed {
            return Ok(());
        }
        while self.memory.missing() > 0 || self.memory.batches.iter().any(|batch| !batch.answered) {
            self.session.go_on(&self.state())?;
            let Some(index) = self.next_batch() else { break };
            let before = self.memory.missing();
            self.unplaced = self.call(index).await?;
            let reasons = self.unplaced.clone();
            if let Some((reason, _)) = reasons.iter().find(|(reason, _)| !judge::may_pass(reason)) {
                let what = format!("{} cannot be started: {}; {}", self.memory.name(), reason, self.state());
                return Err(StepError::new(Class::RemoteFailed { code: 1 }, "ECS-074", what)
                    .target(self.session.target().to_owned())
                    .hint("the reason is ECS' own: see `failures` in its API reference; for ATTRIBUTE and LOCATION look at the placement constraints, for AGENT at the instances"));
            }
            if !reasons.is_empty() || self.memory.missing() == before {
                self.next_try = self.session.cx.clock.mono() + self.pause;
                let text =
                    format!("no room yet: {}; tried again in {} s", self.state(), self.pause.as_secs_f64());
                self.say(Level::Warn, &text).await?;
                self.pause = (self.pause * 2).min(LONGEST);
                break;
            }
        }
        Ok(())
    }

    /// Makes one call and takes in what it started. Returns why not everything was.
    async fn call(&mut self, index: usize) -> Result<BTreeMap<String, usize>, StepError> {
        let Some(batch) = self.memory.batches.get(index).cloned() else { return Ok(BTreeMap::new()) };
        let family = self.memory.name().to_owned();
        let call = format!("RunTask {family} {}", index + 1);
        let mut input = reveal(&self.memory.input, self.session.cx.secrets.as_ref())?;
        if let Value::Object(members) = &mut input {
            let own = [
                ("cluster", self.session.cluster.clone()),
                ("taskDefinition", self.memory.revision.clone()),
                ("startedBy", started_by(self.session)),
                ("clientToken", batch.token.clone()),
            ];
            for (name, value) in own {
                members.insert(name.to_owned(), value.into());
            }
            members.insert("count".to_owned(), batch.count.into());
            let tags = members.entry("tags").or_insert_with(|| json!([]));
            if let Value::Array(tags) = tags {
                tags.push(json!({"key": CALL, "value": batch.token}));
            }
        }
        let intent = format!("run {} of {family}", tasks(batch.count));
        self.session.announce(intent, &[&call], &*self.memory).await?;
        let answer = self.session.change(&call, ecs("RunTask"), input, Repeat::Safe).await;
        let (started, unplaced) = match answer {
            Ok(answer) => {
                let started: Vec<Task> = list(&answer, &["tasks"]).iter().map(Task::read).collect();
                (started, judge::failures(&answer))
            }
            // The token was used with other parameters: a secret has changed since. What it started can be found.
            Err(fault) if fault.is("ConflictException") => {
                let found = self.found(self.session, &batch.token).await;
                let found = found.map_err(|fault| self.fault(fault, "look for the tasks"))?;
                if found.is_empty() {
                    return Err(self.fault(fault, &call));
                }
                (found, BTreeMap::new())
            }
            Err(fault) => return Err(self.fault(fault, &call)),
        };
        let ids: Vec<&str> = started.iter().map(Task::id).collect();
        let text = match ids.as_slice() {
            [] => String::new(),
            [one] => format!("task {one} of {family} is started"),
            all => format!("{} tasks of {family} are started: {}", all.len(), all.join(", ")),
        };
        if let Some(batch) = self.memory.batches.get_mut(index) {
            batch.arns = started.iter().map(|task| task.arn.clone()).collect();
            batch.answered = true;
        }
        if !text.is_empty() {
            self.say(Level::Info, &text).await?;
        }
        for task in started {
            if !self.tasks.iter().any(|known| known.arn == task.arn) {
                self.tasks.push(task);
            }
        }
        // What runs must not be forgotten: the next life looks at these.
        self.session.announce(format!("wait for {family}"), &[], &*self.memory).await?;
        self.since = self.session.cx.clock.mono();
        Ok(unplaced)
    }

    /// Tasks that a call started, by its tag.
    pub(super) async fn found(&self, session: &Session, token: &str) -> Result<Vec<Task>, Fault> {
        let mut found = Vec::new();
        for status in ["RUNNING", "STOPPED"] {
            let input = json!({"cluster": session.cluster, "startedBy": started_by(session), "desiredStatus": status});
            let arns = session.pages(ecs("ListTasks"), input, "taskArns").await?;
            for arns in arns.chunks(DESCRIBED) {
                let input = json!({"cluster": session.cluster, "tasks": arns, "include": ["TAGS"]});
                let answer = session.read(ecs("DescribeTasks"), input).await?;
                let ours = list(&answer, &["tasks"]).iter().filter(|task| {
                    let tag = list(task, &["tags"]).iter().find(|tag| text(tag, &["key"]) == Some(CALL));
                    tag.and_then(|tag| text(tag, &["value"])) == Some(token)
                });
                found.extend(ours.map(Task::read));
            }
        }
        Ok(found)
    }

    // --- following ---

    /// Looks at the tasks that are not known to have stopped.
    async fn look(&mut self) -> Result<(), StepError> {
        match self.looked(self.session).await {
            Ok(lost) if lost.is_empty() => Ok(()),
            Ok(lost) => {
                let what = format!("ECS knows no more of task {}", lost.join(", "));
                Err(StepError::new(Class::RemoteFailed { code: 1 }, "ECS-077", what)
                    .target(self.session.target().to_owned())
                    .hint("ECS forgets stopped tasks after about an hour; look at their logs, and run the step again if they did not do their work"))
            }
            Err(Looked::Fault(fault)) => Err(self.fault(fault, "look at the tasks")),
            Err(Looked::Step(error)) => Err(error),
        }
    }

    /// The same with any session. Returns ids of tasks that ECS does not know, though it should.
    pub(super) async fn looked(&mut self, session: &Session) -> Result<Vec<String>, Looked> {
        let open: Vec<String> = self
            .tasks
            .iter()
            .filter(|task| task.last_status != "STOPPED")
            .map(|task| task.arn.clone())
            .collect();
        let mut lost = Vec::new();
        let patient =
            self.session.cx.clock.mono().saturating_duration_since(self.since) < self.session.settings.settle;
        for arns in open.chunks(DESCRIBED) {
            let input = json!({"cluster": session.cluster, "tasks": arns});
            let answer = session.read(ecs("DescribeTasks"), input).await.map_err(Looked::Fault)?;
            for task in list(&answer, &["tasks"]).iter().map(Task::read) {
                self.took(task).await.map_err(Looked::Step)?;
            }
            for failure in list(&answer, &["failures"]) {
                if !patient && let Some(arn) = text(failure, &["arn"]) {
                    lost.push(short(arn).to_owned());
                }
            }
        }
        Ok(lost)
    }

    async fn took(&mut self, now: Task) -> Result<(), StepError> {
        let Some(known) = self.tasks.iter_mut().find(|known| known.arn == now.arn) else { return Ok(()) };
        let changed = known.last_status != now.last_status;
        *known = now.clone();
        let ran = now.started.is_some() || now.containers.iter().any(|c| c.exit.is_some());
        if BEGUN.contains(&now.last_status.as_str()) && ran {
            let many = self.memory.count > 1;
            let region = self.session.aws.region();
            let said = self.tails.follow(&self.memory.definition, now.id(), region, many, &self.memory.logs);
            for line in said {
                self.say(Level::Warn, &line).await?;
            }
        }
        if changed {
            self.say(Level::Info, &line(&now)).await?;
        }
        if now.last_status == "STOPPED" {
            self.tails.stopped(now.id(), self.session.cx.clock.mono());
        }
        Ok(())
    }

    /// Writes down how far the logs were shown, now and then.
    async fn save(&mut self) -> Result<(), StepError> {
        let now = self.session.cx.clock.mono();
        let positions = self.tails.positions();
        if now.saturating_duration_since(self.saved) < SAVED || positions == self.memory.logs {
            return Ok(());
        }
        self.saved = now;
        self.memory.logs = positions;
        self.session.announce(format!("wait for {}", self.memory.name()), &[], &*self.memory).await
    }

    fn bad(&self) -> Vec<Bad> {
        self.tasks.iter().filter_map(|task| judge::bad(task, &self.essential)).collect()
    }

    /// Whether there is nothing more to wait for.
    fn is_over(&self) -> Result<bool, StepError> {
        let bad = self.bad();
        let stopped = |task: &Task| task.last_status == "STOPPED";
        let enough = match self.wish.until_stopped {
            true => self.tasks.iter().all(stopped),
            false => {
                !bad.is_empty()
                    || self.tasks.iter().all(|task| stopped(task) || task.last_status == "RUNNING")
            }
        };
        if !enough || !self.tails.complete() || (self.memory.missing() > 0 && bad.is_empty()) {
            return Ok(false);
        }
        if bad.is_empty() {
            return Ok(true);
        }
        Err(self.failed(&bad))
    }

    fn failed(&self, bad: &[Bad]) -> StepError {
        let exit = bad.iter().find_map(|bad| bad.exit);
        let mut words: Vec<&str> = bad.iter().take(NAMED).map(|bad| bad.words.as_str()).collect();
        let more = format!("{} more", bad.len().saturating_sub(NAMED));
        if bad.len() > NAMED {
            words.push(&more);
        }
        let what = format!(
            "{} of {} of {} failed: {}",
            bad.len(),
            tasks(self.memory.count),
            self.memory.name(),
            words.join("; ")
        );
        let (code, hint) = match exit {
            Some(_) => (
                "ECS-075",
                "the log of the step shows what the containers printed, where they write to CloudWatch Logs",
            ),
            None => (
                "ECS-076",
                "the reason is ECS' own; `aws ecs describe-tasks` shows the task for about an hour",
            ),
        };
        StepError::new(Class::RemoteFailed { code: exit.unwrap_or(1) }, code, what)
            .target(self.session.target().to_owned())
            .hint(hint)
    }
}

/// Why looking did not work.
pub(super) enum Looked {
    Fault(Fault),
    Step(StepError),
}

/// `1 task`, `3 tasks`.
fn tasks(count: u32) -> String {
    if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") }
}

fn in_words(reasons: &BTreeMap<String, usize>) -> String {
    let words: Vec<String> = reasons
        .iter()
        .map(|(reason, times)| if *times == 1 { reason.clone() } else { format!("{reason} × {times}") })
        .collect();
    words.join(", ")
}

/// One line for a new state of a task.
fn line(task: &Task) -> String {
    let mut line = format!("task {}: {}", task.id(), task.last_status);
    if task.last_status == "STOPPED" {
        let codes: Vec<String> = task
            .containers
            .iter()
            .map(|c| match c.exit {
                Some(exit) => format!("{} ended with {exit}", c.name),
                None => format!("{} did not run", c.name),
            })
            .collect();
        line.push_str(&format!(", {}", codes.join(", ")));
        if !task.stopped_reason.is_empty() {
            line.push_str(&format!(" ({})", task.stopped_reason));
        }
    }
    line
}
