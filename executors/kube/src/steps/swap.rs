//! `K8sBGSwapServices`: production moves to a colour, by a compare-and-set on both Services.
//!
//! The colour is decided once, before the first change, and stands in the checkpoint. A Service that selects its colour
//! is left alone, so a repeated swap, or one that was interrupted between the two, ends in the same state.

use super::copies::Live;
use super::deploy::Pods;
use crate::KubeExecutor;
use crate::bluegreen::{self, Change, Color, Role};
use crate::error::{bad_spec, cancelled};
use crate::objects::{Mask, diff};
use crate::session::Session;
use crate::variant::Fault;
use executor_api::Unit;
use executor_api::{Class, Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};

const UNIT: &str = "Swap Service Selectors";

/// How often a Service that changes at the same time is read again.
const TRIES: usize = 5;

struct Swap<'a> {
    session: &'a Session,
    primary: &'a str,
    stage: &'a str,
    target: Option<Color>,
}

/// What the step is told, from its spec, else from what the forward step wrote down for its undoing.
fn told<'a>(session: &'a Session, spec: &'a KubernetesSpec) -> Result<Swap<'a>, StepError> {
    let KubernetesAction::K8sBGSwapServices { primary_service, stage_service, target_color } = &spec.action
    else {
        return Err(bad_spec("KUBE-001", format!("{} is no swap", spec.action.kind())));
    };
    let undo = session.cx.task.undo.as_ref();
    let written = target_color.as_deref().or_else(|| undo?.get("primaryColor")?.as_str());
    let target = match written {
        None => None,
        Some(text) => Some(Color::parse(text).ok_or_else(|| {
            bad_spec("KUBE-082", format!("targetColor: {text:?}; expected blue or green"))
                .target("targetColor")
        })?),
    };
    // After a crash the colour that was decided on is still the one that is meant.
    let history = session.cx.checkpoints.history();
    let decided = history.iter().find_map(|c| Color::parse(c.state.pointer("/swap/target")?.as_str()?));
    Ok(Swap { session, primary: primary_service, stage: stage_service, target: decided.or(target) })
}

impl Swap<'_> {
    async fn read(&self, name: &str) -> Result<Live, StepError> {
        for place in &self.session.places {
            if let Some(found) = self.session.service(place, name).await? {
                return Ok(found);
            }
        }
        Err(Fault::ServiceMissing(format!("{}/Service/{name}", self.session.places.join("|"))).into_step())
    }

    /// Both Services, the colour that production is to get, and the changes that are left.
    async fn look(&self) -> Result<(Live, Live, Color, Vec<Change>), StepError> {
        let (primary, stage) =
            futures::future::try_join(self.read(self.primary), self.read(self.stage)).await?;
        let namespace = &self.session.namespace;
        let target = match self.target {
            Some(target) => target,
            None => bluegreen::primary_color(Some(&primary.object.value), namespace)
                .map_err(Fault::into_step)?
                .other(),
        };
        let changes = bluegreen::changes(&primary.object.value, &stage.object.value, target, namespace)
            .map_err(Fault::into_step)?;
        Ok((primary, stage, target, changes))
    }

    async fn run(&mut self, log: &dyn UnitLog) -> Result<Color, StepError> {
        let mut lost: Option<String> = None;
        for _ in 0..TRIES {
            let looked = self.look().await.map_err(|mut error| {
                if let Some(service) = &lost {
                    let text = format!("; whether {service} was changed is not known: run the step again");
                    error.what.push_str(&text);
                }
                error
            });
            let (primary, stage, target, changes) = looked?;
            self.target = Some(target);
            for live in [&primary, &stage] {
                let selects = bluegreen::selects(&live.object.value, &self.session.namespace)
                    .map_err(Fault::into_step)?;
                self.session
                    .say(log, Level::Info, &format!("{} selects {}", selects.service, selects.selector))
                    .await?;
            }
            if changes.is_empty() {
                return Ok(target);
            }
            if let Some((reason, _)) = self.session.cx.cancel.requested() {
                let state = format!("{} and {} are as they were", primary.name(), stage.name());
                return Err(cancelled(reason, &state));
            }
            if changes.iter().any(|change| change.role == Role::Primary) {
                self.somebody_answers(&primary, target, log).await?;
            }
            lost = self.change(&primary, &stage, target, &changes, log).await?;
            if lost.is_none() {
                return Ok(target);
            }
        }
        let expected = self.target.map_or("a colour", Color::as_str).to_owned();
        let service = lost.unwrap_or_else(|| self.primary.to_owned());
        Err(Fault::ServiceChanged { service, found: "something new at every try".into(), expected }
            .into_step())
    }

    /// Production must not go where nobody is. An account that may not list pods swaps without this look.
    async fn somebody_answers(
        &self,
        primary: &Live,
        target: Color,
        log: &dyn UnitLog,
    ) -> Result<(), StepError> {
        let labels = primary.object.at("/spec/selector").and_then(Value::as_object);
        let mut labels: Vec<(&str, &str)> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .collect();
        labels.retain(|(key, _)| *key != bluegreen::COLOR);
        labels.push((bluegreen::COLOR, target.as_str()));
        match Pods::find(self.session, primary.object.namespace().unwrap_or(&self.session.namespace), &labels)
            .await
        {
            Ok(pods) if pods.ready() > 0 => Ok(()),
            Ok(_) => {
                let selector: Vec<String> =
                    labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let fault = Fault::NoPods {
                    service: primary.name(),
                    color: target.as_str(),
                    selector: selector.join(","),
                };
                Err(fault.into_step())
            }
            Err(error) if error.class == Class::Authorization => {
                let text = format!(
                    "whether pods of the colour {} are ready is not known: {}",
                    target.as_str(),
                    error.what
                );
                self.session.say(log, Level::Warn, &text).await
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the changes, the primary Service first. Returns the Service that had changed since it was read, if one had.
    async fn change(
        &self,
        primary: &Live,
        stage: &Live,
        target: Color,
        changes: &[Change],
        log: &dyn UnitLog,
    ) -> Result<Option<String>, StepError> {
        let of = |role: Role| if role == Role::Primary { primary } else { stage };
        let call = |change: &Change| format!("select {} by {}", change.to.as_str(), of(change.role).name());
        // What production selected before this step; a later try must not take its own first half for that.
        let history = self.session.cx.checkpoints.history();
        let undo = history.iter().rev().find_map(|c| c.undo.clone()).unwrap_or_else(|| {
            let before = changes.iter().find(|c| c.role == Role::Primary).map_or(target.other(), |c| c.from);
            json!({"v": 1, "primaryServiceName": self.primary, "stageServiceName": self.stage,
                "primaryColor": before.as_str(), "stageColor": before.other().as_str()})
        });
        let state = json!({"v": 1, "swap": {"target": target.as_str()}});
        let intent = format!("{} selects {}", primary.name(), target.as_str());
        self.session.api.announce(intent, changes.iter().map(call).collect(), state, Some(undo)).await?;
        for change in changes {
            let live = of(change.role);
            match self.session.merge(&live.path, &call(change), &change.patch).await {
                Ok(_) => {
                    let text = format!("{}: {} → {}", live.name(), change.from.as_str(), change.to.as_str());
                    self.session.say(log, Level::Info, &text).await?;
                }
                // The change names the version that was read, so looking again and sending what is left is safe.
                Err(fault) if fault.is_conflict() || fault.is_unanswered() => {
                    let what = match fault.is_conflict() {
                        true => " was changed at the same time".to_owned(),
                        false => format!(": {fault}"),
                    };
                    let text = format!("{}{what}; it is read again", live.name());
                    self.session.say(log, Level::Warn, &text).await?;
                    return Ok(Some(live.name()));
                }
                Err(fault) => {
                    let mut error = fault.step(&call(change), &self.session.api.target);
                    error.what.push_str(&match change.role {
                        Role::Primary => "; both Services are as they were".to_owned(),
                        Role::Stage => format!(
                            "; {} already selects {}: run the step again",
                            primary.name(),
                            target.as_str()
                        ),
                    });
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        session.learn_places(unit.log()).await?;
        let mut swap = told(&session, spec)?;
        let color = swap.run(unit.log()).await?;
        afterwards(&session, swap.primary, swap.stage, color, unit.log()).await?;
        let undo = cx.checkpoints.history().iter().rev().find_map(|c| c.undo.clone());
        Ok(StepOutput { outputs: outputs(swap.primary, swap.stage, color), undo, ..StepOutput::default() })
    };
    let result = work.await;
    unit.end(result).await
}

/// Weights and history follow. Production has moved by now: what goes wrong here is told and does not fail the step.
async fn afterwards(
    session: &Session,
    primary: &str,
    stage: &str,
    color: Color,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if let Err(error) = super::routes::settle(session, primary, stage, log).await {
        session.say(log, Level::Warn, &format!("weights of routes are as they were: {}", error.what)).await?;
    }
    if let Err(error) = super::blue_green::flip(session, color).await {
        session
            .say(log, Level::Warn, &format!("the history of releases is as it was: {}", error.what))
            .await?;
    }
    Ok(())
}

fn outputs(
    primary: &str,
    stage: &str,
    color: Color,
) -> std::collections::BTreeMap<String, proto::result::Output> {
    [
        ("primaryServiceName", primary),
        ("stageServiceName", stage),
        ("primaryColor", color.as_str()),
        ("stageColor", color.other().as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), Value::from(value).into()))
    .collect()
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(UNIT);
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    session.learn_places(log.as_ref()).await?;
    let (primary, stage, _, changes) = told(&session, spec)?.look().await?;
    let mut text = String::new();
    for change in &changes {
        let before = if change.role == Role::Primary { &primary } else { &stage };
        let mut after = before.object.clone();
        after.set(&["spec", "selector", bluegreen::COLOR], change.to.as_str().into());
        text.push_str(&diff(Some(&before.object.value), Some(&after.value), &Mask::default()).1);
    }
    Ok(super::copies::planned(text))
}
