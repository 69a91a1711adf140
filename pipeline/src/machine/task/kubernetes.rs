//! The typed document of Kubernetes steps, and when one of them has nothing to do.

use super::artifact::file_store;
use super::build::{Builder, bad_field, bug, field_value};
use super::earlier::{began, canary_workloads, in_rollback, latest, output};
use crate::connection;
use crate::model::Field;
use crate::model::connector::ConnectorSpec;
use crate::model::manifest::{Manifest, ManifestKind, ManifestStore};
use crate::model::service::Store;
use crate::model::step_k8s::{InstanceSelection, K8sAction, K8sStep, ResourceSelection};
use proto::failure::{Failure, FailureKind};
use proto::task::{
    ChartRepository, Cluster, CommandFlag, FileStore, Instances, KubernetesAction, KubernetesSpec, Selection,
};
use proto::text::Text;
use serde_json::Value as Json;

/// Resolves a Kubernetes step.
pub(super) fn build(builder: &mut Builder<'_>, step: &K8sStep) -> Result<KubernetesSpec, Box<Failure>> {
    let Some(target) = builder.target() else { return Err(no_cluster("the step's stage deploys nowhere")) };
    let infrastructure = &target.infrastructure;
    let (Some(connector), Some(namespace), Some(release)) =
        (&infrastructure.connector_field, &infrastructure.namespace, &infrastructure.release_name)
    else {
        let text = format!("the infrastructure `{}` is no Kubernetes cluster", infrastructure.identifier);
        return Err(no_cluster(&text));
    };
    let cluster = cluster(builder, connector)?;
    let namespace = dns_label(namespace, &builder.strict(namespace)?, "namespace")?;
    // The service's own name of the release outweighs that of the infrastructure.
    let release = target.service.definition.release_name.as_ref().unwrap_or(release);
    let release_name = dns_label(release, &builder.strict(release)?, "release name")?;
    let entries: Vec<&Manifest> = target.service.definition.manifests.iter().collect();
    let primary = match &step.manifest {
        Some(own) => Some(&**own),
        None => entries.iter().copied().find(|manifest| manifest.kind.is_primary()),
    };
    let mut manifest = None;
    let mut overrides = Vec::new();
    if step.renders() {
        let Some(primary) = primary else { return Err(no_cluster("the service has no manifest")) };
        manifest = Some(self::manifest(builder, primary)?);
        let own = entries.iter().copied().filter(|_| step.manifest.is_none());
        for over in own.chain(&step.overrides).filter(|over| fits(primary, over)) {
            overrides.push(override_store(builder, over, primary)?);
        }
    }
    let mut command_flags = flags(builder, &step.flags)?;
    if let Some(primary) = primary.filter(|_| step.renders()) {
        command_flags.extend(flags(builder, &primary.flags)?);
    }
    let action = action(builder, step)?;
    Ok(KubernetesSpec { cluster, namespace, release_name, manifest, overrides, command_flags, action })
}

fn no_cluster(text: &str) -> Box<Failure> {
    Box::new(Failure::new(FailureKind::BadSpec, "PIPE-040", text))
}

/// Namespaces are DNS labels, and the name of a release becomes the value of a label.
fn dns_label(field: &Field, text: &str, what: &str) -> Result<String, Box<Failure>> {
    let text = text.trim();
    let fits = !text.is_empty()
        && text.len() <= 63
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        return Ok(text.to_owned());
    }
    let text = format!("the {what} `{text}` is no DNS label: at most 63 of a-z, 0-9 and `-`, not at an end");
    Err(bad_field(field, text))
}

/// Whether an override says something about a primary manifest.
fn fits(primary: &Manifest, over: &Manifest) -> bool {
    match over.kind {
        ManifestKind::Values => !matches!(primary.kind, ManifestKind::Kustomize { .. }),
        ManifestKind::KustomizePatches => matches!(primary.kind, ManifestKind::Kustomize { .. }),
        _ => false,
    }
}

// --- manifests ---

fn texts(builder: &Builder<'_>, fields: &[Field]) -> Result<Vec<String>, Box<Failure>> {
    let mut texts = Vec::new();
    for field in fields {
        // One element may be an expression that gives several.
        texts.extend(builder.texts(field)?);
    }
    Ok(texts)
}

fn manifest(builder: &mut Builder<'_>, manifest: &Manifest) -> Result<proto::task::Manifest, Box<Failure>> {
    let kind = match &manifest.kind {
        ManifestKind::K8sManifest { values_paths } => {
            proto::task::ManifestKind::K8sManifest { values_paths: texts(builder, values_paths)? }
        }
        ManifestKind::Kustomize { folder, patches_paths } => proto::task::ManifestKind::Kustomize {
            folder: builder.optional(folder.as_ref())?,
            patches_paths: texts(builder, patches_paths)?,
        },
        ManifestKind::HelmChart { chart_name, chart_version, sub_chart_path, values_paths } => {
            let name = builder.optional(chart_name.as_ref())?;
            let version = builder.optional(chart_version.as_ref())?;
            let sub_chart_path = builder.optional(sub_chart_path.as_ref())?;
            let values_paths = texts(builder, values_paths)?;
            let repository = match &manifest.store {
                ManifestStore::Charts { oci, connector, base_path } => {
                    let base_path = builder.optional(base_path.as_ref())?;
                    Some(builder.charts(connector, *oci, base_path.as_deref())?)
                }
                _ => None,
            };
            proto::task::ManifestKind::HelmChart {
                repository,
                chart_name: name.unwrap_or_default(),
                chart_version: version,
                sub_chart_path,
                values_paths,
            }
        }
        ManifestKind::Values | ManifestKind::KustomizePatches => {
            return Err(bug("an override was taken for a manifest"));
        }
    };
    let store = match &manifest.store {
        ManifestStore::Files { store } => Some(strict_store(builder, store)?),
        ManifestStore::Charts { .. } => None,
        ManifestStore::Inherit { .. } => return Err(bug("a primary manifest inherits its store")),
    };
    Ok(proto::task::Manifest {
        identifier: manifest.identifier.clone(),
        store,
        files: Vec::new(),
        kind,
        skip_versioning: manifest.skip_versioning,
        optional_values: manifest.optional_values,
    })
}

/// What is applied must be known: an expression that leads nowhere fails the step.
fn strict_store(builder: &mut Builder<'_>, store: &Store) -> Result<FileStore, Box<Failure>> {
    match store {
        Store::Inline { path, content } => {
            Ok(FileStore::Inline { path: builder.strict(path)?, content: Text(builder.strict(content)?) })
        }
        Store::Git { .. } => file_store(builder, store),
    }
}

fn override_store(
    builder: &mut Builder<'_>,
    over: &Manifest,
    primary: &Manifest,
) -> Result<FileStore, Box<Failure>> {
    match &over.store {
        ManifestStore::Files { store } => strict_store(builder, store),
        ManifestStore::Inherit { paths } => {
            let ManifestStore::Files { store: Store::Git { connector, repo_name, reference, .. } } =
                &primary.store
            else {
                let text = format!(
                    "the override `{}` inherits its store, but the manifest `{}` lies in no Git repository",
                    over.identifier, primary.identifier
                );
                return Err(no_cluster(&text));
            };
            let store = Store::Git {
                connector: connector.clone(),
                repo_name: repo_name.clone(),
                reference: reference.clone(),
                paths: paths.clone(),
            };
            file_store(builder, &store)
        }
        ManifestStore::Charts { .. } => Err(bug("an override lies in a repository of charts")),
    }
}

/// One flag each: `--prune --selector=app=web` are two. A value that stands apart stays with its flag.
fn flags(builder: &Builder<'_>, flags: &[(String, Field)]) -> Result<Vec<CommandFlag>, Box<Failure>> {
    let mut all: Vec<CommandFlag> = Vec::new();
    for (command, field) in flags {
        let text = builder.strict(field)?;
        let mut first = true;
        for word in text.split_whitespace() {
            match all.last_mut() {
                Some(last) if !first && !word.starts_with('-') => {
                    last.flag.push(' ');
                    last.flag.push_str(word);
                }
                _ => all.push(CommandFlag { command: command.clone(), flag: word.to_owned() }),
            }
            first = false;
        }
    }
    Ok(all)
}

// --- the cluster ---

/// The cluster that a connector leads to.
pub(super) fn cluster(builder: &mut Builder<'_>, field: &Field) -> Result<Cluster, Box<Failure>> {
    let connector = builder.use_connector(field)?;
    let ConnectorSpec::K8sCluster { credential } = &connector.spec else {
        let text =
            format!("the connector `{}` is of another type; expected K8sCluster", connector.identifier);
        return Err(bad_field(field, text));
    };
    connection::cluster(builder, &connector.identifier, credential)
}

impl Builder<'_> {
    /// A repository of charts; `base_path` lies below the connector's URL.
    fn charts(
        &mut self,
        field: &Field,
        oci: bool,
        base_path: Option<&str>,
    ) -> Result<ChartRepository, Box<Failure>> {
        let mut http = self.helm_repository(field, oci)?;
        if let Some(path) = base_path {
            http.url = format!("{}/{}", http.url.trim_end_matches('/'), path.trim_matches('/'));
        }
        Ok(if oci { ChartRepository::Oci(http) } else { ChartRepository::Http(http) })
    }
}

// --- the action ---

fn instances(
    builder: &Builder<'_>,
    selection: &InstanceSelection,
    least: u32,
) -> Result<Instances, Box<Failure>> {
    let (field, percentage) = match selection {
        InstanceSelection::Count(field) => (field, false),
        InstanceSelection::Percentage(field) => (field, true),
    };
    let text = builder.strict(field)?;
    let number = text.trim().parse::<u32>().ok().filter(|n| *n >= least && (!percentage || *n <= 100));
    match number {
        Some(number) if percentage => Ok(Instances::Percentage(number)),
        Some(number) => Ok(Instances::Count(number)),
        None => {
            let range = if percentage { format!("from {least} to 100") } else { format!("{least} or more") };
            Err(bad_field(field, format!("expected a whole number, {range}; found `{text}`")))
        }
    }
}

fn selection(builder: &Builder<'_>, selection: &ResourceSelection) -> Result<Selection, Box<Failure>> {
    Ok(match selection {
        ResourceSelection::Names(names) => {
            let names = texts(builder, names)?;
            // `canaryWorkload` and the like are lists in one text.
            let each = names.iter().flat_map(|name| name.split(',')).map(str::trim);
            Selection::Names(each.filter(|name| !name.is_empty()).map(str::to_owned).collect())
        }
        ResourceSelection::Release => Selection::Release,
        ResourceSelection::Manifests(paths) => Selection::Manifests(texts(builder, paths)?),
    })
}

fn action(builder: &mut Builder<'_>, step: &K8sStep) -> Result<KubernetesAction, Box<Failure>> {
    let json = |builder: &Builder<'_>, field: &Option<Field>| -> Result<Option<Json>, Box<Failure>> {
        let resolved = field
            .as_ref()
            .map(|field| field_value(field, &builder.context()).map_err(|error| bad_field(field, error)));
        resolved.transpose()
    };
    Ok(match &step.action {
        K8sAction::K8sApply { file_paths, skip_dry_run, skip_steady_state_check, skip_rendering } => {
            KubernetesAction::K8sApply {
                file_paths: texts(builder, file_paths)?,
                skip_dry_run: *skip_dry_run,
                skip_steady_state_check: *skip_steady_state_check,
                skip_rendering: *skip_rendering,
            }
        }
        K8sAction::K8sRollingDeploy { skip_dry_run, pruning_enabled } => KubernetesAction::K8sRollingDeploy {
            skip_dry_run: *skip_dry_run,
            pruning_enabled: *pruning_enabled,
            in_canary_workflow: latest(builder, "K8sCanaryDeploy", began).is_some(),
        },
        K8sAction::K8sRollingRollback { pruning_enabled } => {
            KubernetesAction::K8sRollingRollback { pruning_enabled: *pruning_enabled }
        }
        K8sAction::K8sCanaryDeploy { instances: chosen, skip_dry_run, traffic_routing } => {
            KubernetesAction::K8sCanaryDeploy {
                instances: instances(builder, chosen, 1)?,
                skip_dry_run: *skip_dry_run,
                traffic_routing: json(builder, traffic_routing)?,
            }
        }
        K8sAction::K8sCanaryDelete {} => {
            KubernetesAction::K8sCanaryDelete { workloads: canary_workloads(builder) }
        }
        K8sAction::K8sBlueGreenDeploy {
            skip_dry_run,
            pruning_enabled,
            skip_unchanged,
            check_only,
            traffic_routing,
        } => KubernetesAction::K8sBlueGreenDeploy {
            skip_dry_run: *skip_dry_run,
            pruning_enabled: *pruning_enabled,
            skip_unchanged: *skip_unchanged,
            check_only: *check_only,
            traffic_routing: json(builder, traffic_routing)?,
        },
        K8sAction::K8sBGSwapServices {} => {
            let Some(run) =
                latest(builder, "K8sBlueGreenDeploy", |run| output(run, "stageServiceName").is_some())
            else {
                let text = "no K8sBlueGreenDeploy of this stage has told its Services; it must succeed before they are swapped";
                return Err(no_cluster(text));
            };
            // Back again in a rollback: to the colour that was primary before.
            let colour = if in_rollback(builder) { "primaryColor" } else { "stageColor" };
            KubernetesAction::K8sBGSwapServices {
                primary_service: output(run, "primaryServiceName").unwrap_or_default(),
                stage_service: output(run, "stageServiceName").unwrap_or_default(),
                target_color: output(run, colour),
            }
        }
        K8sAction::K8sBlueGreenStageScaleDown { delete_resources } => {
            KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: *delete_resources }
        }
        K8sAction::K8sScale { workload, instances: chosen, skip_steady_state_check } => {
            KubernetesAction::K8sScale {
                workload: builder.strict(workload)?,
                instances: instances(builder, chosen, 0)?,
                skip_steady_state_check: *skip_steady_state_check,
            }
        }
        K8sAction::K8sDelete { resources, delete_namespaces } => KubernetesAction::K8sDelete {
            resources: selection(builder, resources)?,
            delete_namespaces: *delete_namespaces,
        },
        K8sAction::K8sDryRun {} => KubernetesAction::K8sDryRun {},
        K8sAction::K8sDiff {} => KubernetesAction::K8sDiff {},
        K8sAction::K8sRollout { command, resources } => KubernetesAction::K8sRollout {
            command: command.clone(),
            resources: selection(builder, resources)?,
        },
        K8sAction::K8sPatch {
            workload,
            source,
            merge_strategy,
            record_change_cause,
            skip_steady_state_check,
        } => KubernetesAction::K8sPatch {
            workload: builder.strict(workload)?,
            source: strict_store(builder, source)?,
            merge_strategy: merge_strategy.clone(),
            record_change_cause: *record_change_cause,
            skip_steady_state_check: *skip_steady_state_check,
        },
        K8sAction::K8sTrafficRouting { config } => {
            let config = field_value(config, &builder.context()).map_err(|error| bad_field(config, error))?;
            KubernetesAction::K8sTrafficRouting { config }
        }
    })
}
