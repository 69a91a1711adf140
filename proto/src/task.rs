//! The typed document a task carries in `data` (DESIGN D2): one fully resolved step and everything it needs.
//!
//! Secrets stand here only as placeholders ([`Text`]) and references ([`SecretRef`]); their values travel sealed in the
//! envelope. A document of a type this build does not know decodes to [`StepSpec::Unknown`] and is refused by name.

use crate::text::{SecretRef, Text};
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

/// Wire tags of the steps that this build can decode, in the order of the enum.
pub const STEP_KINDS: [&str; 6] = ["Command", "Http", "Verify", "ResolveArtifact", "ConnectorTest", "Noop"];

impl StepSpec {
    /// The wire tag: the step type as pipeline YAML names it.
    pub fn kind(&self) -> &str {
        match self {
            StepSpec::Command(_) => "Command",
            StepSpec::Http(_) => "Http",
            StepSpec::Verify(_) => "Verify",
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

// --- Command ---

/// A Command step on one host (D15: one task per host).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandSpec {
    /// The host. `None` means: on the agent itself (`onDelegate: true`).
    #[serde(default)]
    pub target: Option<SshTarget>,
    /// Units in their order; `Init` and `Cleanup` are implicit.
    pub units: Vec<CommandUnit>,
    /// Shell variables read back after the scripts.
    #[serde(default)]
    pub output_variables: Vec<OutputVariable>,
}

/// One command unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandUnit {
    /// Identifier, unique in the step.
    pub identifier: String,
    /// Name; its log stream carries it.
    pub name: String,
    /// What the unit does.
    #[serde(flatten)]
    pub kind: UnitKind,
}

/// What a command unit does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "spec")]
pub enum UnitKind {
    /// Runs a script on the host.
    #[serde(rename_all = "camelCase")]
    Script {
        /// Interpreter.
        shell: Shell,
        /// The text; may hold secret placeholders.
        script: Text,
        /// Directory to start in. Default: the login directory.
        #[serde(default)]
        working_directory: Option<Text>,
    },
    /// Copies the artifact or the config files to the host.
    #[serde(rename_all = "camelCase")]
    Copy {
        /// What to copy.
        source_type: CopySource,
        /// Directory (trailing `/` or existing) or file path.
        destination_path: Text,
    },
    /// Downloads an artifact to the host.
    #[serde(rename_all = "camelCase")]
    DownloadArtifact {
        /// Directory (trailing `/` or existing) or file path.
        destination_path: Text,
        /// From where. `None`: the primary artifact of the stage.
        #[serde(default)]
        source: Option<DownloadSource>,
    },
}

/// Interpreters a script may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own.")]
pub enum Shell {
    Bash,
    Sh,
    PowerShell,
    Python,
}

/// What a Copy unit copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own.")]
pub enum CopySource {
    Artifact,
    Config,
}

/// A shell variable that becomes an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputVariable {
    /// Name of the output.
    pub name: String,
    /// Name of the shell variable.
    pub value: String,
    /// Whether its value is secret.
    #[serde(default)]
    pub secret: bool,
}

// --- where things are ---

/// One host and how to log in to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshTarget {
    /// As written in the infrastructure; host keys and host aliases go by it.
    pub host: String,
    /// Connector's, else secret's, else 22.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// How to log in.
    pub credential: SshCredential,
    /// What to do about the host's key.
    #[serde(default)]
    pub host_keys: HostKeys,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum SshCredential {
    /// A private key in OpenSSH, PEM or PKCS#8 form.
    Key {
        /// Secret with the key.
        key: SecretRef,
        /// Secret with its passphrase.
        #[serde(default)]
        passphrase: Option<SecretRef>,
    },
}

/// Host-key policy and the keys already known to the manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostKeys {
    /// The policy. A *changed* key fails under every policy but `off`.
    pub mode: HostKeyMode,
    /// Known keys of this `host:port`, as OpenSSH lines (`ssh-ed25519 AAAA…`) or `SHA256:…` fingerprints.
    pub known: Vec<String>,
}

/// Policy for a host key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyMode {
    /// Only known keys.
    Strict,
    /// The first key is learned; later ones must equal it.
    #[default]
    AcceptNew,
    /// Not checked; warned of once a host.
    Off,
}

/// The stage's infrastructure, for expressions on the agent and for outcomes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Infrastructure {
    /// Identifier.
    pub identifier: String,
    /// Environment identifier.
    pub environment: String,
    /// `Pdc`, `KubernetesDirect`, `ECS` …
    pub kind: String,
    /// Stable key of (service, environment, infrastructure).
    pub key: String,
}

/// The stage's service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// Service variables.
    pub variables: BTreeMap<String, Text>,
}

// --- artifacts and files ---

/// The primary artifact as pinned at the start of the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Where it comes from.
    pub source: ArtifactSource,
    /// Version or tag, resolved.
    #[serde(default)]
    pub tag: String,
    /// `sha256:…` when the source knows one.
    #[serde(default)]
    pub digest: Option<String>,
}

/// Kinds of artifact sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "spec")]
pub enum ArtifactSource {
    /// Docker registry, API v2.
    #[serde(rename_all = "camelCase")]
    DockerRegistry {
        /// The registry.
        connector: HttpConnector,
        /// Repository path without host.
        image_path: String,
    },
    /// A file in an Artifactory (or any HTTP) repository.
    ArtifactoryRegistry(DownloadSource),
}

/// A file to download over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadSource {
    /// The server.
    pub connector: HttpConnector,
    /// Repository.
    #[serde(default)]
    pub repository: String,
    /// Path inside it; may hold `/`.
    pub path: String,
    /// Expected `sha256` in hex, if the author or the manager knows it.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// A server spoken to over HTTP, from a connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpConnector {
    /// Identifier of the connector, for messages.
    pub identifier: String,
    /// Base URL.
    pub url: String,
    /// How to authenticate.
    #[serde(default)]
    pub auth: HttpAuth,
    /// Extra headers (Prometheus).
    #[serde(default)]
    pub headers: Vec<(String, Text)>,
}

/// Authentication of an HTTP connector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum HttpAuth {
    /// None.
    #[default]
    Anonymous,
    /// User and password (or token as password).
    UsernamePassword {
        /// User; may be a secret placeholder.
        username: Text,
        /// Secret with the password.
        password: SecretRef,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// Secret with the token.
        token: SecretRef,
    },
}

/// Config files of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFile {
    /// Identifier.
    pub identifier: String,
    /// Where they lie.
    pub store: FileStore,
}

/// Where files lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "spec")]
pub enum FileStore {
    /// A Git repository over HTTPS (or plain HTTP when the URL says so).
    Git(GitSource),
    /// Content in the entity itself.
    Inline {
        /// File name.
        path: String,
        /// Content.
        content: Text,
    },
}

/// Files in a Git repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GitSource {
    /// The repository; its URL is complete (account-level connectors are joined with `repoName` by the planner).
    pub connector: HttpConnector,
    /// What to fetch.
    pub reference: GitReference,
    /// Files or folders, relative to the root.
    pub paths: Vec<String>,
}

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum GitReference {
    /// Head of a branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// A full commit id.
    Commit(String),
}

// --- Http ---

/// The Http step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpSpec {
    /// URL; placeholders allowed.
    pub url: Text,
    /// Method, any case.
    pub method: String,
    /// Headers in their order.
    #[serde(default)]
    pub headers: Vec<(String, Text)>,
    /// Body.
    #[serde(default)]
    pub body: Option<Text>,
    /// Expression text, evaluated on the agent over `httpResponseCode` and `httpResponseBody`; every other reference
    /// was resolved by the manager into `context`.
    #[serde(default)]
    pub assertion: Option<String>,
    /// Outputs as expressions over the response.
    #[serde(default)]
    pub output_variables: Vec<OutputVariable>,
    /// Limit of the request alone, milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Values of the other references in `assertion` and `outputVariables`, as one JSON object by first name.
    #[serde(default)]
    pub context: Value,
    /// Harness passes on any status without an assertion; set, this does too (`http.noAssertion: harness`).
    #[serde(default)]
    pub any_status: bool,
}

// --- Verify ---

/// The Verify step in its inline form (rule R10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// Where the numbers come from. `None`: no health source, the step is skipped with a notice.
    #[serde(default)]
    pub provider: Option<MetricProvider>,
    /// Label of the metric; gives the direction unless `comparison` does.
    #[serde(default)]
    pub metric_name: String,
    /// Query text, with `$baseline`, `$canary`, `$deploymentTag`.
    pub query: String,
    /// The limit.
    #[serde(default)]
    pub threshold: Option<Threshold>,
    /// `LessOrEqual` or `GreaterOrEqual`; wins over the guessed direction.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// Length of the window in real time, milliseconds; divided by the rehearsal factor on the agent.
    pub duration_ms: u64,
    /// `false`: no data in the whole window passes.
    #[serde(default = "yes")]
    pub fail_on_no_analysis: bool,
    /// Values of `$baseline`, `$canary`, `$deploymentTag`.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// When the stage started, epoch milliseconds: the control window of a percentage threshold ends there.
    #[serde(default)]
    pub stage_started_at: u64,
}

fn yes() -> bool {
    true
}

/// Where the numbers come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum MetricProvider {
    /// Prometheus HTTP API.
    Prometheus {
        /// The server.
        connector: HttpConnector,
    },
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum Threshold {
    /// Compared with the value itself.
    Absolute(f64),
    /// A ceiling in percent, or a deviation from the control window: settled facts §3.2.
    Percentage(f64),
}

/// Which side of the threshold is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Higher is worse.
    LessOrEqual,
    /// Lower is worse.
    GreaterOrEqual,
}

// --- internal steps ---

/// Looks up an artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolveArtifactSpec {
    /// What to look up. Output: `tag`, `digest`, `image`.
    pub artifact: Artifact,
}

/// What `delegate connector test` asks an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "spec")]
pub enum ConnectorTestSpec {
    /// SSH login to one host.
    Ssh(SshTarget),
    /// A Docker registry.
    DockerRegistry(HttpConnector),
    /// An Artifactory or plain HTTP repository.
    Artifactory(HttpConnector),
    /// A Git repository.
    Git(HttpConnector),
    /// A Prometheus server.
    Prometheus(HttpConnector),
}

/// Answers at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoopSpec {
    /// The log line it writes.
    pub line: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noop() -> StepTask {
        StepTask {
            version: TASK_VERSION,
            step: Step {
                identifier: "ping".into(),
                name: "Ping".into(),
                spec: StepSpec::Noop(NoopSpec { line: "hi".into() }),
            },
            execution: ExecutionRef::default(),
            infrastructure: None,
            service: None,
            artifact: None,
            manifests: vec![],
            config_files: vec![],
            undo: None,
            env: BTreeMap::new(),
            secret_token: 7,
            rehearsal: None,
        }
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
