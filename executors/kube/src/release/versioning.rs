//! ConfigMaps and Secrets with a version in their name, so that a rollback finds the content its pods were made for.
//!
//! The name gets the number of the release in which the content came up first. Content that did not change keeps its
//! name, so that pods are not replaced for nothing.

use super::{History, Release};
use crate::objects::{LABEL_RELEASE, LABEL_TRACK, Object, Reference, Role, put};
use crate::variant::references;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One versioned object of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versioned {
    /// Its name as the manifest writes it.
    pub(crate) base: String,
    /// The object with its version.
    pub(crate) reference: Reference,
}

/// Gives every ConfigMap and Secret that is to have one a version, and lets the workloads name it. `number` is that of
/// the release; older releases are looked through for the same content.
pub(crate) fn versioned(
    objects: &mut [Object],
    number: u64,
    history: &History,
    namespace: &str,
) -> Vec<Versioned> {
    if !objects.iter().any(|object| matches!(object.role(), Role::Managed | Role::Custom)) {
        return Vec::new();
    }
    let mut renamed = BTreeMap::new();
    let mut made = Vec::new();
    for object in objects.iter_mut().filter(|object| object.role() == Role::Versioned) {
        let base = object.name().to_owned();
        let older = history.releases().iter().rev().filter(|release| release.number < number);
        let name = older
            .filter_map(|release| same_content(release, object, namespace))
            .next()
            .unwrap_or_else(|| format!("{base}-{number}"));
        let space = object.namespace().unwrap_or(namespace).to_owned();
        renamed.insert((object.kind().to_owned(), space.clone(), base.clone()), name.clone());
        object.set_name(name);
        let reference = Reference { namespace: Some(space), ..object.reference() };
        made.push(Versioned { base, reference });
    }
    for object in objects.iter_mut() {
        references::rewrite(&mut object.value, namespace, &renamed);
    }
    made
}

/// The name under which a release holds the same content.
fn same_content(release: &Release, object: &Object, namespace: &str) -> Option<String> {
    let space = object.namespace().unwrap_or(namespace);
    let versioned = release.ours.versioned.iter().find(|versioned| {
        versioned.base == object.name()
            && versioned.reference.kind == object.kind()
            && versioned.reference.namespace.as_deref() == Some(space)
    })?;
    let stored = release.objects.iter().find(|stored| {
        stored.kind() == object.kind()
            && stored.name() == versioned.reference.name
            && stored.namespace().unwrap_or(namespace) == space
    })?;
    (content(stored) == content(object)).then(|| versioned.reference.name.clone())
}

/// Everything but the name.
fn content(object: &Object) -> Value {
    let mut copy = object.clone();
    copy.remove(&["metadata", "name"]);
    copy.remove(&["metadata", "namespace"]);
    copy.value
}

/// Lets the workloads of a K8sApply keep what the latest release set on them: labels of the pods and references to
/// versioned objects. Otherwise an unchanged manifest would replace all pods (settled facts §3.9).
pub(crate) fn follow(objects: &mut [Object], release: Option<&Release>, namespace: &str) {
    let Some(release) = release else { return };
    let renamed: references::Renamed = release
        .ours
        .versioned
        .iter()
        .map(|v| {
            let space = v.reference.namespace.clone().unwrap_or_else(|| namespace.to_owned());
            ((v.reference.kind.clone(), space, v.base.clone()), v.reference.name.clone())
        })
        .collect();
    for object in objects.iter_mut().filter(|object| object.pod_template().is_some()) {
        let stored = release.objects.iter().find(|stored| {
            stored.kind() == object.kind()
                && stored.group() == object.group()
                && stored.name() == object.name()
                && stored.namespace().unwrap_or(namespace) == object.namespace().unwrap_or(namespace)
        });
        let Some(stored) = stored else { continue };
        let labels = stored.pod_template().and_then(|t| t.pointer("/metadata/labels")).cloned();
        for key in [LABEL_RELEASE, LABEL_TRACK] {
            let value = labels.as_ref().and_then(|labels| labels.get(key)).and_then(Value::as_str);
            if let (Some(value), Some(template)) = (value, object.pod_template_mut()) {
                put(template, &["metadata", "labels", key], Value::from(value));
            }
        }
        let track =
            stored.at("/spec/selector/matchLabels").and_then(|labels| labels.get(LABEL_TRACK)).cloned();
        if let Some(track) = track {
            object.set(&["spec", "selector", "matchLabels", LABEL_TRACK], track);
        }
        references::rewrite(&mut object.value, namespace, &renamed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Ours;
    use serde_json::json;

    fn set(value: &str) -> Vec<Object> {
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": value}});
        let fixed = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s",
            "annotations": {"harness.io/skip-versioning": "true"}}});
        let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template":
            {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "envFrom": [{"configMapRef": {"name": "c"}},
            {"secretRef": {"name": "s"}}]}], "volumes": [{"name": "v", "configMap": {"name": "c"}}]}}}});
        [config, fixed, web].into_iter().map(|v| Object::new(v, "t").unwrap()).collect()
    }

    fn release(number: u64, objects: Vec<Object>, versioned: Vec<Versioned>) -> Release {
        Release::new(number, objects, Ours { versioned, ..Ours::default() })
    }

    #[test]
    fn a_changed_content_gets_a_new_name_and_an_unchanged_one_keeps_its_own() {
        let mut history = History::default();
        let mut first = set("1");
        let made = versioned(&mut first, 1, &history, "n");
        assert_eq!(made[0].reference.to_string(), "n/ConfigMap/c-1");
        assert_eq!(
            first[2].at("/spec/template/spec/containers/0/envFrom/0/configMapRef/name"),
            Some(&json!("c-1"))
        );
        assert_eq!(
            first[2].at("/spec/template/spec/containers/0/envFrom/1/secretRef/name"),
            Some(&json!("s"))
        );
        assert_eq!(first[2].at("/spec/template/spec/volumes/0/configMap/name"), Some(&json!("c-1")));
        history = history.with(release(1, first.clone(), made));
        let mut same = set("1");
        let made = versioned(&mut same, 2, &history, "n");
        assert_eq!(same, first);
        history = history.with(release(2, same, made));
        let mut changed = set("2");
        versioned(&mut changed, 3, &history, "n");
        assert_eq!(changed[0].name(), "c-3");
    }

    #[test]
    fn without_a_workload_nothing_is_renamed() {
        let mut objects = set("1");
        objects.pop();
        assert!(versioned(&mut objects, 1, &History::default(), "n").is_empty());
        assert_eq!(objects[0].name(), "c");
    }

    #[test]
    fn an_apply_keeps_what_the_release_set() {
        let mut deployed = set("1");
        let made = versioned(&mut deployed, 4, &History::default(), "n");
        for object in &mut deployed {
            if let Some(template) = object.pod_template_mut() {
                put(template, &["metadata", "labels", LABEL_RELEASE], json!("r"));
            }
        }
        let release = release(4, deployed.clone(), made);
        let mut objects = set("1");
        objects.remove(0);
        follow(&mut objects, Some(&release), "n");
        assert_eq!(objects[1], deployed[2]);
    }
}
