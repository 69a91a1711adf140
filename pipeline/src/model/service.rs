//! Services: artifact, config files and variables.

use super::connector::CONNECTOR_TYPES;
use super::ecs::{EcsService, is_ecs_manifest, read_service};
use super::manifest::{Manifest, read_manifests};
use super::read::{Field, Reader, is_input};
use super::{Variable, read_variables};
use crate::fault::{Findings, did_you_mean};
use crate::rules;
use crate::yaml::Node;
use serde::{Deserialize, Serialize};

/// What a service definition says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// `Ssh`, …
    pub kind: String,
    /// Variables.
    pub variables: Vec<Variable>,
    /// Primary artifact.
    pub artifact: Option<Artifact>,
    /// Config files.
    pub config_files: Vec<ConfigFile>,
    /// Manifests in the order of their weight: the service's, then those of overrides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Manifest>,
    /// `release.name`: outweighs the infrastructure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_name: Option<Field>,
    /// Of a service of type ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<Box<EcsService>>,
}

/// A primary artifact with its expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Identifier of the source.
    pub identifier: String,
    /// Connector.
    pub connector: Field,
    /// Where it lies.
    pub source: ArtifactSource,
}

/// Kinds of artifact sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ArtifactSource {
    /// Docker registry.
    DockerRegistry {
        /// Repository path.
        image_path: Field,
        /// Tag.
        tag: Field,
    },
    /// A repository in ECR.
    Ecr {
        /// `[host/]repository`.
        image_path: Field,
        /// Tag.
        tag: Field,
        /// Region; that of the host, the connector or the infrastructure when it is not written.
        region: Option<Field>,
        /// Account of the registry; that of the host, or the caller's own, when it is not written.
        registry_id: Option<Field>,
    },
    /// Generic Artifactory.
    ArtifactoryRegistry {
        /// Repository.
        repository: Field,
        /// Directory in it.
        directory: Option<Field>,
        /// File below the directory.
        path: Field,
    },
}

/// Config files with their expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Identifier.
    pub identifier: String,
    /// Where they lie.
    pub store: Store,
}

/// Where files lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Store {
    /// In a Git repository.
    Git {
        /// Connector.
        connector: Field,
        /// Repository below an account connector.
        repo_name: Option<Field>,
        /// `Branch`, `Tag` or `Commit`, and its value.
        reference: (GitFetch, Field),
        /// Files or folders.
        paths: Vec<Field>,
    },
    /// In the entity itself.
    Inline {
        /// File name.
        path: Field,
        /// Content.
        content: Field,
    },
}

/// What of a repository is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own.")]
pub enum GitFetch {
    Branch,
    Tag,
    Commit,
}

/// Deployment types that this version can run.
const KINDS: [&str; 3] = ["Ssh", "Kubernetes", "ECS"];

/// Reads an effective `serviceDefinition`.
pub fn read_definition(node: &Node, path: &str, findings: &mut Findings) -> Option<Definition> {
    let mut reader = Reader::new(node, path, findings);
    let kind = reader.required("type", findings);
    let canonical = kind.as_ref().map(|kind| canonical_kind(kind, findings));
    let empty = Node::empty_map(&node.at);
    let spec_path = reader.sub("spec");
    let spec_node = reader.node("spec").unwrap_or(&empty);
    reader.finish(findings);
    if let Some(kind) = &kind
        && !KINDS.iter().any(|known| canonical.as_deref() == Some(known))
    {
        let text = kind.text();
        let message = format!(
            "deployment type `{text}` is not supported by this version; supported are {}",
            KINDS.join(", ")
        );
        let fault = crate::fault::Fault::at(&kind.at, &kind.path, message);
        findings.push(fault.suggest(did_you_mean(&text, KINDS)));
    }
    let mut spec = Reader::new(spec_node, spec_path, findings);
    spec.known(&["environmentType"]);
    spec.without_effect("hooks", "no hook runs", findings);
    let kubernetes = canonical.as_deref() == Some("Kubernetes");
    let ecs = (canonical.as_deref() == Some("ECS")).then(|| Box::new(read_service(&mut spec, findings)));
    let release_name = spec.map("release", findings).and_then(|mut release| {
        let name = release.field("name", findings);
        release.finish(findings);
        name
    });
    let variables = read_variables(&mut spec, findings);
    let artifact = read_artifacts(&mut spec, findings);
    let config_files = read_config_files(&mut spec, findings);
    let manifests = if kubernetes { read_manifests(&mut spec, "manifests", findings) } else { Vec::new() };
    // Which of several manifests is the primary one; a stage deploys one.
    spec.known(&["manifestConfigurations"]);
    if let Some(node) = spec.node("manifests")
        && !kubernetes
        && ecs.is_none()
        && node.as_list().is_some_and(|list| !list.is_empty())
    {
        findings.remark(
            "not-supported-yet",
            &node.at,
            &spec.sub("manifests"),
            "manifests have no effect in an Ssh service",
        );
    }
    spec.finish(findings);
    let kind = canonical?;
    Some(Definition { kind, variables, artifact, config_files, manifests, release_name, ecs })
}

fn read_artifacts(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Artifact> {
    let mut artifacts = spec.map("artifacts", findings)?;
    if let Some(node) = artifacts.node("sidecars")
        && node.as_list().is_some_and(|list| !list.is_empty())
    {
        findings.fault(&node.at, &artifacts.sub("sidecars"), "sidecar artifacts are not supported yet");
    }
    let primary = artifacts.map("primary", findings);
    artifacts.finish(findings);
    let mut primary = primary?;
    let sources_path = primary.sub("sources");
    let sources = primary.list("sources", findings);
    if sources.is_empty() {
        let artifact = read_source(&mut primary, "primary", findings);
        primary.known(&["primaryArtifactRef"]);
        primary.finish(findings);
        return artifact;
    }
    let wanted = primary.text("primaryArtifactRef", findings).filter(|id| !is_input(id));
    primary.finish(findings);
    let index = match (&wanted, sources.len()) {
        (Some(wanted), _) => {
            let found = sources
                .iter()
                .position(|source| source.get("identifier").and_then(Node::as_str) == Some(wanted.as_str()));
            if found.is_none() {
                let ids: Vec<&str> =
                    sources.iter().filter_map(|s| s.get("identifier").and_then(Node::as_str)).collect();
                let message = format!("no artifact source `{wanted}`; there are {}", ids.join(", "));
                findings.fault(primary_place(sources), &sources_path, message);
            }
            found?
        }
        (None, 1) => 0,
        (None, count) => {
            let message = format!("`primaryArtifactRef` must choose one of the {count} sources");
            findings.fault(primary_place(sources), &sources_path, message);
            return None;
        }
    };
    let node = sources.get(index)?;
    let mut source = Reader::new(node, format!("{sources_path}[{index}]"), findings);
    let identifier = source.text("identifier", findings).unwrap_or_else(|| "primary".to_owned());
    let artifact = read_source(&mut source, &identifier, findings);
    source.finish(findings);
    artifact
}

fn primary_place(sources: &[Node]) -> &crate::fault::Place {
    static NOWHERE: std::sync::LazyLock<crate::fault::Place> =
        std::sync::LazyLock::new(|| crate::fault::Place::start(""));
    sources.first().map_or(&NOWHERE, |node| &node.at)
}

fn read_source(reader: &mut Reader<'_>, identifier: &str, findings: &mut Findings) -> Option<Artifact> {
    let kind = reader.required("type", findings)?;
    let mut spec = reader.required_map("spec", findings)?;
    let connector = spec.required("connectorRef", findings);
    for key in ["tagRegex", "artifactPathFilter"] {
        if let Some(node) = spec.node(key) {
            findings.fault(
                &node.at,
                &spec.sub(key),
                format!("`{key}` is not supported yet; name one version"),
            );
        }
    }
    spec.known(&["digest", "registryHostname"]);
    let source = match kind.text().as_str() {
        "DockerRegistry" => {
            let image_path = spec.required("imagePath", findings);
            let tag = spec.required("tag", findings);
            image_path.zip(tag).map(|(image_path, tag)| ArtifactSource::DockerRegistry { image_path, tag })
        }
        "Ecr" => {
            let image_path = spec.required("imagePath", findings);
            let tag = spec.required("tag", findings);
            let (region, registry_id) = (spec.field("region", findings), spec.field("registryId", findings));
            if let (Some(image), Some(region)) = (&image_path, &region) {
                same_region(image, region, findings);
            }
            image_path.zip(tag).map(|(image_path, tag)| ArtifactSource::Ecr {
                image_path,
                tag,
                region,
                registry_id,
            })
        }
        "ArtifactoryRegistry" => {
            if let Some(format) = spec.field("repositoryFormat", findings)
                && !format.text().eq_ignore_ascii_case("generic")
            {
                let message =
                    format!("repository format `{}` is not supported; supported is generic", format.text());
                findings.fault(&format.at, &format.path, message);
            }
            spec.known(&["repositoryUrl", "tag"]);
            let repository = spec.required("repository", findings);
            let directory = spec.field("artifactDirectory", findings);
            let path = spec.required("artifactPath", findings);
            repository.zip(path).map(|(repository, path)| ArtifactSource::ArtifactoryRegistry {
                repository,
                directory,
                path,
            })
        }
        other => {
            let known = ["DockerRegistry", "Ecr", "ArtifactoryRegistry"];
            let message = format!(
                "artifact source `{other}` is not supported by this version; supported are {}",
                known.join(", ")
            );
            let fault = crate::fault::Fault::at(&kind.at, &kind.path, message);
            findings.push(fault.suggest(did_you_mean(other, known)));
            None
        }
    };
    spec.finish(findings);
    Some(Artifact { identifier: identifier.to_owned(), connector: connector?, source: source? })
}

/// Account and region of `ACCOUNT.dkr.ecr.REGION.amazonaws.com/…`. `None`: no host of ECR stands in front.
pub(crate) fn ecr_host(image_path: &str) -> Option<(&str, &str)> {
    let (host, _) = image_path.split_once('/')?;
    let (account, rest) = host.split_once(".dkr.ecr.").or_else(|| host.split_once(".dkr.ecr-fips."))?;
    let (region, domain) = rest.split_once('.')?;
    let is_account = account.len() == 12 && account.chars().all(|c| c.is_ascii_digit());
    (is_account && domain.starts_with("amazonaws.com")).then_some((account, region))
}

fn same_region(image: &Field, region: &Field, findings: &mut Findings) {
    let (path, written) = (image.text(), region.text());
    if let Some((_, of_host)) = ecr_host(&path)
        && !written.contains("<+")
        && of_host != written.trim()
    {
        let message =
            format!("`{written}` is not the region of the registry in `imagePath`, which is `{of_host}`");
        findings.fault(&region.at, &region.path, message);
    }
}

/// Whether `manifests` hold those of a service of type ECS.
pub(crate) fn has_ecs_manifests(content: &Node) -> bool {
    let list = content.get("manifests").and_then(Node::as_list).unwrap_or_default();
    list.iter().any(is_ecs_manifest)
}

fn read_config_files(spec: &mut Reader<'_>, findings: &mut Findings) -> Vec<ConfigFile> {
    let path = spec.sub("configFiles");
    let mut files = Vec::new();
    for (index, node) in spec.list("configFiles", findings).iter().enumerate() {
        let path = format!("{path}[{index}]");
        let (node, path) = match node.get("configFile") {
            Some(inner) => (inner, format!("{path}.configFile")),
            None => (node, path),
        };
        let mut reader = Reader::new(node, &path, findings);
        reader.known(&["type"]);
        let identifier = reader.text("identifier", findings).unwrap_or_else(|| {
            let made = format!("configFile_{}", index + 1);
            findings.notice(
                "R24.config-file-id",
                &node.at,
                &path,
                format!("the config file is called `{made}`"),
            );
            made
        });
        let store = match reader.map("spec", findings) {
            Some(mut inner) => {
                let store = inner.map("store", findings);
                inner.finish(findings);
                store
            }
            None => None,
        };
        reader.finish(findings);
        match store {
            Some(store) => {
                files.extend(read_store(store, findings).map(|store| ConfigFile { identifier, store }));
            }
            None => findings.fault(&node.at, &format!("{path}.spec.store"), "`store` is missing"),
        }
    }
    files
}

fn read_store(mut reader: Reader<'_>, findings: &mut Findings) -> Option<Store> {
    let kind = reader.required("type", findings)?;
    let mut spec = reader.required_map("spec", findings)?;
    reader.finish(findings);
    let text = kind.text();
    let store =
        if ["Git", "Github", "Gitlab", "Bitbucket"].iter().any(|known| known.eq_ignore_ascii_case(&text)) {
            read_git_store(&mut spec, findings)
        } else if text.eq_ignore_ascii_case("Inline") {
            let path = spec.required("path", findings);
            let content = spec.required("content", findings);
            path.zip(content).map(|(path, content)| Store::Inline { path, content })
        } else {
            let message = format!(
                "store type `{text}` is not supported; supported are Git, Github, Gitlab, Bitbucket, Inline"
            );
            let fault = crate::fault::Fault::at(&kind.at, &kind.path, message);
            findings.push(fault.suggest(did_you_mean(&text, CONNECTOR_TYPES)));
            None
        };
    spec.finish(findings);
    store
}

fn read_git_store(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Store> {
    let connector = spec.required("connectorRef", findings);
    let repo_name = spec.field("repoName", findings);
    let fetch = spec.field("gitFetchType", findings);
    let (branch, tag, commit) =
        (spec.field("branch", findings), spec.field("tag", findings), spec.field("commitId", findings));
    let kind = fetch.as_ref().map_or_else(|| "Branch".to_owned(), Field::text);
    let reference = match kind.to_ascii_lowercase().as_str() {
        "branch" => branch.map(|field| (GitFetch::Branch, field)),
        "tag" => tag.map(|field| (GitFetch::Tag, field)),
        "commit" => commit.map(|field| (GitFetch::Commit, field)),
        _ => None,
    };
    if reference.is_none() {
        findings.fault(
            spec.at(),
            spec.path(),
            "expected `branch`, `tag` or `commitId` to match `gitFetchType`",
        );
    }
    let key = if spec.has("files") { "files" } else { "paths" };
    let path = spec.sub(key);
    let list = spec.list(key, findings);
    if list.is_empty() {
        findings.fault(spec.at(), &path, "lists nothing to fetch");
    }
    let paths = list.iter().enumerate().map(|(i, node)| Field::new(node, format!("{path}[{i}]"))).collect();
    Some(Store::Git { connector: connector?, repo_name, reference: reference?, paths })
}

/// R2: `Ecs` and the like are spelled in several ways; the canonical spelling of a deployment type.
pub fn canonical_kind(kind: &Field, findings: &mut Findings) -> String {
    let text = kind.text();
    let meant = match text.to_ascii_lowercase().as_str() {
        "ssh" => "Ssh",
        "ecs" | "ecsinfrastructure" => "ECS",
        "kubernetes" => "Kubernetes",
        _ => text.as_str(),
    };
    // Case alone is no other spelling.
    if text.eq_ignore_ascii_case(meant) && meant != "ECS" {
        return meant.to_owned();
    }
    rules::r2_type_alias(&text, meant, &kind.at, &kind.path, findings);
    meant.to_owned()
}
