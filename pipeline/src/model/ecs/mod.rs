//! ECS in pipelines: the steps (`ecs-ssh-steps.md` A0) and what a service of type ECS says.
//!
//! `read` reads steps, `run_task` tells the shapes of EcsRunTask apart (rule R9), `service` reads definitions, `undo` makes
//! the rollback steps of a stage that writes none (rule R25).

mod read;
mod run_task;
mod service;
mod undo;

pub(crate) use read::minutes as gate_minutes;
pub(super) use read::read_ecs;
pub(crate) use run_task::{RunTaskWords, unrecognised};
pub use service::EcsService;
pub(super) use service::{is_ecs_manifest, read_service};
pub(super) use undo::implicit_undo;

use super::manifest::store_fields;
use super::read::Field;
use super::service::Store;
use super::step_k8s::InstanceSelection;
use serde::{Deserialize, Serialize};

/// Types of the ECS steps as pipelines write them: all but `EcsUndo`, which the planner makes.
pub(super) const TYPES: [&str; 15] = [
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
];

/// A document in the camelCase of AWS' requests, before it is fetched or its expressions are resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "Few of them live at a time; boxing would only hide the fields."
)]
pub enum Document {
    /// A file.
    File {
        /// Identifier of its manifest.
        identifier: String,
        /// Where it lies.
        store: Store,
    },
    /// Written in the entity or the step.
    Value(Field),
}

impl Document {
    /// Every field that may hold expressions.
    pub fn fields(&self) -> Vec<&Field> {
        match self {
            Document::File { store, .. } => store_fields(store),
            Document::Value(field) => vec![field],
        }
    }

    /// The connector that its store names.
    pub fn connector(&self) -> Option<&Field> {
        match self {
            Document::File { store: Store::Git { connector, .. }, .. } => Some(connector),
            Document::File { .. } | Document::Value(_) => None,
        }
    }
}

/// An ECS step with its expressions as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EcsStep {
    /// What to do.
    pub action: EcsAction,
    /// Where, instead of the infrastructure of the stage.
    #[serde(default)]
    pub place: OwnPlace,
}

/// What a step says about where it works. What is left out is the infrastructure's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnPlace {
    /// `Aws` connector.
    pub connector: Option<Field>,
    /// Region.
    pub region: Option<Field>,
    /// Cluster.
    pub cluster: Option<Field>,
}

impl OwnPlace {
    /// Whether the step needs no infrastructure.
    pub fn is_whole(&self) -> bool {
        self.connector.is_some() && self.region.is_some() && self.cluster.is_some()
    }

    /// What is written of it.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        [&self.connector, &self.region, &self.cluster].into_iter().flatten()
    }
}

/// A task definition: by ARN, as a document, or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskDefinition {
    /// ARN or `family[:revision]`.
    pub arn: Option<Field>,
    /// What is registered.
    pub document: Option<Document>,
}

impl TaskDefinition {
    /// Every field that may hold expressions.
    pub fn fields(&self) -> Vec<&Field> {
        self.arn.iter().chain(self.document.iter().flat_map(Document::fields)).collect()
    }
}

/// Listeners and rules of a blue-green deployment, before expressions are resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Routes {
    /// Name of the load balancer.
    pub load_balancer: Field,
    /// ARN of the production listener.
    pub prod_listener: Field,
    /// ARN of its rule.
    pub prod_listener_rule_arn: Option<Field>,
    /// ARN of the stage listener.
    pub stage_listener: Option<Field>,
    /// ARN of its rule.
    pub stage_listener_rule_arn: Option<Field>,
    /// Target group of the stage.
    pub stage_target_group_arn: Option<Field>,
}

impl Routes {
    fn fields(&self) -> impl Iterator<Item = &Field> {
        let optional = [
            &self.prod_listener_rule_arn,
            &self.stage_listener,
            &self.stage_listener_rule_arn,
            &self.stage_target_group_arn,
        ];
        [&self.load_balancer, &self.prod_listener].into_iter().chain(optional.into_iter().flatten())
    }
}

/// What a deployment step says about ECS' own strategies, before expressions are resolved. A definition of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeDeploy {
    /// `engine: native`.
    pub required: bool,
    /// Lifecycle stages.
    pub gates: Vec<Field>,
    /// A duration.
    pub gate_timeout: Option<Field>,
}

/// How far a service deployment is continued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Until {
    /// To its next gate.
    NextPause,
    /// To this share of the production requests, percent.
    Weight(Field),
    /// To its end.
    End,
}

/// A weighted shift, before expressions are resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
#[expect(clippy::large_enum_variant, reason = "It stands in a boxed step; a second box would buy nothing.")]
pub enum Shift {
    /// Of the rule of the create-service step.
    Inherit {
        /// Percent for green.
        weight: Field,
    },
    /// Of any rule.
    Standalone {
        /// Name of the load balancer.
        load_balancer: Field,
        /// ARN of the listener.
        listener: Field,
        /// ARN of the rule.
        listener_rule_arn: Option<Field>,
        /// Target group ARN and weight.
        forward: Vec<(Field, Field)>,
    },
}

impl Shift {
    /// Whether it works on a rule of its own.
    pub fn is_standalone(&self) -> bool {
        matches!(self, Shift::Standalone { .. })
    }
}

/// What an ECS step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "The fields are those of proto's EcsAction, where they are described.")]
#[expect(clippy::large_enum_variant, reason = "It stands in a boxed step; a second box would buy nothing.")]
pub enum EcsAction {
    EcsRollingDeploy {
        same_as_already_running_instances: bool,
        force_new_deployment: bool,
        skip_steady_state_check: bool,
        #[serde(default)]
        native: NativeDeploy,
    },
    EcsContinueDeployment {
        until: Until,
    },
    EcsRollingRollback {
        skip_steady_state_check: bool,
    },
    EcsCanaryDeploy {
        instances: Option<InstanceSelection>,
        replace_existing: bool,
    },
    EcsCanaryDelete {},
    EcsBlueGreenCreateService {
        routes: Box<Routes>,
        same_as_already_running_instances: bool,
        enable_auto_scaling_in_swap_step: bool,
        update_green_service: bool,
        traffic_shift: bool,
    },
    EcsBlueGreenSwapTargetGroups {
        do_not_downsize_old_service: bool,
        downsize_old_service_delay_in_secs: Option<Field>,
    },
    EcsBlueGreenTrafficShift {
        shift: Shift,
    },
    EcsBlueGreenRollback {},
    StandAloneTrafficShiftRollback {},
    EcsServiceSetup {
        downsize_old_first: bool,
        same_as_already_running_instances: bool,
    },
    EcsUpgradeContainer {
        new_instances: InstanceSelection,
        downsize_old: Option<InstanceSelection>,
    },
    EcsBasicRollback {},
    EcsScale {
        service: Field,
        instances: InstanceSelection,
        skip_steady_state_check: bool,
    },
    EcsRunTask {
        shape: RunTaskShape,
    },
    /// Made by rule R25.
    EcsUndo {
        /// Identifier of the step that is undone.
        step: String,
        /// Its type.
        kind: String,
        /// Path of its name in the document, by which its runs are found.
        of: String,
    },
}

fn yes() -> bool {
    true
}

/// The shapes of EcsRunTask (rule R9), before expressions are resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "The fields are those of proto's RunTaskShape, where they are described.")]
#[expect(clippy::large_enum_variant, reason = "It stands in a boxed step; a second box would buy nothing.")]
pub enum RunTaskShape {
    Run {
        task: Option<TaskDefinition>,
        request: Document,
        wait_until_stopped: bool,
        skip_steady_state_check: bool,
        overrides: Option<Field>,
        network_from_service: Option<Field>,
        #[serde(default = "yes")]
        stop_on_abort: bool,
    },
    Describe {
        task_definition: Field,
    },
    Command {
        task_definition: Field,
        command: Field,
    },
    Register {
        document: Field,
    },
    Green {
        document: Field,
        service: Field,
        launch_type: Option<Field>,
        network_configuration: Option<Field>,
        desired_count: Option<Field>,
        target_group_arn: Option<Field>,
    },
    Shift {
        percent: Field,
        listener_rule_arn: Option<Field>,
        listener_arn: Option<Field>,
        blue_target_group_arn: Option<Field>,
        green_target_group_arn: Option<Field>,
    },
    Terminate {
        which: String,
    },
    /// Says that a service is to be ended, and not by its colour: which one is known when the stage's services are.
    TerminateNamed {
        words: RunTaskWords,
    },
}

impl EcsStep {
    /// Every field that may hold expressions.
    pub fn fields(&self) -> Vec<&Field> {
        let mut fields: Vec<&Field> = self.place.fields().collect();
        match &self.action {
            EcsAction::EcsCanaryDeploy { instances, .. } => {
                fields.extend(instances.iter().map(InstanceSelection::field));
            }
            EcsAction::EcsBlueGreenCreateService { routes, .. } => fields.extend(routes.fields()),
            EcsAction::EcsBlueGreenSwapTargetGroups { downsize_old_service_delay_in_secs, .. } => {
                fields.extend(downsize_old_service_delay_in_secs);
            }
            EcsAction::EcsBlueGreenTrafficShift { shift } => match shift {
                Shift::Inherit { weight } => fields.push(weight),
                Shift::Standalone { load_balancer, listener, listener_rule_arn, forward } => {
                    fields.extend([load_balancer, listener]);
                    fields.extend(listener_rule_arn);
                    fields.extend(forward.iter().flat_map(|(group, weight)| [group, weight]));
                }
            },
            EcsAction::EcsUpgradeContainer { new_instances, downsize_old } => {
                fields.push(new_instances.field());
                fields.extend(downsize_old.iter().map(InstanceSelection::field));
            }
            EcsAction::EcsScale { service, instances, .. } => fields.extend([service, instances.field()]),
            EcsAction::EcsRunTask { shape } => fields.extend(shape.fields()),
            EcsAction::EcsRollingDeploy { native, .. } => {
                fields.extend(&native.gates);
                fields.extend(&native.gate_timeout);
            }
            EcsAction::EcsContinueDeployment { until: Until::Weight(weight) } => fields.push(weight),
            EcsAction::EcsContinueDeployment { .. }
            | EcsAction::EcsRollingRollback { .. }
            | EcsAction::EcsCanaryDelete {}
            | EcsAction::EcsBlueGreenRollback {}
            | EcsAction::StandAloneTrafficShiftRollback {}
            | EcsAction::EcsServiceSetup { .. }
            | EcsAction::EcsBasicRollback {}
            | EcsAction::EcsUndo { .. } => {}
        }
        fields
    }

    /// Every connector that it names itself, and whether it must be of type `Aws`.
    pub fn connectors(&self) -> Vec<(&Field, bool)> {
        let mut all: Vec<(&Field, bool)> = self.place.connector.iter().map(|field| (field, true)).collect();
        if let EcsAction::EcsRunTask { shape: RunTaskShape::Run { task, request, .. } } = &self.action {
            let documents = task.iter().filter_map(|task| task.document.as_ref()).chain([request]);
            all.extend(documents.filter_map(Document::connector).map(|field| (field, false)));
        }
        all
    }

    /// Whether it may change something that undo data brings back. Registered revisions stay, and what deletes a canary
    /// brings nothing back.
    pub fn leaves_undo(&self) -> bool {
        match &self.action {
            EcsAction::EcsRollingDeploy { .. }
            | EcsAction::EcsCanaryDeploy { .. }
            | EcsAction::EcsBlueGreenCreateService { .. }
            | EcsAction::EcsBlueGreenSwapTargetGroups { .. }
            | EcsAction::EcsBlueGreenTrafficShift { .. }
            | EcsAction::EcsServiceSetup { .. }
            | EcsAction::EcsUpgradeContainer { .. }
            | EcsAction::EcsScale { .. } => true,
            EcsAction::EcsRunTask { shape } => match shape {
                RunTaskShape::Green { .. }
                | RunTaskShape::Shift { .. }
                | RunTaskShape::Terminate { .. }
                | RunTaskShape::TerminateNamed { .. } => true,
                RunTaskShape::Run { .. }
                | RunTaskShape::Describe { .. }
                | RunTaskShape::Command { .. }
                | RunTaskShape::Register { .. } => false,
            },
            // What is continued is undone by the step that began it.
            EcsAction::EcsContinueDeployment { .. }
            | EcsAction::EcsRollingRollback { .. }
            | EcsAction::EcsCanaryDelete {}
            | EcsAction::EcsBlueGreenRollback {}
            | EcsAction::StandAloneTrafficShiftRollback {}
            | EcsAction::EcsBasicRollback {}
            | EcsAction::EcsUndo { .. } => false,
        }
    }
}

impl RunTaskShape {
    fn fields(&self) -> Vec<&Field> {
        match self {
            RunTaskShape::Run { task, request, overrides, network_from_service, .. } => {
                let mut fields = request.fields();
                fields.extend(task.iter().flat_map(TaskDefinition::fields));
                fields.extend([overrides, network_from_service].into_iter().flatten());
                fields
            }
            RunTaskShape::Describe { task_definition } => vec![task_definition],
            RunTaskShape::Command { task_definition, command } => vec![task_definition, command],
            RunTaskShape::Register { document } => vec![document],
            RunTaskShape::Green {
                document,
                service,
                launch_type,
                network_configuration,
                desired_count,
                target_group_arn,
            } => {
                let optional = [launch_type, network_configuration, desired_count, target_group_arn];
                [document, service].into_iter().chain(optional.into_iter().flatten()).collect()
            }
            RunTaskShape::Shift {
                percent,
                listener_rule_arn,
                listener_arn,
                blue_target_group_arn,
                green_target_group_arn,
            } => {
                let optional =
                    [listener_rule_arn, listener_arn, blue_target_group_arn, green_target_group_arn];
                std::iter::once(percent).chain(optional.into_iter().flatten()).collect()
            }
            RunTaskShape::Terminate { .. } | RunTaskShape::TerminateNamed { .. } => Vec::new(),
        }
    }
}
