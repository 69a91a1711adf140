//! ECS steps: which cluster, which definitions, what to do with them.
//!
//! Names of steps, units and outcomes are Harness' (facts `ecs-ssh-steps.md` A0). One document carries every step of the
//! family: account, cluster and definitions are the same for all, only [`EcsAction`] differs.

use crate::task::aws::AwsAccount;
use crate::task::source::FileStore;
use crate::text::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// An ECS step with everything it needs from its stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EcsSpec {
    /// The account and region.
    pub account: AwsAccount,
    /// Name or ARN of the cluster.
    pub cluster: String,
    /// Definitions of the service of the stage.
    #[serde(default)]
    pub definitions: EcsDefinitions,
    /// ARN of the task definition that an earlier step of this stage registered; outweighs the one of the service.
    #[serde(default)]
    pub current_task_definition: Option<String>,
    /// What earlier steps of this stage left behind for this one, by kind of step: undo data and outcomes.
    #[serde(default)]
    pub earlier: EcsEarlier,
    /// Service variables that name parts of a load balancer (rule R9 shape 5: `ecs_bg_listener_rule_arn` …).
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Tag of the infrastructure (`namespace`, settled facts §3.4).
    #[serde(default)]
    pub namespace: Option<String>,
    /// Unknown keys of definitions are faults, not warnings.
    #[serde(default)]
    pub strict: bool,
    /// What expressions in files may name, as one object by first name (`artifact`, `artifacts`, `service`,
    /// `serviceVariables`, `env`, `infra`, `stage`, `pipeline`): resolved values, with secrets as placeholders. `Null` when
    /// no document is a file.
    #[serde(default)]
    pub context: Value,
    /// What to do.
    pub action: EcsAction,
}

/// What a service of type ECS says. Documents are YAML or JSON in the camelCase of AWS' requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EcsDefinitions {
    /// Input of RegisterTaskDefinition, or an ARN.
    pub task: Option<TaskDefinition>,
    /// Input of CreateService.
    pub service: Option<EcsDocument>,
    /// Inputs of RegisterScalableTarget.
    pub scalable_targets: Vec<EcsDocument>,
    /// Inputs of PutScalingPolicy.
    pub scaling_policies: Vec<EcsDocument>,
}

/// A task definition: one that is registered already, a document, or both (the document is laid over the registered one).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskDefinition {
    /// `arn:aws:ecs:…:task-definition/family:revision`, or `family[:revision]`.
    pub arn: Option<String>,
    /// Input of RegisterTaskDefinition.
    pub document: Option<EcsDocument>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum EcsDocument {
    /// A file. Expressions in it are evaluated on the agent over artifact, service, environment, infrastructure.
    File {
        /// Identifier of the manifest, for messages.
        identifier: String,
        /// Where it lies.
        store: FileStore,
    },
    /// Written in the entity or the step itself; its expressions are resolved. Strings may hold secret placeholders.
    Value {
        /// Where it stands, for messages: `service myapp, serviceDefinition`.
        place: String,
        /// The document.
        value: Value,
    },
}

/// What earlier steps of the stage left behind. `None`: the step did not run, or left nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EcsEarlier {
    /// Undo data of the stage's steps in the order in which they began. What the step itself recorded in an earlier attempt
    /// stands last.
    pub undo: Vec<EcsUndo>,
}

/// Undo data of one earlier step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EcsUndo {
    /// Identifier of the step, with the postfix of its iteration.
    pub step: String,
    /// Its type, `EcsRollingDeploy`.
    pub kind: String,
    /// Whether the step succeeded.
    pub succeeded: bool,
    /// What it recorded.
    pub data: Value,
}

/// How many tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum TaskCount {
    /// So many.
    Count(u32),
    /// Percent of what is running now.
    Percentage(u32),
}

/// Which of two services changes its size first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResizeStrategy {
    /// The new one grows before the old one shrinks.
    #[default]
    ResizeNewFirst,
    /// The old one shrinks before the new one grows.
    DownsizeOldFirst,
}

/// A load balancer's listeners and rules that a blue-green deployment works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlueGreenRoutes {
    /// Name of the load balancer.
    pub load_balancer: String,
    /// ARN of the production listener.
    pub prod_listener: String,
    /// ARN of its rule; its default rule when not named.
    pub prod_listener_rule_arn: Option<String>,
    /// ARN of the stage listener; none when traffic is shifted by weights.
    pub stage_listener: Option<String>,
    /// ARN of its rule; its default rule when not named.
    pub stage_listener_rule_arn: Option<String>,
    /// Target group of the stage, when traffic is shifted by weights; discovered when not named.
    pub stage_target_group_arn: Option<String>,
}

/// How a service is deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum EcsStrategy {
    /// In place.
    Rolling,
    /// As the other one of the pair `<name>__1`, `<name>__2`.
    BlueGreen {
        /// Listeners and rules.
        routes: BlueGreenRoutes,
    },
    /// As the next of the services `<name>__<n>`.
    Phased,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum EcsAction {
    /// Creates or updates the service and waits for its rollout.
    EcsRollingDeploy {
        /// Leave the desired count alone.
        same_as_already_running_instances: bool,
        /// Roll although nothing differs.
        force_new_deployment: bool,
        /// Do not wait.
        skip_steady_state_check: bool,
        /// What it says about a service whose strategy is not the rolling one.
        #[serde(default, skip_serializing_if = "NativeDeploy::is_default")]
        native: NativeDeploy,
    },
    /// Continues the service deployment of this stage that waits at a gate, and follows it further. A step type of ours.
    EcsContinueDeployment {
        /// How far.
        until: ContinueUntil,
    },
    /// Brings back what the rolling deployment of this stage found.
    EcsRollingRollback {
        /// Do not wait.
        skip_steady_state_check: bool,
    },
    /// Runs the new revision beside the service as `<name>Canary`.
    EcsCanaryDeploy {
        /// How many tasks; 1 when not said (rule R19).
        instances: Option<TaskCount>,
        /// Replace a canary that another execution left.
        replace_existing: bool,
    },
    /// Drains and deletes the canary.
    EcsCanaryDelete {},
    /// Deploys the new revision as the other service of the pair `<name>__1`, `<name>__2`.
    EcsBlueGreenCreateService {
        /// Listeners and rules.
        routes: BlueGreenRoutes,
        /// As many tasks as blue has.
        same_as_already_running_instances: bool,
        /// Autoscaling of green begins with the swap.
        enable_auto_scaling_in_swap_step: bool,
        /// Update an existing green service instead of making it anew.
        update_green_service: bool,
        /// Traffic is shifted by weights afterwards.
        traffic_shift: bool,
    },
    /// Exchanges the target groups of the two rules.
    EcsBlueGreenSwapTargetGroups {
        /// Keep the old service at its size.
        do_not_downsize_old_service: bool,
        /// Milliseconds between swap and downsizing.
        downsize_old_service_delay_ms: u64,
    },
    /// Sets the weights of blue and green.
    EcsBlueGreenTrafficShift {
        /// How.
        shift: TrafficShift,
    },
    /// Undoes blue-green steps of this stage.
    EcsBlueGreenRollback {},
    /// Restores rules that standalone traffic shifts changed.
    StandAloneTrafficShiftRollback {},
    /// Makes the next service `<name>__<n>` with no tasks.
    EcsServiceSetup {
        /// Which changes its size first in the upgrades that follow.
        resize_strategy: ResizeStrategy,
        /// As many tasks in the end as the current one has.
        same_as_already_running_instances: bool,
    },
    /// Moves tasks from the current service to the next.
    EcsUpgradeContainer {
        /// Size of the new service, of its final one.
        new_instances: TaskCount,
        /// What stays of the old one; what the new one leaves when not said.
        downsize_old: Option<TaskCount>,
    },
    /// Undoes service setup and upgrades.
    EcsBasicRollback {},
    /// Changes the desired count.
    EcsScale {
        /// Name of the service.
        service: String,
        /// How many.
        instances: TaskCount,
        /// Do not wait.
        skip_steady_state_check: bool,
    },
    /// Any shape of EcsRunTask (rule R9).
    EcsRunTask {
        /// Which.
        shape: Box<RunTaskShape>,
    },
    /// Records what a deployment will find, and changes nothing. No step of a pipeline of ours: for a manager that has this done by
    /// a task of its own, and whose rollback gets what that one recorded and nothing of what the deployment did (facts A9, A10).
    EcsPrepareRollback {
        /// Of which deployment.
        strategy: EcsStrategy,
    },
    /// Undoes one step of an ECS stage without rollback steps (rule R25); the data stands in the task's `undo`.
    EcsUndo {
        /// The step whose work is undone.
        step: String,
        /// Its type.
        kind: String,
    },
}

/// What a deployment step says about ECS' own strategies (facts A14). The strategy itself stands in the service definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeDeploy {
    /// `engine: native`: refuse a service whose strategy is the rolling one.
    pub required: bool,
    /// Lifecycle stages before which ECS waits for the pipeline: `PRE_PRODUCTION_TRAFFIC_SHIFT` …
    pub gates: Vec<String>,
    /// Minutes after which ECS rolls back what nobody continues; AWS' default (a day) when not said.
    pub gate_timeout_minutes: Option<u32>,
}

impl NativeDeploy {
    fn is_default(&self) -> bool {
        *self == NativeDeploy::default()
    }
}

/// How far a continued service deployment is followed. Gates on the way are continued, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ContinueUntil {
    /// To the next gate, or to its end when there is none.
    #[default]
    NextPause,
    /// To the first gate at which the new revision has at least this share of the production traffic, or to its end.
    Weight {
        /// Percent.
        percent: u32,
    },
    /// To its end.
    End,
}

/// A weighted shift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum TrafficShift {
    /// Of the rule that the create-service step of this stage used.
    Inherit {
        /// Percent for green.
        weight_percentage: u32,
    },
    /// Of any rule.
    Standalone {
        /// Name of the load balancer.
        load_balancer: String,
        /// ARN of the listener.
        listener: String,
        /// ARN of the rule; the default one when not named.
        listener_rule_arn: Option<String>,
        /// Target group ARN and weight.
        forward: Vec<(String, u32)>,
    },
}

/// The shapes of EcsRunTask (facts `pipeline.md` 1.6, rule R9), told apart by the planner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum RunTaskShape {
    /// Runs a one-off task.
    Run {
        /// Task definition: that of the step, else the stage's.
        task: Option<TaskDefinition>,
        /// Input of RunTask.
        request: EcsDocument,
        /// `false`: the step ends when the tasks run.
        wait_until_stopped: bool,
        /// Start them and look no further.
        skip_steady_state_check: bool,
        /// Container overrides of the step: `command`, environment.
        overrides: Option<Value>,
        /// Take the network configuration of this service.
        network_from_service: Option<String>,
        /// Tasks that still run when the step fails, is aborted or runs out of time are stopped.
        #[serde(default = "yes")]
        stop_on_abort: bool,
    },
    /// Looks at a task definition.
    Describe {
        /// ARN or `family[:revision]`.
        task_definition: String,
    },
    /// Runs `command` in Bash on the agent, with the account's credentials.
    Command {
        /// ARN or `family[:revision]`; recorded.
        task_definition: String,
        /// The script.
        command: Text,
    },
    /// Registers a revision, and nothing else.
    Register {
        /// Laid over the stage's task definition.
        document: EcsDocument,
    },
    /// Registers a revision and runs it as a service beside the stage's: green.
    Green {
        /// Laid over the stage's task definition.
        document: EcsDocument,
        /// Name of the service.
        service: String,
        /// `FARGATE`, `EC2`, `EXTERNAL`.
        launch_type: Option<String>,
        /// `networkConfiguration` as AWS takes it; blue's when not said.
        network_configuration: Option<Value>,
        /// Size; blue's when not said.
        desired_count: Option<u32>,
        /// Its target group; found when not said.
        target_group_arn: Option<String>,
    },
    /// Sends this share of the requests to green.
    Shift {
        /// Percent.
        percent: u32,
        /// Listener rule, when written.
        listener_rule_arn: Option<String>,
        /// Listener, when written: its default rule.
        listener_arn: Option<String>,
        /// Blue's target group, when written.
        blue_target_group_arn: Option<String>,
        /// Green's target group, when written.
        green_target_group_arn: Option<String>,
    },
    /// Drains and deletes a service that gets no requests.
    Terminate {
        /// `blue`, `green` or the name of a service.
        which: String,
    },
}

fn yes() -> bool {
    true
}

impl EcsAction {
    /// The step type as pipeline YAML names it.
    pub fn kind(&self) -> &'static str {
        match self {
            EcsAction::EcsRollingDeploy { .. } => "EcsRollingDeploy",
            EcsAction::EcsContinueDeployment { .. } => "EcsContinueDeployment",
            EcsAction::EcsRollingRollback { .. } => "EcsRollingRollback",
            EcsAction::EcsCanaryDeploy { .. } => "EcsCanaryDeploy",
            EcsAction::EcsCanaryDelete {} => "EcsCanaryDelete",
            EcsAction::EcsBlueGreenCreateService { .. } => "EcsBlueGreenCreateService",
            EcsAction::EcsBlueGreenSwapTargetGroups { .. } => "EcsBlueGreenSwapTargetGroups",
            EcsAction::EcsBlueGreenTrafficShift { .. } => "EcsBlueGreenTrafficShift",
            EcsAction::EcsBlueGreenRollback {} => "EcsBlueGreenRollback",
            EcsAction::StandAloneTrafficShiftRollback {} => "StandAloneTrafficShiftRollback",
            EcsAction::EcsServiceSetup { .. } => "EcsServiceSetup",
            EcsAction::EcsUpgradeContainer { .. } => "EcsUpgradeContainer",
            EcsAction::EcsBasicRollback {} => "EcsBasicRollback",
            EcsAction::EcsScale { .. } => "EcsScale",
            EcsAction::EcsRunTask { .. } => "EcsRunTask",
            EcsAction::EcsPrepareRollback { .. } => "EcsPrepareRollback",
            EcsAction::EcsUndo { .. } => "EcsUndo",
        }
    }
}

/// Wire tags of the ECS family, as `EcsAction::kind` gives them.
pub const ECS_KINDS: [&str; 17] = [
    "EcsRollingDeploy",
    "EcsContinueDeployment",
    "EcsRollingRollback",
    "EcsCanaryDeploy",
    "EcsCanaryDelete",
    "EcsBlueGreenCreateService",
    "EcsBlueGreenSwapTargetGroups",
    "EcsBlueGreenTrafficShift",
    "EcsBlueGreenRollback",
    "StandAloneTrafficShiftRollback",
    "EcsServiceSetup",
    "EcsUpgradeContainer",
    "EcsBasicRollback",
    "EcsScale",
    "EcsRunTask",
    "EcsPrepareRollback",
    "EcsUndo",
];
