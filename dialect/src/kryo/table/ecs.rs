//! Answers of ECS steps. Facts §4.4.

use super::*;
use crate::kryo::class::{Class, Declared, FieldInfo};
use crate::kryo::fields::*;
use crate::kryo::writer::Writer;

classes! {
    /// ECS_ROLLING_DEPLOY.
    final EcsRollingDeployResponse = 573505 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsRollingDeployResult ecs_rolling_deploy_result: Option<EcsRollingDeployResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// What the deployment left running.
    open EcsRollingDeployResult = 573509 {
        ecsTasks ecs_tasks: Vec<EcsTask>,
        region region: Option<String>,
        serviceName service_name: Option<String>,
    }

    /// ECS_ROLLING_ROLLBACK.
    final EcsRollingRollbackResponse = 573515 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsRollingRollbackResult ecs_rolling_rollback_result: Option<EcsRollingRollbackResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// What the rollback left running.
    open EcsRollingRollbackResult = 573516 {
        ecsTasks ecs_tasks: Vec<EcsTask>,
        firstDeployment first_deployment: bool,
        infrastructureKey infrastructure_key: Option<String>,
        region region: Option<String>,
    }

    /// ECS_PREPARE_ROLLBACK_DATA.
    final EcsPrepareRollbackDataResponse = 573512 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsPrepareRollbackDataResult ecs_prepare_rollback_data_result: Option<EcsPrepareRollbackDataResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// What a rollback needs: the strings come back to us as they are.
    open EcsPrepareRollbackDataResult = 573513 {
        createServiceRequestBuilderString create_service_request_builder_string: Option<String>,
        isFirstDeployment is_first_deployment: bool,
        registerScalableTargetRequestBuilderStrings register_scalable_target_request_builder_strings: Vec<String>,
        registerScalingPolicyRequestBuilderStrings register_scaling_policy_request_builder_strings: Vec<String>,
        serviceName service_name: Option<String>,
    }

    /// ECS_CANARY_DEPLOY.
    final EcsCanaryDeployResponse = 573521 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsCanaryDeployResult ecs_canary_deploy_result: Option<EcsCanaryDeployResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// The canary.
    open EcsCanaryDeployResult = 573522 {
        canaryServiceName canary_service_name: Option<String>,
        ecsTasks ecs_tasks: Vec<EcsTask>,
        region region: Option<String>,
    }

    /// ECS_CANARY_DELETE.
    final EcsCanaryDeleteResponse = 573524 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsCanaryDeleteResult ecs_canary_delete_result: Option<EcsCanaryDeleteResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// Whether there was a canary to delete.
    open EcsCanaryDeleteResult = 573525 {
        canaryDeleted canary_deleted: bool,
        canaryServiceName canary_service_name: Option<String>,
    }

    /// ECS_BLUE_GREEN_PREPARE_ROLLBACK_DATA.
    final EcsBlueGreenPrepareRollbackDataResponse = 573530 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsBlueGreenPrepareRollbackDataResult ecs_blue_green_prepare_rollback_data_result: Option<EcsBlueGreenPrepareRollbackDataResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// What a rollback needs: the strings come back to us as they are.
    open EcsBlueGreenPrepareRollbackDataResult = 573529 {
        createServiceRequestBuilderString create_service_request_builder_string: Option<String>,
        ecsLoadBalancerConfig ecs_load_balancer_config: EcsLoadBalancerConfig,
        greenServiceExist green_service_exist: bool,
        greenServiceName green_service_name: Option<String>,
        greenServiceRequestBuilderString green_service_request_builder_string: Option<String>,
        greenServiceRollbackDataExist green_service_rollback_data_exist: bool,
        greenServiceScalableTargetRequestBuilderStrings green_service_scalable_target_request_builder_strings: Vec<String>,
        greenServiceScalingPolicyRequestBuilderStrings green_service_scaling_policy_request_builder_strings: Vec<String>,
        isFirstDeployment is_first_deployment: bool,
        registerScalableTargetRequestBuilderStrings register_scalable_target_request_builder_strings: Vec<String>,
        registerScalingPolicyRequestBuilderStrings register_scaling_policy_request_builder_strings: Vec<String>,
        serviceName service_name: Option<String>,
    }

    /// Listeners, rules and target groups of production and stage.
    final EcsLoadBalancerConfig = 573538 {
        loadBalancer load_balancer: Option<String>,
        prodListenerArn prod_listener_arn: Option<String>,
        prodListenerRuleArn prod_listener_rule_arn: Option<String>,
        prodTargetGroupArn prod_target_group_arn: Option<String>,
        stageListenerArn stage_listener_arn: Option<String>,
        stageListenerRuleArn stage_listener_rule_arn: Option<String>,
        stageTargetGroupArn stage_target_group_arn: Option<String>,
    }

    /// ECS_BLUE_GREEN_CREATE_SERVICE.
    final EcsBlueGreenCreateServiceResponse = 573528 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsBlueGreenCreateServiceResult ecs_blue_green_create_service_result: Option<EcsBlueGreenCreateServiceResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// The stage service and where it is reached.
    open EcsBlueGreenCreateServiceResult = 573527 {
        ecsTasks ecs_tasks: Vec<EcsTask>,
        isNewServiceCreated is_new_service_created: bool,
        listenerArn listener_arn: Option<String>,
        listenerRuleArn listener_rule_arn: Option<String>,
        loadBalancer load_balancer: Option<String>,
        region region: Option<String>,
        serviceName service_name: Option<String>,
        targetGroupArn target_group_arn: Option<String>,
    }

    /// ECS_BLUE_GREEN_SWAP_TARGET_GROUPS.
    final EcsBlueGreenSwapTargetGroupsResponse = 573534 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsBlueGreenSwapTargetGroupsResult ecs_blue_green_swap_target_groups_result: Option<EcsBlueGreenSwapTargetGroupsResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// Where the traffic goes now.
    open EcsBlueGreenSwapTargetGroupsResult = 573532 {
        ecsTasks ecs_tasks: Vec<EcsTask>,
        infrastructureKey infrastructure_key: Option<String>,
        loadBalancer load_balancer: Option<String>,
        prodListenerArn prod_listener_arn: Option<String>,
        prodListenerRuleArn prod_listener_rule_arn: Option<String>,
        prodTargetGroupArn prod_target_group_arn: Option<String>,
        region region: Option<String>,
        stageListenerArn stage_listener_arn: Option<String>,
        stageListenerRuleArn stage_listener_rule_arn: Option<String>,
        stageTargetGroupArn stage_target_group_arn: Option<String>,
        trafficShifted traffic_shifted: bool,
    }

    /// ECS_BLUE_GREEN_ROLLBACK.
    final EcsBlueGreenRollbackResponse = 573536 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsBlueGreenRollbackResult ecs_blue_green_rollback_result: Option<EcsBlueGreenRollbackResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// Where the traffic goes again.
    open EcsBlueGreenRollbackResult = 573537 {
        ecsTasks ecs_tasks: Vec<EcsTask>,
        infrastructureKey infrastructure_key: Option<String>,
        isFirstDeployment is_first_deployment: bool,
        loadBalancer load_balancer: Option<String>,
        prodListenerArn prod_listener_arn: Option<String>,
        prodListenerRuleArn prod_listener_rule_arn: Option<String>,
        prodTargetGroupArn prod_target_group_arn: Option<String>,
        region region: Option<String>,
        stageListenerArn stage_listener_arn: Option<String>,
        stageListenerRuleArn stage_listener_rule_arn: Option<String>,
        stageTargetGroupArn stage_target_group_arn: Option<String>,
    }

    /// ECS_RUN_TASK.
    final EcsRunTaskResponse = 573543 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        ecsRunTaskResult ecs_run_task_result: Option<EcsRunTaskResult>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// The tasks that ran.
    open EcsRunTaskResult = 573544 {
        ecsTasks ecs_tasks: Vec<EcsTask>,
        region region: Option<String>,
    }

    /// ECS_BASIC_PREPARE_ROLLBACK.
    final EcsBasicPrepareRollbackResponse = 573652 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorMessage error_message: Option<String>,
        prepareRollbackData prepare_rollback_data: Option<EcsBasicPrepareRollbackData>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// What a rollback needs: the texts come back to us as they are.
    open EcsBasicPrepareRollbackData = 573658 {
        createServiceRequestYaml create_service_request_yaml: Option<String>,
        currentServiceInstanceCount current_service_instance_count: Option<i32>,
        currentServiceName current_service_name: Option<String>,
        isFirstDeployment is_first_deployment: bool,
        newServiceThresholdInstanceCount new_service_threshold_instance_count: Option<i32>,
        nextRevision next_revision: i32,
        registerScalableTargetRequestYaml register_scalable_target_request_yaml: Vec<String>,
        registerScalingPolicyRequestYaml register_scaling_policy_request_yaml: Vec<String>,
        servicePrefix service_prefix: Option<String>,
    }

    /// ECS_SERVICE_SETUP.
    final EcsServiceSetupResponse = 573653 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        deployData deploy_data: Option<EcsBasicDeployData>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// ECS_UPGRADE_CONTAINER.
    final EcsUpgradeContainerResponse = 573654 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        deployData deploy_data: Option<EcsBasicDeployData>,
        errorMessage error_message: Option<String>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// The new service and the old one.
    open EcsBasicDeployData = 573657 {
        infrastructureKey infrastructure_key: Option<String>,
        newServiceData new_service_data: EcsServiceData,
        oldServiceData old_service_data: EcsServiceData,
    }

    /// ECS_BASIC_ROLLBACK.
    final EcsBasicRollbackResponse = 573655 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorMessage error_message: Option<String>,
        rollbackData rollback_data: Option<EcsBasicRollbackData>,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// The services after the rollback.
    open EcsBasicRollbackData = 573656 {
        infrastructureKey infrastructure_key: Option<String>,
        isFirstDeployment is_first_deployment: bool,
        newServiceData new_service_data: EcsServiceData,
        oldServiceData old_service_data: EcsServiceData,
    }

    /// One service.
    open EcsServiceData = 573662 {
        region region: Option<String>,
        serviceName service_name: Option<String>,
        tasks tasks: Vec<EcsTask>,
    }

    /// A running task; the manager makes a server instance of it.
    open EcsTask = 573517 {
        clusterArn cluster_arn: Option<String>,
        containers containers: Vec<EcsContainer>,
        launchType launch_type: Option<String>,
        serviceName service_name: Option<String>,
        startedAt started_at: Option<i64>,
        startedBy started_by: Option<String>,
        taskArn task_arn: Option<String>,
        taskDefinitionArn task_definition_arn: Option<String>,
        version version: Option<i64>,
    }

    /// A container of a task.
    open EcsContainer = 573518 {
        containerArn container_arn: Option<String>,
        image image: Option<String>,
        name name: Option<String>,
        runtimeId runtime_id: Option<String>,
    }
}
