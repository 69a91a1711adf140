//! K8S_COMMAND_TASK_NG and its variants: thirteen requests, told apart by `taskType`.

use super::fault::Fault;
use super::view::View;
use super::{Cx, cluster, manifest, step};
use crate::request::{K8sTask, Kind};
use proto::task::{
    Infrastructure, Instances, KubernetesAction, KubernetesSpec, Selection, StepSpec, StepTask,
};
use serde_json::{Value, json};

pub(super) fn read(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    let release_name = data.maybe_str("releaseName")?.unwrap_or_default().to_owned();
    let name = data.str("taskType")?;
    let task = K8sTask::by_name(name);
    cx.request.kind = Kind::Kubernetes { task, release: release_name.clone() };
    cx.request.units = task.map(|task| units(task, data)).transpose()?.unwrap_or_default();
    let task = task
        .ok_or_else(|| Fault::unsupported(format!("the Kubernetes task `{}`", super::fault::short(name))))?;
    if !data.list("serviceHooks")?.is_empty() {
        return Err(Fault::unsupported("service hooks").hint(
            "take the hooks out of the service, or leave this step to a Harness delegate by a delegate selector",
        ));
    }
    if data.has("trafficRoutingConfig") {
        return Err(Fault::unsupported("traffic routing in a Kubernetes step"));
    }
    let action = action(cx, task, data)?;
    let infra = data.object("k8sInfraDelegateConfig")?;
    let cluster = cluster::of_infrastructure(cx, &infra)?;
    let rendered = manifest::read(cx, data)?;
    let undo = undo(task, data)?;
    let spec = KubernetesSpec {
        cluster,
        namespace: cx.plain(&infra, "namespace")?,
        release_name: cx.secrets.plain(&data.at("releaseName"), &release_name)?,
        manifest: rendered.manifest,
        overrides: rendered.overrides,
        command_flags: rendered.flags,
        action,
    };
    let infrastructure = infrastructure(data)?;
    Ok(StepTask { undo, infrastructure, ..step(cx, StepSpec::Kubernetes(Box::new(spec))) })
}

/// The units that the manager shows, with those that only some requests have.
fn units(task: K8sTask, data: &View<'_>) -> Result<Vec<String>, Fault> {
    let mut units: Vec<&str> = task.units().to_vec();
    match task {
        K8sTask::Rolling | K8sTask::BlueGreenDeploy if data.flag("pruningEnabled")? => units.push("Prune"),
        K8sTask::RollingRollback if data.flag("pruningEnabled")? => {
            units.splice(1..1, ["Recreate Pruned Resources", "Delete Failed Release Resources"]);
        }
        K8sTask::Apply | K8sTask::Scale if data.flag("skipSteadyStateCheck")? => {
            units.retain(|unit| *unit != "Wait for Steady State");
        }
        K8sTask::Delete if data.has("manifestDelegateConfig") => units.insert(0, "Fetch Files"),
        _ => {}
    }
    Ok(units.into_iter().map(str::to_owned).collect())
}

fn action(cx: &Cx<'_>, task: K8sTask, data: &View<'_>) -> Result<KubernetesAction, Fault> {
    Ok(match task {
        K8sTask::Apply => KubernetesAction::K8sApply {
            // With a manifest of its own the step applies all of that.
            file_paths: if data.flag("useManifestSource")? {
                Vec::new()
            } else {
                cx.plains(data, "filePaths")?
            },
            skip_dry_run: data.flag("skipDryRun")?,
            skip_steady_state_check: data.flag("skipSteadyStateCheck")?,
            skip_rendering: data.flag("skipRendering")?,
        },
        K8sTask::Rolling => KubernetesAction::K8sRollingDeploy {
            skip_dry_run: data.flag("skipDryRun")?,
            pruning_enabled: data.flag("pruningEnabled")?,
            in_canary_workflow: data.flag("inCanaryWorkflow")?,
        },
        K8sTask::RollingRollback => {
            KubernetesAction::K8sRollingRollback { pruning_enabled: data.flag("pruningEnabled")? }
        }
        K8sTask::CanaryDeploy => KubernetesAction::K8sCanaryDeploy {
            instances: instances(data, 1)?,
            skip_dry_run: data.flag("skipDryRun")?,
            traffic_routing: None,
        },
        K8sTask::CanaryDelete => {
            KubernetesAction::K8sCanaryDelete { workloads: listed(cx, data, "canaryWorkloads")? }
        }
        K8sTask::BlueGreenDeploy => KubernetesAction::K8sBlueGreenDeploy {
            skip_dry_run: data.flag("skipDryRun")?,
            pruning_enabled: data.flag("pruningEnabled")?,
            skip_unchanged: data.flag("skipUnchangedManifest")?,
            check_only: false,
            traffic_routing: None,
        },
        K8sTask::SwapServiceSelectors => KubernetesAction::K8sBGSwapServices {
            primary_service: cx.plain(data, "service1")?,
            stage_service: cx.plain(data, "service2")?,
            target_color: None,
        },
        K8sTask::BlueGreenStageScaleDown => {
            KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: data.flag("deleteResources")? }
        }
        K8sTask::Scale => KubernetesAction::K8sScale {
            workload: cx.plain(data, "workload")?,
            instances: instances(data, 0)?,
            skip_steady_state_check: data.flag("skipSteadyStateCheck")?,
        },
        K8sTask::Delete => KubernetesAction::K8sDelete {
            resources: selection(cx, data)?,
            delete_namespaces: data.flag("deleteNamespacesForRelease")?,
        },
        K8sTask::DryRunManifest => KubernetesAction::K8sDryRun {},
        K8sTask::TrafficRouting | K8sTask::InstanceSync => {
            return Err(Fault::unsupported(format!("the Kubernetes task {}", task.name())));
        }
    })
}

/// How many pods. A share is one of `maxInstances`, if the package says that, else of what runs.
fn instances(data: &View<'_>, least: u32) -> Result<Instances, Fault> {
    let count = data.count("instances")?;
    let share = data.word("instanceUnitType", &[("COUNT", false), ("PERCENTAGE", true)])?;
    let whole = match data.value("maxInstances") {
        Some(Value::Object(optional)) => optional.get("value").and_then(Value::as_u64),
        Some(_) => data.maybe_count("maxInstances")?.map(u64::from),
        None => None,
    };
    Ok(match (share, whole.filter(|whole| *whole > 0)) {
        (false, _) => Instances::Count(count),
        (true, None) => Instances::Percentage(count),
        (true, Some(whole)) => {
            let pods = (u64::from(count) * whole + 50) / 100;
            Instances::Count(u32::try_from(pods).unwrap_or(u32::MAX).max(least))
        }
    })
}

/// A list with commas.
fn listed(cx: &Cx<'_>, data: &View<'_>, key: &str) -> Result<Vec<String>, Fault> {
    let text = cx.maybe_plain(data, key)?.unwrap_or_default();
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

fn selection(cx: &Cx<'_>, data: &View<'_>) -> Result<Selection, Fault> {
    #[derive(Clone, Copy)]
    enum By {
        Name,
        Release,
        Path,
    }
    const BY: [(&str, By); 3] =
        [("ResourceName", By::Name), ("ReleaseName", By::Release), ("ManifestPath", By::Path)];
    let by = if data.has("deleteResourcesType") {
        data.word("deleteResourcesType", &BY)?
    } else if data.maybe_str("filePaths")?.is_some() {
        By::Path
    } else {
        By::Name
    };
    let all = |list: &[String]| list.iter().any(|one| one == "*");
    Ok(match by {
        By::Release => Selection::Release,
        By::Path => {
            let paths = listed(cx, data, "filePaths")?;
            Selection::Manifests(if all(&paths) { Vec::new() } else { paths })
        }
        By::Name => {
            let names = listed(cx, data, "resources")?;
            if all(&names) {
                return Err(Fault::spec(
                    "the step deletes `*`, which names no object",
                    "choose to delete by release name, or name the objects as Kind/name",
                ));
            }
            Selection::Names(names)
        }
    })
}

/// What the answer of an earlier step said, in the form in which our executors read it.
fn undo(task: K8sTask, data: &View<'_>) -> Result<Option<Value>, Fault> {
    if task != K8sTask::RollingRollback {
        return Ok(None);
    }
    let number = data.maybe_count("releaseNumber")?.filter(|number| *number > 0);
    Ok(number.map(|number| json!({"v": 1, "step": "K8sRollingDeploy", "releaseNumber": number})))
}

fn infrastructure(data: &View<'_>) -> Result<Option<Infrastructure>, Fault> {
    let Some(metadata) = data.maybe("releaseMetadata")? else { return Ok(None) };
    let text = |key: &str| Ok::<_, Fault>(metadata.maybe_str(key)?.unwrap_or_default().to_owned());
    Ok(Some(Infrastructure {
        identifier: text("infraId")?,
        environment: text("envId")?,
        kind: "KubernetesDirect".to_owned(),
        key: text("infraKey")?,
    }))
}
