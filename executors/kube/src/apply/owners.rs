//! Who owns a field, read from `metadata.managedFields`; and taking over the fields of a client-side apply.

use super::MANAGER;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Managers under which a client-side apply writes. Harness' own delegate and `kubectl apply` are among them.
const CLIENT_SIDE: [&str; 2] = ["kubectl-client-side-apply", "before-first-apply"];

/// The part of an answer that says who owns what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Head {
    pub(super) metadata: HeadMetadata,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HeadMetadata {
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) managed_fields: Vec<Entry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Entry {
    manager: String,
    operation: String,
    subresource: Option<String>,
    time: String,
}

impl Entry {
    /// Whether its fields are ours by right: written by a client-side apply, or by another step of ours.
    fn is_taken_over(&self) -> bool {
        takes_over(&self.manager, &self.operation, self.subresource.as_deref())
    }
}

fn takes_over(manager: &str, operation: &str, subresource: Option<&str>) -> bool {
    let subresource = subresource.unwrap_or_default();
    let ours = match manager {
        // Our steps that scale or patch write as the same manager, and later ones go by the manifest again.
        MANAGER => subresource != "status",
        other => subresource.is_empty() && CLIENT_SIDE.contains(&other),
    };
    ours && operation == "Update"
}

impl Head {
    /// Whether fields are to be taken over before the object is applied.
    pub(super) fn adopt(&self) -> bool {
        self.metadata.managed_fields.iter().any(Entry::is_taken_over)
    }
}

/// Who besides us owns one of `fields` (as a conflict names them: `.spec.replicas`) of the live object; one text for
/// each owner. Empty when all conflicts are with fields that we take over.
pub(super) fn foreign(live: &Value, fields: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in entries(live) {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let (manager, operation, sub) = (text("manager"), text("operation"), text("subresource"));
        if takes_over(manager, operation, Some(sub)) || (manager == MANAGER && operation == "Apply") {
            continue;
        }
        let mut owned = Vec::new();
        if let Some(tree) = entry.get("fieldsV1") {
            paths(tree, "", &mut owned);
        }
        let disputed: Vec<&str> = fields
            .iter()
            .filter(|field| owned.iter().any(|path| path == *field))
            .map(|field| field.trim_start_matches('.'))
            .collect();
        if !disputed.is_empty() {
            found.push(format!(
                "{} belongs to `{manager}` ({operation}, {})",
                disputed.join(", "),
                text("time")
            ));
        }
    }
    found
}

fn entries(live: &Value) -> impl Iterator<Item = &Value> {
    live.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten()
}

/// Every path of a field set in the notation of conflict causes.
fn paths(tree: &Value, prefix: &str, found: &mut Vec<String>) {
    let Value::Object(tree) = tree else { return };
    for (key, inner) in tree {
        let path = match key.split_once(':') {
            Some(("f", name)) => format!("{prefix}.{name}"),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("{prefix}[{}]", keys.join(","))
            }
            Some(("v", value)) => format!("{prefix}[={value}]"),
            Some(("i", index)) => format!("{prefix}[{index}]"),
            _ => continue,
        };
        paths(inner, &path, found);
        found.push(path);
    }
}

/// A JSON patch that moves the fields of every manager we take over into our own entry, so that the next apply owns
/// them; `None` when there is nothing to move. The patch holds only for the version of `live`.
pub(super) fn takeover(live: &Value) -> Option<Value> {
    let all: Vec<&Value> = entries(live).collect();
    let text =
        |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let taken = |entry: &Value| {
        takes_over(&text(entry, "manager"), &text(entry, "operation"), Some(&text(entry, "subresource")))
    };
    let (old, kept): (Vec<&Value>, Vec<&Value>) = all.into_iter().partition(|entry| taken(entry));
    let first = *old.first()?;
    let mut ours = kept
        .iter()
        .find(|entry| text(entry, "manager") == MANAGER && text(entry, "operation") == "Apply")
        .map_or_else(
            || {
                json!({"manager": MANAGER, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {},
                    "apiVersion": first.get("apiVersion"), "time": first.get("time")})
            },
            |entry| (*entry).clone(),
        );
    let mut fields = ours.get("fieldsV1").cloned().unwrap_or_else(|| json!({}));
    // What another step of ours wrote (a scale, a patch, the mark of a restart) is let go of, not taken over: the next
    // apply owns what the manifest names, and leaves the rest as it is. Taking a restart's mark over would remove it
    // and replace every pod.
    for entry in old.iter().filter(|entry| CLIENT_SIDE.contains(&text(entry, "manager").as_str())) {
        if let Some(more) = entry.get("fieldsV1") {
            union(&mut fields, more);
        }
    }
    // What a client-side apply noted about itself is of no use any more, and would mislead a later one.
    let note = "f:kubectl.kubernetes.io/last-applied-configuration";
    if let Some(Value::Object(annotations)) = fields.pointer_mut("/f:metadata/f:annotations") {
        annotations.shift_remove(note);
    }
    if let Value::Object(ours) = &mut ours {
        ours.insert("fieldsV1".to_owned(), fields);
    }
    let mut entries: Vec<Value> = kept
        .into_iter()
        .filter(|entry| !(text(entry, "manager") == MANAGER && text(entry, "operation") == "Apply"))
        .cloned()
        .collect();
    entries.push(ours);
    let mut patch = vec![
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": live.pointer("/metadata/resourceVersion")}),
        json!({"op": "replace", "path": "/metadata/managedFields", "value": entries}),
    ];
    if live.pointer("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration").is_some() {
        let path = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
        patch.push(json!({"op": "remove", "path": path}));
    }
    Some(Value::Array(patch))
}

fn union(into: &mut Value, more: &Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        for (key, value) in more {
            union(into.entry(key.clone()).or_insert_with(|| json!({})), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Value {
        json!({"metadata": {"resourceVersion": "7",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [
                {"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "apps/v1",
                 "time": "T1", "fieldsV1": {"f:metadata": {"f:annotations": {".": {},
                    "f:kubectl.kubernetes.io/last-applied-configuration": {}}}, "f:spec": {"f:replicas": {}}}},
                {"manager": "hpa", "operation": "Update", "time": "T2", "fieldsV1": {"f:spec": {"f:paused": {},
                    "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {"f:image": {}}}}}}}},
                {"manager": "delegate", "operation": "Apply", "fieldsV1": {"f:data": {"f:k": {}}}}]}})
    }

    #[test]
    fn a_conflict_is_foreign_only_when_somebody_else_owns_the_field() {
        assert!(foreign(&live(), &[".spec.replicas", ".data.k"]).is_empty());
        let found =
            foreign(&live(), &[".spec.template.spec.containers[name=\"app\"].image", ".spec.replicas"]);
        assert_eq!(
            found,
            ["spec.template.spec.containers[name=\"app\"].image belongs to `hpa` (Update, T2)"]
        );
    }

    #[test]
    fn a_takeover_moves_fields_into_our_entry_and_holds_for_one_version() {
        let patch = takeover(&live()).unwrap();
        assert_eq!(patch[0]["value"], "7");
        let entries = patch[1]["value"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1]["manager"], "delegate");
        let fields = &entries[1]["fieldsV1"];
        assert_eq!(
            *fields,
            json!({"f:data": {"f:k": {}}, "f:metadata": {"f:annotations": {".": {}}},
            "f:spec": {"f:replicas": {}}})
        );
        assert_eq!(patch[2]["op"], "remove");
        assert_eq!(
            takeover(&json!({"metadata": {"managedFields": [{"manager": "hpa", "operation": "Update"}]}})),
            None
        );
    }
}
