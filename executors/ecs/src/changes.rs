//! What differs between two documents, for people: `path: old → new`, without secrets.

use crate::documents::is_secret;
use serde_json::{Map, Value};
use std::fmt;

/// One member that differs. Values of secrets are not in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// `containerDefinitions[web].environment[VERSION]`.
    pub(crate) path: String,
    old: Shown,
    new: Shown,
}

/// One side of a change.
#[derive(Clone, Debug, PartialEq)]
enum Shown {
    None,
    Hidden,
    Value(Value),
}

/// Longest form of a value in a line.
const MOST: usize = 300;

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::None => f.write_str("(none)"),
            Shown::Hidden => f.write_str("(hidden)"),
            Shown::Value(value) => {
                let text = canonical(value);
                let short: String = text.chars().take(MOST).collect();
                f.write_str(&short)?;
                if short.len() < text.len() { f.write_str("…") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.path, self.old, self.new)
    }
}

/// The one text of a document: keys sorted, no white space.
pub(crate) fn canonical(value: &Value) -> String {
    sorted(value).to_string()
}

/// The same document with its keys in order.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut all: Vec<(&String, &Value)> = members.iter().collect();
            all.sort_by_key(|(name, _)| *name);
            Value::Object(all.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        scalar => scalar.clone(),
    }
}

/// Every difference, in the order of the paths. `clear` opens a text of `new` that holds placeholders; what it cannot open
/// counts as changed.
pub(crate) fn between(old: &Value, new: &Value, clear: &dyn Fn(&str) -> Option<String>) -> Vec<Change> {
    let mut walk = Walk { clear, found: Vec::new() };
    walk.values(String::new(), "", Some(old), Some(new));
    walk.found
}

/// Members by which the items of a list are told apart.
fn keys(list: &str) -> &'static [&'static str] {
    match list {
        "containerDefinitions"
        | "environment"
        | "secrets"
        | "secretOptions"
        | "volumes"
        | "ulimits"
        | "properties"
        | "volumeConfigurations"
        | "containerOverrides" => &["name"],
        "portMappings" => &["containerPort", "containerPortRange", "protocol"],
        "mountPoints" | "tmpfs" => &["containerPath"],
        "volumesFrom" => &["sourceContainer"],
        "dependsOn" => &["containerName"],
        "systemControls" => &["namespace"],
        "extraHosts" => &["hostname"],
        "resourceRequirements" => &["type"],
        "inferenceAccelerators" => &["deviceName"],
        "devices" => &["hostPath"],
        "tags" => &["key"],
        "loadBalancers" => &["targetGroupArn", "loadBalancerName", "containerName", "containerPort"],
        "serviceRegistries" => &["registryArn"],
        "capacityProviderStrategy" => &["capacityProvider"],
        "vpcLatticeConfigurations" => &["targetGroupArn", "portName"],
        "services" => &["portName"],
        _ => &[],
    }
}

/// Names of the items of a list; `None` when they are not told apart by one.
pub(crate) fn identities(list: &str, items: &[Value]) -> Option<Vec<String>> {
    let keys = keys(list);
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let parts: Vec<String> = keys
            .iter()
            .filter_map(|key| match item.get(key)? {
                Value::String(text) => Some(text.rsplit(':').next().unwrap_or(text).to_owned()),
                value => Some(value.to_string()),
            })
            .collect();
        let name = parts.join("/");
        if name.is_empty() || names.contains(&name) {
            return None;
        }
        names.push(name);
    }
    Some(names)
}

struct Walk<'a> {
    clear: &'a dyn Fn(&str) -> Option<String>,
    found: Vec<Change>,
}

impl Walk<'_> {
    /// `list` is the member that `old` and `new` are the value of.
    fn values(&mut self, path: String, list: &str, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
                names.sort();
                names.dedup();
                for name in names {
                    let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    self.values(at, name, old.get(name), new.get(name));
                }
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) => {
                let named = identities(list, before).zip(identities(list, after));
                match named {
                    Some((old_names, new_names)) => {
                        let mut all: Vec<&String> = old_names.iter().chain(&new_names).collect();
                        all.sort();
                        all.dedup();
                        for name in all {
                            let find = |names: &[String], items: &'_ [Value]| {
                                names
                                    .iter()
                                    .position(|other| other == name)
                                    .and_then(|at| items.get(at))
                                    .cloned()
                            };
                            let (old, new) = (find(&old_names, before), find(&new_names, after));
                            self.item(format!("{path}[{name}]"), list, name, old, new);
                        }
                    }
                    None if !same(old, new, self.clear) => self.change(path, old, new),
                    None => {}
                }
            }
            (old, new) if !same(old, new, self.clear) => self.change(path, old, new),
            _ => {}
        }
    }

    fn item(&mut self, path: String, list: &str, name: &str, old: Option<Value>, new: Option<Value>) {
        // A pair of name and value is its value.
        if matches!(list, "environment" | "properties") {
            let value = |item: &Option<Value>| {
                item.as_ref().map(|item| item.get("value").cloned().unwrap_or_default())
            };
            let (old, new) = (value(&old), value(&new));
            if !same(old.as_ref(), new.as_ref(), self.clear) {
                if telling(name) {
                    let side = |value: &Option<Value>| match value {
                        Some(_) => Shown::Hidden,
                        None => Shown::None,
                    };
                    self.found.push(Change { path, old: side(&old), new: side(&new) });
                } else {
                    self.change(path, old.as_ref(), new.as_ref());
                }
            }
            return;
        }
        self.values(path, "", old.as_ref(), new.as_ref());
    }

    fn change(&mut self, path: String, old: Option<&Value>, new: Option<&Value>) {
        let hidden = new.is_some_and(holds_secret);
        let side = |value: Option<&Value>| match value {
            None => Shown::None,
            Some(_) if hidden => Shown::Hidden,
            Some(value) => Shown::Value(without_telling(value)),
        };
        let (old, new) = (side(old), side(new));
        self.found.push(Change { path, old, new });
    }
}

fn holds_secret(value: &Value) -> bool {
    match value {
        Value::String(text) => is_secret(text),
        Value::Array(items) => items.iter().any(holds_secret),
        Value::Object(members) => members.values().any(holds_secret),
        _ => false,
    }
}

/// Whether a variable's name says that its value is nobody's business. What a revision holds from earlier days may be a
/// secret that this step was never told of.
fn telling(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "secret", "token", "key", "credential", "auth", "private", "pwd"]
        .iter()
        .any(|part| name.contains(part))
}

/// A container as a whole, with the variables hidden that [`telling`] means.
fn without_telling(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_telling).collect(),
        Value::Object(members) => {
            let named = members.get("name").and_then(Value::as_str).is_some_and(telling);
            let hide = |(name, value): (&String, &Value)| {
                let value =
                    if named && name == "value" { Value::from("(hidden)") } else { without_telling(value) };
                (name.clone(), value)
            };
            Value::Object(members.iter().map(hide).collect::<Map<_, _>>())
        }
        scalar => scalar.clone(),
    }
}

fn same(old: Option<&Value>, new: Option<&Value>, clear: &dyn Fn(&str) -> Option<String>) -> bool {
    match (old, new) {
        (Some(Value::String(old)), Some(Value::String(new))) if is_secret(new) => {
            clear(new).is_some_and(|new| new == *old)
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(Some(old), Some(new), clear))
        }
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            old.len() == new.len() && old.iter().all(|(name, old)| same(Some(old), new.get(name), clear))
        }
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::text::{SecretRef, placeholder};
    use serde_json::json;

    fn lines(old: &Value, new: &Value) -> Vec<String> {
        let clear = |text: &str| Some(text.replace(&placeholder(&SecretRef("pw".into()), 7), "s3cret"));
        between(old, new, &clear).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn items_are_told_apart_by_name_and_only_differences_are_told() {
        let old = json!({"family": "a", "containerDefinitions": [
            {"name": "side", "image": "s:1"},
            {"name": "web", "image": "a:1", "environment": [{"name": "A", "value": "1"}, {"name": "OLD", "value": "x"}],
                "portMappings": [{"containerPort": 80}]}]});
        let new = json!({"containerDefinitions": [
            {"name": "web", "image": "a:2", "environment": [{"name": "NEW", "value": "y"}, {"name": "A", "value": "1"}],
                "portMappings": [{"containerPort": 80, "hostPort": 8080}]},
            {"image": "s:1", "name": "side"}], "family": "a", "cpu": "256"});
        assert_eq!(
            lines(&old, &new),
            [
                "containerDefinitions[web].environment[NEW]: (none) → \"y\"",
                "containerDefinitions[web].environment[OLD]: \"x\" → (none)",
                "containerDefinitions[web].image: \"a:1\" → \"a:2\"",
                "containerDefinitions[web].portMappings[80].hostPort: (none) → 8080",
                "cpu: (none) → \"256\"",
            ]
        );
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let secret = placeholder(&SecretRef("pw".into()), 7);
        let container = |value: &str| json!({"containerDefinitions": [{"name": "web", "environment": [{"name": "DB", "value": value}]}]});
        assert_eq!(
            lines(&container("url s3cret"), &container(&format!("url {secret}"))),
            Vec::<String>::new()
        );
        assert_eq!(
            lines(&container("url 0ld"), &container(&secret)),
            ["containerDefinitions[web].environment[DB]: (hidden) → (hidden)"]
        );
        let old = json!({"containerDefinitions": [{"name": "web", "environment": [{"name": "DB_PASSWORD", "value": "0ld"}]}]});
        let text = lines(&old, &container("x")).join("\n");
        assert!(!text.contains("0ld"), "{text}");
        let text = lines(&old, &json!({"containerDefinitions": []})).join("\n");
        assert!(text.contains("(hidden)") && !text.contains("0ld"), "{text}");
    }

    #[test]
    fn lists_without_names_are_compared_as_they_stand() {
        assert_eq!(
            lines(&json!({"command": ["a", "b"], "x": [1]}), &json!({"command": ["a"], "x": [1]})),
            ["command: [\"a\",\"b\"] → [\"a\"]"]
        );
        let twice = json!({"environment": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]});
        assert_eq!(lines(&twice, &twice), Vec::<String>::new());
        assert_eq!(lines(&twice, &json!({"environment": [{"name": "A", "value": "1"}]})).len(), 1);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..5).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("(name|value|environment|tags|key|x)", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_does_not_differ_from_itself_however_its_keys_stand(value in tree()) {
            prop_assert_eq!(between(&value, &sorted(&value), &|_| None), Vec::new());
            prop_assert_eq!(canonical(&value), canonical(&sorted(&value)));
        }

        #[test]
        fn no_difference_means_the_same_documents_but_for_the_order_of_named_items(old in tree(), new in tree()) {
            fn ordered(list: &str, value: &Value) -> Value {
                match value {
                    Value::Array(items) if identities(list, items).is_some() => {
                        let mut items: Vec<Value> = items.iter().map(|item| ordered("", item)).collect();
                        items.sort_by_key(canonical);
                        Value::Array(items)
                    }
                    Value::Object(members) => Value::Object(members.iter().map(|(name, value)| (name.clone(), ordered(name, value))).collect()),
                    scalar => scalar.clone(),
                }
            }
            let differs = !between(&old, &new, &|_| None).is_empty();
            // Of variables only name and value count.
            let plain = !old.to_string().contains("environment") && !new.to_string().contains("environment");
            if plain {
                prop_assert_eq!(differs, canonical(&ordered("", &old)) != canonical(&ordered("", &new)));
            }
        }
    }
}
