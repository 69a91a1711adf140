//! Everything the agent can be told: Harness' environment names, a TOML file, flags.
//!
//! One table ([`SETTINGS`]) names every setting once: its key in the file, its environment variable, its flag, default
//! and meaning. Loading, the command line's flags and the reference text all come from it. Order: flag, environment,
//! file, default. All faults are reported at once; the command line ends with 64 then.

mod load;
mod reference;
#[cfg(test)]
mod tests;

use executor_api::HostAliases;

use proto::task::HostKeyMode;
use proto::token::DelegateToken;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use reference::{SETTINGS, Setting, reference_text};

/// What flags said: by key of the setting (`data_dir`), values as written.
pub type Flags = BTreeMap<String, String>;

/// A checked configuration. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// Account the agent belongs to.
    pub account_id: String,
    /// Base URL of the manager, without a trailing slash.
    pub manager_url: String,
    /// The delegate token.
    pub token: DelegateToken,
    /// Group name; replicas share it.
    pub name: String,
    /// Host name to register with. `None`: the machine's own.
    pub host_name: Option<String>,
    /// Harness' delegate type.
    pub delegate_type: String,
    /// Tags that selectors are matched with.
    pub tags: Vec<String>,
    /// For people.
    pub description: String,
    /// Organisation of the token, if it is not account-wide.
    pub org: Option<String>,
    /// Project of the token.
    pub project: Option<String>,
    /// Tasks held at once.
    pub capacity: NonZeroUsize,
    /// Base URL of the log service, without a trailing slash.
    pub log_service_url: String,
    /// Proxy for outgoing connections.
    pub proxy: Option<Proxy>,
    /// PEM bundle that is trusted beside the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the client certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Where key, journal, spool and caches lie.
    pub data_dir: PathBuf,
    /// Address of the health and metrics server.
    pub health_listen: SocketAddr,
    /// Where to connect instead (D17).
    pub host_aliases: HostAliases,
    /// What is offered to a manager that does not know our extensions (D1).
    pub foreign_task_types: ForeignTasks,
    /// Where packages and answers of a Harness manager are kept, without their secrets. `None`: nowhere.
    pub record: Option<PathBuf>,
    /// Scripts that run on the agent itself are not taken; those on hosts are.
    pub block_shell_task: bool,
    /// How long a drain waits for running steps.
    pub drain_limit: Duration,
    /// Disk for logs.
    pub spool: SpoolLimits,
    /// Disk for downloaded artifacts, bytes.
    pub cache_limit: u64,
    /// Host-key policy that overrides the task's, if stricter checks are wanted here.
    pub known_hosts_mode: Option<HostKeyMode>,
    /// Things a person should read once: settings that mean something else here than with Harness.
    pub notices: Vec<String>,
}

/// What an agent offers to a manager that does not know our extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForeignTasks {
    /// Nothing.
    #[default]
    None,
    /// These types, in our own form.
    Own(Vec<String>),
    /// Harness' own CD tasks (ADR 0010).
    HarnessCd,
}

/// How much disk unsent logs may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// All units together, bytes.
    pub agent_bytes: u64,
    /// One unit, bytes.
    pub unit_bytes: u64,
}

/// A proxy for outgoing connections.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http://host:port`.
    pub url: String,
    /// User and password.
    pub login: Option<(String, SecretString)>,
    /// Suffixes of host names that are reached directly, comma-separated.
    pub no_proxy: String,
    /// Whether the manager and the log service are reached through it too.
    pub for_manager: bool,
}

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: `{name}` {problem}")]
pub struct ConfigFault {
    /// The setting, as it was written where it came from.
    pub name: String,
    /// Where it came from: `environment`, `flag`, or the file with its path.
    pub origin: String,
    /// The value and what was expected instead. Never a secret.
    pub problem: String,
}

/// A configuration file: its path for messages, and its text.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFile<'a> {
    /// For messages.
    pub path: &'a str,
    /// TOML.
    pub text: &'a str,
}

impl Config {
    /// Reads all sources and checks every value.
    ///
    /// **Errors**: every fault there is, in the order of [`SETTINGS`]. **Repeat**: safe; reads only files that settings
    /// name (`token_file`).
    pub fn load(
        env: &BTreeMap<String, String>,
        file: Option<ConfigFile<'_>>,
        flags: &Flags,
    ) -> Result<Config, Vec<ConfigFault>> {
        load::load(env, file, flags)
    }
}
