//! Where things come from: artifacts, downloads, files in Git, and the servers behind connectors.

use crate::text::{SecretRef, Text};
use serde::{Deserialize, Serialize};

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
