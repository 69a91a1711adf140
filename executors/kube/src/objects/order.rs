//! In which order objects are applied.

use super::Object;

/// Objects of one wave are applied beside each other; the next wave starts when all of them are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wave {
    /// Namespaces and CRDs: without them the others are not even understood.
    Foundations,
    /// Quotas, configuration, storage, accounts and rights.
    Configuration,
    /// Services: pods read their addresses when they start.
    Services,
    /// Workloads.
    Workloads,
    /// Everything else, custom resources included.
    Rest,
}

impl Wave {
    /// Every wave in its order.
    pub const ALL: [Wave; 5] =
        [Wave::Foundations, Wave::Configuration, Wave::Services, Wave::Workloads, Wave::Rest];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Wave::Foundations => "namespaces and definitions",
            Wave::Configuration => "configuration",
            Wave::Services => "services",
            Wave::Workloads => "workloads",
            Wave::Rest => "other objects",
        }
    }
}

/// Rank of the kinds that have one. The order is Harness' (facts k8s-steps §4.2); NetworkPolicy, PodDisruptionBudget,
/// IngressClass and HorizontalPodAutoscaler stand where Argo CD puts them instead of at the end.
const RANKS: [(&str, &str, u8, Wave); 35] = [
    ("", "Namespace", 1, Wave::Foundations),
    ("apiextensions.k8s.io", "CustomResourceDefinition", 2, Wave::Foundations),
    ("networking.k8s.io", "NetworkPolicy", 3, Wave::Configuration),
    ("", "ResourceQuota", 4, Wave::Configuration),
    ("", "LimitRange", 5, Wave::Configuration),
    ("scheduling.k8s.io", "PriorityClass", 6, Wave::Configuration),
    ("policy", "PodDisruptionBudget", 7, Wave::Configuration),
    ("", "Secret", 8, Wave::Configuration),
    ("", "ConfigMap", 9, Wave::Configuration),
    ("storage.k8s.io", "StorageClass", 10, Wave::Configuration),
    ("", "PersistentVolume", 11, Wave::Configuration),
    ("", "PersistentVolumeClaim", 12, Wave::Configuration),
    ("", "ServiceAccount", 13, Wave::Configuration),
    ("rbac.authorization.k8s.io", "ClusterRole", 14, Wave::Configuration),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", 15, Wave::Configuration),
    ("rbac.authorization.k8s.io", "Role", 16, Wave::Configuration),
    ("rbac.authorization.k8s.io", "RoleBinding", 17, Wave::Configuration),
    ("", "Service", 18, Wave::Services),
    ("apps", "DaemonSet", 19, Wave::Workloads),
    ("", "Pod", 20, Wave::Workloads),
    ("", "ReplicationController", 21, Wave::Workloads),
    ("apps", "ReplicaSet", 22, Wave::Workloads),
    ("apps", "Deployment", 23, Wave::Workloads),
    ("apps.openshift.io", "DeploymentConfig", 24, Wave::Workloads),
    ("apps", "StatefulSet", 25, Wave::Workloads),
    ("autoscaling", "HorizontalPodAutoscaler", 26, Wave::Rest),
    ("batch", "Job", 27, Wave::Workloads),
    ("batch", "CronJob", 28, Wave::Workloads),
    ("networking.k8s.io", "IngressClass", 29, Wave::Configuration),
    ("networking.k8s.io", "Ingress", 30, Wave::Rest),
    ("route.openshift.io", "Route", 31, Wave::Rest),
    ("apiregistration.k8s.io", "APIService", 32, Wave::Rest),
    // Last of all: a webhook of the set must not judge the objects it comes with before its pods exist.
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", 250, Wave::Rest),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", 251, Wave::Rest),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", 252, Wave::Rest),
];

/// Rank of kinds that have none of their own.
const OTHERS: u8 = 100;

fn rank(object: &Object) -> (u8, Wave) {
    RANKS
        .iter()
        .find(|(group, kind, ..)| *kind == object.kind() && *group == object.group())
        .map_or((OTHERS, Wave::Rest), |(_, _, rank, wave)| (*rank, *wave))
}

impl Object {
    /// The wave it is applied in.
    pub fn wave(&self) -> Wave {
        rank(self).1
    }
}

/// Sorts objects by wave, kind, namespace and name: the order in which they are applied and shown. Deletion goes the
/// other way round.
pub fn sort(objects: &mut [Object]) {
    objects.sort_by_cached_key(|object| {
        let (rank, wave) = rank(object);
        let namespace = object.namespace().unwrap_or_default().to_owned();
        (wave, rank, object.kind().to_ascii_lowercase(), namespace, object.name().to_owned())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn definitions_and_configuration_go_first_and_webhooks_last() {
        let kinds = [
            ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
            ("example.com/v1", "Widget"),
            ("apps/v1", "Deployment"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            ("v1", "Service"),
            // A foreign Service of the same kind name is not the core one.
            ("serving.knative.dev/v1", "Service"),
            ("v1", "ConfigMap"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("v1", "Namespace"),
        ];
        let mut objects: Vec<Object> = kinds
            .iter()
            .map(|(api, kind)| {
                Object::new(json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x"}}), "t").unwrap()
            })
            .collect();
        sort(&mut objects);
        let sorted: Vec<&str> = objects.iter().map(Object::api_version).collect();
        assert_eq!(
            sorted,
            [
                "v1",
                "apiextensions.k8s.io/v1",
                "v1",
                "v1",
                "apps/v1",
                "autoscaling/v2",
                "serving.knative.dev/v1",
                "example.com/v1",
                "admissionregistration.k8s.io/v1"
            ]
        );
        assert_eq!(objects[6].wave(), Wave::Rest);
    }
}
