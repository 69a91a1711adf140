//! The number of tasks of a service: how a step's words become one, and how it is set.

use crate::error::bad_spec;
use crate::memory::Memory;
use crate::scaling;
use crate::session::{Session, autoscaling, ecs};
use aws::Repeat;
use aws::document::{list, text, whole};
use executor_api::{Level, StepError, UnitLog};
use proto::task::TaskCount;
use serde_json::{Value, json};

/// `count` of `whole_of` tasks, rounded half up (facts A10, A11).
pub(crate) fn share(count: TaskCount, whole_of: u32) -> u32 {
    match count {
        TaskCount::Count(count) => count,
        TaskCount::Percentage(percent) => {
            let tasks = (u64::from(percent) * u64::from(whole_of) + 50) / 100;
            u32::try_from(tasks).unwrap_or(u32::MAX)
        }
    }
}

/// A service that is there and whose count a step may set.
///
/// **Errors**: `ECS-041`: it is not there, not active, or runs one task on every instance; those of the account.
pub(crate) async fn scalable(session: &Session, name: &str) -> Result<Value, StepError> {
    let what = |problem: String| {
        bad_spec("ECS-041", format!("service {name} {problem}"))
            .target(session.target().to_owned())
            .hint("`aws ecs list-services` names the services of the cluster")
    };
    let Some(service) = session.service(name).await? else {
        return Err(what(format!("does not exist in cluster {}", session.cluster)));
    };
    let status = text(&service, &["status"]).unwrap_or_default();
    if status != "ACTIVE" {
        return Err(what(format!("is {status}; expected ACTIVE")));
    }
    if text(&service, &["schedulingStrategy"]) == Some("DAEMON") {
        return Err(what("runs one task on every instance (DAEMON) and has no count".to_owned()));
    }
    Ok(service)
}

/// Sets the count and returns what ECS answers. `memory` goes into the checkpoint that announces it.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn set<M: Memory>(
    session: &Session,
    service: &str,
    count: u32,
    memory: &M,
) -> Result<Value, StepError> {
    let call = format!("UpdateService {service} desiredCount {count}");
    session.announce(format!("scale service {service} to {count}"), &[&call], memory).await?;
    let input = json!({"cluster": session.cluster, "service": service, "desiredCount": count});
    let answer = session.change(&call, ecs("UpdateService"), input, Repeat::Safe).await;
    answer.map_err(|fault| session.fault(fault, &format!("scale service {service} to {count}")))
}

/// Suspends all autoscaling of a service, if it has any, so that nothing changes its count but the step.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn suspend<M: Memory>(
    session: &Session,
    service: &str,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if scaling::read(session, service, log).await?.target.is_none() {
        return Ok(());
    }
    let resource = scaling::resource(session, service);
    let call = format!("RegisterScalableTarget {resource}");
    session.announce(format!("suspend autoscaling of {service}"), &[&call], memory).await?;
    let input = json!({"ServiceNamespace": "ecs", "ResourceId": resource, "ScalableDimension": "ecs:service:DesiredCount",
        "SuspendedState": {"DynamicScalingInSuspended": true, "DynamicScalingOutSuspended": true,
            "ScheduledScalingSuspended": true}});
    let answer = session.change(&call, autoscaling("RegisterScalableTarget"), input, Repeat::Safe).await;
    answer.map_err(|fault| session.fault(fault, &format!("suspend autoscaling of {service}")))?;
    session.say(log, Level::Info, &format!("autoscaling of service {service} is suspended")).await
}

/// What the service's autoscaling would make of this count; `None` when it leaves it alone or has none.
pub(crate) async fn undone_by(
    session: &Session,
    service: &str,
    count: u32,
    log: &dyn UnitLog,
) -> Result<Option<String>, StepError> {
    let resource = format!("service/{}/{service}", session.cluster);
    let input = json!({"ServiceNamespace": "ecs", "ResourceIds": [resource],
        "ScalableDimension": "ecs:service:DesiredCount"});
    let targets = match session.pages(autoscaling("DescribeScalableTargets"), input, "ScalableTargets").await
    {
        Ok(targets) => targets,
        Err(aws::Fault::Cancelled(reason)) => {
            return Err(crate::error::cancelled(reason, &format!("service {service} was left as it is")));
        }
        // It is only for a warning.
        Err(fault) => {
            let text = format!("whether autoscaling would change the count is not known: {fault}");
            session.say(log, Level::Warn, &text).await?;
            return Ok(None);
        }
    };
    let of_this = |target: &&Value| text(target, &["ResourceId"]) == Some(resource.as_str());
    Ok(targets.iter().find(of_this).and_then(|target| outside(target, count)))
}

/// Whether a scalable target has other bounds.
fn outside(target: &Value, count: u32) -> Option<String> {
    let bound = |name: &str| whole(target, &[name]).and_then(|bound| u32::try_from(bound).ok());
    let (least, most) = (bound("MinCapacity")?, bound("MaxCapacity")?);
    let to = count.clamp(least.min(most), most);
    (to != count).then(|| {
        format!(
            "ecs.scale.outside: {count} tasks are outside what autoscaling allows ({least} to {most}), which sets the count to {to} again; change the scalable target too"
        )
    })
}

/// `arn` of each target group of a service.
pub(crate) fn target_groups(service: &Value) -> Vec<&str> {
    list(service, &["loadBalancers"])
        .iter()
        .filter_map(|balancer| text(balancer, &["targetGroupArn"]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_half_up_and_may_be_none() {
        for (percent, of, is) in [(50, 3, 2), (10, 4, 0), (10, 5, 1), (0, 9, 0), (100, 7, 7), (200, 3, 6)] {
            assert_eq!(share(TaskCount::Percentage(percent), of), is, "{percent} % of {of}");
        }
        assert_eq!(share(TaskCount::Percentage(u32::MAX), u32::MAX), u32::MAX);
        assert_eq!(share(TaskCount::Count(4), 9), 4);
    }

    #[test]
    fn autoscaling_undoes_what_is_outside_its_bounds() {
        let target = json!({"MinCapacity": 2, "MaxCapacity": 6});
        for (count, to) in [(1, Some(2)), (2, None), (6, None), (9, Some(6))] {
            let said = outside(&target, count);
            assert_eq!(said.is_some(), to.is_some(), "{count}");
            if let (Some(said), Some(to)) = (said, to) {
                assert!(said.contains(&format!("to {to} again")), "{said}");
            }
        }
        assert_eq!(outside(&json!({}), 1), None);
    }
}
