//! Where things come from: artifacts, downloads, files in Git, and the servers behind connectors.

use super::{AwsAccount, SshTarget};
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
    /// A repository in ECR.
    #[serde(rename_all = "camelCase")]
    Ecr {
        /// The account; its region is the registry's.
        account: AwsAccount,
        /// `[host/]repository`: the host of another account's registry may stand in front.
        image_path: String,
        /// Account id of the registry, when it is not the caller's.
        #[serde(default)]
        registry_id: Option<String>,
        /// Platform that an image must have (`linux/amd64`), when the task definition says so.
        #[serde(default)]
        platform: Option<String>,
    },
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
    /// Not HTTP at all: a Git repository that is reached over SSH, with this login. The URL then is `ssh://…` or
    /// `user@host:path`.
    Ssh(Box<SshTarget>),
}

/// Where a Git repository lies that is reached over SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshUrl {
    /// Login name, if it is written.
    pub user: Option<String>,
    /// Host.
    pub host: String,
    /// Port, if it is written.
    pub port: Option<u16>,
    /// Path as `git-upload-pack` is given it: absolute after `ssh://`, below the login's home after `host:`.
    pub path: String,
}

impl SshUrl {
    /// What messages say is expected.
    pub const SHAPE: &'static str = "ssh://user@host/path or user@host:path";

    /// Reads `ssh://[user@]host[:port]/path` or `[user@]host:path`. `None` for anything else, HTTP URLs above all.
    pub fn parse(text: &str) -> Option<SshUrl> {
        let text = text.trim();
        let split = |place: &str| match place.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host.to_owned()),
            None => (None, place.to_owned()),
        };
        let found = match text.split_once("://") {
            Some(("ssh" | "git+ssh", rest)) => {
                let (place, path) = rest.split_once('/')?;
                let (user, place) = split(place);
                let (host, port) = match place.rsplit_once(':') {
                    // An IPv6 address stands in brackets.
                    Some((host, port)) if !port.contains(']') => (host.to_owned(), Some(port.parse().ok()?)),
                    _ => (place, None),
                };
                let host = host.trim_matches(['[', ']']).to_owned();
                // `/~/x` means the home of the login, as git itself reads it.
                let path = if path.starts_with('~') { path.to_owned() } else { format!("/{path}") };
                SshUrl { user, host, port, path }
            }
            Some(_) => return None,
            None => {
                let (place, path) = text.split_once(':')?;
                let (user, host) = split(place);
                SshUrl { user, host, port: None, path: path.to_owned() }
            }
        };
        let plain = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
        // A host or path that begins with a dash would be an option to somebody.
        let fits = |part: &str| !part.is_empty() && plain(part) && !part.starts_with('-');
        (fits(&found.host) && !found.host.contains('/') && fits(&found.path)).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_repositories_are_read_as_git_reads_them() {
        let read = |text: &str| {
            SshUrl::parse(text).map(|url| (url.user.unwrap_or_default(), url.host, url.port, url.path))
        };
        let is =
            |user: &str, host: &str, port, path: &str| Some((user.into(), host.into(), port, path.into()));
        assert_eq!(
            read("ssh://git@h.example:2222/team/a.git"),
            is("git", "h.example", Some(2222), "/team/a.git")
        );
        assert_eq!(read("ssh://h/~/a"), is("", "h", None, "~/a"));
        assert_eq!(read("ssh://[::1]:22/a"), is("", "::1", Some(22), "/a"));
        assert_eq!(read("git@h.example:team/a.git"), is("git", "h.example", None, "team/a.git"));
        for wrong in
            ["https://h/a", "ssh://h", "ssh://h:x/a", "ssh://-oProxyCommand=x/a", "h", ":a", "h:-x", "a b:c"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
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
