//! Answers of ECS steps.
//!
//! Undo data travels in the texts that the manager stores with the step and sends with a rollback
//! (`createServiceRequestBuilderString`): ours say what they are and of which version, so that data which a Java
//! delegate wrote is told apart before anything is changed. They are Base64, because the manager looks for expressions in texts.

use super::Case;
use super::bounds::{MAX_NAME, MAX_PARTS, cut};
use super::outputs::{Outputs, field};
use super::progress::units;
use crate::kryo::table::*;
use crate::request::EcsCommand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What undo data of this agent begins with, whatever its version is.
pub(crate) const MARK: &str = "delegate-undo/";

/// Version of the text; what is in it has a version of its own.
const VERSION: &str = "1";

/// The undo data of a step as a text of the manager's.
pub(crate) fn packed(undo: &Value) -> String {
    format!("{MARK}{VERSION} {}", STANDARD.encode(undo.to_string()))
}

/// Undo data out of such a text; `None`: of another version, or of somebody else. **Errors**: it is damaged.
pub(crate) fn unpacked(text: &str) -> Option<Result<Value, ()>> {
    let text = text.strip_prefix(MARK)?;
    let (version, packed) = text.split_once(' ').unwrap_or((text, ""));
    if version != VERSION {
        return None;
    }
    let bytes = STANDARD.decode(packed.trim()).map_err(drop);
    Some(bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(drop)))
}

/// One response: all of this family have the same five fields, one of them with a name and class of its own.
macro_rules! response {
    ($case:ident, $class:ident { $field:ident: $result:expr }) => {
        $class {
            command_execution_status: $case.status(),
            delegate_meta_info: $case.meta(),
            $field: if $case.succeeded() { Some($result) } else { None },
            error_message: $case.error(),
            unit_progress_data: units($case),
        }
        .into()
    };
}

/// The answer of a command.
pub(super) fn response(case: &Case<'_>, command: EcsCommand, region: &str, key: &str) -> Response {
    let outputs = Outputs(case.result);
    let region = || Some(cut(region, MAX_NAME).into_owned());
    let infrastructure_key = || Some(cut(key, MAX_NAME).into_owned());
    let text = |name: &str| outputs.text(name);
    let flag = |name: &str| outputs.flag(name).unwrap_or_default();
    let ecs_tasks = || tasks(case, outputs.value("instances").or(outputs.value("serverInstances")));
    match command {
        EcsCommand::RollingDeploy | EcsCommand::TaskArnRollingDeploy => {
            let result = EcsRollingDeployResult {
                ecs_tasks: ecs_tasks(),
                region: region(),
                service_name: text("serviceName"),
            };
            response!(case, EcsRollingDeployResponse { ecs_rolling_deploy_result: result })
        }
        EcsCommand::RollingRollback => {
            let result = EcsRollingRollbackResult {
                ecs_tasks: ecs_tasks(),
                first_deployment: flag("firstDeployment"),
                infrastructure_key: infrastructure_key(),
                region: region(),
            };
            response!(case, EcsRollingRollbackResponse { ecs_rolling_rollback_result: result })
        }
        EcsCommand::PrepareRollbackData => {
            let result = EcsPrepareRollbackDataResult {
                create_service_request_builder_string: case.result.undo.as_ref().map(packed),
                is_first_deployment: flag("isFirstDeployment"),
                register_scalable_target_request_builder_strings: Vec::new(),
                register_scaling_policy_request_builder_strings: Vec::new(),
                service_name: text("serviceName"),
            };
            response!(case, EcsPrepareRollbackDataResponse { ecs_prepare_rollback_data_result: result })
        }
        EcsCommand::CanaryDeploy | EcsCommand::TaskArnCanaryDeploy => {
            let result = EcsCanaryDeployResult {
                canary_service_name: text("canaryServiceName"),
                ecs_tasks: ecs_tasks(),
                region: region(),
            };
            response!(case, EcsCanaryDeployResponse { ecs_canary_deploy_result: result })
        }
        EcsCommand::CanaryDelete => {
            let result = EcsCanaryDeleteResult {
                canary_deleted: flag("canaryDeleted"),
                canary_service_name: text("canaryServiceName"),
            };
            response!(case, EcsCanaryDeleteResponse { ecs_canary_delete_result: result })
        }
        EcsCommand::BlueGreenPrepareRollbackData => {
            let result = EcsBlueGreenPrepareRollbackDataResult {
                create_service_request_builder_string: case.result.undo.as_ref().map(packed),
                ecs_load_balancer_config: load_balancer(&outputs),
                green_service_exist: flag("greenServiceExist"),
                green_service_name: text("greenServiceName"),
                green_service_request_builder_string: None,
                green_service_rollback_data_exist: false,
                green_service_scalable_target_request_builder_strings: Vec::new(),
                green_service_scaling_policy_request_builder_strings: Vec::new(),
                is_first_deployment: flag("isFirstDeployment"),
                register_scalable_target_request_builder_strings: Vec::new(),
                register_scaling_policy_request_builder_strings: Vec::new(),
                service_name: text("serviceName"),
            };
            response!(
                case,
                EcsBlueGreenPrepareRollbackDataResponse {
                    ecs_blue_green_prepare_rollback_data_result: result
                }
            )
        }
        EcsCommand::BlueGreenCreateService | EcsCommand::TaskArnBlueGreenCreateService => {
            let result = EcsBlueGreenCreateServiceResult {
                ecs_tasks: ecs_tasks(),
                is_new_service_created: flag("isNewServiceCreated"),
                listener_arn: text("listenerArn"),
                listener_rule_arn: text("listenerRuleArn"),
                load_balancer: text("loadBalancer"),
                region: region(),
                service_name: text("serviceName"),
                target_group_arn: text("targetGroupArn"),
            };
            response!(
                case,
                EcsBlueGreenCreateServiceResponse { ecs_blue_green_create_service_result: result }
            )
        }
        EcsCommand::BlueGreenSwapTargetGroups => {
            let routes = load_balancer(&outputs);
            let result = EcsBlueGreenSwapTargetGroupsResult {
                ecs_tasks: ecs_tasks(),
                infrastructure_key: infrastructure_key(),
                load_balancer: routes.load_balancer,
                prod_listener_arn: routes.prod_listener_arn,
                prod_listener_rule_arn: routes.prod_listener_rule_arn,
                prod_target_group_arn: routes.prod_target_group_arn,
                region: region(),
                stage_listener_arn: routes.stage_listener_arn,
                stage_listener_rule_arn: routes.stage_listener_rule_arn,
                stage_target_group_arn: routes.stage_target_group_arn,
                traffic_shifted: flag("trafficShifted"),
            };
            response!(
                case,
                EcsBlueGreenSwapTargetGroupsResponse { ecs_blue_green_swap_target_groups_result: result }
            )
        }
        EcsCommand::BlueGreenRollback => {
            let routes = load_balancer(&outputs);
            let result = EcsBlueGreenRollbackResult {
                ecs_tasks: ecs_tasks(),
                infrastructure_key: infrastructure_key(),
                is_first_deployment: flag("isFirstDeployment"),
                load_balancer: routes.load_balancer,
                prod_listener_arn: routes.prod_listener_arn,
                prod_listener_rule_arn: routes.prod_listener_rule_arn,
                prod_target_group_arn: routes.prod_target_group_arn,
                region: region(),
                stage_listener_arn: routes.stage_listener_arn,
                stage_listener_rule_arn: routes.stage_listener_rule_arn,
                stage_target_group_arn: routes.stage_target_group_arn,
            };
            response!(case, EcsBlueGreenRollbackResponse { ecs_blue_green_rollback_result: result })
        }
        EcsCommand::RunTask | EcsCommand::RunTaskArn => {
            let result = EcsRunTaskResult { ecs_tasks: one_off(case), region: region() };
            response!(case, EcsRunTaskResponse { ecs_run_task_result: result })
        }
        EcsCommand::BasicPrepareRollback => {
            let result = EcsBasicPrepareRollbackData {
                create_service_request_yaml: case.result.undo.as_ref().map(packed),
                current_service_instance_count: outputs.int("currentServiceInstanceCount"),
                current_service_name: text("currentServiceName"),
                is_first_deployment: flag("isFirstDeployment"),
                new_service_threshold_instance_count: outputs.int("newServiceThresholdInstanceCount"),
                next_revision: outputs.int("nextRevision").unwrap_or_default(),
                register_scalable_target_request_yaml: Vec::new(),
                register_scaling_policy_request_yaml: Vec::new(),
                service_prefix: text("servicePrefix"),
            };
            response!(case, EcsBasicPrepareRollbackResponse { prepare_rollback_data: result })
        }
        EcsCommand::ServiceSetup => {
            response!(case, EcsServiceSetupResponse { deploy_data: deployed(case, region(), None) })
        }
        EcsCommand::UpgradeContainer => {
            response!(
                case,
                EcsUpgradeContainerResponse { deploy_data: deployed(case, region(), infrastructure_key()) }
            )
        }
        EcsCommand::BasicRollback => {
            let result = EcsBasicRollbackData {
                infrastructure_key: infrastructure_key(),
                is_first_deployment: outputs.flag("isFirstTimeDeployment").unwrap_or_default(),
                new_service_data: service(case, "newService", region()),
                old_service_data: service(case, "oldService", region()),
            };
            response!(case, EcsBasicRollbackResponse { rollback_data: result })
        }
    }
}

fn deployed(
    case: &Case<'_>,
    region: Option<String>,
    infrastructure_key: Option<String>,
) -> EcsBasicDeployData {
    EcsBasicDeployData {
        infrastructure_key,
        new_service_data: service(case, "newService", region.clone()),
        old_service_data: service(case, "oldService", region),
    }
}

/// One of the two services. The manager asks each for its name, also one that is not there.
fn service(case: &Case<'_>, name: &str, region: Option<String>) -> EcsServiceData {
    let outputs = Outputs(case.result);
    let Some(value) = outputs.value(name).filter(|value| value.is_object()) else {
        return EcsServiceData { region, service_name: None, tasks: Vec::new() };
    };
    // The tasks of the new service stand beside it.
    let beside = || outputs.value("instances").filter(|_| name == "newService");
    let listed = value.get("instances").or_else(beside);
    EcsServiceData { region, service_name: field(value, "serviceName"), tasks: tasks(case, listed) }
}

fn load_balancer(outputs: &Outputs<'_>) -> EcsLoadBalancerConfig {
    EcsLoadBalancerConfig {
        load_balancer: outputs.text("loadBalancer"),
        prod_listener_arn: outputs.text("prodListenerArn"),
        prod_listener_rule_arn: outputs.text("prodListenerRuleArn"),
        prod_target_group_arn: outputs.text("prodTargetGroupArn"),
        stage_listener_arn: outputs.text("stageListenerArn"),
        stage_listener_rule_arn: outputs.text("stageListenerRuleArn"),
        stage_target_group_arn: outputs.text("stageTargetGroupArn"),
    }
}

fn tasks(case: &Case<'_>, listed: Option<&Value>) -> Vec<EcsTask> {
    if case.lean {
        return Vec::new();
    }
    let listed = listed.and_then(Value::as_array).into_iter().flatten();
    listed.take(super::bounds::MAX_INSTANCES).map(task).collect()
}

/// One-off tasks have ended: what is known of them is their names.
fn one_off(case: &Case<'_>) -> Vec<EcsTask> {
    let outputs = Outputs(case.result);
    let listed = outputs.list("taskArns");
    listed.map(|arn| task(&serde_json::json!({"taskArn": arn}))).collect()
}

/// A time of AWS, which are seconds with a fraction, as the manager counts.
fn milliseconds(seconds: &Value) -> Option<i64> {
    let milliseconds = seconds.as_f64()? * 1000.0;
    (milliseconds.abs() < 1e15).then_some(milliseconds.round() as i64)
}

fn task(task: &Value) -> EcsTask {
    let containers = task.get("containers").and_then(Value::as_array).into_iter().flatten().take(MAX_PARTS);
    EcsTask {
        cluster_arn: field(task, "clusterArn"),
        containers: containers
            .map(|container| EcsContainer {
                container_arn: field(container, "containerArn"),
                image: field(container, "image"),
                name: field(container, "name"),
                runtime_id: field(container, "runtimeId"),
            })
            .collect(),
        launch_type: field(task, "launchType"),
        service_name: field(task, "serviceName"),
        // A manager unboxes it without asking.
        started_at: Some(task.get("startedAt").and_then(milliseconds).unwrap_or_default()),
        started_by: field(task, "startedBy"),
        task_arn: field(task, "taskArn"),
        task_definition_arn: field(task, "taskDefinitionArn"),
        version: task.get("version").and_then(Value::as_i64),
    }
}
