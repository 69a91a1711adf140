//! Manifests of Kubernetes steps, with what is laid over them.

use super::Cx;
use super::fault::Fault;
use super::store::{self, Origin};
use super::view::View;
use proto::task::{CommandFlag, FileStore, Manifest, ManifestKind};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Chart,
    Overlay,
}

const KINDS: [(&str, Kind); 3] =
    [("K8S_MANIFEST", Kind::Plain), ("HELM_CHART", Kind::Chart), ("KUSTOMIZE", Kind::Overlay)];

/// A manifest, what is laid over it, and the flags that came with it.
pub(super) struct Rendered {
    pub(super) manifest: Option<Manifest>,
    pub(super) overrides: Vec<FileStore>,
    pub(super) flags: Vec<CommandFlag>,
}

/// The manifest of a request, if it has one.
pub(super) fn read(cx: &mut Cx<'_>, data: &View<'_>) -> Result<Rendered, Fault> {
    let mut flags = flags(cx, data, "k8sCommandFlags")?;
    if !data.strs("openshiftParamList")?.is_empty() {
        return Err(Fault::unsupported("OpenShift templates"));
    }
    let Some(config) = data.maybe("manifestDelegateConfig")? else {
        return Ok(Rendered { manifest: None, overrides: Vec::new(), flags });
    };
    let kind = config.word("manifestType", &KINDS)?;
    let from = config.object("storeDelegateConfig")?;
    let origin = store::of_manifest(cx, &from)?;
    let overrides = match kind {
        Kind::Overlay => contents(cx, data, "kustomizePatchesList", "patches")?,
        Kind::Plain | Kind::Chart => contents(cx, data, "valuesYamlList", "values")?,
    };
    let kind = match kind {
        // The values files beside the manifest came with the others, as contents.
        Kind::Plain => ManifestKind::K8sManifest { values_paths: Vec::new() },
        Kind::Overlay => {
            if config.maybe_str("pluginPath")?.is_some() {
                return Err(Fault::unsupported("a Kustomize plugin path"));
            }
            let of_folder = ["kustomizeYamlFolderPath", "kustomizeDirPath"];
            let folder =
                of_folder.iter().find_map(|key| cx.maybe_plain(&config, key).transpose()).transpose()?;
            ManifestKind::Kustomize { folder, patches_paths: Vec::new() }
        }
        Kind::Chart => {
            if config.maybe_str("helmVersion")? == Some("V2") {
                return Err(
                    Fault::unsupported("Helm 2").hint("set the chart's Helm version to 3 in the service")
                );
            }
            if let Some(flag) = config.maybe("helmCommandFlag")? {
                flags.extend(self::flags(cx, &flag, "valueMap")?);
            }
            let folder = match &origin {
                Origin::Git(git) => git.paths.first().cloned(),
                // The folder that holds the chart's own description.
                Origin::Files(files) => {
                    let own = files.iter().filter_map(|file| file.path.strip_suffix("Chart.yaml"));
                    own.min_by_key(|folder| folder.len())
                        .map(|folder| folder.trim_end_matches('/').to_owned())
                }
            };
            let missing = || Fault::shape(&from.at("paths"), "names no folder of a chart");
            ManifestKind::HelmChart {
                repository: None,
                chart_name: folder.ok_or_else(missing)?,
                chart_version: None,
                sub_chart_path: cx.maybe_plain(&config, "subChartPath")?,
                values_paths: Vec::new(),
            }
        }
    };
    let identifier = ["manifestId", "manifestIdentifier", "identifier"];
    let identifier = identifier.iter().find_map(|key| from.maybe_str(key).transpose()).transpose()?;
    let (store, files) = match origin {
        Origin::Git(git) => (Some(FileStore::Git(git)), Vec::new()),
        Origin::Files(files) => (None, files),
    };
    let manifest = Manifest {
        identifier: identifier.unwrap_or("manifest").to_owned(),
        store,
        files,
        kind,
        skip_versioning: data.flag("skipResourceVersioning")?,
        optional_values: false,
    };
    Ok(Rendered { manifest: Some(manifest), overrides, flags })
}

/// Documents that the manager has fetched already; secrets may stand in them.
fn contents(cx: &mut Cx<'_>, data: &View<'_>, key: &str, name: &str) -> Result<Vec<FileStore>, Fault> {
    let mut all = Vec::new();
    for (index, (path, text)) in data.strs(key)?.into_iter().enumerate() {
        if !text.trim().is_empty() {
            let content = cx.secrets.text(&path, text)?;
            all.push(FileStore::Inline { path: format!("{name}-{index}.yaml"), content });
        }
    }
    Ok(all)
}

/// Flags by the command that they belong to. Enums of the manager are written in capitals, pipelines write `Apply`.
fn flags(cx: &Cx<'_>, owner: &View<'_>, key: &str) -> Result<Vec<CommandFlag>, Fault> {
    let place = owner.at(key);
    let mut flags = Vec::new();
    for (command, flag) in owner.map(key)? {
        let mut letters = command.chars();
        let title: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        let command = if command.chars().any(char::is_lowercase) {
            command.to_owned()
        } else {
            title + &letters.as_str().to_lowercase()
        };
        if !flag.trim().is_empty() {
            flags
                .push(CommandFlag { flag: cx.secrets.plain(&format!("{place}.{command}"), &flag)?, command });
        }
    }
    Ok(flags)
}
