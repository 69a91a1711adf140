//! The calls behind the actions: manager, journal, timers of the loop.

use super::state::{Event, Mark, Offer};
use super::{Message, Shell};
use crate::client::{Fault, Features, RetryPolicy};
use crate::dialect::{Dialect, Json};
use crate::journal::Entry;
use executor_api::CancelReason;
use proto::events::{AbortReason, TaskEvent};
use proto::limits;
use std::time::Duration;

/// A result waits this long for its log lines; then it goes out and the lines follow.
const LOGS_BEFORE_RESULT: Duration = Duration::from_secs(10);
/// A result is journaled at once if its lines are shipped within this; otherwise the spool is made durable first.
const LOGS_BEFORE_JOURNAL: Duration = Duration::from_millis(50);
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
        if !extended && self.deps.config.foreign_task_types.is_empty() {
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
        let deps = self.deps.clone();
        self.spawn(async move {
            // A lost reply may have assigned the task to us already; asking again gives the same package.
            let mut attempt = 0;
            loop {
                match deps.client.acquire(&task, &deps.identity.instance).await {
                    Ok(Some((package, body))) => {
                        return Some(Message::Acquired { task, package: std::sync::Arc::new(package), body });
                    }
                    Ok(None) => return Some(Message::Event(Event::NotOurs { task })),
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

    pub(super) fn write_accepted(&mut self, task: String) {
        let Some(held) = self.held.get(&task) else { return };
        let entry = Entry::Accepted {
            fence: held.fence,
            at: held.accepted_at,
            task_type: held.task_type.clone(),
            timeout: held.timeout_ms,
            // The reply was decoded as JSON, so it is UTF-8.
            package: String::from_utf8_lossy(&held.body).into_owned(),
        };
        self.write(task, entry, Mark::Accepted);
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
        let (attempt, task_type) = (held.reports, held.task_type.clone());
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
            let answer = Json.encode(&task, &deps.client.delegate_id(), &task_type, &result);
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
