//! The typed document a task carries in `data` (DESIGN D2): one fully resolved step and everything it needs.
//!
//! Secrets stand here only as placeholders ([`Text`]) and references ([`SecretRef`]); their values travel sealed in the
//! envelope. A document of a type this build does not know decodes to [`StepSpec::Unknown`] and is refused by name.

mod aws;
mod checks;
mod command;
mod ecs;
mod internal;
mod kubernetes;
mod logins;
mod place;
mod source;

pub use aws::*;
pub use checks::*;
pub use command::*;
pub use ecs::*;
pub use internal::*;
pub use kubernetes::*;
pub use place::*;
pub use source::*;

use crate::text::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of this document that we write. Readers accept it and every older one.
pub const TASK_VERSION: u32 = 1;

/// Everything one task carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepTask {
    /// See [`TASK_VERSION`].
    pub version: u32,
    /// The step itself.
    pub step: Step,
    /// Which run this belongs to.
    pub execution: ExecutionRef,
    /// Where it runs. `None` for steps that touch no target.
    #[serde(default)]
    pub infrastructure: Option<Infrastructure>,
    /// The service of the stage.
    #[serde(default)]
    pub service: Option<Service>,
    /// The primary artifact, pinned when the stage started.
    #[serde(default)]
    pub artifact: Option<Artifact>,
    /// Manifests of the service (Kubernetes, ECS): typed when those executors come.
    #[serde(default)]
    pub manifests: Vec<Value>,
    /// Config files of the service.
    #[serde(default)]
    pub config_files: Vec<ConfigFile>,
    /// Undo data that the forward step recorded; only in rollback steps.
    #[serde(default)]
    pub undo: Option<Value>,
    /// Variables exported to scripts: stage < pipeline < service < step.
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    /// Token that every genuine secret placeholder of this execution carries.
    #[serde(default)]
    pub secret_token: i64,
    /// Rehearsal factor (D16): waits and analysis windows are divided by it. `None` = real time.
    #[serde(default)]
    pub rehearsal: Option<u32>,
}

impl StepTask {
    /// A task of this step alone: of no run, without target, variables and rehearsal. Whoever has more adds it by struct
    /// update.
    pub fn of(step: Step) -> Self {
        StepTask {
            version: TASK_VERSION,
            step,
            execution: ExecutionRef::default(),
            infrastructure: None,
            service: None,
            artifact: None,
            manifests: Vec::new(),
            config_files: Vec::new(),
            undo: None,
            env: BTreeMap::new(),
            secret_token: 0,
            rehearsal: None,
        }
    }
}

/// Which run a task belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecutionRef {
    /// Id of the execution.
    pub execution_id: String,
    /// Identifier of the pipeline.
    pub pipeline: String,
    /// Per-pipeline counter, from 1.
    pub sequence_id: u64,
    /// Identifier of the stage.
    pub stage: String,
    /// Path of identifiers from `pipeline` to the step; unique within the execution, equal for every attempt.
    pub node: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Id of the finished execution that this one undoes: what that one made is this one's to remove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolls_back: Option<String>,
}

impl ExecutionRef {
    /// Ids of the executions whose doings are this one's to change and remove: its own, and the one that it undoes.
    pub fn covered(&self) -> impl Iterator<Item = &str> {
        [Some(self.execution_id.as_str()), self.rolls_back.as_deref()]
            .into_iter()
            .flatten()
            .filter(|id| !id.is_empty())
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// As in the YAML, with loop postfix.
    pub identifier: String,
    /// For people.
    pub name: String,
    /// What to do.
    pub spec: StepSpec,
}

/// The closed set of steps (D3). Adding a kind makes the compiler list every place it touches.
#[derive(Clone, Debug, PartialEq)]
pub enum StepSpec {
    /// Command units on a host.
    Command(CommandSpec),
    /// One HTTP request with assertion.
    Http(HttpSpec),
    /// A metric analysis.
    Verify(VerifySpec),
    /// A script on the agent itself.
    ShellScript(ShellScriptSpec),
    /// Any step of the Kubernetes family.
    Kubernetes(Box<KubernetesSpec>),
    /// Any step of the ECS family.
    Ecs(Box<EcsSpec>),
    /// Internal: looks up the tag of an artifact and pins its digest.
    ResolveArtifact(ResolveArtifactSpec),
    /// Internal: `delegate connector test`.
    ConnectorTest(ConnectorTestSpec),
    /// Internal: answers at once after one log line. It proves that dispatch works and measures it.
    Noop(NoopSpec),
    /// A type that this build does not know.
    Unknown {
        /// The wire tag.
        kind: String,
        /// Its spec, untouched.
        spec: Value,
    },
}

/// Wire tags of the steps that this build can decode, beside the families of Kubernetes ([`KUBERNETES_KINDS`])
/// and ECS ([`ECS_KINDS`]).
pub const STEP_KINDS: [&str; 7] =
    ["Command", "Http", "Verify", "ShellScript", "ResolveArtifact", "ConnectorTest", "Noop"];

impl StepSpec {
    /// The wire tag: the step type as pipeline YAML names it.
    pub fn kind(&self) -> &str {
        match self {
            StepSpec::Command(_) => "Command",
            StepSpec::Http(_) => "Http",
            StepSpec::Verify(_) => "Verify",
            StepSpec::ShellScript(_) => "ShellScript",
            StepSpec::Kubernetes(spec) => spec.action.kind(),
            StepSpec::Ecs(spec) => spec.action.kind(),
            StepSpec::ResolveArtifact(_) => "ResolveArtifact",
            StepSpec::ConnectorTest(_) => "ConnectorTest",
            StepSpec::Noop(_) => "Noop",
            StepSpec::Unknown { kind, .. } => kind,
        }
    }

    /// The Harness task family that this step travels under (`type` of the package).
    pub fn task_type(&self) -> &'static str {
        match self {
            StepSpec::Command(_) => "COMMAND_TASK_NG",
            StepSpec::Http(_) => "HTTP_TASK_NG",
            StepSpec::Verify(_) => "DELEGATE_VERIFY_TASK",
            StepSpec::ShellScript(_) => "SHELL_SCRIPT_TASK_NG",
            StepSpec::Kubernetes(_) => "K8S_COMMAND_TASK_NG",
            StepSpec::Ecs(_) => "ECS_COMMAND_TASK_NG",
            StepSpec::ResolveArtifact(_) => "DELEGATE_ARTIFACT_TASK",
            StepSpec::ConnectorTest(_) => "DELEGATE_CONNECTOR_TEST_TASK",
            StepSpec::Noop(_) | StepSpec::Unknown { .. } => "DELEGATE_NOOP_TASK",
        }
    }

    fn to_value(&self) -> Result<Value, serde_json::Error> {
        match self {
            StepSpec::Command(spec) => serde_json::to_value(spec),
            StepSpec::Http(spec) => serde_json::to_value(spec),
            StepSpec::Verify(spec) => serde_json::to_value(spec),
            StepSpec::ShellScript(spec) => serde_json::to_value(spec),
            StepSpec::Kubernetes(spec) => serde_json::to_value(spec),
            StepSpec::Ecs(spec) => serde_json::to_value(spec),
            StepSpec::ResolveArtifact(spec) => serde_json::to_value(spec),
            StepSpec::ConnectorTest(spec) => serde_json::to_value(spec),
            StepSpec::Noop(spec) => serde_json::to_value(spec),
            StepSpec::Unknown { spec, .. } => Ok(spec.clone()),
        }
    }

    fn from_value(kind: &str, spec: Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            "Command" => StepSpec::Command(serde_json::from_value(spec)?),
            "Http" => StepSpec::Http(serde_json::from_value(spec)?),
            "Verify" => StepSpec::Verify(serde_json::from_value(spec)?),
            "ShellScript" => StepSpec::ShellScript(serde_json::from_value(spec)?),
            kind if KUBERNETES_KINDS.contains(&kind) => StepSpec::Kubernetes(serde_json::from_value(spec)?),
            kind if ECS_KINDS.contains(&kind) => StepSpec::Ecs(serde_json::from_value(spec)?),
            "ResolveArtifact" => StepSpec::ResolveArtifact(serde_json::from_value(spec)?),
            "ConnectorTest" => StepSpec::ConnectorTest(serde_json::from_value(spec)?),
            "Noop" => StepSpec::Noop(serde_json::from_value(spec)?),
            other => StepSpec::Unknown { kind: other.to_owned(), spec },
        })
    }
}

/// The wire form of [`Step`]: `{type, identifier, name, spec}`.
#[derive(Serialize, Deserialize)]
struct WireStep {
    r#type: String,
    identifier: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    spec: Value,
}

impl Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireStep {
            r#type: self.spec.kind().to_owned(),
            identifier: self.identifier.clone(),
            name: self.name.clone(),
            spec: self.spec.to_value().map_err(serde::ser::Error::custom)?,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireStep::deserialize(deserializer)?;
        let spec = StepSpec::from_value(&wire.r#type, wire.spec).map_err(|e| {
            serde::de::Error::custom(format!("step `{}` of type {}: {e}", wire.identifier, wire.r#type))
        })?;
        Ok(Step { identifier: wire.identifier, name: wire.name, spec })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noop() -> StepTask {
        let spec = StepSpec::Noop(NoopSpec { line: "hi".into() });
        let step = Step { identifier: "ping".into(), name: "Ping".into(), spec };
        StepTask { secret_token: 7, ..StepTask::of(step) }
    }

    #[test]
    fn a_task_survives_the_wire() {
        let text = serde_json::to_string(&noop()).unwrap();
        assert_eq!(serde_json::from_str::<StepTask>(&text).unwrap(), noop());
    }

    #[test]
    fn an_unknown_step_decodes_and_keeps_its_spec() {
        let text = serde_json::to_string(&noop()).unwrap().replace("\"Noop\"", "\"FooBar\"");
        let task: StepTask = serde_json::from_str(&text).unwrap();
        assert_eq!(task.step.spec.kind(), "FooBar");
        assert_eq!(serde_json::to_value(&task).unwrap()["step"]["spec"]["line"], "hi");
    }

    #[test]
    fn a_wrong_field_is_named_with_its_step() {
        let text = serde_json::to_string(&noop()).unwrap().replace("\"hi\"", "7");
        let error = serde_json::from_str::<StepTask>(&text).unwrap_err().to_string();
        assert!(error.contains("step `ping` of type Noop"), "{error}");
    }
}
