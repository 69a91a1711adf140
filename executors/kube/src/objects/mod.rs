//! Kubernetes objects as documents: reading, naming, ordering, classifying, masking.
//!
//! Everything here is pure. One type, [`Object`], goes through all steps, whatever its kind.

mod classify;
mod diff;
mod mask;
mod order;
mod parse;
mod yaml;

pub use classify::{Annotation, LABEL_COLOR, LABEL_RELEASE, LABEL_TRACK, Role};
pub use diff::{Change, diff};
pub use mask::Mask;
pub use order::{Wave, sort};
pub use parse::{DocumentFault, parse_document, parse_text};
pub use yaml::to_yaml;

use serde_json::{Map, Value};
use std::fmt;

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// API group; empty for the core group.
    pub group: String,
    /// Version inside the group.
    pub version: String,
    /// Kind.
    pub kind: String,
}

impl Gvk {
    /// From `apiVersion` and `kind`.
    pub fn new(api_version: &str, kind: &str) -> Gvk {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Gvk { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Names one object. The version is left out: every served version of a group shows the same objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Reference {
    /// API group; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; `None` for kinds that lie in none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// One object of a manifest or of the cluster.
///
/// **Shape**: a JSON map with `apiVersion`, `kind` and `metadata.name`; [`Object::new`] checks that.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// The document.
    pub value: Value,
    /// Where it comes from, for messages: file and document number.
    pub source: String,
}

impl fmt::Debug for Object {
    // The document may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} of {})", self.reference(), self.source)
    }
}

impl Object {
    /// An object from a document.
    ///
    /// **Errors**: what is missing.
    pub fn new(value: Value, source: impl Into<String>) -> Result<Object, String> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).is_some_and(|t| !t.is_empty());
        for (path, field) in
            [("/apiVersion", "apiVersion"), ("/kind", "kind"), ("/metadata/name", "metadata.name")]
        {
            if !text(path) {
                let found = value.pointer(path).map_or("nothing", kind_of);
                return Err(format!("`{field}` must be a text that is not empty, found {found}"));
            }
        }
        for field in ["labels", "annotations"] {
            let Some(pairs) = value.pointer(&format!("/metadata/{field}")) else { continue };
            match pairs {
                Value::Null => {}
                Value::Object(pairs) => {
                    if let Some((key, found)) = pairs.iter().find(|(_, v)| !v.is_string()) {
                        return Err(format!(
                            "`metadata.{field}.{key}` must be a text, found {}; put it in quotes",
                            kind_of(found)
                        ));
                    }
                }
                other => return Err(format!("`metadata.{field}` must be a map, found {}", kind_of(other))),
            }
        }
        Ok(Object { value, source: source.into() })
    }

    fn text(&self, path: &str) -> &str {
        self.value.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `Deployment`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Namespace, if one is written.
    pub fn namespace(&self) -> Option<&str> {
        self.value.pointer("/metadata/namespace").and_then(Value::as_str).filter(|n| !n.is_empty())
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.api_version(), self.kind())
    }

    /// API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// How it is called in messages and in the inventory.
    pub fn reference(&self) -> Reference {
        Reference {
            group: self.group().to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().map(str::to_owned),
            name: self.name().to_owned(),
        }
    }

    /// One annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key)?.as_str()
    }

    /// All annotations.
    pub fn annotations(&self) -> Option<&Map<String, Value>> {
        self.value.pointer("/metadata/annotations")?.as_object()
    }

    /// One label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.value.pointer("/metadata/labels")?.as_object()?.get(key)?.as_str()
    }

    /// Sets `metadata.name`.
    pub fn set_name(&mut self, name: impl Into<String>) {
        self.set(&["metadata", "name"], Value::String(name.into()));
    }

    /// Sets `metadata.namespace`.
    pub fn set_namespace(&mut self, namespace: impl Into<String>) {
        self.set(&["metadata", "namespace"], Value::String(namespace.into()));
    }

    /// Sets one label of the object itself.
    pub fn set_label(&mut self, key: &str, value: &str) {
        self.set(&["metadata", "labels", key], Value::String(value.to_owned()));
    }

    /// Sets one annotation of the object itself.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        self.set(&["metadata", "annotations", key], Value::String(value.to_owned()));
    }

    /// Sets the value at `path`; maps on the way are made, and take the place of whatever is not a map.
    pub fn set(&mut self, path: &[&str], value: Value) {
        put(&mut self.value, path, value);
    }

    /// Takes the value at `path` out.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut at = &mut self.value;
        for key in parents {
            at = at.get_mut(*key)?;
        }
        at.as_object_mut()?.shift_remove(*last)
    }

    /// The value at a JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    /// The pod template, or for a Pod the object itself: a map with `metadata` and `spec`.
    pub fn pod_template_mut(&mut self) -> Option<&mut Value> {
        match self.kind() {
            "Pod" => Some(&mut self.value),
            "CronJob" => self.value.pointer_mut("/spec/jobTemplate/spec/template"),
            _ => self.value.pointer_mut("/spec/template"),
        }
        .filter(|template| template.is_object())
    }

    /// The pod template, or for a Pod the object itself.
    pub fn pod_template(&self) -> Option<&Value> {
        match self.kind() {
            "Pod" => Some(&self.value),
            "CronJob" => self.value.pointer("/spec/jobTemplate/spec/template"),
            _ => self.value.pointer("/spec/template"),
        }
        .filter(|template| template.is_object())
    }
}

/// Sets the value at `path` of `root`; maps on the way are made.
pub fn put(root: &mut Value, path: &[&str], value: Value) {
    let mut at = root;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry((*key).to_owned()).or_insert(Value::Null);
    }
    *at = value;
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "an empty text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
