//! Answers of Kubernetes steps. Facts §4.3.

use super::*;
use crate::kryo::class::{Class, Declared, FieldInfo};
use crate::kryo::fields::*;
use crate::kryo::writer::Writer;

interface! {
    /// What a Kubernetes step tells beside its status. Apply, Delete, CanaryDelete, SwapServiceSelectors and
    /// BlueGreenStageScaleDown tell nothing.
    K8sNGTaskResponse = "K8sNGTaskResponse" {
        Rolling(K8sRollingDeployResponse),
        RollingRollback(K8sRollingDeployRollbackResponse),
        Canary(K8sCanaryDeployResponse),
        BlueGreen(K8sBGDeployResponse),
        Scale(K8sScaleResponse),
        DryRun(K8sDryRunManifestResponse),
        TrafficRouting(K8sTrafficRoutingResponse),
    }
}

/// The interfaces of this part.
pub(super) const INTERFACES: &[Interface] = &[K8sNGTaskResponse::INTERFACE];

classes! {
    /// Answer of every Kubernetes task type.
    final K8sDeployResponse = 19099 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        commandUnitsProgress command_units_progress: UnitProgressData,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorMessage error_message: Option<String>,
        k8sNGTaskResponse k8s_ng_task_response: Option<K8sNGTaskResponse>,
    }

    /// DEPLOYMENT_ROLLING.
    open K8sRollingDeployResponse = 19328 {
        helmChartInfo helm_chart_info: Option<HelmChartInfo>,
        k8sPodList k8s_pod_list: Vec<K8sPod>,
        loadBalancer load_balancer: Option<String>,
        previousK8sPodList previous_k8s_pod_list: Option<Vec<K8sPod>>,
        prunedResourceIds pruned_resource_ids: Vec<KubernetesResourceId>,
        releaseNumber release_number: Option<i32>,
    }

    /// DEPLOYMENT_ROLLING_ROLLBACK.
    final K8sRollingDeployRollbackResponse = 543430 {
        helmChartInfo helm_chart_info: Option<HelmChartInfo>,
        k8sPodList k8s_pod_list: Vec<K8sPod>,
        previousK8sPodList previous_k8s_pod_list: Option<Vec<K8sPod>>,
        recreatedResourceIds recreated_resource_ids: Set<KubernetesResourceId>,
    }

    /// CANARY_DEPLOY.
    final K8sCanaryDeployResponse = 543250 {
        canaryWorkload canary_workload: Option<String>,
        canaryWorkloadDeployed canary_workload_deployed: bool,
        currentInstances current_instances: Option<i32>,
        helmChartInfo helm_chart_info: Option<HelmChartInfo>,
        k8sPodList k8s_pod_list: Vec<K8sPod>,
        previousK8sPodList previous_k8s_pod_list: Option<Vec<K8sPod>>,
        releaseNumber release_number: Option<i32>,
    }

    /// BLUE_GREEN_DEPLOY.
    open K8sBGDeployResponse = 19436 {
        helmChartInfo helm_chart_info: Option<HelmChartInfo>,
        k8sPodList k8s_pod_list: Vec<K8sPod>,
        previousK8sPodList previous_k8s_pod_list: Option<Vec<K8sPod>>,
        primaryColor primary_color: Option<String>,
        primaryServiceName primary_service_name: Option<String>,
        prunedResourceIds pruned_resource_ids: Vec<KubernetesResourceId>,
        releaseNumber release_number: Option<i32>,
        stageColor stage_color: Option<String>,
        stageDeploymentSkipped stage_deployment_skipped: Option<bool>,
        stageServiceName stage_service_name: Option<String>,
    }

    /// SCALE.
    final K8sScaleResponse = 543241 {
        k8sPodList k8s_pod_list: Vec<K8sPod>,
        previousK8sPodList previous_k8s_pod_list: Option<Vec<K8sPod>>,
    }

    /// DRY_RUN_MANIFEST.
    final K8sDryRunManifestResponse = 573595 {
        manifestDryRunYaml manifest_dry_run_yaml: Option<String>,
    }

    /// TRAFFIC_ROUTING.
    open K8sTrafficRoutingResponse = 20002013 {}

    /// A pod of the release; the manager makes a server instance of it.
    open K8sPod = 7145 {
        containerList container_list: Vec<K8sContainer>,
        labels labels: Texts,
        name name: Option<String>,
        namespace namespace: Option<String>,
        newPod new_pod: bool,
        podIP pod_ip: Option<String>,
        releaseName release_name: Option<String>,
        uid uid: Option<String>,
    }

    /// A container of a pod.
    open K8sContainer = 7146 {
        containerId container_id: Option<String>,
        image image: Option<String>,
        name name: Option<String>,
    }

    /// The chart that was deployed.
    open HelmChartInfo = 543312 {
        name name: Option<String>,
        repoUrl repo_url: Option<String>,
        subChartPath sub_chart_path: Option<String>,
        version version: Option<String>,
    }

    /// An object of the cluster.
    open KubernetesResourceId = 97031 {
        kind kind: Option<String>,
        name name: Option<String>,
        namespace namespace: Option<String>,
        versioned versioned: bool,
    }
}
