//! The Kubernetes steps (k8s-steps.md §10).

use super::manifest::{Manifest, ManifestStore, read_manifest, read_manifests, read_store, store_fields};
use super::read::{Field, Reader, one_of};
use super::service::Store;
use super::step::Spec;
use crate::fault::Findings;
use crate::rules;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A Kubernetes step with its expressions as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct K8sStep {
    /// What to do.
    pub action: K8sAction,
    /// Flags of kubectl: command (empty: the step's own) and flags.
    #[serde(default)]
    pub flags: Vec<(String, Field)>,
    /// Values and patches of the step alone, laid over those of the service.
    #[serde(default)]
    pub overrides: Vec<Manifest>,
    /// A manifest of the step's own, instead of the service's.
    #[serde(default)]
    pub manifest: Option<Box<Manifest>>,
}

/// How many pods, before it is resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InstanceSelection {
    /// That many.
    Count(Field),
    /// That share, in percent.
    Percentage(Field),
}

impl InstanceSelection {
    pub(crate) fn field(&self) -> &Field {
        let (InstanceSelection::Count(field) | InstanceSelection::Percentage(field)) = self;
        field
    }
}

/// Which objects, before expressions are resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ResourceSelection {
    /// By reference.
    Names(Vec<Field>),
    /// Everything of the release.
    Release,
    /// What these files hold; empty: all.
    Manifests(Vec<Field>),
}

/// What a Kubernetes step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "The fields are those of proto's KubernetesAction, where they are described."
)]
#[expect(clippy::large_enum_variant, reason = "It stands in a boxed step; a second box would buy nothing.")]
pub enum K8sAction {
    K8sApply {
        file_paths: Vec<Field>,
        skip_dry_run: bool,
        skip_steady_state_check: bool,
        skip_rendering: bool,
    },
    K8sRollingDeploy {
        skip_dry_run: bool,
        pruning_enabled: bool,
    },
    K8sRollingRollback {
        pruning_enabled: bool,
    },
    K8sCanaryDeploy {
        instances: InstanceSelection,
        skip_dry_run: bool,
        traffic_routing: Option<Field>,
    },
    K8sCanaryDelete {},
    K8sBlueGreenDeploy {
        skip_dry_run: bool,
        pruning_enabled: bool,
        skip_unchanged: bool,
        /// Rule R12; decided when the whole stage is known.
        check_only: bool,
        traffic_routing: Option<Field>,
    },
    K8sBGSwapServices {},
    K8sBlueGreenStageScaleDown {
        delete_resources: bool,
    },
    K8sScale {
        workload: Field,
        instances: InstanceSelection,
        skip_steady_state_check: bool,
    },
    K8sDelete {
        resources: ResourceSelection,
        delete_namespaces: bool,
    },
    K8sDryRun {},
    K8sDiff {},
    K8sRollout {
        command: String,
        resources: ResourceSelection,
    },
    K8sPatch {
        workload: Field,
        source: Store,
        merge_strategy: String,
        record_change_cause: bool,
        skip_steady_state_check: bool,
    },
    K8sTrafficRouting {
        config: Field,
    },
}

/// Types of the Kubernetes steps as pipelines write them.
pub(super) const TYPES: [&str; 15] = proto::task::KUBERNETES_KINDS;

impl K8sStep {
    /// Whether it renders the manifest of the service, or one of its own.
    pub fn renders(&self) -> bool {
        match &self.action {
            K8sAction::K8sApply { .. }
            | K8sAction::K8sRollingDeploy { .. }
            | K8sAction::K8sCanaryDeploy { .. }
            | K8sAction::K8sBlueGreenDeploy { .. }
            | K8sAction::K8sDryRun {}
            | K8sAction::K8sDiff {} => true,
            K8sAction::K8sDelete { resources, .. } | K8sAction::K8sRollout { resources, .. } => {
                matches!(resources, ResourceSelection::Manifests(_))
            }
            _ => false,
        }
    }

    /// Every field that may hold expressions.
    pub fn fields(&self) -> Vec<&Field> {
        let mut fields: Vec<&Field> = self.flags.iter().map(|(_, flag)| flag).collect();
        for manifest in self.overrides.iter().chain(self.manifest.as_deref()) {
            fields.extend(manifest.fields());
        }
        match &self.action {
            K8sAction::K8sApply { file_paths, .. } => fields.extend(file_paths),
            K8sAction::K8sCanaryDeploy { instances, traffic_routing, .. } => {
                fields.push(instances.field());
                fields.extend(traffic_routing);
            }
            K8sAction::K8sScale { workload, instances, .. } => fields.extend([workload, instances.field()]),
            K8sAction::K8sBlueGreenDeploy { traffic_routing, .. } => fields.extend(traffic_routing),
            K8sAction::K8sDelete { resources, .. } | K8sAction::K8sRollout { resources, .. } => {
                match resources {
                    ResourceSelection::Names(names) | ResourceSelection::Manifests(names) => {
                        fields.extend(names)
                    }
                    ResourceSelection::Release => {}
                }
            }
            K8sAction::K8sPatch { workload, source, .. } => {
                fields.push(workload);
                fields.extend(store_fields(source));
            }
            K8sAction::K8sTrafficRouting { config } => fields.push(config),
            K8sAction::K8sRollingDeploy { .. }
            | K8sAction::K8sRollingRollback { .. }
            | K8sAction::K8sCanaryDelete {}
            | K8sAction::K8sBGSwapServices {}
            | K8sAction::K8sBlueGreenStageScaleDown { .. }
            | K8sAction::K8sDryRun {}
            | K8sAction::K8sDiff {} => {}
        }
        fields
    }

    /// Every connector that it names itself.
    pub fn connectors(&self) -> Vec<&Field> {
        let mut connectors: Vec<&Field> =
            self.overrides.iter().chain(self.manifest.as_deref()).filter_map(Manifest::connector).collect();
        if let K8sAction::K8sPatch { source: Store::Git { connector, .. }, .. } = &self.action {
            connectors.push(connector);
        }
        connectors
    }
}

/// Reads the spec of a Kubernetes step of type `kind`.
pub(super) fn read_k8s(kind: &str, spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Spec> {
    let mut step = K8sStep {
        action: K8sAction::K8sDiff {},
        flags: read_flags(spec, "", findings),
        overrides: read_manifests(spec, "overrides", findings),
        manifest: None,
    };
    for over in step.overrides.iter().filter(|over| over.kind.is_primary()) {
        let message = format!("overrides are of type Values or KustomizePatches, not {}", over.kind.name());
        findings.fault(spec.at(), &over.path, message);
    }
    step.action = match kind {
        "K8sApply" => {
            let file_paths = fields(spec, "filePaths", findings);
            let path = spec.sub("manifestSource");
            step.manifest = spec
                .node("manifestSource")
                .and_then(|node| read_manifest(node, &path, 0, findings))
                .map(Box::new);
            if file_paths.is_empty() && step.manifest.is_none() {
                let message = "names no file; expected `filePaths`, or a `manifestSource`";
                findings.fault(spec.at(), &spec.sub("filePaths"), message);
            }
            K8sAction::K8sApply {
                file_paths,
                skip_dry_run: flag(spec, "skipDryRun", findings),
                skip_steady_state_check: flag(spec, "skipSteadyStateCheck", findings),
                skip_rendering: flag(spec, "skipRendering", findings),
            }
        }
        "K8sRollingDeploy" => K8sAction::K8sRollingDeploy {
            skip_dry_run: flag(spec, "skipDryRun", findings),
            pruning_enabled: flag(spec, "pruningEnabled", findings),
        },
        "K8sRollingRollback" => {
            spec.known(&["skipDryRun"]);
            K8sAction::K8sRollingRollback { pruning_enabled: flag(spec, "pruningEnabled", findings) }
        }
        "K8sCanaryDeploy" => {
            if let Some(kind) = spec.field("canaryType", findings)
                && !kind.text().trim().eq_ignore_ascii_case("Standard")
            {
                let message = format!(
                    "canaryType `{}` is not supported by this version; supported is Standard",
                    kind.text()
                );
                findings.fault(&kind.at, &kind.path, message);
            }
            spec.known(&["targetPercentage"]);
            K8sAction::K8sCanaryDeploy {
                instances: instances(spec, 1, findings)?,
                skip_dry_run: flag(spec, "skipDryRun", findings),
                traffic_routing: spec.any("trafficRouting"),
            }
        }
        "K8sCanaryDelete" => K8sAction::K8sCanaryDelete {},
        "K8sBlueGreenDeploy" => K8sAction::K8sBlueGreenDeploy {
            skip_dry_run: flag(spec, "skipDryRun", findings),
            pruning_enabled: flag(spec, "pruningEnabled", findings),
            skip_unchanged: flag(spec, "skipDeploymentIfSameManifest", findings)
                || flag(spec, "skipUnchangedManifest", findings),
            check_only: false,
            traffic_routing: spec.any("trafficRouting"),
        },
        "K8sBGSwapServices" => {
            spec.known(&["skipDryRun"]);
            K8sAction::K8sBGSwapServices {}
        }
        "K8sBlueGreenStageScaleDown" => K8sAction::K8sBlueGreenStageScaleDown {
            delete_resources: flag(spec, "deleteResources", findings),
        },
        "K8sScale" => {
            spec.known(&["skipDryRun"]);
            K8sAction::K8sScale {
                workload: spec.required("workload", findings)?,
                instances: instances(spec, 0, findings)?,
                skip_steady_state_check: flag(spec, "skipSteadyStateCheck", findings),
            }
        }
        "K8sDelete" => {
            spec.known(&["skipDryRun"]);
            let (resources, delete_namespaces) = selection(spec, "deleteResources", findings)?;
            K8sAction::K8sDelete { resources, delete_namespaces }
        }
        "K8sDryRun" => {
            if flag(spec, "encryptYamlOutput", findings) {
                let message =
                    "an encrypted output of the dry run is not supported; Secrets in it are masked anyway";
                findings.fault(spec.at(), &spec.sub("encryptYamlOutput"), message);
            }
            K8sAction::K8sDryRun {}
        }
        "K8sDiff" => K8sAction::K8sDiff {},
        "K8sRollout" => {
            let command = spec.required("command", findings)?;
            let names = ["restart", "resume", "status", "undo", "pause", "history"];
            let known = names.map(|name| (name, name));
            let command = one_of(&command, "rollout command", &known, findings)?.to_owned();
            K8sAction::K8sRollout { command, resources: selection(spec, "resources", findings)?.0 }
        }
        "K8sPatch" => {
            let workload = spec.required("workload", findings);
            let strategy = spec.required("mergeStrategyType", findings);
            let names = ["Strategic", "Merge", "Json"].map(|name| (name, name));
            let strategy = strategy.and_then(|field| one_of(&field, "merge strategy", &names, findings));
            let source = spec.required_map("source", findings);
            let source = match source.and_then(|source| read_store(source, findings)) {
                Some(ManifestStore::Files { store }) => Some(store),
                Some(_) => {
                    let message = "a patch lies in Git or inline";
                    findings.fault(spec.at(), &spec.sub("source"), message);
                    None
                }
                None => None,
            };
            let record_change_cause = flag(spec, "recordChangeCause", findings);
            let skip_steady_state_check = flag(spec, "skipSteadyStateCheck", findings);
            K8sAction::K8sPatch {
                workload: workload?,
                source: source?,
                merge_strategy: strategy?.to_owned(),
                record_change_cause,
                skip_steady_state_check,
            }
        }
        _ => {
            spec.known(&["type", "trafficRouting"]);
            let mut config = serde_json::Map::new();
            for key in ["type", "trafficRouting"] {
                if let Some(field) = spec.any(key) {
                    config.insert(key.to_owned(), field.value);
                }
            }
            if !config.contains_key("trafficRouting") {
                findings.fault(spec.at(), &spec.sub("trafficRouting"), "`trafficRouting` is missing");
            }
            let config =
                Field { value: Json::Object(config), path: spec.path().to_owned(), at: spec.at().clone() };
            K8sAction::K8sTrafficRouting { config }
        }
    };
    Some(Spec::Kubernetes(Box::new(step)))
}

fn flag(spec: &mut Reader<'_>, key: &'static str, findings: &mut Findings) -> bool {
    spec.flag(key, findings).unwrap_or(false)
}

fn fields(spec: &mut Reader<'_>, key: &'static str, findings: &mut Findings) -> Vec<Field> {
    let path = spec.sub(key);
    let list = spec.list(key, findings);
    list.iter().enumerate().map(|(index, node)| Field::new(node, format!("{path}[{index}]"))).collect()
}

/// `instanceSelection: {type, spec}`. A value that is known already is held to its bounds.
pub(super) fn instances(
    spec: &mut Reader<'_>,
    least: u32,
    findings: &mut Findings,
) -> Option<InstanceSelection> {
    let mut selection = spec.required_map("instanceSelection", findings)?;
    let kind = selection.required("type", findings);
    let inner = selection.required_map("spec", findings);
    selection.finish(findings);
    let percentage =
        one_of(&kind?, "instance selection", &[("Count", false), ("Percentage", true)], findings)?;
    let mut inner = inner?;
    let value = inner.required(if percentage { "percentage" } else { "count" }, findings);
    inner.finish(findings);
    let value = value?;
    let text = value.text();
    if !text.contains("<+")
        && !text.trim().parse::<u32>().is_ok_and(|number| number >= least && (!percentage || number <= 100))
    {
        let range = if percentage { format!("{least} to 100") } else { format!("{least} or more") };
        let message = format!("expected a whole number, {range}; found `{text}`");
        findings.fault(&value.at, &value.path, message);
    }
    Some(if percentage { InstanceSelection::Percentage(value) } else { InstanceSelection::Count(value) })
}

/// `{type: ResourceName | ReleaseName | ManifestPath, spec}`.
fn selection(
    spec: &mut Reader<'_>,
    key: &'static str,
    findings: &mut Findings,
) -> Option<(ResourceSelection, bool)> {
    let mut chosen = spec.required_map(key, findings)?;
    let kind = chosen.required("type", findings);
    let empty = crate::yaml::Node::empty_map(chosen.at());
    let path = chosen.sub("spec");
    let inner = chosen.node("spec").unwrap_or(&empty);
    let mut inner = Reader::new(inner, path, findings);
    chosen.finish(findings);
    let names = [("ResourceName", 0), ("ReleaseName", 1), ("ManifestPath", 2)];
    let read = match one_of(&kind?, "selection of resources", &names, findings)? {
        0 => {
            let names = fields(&mut inner, "resourceNames", findings);
            if names.is_empty() {
                findings.fault(inner.at(), &inner.sub("resourceNames"), "lists nothing");
            }
            for name in names.iter().filter(|name| name.text().trim() == "*") {
                let message = "`*` would delete everything; use `type: ReleaseName` for all of a release";
                findings.fault(&name.at, &name.path, message);
            }
            (ResourceSelection::Names(names), false)
        }
        1 => (ResourceSelection::Release, flag(&mut inner, "deleteNamespace", findings)),
        _ => {
            let paths = fields(&mut inner, "manifestPaths", findings);
            let all = flag(&mut inner, "allManifestPaths", findings);
            if paths.is_empty() && !all {
                let message = "names no file; expected `manifestPaths`, or `allManifestPaths: true`";
                findings.fault(inner.at(), &inner.sub("manifestPaths"), message);
            }
            (ResourceSelection::Manifests(if all { Vec::new() } else { paths }), false)
        }
    };
    inner.finish(findings);
    Some(read)
}

/// `commandFlags`: a list of `{commandType, flag}`, or of flags alone (rule R5).
pub(super) fn read_flags(
    spec: &mut Reader<'_>,
    own: &'static str,
    findings: &mut Findings,
) -> Vec<(String, Field)> {
    let path = spec.sub("commandFlags");
    let mut flags = Vec::new();
    let mut bare: Vec<Field> = Vec::new();
    for (index, node) in spec.list("commandFlags", findings).iter().enumerate() {
        let path = format!("{path}[{index}]");
        if node.as_str().is_some() {
            bare.push(Field::new(node, path));
            continue;
        }
        let mut reader = Reader::new(node, path, findings);
        let command = reader.text("commandType", findings).unwrap_or_else(|| own.to_owned());
        let flag = reader.required("flag", findings);
        reader.finish(findings);
        flags.extend(flag.map(|flag| (command, flag)));
    }
    if let Some(joined) = rules::r5_command_flags(&bare, findings) {
        flags.push(("Apply".to_owned(), joined));
    }
    flags
}
