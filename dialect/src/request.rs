//! What a package asks for, as far as its answer has to know it.

/// A task of a Harness manager. It is made of a package without fail: also one that is refused gets the answer of its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Id of the task.
    pub task_id: String,
    /// `type` of the package; told back as it came.
    pub task_type: String,
    /// The family and what of it.
    pub kind: Kind,
    /// Names of the command units that the manager shows, in their order.
    pub units: Vec<String>,
    /// Units that our executor names otherwise than the package does: our name and the package's. Log streams and
    /// progress go by the package's.
    pub renamed: Vec<(&'static str, String)>,
}

/// Families of tasks. Each has response classes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP_TASK_NG.
    Http {
        /// As the package says.
        method: String,
        /// As the package says.
        url: String,
        /// The manager reads the body as bytes.
        bytes: bool,
    },
    /// SHELL_SCRIPT_TASK_NG.
    Shell,
    /// COMMAND_TASK_NG.
    Command {
        /// The host that the package names.
        host: Option<String>,
    },
    /// K8S_COMMAND_TASK_NG and its variants.
    Kubernetes {
        /// Which of them; `None` is one that this agent does not know.
        task: Option<K8sTask>,
        /// Told back with every pod.
        release: String,
    },
    /// ECS_COMMAND_TASK_NG and its variants.
    Ecs {
        /// Which of them; `None` is one that this agent does not know.
        command: Option<EcsCommand>,
        /// Told back.
        region: String,
        /// Told back.
        infrastructure_key: String,
    },
    /// A check of a Kubernetes connector.
    KubernetesCheck,
    /// A check of an AWS connector.
    AwsCheck,
    /// A check of a Git connector.
    GitCheck,
    /// A type whose responses this agent does not know.
    Other,
}

/// Declares the names by which one family tells its tasks apart, with the command units of each.
macro_rules! tasks {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $wire:literal [$($unit:literal),*],)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "The names are Harness' own.")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// Every one.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The name in the package.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $wire,)* }
            }

            /// By its name in the package.
            pub fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }

            /// Its command units in their order, without those that only some packages have.
            pub fn units(self) -> &'static [&'static str] {
                match self { $($name::$variant => &[$($unit),*],)* }
            }
        }
    };
}

tasks! {
    /// `taskType` of a Kubernetes package. **Source**: facts `k8s-steps.md` §1.1, §1.3.
    K8sTask {
        Apply "APPLY" ["Fetch Files", "Initialize", "Prepare", "Apply", "Wait for Steady State", "Wrap Up"],
        Rolling "DEPLOYMENT_ROLLING" ["Fetch Files", "Initialize", "Prepare", "Apply", "Wait for Steady State", "Wrap Up"],
        RollingRollback "DEPLOYMENT_ROLLING_ROLLBACK" ["Initialize", "Rollback", "Wait for Steady State"],
        CanaryDeploy "CANARY_DEPLOY" ["Fetch Files", "Initialize", "Prepare", "Apply", "Wait for Steady State", "Wrap Up"],
        CanaryDelete "CANARY_DELETE" ["Initialize", "Delete"],
        BlueGreenDeploy "BLUE_GREEN_DEPLOY" ["Fetch Files", "Initialize", "Prepare", "Apply", "Wait for Steady State", "Wrap Up"],
        SwapServiceSelectors "SWAP_SERVICE_SELECTORS" ["Swap Service Selectors"],
        BlueGreenStageScaleDown "BLUE_GREEN_STAGE_SCALE_DOWN" ["Initialize", "Scale"],
        Scale "SCALE" ["Initialize", "Scale", "Wait for Steady State", "Wrap Up"],
        Delete "DELETE" ["Initialize", "Delete"],
        DryRunManifest "DRY_RUN_MANIFEST" ["Fetch Files", "K8s Dry Run"],
        TrafficRouting "TRAFFIC_ROUTING" ["Traffic Routing", "Apply"],
        InstanceSync "INSTANCE_SYNC" [],
    }
}

tasks! {
    /// `ecsCommandType` of an ECS package. **Source**: facts `ecs-ssh-steps.md` A0.
    EcsCommand {
        RollingDeploy "ECS_ROLLING_DEPLOY" ["Deploy"],
        TaskArnRollingDeploy "ECS_TASK_ARN_ROLLING_DEPLOY" ["Deploy"],
        PrepareRollbackData "ECS_PREPARE_ROLLBACK_DATA" ["Prepare Rollback Data"],
        RollingRollback "ECS_ROLLING_ROLLBACK" ["Rollback"],
        CanaryDeploy "ECS_CANARY_DEPLOY" ["Deploy"],
        TaskArnCanaryDeploy "ECS_TASK_ARN_CANARY_DEPLOY" ["Deploy"],
        CanaryDelete "ECS_CANARY_DELETE" ["Delete Service"],
        BlueGreenPrepareRollbackData "ECS_BLUE_GREEN_PREPARE_ROLLBACK_DATA" ["Prepare Rollback Data"],
        BlueGreenCreateService "ECS_BLUE_GREEN_CREATE_SERVICE" ["Deploy"],
        TaskArnBlueGreenCreateService "ECS_TASK_ARN_BLUE_GREEN_CREATE_SERVICE" ["Deploy"],
        BlueGreenSwapTargetGroups "ECS_BLUE_GREEN_SWAP_TARGET_GROUPS" ["Swap Target Group"],
        BlueGreenRollback "ECS_BLUE_GREEN_ROLLBACK" ["Rollback"],
        RunTask "ECS_RUN_TASK" ["Run Task"],
        RunTaskArn "ECS_RUN_TASK_ARN" ["Run Task"],
        BasicPrepareRollback "ECS_BASIC_PREPARE_ROLLBACK" ["Prepare Rollback Data"],
        ServiceSetup "ECS_SERVICE_SETUP" ["Service Setup"],
        UpgradeContainer "ECS_UPGRADE_CONTAINER" ["Upgrade Container"],
        BasicRollback "ECS_BASIC_ROLLBACK" ["Rollback"],
    }
}

impl Request {
    /// The request of a package whose content is not known yet, or cannot be read.
    pub fn of_type(task_id: &str, task_type: &str) -> Request {
        let kind = match task_type {
            "HTTP_TASK_NG" => Kind::Http { method: String::new(), url: String::new(), bytes: false },
            "SHELL_SCRIPT_TASK_NG" => Kind::Shell,
            "VALIDATE_KUBERNETES_CONFIG" => Kind::KubernetesCheck,
            "NG_AWS_TASK" => Kind::AwsCheck,
            "NG_GIT_COMMAND" => Kind::GitCheck,
            // Variants have a suffix: they differ in what the manager asks of an agent, not in the response.
            other if other.starts_with("COMMAND_TASK_NG") => Kind::Command { host: None },
            other if other.starts_with("K8S_COMMAND_TASK_NG") => {
                Kind::Kubernetes { task: None, release: String::new() }
            }
            // Some commands have a task type of their own, such as ECS_SERVICE_SETUP_TASK_NG.
            other if other.starts_with("ECS_") => {
                Kind::Ecs { command: None, region: String::new(), infrastructure_key: String::new() }
            }
            _ => Kind::Other,
        };
        let units = match kind {
            Kind::Shell => vec!["Execute".to_owned()],
            Kind::Command { .. } => vec!["Initialize".to_owned()],
            _ => Vec::new(),
        };
        Request {
            task_id: task_id.to_owned(),
            task_type: task_type.to_owned(),
            kind,
            units,
            renamed: Vec::new(),
        }
    }

    /// The name by which the manager knows a unit of our executor's.
    pub fn unit_name<'a>(&'a self, unit: &'a str) -> &'a str {
        self.renamed.iter().find(|(own, _)| *own == unit).map_or(unit, |(_, name)| name)
    }
}
