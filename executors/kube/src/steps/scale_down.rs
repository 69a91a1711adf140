//! `K8sBlueGreenStageScaleDown`: the colour that takes no production traffic gives its pods back.
//!
//! Which colour that is, the live primary Service says, at the moment of the step: a swap in between cannot make this
//! step take down production.

use super::copies::{GUARDS, Live, WORKLOADS, planned};
use crate::KubeExecutor;
use crate::bluegreen::Color;
use crate::error::{bad_spec, cancelled};
use crate::objects::{Annotation, Mask, diff};
use crate::session::Session;
use crate::steady::{self, Target};
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};

struct Found {
    color: Color,
    /// Everything of the colour, in the order of deletion.
    all: Vec<Live>,
}

impl Found {
    fn is(live: &Live, kinds: &[(&str, &str)]) -> bool {
        kinds.contains(&(live.object.group(), live.object.kind()))
            && !live.object.says(Annotation::DirectApply)
    }

    fn guards(&self) -> Vec<Live> {
        self.all.iter().filter(|live| Found::is(live, &GUARDS)).cloned().collect()
    }

    /// Workloads that have a number of pods: a DaemonSet has none.
    fn scalable(&self) -> impl Iterator<Item = &Live> {
        self.all.iter().filter(|live| Found::is(live, &WORKLOADS) && live.object.kind() != "DaemonSet")
    }

    /// What is deleted: everything, or the guards alone.
    fn deleted(&self, everything: bool) -> Vec<Live> {
        if !everything {
            return self.guards();
        }
        self.all.iter().filter(|live| !live.object.says(Annotation::SkipPruning)).cloned().collect()
    }
}

async fn find(session: &Session, log: &dyn UnitLog) -> Result<Option<Found>, StepError> {
    let Some((primary, color)) = session.primary(log).await? else {
        let text = format!(
            "release {} has no blue-green Service in {}: nothing to scale down",
            session.release, session.namespace
        );
        session.say(log, Level::Warn, &text).await?;
        return Ok(None);
    };
    let stage = color.other();
    session
        .say(
            log,
            Level::Info,
            &format!("{} selects {}: {} is scaled down", primary.name(), color.as_str(), stage.as_str()),
        )
        .await?;
    Ok(Some(Found { color: stage, all: session.of_color(stage, log).await? }))
}

fn replicas(live: &Live) -> u64 {
    live.object.replicas().unwrap_or(1)
}

async fn scale(session: &Session, found: &Found, log: &dyn UnitLog) -> Result<(), StepError> {
    let up: Vec<&Live> = found.scalable().filter(|live| replicas(live) > 0).collect();
    if up.is_empty() {
        return session.say(log, Level::Info, "no workload of this colour has pods").await;
    }
    let call = |live: &Live| format!("scale {} to 0", live.name());
    let state = json!({"v": 1, "scaleDown": {"color": found.color.as_str()}});
    let before: Vec<Value> =
        up.iter().map(|live| json!({"workload": live.name(), "replicas": replicas(live)})).collect();
    let undo = json!({"v": 1, "color": found.color.as_str(), "workloads": before});
    let intent = format!("scale the colour {} to 0", found.color.as_str());
    session.api.announce(intent, up.iter().map(|live| call(live)).collect(), state, Some(undo)).await?;
    let mut targets = Vec::new();
    for live in up {
        if let Some((reason, _)) = session.cx.cancel.requested() {
            return Err(cancelled(reason, &format!("{} keeps its pods", live.name())));
        }
        let patch = json!({"spec": {"replicas": 0}});
        session
            .merge(&live.path, &call(live), &patch)
            .await
            .map_err(|f| f.step(&call(live), &session.api.target))?;
        session.say(log, Level::Info, &format!("{}: {} → 0", live.name(), replicas(live))).await?;
        targets.push(target(live));
    }
    steady::wait(session.api.client(), &targets, &session.cx, log).await?;
    Ok(())
}

/// What the steady state is asked of.
pub(crate) fn target(live: &Live) -> Target {
    let object = &live.object;
    Target {
        api_version: object.api_version().to_owned(),
        kind: object.kind().to_owned(),
        namespace: object.namespace().unwrap_or_default().to_owned(),
        name: object.name().to_owned(),
    }
}

fn deletes(spec: &KubernetesSpec) -> Result<bool, StepError> {
    match &spec.action {
        KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources } => Ok(*delete_resources),
        other => Err(bad_spec("KUBE-001", format!("{} is no scale-down", other.kind()))),
    }
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let everything = deletes(spec)?;
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        session.learn_places(unit.log()).await?;
        let found = find(&session, unit.log()).await?;
        Ok((session, found))
    };
    let result = work.await;
    let (session, found) = unit.end(result).await?;
    let unit = Unit::begin(cx, "Scale").await?;
    let work = async {
        let Some(found) = found else { return Ok(None) };
        let gone = found.deleted(everything);
        let state = json!({"v": 1, "scaleDown": {"color": found.color.as_str()}});
        let intent = format!("delete what belongs to the colour {}", found.color.as_str());
        if everything {
            session.delete_all(&gone, &intent, state, None, unit.log()).await?;
        } else {
            session.delete_all(&gone, &intent, state, None, unit.log()).await?;
            scale(&session, &found, unit.log()).await?;
        }
        Ok(Some(found.color))
    };
    let result = work.await;
    let color = unit.end(result).await?;
    let undo = cx.checkpoints.history().iter().rev().find_map(|c| c.undo.clone());
    let mut output = StepOutput { undo, skipped: color.is_none(), ..StepOutput::default() };
    if let Some(color) = color {
        output.outputs.insert("stageColor".into(), Value::from(color.as_str()).into());
    }
    Ok(output)
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let everything = deletes(spec)?;
    let log = cx.logs.unit("Initialize");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    session.learn_places(log.as_ref()).await?;
    let mut text = String::new();
    if let Some(found) = find(&session, log.as_ref()).await? {
        for live in found.deleted(everything) {
            text.push_str(&diff(Some(&live.object.value), None, &Mask::default()).1);
        }
        for live in found.scalable().filter(|_| !everything) {
            let mut after = live.object.clone();
            after.set(&["spec", "replicas"], 0.into());
            text.push_str(&diff(Some(&live.object.value), Some(&after.value), &Mask::default()).1);
        }
    }
    Ok(planned(text))
}
