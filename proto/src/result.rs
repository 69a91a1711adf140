//! What an agent answers: the result of a task in our own dialect.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a step ended, as the agent saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepStatus {
    /// The step did what it says.
    Success,
    /// It did not; `failure` says why.
    Failed,
    /// It was cancelled; `failure` says by whom and in what state the target was left.
    Aborted,
    /// Nothing was to be done (no health source, no data to roll back to).
    Skipped,
}

/// One output value.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The value. A secret one is sealed to the manager before it leaves the agent and never shown.
    pub value: serde_json::Value,
    /// Whether the author declared it `Secret`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.secret { f.write_str("Output(secret)") } else { write!(f, "Output({})", self.value) }
    }
}

impl From<serde_json::Value> for Output {
    fn from(value: serde_json::Value) -> Self {
        Output { value, secret: false }
    }
}

/// Harness' status of a command unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "The names are Harness' own CommandExecutionStatus.")]
pub enum UnitStatus {
    Queued,
    Running,
    Success,
    Failure,
    Skipped,
}

/// Progress of one command unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitProgress {
    /// The unit's name; its log key is `<base>-commandUnit:<name>`.
    pub unit: String,
    /// Where it stands.
    pub status: UnitStatus,
    /// Epoch milliseconds.
    #[serde(default)]
    pub started_at: Option<u64>,
    /// Epoch milliseconds.
    #[serde(default)]
    pub ended_at: Option<u64>,
}

/// A host key that the agent saw for the first time and accepted (`accept-new`). The manager stores it and sends it
/// with later tasks, so that replicas agree (settled facts §2.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedHostKey {
    /// `host:port` as the infrastructure writes the host.
    pub host: String,
    /// The key in OpenSSH format: `ssh-ed25519 AAAA…`.
    pub key: String,
    /// `SHA256:…`.
    pub fingerprint: String,
}

/// The answer to a task: goes into `data` of the JSON response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepResult {
    /// How it ended.
    pub status: StepStatus,
    /// Set unless `status` is `Success` or `Skipped`.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// Typed outputs by path: `httpResponseCode`, `outputVariables.version`.
    #[serde(default)]
    pub outputs: BTreeMap<String, Output>,
    /// What a rollback step needs to undo this one. Opaque to the manager; sealed at rest, never masked.
    #[serde(default)]
    pub undo: Option<serde_json::Value>,
    /// The command units in their order.
    #[serde(default)]
    pub units: Vec<UnitProgress>,
    /// Host keys accepted on the way.
    #[serde(default)]
    pub learned_host_keys: Vec<LearnedHostKey>,
    /// The agent's name, for people.
    #[serde(default)]
    pub agent: String,
    /// Fence of the acquisition this answers; an older one than the manager's is recorded and changes nothing.
    #[serde(default)]
    pub fence: u64,
    /// Anything a person should read beside the failure: notices, what was left on the target.
    #[serde(default)]
    pub notices: Vec<String>,
}

impl StepResult {
    /// A result that says how it ended and nothing else.
    pub fn bare(status: StepStatus, failure: Option<Failure>) -> Self {
        StepResult {
            status,
            failure,
            outputs: BTreeMap::new(),
            undo: None,
            units: Vec::new(),
            learned_host_keys: Vec::new(),
            agent: String::new(),
            fence: 0,
            notices: Vec::new(),
        }
    }

    /// A [`StepStatus::Failed`] one.
    pub fn failed(failure: Failure) -> Self {
        StepResult::bare(StepStatus::Failed, Some(failure))
    }
}

/// One stage of a connector test, such as `connect`, `login`, `query`. The answer of a `ConnectorTest` step has the output
/// `stages`, a list of these; the first failed one is the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TestStage {
    /// Which.
    pub stage: String,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// Whether it went well.
    pub ok: bool,
    /// What was found, or what went wrong. Masked.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
