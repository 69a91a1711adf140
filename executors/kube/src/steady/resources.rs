//! Where objects of a kind are found, which of them make pods, and by which labels.

use super::wire::{Selector, Trouble, Wire};
use serde::Deserialize;
use serde_json::Value;

/// A collection of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collection {
    group: String,
    version: String,
    plural: String,
    namespaced: bool,
    kind: String,
}

impl Collection {
    pub(crate) fn core(plural: &str) -> Collection {
        Collection::known("", "v1", plural)
    }

    pub(crate) fn known(group: &str, version: &str, plural: &str) -> Collection {
        Collection {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespaced: true,
            kind: String::new(),
        }
    }

    /// Path of the objects of `namespace`.
    pub(crate) fn path(&self, namespace: &str) -> String {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match namespace {
            namespace if self.namespaced && !namespace.is_empty() => {
                format!("{root}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{root}/{}", self.plural),
        }
    }

    /// Whether its objects make pods whose warnings matter.
    pub(crate) fn has_pods(&self) -> bool {
        makes_pods(&self.kind) || self.kind == "PersistentVolumeClaim"
    }
}

/// Kinds of the API itself that make pods, or are one.
pub(crate) fn makes_pods(kind: &str) -> bool {
    matches!(
        kind,
        "Deployment"
            | "StatefulSet"
            | "DaemonSet"
            | "ReplicaSet"
            | "ReplicationController"
            | "Job"
            | "Pod"
            | "DeploymentConfig"
    )
}

/// Which pods belong to an object; `None`: it does not say.
pub(crate) fn selector(kind: &str, object: &Value) -> Option<Selector> {
    if kind == "Pod" {
        let name = object.pointer("/metadata/name")?.as_str()?;
        return Some(Selector { labels: None, fields: Some(format!("metadata.name={name}")) });
    }
    let selector = object.pointer("/spec/selector")?;
    // A ReplicationController has the labels themselves.
    let plain = matches!(kind, "ReplicationController" | "DeploymentConfig");
    let labels = if plain { Some(selector) } else { selector.get("matchLabels") };
    let mut parts: Vec<String> = Vec::new();
    for (name, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        parts.push(format!("{name}={}", value.as_str()?));
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = expression.get("key")?.as_str()?;
        let values = expression.get("values").and_then(Value::as_array);
        let values: Vec<&str> = values.into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match expression.get("operator")?.as_str()? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| Selector { labels: Some(parts.join(",")), fields: None })
}

/// Kinds whose place is always the same: asking for it would be a request for nothing.
const KNOWN: [(&str, &str, &str, bool); 13] = [
    ("apps", "Deployment", "deployments", true),
    ("apps", "StatefulSet", "statefulsets", true),
    ("apps", "DaemonSet", "daemonsets", true),
    ("apps", "ReplicaSet", "replicasets", true),
    ("batch", "Job", "jobs", true),
    ("batch", "CronJob", "cronjobs", true),
    ("", "Pod", "pods", true),
    ("", "ReplicationController", "replicationcontrollers", true),
    ("", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("", "Service", "services", true),
    ("", "Namespace", "namespaces", false),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", false),
    ("apiregistration.k8s.io", "APIService", "apiservices", false),
];

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

/// Where objects of a kind are; asks the server for kinds that are not its own.
///
/// **Errors**: the group version or the kind is not there ([`Trouble::Refused`] 404), or the server's trouble.
pub(crate) async fn resource(wire: &Wire, api_version: &str, kind: &str) -> Result<Collection, Trouble> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let collection = |plural: &str, namespaced| Collection {
        namespaced,
        kind: kind.to_owned(),
        ..Collection::known(group, version, plural)
    };
    if let Some((_, _, plural, namespaced)) = KNOWN.iter().find(|(g, k, ..)| *g == group && *k == kind) {
        return Ok(collection(plural, *namespaced));
    }
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{api_version}") };
    let known: Resources = wire.get(&path).await?;
    // Sub-resources (`things/status`) have the same kind.
    let found = known.resources.iter().find(|r| r.kind == kind && !r.name.contains('/'));
    match found {
        Some(resource) => Ok(collection(&resource.name, resource.namespaced)),
        None => Err(Trouble::Refused { code: 404, message: format!("{api_version} has no kind {kind}") }),
    }
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
}

/// Whether something in the cluster adds nodes: the cluster autoscaler leaves a ConfigMap, Karpenter and the managed
/// offers have API groups. `None`: it cannot be seen from here.
pub(crate) async fn autoscaler(wire: &Wire) -> Option<bool> {
    let groups: Groups = wire.get("/apis").await.ok()?;
    let brings_nodes = |name: &str| name == "karpenter.sh" || name.starts_with("autoscaling.x-k8s.io");
    if groups.groups.iter().any(|group| brings_nodes(&group.name)) {
        return Some(true);
    }
    let status = "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status";
    match wire.get::<Value>(status).await {
        Ok(_) => Some(true),
        Err(Trouble::Refused { code: 404, .. }) => Some(false),
        Err(_) => None,
    }
}
