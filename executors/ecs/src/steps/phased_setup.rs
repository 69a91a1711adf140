//! `EcsServiceSetup`: the next service `<name>__<n>`, without tasks (facts A10). Older ones without tasks go, but for those that
//! are kept for rollbacks and those of other pipelines.

use super::canary_delete::delete;
use super::fetched::Fetched;
use super::phases::{self, Fate, Numbered, Old, PIPELINE, Phased};
use super::planned::{outputs, planned};
use super::size;
use crate::EcsExecutor;
use crate::documents::{Reader, reveal};
use crate::error::bad_spec;
use crate::memory::{Memory, Undo, recall};
use crate::scaling;
use crate::service::{self, Call};
use crate::session::{Session, ecs};
use crate::steady::{self, Options, Target};
use crate::task_definition::{self, Wanted};
use aws::Repeat;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec, ResizeStrategy};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FETCH: &str = "Fetch Manifests";
const PREPARE: &str = "Prepare Rollback Data";
const SETUP: &str = "Service Setup";

/// Everything that is decided once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Setup {
    fetched: Fetched,
    /// What was found and is to be made.
    phased: Option<Phased>,
    /// From here on there may be a new service of ours.
    ours: bool,
    /// What is waited for, once the service was made.
    target: Option<Target>,
}

impl Memory for Setup {
    fn undo(&self) -> Option<Undo> {
        let phased = self.phased.clone().filter(|_| self.ours)?;
        Some(Undo::Phased { phased: Box::new(phased) })
    }
}

fn asked(spec: &EcsSpec) -> Result<(ResizeStrategy, bool), StepError> {
    match &spec.action {
        EcsAction::EcsServiceSetup { resize_strategy, same_as_already_running_instances } => {
            Ok((*resize_strategy, *same_as_already_running_instances))
        }
        other => Err(bad_spec("ECS-008", format!("{} sets no service up", other.kind()))),
    }
}

/// What there is, and what is to come of it.
async fn prepare(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Setup,
    log: &dyn UnitLog,
) -> Result<Vec<Numbered>, StepError> {
    let (resize, same) = asked(spec)?;
    let name = memory.fetched.name.clone();
    let found = phases::found(session, &name).await?;
    if memory.phased.is_some() {
        return Ok(found);
    }
    let old = old(session, &name, &found, log).await?;
    let new_count = match &old {
        Some(old) if same => old.count,
        _ => memory.fetched.count().unwrap_or(1),
    };
    let new = phases::name_of(&name, phases::next(&found));
    memory.phased = Some(Phased { new, new_count, old, resize, ..Phased::default() });
    Ok(found)
}

/// The service that serves, with everything that brings it back.
///
/// **Errors**: it is not deployed by ECS itself; those of the account. **Repeat**: safe.
pub(crate) async fn old(
    session: &Session,
    name: &str,
    found: &[Numbered],
    log: &dyn UnitLog,
) -> Result<Option<Old>, StepError> {
    let Some(current) = phases::current(found) else {
        let text = format!("no service {name}__n has tasks: this is the first");
        session.say(log, Level::Info, &text).await?;
        return Ok(None);
    };
    service::check::controlled_by_ecs(current.name(), &current.live)?;
    let old = Old {
        name: current.name().to_owned(),
        count: service::desired(&current.live),
        snapshot: service::snapshot(session, &current.live, log).await?,
        scaling: scaling::read(session, current.name(), log).await?,
    };
    session.say(log, Level::Info, &format!("{} serves with {} tasks", old.name, old.count)).await?;
    Ok(Some(old))
}

fn phased(memory: &Setup) -> Phased {
    memory.phased.clone().unwrap_or_default()
}

async fn definition(session: &Session, memory: &Setup) -> Result<(Value, Wanted), StepError> {
    let document = reveal(&memory.fetched.service, session.cx.secrets.as_ref())?;
    let source = &memory.fetched.definition;
    let artifact = session.cx.task.artifact.clone();
    let wanted = task_definition::wanted(session, source, &[], artifact.as_ref()).await?;
    wanted.fits_fargate(service::check::on_fargate(&document), &source.place)?;
    service::check::consistent(&document, &wanted.document, &memory.fetched.place)?;
    Ok((document, wanted))
}

async fn set_up(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Setup,
    found: &[Numbered],
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let state = phased(memory);
    if memory.target.is_none() {
        let (document, wanted) = definition(session, memory).await?;
        for line in wanted.lines() {
            session.say(log, Level::Info, &line).await?;
        }
        session.go_on("nothing was changed")?;
        let settled = task_definition::settle(session, &wanted, memory, log).await?;
        clean(session, memory, found, log).await?;
        session.go_on(&format!("service {} was not made yet", state.new))?;
        let call = Call {
            cluster: &session.cluster,
            service: &state.new,
            task_definition: &settled.arn,
            count: Some(0),
            force: false,
        };
        let mut tags = service::own_tags(session, spec);
        tags.push((PIPELINE.to_owned(), session.cx.task.execution.pipeline.clone()));
        let token = session.token(&format!("create {}", state.new), 32);
        let input = service::create_input(&document, call, &token, &tags);
        memory.ours = true;
        let call = format!("CreateService {}", state.new);
        session.announce(format!("create service {}", state.new), &[&call], memory).await?;
        let answer = session.change(&call, ecs("CreateService"), input, Repeat::Safe).await;
        let answer =
            answer.map_err(|fault| session.fault(fault, &format!("create service {}", state.new)))?;
        session.say(log, Level::Info, &format!("service {} is made without tasks", state.new)).await?;
        memory.target = Some(steady::target_of(&answer));
    }
    let target = memory.target.clone().unwrap_or_default();
    session.announce(format!("wait for service {}", state.new), &[], memory).await?;
    steady::wait(session, &target, log, Options { drain: None, ..Options::default() }).await?;
    Ok(())
}

/// Services that do not serve shrink or go.
async fn clean(
    session: &Session,
    memory: &Setup,
    found: &[Numbered],
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let state = phased(memory);
    let current = found.iter().find(|one| state.old.as_ref().is_some_and(|old| old.name == one.name()));
    // What an earlier life of this step made is no older service.
    let found: Vec<Numbered> = found.iter().filter(|one| one.name() != state.new).cloned().collect();
    let pipeline = &session.cx.task.execution.pipeline;
    let kept = session.settings.kept_revisions;
    for (one, fate) in phases::fates(&found, current.map(|current| current.number), kept, pipeline) {
        session.go_on(&format!("service {} was not made yet", state.new))?;
        let name = one.name();
        match fate {
            Fate::Keep => {
                let text = format!("service {name} has no tasks and is kept for a rollback");
                session.say(log, Level::Info, &text).await?;
            }
            Fate::Foreign => {
                let owner = service::tag(&one.live, PIPELINE).unwrap_or_default();
                let text = format!("service {name} is of pipeline {owner} and is left alone");
                session.say(log, Level::Warn, &text).await?;
            }
            Fate::Shrink => {
                let text = format!(
                    "service {name} does not serve and still has {} tasks: they end",
                    service::running(&one.live)
                );
                session.say(log, Level::Info, &text).await?;
                size::suspend(session, name, memory, log).await?;
                let answer = size::set(session, name, 0, memory).await?;
                let options = Options { drain: None, ..Options::default() };
                steady::wait(session, &steady::target_of(&answer), log, options).await?;
            }
            Fate::Delete => {
                session.say(log, Level::Info, &format!("service {name} has no tasks and is deleted")).await?;
                delete(session, name, memory).await?;
            }
        }
    }
    Ok(())
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, FETCH).await?;
    let result = fetch(executor, spec, cx, unit.log()).await;
    let mut memory = unit.end(result).await?;
    let unit = Unit::begin(cx, PREPARE).await?;
    let work = async {
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let found = prepare(&session, spec, &mut memory, unit.log()).await?;
        Ok((session, found))
    };
    let result = work.await;
    let (session, found) = unit.end(result).await?;
    let unit = Unit::begin(cx, SETUP).await?;
    let result = set_up(&session, spec, &mut memory, &found, unit.log()).await;
    unit.end(result).await?;
    let state = phased(&memory);
    let old = match &state.old {
        Some(old) => phases::shown_running(&session, &old.name, old.count).await?,
        None => Value::Null,
    };
    let outputs = outputs([("newService", phases::shown(&state.new, 0)), ("oldService", old)]);
    let undo = memory.undo().map(|undo| undo.to_value());
    Ok(StepOutput { outputs, undo, ..StepOutput::default() })
}

async fn fetch(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<Setup, StepError> {
    match recall::<Setup>(cx)? {
        Some(memory) => Ok(memory),
        None => {
            let fetched = Fetched::load(&Reader { executor, spec, cx, log }).await?;
            Ok(Setup { fetched, ..Setup::default() })
        }
    }
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(FETCH);
    let mut memory = fetch(executor, spec, cx, log.as_ref()).await?;
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let found = prepare(&session, spec, &mut memory, log.as_ref()).await?;
    let (_, wanted) = definition(&session, &memory).await?;
    let state = phased(&memory);
    let mut lines = wanted.lines();
    let current = found.iter().find(|one| state.old.as_ref().is_some_and(|old| old.name == one.name()));
    let pipeline = &session.cx.task.execution.pipeline;
    let kept = session.settings.kept_revisions;
    for (one, fate) in phases::fates(&found, current.map(|current| current.number), kept, pipeline) {
        match fate {
            Fate::Shrink => lines.push(format!("scale service {} to 0", one.name())),
            Fate::Delete => lines.push(format!("delete service {}", one.name())),
            Fate::Keep | Fate::Foreign => {}
        }
    }
    lines.push(format!("create service {} without tasks", state.new));
    Ok(planned(&lines))
}
