//! Steps that no pipeline names: the manager makes them.

use crate::task::aws::AwsAccount;
use crate::task::kubernetes::Cluster;
use crate::task::place::SshTarget;
use crate::task::source::{Artifact, HttpConnector};
use serde::{Deserialize, Serialize};

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
    /// A Kubernetes cluster.
    Kubernetes(Cluster),
    /// An AWS account.
    Aws(AwsAccount),
}

/// Answers at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoopSpec {
    /// The log line it writes.
    pub line: String,
}
