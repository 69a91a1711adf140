//! The calls behind the actions: manager, journal, timers of the loop.

use super::state::{Event, Mark, Offer};
use super::{Deps, Held, Message, Shell};
use crate::client::{Acquired, Fault, Features, RetryPolicy};
use crate::config::ForeignTasks;
use crate::dialect::{Answering, Dialect};
use crate::journal::Entry;
use ::dialect::capability;
use bytes::Bytes;
use executor_api::CancelReason;
use proto::events::{AbortReason, TaskEvent};
use proto::limits;
use proto::package::TaskPackage;
use std::sync::Arc;
use std::time::Duration;

/// A result waits this long for its log lines; then it goes out and the lines follow.
const LOGS_BEFORE_RESULT: Duration = Duration::from_secs(10);
/// A result is journaled at once if its lines are shipped within this; otherwise the spool is made durable first.
const LOGS_BEFORE_JOURNAL: Duration = Duration::from_millis(50);
/// How long a manager that was told of proven capabilities may still ask for them, and how often it is asked: its nodes cache
/// verdicts for up to two minutes (protocol.md §4.5).
const PROVEN_FOR: Duration = Duration::from_secs(150);
const PROVEN_PAUSE: Duration = Duration::from_secs(3);
/// First pause after a poll that brought nothing of use; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

impl<R: FnOnce(&str, &str) + Send> Shell<R> {
    /// Registers, again and again until it works; refusals are told each time.
    pub(super) fn register(&mut self) {
        let (deps, sender) = (self.deps.clone(), self.sender.clone());
        self.spawn(async move {
            let mut attempt = 0;
            loop {
                let params = deps.identity.registration(&deps.config, deps.clock.wall());
                let (policy, fault) = match deps.client.register(&params).await {
                    Ok((id, features)) => return Some(Message::Registered { id, features }),
                    Err(Fault::Refused(refusal)) => {
                        // The shell is gone only when the agent goes down.
                        let _unused = sender.send(Message::Refused(refusal)).await;
                        (RetryPolicy::FROZEN, Fault::Refused(refusal))
                    }
                    Err(fault) => (RetryPolicy::CONNECT, fault),
                };
                attempt += 1;
                let pause = policy.delay(attempt, fault.retry_after(), rand::random());
                tracing::warn!(%fault, attempt, ?pause, "could not register");
                deps.clock.sleep(pause).await;
            }
        });
    }

    pub(super) fn on_registered(&mut self, id: &str, features: Features) {
        let extended = features.extended;
        tracing::info!(id, ?features, "registered");
        if !extended && self.deps.config.foreign_task_types == ForeignTasks::None {
            tracing::warn!(
                code = "AGT-015",
                "this manager does not know our extensions and no foreign_task_types are set: no task will be taken"
            );
        }
        self.deps.pulse.acknowledged();
        self.deps.telemetry.connected(true);
        self.heartbeats_failed = 0;
        self.deps.features.send_replace(Some(features));
        self.apply(Event::Registered { extended });
        if let Some(on_ready) = self.on_ready.take() {
            on_ready(&self.deps.config.name, id);
        }
        if !self.beating {
            self.beating = true;
            self.heartbeat_later();
        }
    }

    fn heartbeat_later(&self) {
        let (clock, features) = (self.deps.clock.clone(), self.deps.features.subscribe());
        let pause = features.borrow().as_ref().map_or(limits::HEARTBEAT_INTERVAL, |known| known.heartbeat);
        self.spawn(async move {
            clock.sleep(pause).await;
            Some(Message::HeartbeatDue)
        });
    }

    pub(super) fn heartbeat(&mut self) {
        let deps = self.deps.clone();
        let id = deps.client.delegate_id();
        let params = deps.identity.heartbeat(&deps.config, deps.clock.wall(), &id, &self.state);
        self.spawn(async move {
            let outcome = deps.client.heartbeat(&params).await;
            Some(Message::HeartbeatDone(outcome.map(|reply| crate::lease::verdicts(&reply))))
        });
    }

    pub(super) fn on_heartbeat(&mut self, outcome: Result<Vec<(String, super::state::LeaseVerdict)>, Fault>) {
        match outcome {
            Ok(verdicts) => {
                self.deps.pulse.acknowledged();
                let was_away = std::mem::take(&mut self.heartbeats_failed) > 0;
                self.deps.telemetry.connected(true);
                self.apply(Event::HeartbeatAcknowledged(verdicts));
                if was_away {
                    // It may be another version by now: ask again what it offers.
                    self.register();
                }
            }
            Err(Fault::Refused(refusal)) => self.on_refused(refusal),
            Err(fault) => {
                self.heartbeats_failed = self.heartbeats_failed.saturating_add(1);
                tracing::warn!(%fault, failed = self.heartbeats_failed, "a heartbeat was not acknowledged");
                if self.heartbeats_failed >= 2 {
                    self.deps.telemetry.connected(false);
                }
            }
        }
        self.heartbeat_later();
    }

    pub(super) fn poll(&mut self, pause: bool) {
        self.pauses = if pause { self.pauses.saturating_add(1) } else { 0 };
        let deps = self.deps.clone();
        let long_poll = deps.features.borrow().as_ref().is_some_and(|features| features.long_poll);
        let wait = if !long_poll {
            limits::POLL_INTERVAL.mul_f64(0.9 + 0.2 * rand::random::<f64>())
        } else if pause {
            MIN_PAUSE.saturating_mul(1 << (self.pauses - 1).min(8)).min(MAX_PAUSE)
        } else {
            Duration::ZERO
        };
        let wake = self.wake_poll.clone();
        self.spawn(async move {
            if !wait.is_zero() {
                let woken = wake.notified();
                tokio::select! {
                    () = deps.clock.sleep(wait) => {}
                    () = woken, if long_poll => {}
                }
            }
            match deps.client.task_events(long_poll.then_some(limits::MAX_LONG_POLL)).await {
                Ok(events) => {
                    if events.unreadable > 0 {
                        tracing::debug!(events.unreadable, "task events that this agent cannot read");
                    }
                    let offers = events.delegate_task_events.into_iter().map(offer).collect();
                    Some(Message::Event(Event::Polled(offers)))
                }
                Err(fault) => {
                    tracing::debug!(%fault, "a poll failed");
                    let pause = RetryPolicy::CONNECT.delay(1, fault.retry_after(), rand::random());
                    deps.clock.sleep(pause).await;
                    // Refusals are acted on by heartbeats, which decide between stop and freeze.
                    Some(Message::Event(Event::PollFailed))
                }
            }
        });
    }

    pub(super) fn acquire(&mut self, task: String) {
        let (deps, sender) = (self.deps.clone(), self.sender.clone());
        let replayed = self.held.contains_key(&task);
        self.spawn(async move {
            // A lost reply may have assigned the task to us already; asking again gives the same package.
            let mut attempt = 0;
            let mut proven: Option<tokio::time::Instant> = None;
            loop {
                match deps.client.acquire(&task, &deps.identity.instance).await {
                    Ok(Acquired::Ours(package, body)) => {
                        return Some(Message::Acquired { task, package: Arc::new(package), body });
                    }
                    // Nothing is said against it, and its own record knows more than the question.
                    Ok(Acquired::Asked(_)) if replayed => {
                        return Some(Message::Event(Event::AcquireFailed { task }));
                    }
                    Ok(Acquired::Asked(package)) if proven.is_none() => {
                        // The shell is gone only when the agent goes down.
                        let _unused = sender.send(Message::Event(Event::Asked { task: task.clone() })).await;
                        if !deps.prove(&task, &package).await {
                            return Some(Message::Event(Event::NotOurs { task }));
                        }
                        proven = Some(deps.clock.mono());
                    }
                    // Another node of the manager may not have heard of the report yet.
                    Ok(Acquired::Asked(_)) => {
                        let since = proven.map(|at| deps.clock.mono().saturating_duration_since(at));
                        if since.unwrap_or_default() > PROVEN_FOR {
                            return Some(Message::Event(Event::NotOurs { task }));
                        }
                        deps.clock.sleep(PROVEN_PAUSE).await;
                    }
                    Ok(Acquired::NotOurs) => return Some(Message::Event(Event::NotOurs { task })),
                    Err(fault) => {
                        attempt += 1;
                        tracing::debug!(task, %fault, attempt, "a task could not be acquired");
                        if attempt >= 3 || matches!(fault, Fault::Refused(_)) {
                            return Some(Message::Event(Event::AcquireFailed { task }));
                        }
                        deps.clock
                            .sleep(RetryPolicy::CONNECT.delay(attempt, fault.retry_after(), rand::random()))
                            .await;
                    }
                }
            }
        });
    }

    pub(super) fn on_acquired(&mut self, task: String, package: Arc<TaskPackage>, body: Bytes) {
        let fence = package.fence();
        let extended = self.deps.features.borrow().as_ref().is_some_and(|known| known.extended);
        let dialect = Dialect::of(&package, extended, &self.deps.config);
        let known = self.reported.get(&task).is_some_and(|old| *old >= fence);
        if known {
            tracing::info!(task, "the manager offered a task whose result it has");
        }
        if let Some(held) = self.held.get_mut(&task) {
            // Replayed: what was done so far stays.
            if fence > held.fence {
                held.fence = fence;
                held.package = Some(package);
                held.body = body;
                held.dialect = dialect;
            }
        } else {
            let timeout = u64::try_from(package.timeout).unwrap_or(0);
            let task_type = package.task_type.clone();
            let now = self.deps.clock.wall();
            if dialect == Dialect::HarnessCd {
                self.record(now, &task, &package);
            }
            let held = Held::new(fence, task_type, now, timeout, Some(package), body, dialect);
            self.held.insert(task.clone(), held);
        }
        self.apply(Event::Acquired { task, fence, known });
    }

    pub(super) fn write_accepted(&mut self, task: String) {
        let Some(held) = self.held.get(&task) else { return };
        let entry = Entry::Accepted {
            fence: held.fence,
            at: held.accepted_at,
            task_type: held.task_type.clone(),
            timeout: held.timeout_ms,
            // The reply was decoded as JSON, so it is UTF-8.
            package: String::from_utf8_lossy(&held.body).into_owned(),
            dialect: held.dialect,
        };
        self.write(task, entry, Mark::Accepted);
    }

    /// Keeps a package of a Harness manager, if that is wanted.
    pub(super) fn record(&self, at: u64, task: &str, package: &Arc<TaskPackage>) {
        let Some(recorder) = self.deps.recorder.clone() else { return };
        let (task, package) = (task.to_owned(), package.clone());
        self.spawn(async move {
            recorder.package(at, &task, &package).await;
            None
        });
    }

    pub(super) fn write(&self, task: String, entry: Entry, mark: Mark) {
        let deps = self.deps.clone();
        self.spawn(async move {
            let ok = deps.journal.append(&task, &entry).await.is_ok();
            Some(Message::Event(Event::Written { task, mark, ok }))
        });
    }

    /// The lines of a step are safe before its end is.
    pub(super) fn write_ended(&mut self, task: String) {
        let Some(held) = self.held.get(&task) else { return };
        let Some(result) = held.result.clone() else { return };
        let (deps, logs) = (self.deps.clone(), held.logs.get().cloned());
        self.spawn(async move {
            if let Some(logs) = logs
                && !logs.shipped(LOGS_BEFORE_JOURNAL).await
            {
                logs.make_durable().await;
            }
            let entry = Entry::Ended { result: Box::new((*result).clone()) };
            let ok = deps.journal.append(&task, &entry).await.is_ok();
            Some(Message::Event(Event::Written { task, mark: Mark::Ended, ok }))
        });
    }

    /// One try to deliver a result. After a failed one the pause lies before the answer, so that the machine asks again at
    /// the right time.
    pub(super) fn report(&mut self, task: String) {
        let Some(held) = self.held.get_mut(&task) else { return };
        let Some(result) = held.result.clone() else { return };
        held.reports = held.reports.saturating_add(1);
        let (attempt, task_type, dialect) = (held.reports, held.task_type.clone(), held.dialect);
        let (package, accepted_at) = (held.package.clone(), held.accepted_at);
        let (deps, logs) = (self.deps.clone(), held.logs.get().cloned());
        self.spawn(async move {
            if let (1, Some(logs)) = (attempt, logs)
                && !logs.shipped(LOGS_BEFORE_RESULT).await
            {
                tracing::warn!(task, "the result goes out before all of its log lines; they follow");
            }
            // The id is part of the path, so the first registration comes first.
            let mut features = deps.features.subscribe();
            if features.wait_for(Option::is_some).await.is_err() {
                return None;
            }
            let about = Answering {
                account_id: &deps.config.account_id,
                delegate_id: &deps.client.delegate_id(),
                host_name: &deps.identity.host,
                task_id: &task,
                task_type: &task_type,
                package: package.as_deref(),
            };
            let answer = dialect.encode(about, &result);
            if let (Dialect::HarnessCd, 1, Some(recorder)) = (dialect, attempt, &deps.recorder) {
                let kept = dialect.encode(about, &::dialect::recorded_result(&result));
                recorder.answer(accepted_at, &task, kept.body).await;
            }
            let outcome = deps.client.respond(&task, &answer.path, answer.content_type, answer.body).await;
            if let Err(fault) = &outcome {
                let pause = RetryPolicy::REPORT.delay(attempt, fault.retry_after(), rand::random());
                tracing::warn!(task, %fault, attempt, ?pause, "a result was not acknowledged");
                deps.clock.sleep(pause).await;
            }
            Some(Message::Event(Event::Answered { task, ok: outcome.is_ok() }))
        });
    }
}

impl Deps {
    /// Proves the capabilities of a package that is not ours yet and tells the manager. `false`: the task stays with it.
    async fn prove(&self, task: &str, package: &TaskPackage) -> bool {
        let extended = self.features.borrow().as_ref().is_some_and(|known| known.extended);
        if Dialect::of(package, extended, &self.config) != Dialect::HarnessCd {
            return false;
        }
        let verdicts = self.prover.prove(task, capability::capabilities(package)).await;
        let told = self.client.capabilities(task, &self.identity.instance, &verdicts).await;
        if let Err(fault) = &told {
            tracing::warn!(task, %fault, "the manager could not be told about capabilities");
        }
        told.is_ok() && verdicts.iter().all(|verdict| verdict.holds)
    }
}

fn offer(event: TaskEvent) -> Offer {
    match event {
        TaskEvent::Task(one) => Offer::Task { task: one.delegate_task_id, task_type: one.task_type },
        TaskEvent::Abort(one) => Offer::Abort {
            task: one.delegate_task_id,
            reason: match one.reason {
                Some(AbortReason::Deadline) => CancelReason::Deadline,
                Some(AbortReason::User) | None => CancelReason::User,
            },
        },
    }
}
