//! Reading the specs of ECS steps.

use super::run_task::read_run_task;
use super::{EcsAction, EcsStep, NativeDeploy, OwnPlace, Routes, Shift, Until};
use crate::fault::Findings;
use crate::model::duration::parse_duration;
use crate::model::read::{Field, Reader, one_of};
use crate::model::step::{Frame, Spec};
use crate::model::step_k8s::{InstanceSelection, instances};
use crate::rules;

/// Reads the spec of an ECS step of type `kind`.
pub(in crate::model) fn read_ecs(
    kind: &str,
    spec: &mut Reader<'_>,
    frame: &Frame,
    findings: &mut Findings,
) -> Option<Spec> {
    let mut place = OwnPlace::default();
    if matches!(kind, "EcsScale" | "EcsRunTask") {
        let mut own = |key| spec.field(key, findings).filter(|field| !field.text().trim().is_empty());
        place = OwnPlace { connector: own("connectorRef"), region: own("region"), cluster: own("cluster") };
    }
    let action = match kind {
        "EcsRollingDeploy" => {
            spec.without_effect(
                "skipApplicationScaling",
                "autoscaling is suspended while the service is deployed, and resumed as it was",
                findings,
            );
            EcsAction::EcsRollingDeploy {
                same_as_already_running_instances: same_as_running(spec, findings),
                force_new_deployment: flag(spec, "forceNewDeployment", findings),
                skip_steady_state_check: flag(spec, "skipSteadyStateCheck", findings),
                native: read_native(spec, findings)?,
            }
        }
        "EcsContinueDeployment" => EcsAction::EcsContinueDeployment { until: read_until(spec, findings)? },
        "EcsRollingRollback" => EcsAction::EcsRollingRollback {
            skip_steady_state_check: flag(spec, "skipSteadyStateCheck", findings),
        },
        "EcsCanaryDeploy" => {
            let instances = match spec.node("instanceSelection") {
                Some(node) => {
                    rules::r19_canary_count(&node.at, &spec.sub("instanceSelection"), findings);
                    Some(instances(spec, 1, findings)?)
                }
                None => None,
            };
            EcsAction::EcsCanaryDeploy {
                instances,
                replace_existing: flag(spec, "replaceExisting", findings),
            }
        }
        "EcsCanaryDelete" => {
            spec.known(&["skipDryRun"]);
            EcsAction::EcsCanaryDelete {}
        }
        "EcsBlueGreenCreateService" => read_create_service(spec, findings)?,
        "EcsBlueGreenSwapTargetGroups" => {
            let delay = spec.field("downsizeOldServiceDelayInSecs", findings);
            whole_number(delay.as_ref(), 0, 86_400, findings);
            EcsAction::EcsBlueGreenSwapTargetGroups {
                do_not_downsize_old_service: flag(spec, "doNotDownsizeOldService", findings),
                downsize_old_service_delay_in_secs: delay,
            }
        }
        "EcsBlueGreenTrafficShift" => {
            EcsAction::EcsBlueGreenTrafficShift { shift: read_shift(spec, findings)? }
        }
        "EcsBlueGreenRollback" => EcsAction::EcsBlueGreenRollback {},
        "StandAloneTrafficShiftRollback" => EcsAction::StandAloneTrafficShiftRollback {},
        "EcsServiceSetup" => {
            let strategies = [("ResizeNewFirst", false), ("DownsizeOldFirst", true)];
            let strategy = spec.field("resizeStrategy", findings);
            let old_first = match strategy {
                Some(field) => one_of(&field, "resize strategy", &strategies, findings)?,
                None => false,
            };
            EcsAction::EcsServiceSetup {
                downsize_old_first: old_first,
                same_as_already_running_instances: same_as_running(spec, findings),
            }
        }
        "EcsUpgradeContainer" => read_upgrade(spec, findings)?,
        "EcsBasicRollback" => EcsAction::EcsBasicRollback {},
        "EcsScale" => {
            let service = spec.required("service", findings);
            let instances = count_by_unit(spec, "instanceUnit", "instances", 0, findings);
            if instances.is_none() && spec.node("instances").is_none() {
                findings.fault(spec.at(), &spec.sub("instances"), "`instances` is missing");
            }
            EcsAction::EcsScale {
                service: service?,
                instances: instances?,
                skip_steady_state_check: flag(spec, "skipSteadyStateCheck", findings),
            }
        }
        _ => EcsAction::EcsRunTask { shape: read_run_task(spec, frame, findings)? },
    };
    Some(Spec::Ecs(Box::new(EcsStep { action, place })))
}

pub(super) fn flag(spec: &mut Reader<'_>, key: &'static str, findings: &mut Findings) -> bool {
    spec.flag(key, findings).unwrap_or(false)
}

/// `sameAsAlreadyRunningInstances`, or the seed's own spelling.
fn same_as_running(spec: &mut Reader<'_>, findings: &mut Findings) -> bool {
    const MEANT: &str = "sameAsAlreadyRunningInstances";
    const ALIAS: &str = "sameAsAlreadyRunningDeployment";
    if let Some(node) = spec.node(ALIAS) {
        rules::ecs_alias(ALIAS, MEANT, &node.at, &spec.sub(ALIAS), findings);
    }
    let alias = spec.flag(ALIAS, findings);
    spec.flag(MEANT, findings).or(alias).unwrap_or(false)
}

/// Holds a number that is known already to its bounds.
pub(super) fn whole_number(field: Option<&Field>, least: u32, most: u32, findings: &mut Findings) {
    let Some(field) = field else { return };
    let text = field.text();
    if text.contains("<+") || text.trim().parse::<u32>().is_ok_and(|n| (least..=most).contains(&n)) {
        return;
    }
    let range = if most == u32::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
    findings.fault(&field.at, &field.path, format!("expected a whole number, {range}; found `{text}`"));
}

/// Lifecycle stages at which ECS pauses (facts A14).
const GATES: [(&str, ()); 6] = [
    ("RECONCILE_SERVICE", ()),
    ("PRE_SCALE_UP", ()),
    ("POST_SCALE_UP", ()),
    ("POST_TEST_TRAFFIC_SHIFT", ()),
    ("PRE_PRODUCTION_TRAFFIC_SHIFT", ()),
    ("POST_PRODUCTION_TRAFFIC_SHIFT", ()),
];
/// Longest time that a hook of ECS may wait.
const LONGEST_GATE_MS: u64 = 14 * 24 * 3_600_000;

/// `engine: native`, `gates`, `gateTimeout`: keys of ours.
fn read_native(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<NativeDeploy> {
    let required = match spec.field("engine", findings) {
        Some(engine) => one_of(&engine, "engine", &[("native", true)], findings)?,
        None => false,
    };
    let path = spec.sub("gates");
    let mut gates = Vec::new();
    for (index, node) in spec.list("gates", findings).iter().enumerate() {
        let Some(text) = node.as_str() else {
            findings.fault(&node.at, &format!("{path}[{index}]"), "expected the name of a lifecycle stage");
            continue;
        };
        let gate = Field::made(text.to_owned(), format!("{path}[{index}]"), &node.at);
        if !text.contains("<+") {
            one_of(&gate, "lifecycle stage at which ECS pauses", &GATES, findings)?;
        }
        gates.push(gate);
    }
    let gate_timeout = spec.field("gateTimeout", findings);
    if let Some(timeout) = &gate_timeout {
        let text = timeout.text();
        if !text.contains("<+") && minutes(&text).is_none() {
            findings.fault(
                &timeout.at,
                &timeout.path,
                format!("expected a duration from 1m to 14d; found `{text}`"),
            );
        }
        if gates.is_empty() {
            findings.fault(&timeout.at, &timeout.path, "`gateTimeout` needs `gates`");
        }
    }
    Some(NativeDeploy { required, gates, gate_timeout })
}

/// Whole minutes of a duration, rounded up; `None` when ECS cannot wait so long.
pub(crate) fn minutes(text: &str) -> Option<u32> {
    let ms = parse_duration(text).filter(|ms| (60_000..=LONGEST_GATE_MS).contains(ms))?;
    u32::try_from(ms.div_ceil(60_000)).ok()
}

/// `until: NextPause | Weight | End`, `weightPercentage`.
fn read_until(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Until> {
    let kinds = [("NextPause", 0), ("Weight", 1), ("End", 2)];
    let until = match spec.field("until", findings) {
        Some(until) => one_of(&until, "`until`", &kinds, findings)?,
        None => 0,
    };
    let weight = spec.field("weightPercentage", findings);
    whole_number(weight.as_ref(), 1, 100, findings);
    match (until, weight) {
        (1, Some(weight)) => Some(Until::Weight(weight)),
        (1, None) => {
            findings.fault(spec.at(), &spec.sub("weightPercentage"), "`weightPercentage` is missing");
            None
        }
        (_, Some(weight)) => {
            findings.fault(&weight.at, &weight.path, "`weightPercentage` needs `until: Weight`");
            None
        }
        (0, None) => Some(Until::NextPause),
        (_, None) => Some(Until::End),
    }
}

fn read_create_service(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<EcsAction> {
    let traffic_shift = flag(spec, "isTrafficShift", findings);
    let load_balancer = spec.required("loadBalancer", findings);
    let prod_listener = spec.required("prodListener", findings);
    let mut optional = |key| spec.field(key, findings).filter(|field| !field.text().trim().is_empty());
    let (prod_listener_rule_arn, stage_listener_rule_arn) =
        (optional("prodListenerRuleArn"), optional("stageListenerRuleArn"));
    let (stage_listener, stage_target_group_arn) =
        (optional("stageListener"), optional("stageTargetGroupArn"));
    if !traffic_shift && stage_listener.is_none() {
        let message = "`stageListener` is missing; only with `isTrafficShift: true` the step does without";
        findings.fault(spec.at(), &spec.sub("stageListener"), message);
    }
    let swap_scaling = flag(spec, "enableAutoScalingInSwapStep", findings);
    if traffic_shift && swap_scaling {
        let message = "there is no swap step when traffic is shifted by weights";
        findings.fault(spec.at(), &spec.sub("enableAutoScalingInSwapStep"), message);
    }
    let same_as_already_running_instances = same_as_running(spec, findings);
    let update_green_service = flag(spec, "updateGreenService", findings);
    let routes = Routes {
        load_balancer: load_balancer?,
        prod_listener: prod_listener?,
        prod_listener_rule_arn,
        stage_listener,
        stage_listener_rule_arn,
        stage_target_group_arn,
    };
    Some(EcsAction::EcsBlueGreenCreateService {
        routes: Box::new(routes),
        same_as_already_running_instances,
        enable_auto_scaling_in_swap_step: swap_scaling,
        update_green_service,
        traffic_shift,
    })
}

/// `ecsTrafficShiftWrapper: {type: Inherit | Standalone, spec}`.
fn read_shift(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Shift> {
    let mut wrapper = spec.required_map("ecsTrafficShiftWrapper", findings)?;
    let kind = wrapper.required("type", findings);
    let inner = wrapper.required_map("spec", findings);
    wrapper.finish(findings);
    let standalone = one_of(&kind?, "traffic shift", &[("Inherit", false), ("Standalone", true)], findings)?;
    let mut inner = inner?;
    if !standalone {
        let weight = inner.required("weightPercentage", findings);
        inner.finish(findings);
        whole_number(weight.as_ref(), 0, 100, findings);
        return weight.map(|weight| Shift::Inherit { weight });
    }
    let load_balancer = inner.required("loadBalancer", findings);
    let listener = inner.required("listener", findings);
    let listener_rule_arn = inner.field("listenerRuleArn", findings);
    let path = inner.sub("forwardConfig");
    let list = inner.list("forwardConfig", findings);
    let mut forward = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let mut tuple = Reader::new(node, format!("{path}[{index}]"), findings);
        let group = tuple.required("targetGroupArn", findings);
        let weight = tuple.required("weight", findings);
        tuple.finish(findings);
        // The bounds of a weight in a rule of a load balancer.
        whole_number(weight.as_ref(), 0, 999, findings);
        forward.extend(group.zip(weight));
    }
    // A rule forwards to at most five target groups.
    if list.is_empty() || list.len() > 5 {
        let message = format!("expected one to five target groups with their weights, found {}", list.len());
        findings.fault(inner.at(), &path, message);
    }
    inner.finish(findings);
    Some(Shift::Standalone { load_balancer: load_balancer?, listener: listener?, listener_rule_arn, forward })
}

/// A number with its unit beside it: `{instanceUnit: Count, instances: 4}`.
fn count_by_unit(
    spec: &mut Reader<'_>,
    unit: &'static str,
    count: &'static str,
    least: u32,
    findings: &mut Findings,
) -> Option<InstanceSelection> {
    let kind = spec.field(unit, findings);
    let value = spec.field(count, findings)?;
    let percentage = match kind {
        Some(kind) => {
            one_of(&kind, "unit of instances", &[("Count", false), ("Percentage", true)], findings)?
        }
        None => false,
    };
    whole_number(Some(&value), least, if percentage { 100 } else { u32::MAX }, findings);
    Some(if percentage { InstanceSelection::Percentage(value) } else { InstanceSelection::Count(value) })
}

fn read_upgrade(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<EcsAction> {
    let new = count_by_unit(spec, "newServiceInstanceUnit", "newServiceInstanceCount", 0, findings);
    if spec.node("newServiceInstanceCount").is_none() {
        findings.fault(
            spec.at(),
            &spec.sub("newServiceInstanceCount"),
            "`newServiceInstanceCount` is missing",
        );
    }
    let old =
        count_by_unit(spec, "downsizeOldServiceInstanceUnit", "downsizeOldServiceInstanceCount", 0, findings);
    Some(EcsAction::EcsUpgradeContainer { new_instances: new?, downsize_old: old })
}
