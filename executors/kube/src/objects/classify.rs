//! What an object is to our steps: workload, versioned configuration, or plain; by kind and annotation.

use super::Object;
use serde_json::Value;

/// Label with the release name on pods.
pub const LABEL_RELEASE: &str = "harness.io/release-name";
/// Label `canary` or `stable` on pods.
pub const LABEL_TRACK: &str = "harness.io/track";
/// Label `blue` or `green` on pods.
pub const LABEL_COLOR: &str = "harness.io/color";

/// Annotations that change what the steps do with an object (facts k8s-steps §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Annotation {
    /// Applied as it stands: not waited for, not renamed.
    DirectApply,
    /// A ConfigMap or Secret that keeps its name.
    SkipVersioning,
    /// A custom resource that is waited for.
    ManagedWorkload,
    /// When such a resource is ready.
    SteadyStateCondition,
    /// When such a resource has failed.
    FailureCondition,
    /// The Service of production.
    PrimaryService,
    /// The Service of the stage colour.
    StageService,
    /// A route that the steps may edit.
    Managed,
    /// Never pruned, never deleted with a release.
    SkipPruning,
}

impl Annotation {
    /// Its key.
    pub fn key(self) -> &'static str {
        match self {
            Annotation::DirectApply => "harness.io/direct-apply",
            Annotation::SkipVersioning => "harness.io/skip-versioning",
            Annotation::ManagedWorkload => "harness.io/managed-workload",
            Annotation::SteadyStateCondition => "harness.io/steadyStateCondition",
            Annotation::FailureCondition => "harness.io/failureCondition",
            Annotation::PrimaryService => "harness.io/primary-service",
            Annotation::StageService => "harness.io/stage-service",
            Annotation::Managed => "harness.io/managed",
            Annotation::SkipPruning => "harness.io/skipPruning",
        }
    }
}

/// What an object is to a deployment step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Deployment, StatefulSet, DaemonSet, DeploymentConfig.
    Managed,
    /// Job; only K8sApply waits for it.
    Job,
    /// A custom resource with `managed-workload`.
    Custom,
    /// A ConfigMap or Secret that gets a version in its name.
    Versioned,
    /// Everything else.
    Plain,
}

impl Object {
    /// Whether `annotation` is there and says true, in any case of letters.
    pub fn says(&self, annotation: Annotation) -> bool {
        self.annotation(annotation.key()).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// What it is to a deployment step.
    pub fn role(&self) -> Role {
        if self.says(Annotation::DirectApply) {
            return Role::Plain;
        }
        match (self.group(), self.kind()) {
            ("apps", "Deployment" | "StatefulSet" | "DaemonSet")
            | ("apps.openshift.io", "DeploymentConfig") => Role::Managed,
            ("batch", "Job") => Role::Job,
            ("", "ConfigMap" | "Secret") if !self.says(Annotation::SkipVersioning) => Role::Versioned,
            ("", "ConfigMap" | "Secret") => Role::Plain,
            _ if self.says(Annotation::ManagedWorkload) => Role::Custom,
            _ => Role::Plain,
        }
    }

    /// Whether it is a core Secret, whose values are shown nowhere.
    pub fn is_secret(&self) -> bool {
        self.kind() == "Secret" && self.group().is_empty()
    }

    /// `spec.replicas`, where it is a number.
    pub fn replicas(&self) -> Option<u64> {
        self.at("/spec/replicas").and_then(Value::as_u64)
    }

    /// Images of all containers of its pod template, init containers included.
    pub fn images(&self) -> Vec<&str> {
        let Some(spec) = self.pod_template().and_then(|template| template.get("spec")) else {
            return Vec::new();
        };
        ["initContainers", "containers"]
            .into_iter()
            .filter_map(|list| spec.get(list)?.as_array())
            .flatten()
            .filter_map(|container| container.get("image")?.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(api: &str, kind: &str, annotations: Value) -> Object {
        let metadata = json!({"name": "x", "annotations": annotations});
        Object::new(json!({"apiVersion": api, "kind": kind, "metadata": metadata}), "t").unwrap()
    }

    #[test]
    fn roles_follow_kind_group_and_annotation() {
        let plain = json!({});
        assert_eq!(object("apps/v1", "Deployment", plain.clone()).role(), Role::Managed);
        assert_eq!(object("example.com/v1", "Deployment", plain.clone()).role(), Role::Plain);
        assert_eq!(object("v1", "Secret", plain.clone()).role(), Role::Versioned);
        assert_eq!(object("v1", "Secret", json!({"harness.io/skip-versioning": "TRUE"})).role(), Role::Plain);
        assert_eq!(object("v1", "ConfigMap", json!({"harness.io/direct-apply": "true"})).role(), Role::Plain);
        assert_eq!(
            object("apps/v1", "DaemonSet", json!({"harness.io/direct-apply": "True"})).role(),
            Role::Plain
        );
        assert_eq!(
            object("a.io/v1", "W", json!({"harness.io/managed-workload": "true"})).role(),
            Role::Custom
        );
        assert_eq!(object("batch/v1", "Job", plain).role(), Role::Job);
    }
}
