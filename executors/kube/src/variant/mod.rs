//! A second copy of a workload beside the first: what a canary and a colour have in common.
//!
//! Pure: documents in, documents out. The copy has the workload's name with a suffix, one more label on its pods and in
//! its selector, and configuration of its own, so that neither copy can change under the other one's feet.

mod fault;
pub(crate) mod references;
#[cfg(test)]
mod tests;

pub(crate) use fault::Fault;

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Label of every pod of a release.
pub(crate) const RELEASE_LABEL: &str = "harness.io/release-name";
/// Objects with this annotation are applied as they stand.
const DIRECT_APPLY: &str = "harness.io/direct-apply";
/// ConfigMaps and Secrets with this annotation keep their name.
const SKIP_VERSIONING: &str = "harness.io/skip-versioning";
/// Longest name of an object.
const NAME_LIMIT: usize = 253;
/// A name of a ConfigMap or Secret of which less than this stays is not recognised by anybody.
const NAME_REST: usize = 20;

/// How the copy differs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant<'a> {
    /// `canary`, `blue`, `green`: appended to names with a dash.
    pub(crate) suffix: &'a str,
    /// Key of the label that tells the copies apart.
    pub(crate) label: &'a str,
    /// Its value, on pods and in the selector.
    pub(crate) value: &'a str,
    /// Name of the release.
    pub(crate) release: &'a str,
    /// Namespace of objects that name none.
    pub(crate) namespace: &'a str,
    /// ConfigMaps and Secrets keep their names.
    pub(crate) skip_versioning: bool,
}

/// What became of the documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reshaped {
    /// Places of the documents that belong to the copy alone: the workload, its configuration, its budgets.
    pub(crate) own: Vec<usize>,
    /// Name of the workload in the manifest.
    pub(crate) base_name: String,
    /// Things a person should read.
    pub(crate) notices: Vec<String>,
}

/// The object's kind, empty when it has none.
pub(crate) fn kind(document: &Value) -> &str {
    document.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// The object's name, empty when it has none.
pub(crate) fn name(document: &Value) -> &str {
    document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// The object's namespace, or `default`.
pub(crate) fn namespace<'a>(document: &'a Value, default: &'a str) -> &'a str {
    document
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .filter(|n| !n.is_empty())
        .unwrap_or(default)
}

/// The object's API group: empty for the core group.
pub(crate) fn group(document: &Value) -> &str {
    let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    version.split_once('/').map_or("", |(group, _)| group)
}

/// `namespace/Kind/name`, the form that outcomes and messages use.
pub(crate) fn reference(document: &Value, default_namespace: &str) -> String {
    format!("{}/{}/{}", namespace(document, default_namespace), kind(document), name(document))
}

/// Whether an annotation says `true`, in whatever case.
pub(crate) fn annotated(document: &Value, key: &str) -> bool {
    let annotations = document.pointer("/metadata/annotations").and_then(Value::as_object);
    match annotations.and_then(|all| all.get(key)) {
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        Some(Value::Bool(value)) => *value,
        _ => false,
    }
}

/// Whether it is applied as it stands and is nobody's workload.
pub(crate) fn direct(document: &Value) -> bool {
    annotated(document, DIRECT_APPLY)
}

/// The one workload that a canary or a colour copies: a Deployment or DeploymentConfig; only when there is none, a
/// StatefulSet.
///
/// **Errors**: none of them, or several of the same rank.
pub(crate) fn candidate(documents: &[Value], default_namespace: &str) -> Result<usize, Fault> {
    let of = |kinds: &[&str]| -> Vec<usize> {
        let found = documents.iter().enumerate().filter(|(_, d)| kinds.contains(&kind(d)) && !direct(d));
        found.map(|(place, _)| place).collect()
    };
    let mut found = of(&["Deployment", "DeploymentConfig"]);
    if found.is_empty() {
        found = of(&["StatefulSet"]);
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Fault::NoWorkload),
        _ => {
            let several = found.iter().filter_map(|place| documents.get(*place));
            Err(Fault::SeveralWorkloads(several.map(|d| reference(d, default_namespace)).collect()))
        }
    }
}

/// The map under `key`, made when it is missing or something else.
fn map<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = parent.entry(key.to_owned()).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

/// Sets `value` at a path of maps, making those that are missing.
pub(crate) fn set(document: &mut Value, path: &[&str], value: Value) {
    let (Some((last, parents)), Some(mut place)) = (path.split_last(), document.as_object_mut()) else {
        return;
    };
    for key in parents {
        let Some(next) = map(place, key) else { return };
        place = next;
    }
    place.insert((*last).to_owned(), value);
}

/// The map that selects the workload's pods.
fn selector_path(workload: &Value) -> &'static [&'static str] {
    match kind(workload) {
        "DeploymentConfig" | "ReplicationController" => &["spec", "selector"],
        _ => &["spec", "selector", "matchLabels"],
    }
}

/// Labels of the pods that a workload makes.
pub(crate) fn pod_labels(workload: &Value) -> BTreeMap<String, String> {
    let labels = workload.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// `name-suffix`; the name is cut so that the result fits. `None`: too little of it would stay.
fn suffixed(name: &str, suffix: &str) -> Option<String> {
    let room = NAME_LIMIT.checked_sub(suffix.len() + 1)?;
    if name.len() <= room {
        return Some(format!("{name}-{suffix}"));
    }
    // Names are ASCII; one that is not is cut where that is possible and refused by the API server.
    let cut = (0..=room).rev().find(|place| name.is_char_boundary(*place))?;
    let rest = name.get(..cut)?.trim_end_matches(['-', '.']);
    (rest.len() >= NAME_REST).then(|| format!("{rest}-{suffix}"))
}

/// Makes the workload at `place` the copy that `variant` describes, with configuration of its own.
pub(crate) fn reshape(documents: &mut [Value], place: usize, variant: &Variant<'_>) -> Reshaped {
    let mut result = Reshaped::default();
    let mut renamed = BTreeMap::new();
    if !variant.skip_versioning {
        for (index, document) in documents.iter_mut().enumerate() {
            let kind = kind(document).to_owned();
            if !matches!(kind.as_str(), "ConfigMap" | "Secret")
                || !group(document).is_empty()
                || direct(document)
                || annotated(document, SKIP_VERSIONING)
            {
                continue;
            }
            let old = name(document).to_owned();
            let Some(new) = suffixed(&old, variant.suffix) else {
                let text =
                    format!("{kind} {old} keeps its name: it is too long for the suffix -{}", variant.suffix);
                result.notices.push(text);
                continue;
            };
            let space = namespace(document, variant.namespace).to_owned();
            renamed.insert((kind, space, old), new.clone());
            set(document, &["metadata", "name"], new.into());
            result.own.push(index);
        }
    }
    for document in documents.iter_mut().filter(|d| !direct(d)) {
        references::rewrite(document, variant.namespace, &renamed);
    }
    let Some(workload) = documents.get_mut(place) else { return result };
    let labels_before = pod_labels(workload);
    result.base_name = name(workload).to_owned();
    let base_kind = kind(workload).to_owned();
    let space = namespace(workload, variant.namespace).to_owned();
    let copy_name = format!("{}-{}", result.base_name, variant.suffix);
    set(workload, &["metadata", "name"], copy_name.clone().into());
    label(workload, variant);
    result.own.push(place);
    for (index, document) in documents.iter_mut().enumerate() {
        if namespace(document, variant.namespace) == space
            && guard(document, &base_kind, &result.base_name, &copy_name, &labels_before, variant)
        {
            result.own.push(index);
        }
    }
    result.own.sort_unstable();
    for index in &result.own {
        if let Some(own) = documents.get_mut(*index) {
            // Whoever comes after a crash or an abort finds the copy by these.
            set(own, &["metadata", "labels", RELEASE_LABEL], variant.release.into());
            set(own, &["metadata", "labels", variant.label], variant.value.into());
        }
    }
    result
}

/// Labels of pods and selector.
fn label(workload: &mut Value, variant: &Variant<'_>) {
    let template = ["spec", "template", "metadata", "labels"];
    let mut path = selector_path(workload).to_vec();
    path.push(variant.label);
    set(workload, &path, variant.value.into());
    let [a, b, c, d] = template;
    set(workload, &[a, b, c, d, variant.label], variant.value.into());
    set(workload, &[a, b, c, d, RELEASE_LABEL], variant.release.into());
}

/// An autoscaler or disruption budget of the workload becomes one of the copy. Says whether it is one.
fn guard(
    document: &mut Value,
    base_kind: &str,
    base_name: &str,
    copy_name: &str,
    labels: &BTreeMap<String, String>,
    variant: &Variant<'_>,
) -> bool {
    let own = match kind(document) {
        "HorizontalPodAutoscaler" => scales(document, base_kind, base_name),
        "PodDisruptionBudget" => protects(document, labels),
        _ => false,
    };
    if !own {
        return false;
    }
    let new = format!("{}-{}", name(document), variant.suffix);
    match kind(document) {
        "HorizontalPodAutoscaler" => set(document, &["spec", "scaleTargetRef", "name"], copy_name.into()),
        _ => set(document, &["spec", "selector", "matchLabels", variant.label], variant.value.into()),
    }
    set(document, &["metadata", "name"], new.into());
    true
}

/// Whether an autoscaler scales this workload.
fn scales(document: &Value, kind: &str, name: &str) -> bool {
    let of = |path: &str| document.pointer(path).and_then(Value::as_str);
    of("/spec/scaleTargetRef/kind") == Some(kind) && of("/spec/scaleTargetRef/name") == Some(name)
}

/// Whether a disruption budget selects pods with these labels, and by labels alone.
fn protects(document: &Value, labels: &BTreeMap<String, String>) -> bool {
    let wanted = document.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let expressions = document.pointer("/spec/selector/matchExpressions").and_then(Value::as_array);
    match wanted {
        Some(wanted) if !wanted.is_empty() && expressions.is_none_or(Vec::is_empty) => {
            wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
        }
        _ => false,
    }
}
