//! Manifests of Kubernetes services: where their files lie and how they become objects (k8s-steps.md §3.1).

use super::connector::CONNECTOR_TYPES;
use super::read::{Field, Reader};
use super::service::{GitFetch, Store};
use crate::fault::{Fault, Findings, did_you_mean};
use crate::rules;
use crate::yaml::Node;
use serde::{Deserialize, Serialize};

/// One entry of `manifests`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Identifier.
    pub identifier: String,
    /// Where it is written.
    pub path: String,
    /// How it becomes objects, or what it is laid over.
    pub kind: ManifestKind,
    /// Where its files lie.
    pub store: ManifestStore,
    /// ConfigMaps and Secrets keep their names.
    pub skip_versioning: bool,
    /// Values files beside it may be missing (`optionalValuesYaml`).
    #[serde(default)]
    pub optional_values: bool,
    /// Flags of the program that renders it: command and flags.
    pub flags: Vec<(String, Field)>,
}

/// Kinds of manifests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
#[expect(clippy::large_enum_variant, reason = "A service has one manifest; a box would buy nothing.")]
pub enum ManifestKind {
    /// Plain YAML or Go templates.
    K8sManifest {
        /// Values files of the same store.
        values_paths: Vec<Field>,
    },
    /// A Helm chart.
    HelmChart {
        /// Name in its repository; `None`: the folder of the store.
        chart_name: Option<Field>,
        /// Version; the newest when not named.
        chart_version: Option<Field>,
        /// A chart inside the chart.
        sub_chart_path: Option<Field>,
        /// Values files of the chart.
        values_paths: Vec<Field>,
    },
    /// An overlay.
    Kustomize {
        /// Its folder.
        folder: Option<Field>,
        /// Patch files of the same store.
        patches_paths: Vec<Field>,
    },
    /// Values laid over a primary manifest.
    Values,
    /// Patches laid over a Kustomize manifest.
    KustomizePatches,
}

impl ManifestKind {
    /// As written in YAML.
    pub fn name(&self) -> &'static str {
        match self {
            ManifestKind::K8sManifest { .. } => "K8sManifest",
            ManifestKind::HelmChart { .. } => "HelmChart",
            ManifestKind::Kustomize { .. } => "Kustomize",
            ManifestKind::Values => "Values",
            ManifestKind::KustomizePatches => "KustomizePatches",
        }
    }

    /// Whether it makes objects by itself. A stage has exactly one of these.
    pub fn is_primary(&self) -> bool {
        !matches!(self, ManifestKind::Values | ManifestKind::KustomizePatches)
    }
}

/// Where the files of a manifest lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ManifestStore {
    /// Git or inline.
    Files {
        /// Where.
        store: Store,
    },
    /// The repository and reference of the primary manifest.
    Inherit {
        /// Files there.
        paths: Vec<Field>,
    },
    /// A repository of charts.
    Charts {
        /// An OCI registry; otherwise over HTTP.
        oci: bool,
        /// Connector.
        connector: Field,
        /// Path below the connector's URL.
        base_path: Option<Field>,
    },
}

impl Manifest {
    /// Every field that may hold expressions.
    pub fn fields(&self) -> Vec<&Field> {
        let mut fields: Vec<&Field> = Vec::new();
        match &self.kind {
            ManifestKind::K8sManifest { values_paths } => fields.extend(values_paths),
            ManifestKind::HelmChart { chart_name, chart_version, sub_chart_path, values_paths } => {
                fields.extend([chart_name, chart_version, sub_chart_path].into_iter().flatten());
                fields.extend(values_paths);
            }
            ManifestKind::Kustomize { folder, patches_paths } => {
                fields.extend(folder);
                fields.extend(patches_paths);
            }
            ManifestKind::Values | ManifestKind::KustomizePatches => {}
        }
        match &self.store {
            ManifestStore::Files { store } => fields.extend(store_fields(store)),
            ManifestStore::Inherit { paths } => fields.extend(paths),
            ManifestStore::Charts { connector, base_path, .. } => {
                fields.push(connector);
                fields.extend(base_path);
            }
        }
        fields.extend(self.flags.iter().map(|(_, flag)| flag));
        fields
    }

    /// The connector that its store names.
    pub fn connector(&self) -> Option<&Field> {
        match &self.store {
            ManifestStore::Files { store: Store::Git { connector, .. } }
            | ManifestStore::Charts { connector, .. } => Some(connector),
            ManifestStore::Files { store: Store::Inline { .. } } | ManifestStore::Inherit { .. } => None,
        }
    }
}

/// Every field of a store that may hold expressions.
pub(crate) fn store_fields(store: &Store) -> Vec<&Field> {
    match store {
        Store::Git { connector, repo_name, reference, paths } => {
            [Some(connector), repo_name.as_ref(), Some(&reference.1)]
                .into_iter()
                .flatten()
                .chain(paths)
                .collect()
        }
        Store::Inline { path, content } => vec![path, content],
    }
}

/// Manifest types of Harness that this version cannot use.
const LATER: [&str; 3] = ["OpenshiftTemplate", "OpenshiftParam", "HelmRepoOverride"];
const KINDS: [&str; 5] = ["K8sManifest", "HelmChart", "Kustomize", "Values", "KustomizePatches"];

/// Reads a list of manifests: `manifests` of a service or override, `overrides` of a step.
pub fn read_manifests(reader: &mut Reader<'_>, key: &'static str, findings: &mut Findings) -> Vec<Manifest> {
    let path = reader.sub(key);
    let mut manifests = Vec::new();
    for (index, node) in reader.list(key, findings).iter().enumerate() {
        let path = format!("{path}[{index}]");
        let (node, path) = match node.get("manifest") {
            Some(inner) => (inner, format!("{path}.manifest")),
            None => (node, path),
        };
        manifests.extend(read_manifest(node, &path, index, findings));
    }
    manifests
}

/// Reads one manifest; `index` names it when it has no identifier (rule R24).
pub fn read_manifest(node: &Node, path: &str, index: usize, findings: &mut Findings) -> Option<Manifest> {
    let mut reader = Reader::new(node, path, findings);
    let identifier = reader.text("identifier", findings);
    let identifier =
        identifier.unwrap_or_else(|| rules::r24_manifest_identifier(index, &node.at, path, findings));
    let kind = reader.field("type", findings);
    // Some of the seed's fragments name the store directly, without `spec`.
    let spec_path = reader.sub("spec");
    let (spec_node, spec_path) = match reader.node("spec") {
        Some(spec) if spec.get("store").is_some() || node.get("store").is_none() => (spec, spec_path),
        _ if node.get("store").is_some() => (node, path.to_owned()),
        _ => {
            findings.fault(&node.at, &spec_path, "`spec` with a `store` is missing");
            return None;
        }
    };
    reader.known(&["store", "skipResourceVersioning", "valuesPaths"]);
    reader.finish(findings);
    let name = match &kind {
        Some(kind) => {
            let text = kind.text();
            match KINDS.iter().find(|known| known.eq_ignore_ascii_case(text.trim())) {
                Some(known) => *known,
                None => {
                    let message = match LATER.contains(&text.as_str()) {
                        true => format!("manifests of type `{text}` are not supported by this version"),
                        false => format!("`{text}` is not a known manifest type"),
                    };
                    let message = format!("{message}; supported are {}", KINDS.join(", "));
                    let fault = Fault::at(&kind.at, &kind.path, message);
                    findings.push(fault.suggest(did_you_mean(&text, KINDS)));
                    return None;
                }
            }
        }
        None => rules::r24_manifest_type(&node.at, path, findings),
    };
    let mut spec = Reader::new(spec_node, spec_path, findings);
    spec.known(&["identifier", "type", "enableDeclarativeRollback", "fetchHelmChartMetadata"]);
    let skip_versioning = spec.flag("skipResourceVersioning", findings).unwrap_or(false);
    let optional_values = spec.flag("optionalValuesYaml", findings).unwrap_or(false);
    let flags = super::step_k8s::read_flags(&mut spec, "Template", findings);
    let store = spec.required_map("store", findings).and_then(|store| read_store(store, findings));
    let kind = match name {
        "K8sManifest" => {
            ManifestKind::K8sManifest { values_paths: paths(&mut spec, "valuesPaths", findings) }
        }
        "HelmChart" => {
            if let Some(version) = spec.field("helmVersion", findings)
                && version.text().trim().eq_ignore_ascii_case("V2")
            {
                findings.fault(&version.at, &version.path, "Helm V2 is not supported; use V3 or V4");
            }
            ManifestKind::HelmChart {
                chart_name: spec.field("chartName", findings),
                chart_version: spec
                    .field("chartVersion", findings)
                    .filter(|field| !field.text().trim().is_empty()),
                sub_chart_path: spec
                    .field("subChartPath", findings)
                    .filter(|field| !field.text().trim().is_empty()),
                values_paths: paths(&mut spec, "valuesPaths", findings),
            }
        }
        "Kustomize" => {
            if let Some(node) = spec.node("pluginPath")
                && node.as_str().is_some_and(|path| !path.trim().is_empty())
            {
                findings.fault(&node.at, &spec.sub("pluginPath"), "plugins of kustomize are not supported");
            }
            let mut folder = spec.field("kustomizeYamlFolderPath", findings);
            if let Some(mut overlay) = spec.map("overlayConfiguration", findings) {
                folder = overlay.field("kustomizeYamlFolderPath", findings).or(folder);
                overlay.finish(findings);
            }
            let folder = folder.filter(|field| !field.text().trim().is_empty());
            ManifestKind::Kustomize { folder, patches_paths: paths(&mut spec, "patchesPaths", findings) }
        }
        "Values" => ManifestKind::Values,
        _ => ManifestKind::KustomizePatches,
    };
    spec.finish(findings);
    let store = store?;
    match (&kind, &store) {
        (ManifestKind::HelmChart { chart_name: None, .. }, ManifestStore::Charts { connector, .. }) => {
            findings.fault(&connector.at, &format!("{path}.spec.chartName"), "`chartName` is missing");
        }
        (ManifestKind::HelmChart { .. }, _) | (_, ManifestStore::Files { .. }) => {}
        (kind, ManifestStore::Charts { connector, .. }) => {
            let message = format!("a repository of charts holds no {}", kind.name());
            findings.fault(&connector.at, &connector.path, message);
        }
        (kind, ManifestStore::Inherit { .. }) if kind.is_primary() => {
            findings.fault(&node.at, path, "a primary manifest has nothing to inherit its store from");
        }
        (_, ManifestStore::Inherit { .. }) => {}
    }
    Some(Manifest { identifier, path: path.to_owned(), kind, store, skip_versioning, optional_values, flags })
}

fn paths(reader: &mut Reader<'_>, key: &'static str, findings: &mut Findings) -> Vec<Field> {
    let path = reader.sub(key);
    let list = match reader.node(key) {
        // One path stands for a list of one.
        Some(node) if node.as_str().is_some() => std::slice::from_ref(node),
        _ => reader.list(key, findings),
    };
    list.iter().enumerate().map(|(index, node)| Field::new(node, format!("{path}[{index}]"))).collect()
}

const STORES: &str = "Git, Github, Gitlab, Bitbucket, Inline, InheritFromManifest, Http, OciHelmChart";

/// Reads the store of a manifest.
pub fn read_store(mut reader: Reader<'_>, findings: &mut Findings) -> Option<ManifestStore> {
    let kind = reader.required("type", findings)?;
    let mut spec = reader.required_map("spec", findings)?;
    reader.finish(findings);
    let text = kind.text().trim().to_ascii_lowercase();
    let store = match text.as_str() {
        "git" | "github" | "gitlab" | "bitbucket" => read_git(&mut spec, findings),
        "inline" => {
            let path = spec.field("path", findings);
            let content = spec.required("content", findings);
            let path = path.unwrap_or_else(|| Field::made("", spec.sub("path"), spec.at()));
            content.map(|content| ManifestStore::Files { store: Store::Inline { path, content } })
        }
        "inheritfrommanifest" => {
            let paths = paths(&mut spec, "paths", findings);
            if paths.is_empty() {
                findings.fault(spec.at(), &spec.sub("paths"), "lists nothing to fetch");
            }
            Some(ManifestStore::Inherit { paths })
        }
        "http" | "ocihelmchart" => {
            let mut connector = spec.field("connectorRef", findings);
            let mut base_path = spec.field("basePath", findings);
            // Harness nests the connector of an OCI registry: `config: {type: Generic, spec: {connectorRef}}`.
            if let Some(mut config) = spec.map("config", findings) {
                config.known(&["type"]);
                if let Some(mut inner) = config.map("spec", findings) {
                    connector = inner.field("connectorRef", findings).or(connector);
                    base_path = inner.field("basePath", findings).or(base_path);
                    inner.known(&["region", "registryId"]);
                    inner.finish(findings);
                }
                config.finish(findings);
            }
            if connector.is_none() {
                findings.fault(spec.at(), &spec.sub("connectorRef"), "`connectorRef` is missing");
            }
            let base_path = base_path.filter(|path| !path.text().trim_matches('/').trim().is_empty());
            connector.map(|connector| ManifestStore::Charts {
                oci: text == "ocihelmchart",
                connector,
                base_path,
            })
        }
        _ => {
            let message = format!("store type `{}` is not supported; supported are {STORES}", kind.text());
            let fault = Fault::at(&kind.at, &kind.path, message);
            findings
                .push(fault.suggest(did_you_mean(&kind.text(), STORES.split(", ").chain(CONNECTOR_TYPES))));
            None
        }
    };
    spec.finish(findings);
    store
}

fn read_git(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<ManifestStore> {
    let connector = spec.required("connectorRef", findings);
    let repo_name = spec.field("repoName", findings);
    let fetch = spec.field("gitFetchType", findings);
    let (branch, tag, commit) =
        (spec.field("branch", findings), spec.field("tag", findings), spec.field("commitId", findings));
    let kind = match &fetch {
        Some(fetch) => fetch.text(),
        None => rules::r24_fetch_type(spec.at(), spec.path(), findings),
    };
    let reference = match kind.trim().to_ascii_lowercase().as_str() {
        "branch" => branch.map(|field| (GitFetch::Branch, field)),
        "tag" => tag.map(|field| (GitFetch::Tag, field)),
        // A tag may stand where Harness has only commits.
        "commit" => commit.map(|field| (GitFetch::Commit, field)).or(tag.map(|field| (GitFetch::Tag, field))),
        _ => None,
    };
    if reference.is_none() {
        let message = "expected `branch`, `tag` or `commitId` to match `gitFetchType`";
        findings.fault(spec.at(), spec.path(), message);
    }
    let folder = spec.field("folderPath", findings);
    let key = if spec.has("files") { "files" } else { "paths" };
    let mut all = paths(spec, key, findings);
    all.extend(folder);
    if all.is_empty() {
        findings.fault(spec.at(), &spec.sub(key), "lists nothing to fetch");
    }
    let store = Store::Git { connector: connector?, repo_name, reference: reference?, paths: all };
    Some(ManifestStore::Files { store })
}
