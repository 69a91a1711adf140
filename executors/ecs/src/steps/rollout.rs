//! What steps that deploy a service share: sending the update once, and leaving autoscaling as it was.

use crate::error::bad_spec;
use crate::memory::Memory;
use crate::scaling::{self, Scaling};
use crate::service::{self, primary};
use crate::session::{Session, ecs};
use crate::steady;
use aws::Repeat;
use aws::document::text;
use executor_api::{CancelReason, Class, Level, StepError, UnitLog};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A deployment that was announced. It may have been sent before a crash without anybody hearing the answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Sent {
    /// Id of the deployment that was PRIMARY before; `None` for a service that is made.
    pub(crate) primary: Option<String>,
}

/// A step that suspends autoscaling.
pub(crate) trait Suspending: Memory {
    /// What was suspended and is not resumed yet.
    fn suspended(&self) -> Option<&Scaling>;
    /// It is resumed.
    fn resumed(&mut self);
}

/// Whether what was announced has been carried out: the service has another deployment than before, of our revision, or
/// was made by this very step.
pub(crate) fn took_effect(session: &Session, sent: &Sent, live: &Value, revision: &str) -> bool {
    let Some(now) = primary(live) else { return false };
    let ours = text(now, &["taskDefinition"]) == Some(revision);
    match &sent.primary {
        Some(before) => ours && text(now, &["id"]) != Some(before.as_str()),
        None => ours && service::is_ours(session, live),
    }
}

/// Waits until the name of a service that is being deleted is free.
///
/// **Errors**: those of [`steady::wait_inactive`]. **Cancel**, **Repeat**: safe.
pub(crate) async fn free_name(session: &Session, name: &str, log: &dyn UnitLog) -> Result<(), StepError> {
    let live = session.service(name).await?;
    if live.is_some_and(|live| text(&live, &["status"]) == Some("DRAINING")) {
        let text = format!("service {name} is DRAINING and still has the name; it is waited for");
        session.say(log, Level::Info, &text).await?;
        steady::wait_inactive(session, name, log).await?;
    }
    Ok(())
}

/// Sends an update. A forced one starts a deployment each time, so it is sent once: when the answer is lost, the service is
/// looked at.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: as `sent` says, see [`took_effect`].
pub(crate) async fn update<M: Memory>(
    session: &Session,
    name: &str,
    input: Value,
    sent: &Sent,
    memory: &M,
) -> Result<Value, StepError> {
    let call = format!("UpdateService {name}");
    let forced = input.get("forceNewDeployment") == Some(&Value::Bool(true));
    let revision = text(&input, &["taskDefinition"]).unwrap_or_default().to_owned();
    session.announce(format!("update service {name}"), &[&call], memory).await?;
    let repeat = if forced { Repeat::OnlyIfNotReached } else { Repeat::Safe };
    match session.change(&call, ecs("UpdateService"), input, repeat).await {
        Ok(answer) => Ok(answer),
        Err(fault) if fault.is_unanswered() => {
            let live = session.service(name).await.ok().flatten();
            match live.filter(|live| took_effect(session, sent, live, &revision)) {
                Some(live) => Ok(live),
                None => Err(session.fault(fault, &call)),
            }
        }
        Err(fault) => Err(session.fault(fault, &call)),
    }
}

/// Resumes autoscaling, if the step has suspended it.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn resume<M: Suspending>(
    session: &Session,
    memory: &mut M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let Some(scaling) = memory.suspended().cloned() else { return Ok(()) };
    scaling::resume(session, &scaling, memory, log).await?;
    memory.resumed();
    Ok(())
}

/// Suspends autoscaling once more in a later life of the agent: an earlier one that ended in order has resumed it.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn suspend_again<M: Suspending>(
    session: &Session,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    match memory.suspended() {
        Some(scaling) => scaling::suspend(session, scaling, memory, log).await,
        None => Ok(()),
    }
}

/// Resumes autoscaling however the step ended, also when the agent only goes away: nobody knows when the step goes on, and
/// whether. An agent that lost the task leaves everything to whoever has it now.
///
/// **Errors**: that of the step; `ECS-023` when autoscaling stays suspended. Either says what to do by hand.
pub(crate) async fn finish<T, M: Suspending>(
    session: &Session,
    result: Result<T, StepError>,
    memory: &mut M,
    log: &dyn UnitLog,
) -> Result<T, StepError> {
    let Some(scaling) = memory.suspended().cloned() else { return result };
    if session.cx.cancel.requested().is_some_and(|(reason, _)| reason == CancelReason::LeaseLost) {
        return result;
    }
    let Err(error) = resume(&session.finishing(), memory, log).await else { return result };
    let text = scaling::by_hand(session, &scaling);
    session.tell(text.clone());
    match result {
        Ok(_) => {
            let what = format!("the service was deployed, but {text} ({error})");
            Err(StepError::new(Class::RemoteFailed { code: 1 }, "ECS-023", what)
                .target(session.target().to_owned())
                .hint("run the command, then look at the bounds of the scalable target"))
        }
        Err(mut failed) => {
            failed.what = format!("{}; {text}", failed.what);
            Err(failed)
        }
    }
}

/// Somebody else has deployed since: a rollback would undo their work.
pub(crate) fn superseded(session: &Session, name: &str, live: &Value) -> StepError {
    let now = primary(live);
    let part = |member: &str| now.and_then(|now| text(now, &[member])).unwrap_or("unknown").to_owned();
    let what = format!(
        "service {name} was not rolled back: deployment {} of {} is neither of this stage nor what was there before, so somebody else has deployed since",
        part("id"),
        crate::documents::arn::short(&part("taskDefinition"))
    );
    bad_spec("ECS-024", what)
        .target(session.target().to_owned())
        .hint("look at who deployed it; when the service is to go back all the same, deploy the revision that is wanted")
}
