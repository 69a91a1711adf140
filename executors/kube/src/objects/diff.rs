//! Differences between what is and what would be, for people.

use super::{Mask, Object, to_yaml};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

/// What would become of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It does not exist yet.
    Create,
    /// It changes.
    Update,
    /// It stays as it is.
    None,
    /// It is deleted.
    Delete,
}

/// Fields that the server writes and that say nothing about a change.
const NOISE: [&str; 7] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "generation",
    "selfLink",
    "deletionGracePeriodSeconds",
];

/// The difference between `before` and `after` of one object, as unified text without secrets, and what kind of change
/// it is. Server-side bookkeeping and `status` are left out. Hidden values that differ are said to differ.
pub fn diff(before: Option<&Value>, after: Option<&Value>, mask: &Mask) -> (Change, String) {
    let change = match (before, after) {
        (None, None) => return (Change::None, String::new()),
        (None, Some(_)) => Change::Create,
        (Some(_), None) => Change::Delete,
        (Some(before), Some(after)) if bare(before) == bare(after) => return (Change::None, String::new()),
        _ => Change::Update,
    };
    let name = after
        .or(before)
        .and_then(|value| Object::new(value.clone(), "").ok())
        .map(|object| object.reference().to_string())
        .unwrap_or_default();
    let (mut old, mut new) = (before.map(bare), after.map(bare));
    if let (Some(old), Some(new)) = (old.as_mut(), new.as_mut()) {
        mark_secrets(old, new);
    }
    let text = |value: Option<Value>| {
        value.map(|value| to_yaml(&mask_keeping_marks(&value, mask))).unwrap_or_default()
    };
    let (old, new) = (text(old), text(new));
    let verb = match change {
        Change::Create => "create",
        Change::Delete => "delete",
        _ => "change",
    };
    let mut out = format!("{verb} {name}\n");
    if change == Change::Delete {
        return (change, out);
    }
    for group in TextDiff::from_lines(&old, &new).grouped_ops(3).iter().enumerate() {
        let (number, ops) = group;
        if number > 0 {
            out.push_str("  ...\n");
        }
        let diff = TextDiff::from_lines(&old, &new);
        for op in ops {
            for line in diff.iter_changes(op) {
                let sign = match line.tag() {
                    ChangeTag::Delete => '-',
                    ChangeTag::Insert => '+',
                    ChangeTag::Equal => ' ',
                };
                out.push(sign);
                out.push(' ');
                out.push_str(line.value().trim_end_matches('\n'));
                out.push('\n');
            }
        }
    }
    (change, out)
}

/// Marks of hidden values that changed.
const BEFORE: &str = "******** (before)";
const AFTER: &str = "******** (after)";

fn mark_secrets(old: &mut Value, new: &mut Value) {
    if new.get("kind").and_then(Value::as_str) != Some("Secret")
        || new.get("apiVersion").and_then(Value::as_str) != Some("v1")
    {
        return;
    }
    for field in ["data", "stringData"] {
        let (Some(Value::Object(old)), Some(Value::Object(new))) = (old.get_mut(field), new.get_mut(field))
        else {
            continue;
        };
        for (key, value) in new.iter_mut() {
            if let Some(before) = old.get_mut(key)
                && before != value
            {
                *before = Value::from(BEFORE);
                *value = Value::from(AFTER);
            }
        }
    }
}

fn mask_keeping_marks(value: &Value, mask: &Mask) -> Value {
    let mut shown = mask.shown(value);
    for field in ["data", "stringData"] {
        let Some(Value::Object(pairs)) = value.get(field) else { continue };
        for (key, text) in pairs {
            if matches!(text.as_str(), Some(BEFORE | AFTER))
                && let Some(Value::Object(shown)) = shown.get_mut(field)
            {
                shown.insert(key.clone(), text.clone());
            }
        }
    }
    shown
}

/// `value` without what the server writes.
fn bare(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(map) = &mut value {
        map.shift_remove("status");
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            for key in NOISE {
                metadata.shift_remove(key);
            }
            if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                annotations.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
                annotations.shift_remove("deployment.kubernetes.io/revision");
                if annotations.is_empty() {
                    metadata.shift_remove("annotations");
                }
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changes_is_shown_and_secrets_are_not() {
        let before = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "resourceVersion": "1"},
            "data": {"a": "b2xkLXZhbHVl", "b": "c2FtZQ=="}, "status": {"x": 1}});
        let mut after = before.clone();
        after["metadata"]["resourceVersion"] = json!("2");
        assert_eq!(diff(Some(&before), Some(&after), &Mask::default()), (Change::None, String::new()));
        after["data"]["a"] = json!("bmV3LXZhbHVl");
        let (change, text) = diff(Some(&before), Some(&after), &Mask::default());
        assert_eq!(change, Change::Update);
        assert!(text.starts_with("change Secret/s\n"), "{text}");
        assert!(text.contains("-   a: \"******** (before)\"\n+   a: \"******** (after)\"\n"), "{text}");
        assert!(!text.contains("bmV3") && !text.contains("c2FtZQ"), "{text}");
        let (change, text) = diff(None, Some(&after), &Mask::default());
        assert_eq!(change, Change::Create);
        assert!(text.contains("+ kind: Secret") && !text.contains("bmV3"), "{text}");
    }
}
