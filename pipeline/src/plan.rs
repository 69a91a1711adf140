//! The plan: everything about a run that is known before it starts, frozen, so that later edits change nothing.

mod nodes;

pub use nodes::Nodes;

use crate::fault::{Mode, Notice};
use crate::model::connector::Connector;
use crate::model::failure::Strategies;
use crate::model::looping::LoopKind;
use crate::model::pipeline::StageKind;
use crate::model::service::Definition;
use crate::model::step::{Looping, Spec, When};
use crate::model::{Field, Variable, scope_name};
use crate::trigger::TriggerFacts;
use proto::task::{Artifact, ConfigFile, HostKeyMode};
use proto::text::SecretRef;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// Version of the stored form.
pub const PLAN_VERSION: u32 = 1;

/// Node of the pipeline itself.
pub const ROOT: usize = 0;

/// A frozen run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// See [`PLAN_VERSION`].
    pub version: u32,
    /// Which run this is.
    pub run: RunFacts,
    /// Tags of the pipeline.
    pub tags: Json,
    /// Pipeline variables with the inputs filled in.
    pub variables: Vec<Variable>,
    /// All nodes; [`ROOT`] is the pipeline.
    pub nodes: Nodes,
    /// Connectors by the reference that names them.
    pub connectors: BTreeMap<String, Connector>,
    /// Host keys that were known at the start, by `host:port`.
    pub host_keys: BTreeMap<String, Vec<String>>,
    /// Logins that steps name themselves (`executionTarget.connectorRef`), by reference.
    #[serde(default)]
    pub logins: BTreeMap<String, Login>,
    /// Host-key policy.
    pub host_key_mode: HostKeyMode,
    /// What rollback steps of earlier runs deployed, by stage key (settled facts §2.6).
    pub last_successful: BTreeMap<String, StageRecord>,
    /// Applied rules.
    pub notices: Vec<Notice>,
    /// Identifiers of the barriers that its steps wait at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub barriers: Vec<String>,
}

/// Facts of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunFacts {
    /// Account.
    pub account: String,
    /// Organisation.
    pub org: String,
    /// Project.
    pub project: String,
    /// Identifier of the pipeline.
    pub pipeline: String,
    /// Name of the pipeline, rendered.
    pub name: String,
    /// Id of the execution.
    pub execution_id: String,
    /// Per-pipeline counter from 1.
    pub sequence_id: u64,
    /// Who started it.
    pub started_by: String,
    /// Epoch milliseconds.
    pub started_at: u64,
    /// Rehearsal factor (D16).
    pub rehearsal: Option<u32>,
    /// Token of genuine secret placeholders.
    pub secret_token: i64,
    /// Tolerance.
    pub mode: Mode,
    /// References to user groups that existed at the start. Who is in them is asked when somebody acts, never frozen.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// The event that started it, if it was not a person.
    pub trigger: Option<TriggerFacts>,
    /// The finished execution that this one rolls back: it runs nothing but rollback steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolls_back: Option<String>,
}

impl RunFacts {
    /// The scope in which the run looks for entities.
    pub fn scope(&self) -> String {
        scope_name(&self.org, &self.project)
    }
}

/// One iteration of a loop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Iteration {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub total: usize,
    /// `<+repeat.item>`, `<+repeat.partition>` or the map behind `<+matrix.AXIS>`.
    pub item: Json,
    /// Made by rule R7: the item is a host of the stage.
    pub is_host: bool,
    /// What the item is.
    pub kind: LoopKind,
    /// What its identifier ends with. Empty: `_` and the index.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub postfix: String,
}

/// What a stage deployed when it last succeeded on an infrastructure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StageRecord {
    /// Execution that did it.
    pub execution_id: String,
    /// The artifact as pinned then.
    pub artifact: Option<Artifact>,
    /// Its outputs: `tag`, `digest`, `image`.
    pub artifact_outputs: BTreeMap<String, Json>,
    /// Config files as resolved then.
    pub config_files: Vec<ConfigFile>,
    /// Service variables as resolved then.
    pub variables: BTreeMap<String, RecordedValue>,
    /// Token of the placeholders in `artifact` and `config_files`.
    pub secret_token: i64,
}

/// A variable of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedValue {
    /// Its text.
    pub text: String,
    /// It names secrets: the text is an expression and is resolved again. Otherwise it is used as it stands.
    pub expression: bool,
}

/// One node of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanNode {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: Field,
    /// What it is.
    pub kind: NodeKind,
    /// Enclosing node.
    pub parent: Option<usize>,
    /// Members in order.
    pub children: Vec<usize>,
    /// Rollback members in order.
    pub rollback: Vec<usize>,
    /// Its id without those of its ancestors: `stages.S`, `spec.execution.steps.X`, `steps.X`.
    pub part: String,
    /// Its whole id outside of loops.
    pub path: String,
    /// Inside the rollback steps of a stage or group.
    pub in_rollback: bool,
    /// Condition.
    pub when: Option<When>,
    /// Timeout, milliseconds. `None`: the default of its kind.
    pub timeout_ms: Option<u64>,
    /// What to do about failures, all levels merged.
    pub strategies: Strategies,
    /// Selectors of this level.
    pub selectors: Option<Field>,
    /// Loop.
    pub looping: Option<Looping>,
    /// The iteration that a copy stands for: a stage with several services or environments, or a loop that its target
    /// names, is copied when the run is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Iteration>,
    /// The first copy of the same stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<usize>,
    /// The members of this block are the copies of one stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// Variables of a step group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// What the step asks for when it is reached: its fields with `<+input>.executionInput()`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<InputAsk>,
}

impl PlanNode {
    /// One that stands alone: no members, no settings.
    pub(crate) fn bare(identifier: &str, name: Field, kind: NodeKind) -> PlanNode {
        PlanNode {
            identifier: identifier.to_owned(),
            name,
            kind,
            parent: None,
            children: Vec::new(),
            rollback: Vec::new(),
            part: String::new(),
            path: String::new(),
            in_rollback: false,
            when: None,
            timeout_ms: None,
            strategies: Strategies::new(),
            selectors: None,
            looping: None,
            fixed: None,
            follows: None,
            copies: None,
            variables: Vec::new(),
            asks: Vec::new(),
        }
    }
}

/// A field of a step that somebody fills when the step is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputAsk {
    /// What people call it: its path in the step, with members of lists by their names.
    pub name: String,
    /// Its path in the document.
    pub path: String,
    /// As written: `<+input>` with its suffixes.
    pub text: String,
}

/// How the copies of a stage run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copies {
    /// At most so many at once.
    pub at_once: usize,
    /// Those that have not begun when one fails do not begin any more.
    pub skip_queued: bool,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeKind {
    /// The pipeline.
    Pipeline,
    /// A stage.
    Stage(Box<StagePlan>),
    /// The artifact lookup at the start of a stage.
    Artifact,
    /// A step group.
    Group,
    /// Members that start together.
    Parallel,
    /// A step.
    Step {
        /// Type as written.
        kind: String,
        /// What to do.
        spec: Box<Spec>,
        /// Rule R7: once per host of the stage.
        per_host: bool,
    },
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagePlan {
    /// Kind.
    pub kind: StageKind,
    /// Variables.
    pub variables: Vec<Variable>,
    /// Tags.
    pub tags: Json,
    /// What it deploys, and where.
    pub target: Option<TargetPlan>,
    /// Node of the artifact lookup.
    pub artifact: Option<usize>,
}

/// What a stage deploys, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetPlan {
    /// Service.
    pub service: ServicePlan,
    /// Environment.
    pub environment: EnvironmentPlan,
    /// Infrastructure.
    pub infrastructure: InfrastructurePlan,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePlan {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Tags.
    pub tags: Json,
    /// Effective definition.
    pub definition: Definition,
    /// The definition as JSON, for `serviceConfig.*` expressions.
    pub document: Json,
}

/// An environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentPlan {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// `Production` or `PreProduction`.
    pub kind: String,
    /// Tags.
    pub tags: Json,
    /// Variables.
    pub variables: Vec<Variable>,
}

/// An infrastructure with its hosts and the login to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InfrastructurePlan {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// `Pdc`, `KubernetesDirect` or `ECS`.
    pub kind: String,
    /// Hosts in the order of their definition.
    pub hosts: Vec<HostPlan>,
    /// How to log in. `None`: the stage opens no SSH connection.
    pub login: Option<Login>,
    /// Connector reference.
    pub connector: Option<String>,
    /// Selectors (rule R4).
    pub selectors: Option<Field>,
    /// Tags.
    pub tags: Json,
    /// Stable key of service, environment and infrastructure.
    pub key: String,
    /// `allowSimultaneousDeployments`: several executions may deploy to it at once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub simultaneous: bool,
    /// Of a cluster: its connector as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector_field: Option<Field>,
    /// Of a cluster: where objects lie that name no namespace; of ECS: a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Field>,
    /// Of a cluster: name of the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_name: Option<Field>,
    /// Of ECS: its region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Field>,
    /// Of ECS: name or ARN of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Field>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// As written in the infrastructure, maybe with a port.
    pub written: String,
    /// Without port.
    pub host: String,
    /// Port, if the host itself names one.
    pub port: Option<u16>,
    /// Attributes.
    pub attributes: Json,
}

/// How to log in to the hosts of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// Login name.
    pub user: String,
    /// Port.
    pub port: u16,
    /// Private key.
    pub key: SecretRef,
    /// Its passphrase.
    pub passphrase: Option<SecretRef>,
}

impl Plan {
    /// A node.
    pub fn node(&self, index: usize) -> Option<&PlanNode> {
        self.nodes.get(index)
    }

    /// The stage that encloses a node, itself included.
    pub fn stage_of(&self, mut index: usize) -> Option<(usize, &StagePlan)> {
        loop {
            let node = self.nodes.get(index)?;
            if let NodeKind::Stage(stage) = &node.kind {
                return Some((index, stage));
            }
            index = node.parent?;
        }
    }

    /// The deployment target of the stage that encloses a node.
    pub fn target_of(&self, index: usize) -> Option<&TargetPlan> {
        self.stage_of(index).and_then(|(_, stage)| stage.target.as_ref())
    }
}

/// Splits `host:port`. An address with several colons is an IPv6 address without port.
pub fn split_host(written: &str) -> HostPlan {
    let attributes = Json::Null;
    if let Some((host, port)) = written.rsplit_once(':')
        && !host.contains(':')
        && let Ok(port) = port.parse()
    {
        return HostPlan { written: written.to_owned(), host: host.to_owned(), port: Some(port), attributes };
    }
    HostPlan { written: written.to_owned(), host: written.to_owned(), port: None, attributes }
}
