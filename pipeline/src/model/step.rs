//! Steps, groups and parallel blocks.

use super::failure::Strategies;
pub use super::looping::Looping;
use super::monitored_service::HealthMetric;
use super::read::Field;
use crate::fault::Place;
use proto::task::{CopySource, OutputVariable, Shell};
use serde::{Deserialize, Serialize};

/// Step types that a pipeline may use, beside the families of Kubernetes ([`proto::task::KUBERNETES_KINDS`]) and ECS
/// ([`proto::task::ECS_KINDS`]).
pub const STEP_TYPES: [&str; 10] = [
    "Command",
    "ArtifactoryDownload",
    "ShellScript",
    "Http",
    "Verify",
    "Policy",
    "HarnessApproval",
    "Wait",
    "Barrier",
    "Noop",
];

/// A member of a `steps` list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepNode {
    /// One step.
    Step(Box<Step>),
    /// A group.
    Group(Box<Group>),
    /// Members that start together.
    Parallel(Vec<StepNode>),
}

/// What steps, groups and stages have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// Identifier.
    pub identifier: String,
    /// Name; may hold expressions.
    pub name: Field,
    /// Path in the document.
    pub path: String,
    /// Place in the document.
    pub at: Place,
    /// Condition.
    pub when: Option<When>,
    /// Own level of failure strategies. `None`: none written.
    pub strategies: Option<Strategies>,
    /// Loop.
    pub looping: Option<Looping>,
    /// `delegateSelectors` of this level.
    pub selectors: Option<Field>,
    /// Timeout.
    pub timeout: Option<Field>,
}

/// A group of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Common part.
    pub frame: Frame,
    /// Variables: `<+stepGroup.variables.NAME>`.
    #[serde(default)]
    pub variables: Vec<super::Variable>,
    /// Members.
    pub steps: Vec<StepNode>,
    /// Run by StepGroupRollback.
    pub rollback: Vec<StepNode>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Common part.
    pub frame: Frame,
    /// Type as written.
    pub kind: String,
    /// What to do.
    pub spec: Spec,
}

/// What a step does, with its expressions as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Spec {
    /// Command units.
    Command {
        /// On the agent instead of a host.
        on_delegate: bool,
        /// Explicit host.
        host: Option<Field>,
        /// Units.
        units: Vec<Unit>,
        /// Exported before scripts.
        env: Vec<(String, Field)>,
        /// Read back after scripts.
        outputs: Vec<OutputVariable>,
    },
    /// A script on the agent, or on the host of its execution target.
    ShellScript {
        /// Explicit host; `None`: on the agent.
        host: Option<Field>,
        /// SSHKey secret or Ssh connector for that host; `None`: the login of the stage's infrastructure.
        credential: Option<Field>,
        /// Interpreter.
        shell: Shell,
        /// Text.
        script: Field,
        /// Start directory.
        working_directory: Option<Field>,
        /// Exported before the script.
        env: Vec<(String, Field)>,
        /// Read back after the script.
        outputs: Vec<OutputVariable>,
    },
    /// One request.
    Http {
        /// URL.
        url: Field,
        /// Method.
        method: Field,
        /// Headers.
        headers: Vec<(Field, Field)>,
        /// Body.
        body: Option<Field>,
        /// Condition over the answer.
        assertion: Option<Field>,
        /// Expressions over the answer.
        outputs: Vec<OutputVariable>,
        /// Limit of the request.
        request_timeout: Option<Field>,
    },
    /// Any step of the Kubernetes family.
    Kubernetes(Box<super::step_k8s::K8sStep>),
    /// Any step of the ECS family.
    Ecs(Box<super::ecs::EcsStep>),
    /// Analysis of a metric.
    Verify(Box<Verify>),
    /// Asks policy sets about a document.
    Policy {
        /// References of the sets: a list, or an expression that gives one.
        sets: Field,
        /// The document: JSON, or a text that becomes JSON.
        payload: Field,
    },
    /// Waits for people.
    Approval(Box<super::step_approval::Approval>),
    /// Waits in the manager.
    Wait {
        /// How long.
        duration: Field,
    },
    /// Waits in the manager until every other step of the same barrier has arrived.
    Barrier {
        /// Identifier of a barrier of the pipeline.
        barrier: Field,
    },
    /// Answers at once: it proves that dispatch works.
    Noop {
        /// Log line.
        line: Field,
    },
}

/// The inline Verify form (rule R10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// `Prometheus`, `CloudWatch`, `CloudWatchLogs`, `Canary`, or `None`: nothing to ask, the step is skipped with a notice.
    pub provider: Option<String>,
    /// Where to ask.
    pub connector: Option<Field>,
    /// Label and direction.
    pub metric_name: Option<Field>,
    /// What to ask.
    pub query: Option<Field>,
    /// `Absolute` or `Percentage`, and the limit.
    pub threshold: Option<(ThresholdKind, Field)>,
    /// Explicit direction.
    pub comparison: Option<Field>,
    /// Length of the window.
    pub duration: Option<Field>,
    /// No data fails.
    pub fail_on_no_analysis: bool,
    /// `baseline`, `canary`, `deploymentTag`.
    pub labels: Vec<(String, Field)>,
    /// `type: Canary`: nodes against the rest.
    #[serde(default)]
    pub canary: Option<CanaryVerify>,
    /// `type: CloudWatch` and `CloudWatchLogs`: what the metric is of and where events lie, where that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_watch: Option<Box<CloudWatchVerify>>,
}

/// What an inline CloudWatch query may say beside its metric; each outweighs what the metric's name and the stage give.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudWatchVerify {
    /// Namespace.
    pub namespace: Option<Field>,
    /// Dimensions: a map, or a list of `{name, value}`.
    pub dimensions: Option<Field>,
    /// Statistic.
    pub statistic: Option<Field>,
    /// Region, instead of the infrastructure's.
    pub region: Option<Field>,
    /// Log groups: a name or a list of names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_group: Option<Field>,
    /// How the names of log streams begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_stream_prefix: Option<Field>,
}

/// What a Verify step of `type: Canary` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryVerify {
    /// `HIGH`, `MEDIUM` or `LOW`, in any case; MEDIUM when it is not written.
    pub sensitivity: Option<Field>,
    /// Reference to the monitored service; `None`: that of service and environment.
    pub monitored_service: Option<Field>,
    /// Identifiers of the health sources; empty: all of them.
    pub health_sources: Vec<String>,
    /// Their metrics, frozen when the run is planned.
    pub metrics: Vec<HealthMetric>,
}

/// Kinds of thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are the seed's own.")]
pub enum ThresholdKind {
    Absolute,
    Percentage,
}

/// One command unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// What it does.
    pub kind: UnitKind,
}

/// What a unit does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
#[expect(
    clippy::large_enum_variant,
    reason = "Few of them live at a time; boxing would only hide the fields."
)]
pub enum UnitKind {
    /// Runs a script.
    Script {
        /// Interpreter.
        shell: Shell,
        /// Text.
        script: Field,
        /// Start directory.
        working_directory: Option<Field>,
    },
    /// Copies the artifact or the config files.
    Copy {
        /// Which.
        source_type: CopySource,
        /// Where to.
        destination: Field,
    },
    /// Downloads a file to the host.
    Download {
        /// Where to.
        destination: Field,
        /// From where; `None`: the primary artifact.
        source: Option<DownloadFrom>,
    },
}

/// An explicit download source (rule R8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadFrom {
    /// Artifactory connector.
    pub connector: Field,
    /// Repository.
    pub repository: Field,
    /// Path in it.
    pub path: Field,
}

/// When a node runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct When {
    /// Which status of the enclosing scope is needed.
    pub status: WhenStatus,
    /// Further condition.
    pub condition: Option<Field>,
}

/// Status part of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own.")]
pub enum WhenStatus {
    Success,
    Failure,
    All,
}
