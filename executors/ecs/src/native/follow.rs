//! Follows a service deployment to a gate or to its end, and answers gates on the way.

use super::ending::{self, End, taken_over};
use super::judge::{Pause, Verdict, verdict};
use super::looks::look;
use super::view::View;
use crate::documents::arn::short;
use crate::memory::Memory;
use crate::service;
use crate::session::{Session, ecs};
use aws::document::text;
use aws::{Fault, Repeat};
use executor_api::{Class, Level, StepError, UnitLog};
use proto::task::ContinueUntil;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

/// A service deployment. Stands in a step's memory and in its undo data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Followed {
    /// Name of the service.
    pub(crate) service: String,
    /// Its ARN.
    pub(crate) arn: String,
    /// ARN of the service revision that it deploys.
    pub(crate) revision: String,
    /// ARN of that revision's task definition.
    pub(crate) task_definition: String,
    /// `BLUE_GREEN`, `LINEAR`, `CANARY`.
    pub(crate) strategy: String,
    /// ARN of the task definition that ran before.
    pub(crate) previous: Option<String>,
    /// The gate that was answered last, or was about to be.
    pub(crate) answered: Option<Pause>,
}

/// The memory of a step that follows a service deployment.
pub(crate) trait Following: Memory + Send + Sync {
    /// Which; `None` until it is known.
    fn followed(&self) -> Option<&Followed>;
    /// The same, to note what was answered.
    fn followed_mut(&mut self) -> Option<&mut Followed>;
}

/// Where it is followed to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// Forward.
    On(ContinueUntil),
    /// To the end of its rollback.
    Back,
}

/// Where it has come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    /// The gate at which it waits; `None`: it is over.
    pub(crate) pause: Option<Pause>,
    /// Whether it ended with the new revision.
    pub(crate) succeeded: bool,
}

/// Whether a step that goes `until` ends at this gate.
fn ends_at(until: ContinueUntil, pause: &Pause) -> bool {
    match until {
        ContinueUntil::NextPause => true,
        ContinueUntil::Weight { percent } => pause.weight >= f64::from(percent),
        ContinueUntil::End => false,
    }
}

/// The error of a memory without a deployment where there must be one.
pub(super) fn lost() -> StepError {
    StepError::new(Class::Bug, "ECS-004", "the step has lost its service deployment")
}

/// What runs and what was said.
struct Walk<'a> {
    session: &'a Session,
    log: &'a dyn UnitLog,
    started: Instant,
    /// So long an answer that does not show what we did is taken for late.
    fresh_until: Instant,
    heartbeat: Instant,
    said: String,
    trouble: String,
    view: Option<View>,
}

/// Follows it. Progress is written to `log` whenever it changes; a gate at which it ends is told beside it.
///
/// **Errors**: `ECS-082` rolled back, `ECS-083` the rollback failed, `ECS-084` stopped, `ECS-085` superseded, `ECS-036` the
/// service is gone, `ECS-081` the deployment is, `ECS-086` on cancel, which changes nothing; those of the account. **Repeat**: safe
/// with the memory of before: a gate is answered once.
pub(crate) async fn follow<M: Following>(
    session: &Session,
    memory: &mut M,
    way: Way,
    log: &dyn UnitLog,
) -> Result<Arrival, StepError> {
    let now = session.cx.clock.mono();
    let mut walk = Walk {
        session,
        log,
        started: now,
        fresh_until: now + session.settings.settle,
        heartbeat: now + session.settings.heartbeat,
        said: String::new(),
        trouble: String::new(),
        view: None,
    };
    let _seat = session.looks.sit();
    let followed = memory.followed().ok_or_else(lost)?;
    let line = format!(
        "service {}: following deployment {} of {} ({})",
        followed.service,
        short(&followed.arn),
        short(&followed.task_definition),
        followed.strategy
    );
    session.say(log, Level::Info, &line).await?;
    loop {
        let followed = memory.followed().ok_or_else(lost)?.clone();
        if let Some(view) = walk.look(&followed).await? {
            let fresh = session.cx.clock.mono() < walk.fresh_until;
            match (verdict(&view, followed.answered.as_ref(), fresh), way) {
                (Verdict::Going, _) | (Verdict::Paused(_), Way::Back) => {}
                (Verdict::Paused(pause), Way::On(until)) => {
                    let text = format!("a gate: {}; {}", pause.in_words(), pause.otherwise());
                    session.say(log, Level::Info, &text).await?;
                    // A gate that still waits although it was answered is no other gate.
                    let again = followed.answered.as_ref().is_some_and(|answered| answered.is(&pause));
                    if ends_at(until, &pause) && !again {
                        session.tell(format!(
                            "ecs.native.gate: service {} waits at {}; {}",
                            followed.service,
                            pause.in_words(),
                            pause.otherwise()
                        ));
                        return Ok(Arrival { pause: Some(pause), succeeded: false });
                    }
                    answer(session, memory, &pause, "CONTINUE", log).await?;
                    walk.fresh_until = session.cx.clock.mono() + session.settings.settle;
                    continue;
                }
                (Verdict::Succeeded, Way::On(_)) => {
                    walk.serves(&followed, &view).await?;
                    return Ok(Arrival { pause: None, succeeded: true });
                }
                (Verdict::Succeeded, Way::Back) => return Ok(Arrival { pause: None, succeeded: true }),
                (Verdict::RolledBack, Way::Back) => return Ok(Arrival { pause: None, succeeded: false }),
                (Verdict::RolledBack, Way::On(_)) => {
                    return Err(walk.fail(&followed, &view, End::RolledBack).await);
                }
                (Verdict::RollbackFailed, _) => {
                    return Err(walk.fail(&followed, &view, End::RollbackFailed).await);
                }
                (Verdict::Stopped, _) => {
                    let live = session.service(&followed.service).await?;
                    let by = live.as_ref().and_then(|live| {
                        let other = text(live, &["currentServiceDeployment"])?;
                        (!other.is_empty() && other != followed.arn)
                            .then(|| taken_over(&followed, live))
                            .flatten()
                    });
                    let end = by.map_or(End::Stopped, |by| End::Superseded { by });
                    return Err(walk.fail(&followed, &view, end).await);
                }
            }
        }
        walk.pause(&followed).await?;
    }
}

impl Walk<'_> {
    /// One look; `None` when it showed nothing.
    async fn look(&mut self, followed: &Followed) -> Result<Option<View>, StepError> {
        let session = self.session;
        let found = match look(session, &followed.arn).await {
            Ok(found) => found,
            Err(Fault::Cancelled(reason)) => {
                return Err(ending::cancelled(followed, self.view.as_ref(), reason));
            }
            Err(fault) if fault.may_pass() => {
                let text = format!("ECS cannot be asked about the deployment: {fault}; it is asked again");
                if self.trouble != text {
                    session.say(self.log, Level::Warn, &text).await?;
                    self.trouble = text;
                }
                return Ok(None);
            }
            Err(fault) => return Err(session.fault(fault, "look at the service deployment")),
        };
        let Some(view) = found else {
            if session.cx.clock.mono() < self.fresh_until {
                return Ok(None);
            }
            let what = format!(
                "service {}: ECS does not know the service deployment {} any more",
                followed.service, followed.arn
            );
            return Err(StepError::new(Class::RemoteFailed { code: 1 }, "ECS-081", what)
                .target(session.target().to_owned())
                .hint(
                    "look at the service's deployments and events: it may have been deleted and made anew",
                ));
        };
        self.trouble.clear();
        let words = view.in_words();
        if words != self.said {
            let level = if view.status.goes_on() || view.status == super::view::Status::Successful {
                Level::Info
            } else {
                Level::Warn
            };
            session.say(self.log, level, &words).await?;
            self.said = words;
        }
        self.view = Some(view.clone());
        Ok(Some(view))
    }

    /// Waits until the next look is due.
    async fn pause(&mut self, followed: &Followed) -> Result<(), StepError> {
        let session = self.session;
        let (clock, settings) = (&session.cx.clock, &session.settings);
        let now = clock.mono();
        if now >= self.heartbeat {
            self.heartbeat = now + settings.heartbeat;
            let text = format!(
                "still waiting after {} s: {}",
                now.saturating_duration_since(self.started).as_secs(),
                self.said
            );
            session.say(self.log, Level::Info, &text).await?;
        }
        let due = session.looks.due(now, self.started, settings.poll, settings.slow_poll);
        tokio::select! {
            biased;
            (reason, _) = session.cx.cancel.wait() => Err(ending::cancelled(followed, self.view.as_ref(), reason)),
            () = clock.sleep_until(due) => Ok(()),
        }
    }

    async fn fail(&self, followed: &Followed, view: &View, end: End) -> StepError {
        ending::failed(self.session, followed, view, end, self.log).await
    }

    /// What ECS calls a success must also be what the service runs (facts A14.4).
    async fn serves(&mut self, followed: &Followed, view: &View) -> Result<(), StepError> {
        let until = self.session.cx.clock.mono() + self.session.settings.settle;
        loop {
            let live = self.session.service(&followed.service).await?;
            let end = match &live {
                Some(live) if service::is_active(live) => match taken_over(followed, live) {
                    None => return Ok(()),
                    Some(by) => End::Superseded { by },
                },
                Some(live) => End::Gone { status: text(live, &["status"]).unwrap_or_default().to_owned() },
                None => End::Gone { status: "MISSING".to_owned() },
            };
            if self.session.cx.clock.mono() >= until {
                return Err(self.fail(followed, view, end).await);
            }
            self.pause(followed).await?;
        }
    }
}

/// Answers every hook of a gate with `CONTINUE` or `ROLLBACK`.
///
/// **Errors**: `ECS-087`: ECS does not take the answer; `ECS-002`. **Repeat**: a hook that waits no more has its answer.
pub(crate) async fn answer<M: Following>(
    session: &Session,
    memory: &mut M,
    pause: &Pause,
    action: &str,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let followed = memory.followed_mut().ok_or_else(lost)?;
    followed.answered = Some(pause.clone());
    let (arn, name) = (followed.arn.clone(), followed.service.clone());
    let call = |hook: &str| format!("ContinueServiceDeployment {name} {hook}");
    let calls: Vec<String> = pause.hooks.iter().map(|hook| call(hook)).collect();
    let listed: Vec<&str> = calls.iter().map(String::as_str).collect();
    let doing = if action == "CONTINUE" { "continue" } else { "roll back" };
    session
        .announce(format!("{doing} the deployment of service {name} at its gate"), &listed, memory)
        .await?;
    for (hook, call) in pause.hooks.iter().zip(&calls) {
        let input = json!({"serviceDeploymentArn": arn, "hookId": hook, "action": action});
        let answer = session.change(call, ecs("ContinueServiceDeployment"), input, Repeat::Safe).await;
        let Err(fault) = answer else { continue };
        let waits = look(session, &arn).await.ok().flatten().and_then(|view| Pause::of(&view));
        // The answer of an earlier try, of another hook of this gate, or of somebody else has arrived.
        if waits.is_some_and(|now| now.hooks.contains(hook) && now.is(pause)) {
            return Err(refused(session, fault, &name, &format!("{doing} it at its gate")));
        }
    }
    let text = match action {
        "CONTINUE" => format!("continued at {}", pause.in_words()),
        _ => format!("refused at {}: ECS is told to roll back", pause.in_words()),
    };
    session.say(log, Level::Info, &text).await
}

/// ECS refuses to be told how a deployment goes on.
pub(super) fn refused(session: &Session, fault: Fault, service: &str, what: &str) -> StepError {
    let conflict = [
        "InvalidParameterException",
        "ConflictException",
        "ClientException",
        "ServiceDeploymentNotFoundException",
    ];
    if !conflict.iter().any(|name| fault.is(name)) {
        return session.fault(fault, what);
    }
    let text = format!("service {service}: ECS does not let the step {what}: {fault}");
    StepError::new(Class::RemoteFailed { code: 1 }, "ECS-087", text)
        .target(session.target().to_owned())
        .hint("look at the service deployment: somebody else may have answered it; when it still waits, its hook's timeout decides")
}
