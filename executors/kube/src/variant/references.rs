//! Where pods name ConfigMaps and Secrets.

use super::{kind, namespace};
use serde_json::Value;
use std::collections::BTreeMap;

/// New names by (kind, namespace, old name).
pub(crate) type Renamed = BTreeMap<(String, String, String), String>;

/// Lets every place of `document` that names a renamed ConfigMap or Secret of its namespace name the new one.
pub(crate) fn rewrite(document: &mut Value, default_namespace: &str, renamed: &Renamed) {
    if renamed.is_empty() {
        return;
    }
    let space = namespace(document, default_namespace).to_owned();
    let pods = match kind(document) {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job"
        | "DeploymentConfig" => "/spec/template/spec",
        _ => return,
    };
    let hooks = kind(document) == "DeploymentConfig";
    let names = Names { space: &space, renamed };
    if let Some(pods) = document.pointer_mut(pods) {
        names.pod(pods);
    }
    if hooks && let Some(Value::Object(strategy)) = document.pointer_mut("/spec/strategy") {
        for params in strategy.values_mut() {
            for hook in ["pre", "mid", "post"] {
                if let Some(container) = params.pointer_mut(&format!("/{hook}/execNewPod")) {
                    names.container(container);
                }
            }
        }
    }
}

struct Names<'a> {
    space: &'a str,
    renamed: &'a Renamed,
}

impl Names<'_> {
    /// Replaces the text at `path` when it is the old name of a `kind`.
    fn swap(&self, place: &mut Value, path: &str, kind: &str) {
        if let Some(text @ Value::String(_)) = place.pointer_mut(path)
            && let Some(old) = text.as_str()
            && let Some(new) = self.renamed.get(&(kind.to_owned(), self.space.to_owned(), old.to_owned()))
        {
            *text = Value::String(new.clone());
        }
    }

    fn each(place: &mut Value, path: &str, mut apply: impl FnMut(&mut Value)) {
        if let Some(Value::Array(items)) = place.pointer_mut(path) {
            items.iter_mut().for_each(&mut apply);
        }
    }

    fn pod(&self, pod: &mut Value) {
        for list in ["/containers", "/initContainers", "/ephemeralContainers"] {
            Self::each(pod, list, |container| self.container(container));
        }
        Self::each(pod, "/imagePullSecrets", |secret| self.swap(secret, "/name", "Secret"));
        Self::each(pod, "/volumes", |volume| {
            self.swap(volume, "/configMap/name", "ConfigMap");
            self.swap(volume, "/secret/secretName", "Secret");
            Self::each(volume, "/projected/sources", |source| {
                self.swap(source, "/configMap/name", "ConfigMap");
                self.swap(source, "/secret/name", "Secret");
            });
        });
    }

    fn container(&self, container: &mut Value) {
        Self::each(container, "/env", |variable| {
            self.swap(variable, "/valueFrom/configMapKeyRef/name", "ConfigMap");
            self.swap(variable, "/valueFrom/secretKeyRef/name", "Secret");
        });
        Self::each(container, "/envFrom", |source| {
            self.swap(source, "/configMapRef/name", "ConfigMap");
            self.swap(source, "/secretRef/name", "Secret");
        });
    }
}
