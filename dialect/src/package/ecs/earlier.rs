//! What earlier tasks left behind, as far as a package says it, in the form of our executor's undo data.
//!
//! A rollback brings back what the task before the deployment recorded, in a text that only the agent that wrote it reads. The
//! tasks between are told by names, counts and ARNs what they work on.

use super::super::Cx;
use super::super::fault::Fault;
use super::super::view::View;
use super::{CANARY, SERVICE, key, resize};
use crate::answer::{MARK, unpacked};
use crate::request::EcsCommand;
use proto::task::{EcsEarlier, EcsUndo};
use serde_json::{Value, json};

/// The undo data that a command begins with.
pub(super) fn of(cx: &Cx<'_>, command: EcsCommand, data: &View<'_>) -> Result<EcsEarlier, Fault> {
    let (kind, undo) = match command {
        EcsCommand::RollingRollback => {
            let config = data.object("ecsRollingRollbackConfig")?;
            let undo = written(&config, "createServiceRequestBuilderString", "service")?;
            same(&config, "serviceName", &undo, "/undo/name")?;
            ("EcsRollingDeploy", undo)
        }
        EcsCommand::CanaryDelete => ("EcsCanaryDeploy", canary(data)?),
        EcsCommand::BlueGreenSwapTargetGroups => ("EcsBlueGreenCreateService", pair(cx, data)?),
        EcsCommand::BlueGreenRollback => {
            let undo = written(data, "oldServiceCreateRequestBuilderString", "green")?;
            same(data, "newServiceName", &undo, "/undo/pair/green")?;
            ("EcsBlueGreenCreateService", undo)
        }
        EcsCommand::UpgradeContainer => ("EcsServiceSetup", phased(cx, data)?),
        EcsCommand::BasicRollback => {
            let undo = written(data, "createServiceRequestYaml", "phased")?;
            same(data, "newServiceName", &undo, "/undo/phased/new")?;
            ("EcsServiceSetup", undo)
        }
        _ => return Ok(EcsEarlier::default()),
    };
    let undo = EcsUndo { step: "earlier".to_owned(), kind: kind.to_owned(), succeeded: true, data: undo };
    Ok(EcsEarlier { undo: vec![undo] })
}

/// Undo data of ours, as it comes back. What a Java delegate wrote is told apart before anything is changed.
fn written(owner: &View<'_>, key: &str, kind: &str) -> Result<Value, Fault> {
    let text = owner.maybe_str(key)?.unwrap_or_default().trim();
    let undo = match unpacked(text) {
        Some(Ok(undo)) => undo,
        Some(Err(())) => return Err(Fault::shape(&owner.at(key), "holds undo data that is cut off")),
        None if text.starts_with(MARK) => {
            return Err(Fault::spec(
                "the deployment of this stage was prepared by a newer version of this agent, whose undo data this one does not read; nothing was changed",
                "upgrade this agent, or let the one that deployed roll back as well: give the rollback step the same delegate selector",
            ));
        }
        None => {
            return Err(Fault::spec(
                "the deployment of this stage was prepared by another kind of delegate, whose undo data this agent does not read; nothing was changed",
                "let the delegate that deployed roll back as well: give the rollback step the same delegate selector",
            ));
        }
    };
    let is = undo.pointer("/undo/kind").and_then(Value::as_str).unwrap_or("nothing");
    if is != kind {
        let problem =
            format!("holds undo data of `{}`; expected that of `{kind}`", super::super::fault::short(is));
        return Err(Fault::shape(&owner.at(key), problem));
    }
    Ok(undo)
}

/// Refuses a rollback of another service than the one that its data are of.
fn same(owner: &View<'_>, key: &str, undo: &Value, pointer: &str) -> Result<(), Fault> {
    let recorded = undo.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match owner.maybe_str(key)? {
        Some(told) if told != recorded => {
            let text = format!(
                "the rollback is of service `{}`, and its data are of `{}`: something else was deployed between the two; nothing was changed",
                super::super::fault::short(told),
                super::super::fault::short(recorded)
            );
            Err(Fault::spec(text, "look at the services and bring back by hand what is wanted"))
        }
        _ => Ok(()),
    }
}

/// The canary that a deletion means, in the form of the undo data of its deployment: the package names the service that it
/// stands beside.
fn canary(data: &View<'_>) -> Result<Value, Fault> {
    let key = key(data, &SERVICE);
    let place = data.at(key);
    let document: Value = serde_saphyr::from_str(data.str(key)?)
        .map_err(|_| Fault::shape(&place, "is no YAML; expected the definition of a service"))?;
    let service = document.get("serviceName").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if service.is_empty() {
        return Err(Fault::shape(&place, "names no service (serviceName)"));
    }
    Ok(json!({"v": 1, "undo": {"kind": "canary", "service": format!("{service}{CANARY}")}}))
}

/// ARN of the load balancer of a listener: `…:listener/app/NAME/LB/LISTENER` belongs to `…:loadbalancer/app/NAME/LB`.
fn balancer(listener: &str) -> Option<String> {
    let (before, after) = listener.split_once(":listener/")?;
    let (path, _) = after.rsplit_once('/')?;
    Some(format!("{before}:loadbalancer/{path}"))
}

/// The two services whose target groups are swapped: the answers to the tasks before said which they are.
fn pair(cx: &Cx<'_>, data: &View<'_>) -> Result<Value, Fault> {
    let config = data.object("ecsLoadBalancerConfig")?;
    let listener = cx.plain(&config, "prodListenerArn")?;
    let wrong = || {
        Fault::shape(
            &config.at("prodListenerArn"),
            "is no ARN of a listener; expected arn:aws:elasticloadbalancing:…:listener/…",
        )
    };
    let balancer = balancer(&listener).ok_or_else(wrong)?;
    let blue = cx.maybe_plain(data, "oldServiceName")?.filter(|_| data.flag("firstDeployment") != Ok(true));
    if blue.is_none() && !data.flag("firstDeployment")? {
        return Err(Fault::shape(
            &data.at("oldServiceName"),
            "is missing; expected the name of the live service",
        ));
    }
    let stage = json!({
        "listener": cx.plain(&config, "stageListenerArn")?,
        "arn": cx.maybe_plain(&config, "stageListenerRuleArn")?,
    });
    let scales = ["ecsScalableTargetManifestContentList", "ecsScalingPolicyManifestContentList"];
    let scaling_later = scales.into_iter().any(|key| data.strs(key).is_ok_and(|all| !all.is_empty()));
    Ok(json!({"v": 1, "undo": {
        "kind": "green",
        "scalingLater": scaling_later,
        "pair": {
            "blue": blue,
            "green": cx.plain(data, "newServiceName")?,
            "blueGroup": cx.plain(&config, "prodTargetGroupArn")?,
            "greenGroup": cx.plain(&config, "stageTargetGroupArn")?,
            "production": {"listener": listener, "arn": cx.maybe_plain(&config, "prodListenerRuleArn")?},
            "stage": stage,
            "balancer": {"arn": balancer, "name": cx.plain(&config, "loadBalancer")?},
        },
    }}))
}

/// The two services between which tasks move.
fn phased(cx: &Cx<'_>, data: &View<'_>) -> Result<Value, Fault> {
    let new = data.object("newServiceData")?;
    let old = match data.maybe("oldServiceData")? {
        Some(old) if !data.flag("firstTimeDeployment")? => {
            cx.maybe_plain(&old, "serviceName")?.map(|name| (name, old))
        }
        _ => None,
    };
    let whole =
        |service: &View<'_>| Ok::<_, Fault>(service.maybe_count("thresholdInstanceCount")?.unwrap_or(1));
    let old = match old {
        Some((name, old)) => json!({"name": name, "count": whole(&old)?}),
        None => Value::Null,
    };
    Ok(json!({"v": 1, "undo": {"kind": "phased", "phased": {
        "new": cx.plain(&new, "serviceName")?,
        "newCount": whole(&new)?,
        "old": old,
        "resize": resize(data)?,
    }}}))
}
