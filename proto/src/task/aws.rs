//! AWS accounts as steps and sources reach them: what a connector of type `Aws` says, with the region of the infrastructure.

use crate::text::{SecretRef, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An AWS account in one region, and how to sign requests to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsAccount {
    /// Identifier of the connector, for messages.
    pub connector: String,
    /// Region of every call: the infrastructure's, else the connector's.
    pub region: String,
    /// Who signs.
    pub credential: AwsCredential,
    /// Role to assume on top of the credential.
    #[serde(default)]
    pub assume_role: Option<AssumeRole>,
    /// Endpoints that replace AWS' own: `""` for every service, else by the SDK's service name in lower case with `_`
    /// (`ecs`, `elastic_load_balancing_v2`). They outweigh the agent's `AWS_ENDPOINT_URL…` variables.
    #[serde(default)]
    pub endpoints: BTreeMap<String, String>,
}

/// Who signs requests (facts `ecs-ssh-steps.md` A12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum AwsCredential {
    /// An access key (connector `ManualConfig`).
    ManualConfig {
        /// The key's id; may be a secret placeholder.
        access_key: Text,
        /// Secret with the key.
        secret_key: Text,
        /// Token of a temporary key.
        #[serde(default)]
        session_token: Option<SecretRef>,
    },
    /// What the agent itself has: its variables, profile, container or instance role.
    InheritFromDelegate,
    /// The web identity of the agent's Kubernetes service account.
    Irsa,
}

/// A role to assume, in the same account or another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// ARN of the role.
    pub role_arn: String,
    /// What the role's trust policy asks for.
    #[serde(default)]
    pub external_id: Option<Text>,
}
