//! `K8sScale`: the number of replicas of one workload, through its `scale` subresource.
//!
//! A share is of the replicas at the start. The number is decided once and stands in the checkpoint, so that a step that
//! is repeated after a crash does not take the share of a share.

use super::workload::{self, Workload};
use crate::KubeExecutor;
use crate::error::{bad_spec, cancelled};
use crate::objects::Object;
use crate::session::Session;
use crate::steady;
use executor_api::Unit;
use executor_api::{Class, Level, Plan, StepContext, StepError, StepOutput};
use proto::task::{Instances, KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Scale {
    workload: Workload,
    object: Object,
    from: u64,
    to: u64,
}

fn asked(spec: &KubernetesSpec) -> Result<(&str, Instances, bool), StepError> {
    match &spec.action {
        KubernetesAction::K8sScale { workload, instances, skip_steady_state_check } => {
            Ok((workload, *instances, *skip_steady_state_check))
        }
        _ => Err(bad_spec("KUBE-001", format!("{} scales nothing", spec.action.kind()))),
    }
}

/// `instances` of `current` replicas, rounded half up; none is a number too.
fn wanted(instances: Instances, current: u64) -> u64 {
    match instances {
        Instances::Count(count) => u64::from(count),
        Instances::Percentage(share) => (u64::from(share) * current + 50) / 100,
    }
}

async fn decide(session: &Session, spec: &KubernetesSpec) -> Result<Scale, StepError> {
    let (text, instances, _) = asked(spec)?;
    let scales =
        |resource: &crate::discovery::Resource| resource.subresources.iter().any(|sub| sub == "scale");
    let workload = workload::one(session, text, scales)?;
    if !scales(&workload.resource) {
        let text = format!(
            "{} cannot be scaled: the kind {} has no replicas",
            workload.name(),
            workload.reference.kind
        );
        return Err(bad_spec("KUBE-056", text).target(workload.name()).hint(
            "scale a Deployment, StatefulSet, ReplicaSet or a custom resource with a scale subresource",
        ));
    }
    let object = workload.read(session).await?;
    let history = session.cx.checkpoints.history();
    let decided = history.iter().find_map(|c| {
        let scale = c.state.get("scale")?;
        Some((scale.get("from")?.as_u64()?, scale.get("to")?.as_u64()?))
    });
    let (from, to) = match decided {
        Some(decided) => decided,
        None => {
            let what = format!("read the replicas of {}", workload.name());
            let path = format!("{}/scale", workload.path);
            let scale: Value =
                session.api.get(&path).await.map_err(|fault| fault.step(&what, &session.api.target))?;
            let from = scale.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0);
            (from, wanted(instances, from))
        }
    };
    Ok(Scale { workload, object, from, to })
}

async fn send(session: &Session, scale: &Scale, before: &[String]) -> Result<(), StepError> {
    let what = format!("read the replicas of {}", scale.workload.name());
    let path = format!("{}/scale", scale.workload.path);
    let now: Value = session.api.get(&path).await.map_err(|fault| fault.step(&what, &session.api.target))?;
    if now.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0) == scale.to {
        return Ok(());
    }
    if let Some((reason, _)) = session.cx.cancel.requested() {
        return Err(cancelled(
            reason,
            &format!("{} still has {} replicas", scale.workload.name(), scale.from),
        ));
    }
    let call = format!("scale {} to {}", scale.workload.name(), scale.to);
    let state = json!({"v": 1, "scale": {"workload": scale.workload.name(), "from": scale.from, "to": scale.to,
        "pods": before}});
    session.api.announce(call.clone(), vec![call.clone()], state, None).await?;
    let patch = json!({"spec": {"replicas": scale.to}});
    match session.merge(&path, &call, &patch).await {
        Ok(_) => Ok(()),
        Err(fault) => Err(fault.step(&call, &session.api.target)),
    }
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let (_, _, skip_wait) = asked(spec)?;
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let scale = decide(&session, spec).await?;
        let text = format!("{}: {} replicas → {}", scale.workload.name(), scale.from, scale.to);
        unit.say(Level::Info, &text).await?;
        let before = workload::pods_before(&session, &scale.workload, &scale.object, "scale").await;
        Ok((session, scale, before))
    };
    let result = work.await;
    let (session, scale, before) = unit.end(result).await?;
    let unit = Unit::begin(cx, "Scale").await?;
    let result = send(&session, &scale, &before).await;
    unit.end(result).await?;
    let mut outputs = BTreeMap::from([
        ("workload".to_owned(), Value::from(scale.workload.name()).into()),
        ("replicas".to_owned(), Value::from(scale.to).into()),
        ("previousReplicas".to_owned(), Value::from(scale.from).into()),
    ]);
    if !skip_wait {
        let unit = Unit::begin(cx, "Wait for Steady State").await?;
        let targets = [scale.workload.target()];
        let result = steady::wait(session.api.client(), &targets, cx, unit.log()).await;
        let report = unit.end(result).await?;
        outputs.extend(workload::pods(&report, &before));
    }
    let unit = Unit::begin(cx, "Wrap Up").await?;
    let said = unit.say(Level::Info, &format!("{} has {} replicas", scale.workload.name(), scale.to)).await;
    unit.end(said).await?;
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit("Initialize");
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let scale = decide(&session, spec).await?;
    if scale.to > u64::from(u32::MAX) {
        return Err(StepError::new(
            Class::BadSpec,
            "KUBE-056",
            "instances: more replicas than a cluster can hold",
        ));
    }
    let text = match scale.from == scale.to {
        true => String::new(),
        false => {
            format!("change {}\n-replicas: {}\n+replicas: {}\n", scale.workload.name(), scale.from, scale.to)
        }
    };
    Ok(super::copies::planned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_half_up_and_may_be_none() {
        for (share, of, is) in [(50, 3, 2), (10, 4, 0), (10, 5, 1), (0, 9, 0), (100, 7, 7), (200, 3, 6)] {
            assert_eq!(wanted(Instances::Percentage(share), of), is, "{share} % of {of}");
        }
        assert_eq!(wanted(Instances::Count(4), 9), 4);
    }
}
