//! Faults that can be seen in a step without asking anybody.

use executor_api::SpecFault;
use proto::task::{EcsAction, EcsSpec, EcsStrategy, RunTaskShape, TaskCount, TrafficShift};

/// Largest weight of a target group.
const MAX_WEIGHT: u32 = 999;

/// Every fault of the step.
pub(crate) fn faults(spec: &EcsSpec) -> Vec<SpecFault> {
    let mut faults = Vec::new();
    let mut fault =
        |field: &str, problem: String| faults.push(SpecFault { field: field.to_owned(), problem });
    if spec.cluster.trim().is_empty() {
        fault("cluster", "is empty; expected the name or ARN of a cluster".to_owned());
    }
    if spec.account.region.trim().is_empty() {
        fault("region", "is empty; expected for example us-east-1".to_owned());
    }
    let percent = |percent: u32, most: u32| {
        (percent > most).then(|| format!("is {percent}; expected a percentage from 0 to {most}"))
    };
    match &spec.action {
        EcsAction::EcsCanaryDeploy {
            instances: Some(TaskCount::Count(0) | TaskCount::Percentage(0)),
            ..
        } => {
            fault("instanceSelection", "is 0; a canary has at least one task".to_owned());
        }
        EcsAction::EcsCanaryDeploy { instances: Some(TaskCount::Percentage(share)), .. } => {
            if let Some(problem) = percent(*share, 100) {
                fault("instanceSelection.spec.percentage", problem);
            }
        }
        EcsAction::EcsPrepareRollback { strategy: EcsStrategy::BlueGreen { routes } }
            if routes.load_balancer.trim().is_empty() || routes.prod_listener.trim().is_empty() =>
        {
            fault(
                "loadBalancer",
                "or prodListener is empty; expected a name and the ARN of a listener".to_owned(),
            );
        }
        EcsAction::EcsBlueGreenCreateService { routes, traffic_shift, .. } => {
            if routes.load_balancer.trim().is_empty() {
                fault("loadBalancer", "is empty; expected the name of a load balancer".to_owned());
            }
            if routes.prod_listener.trim().is_empty() {
                fault("prodListener", "is empty; expected the ARN of a listener".to_owned());
            }
            if !traffic_shift && routes.stage_listener.as_deref().unwrap_or_default().trim().is_empty() {
                fault("stageListener", "is empty; expected the ARN of a listener".to_owned());
            }
        }
        EcsAction::EcsBlueGreenTrafficShift { shift: TrafficShift::Inherit { weight_percentage } } => {
            if let Some(problem) = percent(*weight_percentage, 100) {
                fault("ecsTrafficShiftWrapper.spec.weightPercentage", problem);
            }
        }
        EcsAction::EcsBlueGreenTrafficShift { shift: TrafficShift::Standalone { listener, forward, .. } } => {
            if listener.trim().is_empty() {
                fault(
                    "ecsTrafficShiftWrapper.spec.listener",
                    "is empty; expected the ARN of a listener".to_owned(),
                );
            }
            if forward.is_empty() {
                fault("ecsTrafficShiftWrapper.spec.forwardConfig", "names no target group".to_owned());
            }
            if forward.iter().all(|(_, weight)| *weight == 0) && !forward.is_empty() {
                fault(
                    "ecsTrafficShiftWrapper.spec.forwardConfig",
                    "gives every target group the weight 0".to_owned(),
                );
            }
            for (index, (arn, weight)) in forward.iter().enumerate() {
                let at = format!("ecsTrafficShiftWrapper.spec.forwardConfig[{index}]");
                if *weight > MAX_WEIGHT {
                    fault(&format!("{at}.weight"), format!("is {weight}; expected 0 to {MAX_WEIGHT}"));
                }
                if arn.trim().is_empty() {
                    fault(
                        &format!("{at}.targetGroupArn"),
                        "is empty; expected the ARN of a target group".to_owned(),
                    );
                }
            }
        }
        EcsAction::EcsScale { service, .. } if service.trim().is_empty() => {
            fault("service", "is empty; expected the name of a service".to_owned());
        }
        EcsAction::EcsUpgradeContainer { new_instances, downsize_old } => {
            for (field, count) in [
                ("newServiceInstanceCount", Some(new_instances)),
                ("downsizeOldServiceInstanceCount", downsize_old.as_ref()),
            ] {
                if let Some(TaskCount::Percentage(share)) = count
                    && let Some(problem) = percent(*share, 100)
                {
                    fault(field, problem);
                }
            }
        }
        EcsAction::EcsRunTask { shape } => match &**shape {
            RunTaskShape::Shift { percent: share, .. } => {
                if let Some(problem) = percent(*share, 100) {
                    fault("weight", problem);
                }
            }
            RunTaskShape::Green { service, .. } if service.trim().is_empty() => {
                fault("serviceName", "is empty; expected the name of a service".to_owned());
            }
            RunTaskShape::Command { command, .. } if command.as_str().trim().is_empty() => {
                fault("command", "is empty; expected a script".to_owned());
            }
            _ => {}
        },
        _ => {}
    }
    faults
}
