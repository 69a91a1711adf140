//! `EcsContinueDeployment`: opens the gate at which ECS' own deployment of this stage waits, and follows it further (facts A14).

use super::fetched::Fetched;
use super::planned::{outputs, planned};
use super::rollout::{self, Suspending};
use super::routes::wrong_step;
use crate::EcsExecutor;
use crate::documents::Reader;
use crate::documents::arn::short;
use crate::error::bad_spec;
use crate::memory::{Memory, Undo, recall};
use crate::native::{self, Arrival, Followed, Following, Pause, View, Way};
use crate::scaling::{self, Scaling};
use crate::session::Session;
use crate::steady;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{ContinueUntil, EcsAction, EcsSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const UNIT: &str = "Continue Deployment";

/// What the step remembers. It leaves nothing to undo: what it continues is undone by the step that began it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Continuing {
    followed: Followed,
    /// The first look was taken.
    begun: bool,
    /// The gate that it found then.
    from: Option<Pause>,
    scaling: Option<Box<Scaling>>,
    suspended: bool,
    /// Where it came to.
    arrived: bool,
    paused: Option<Pause>,
}

impl Memory for Continuing {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

impl Following for Continuing {
    fn followed(&self) -> Option<&Followed> {
        Some(&self.followed)
    }

    fn followed_mut(&mut self) -> Option<&mut Followed> {
        Some(&mut self.followed)
    }
}

impl Suspending for Continuing {
    fn suspended(&self) -> Option<&Scaling> {
        self.scaling.as_deref().filter(|_| self.suspended)
    }

    fn resumed(&mut self) {
        self.suspended = false;
    }
}

fn until(spec: &EcsSpec) -> Result<ContinueUntil, StepError> {
    match spec.action {
        EcsAction::EcsContinueDeployment { until } => Ok(until),
        _ => Err(wrong_step(spec)),
    }
}

/// The newest service deployment that a step of this stage began.
///
/// **Errors**: `ECS-088`; `ECS-004`.
fn begun(spec: &EcsSpec) -> Result<Followed, StepError> {
    let mut others = false;
    for earlier in spec.earlier.undo.iter().rev().filter(|earlier| !earlier.data.is_null()) {
        if let Undo::Service { deployed: Some(deployed), .. } = Undo::read(&earlier.data)? {
            match deployed.native {
                Some(native) => return Ok(*native),
                None => others = true,
            }
        }
    }
    let what = match others {
        true => {
            "ECS did not shift the requests of this stage's deployment itself: there is nothing to continue"
        }
        false => "no step of this stage has begun a deployment: there is nothing to continue",
    };
    Err(bad_spec("ECS-088", what)
        .hint("give the service a strategy (BLUE_GREEN, LINEAR, CANARY), and EcsRollingDeploy `gates`"))
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let until = until(spec)?;
    let mut memory = match recall(cx)? {
        Some(memory) => memory,
        None => Continuing { followed: begun(spec)?, ..Continuing::default() },
    };
    let unit = Unit::begin(cx, UNIT).await?;
    let log = unit.log();
    let work = async {
        let reader = Reader { executor, spec, cx, log };
        let wanted = Fetched::of_scaling(&reader).await?.scaling()?;
        let session = Session::open(executor, spec, cx, log).await?;
        let result = Box::pin(go_on(&session, until, &mut memory, log)).await;
        rollout::finish(&session, result, &mut memory, log).await?;
        let name = memory.followed.service.clone();
        if memory.paused.is_none() && !wanted.is_empty() {
            let live = scaling::read(&session, &name, log).await?;
            scaling::apply(&session, &live, &wanted, &memory, log).await?;
        }
        let instances = steady::instances(&session, &name).await?;
        Ok((name, instances))
    };
    let result = work.await;
    let (name, instances) = unit.end(result).await?;
    let mut all = vec![("serviceName", Value::from(name)), ("instances", instances.into())];
    all.extend(native::outputs(&memory.followed, memory.paused.as_ref()));
    Ok(StepOutput { outputs: outputs(all), ..StepOutput::default() })
}

async fn go_on(
    session: &Session,
    until: ContinueUntil,
    memory: &mut Continuing,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if !memory.arrived {
        let arrival = walk(session, until, memory, log).await?;
        memory.arrived = true;
        memory.paused = arrival.pause;
    }
    rollout::resume(session, memory, log).await
}

async fn walk(
    session: &Session,
    until: ContinueUntil,
    memory: &mut Continuing,
    log: &dyn UnitLog,
) -> Result<Arrival, StepError> {
    let now = look(session, memory).await?;
    let pause = now.as_ref().and_then(Pause::of);
    if !memory.begun {
        memory.begun = true;
        memory.from.clone_from(&pause);
        if pause.is_none() {
            let words = now.as_ref().map_or_else(|| "ECS does not show it".to_owned(), View::in_words);
            session.say(log, Level::Warn, &format!("the deployment waits at no gate: {words}")).await?;
        }
        memory.scaling = Some(Box::new(scaling::read(session, &memory.followed.service, log).await?));
    }
    let scaling = memory.scaling.as_deref().cloned().unwrap_or_default();
    // What was resumed when the agent went away is suspended again.
    rollout::suspend_again(session, memory, log).await?;
    if !memory.suspended && scaling.can_be_suspended() && now.is_some_and(|now| !now.status.is_final()) {
        memory.suspended = true;
        scaling::suspend(session, &scaling, memory, log).await?;
    }
    // Up to a weight or to the end, whoever follows opens the gates that are on the way.
    let here = pause.filter(|pause| memory.from.as_ref().is_some_and(|from| from.is(pause)));
    if let Some(pause) = here.filter(|_| until == ContinueUntil::NextPause) {
        native::answer(session, memory, &pause, "CONTINUE", log).await?;
    }
    native::follow(session, memory, Way::On(until), log).await
}

async fn look(session: &Session, memory: &Continuing) -> Result<Option<View>, StepError> {
    let view = native::look(session, &memory.followed.arn).await;
    view.map_err(|fault| session.fault(fault, "look at the service deployment"))
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let until = until(spec)?;
    let log = cx.logs.unit(UNIT);
    let followed = begun(spec)?;
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let memory = Continuing { followed: followed.clone(), ..Continuing::default() };
    let view = look(&session, &memory).await?;
    let what = format!("deployment of {} to service {}", short(&followed.task_definition), followed.service);
    let line = match view.as_ref().map(|view| (view, Pause::of(view))) {
        Some((_, Some(pause))) => {
            let to = match until {
                ContinueUntil::NextPause => "to its next gate".to_owned(),
                ContinueUntil::Weight { percent } => format!("to {percent} % of production requests"),
                ContinueUntil::End => "to its end".to_owned(),
            };
            format!("continue the {what} {to}; it waits at {}", pause.in_words())
        }
        Some((view, None)) if !view.status.is_final() => format!("follow the {what}: {}", view.in_words()),
        _ => return Ok(planned(&[])),
    };
    Ok(planned(&[line]))
}
