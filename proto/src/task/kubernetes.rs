//! Kubernetes steps: which cluster, which manifests, what to do with them.
//!
//! Names of steps, units and outcomes are Harness' (facts `k8s-steps.md`). One document carries every step of the
//! family: where it acts and what it renders are the same for all, only [`KubernetesAction`] differs.

use crate::task::source::{FileStore, HttpConnector};
use crate::text::{SecretRef, Text};
use serde::{Deserialize, Serialize};

/// A Kubernetes step with everything it needs from its stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesSpec {
    /// The cluster and how to log in.
    pub cluster: Cluster,
    /// Namespace of objects that name none.
    pub namespace: String,
    /// Name of the release; a label value on its pods, so at most 63 characters.
    pub release_name: String,
    /// The primary manifest of the service, if the step renders any.
    #[serde(default)]
    pub manifest: Option<Manifest>,
    /// Documents laid over the primary manifest, in order: values, patches.
    #[serde(default)]
    pub overrides: Vec<FileStore>,
    /// Flags of kubectl, Helm or Kustomize by the command they belong to.
    #[serde(default)]
    pub command_flags: Vec<CommandFlag>,
    /// What to do.
    pub action: KubernetesAction,
}

/// A cluster and the credentials of its connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Identifier of the connector, for messages.
    pub connector: String,
    /// How to log in.
    pub credential: ClusterCredential,
}

/// How to log in to a cluster (connector `K8sCluster`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ClusterCredential {
    /// What the agent itself has: the in-cluster account, else its `KUBECONFIG` (exec plugins included).
    InheritFromDelegate {
        /// Context of the kubeconfig; its current one when not named.
        #[serde(default)]
        context: Option<String>,
    },
    /// A service account's token.
    ServiceAccount {
        /// URL of the API server.
        master_url: String,
        /// Secret with the token.
        token: SecretRef,
        /// Secret with the CA in PEM; the system's roots when not given.
        #[serde(default)]
        ca: Option<SecretRef>,
    },
    /// A client certificate.
    ClientKeyCert {
        /// URL of the API server.
        master_url: String,
        /// Secret with the CA in PEM; the system's roots when not given.
        #[serde(default)]
        ca: Option<SecretRef>,
        /// Secret with the certificate in PEM.
        client_cert: SecretRef,
        /// Secret with the key in PEM.
        client_key: SecretRef,
        /// Secret with the key's passphrase.
        #[serde(default)]
        passphrase: Option<SecretRef>,
    },
    /// A token of an OpenID provider, got with the password grant.
    OpenIdConnect {
        /// URL of the API server.
        master_url: String,
        /// URL of the provider; its discovery document lies below it.
        issuer_url: String,
        /// Client id.
        client_id: Text,
        /// Secret of the client.
        #[serde(default)]
        client_secret: Option<SecretRef>,
        /// User; may be a secret placeholder.
        username: Text,
        /// Secret with the password.
        password: SecretRef,
        /// Space separated scopes.
        #[serde(default)]
        scopes: String,
        /// Secret with the CA of the API server in PEM.
        #[serde(default)]
        ca: Option<SecretRef>,
    },
}

/// A service's primary manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Identifier.
    pub identifier: String,
    /// Where the files lie. For a chart that lies in a repository of charts, [`ManifestKind::HelmChart`] says so.
    #[serde(default)]
    pub store: Option<FileStore>,
    /// Files with their content, in place of a store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InlineFile>,
    /// How the files become objects.
    pub kind: ManifestKind,
    /// ConfigMaps and Secrets keep their names.
    #[serde(default)]
    pub skip_versioning: bool,
    /// Values files beside the manifest may be missing.
    #[serde(default)]
    pub optional_values: bool,
}

/// A file whose content stands in the task itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Path, as if it lay in a store.
    pub path: String,
    /// Content; may hold secret placeholders.
    pub content: Text,
}

/// How files become objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ManifestKind {
    /// Plain YAML, or Go templates when there are values.
    K8sManifest {
        /// Values files inside the store.
        #[serde(default)]
        values_paths: Vec<String>,
    },
    /// A chart, rendered by the `helm` program.
    HelmChart {
        /// Repository of charts; `None`: the chart lies in the store.
        #[serde(default)]
        repository: Option<ChartRepository>,
        /// Name of the chart, or its folder in the store.
        chart_name: String,
        /// Version; the newest when not named.
        #[serde(default)]
        chart_version: Option<String>,
        /// Folder of a sub-chart inside the chart.
        #[serde(default)]
        sub_chart_path: Option<String>,
        /// Values files inside the chart or store.
        #[serde(default)]
        values_paths: Vec<String>,
    },
    /// An overlay, built by `kustomize` or `kubectl kustomize`.
    Kustomize {
        /// Folder of the overlay inside the store.
        #[serde(default)]
        folder: Option<String>,
        /// Patch files inside the store.
        #[serde(default)]
        patches_paths: Vec<String>,
    },
}

/// Where charts are published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "spec")]
pub enum ChartRepository {
    /// An HTTP repository with an `index.yaml`.
    Http(HttpConnector),
    /// An OCI registry; the connector's URL may begin with `oci://`.
    Oci(HttpConnector),
}

/// Flags for one command, as `commandFlags` of a manifest or step names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandFlag {
    /// `Apply`, `Template`, `Build`, `Delete`, `Rollout`, `Patch` …; empty: of the step's own command.
    #[serde(default)]
    pub command: String,
    /// One flag with its value: `--selector=app=web`.
    pub flag: String,
}

/// What a Kubernetes step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all_fields = "camelCase")]
pub enum KubernetesAction {
    /// Applies chosen files of the manifest.
    K8sApply {
        /// Files or folders of the manifest; empty with a manifest of its own.
        file_paths: Vec<String>,
        /// No server-side dry run before the first change.
        skip_dry_run: bool,
        /// Does not wait.
        skip_steady_state_check: bool,
        /// Files are taken as they stand.
        skip_rendering: bool,
    },
    /// Applies everything as a new release and waits for it.
    K8sRollingDeploy {
        /// No server-side dry run before the first change.
        skip_dry_run: bool,
        /// Objects of the release before that are no longer in the manifest are deleted at the end.
        pruning_enabled: bool,
        /// A canary step of the same stage ran before.
        in_canary_workflow: bool,
    },
    /// Brings the release before back.
    K8sRollingRollback {
        /// Objects that the failed release created are deleted, those it pruned come back.
        pruning_enabled: bool,
    },
    /// A second, smaller copy of the workload beside the stable one.
    K8sCanaryDeploy {
        /// How many pods.
        instances: Instances,
        /// No server-side dry run before the first change.
        skip_dry_run: bool,
        /// Gateway API, Istio or SMI routes, as written.
        #[serde(default)]
        traffic_routing: Option<serde_json::Value>,
    },
    /// Removes the canary of this stage.
    K8sCanaryDelete {
        /// What the canary step named (`namespace/Kind/name`); empty: found by the release.
        #[serde(default)]
        workloads: Vec<String>,
    },
    /// Deploys the colour that takes no production traffic.
    K8sBlueGreenDeploy {
        /// No server-side dry run before the first change.
        skip_dry_run: bool,
        /// Objects of the older release of this colour are deleted at the end.
        pruning_enabled: bool,
        /// Nothing is done when the rendered manifest is that of the primary colour.
        skip_unchanged: bool,
        /// Rule R5: it follows a rolling deployment of the same manifest, so it only looks at health and changes
        /// nothing.
        check_only: bool,
        /// Gateway API, Istio or SMI routes, as written.
        #[serde(default)]
        traffic_routing: Option<serde_json::Value>,
    },
    /// Lets the primary Service select the stage colour, and the other way round.
    K8sBGSwapServices {
        /// Name of the primary Service.
        primary_service: String,
        /// Name of the stage Service.
        stage_service: String,
        /// Colour that the primary Service is to select; `None`: the other one than now.
        #[serde(default)]
        target_color: Option<String>,
    },
    /// Scales the stage colour to nothing.
    K8sBlueGreenStageScaleDown {
        /// Deletes its objects instead.
        #[serde(default)]
        delete_resources: bool,
    },
    /// Sets the replicas of one workload.
    K8sScale {
        /// `[namespace/]Kind/name`.
        workload: String,
        /// How many.
        instances: Instances,
        /// Does not wait.
        skip_steady_state_check: bool,
    },
    /// Deletes objects.
    K8sDelete {
        /// Which.
        resources: Selection,
        /// With a release: its Namespace objects too.
        delete_namespaces: bool,
    },
    /// Renders and asks the API server whether it would accept all of it.
    K8sDryRun {},
    /// Shows what an apply would change.
    K8sDiff {},
    /// `restart`, `status`, `pause`, `resume`, `undo` or `history` of workloads.
    K8sRollout {
        /// The command.
        command: String,
        /// Which workloads.
        resources: Selection,
    },
    /// Patches one workload.
    K8sPatch {
        /// `[namespace/]Kind/name`.
        workload: String,
        /// The patch, JSON or YAML.
        source: FileStore,
        /// `Strategic`, `Merge` or `Json`.
        merge_strategy: String,
        /// Notes the change in `kubernetes.io/change-cause`.
        record_change_cause: bool,
        /// Does not wait.
        skip_steady_state_check: bool,
    },
    /// Sets the weights of routes on their own.
    K8sTrafficRouting {
        /// The configuration as written: `{type, trafficRouting}`.
        config: serde_json::Value,
    },
}

/// How many pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum Instances {
    /// That many.
    Count(u32),
    /// That share of the stable workload, 0..=100.
    Percentage(u32),
}

/// Which objects a step means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum Selection {
    /// By reference: `[namespace/]Kind/name`.
    Names(Vec<String>),
    /// Everything the release's history names.
    Release,
    /// What these files of the manifest render to; empty: all.
    Manifests(Vec<String>),
}

/// Wire tags of the Kubernetes steps.
pub const KUBERNETES_KINDS: [&str; 15] = [
    "K8sApply",
    "K8sRollingDeploy",
    "K8sRollingRollback",
    "K8sCanaryDeploy",
    "K8sCanaryDelete",
    "K8sBlueGreenDeploy",
    "K8sBGSwapServices",
    "K8sBlueGreenStageScaleDown",
    "K8sScale",
    "K8sDelete",
    "K8sDryRun",
    "K8sDiff",
    "K8sRollout",
    "K8sPatch",
    "K8sTrafficRouting",
];

impl KubernetesAction {
    /// The wire tag: the step type as pipeline YAML names it.
    pub fn kind(&self) -> &'static str {
        match self {
            KubernetesAction::K8sApply { .. } => "K8sApply",
            KubernetesAction::K8sRollingDeploy { .. } => "K8sRollingDeploy",
            KubernetesAction::K8sRollingRollback { .. } => "K8sRollingRollback",
            KubernetesAction::K8sCanaryDeploy { .. } => "K8sCanaryDeploy",
            KubernetesAction::K8sCanaryDelete { .. } => "K8sCanaryDelete",
            KubernetesAction::K8sBlueGreenDeploy { .. } => "K8sBlueGreenDeploy",
            KubernetesAction::K8sBGSwapServices { .. } => "K8sBGSwapServices",
            KubernetesAction::K8sBlueGreenStageScaleDown { .. } => "K8sBlueGreenStageScaleDown",
            KubernetesAction::K8sScale { .. } => "K8sScale",
            KubernetesAction::K8sDelete { .. } => "K8sDelete",
            KubernetesAction::K8sDryRun {} => "K8sDryRun",
            KubernetesAction::K8sDiff {} => "K8sDiff",
            KubernetesAction::K8sRollout { .. } => "K8sRollout",
            KubernetesAction::K8sPatch { .. } => "K8sPatch",
            KubernetesAction::K8sTrafficRouting { .. } => "K8sTrafficRouting",
        }
    }
}
