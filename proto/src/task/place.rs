//! Where a step acts: hosts, logins, host keys, infrastructure, service.

use crate::text::{SecretRef, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

impl std::str::FromStr for HostKeyMode {
    type Err = String;

    /// The words of the settings of manager and agent.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "strict" => Ok(HostKeyMode::Strict),
            "accept-new" => Ok(HostKeyMode::AcceptNew),
            "off" => Ok(HostKeyMode::Off),
            _ => Err(format!("is `{text}`; expected strict, accept-new or off")),
        }
    }
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
