//! Deploying a service beside the live one: what both `EcsRunTask` shape 4 and `EcsBlueGreenCreateService` do once they have
//! decided what goes where.

use super::serve::{self, Wanted};
use crate::memory::{Memory, Undo, recall};
use crate::scaling;
use crate::service;
use crate::session::Session;
use crate::steady;
use crate::task_definition::{self, Settled, Source};
use crate::traffic::discover::Told;
use crate::traffic::pair::Pair;
use crate::traffic::undo::{self, Green};
use crate::traffic::{self, Actions, Expect, Fault, Rule, Rules, SavedRule, find, health, look};
use aws::document::text;
use executor_api::{Level, StepContext, StepError, UnitLog};
use proto::task::EcsSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the step remembers. Decisions stand in it, so that they are taken once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Deployment {
    /// What goes where, and what was there.
    pub(crate) green: Option<Green>,
    /// Of what the task definition is made.
    pub(crate) source: Source,
    /// Input of CreateService.
    pub(crate) document: Value,
    /// How many tasks.
    pub(crate) count: u32,
    /// A service of green's name is replaced, not updated.
    pub(crate) replace: bool,
    /// Roll an existing green service although nothing differs.
    pub(crate) force: bool,
    /// Rules that were changed.
    pub(crate) rules: Vec<SavedRule>,
    /// No rule names green's target group yet.
    pub(crate) join: bool,
    /// Green is made with the tag of its colour.
    pub(crate) coloured: bool,
}

impl Memory for Deployment {
    fn undo(&self) -> Option<Undo> {
        let green = self.green.clone()?;
        Some(Undo::Green(Box::new(Green { rules: self.rules.clone(), ..green })))
    }
}

impl Rules for Deployment {
    fn rules(&mut self) -> &mut Vec<SavedRule> {
        &mut self.rules
    }
}

impl Deployment {
    /// What this life goes on with: the newest checkpoint, else what an earlier attempt of the same step decided and changed.
    ///
    /// **Errors**: `ECS-004`.
    pub(crate) fn begin(spec: &EcsSpec, cx: &StepContext) -> Result<Deployment, StepError> {
        if let Some(memory) = recall(cx)? {
            return Ok(memory);
        }
        let mut memory = Deployment::default();
        if let Some(Undo::Green(green)) = undo::own(spec, cx)? {
            memory.rules.clone_from(&green.rules);
            memory.green = Some(*green);
        }
        Ok(memory)
    }

    /// In what state an end on request leaves everything.
    pub(crate) fn state(&self) -> String {
        let services = match &self.green {
            None => "no service was changed".to_owned(),
            Some(green) => match &green.pair.blue {
                Some(blue) => {
                    format!("service {blue} is as it was, {} stays as far as it came", green.pair.green)
                }
                None => format!("service {} stays as far as it came", green.pair.green),
            },
        };
        format!("{services}; {}", undo::rules_shown(&self.rules))
    }
}

/// What was deployed.
pub(crate) struct Deployed {
    pub(crate) pair: Pair,
    pub(crate) settled: Settled,
    pub(crate) report: steady::Report,
}

/// Registers the revision, prepares the rules, makes or updates green and waits until it is steady and healthy.
///
/// **Errors**: those of every part; requests stay with blue in each case. **Cancel**: in the waits. **Repeat**: safe.
pub(crate) async fn deploy(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Deployment,
    wanted: &task_definition::Wanted,
    log: &dyn UnitLog,
) -> Result<Deployed, StepError> {
    let Some(green) = memory.green.clone() else {
        return Err(Fault::NotRecorded("nothing was decided".to_owned()).into_step());
    };
    let pair = green.pair.clone();
    for line in wanted.lines() {
        session.say(log, Level::Info, &line).await?;
    }
    let settled = Box::pin(task_definition::settle(session, wanted, memory, log)).await?;
    // Requests that an earlier, unfinished deployment sent to green are taken back first: nobody must reach what is not
    // verified.
    let join = memory.join;
    let withdraw = |now: &Actions| without(now, &pair, join);
    let needs = super::routes::needs(session, &pair).await?;
    let needs: Vec<(String, u32)> =
        needs.into_iter().filter(|(group, _)| *group == pair.blue_group).collect();
    Box::pin(traffic::shift::shift(
        session,
        memory,
        &pair.production,
        Expect::Anything,
        &withdraw,
        &needs,
        log,
    ))
    .await?;
    if let Some(rule) = &pair.stage {
        Box::pin(follow(session, memory, rule, &pair, log)).await?;
    }
    if memory.replace {
        Box::pin(replace(session, memory, &pair, log)).await?;
    }
    let report = Box::pin(serve_green(session, spec, memory, &green, &settled.arn, log)).await?;
    let group = look::group(session, &pair.green_group).await?;
    let state = format!("service {} runs and gets no requests", pair.green);
    Box::pin(health::wait_healthy(session, &group, memory.count.max(1), &state, log)).await?;
    Ok(Deployed { pair, settled, report })
}

/// The production rule without requests for green. A group that no rule names joins it: ECS takes no group without a load
/// balancer, and nobody would check its targets.
fn without(now: &Actions, pair: &Pair, join: bool) -> Result<Actions, Fault> {
    let weights = now.weights()?;
    if pair.green_group != pair.blue_group && weights.of(&pair.green_group) > 0 {
        return now.with_weights(&traffic::Weights::split(&pair.blue_group, &pair.green_group, 0)?);
    }
    if join { traffic::shift::joined(now, &pair.green_group) } else { Ok(now.clone()) }
}

/// Lets a test rule follow green.
async fn follow(
    session: &Session,
    memory: &mut Deployment,
    rule: &Rule,
    pair: &Pair,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let to_green = |now: &Actions| {
        let weights = now.weights()?;
        if weights.of(&pair.green_group) > 0 && weights.receiving().len() == 1 {
            return Ok(now.clone());
        }
        now.forwarding(&traffic::Weights::new([(pair.green_group.clone(), 1)])?)
    };
    Box::pin(traffic::change::change(session, memory, rule, Expect::Anything, &to_green, log)).await.map(drop)
}

/// Takes an old service of green's name away, unless it is the one that this step made.
async fn replace(
    session: &Session,
    memory: &Deployment,
    pair: &Pair,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let Some(live) = session.service(&pair.green).await?.filter(service::is_active) else { return Ok(()) };
    if service::is_ours(session, &live) {
        return Ok(());
    }
    no_requests(session, pair, &live).await?;
    serve::remove(session, &pair.green, memory, log).await.map(drop)
}

/// Refuses to go on with a service that production requests reach.
///
/// **Errors**: `ECS-057`.
pub(crate) async fn no_requests(session: &Session, pair: &Pair, live: &Value) -> Result<(), StepError> {
    let actions = look::actions(session, &pair.production).await?;
    let groups = find::groups_of(live);
    if pair.blue_group != pair.green_group && find::sends_to(&actions, &groups) {
        let text = format!(
            "service {} gets production requests: {} sends {}",
            traffic::pair::name(live),
            pair.production,
            actions.shown()
        );
        return Err(Fault::Live(text).into_step());
    }
    Ok(())
}

async fn serve_green(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Deployment,
    green: &Green,
    task_definition: &str,
    log: &dyn UnitLog,
) -> Result<steady::Report, StepError> {
    let mut tags = service::own_tags(session, spec);
    if memory.coloured {
        tags.push((traffic::pair::COLOUR.to_owned(), traffic::pair::GREEN.to_owned()));
    }
    let document = memory.document.clone();
    let name = green.pair.green.clone();
    let live = session.service(&name).await?.filter(service::is_active);
    let scaling = green.scaling.clone().filter(|scaling| live.is_some() && scaling.can_be_suspended());
    if let Some(scaling) = &scaling {
        scaling::suspend(session, scaling, memory, log).await?;
    }
    // Rolled once: after a crash the deployment that was PRIMARY before is no longer that.
    let before = green.before.as_ref().and_then(|before| before.deployment.as_deref());
    let now = live.as_ref().and_then(service::primary).and_then(|primary| text(primary, &["id"]));
    let wanted = Wanted {
        name: &name,
        document: &document,
        task_definition,
        count: Some(memory.count),
        force: memory.force && live.is_some() && now == before,
        tags: &tags,
    };
    let result = Box::pin(serve::deploy(session, wanted, memory, log)).await;
    if let Some(scaling) = &scaling {
        match scaling::resume(&session.finishing(), scaling, memory, log).await {
            Ok(()) => {}
            Err(error) if result.is_ok() => return Err(error),
            // The step has failed already; that is what counts.
            Err(_) => session.tell(scaling::by_hand(session, scaling)),
        }
    }
    result
}

/// What the spec of the step and the variables of the service say about rules and groups.
pub(crate) fn told(spec: &EcsSpec, group: Option<&str>) -> Told {
    let own = Told {
        green_group: group.map(|group| group.trim().to_owned()).filter(|group| !group.is_empty()),
        ..Told::default()
    };
    own.over(Told::by_variables(&spec.variables))
}
