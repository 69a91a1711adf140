//! The part of the step for services whose requests ECS shifts itself: gates in, the service deployment out.

use super::Rolling;
use super::decision::over;
use crate::native::{self, Following, Way};
use crate::service;
use crate::session::Session;
use crate::steady;
use executor_api::{Level, StepError, UnitLog};
use proto::task::{ContinueUntil, EcsAction, EcsSpec, NativeDeploy};
use serde_json::{Value, json};

/// What the step says about it.
pub(super) fn asked(spec: &EcsSpec) -> NativeDeploy {
    match &spec.action {
        EcsAction::EcsRollingDeploy { native, .. } => native.clone(),
        _ => NativeDeploy::default(),
    }
}

impl Following for Rolling {
    fn followed(&self) -> Option<&native::Followed> {
        self.followed.as_ref()
    }

    fn followed_mut(&mut self) -> Option<&mut native::Followed> {
        self.followed.as_mut()
    }
}

/// Tells the strategy, and puts the gates into the definition.
///
/// **Errors**: `ECS-080`; those of the account. **Repeat**: safe.
pub(super) async fn prepare(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Rolling,
    live: Option<&Value>,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let fetched = memory.fetched()?;
    let described = live.map_or_else(|| json!({}), |live| service::described(live, None));
    let mut effective = over(&described, &fetched.service);
    native::configure(&mut effective, &described, &fetched.service);
    let settled = native::settle(&fetched.service, &effective, &asked(spec), &fetched.place)?;
    let Some(settled) = settled else { return Ok(()) };
    let name = fetched.name.clone();
    let text = format!("service {name}: ECS shifts the requests itself, by strategy {}", settled.strategy);
    session.say(log, Level::Info, &text).await?;
    for warning in &settled.warnings {
        session.say(log, Level::Warn, warning).await?;
        session.tell(format!("ecs.native: service {name}: {warning}"));
    }
    memory.before = native::previous(session, &name).await?;
    memory.native = Some(settled.strategy);
    if let Some(fetched) = &mut memory.fetched {
        fetched.service = settled.document;
    }
    Ok(())
}

/// The deployment that an earlier life of the agent sent without hearing the answer.
///
/// A forced one starts anew each time that it is sent, so it is looked for as long as ECS may need to show it.
pub(super) async fn sent_before(
    session: &Session,
    memory: &mut Rolling,
    log: &dyn UnitLog,
) -> Result<Option<Value>, StepError> {
    let (Some(_), Some(_), None) = (&memory.native, &memory.sent, &memory.followed) else { return Ok(None) };
    let Some(revision) = memory.revision.clone() else { return Ok(None) };
    let Some(live) = session.service(memory.name()).await?.filter(service::is_active) else {
        return Ok(None);
    };
    let found = native::find(session, &live, &revision, memory.before.as_deref(), memory.force).await;
    let found = match found {
        Err(error) if error.code == "ECS-081" => None,
        other => other?,
    };
    memory.followed = found.map(|found| with_previous(memory, found));
    if memory.followed.is_none() {
        return Ok(None);
    }
    session.say(log, Level::Info, "the deployment that was sent before the interruption is there").await?;
    Ok(Some(live))
}

fn with_previous(memory: &Rolling, found: native::Followed) -> native::Followed {
    let previous = memory.snapshot.as_ref().map(|snapshot| snapshot.task_definition.clone());
    native::Followed { previous, ..found }
}

/// Finds the service deployment. `rolls`: the change has started one; else there may be one of this revision that is not over.
pub(super) async fn identify(session: &Session, memory: &mut Rolling, rolls: bool) -> Result<(), StepError> {
    if memory.native.is_none() || memory.followed.is_some() {
        return Ok(());
    }
    let Some(live) = session.service(memory.name()).await? else { return Ok(()) };
    let revision = memory.revision.clone().unwrap_or_default();
    let before = if rolls { memory.before.as_deref() } else { None };
    let found = native::find(session, &live, &revision, before, rolls).await?;
    let under_way = match &found {
        Some(found) if !rolls => native::under_way(session, found).await?,
        _ => true,
    };
    memory.followed = found.filter(|_| under_way).map(|found| with_previous(memory, found));
    if memory.followed.is_none()
        && let Some(target) = &mut memory.target
    {
        // The deployment that ECS names is one that is over, and says nothing of this step.
        target.service_deployment = None;
    }
    Ok(())
}

/// Waits for a gate or for the end, or for the rollout of a service that is not shifted.
pub(super) async fn wait(
    session: &Session,
    memory: &mut Rolling,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if memory.followed.is_none() {
        if let Some(target) = &memory.target {
            steady::wait(session, target, log, steady::Options::default()).await?;
        }
        return Ok(());
    }
    let way = Way::On(ContinueUntil::NextPause);
    let arrival = Box::pin(native::follow(session, memory, way, log)).await?;
    if arrival.pause.is_some() {
        let text = "the step ends here: the next steps judge, and EcsContinueDeployment goes on";
        session.say(log, Level::Info, text).await?;
    }
    memory.paused = arrival.pause;
    Ok(())
}
