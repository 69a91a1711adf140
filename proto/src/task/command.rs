//! Command steps: units, interpreters, output variables.

use crate::task::place::SshTarget;
use crate::task::source::DownloadSource;
use crate::text::Text;
use serde::{Deserialize, Serialize};

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

/// A ShellScript step on the agent itself. One that runs on a host travels as a [`CommandSpec`] with one Script unit: it
/// is routed when its task is built, not inside an executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShellScriptSpec {
    /// Interpreter.
    pub shell: Shell,
    /// The text; may hold secret placeholders. Its environment is [`crate::task::StepTask::env`].
    pub script: Text,
    /// Directory to start in. Default: a private one of the step, which goes with it.
    #[serde(default)]
    pub working_directory: Option<Text>,
    /// Variables read back after the script.
    #[serde(default)]
    pub output_variables: Vec<OutputVariable>,
}
