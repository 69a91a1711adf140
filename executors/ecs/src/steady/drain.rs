//! Waiting for tasks to go, and for a deleted service to be gone.

use super::poller::{Sight, Subscription};
use super::tasks::Task;
use super::told::span;
use super::view::Service;
use super::{ending, instances};
use crate::session::Session;
use executor_api::{Class, Level, StepError, UnitLog};
use std::collections::BTreeSet;
use std::time::Duration;

/// Pause between two looks at tasks that are on their way out.
const LOOK: Duration = Duration::from_secs(3);

/// One wait on a service.
struct Wait<'a> {
    session: &'a Session,
    service: &'a str,
    log: &'a dyn UnitLog,
    seat: Subscription,
    said: String,
    trouble: bool,
    state: String,
}

/// What a look brought.
enum Seen {
    Service(Option<Service>),
    /// Nothing came until the moment that was given.
    Time,
}

impl<'a> Wait<'a> {
    fn new(session: &'a Session, service: &'a str, log: &'a dyn UnitLog) -> Wait<'a> {
        let seat = session.watch(service);
        Wait { session, service, log, seat, said: String::new(), trouble: false, state: String::new() }
    }

    /// The next look that shows something, at the latest at `until`; with a heartbeat in between.
    ///
    /// **Errors**: `ECS-037` on cancel; those of the account.
    async fn next(&mut self, until: Option<tokio::time::Instant>) -> Result<Seen, StepError> {
        let clock = self.session.cx.clock.clone();
        let mut heartbeat = clock.mono() + self.session.settings.heartbeat;
        loop {
            let wake = until.map_or(heartbeat, |until| until.min(heartbeat));
            let look = tokio::select! {
                biased;
                (reason, _) = self.session.cx.cancel.wait() => {
                    return Err(ending::cancelled(self.service, reason, &self.state, ""));
                }
                () = clock.sleep_until(wake) => None,
                look = self.seat.look() => Some(look),
            };
            match look.map(|look| look.sight) {
                None if until.is_some_and(|until| clock.mono() >= until) => return Ok(Seen::Time),
                None => {
                    heartbeat += self.session.settings.heartbeat;
                    let text =
                        format!("still waiting ({} left): {}", span(self.session.cx.time_left()), self.state);
                    self.session.say(self.log, Level::Info, &text).await?;
                }
                Some(Sight::Troubled(what)) if !self.trouble => {
                    self.trouble = true;
                    let text = format!("ECS cannot be asked about the service: {what}; it is asked again");
                    self.session.say(self.log, Level::Warn, &text).await?;
                }
                Some(Sight::Troubled(_)) => {}
                Some(Sight::Found(service)) => return Ok(Seen::Service(Some(Service::clone(&service)))),
                Some(Sight::Missing) => return Ok(Seen::Service(None)),
                Some(Sight::Refused) => {
                    let found = self.session.service(self.service).await?;
                    return Ok(Seen::Service(found.map(|value| Service::read(&value))));
                }
            }
        }
    }

    /// Says how far it is, once.
    async fn say(&mut self, state: String) -> Result<(), StepError> {
        self.state = state;
        if self.said != self.state {
            self.said.clone_from(&self.state);
            self.session.say(self.log, Level::Info, &self.state).await?;
        }
        Ok(())
    }
}

/// Waits until a service that was deleted is INACTIVE or gone, so that its name is free.
///
/// **Errors**: `ECS-039`: it is ACTIVE and stays so, so nobody deletes it; `ECS-037` on cancel; those of the account.
/// **Cancel**: ends at once, changes nothing. **Repeat**: safe.
pub(crate) async fn wait_inactive(
    session: &Session,
    service: &str,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let begun = session.cx.clock.mono();
    let mut wait = Wait::new(session, service, log);
    loop {
        let Seen::Service(found) = wait.next(None).await? else { continue };
        match found {
            None => return wait.say(format!("service {service} is gone")).await,
            Some(found) if found.status == "INACTIVE" => {
                return wait.say(format!("service {service} is INACTIVE")).await;
            }
            // The answer may be from before the deletion.
            Some(found) if found.status == "ACTIVE" => {
                if session.cx.clock.mono() >= begun + session.settings.settle {
                    let what = format!(
                        "service {service} is ACTIVE and not being deleted, with {} tasks running",
                        found.running
                    );
                    return Err(StepError::new(Class::RemoteFailed { code: 1 }, "ECS-039", what)
                        .target(session.target().to_owned())
                        .hint("somebody made it anew, or the deletion was undone; look at who else works on it, then run the step again"));
                }
                wait.say(format!("service {service} is still ACTIVE")).await?;
            }
            Some(found) => {
                wait.say(format!("service {service} is {}, {} tasks still run", found.status, found.running))
                    .await?;
            }
        }
    }
}

/// Waits until no task of a service that was scaled to nothing is left, those that finish their requests among them, at
/// most for `limit`. Returns whether they have gone.
///
/// **Errors**: `ECS-040`: somebody set another count meanwhile; `ECS-037` on cancel; those of the account. **Cancel**: ends at
/// once, changes nothing. **Repeat**: safe.
pub(crate) async fn drain(
    session: &Session,
    service: &str,
    log: &dyn UnitLog,
    limit: Duration,
) -> Result<bool, StepError> {
    let clock = session.cx.clock.clone();
    let begun = clock.mono();
    let until = begun + limit;
    let mut wait = Wait::new(session, service, log);
    let mut seen_none_wanted = false;
    loop {
        let found = match wait.next(Some(until)).await? {
            Seen::Time => {
                let text = format!("{}; after {} they are left to AWS", wait.state, span(limit));
                session.say(log, Level::Warn, &text).await?;
                return Ok(false);
            }
            Seen::Service(None) => return Ok(true),
            Seen::Service(Some(found)) => found,
        };
        if found.status == "INACTIVE" {
            return Ok(true);
        }
        seen_none_wanted |= found.desired == 0;
        if found.desired > 0 {
            if seen_none_wanted || clock.mono() >= begun + session.settings.settle {
                let what = format!(
                    "service {service} was scaled to nothing, and somebody set its desired count to {} again",
                    found.desired
                );
                return Err(StepError::new(Class::RemoteFailed { code: 1 }, "ECS-040", what)
                    .target(session.target().to_owned())
                    .hint("an autoscaler with a minimum, or a person: end that, then run the step again"));
            }
            continue;
        }
        if found.running + found.pending > 0 {
            wait.say(format!(
                "{} tasks of service {service} still run, {} are pending",
                found.running, found.pending
            ))
            .await?;
            continue;
        }
        break;
    }
    // ECS counts a task as running no longer when it is told to stop; its last requests may still be answered.
    let mut stopped = BTreeSet::new();
    while clock.mono() < until {
        let left = leaving(session, service, &mut stopped).await?;
        if left == 0 {
            wait.say(format!("no task of service {service} is left")).await?;
            return Ok(true);
        }
        wait.say(format!("{left} tasks of service {service} finish their last requests")).await?;
        tokio::select! {
            biased;
            (reason, _) = session.cx.cancel.wait() => return Err(ending::cancelled(service, reason, &wait.state, "")),
            () = clock.sleep(LOOK) => {}
        }
    }
    let text = format!("{}; after {} they are left to AWS", wait.state, span(limit));
    session.say(log, Level::Warn, &text).await?;
    Ok(false)
}

/// Tasks that are to stop and have not; those that have are remembered in `stopped`.
async fn leaving(
    session: &Session,
    service: &str,
    stopped: &mut BTreeSet<String>,
) -> Result<usize, StepError> {
    let read = async {
        let mut arns = instances::arns(session, service, "STOPPED").await?;
        arns.retain(|arn| !stopped.contains(arn));
        instances::described(session, &arns).await
    };
    let tasks =
        read.await.map_err(|fault| session.fault(fault, &format!("list the tasks of service {service}")))?;
    let (gone, left): (Vec<Task>, Vec<Task>) =
        tasks.iter().map(Task::read).partition(|task| task.last_status == "STOPPED");
    stopped.extend(gone.into_iter().map(|task| task.arn));
    Ok(left.len())
}
