//! Answers of Kubernetes steps.

use super::Case;
use super::bounds::{MAX_BODY, MAX_MESSAGE, MAX_NAME, MAX_PARTS, cut};
use super::outputs::{Outputs, field, int, text};
use super::progress::units;
use crate::kryo::table::*;
use crate::kryo::{Set, Texts};
use crate::request::{K8sTask, Kind};
use serde_json::Value;
use std::collections::BTreeSet;

/// The answer of every Kubernetes task.
pub(super) fn response(case: &Case<'_>, task: Option<K8sTask>, release: &str) -> K8sDeployResponse {
    K8sDeployResponse {
        command_execution_status: case.status(),
        command_units_progress: units(case),
        delegate_meta_info: case.meta(),
        error_message: case.error(),
        k8s_ng_task_response: task.and_then(|task| told(case, task, release)),
    }
}

/// Whether a failure must come with what the step left in the cluster: the manager deletes a canary only when it was told
/// of it.
pub(super) fn owed(case: &Case<'_>) -> bool {
    matches!(case.request.kind, Kind::Kubernetes { task: Some(K8sTask::CanaryDeploy), .. })
        && undone(case, "canaryWorkload").is_some()
}

fn undone<'a>(case: &Case<'a>, name: &str) -> Option<&'a Value> {
    case.result.undo.as_ref()?.get(name)
}

fn told(case: &Case<'_>, task: K8sTask, release: &str) -> Option<K8sNGTaskResponse> {
    let outputs = Outputs(case.result);
    if !case.succeeded() {
        return match task {
            K8sTask::CanaryDeploy => Some(failed_canary(case)?.into()),
            _ => None,
        };
    }
    let pods = || pods(case, release);
    Some(match task {
        K8sTask::Rolling => K8sRollingDeployResponse {
            helm_chart_info: chart(&outputs),
            k8s_pod_list: pods(),
            load_balancer: outputs.text("loadBalancer"),
            previous_k8s_pod_list: None,
            pruned_resource_ids: ids(&outputs, "prunedResourceIds"),
            release_number: outputs.int("releaseNumber"),
        }
        .into(),
        K8sTask::RollingRollback => K8sRollingDeployRollbackResponse {
            helm_chart_info: chart(&outputs),
            k8s_pod_list: pods(),
            previous_k8s_pod_list: None,
            recreated_resource_ids: set(ids(&outputs, "recreatedResourceIds")),
        }
        .into(),
        K8sTask::CanaryDeploy => K8sCanaryDeployResponse {
            canary_workload: outputs.text("canaryWorkload"),
            canary_workload_deployed: outputs.flag("canaryWorkloadDeployed").unwrap_or_default(),
            current_instances: outputs.int("targetInstances"),
            helm_chart_info: chart(&outputs),
            k8s_pod_list: pods(),
            previous_k8s_pod_list: None,
            release_number: outputs.int("releaseNumber"),
        }
        .into(),
        K8sTask::BlueGreenDeploy => K8sBGDeployResponse {
            helm_chart_info: chart(&outputs),
            k8s_pod_list: pods(),
            previous_k8s_pod_list: None,
            primary_color: outputs.text("primaryColor"),
            primary_service_name: outputs.text("primaryServiceName"),
            pruned_resource_ids: ids(&outputs, "prunedResourceIds"),
            release_number: outputs.int("releaseNumber"),
            stage_color: outputs.text("stageColor"),
            stage_deployment_skipped: outputs.flag("stageDeploymentSkipped"),
            stage_service_name: outputs.text("stageServiceName"),
        }
        .into(),
        K8sTask::Scale => K8sScaleResponse { k8s_pod_list: pods(), previous_k8s_pod_list: None }.into(),
        K8sTask::DryRunManifest => {
            let limit = if case.lean { MAX_MESSAGE } else { MAX_BODY };
            let yaml = outputs.value("manifestDryRun").and_then(Value::as_str);
            K8sDryRunManifestResponse {
                manifest_dry_run_yaml: yaml.map(|text| cut(text, limit).into_owned()),
            }
            .into()
        }
        K8sTask::TrafficRouting => K8sTrafficRoutingResponse {}.into(),
        K8sTask::Apply
        | K8sTask::CanaryDelete
        | K8sTask::SwapServiceSelectors
        | K8sTask::BlueGreenStageScaleDown
        | K8sTask::Delete
        | K8sTask::InstanceSync => return None,
    })
}

/// What a failed canary left behind stands in its undo data: it is told so that the delete step removes it.
fn failed_canary(case: &Case<'_>) -> Option<K8sCanaryDeployResponse> {
    let deployed = undone(case, "canaryWorkloadDeployed").and_then(Value::as_bool);
    Some(K8sCanaryDeployResponse {
        canary_workload: Some(text(undone(case, "canaryWorkload")?)?),
        canary_workload_deployed: deployed.unwrap_or_default(),
        current_instances: None,
        helm_chart_info: None,
        k8s_pod_list: Vec::new(),
        previous_k8s_pod_list: None,
        release_number: undone(case, "releaseNumber").and_then(int),
    })
}

fn chart(outputs: &Outputs<'_>) -> Option<HelmChartInfo> {
    let info = outputs.value("manifest")?.get("helmChartInfo").filter(|info| info.is_object())?;
    Some(HelmChartInfo {
        name: field(info, "name"),
        // A chart that lies among other files is of no repository.
        repo_url: field(info, "repoUrl").filter(|url| !url.is_empty()),
        sub_chart_path: field(info, "subChartPath"),
        version: field(info, "version"),
    })
}

fn ids(outputs: &Outputs<'_>, name: &str) -> Vec<KubernetesResourceId> {
    let one = |value: &Value| KubernetesResourceId {
        kind: field(value, "kind"),
        name: field(value, "name"),
        namespace: field(value, "namespace"),
        versioned: value.get("versioned").and_then(Value::as_bool).unwrap_or_default(),
    };
    outputs.list(name).map(one).collect()
}

fn set(all: Vec<KubernetesResourceId>) -> Set<KubernetesResourceId> {
    let mut seen = BTreeSet::new();
    let new = |id: &KubernetesResourceId| {
        seen.insert((id.kind.clone(), id.name.clone(), id.namespace.clone(), id.versioned))
    };
    Set(all.into_iter().filter(new).collect())
}

/// The pods of the release. Steps name them `k8sPodList`, those of a single workload `pods`.
fn pods(case: &Case<'_>, release: &str) -> Vec<K8sPod> {
    if case.lean {
        return Vec::new();
    }
    let outputs = Outputs(case.result);
    let named = if outputs.value("k8sPodList").is_some() { "k8sPodList" } else { "pods" };
    outputs.list(named).map(|pod| one(pod, release)).collect()
}

fn one(pod: &Value, release: &str) -> K8sPod {
    let containers = pod.get("containerList").and_then(Value::as_array).into_iter().flatten().take(MAX_PARTS);
    let labels = pod.get("labels").and_then(Value::as_object).into_iter().flatten().take(MAX_PARTS);
    let labels: Texts =
        labels.filter_map(|(key, value)| Some((cut(key, MAX_NAME).into_owned(), text(value)?))).collect();
    K8sPod {
        container_list: containers
            .map(|container| K8sContainer {
                container_id: field(container, "containerId"),
                image: field(container, "image"),
                name: field(container, "name"),
            })
            .collect(),
        labels,
        name: field(pod, "name"),
        namespace: field(pod, "namespace"),
        new_pod: pod.get("newPod").and_then(Value::as_bool).unwrap_or_default(),
        pod_ip: field(pod, "podIP"),
        release_name: Some(cut(release, MAX_NAME).into_owned()),
        uid: field(pod, "uid"),
    }
}
