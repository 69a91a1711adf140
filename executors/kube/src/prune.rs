//! Deleting objects: only those that are the ones we mean, in reverse order, never one that is protected.

use crate::apply::is_allowed;
use crate::error::{Fault, cancelled};
use crate::objects::{Annotation, Object, Reference};
use crate::release::Item;
use crate::rest::Ask;
use crate::session::Session;
use bytes::Bytes;
use executor_api::{Class, Level, StepError, UnitLog};
use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// What a deletion that fails means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// It fails the step.
    Strict,
    /// It is told, and the object is left.
    Lenient,
}

/// An object that is there and is the one that is meant.
struct Found {
    item: Item,
    object: Object,
    path: String,
}

/// An item, the path it was asked for under, and what stands there.
type Asked = (Item, Option<String>, Result<Option<Value>, Fault>);

/// Which of `items` are there, are the ones that are meant (same uid, where one is known) and are not protected.
async fn present(session: &Session, items: Vec<Item>, log: &dyn UnitLog) -> Result<Vec<Found>, StepError> {
    let asked: Vec<Asked> = futures::stream::iter(items)
        .map(|item| async move {
            let path = session.path_of(&item.reference);
            let found = match &path {
                Some(path) => session.api.find::<Value>(path).await,
                None => Ok(None),
            };
            (item, path, found)
        })
        .buffered(session.settings.apply_concurrency.max(1))
        .collect()
        .await;
    let mut present = Vec::new();
    for (item, path, found) in asked {
        let found = found.map_err(|f| f.step(&format!("look at {}", item.reference), &session.api.target))?;
        let (Some(path), Some(value)) = (path, found) else {
            session.say(log, Level::Info, &format!("{} is gone already", item.reference)).await?;
            continue;
        };
        let uid = value.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Ok(object) = Object::new(value, "cluster") else { continue };
        if !item.uid.is_empty() && item.uid != uid {
            let text = format!("{} stays: it was deleted and made again by somebody else", item.reference);
            session.say(log, Level::Warn, &text).await?;
            continue;
        }
        if item.uid.is_empty() && !is_ours(&object) {
            let text = format!("{} stays: nothing says that we made it", item.reference);
            session.say(log, Level::Warn, &text).await?;
            continue;
        }
        if object.says(Annotation::SkipPruning) {
            let text =
                format!("{} stays: its annotation {} says so", item.reference, Annotation::SkipPruning.key());
            session.say(log, Level::Info, &text).await?;
            continue;
        }
        present.push(Found { item: Item { uid, ..item }, object, path });
    }
    Ok(present)
}

/// Whether we, or a client-side apply such as that of Harness' own delegate, wrote the object: what is known by name only
/// must not be somebody else's.
fn is_ours(object: &Object) -> bool {
    let entries = object.at("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    entries
        .filter_map(|entry| entry.get("manager")?.as_str())
        .any(|manager| manager == crate::apply::MANAGER || manager == "kubectl-client-side-apply")
}

/// Deletes `items` in the reverse of the order in which objects are applied, and waits until they are gone. What is
/// gone already, is another object of the same name, or is protected, is left out and told. Returns what was deleted.
///
/// **Cancel**: no further deletion is begun; the wait ends at once. **Repeat**: safe.
pub(crate) async fn delete(
    session: &Session,
    items: Vec<Item>,
    strictness: Strictness,
    log: &dyn UnitLog,
) -> Result<Vec<Item>, StepError> {
    let mut found = present(session, items, log).await?;
    let mut order: Vec<Object> = found.iter().map(|found| found.object.clone()).collect();
    crate::objects::sort(&mut order);
    let place: HashMap<Reference, usize> =
        order.iter().enumerate().map(|(at, object)| (object.reference(), at)).collect();
    found.sort_by_cached_key(|found| std::cmp::Reverse(place.get(&found.object.reference()).copied()));
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let calls: Vec<String> = found.iter().map(|found| format!("delete {}", found.item.reference)).collect();
    let items: Vec<&Item> = found.iter().map(|found| &found.item).collect();
    let state = json!({"v": 1, "delete": items});
    session.api.announce(format!("delete {} objects", calls.len()), calls, state, None).await?;
    let mut deleted = Vec::new();
    for one in &found {
        if let Some((reason, _)) = session.cx.cancel.requested() {
            return Err(cancelled(
                reason,
                &format!("{} of {} objects were deleted", deleted.len(), found.len()),
            ));
        }
        match send(session, one).await {
            Ok(()) => {
                session.say(log, Level::Info, &format!("deleted {}", one.item.reference)).await?;
                deleted.push(one.item.clone());
            }
            Err(error) if strictness == Strictness::Lenient => {
                session
                    .say(log, Level::Warn, &format!("{} stays: {}", one.item.reference, error.what))
                    .await?;
            }
            Err(error) => return Err(session.masked(error)),
        }
    }
    for one in found.iter().filter(|one| deleted.contains(&one.item)) {
        gone(session, one, strictness, log).await?;
    }
    Ok(deleted)
}

/// What this task has announced to delete so far, also in an earlier life: the same answer however often the agent died.
pub(crate) fn announced(session: &Session) -> Vec<Item> {
    let mut items: Vec<Item> = session
        .cx
        .checkpoints
        .history()
        .iter()
        .filter_map(|checkpoint| checkpoint.state.get("delete").cloned())
        .filter_map(|items| serde_json::from_value::<Vec<Item>>(items).ok())
        .flatten()
        .collect();
    items.sort_by(|a, b| a.reference.cmp(&b.reference));
    items.dedup();
    items
}

async fn send(session: &Session, one: &Found) -> Result<(), StepError> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
        "preconditions": {"uid": one.item.uid}});
    let body = Bytes::from(serde_json::to_vec(&options).unwrap_or_default());
    let call = format!("delete {}", one.item.reference);
    let ask = Ask::with(Method::DELETE, one.path.clone(), "application/json", body).repeatable();
    match session.api.mutate(&call, ask).await {
        Ok(_) => Ok(()),
        // Gone, or another object has its name by now.
        Err(fault) if fault.is_not_found() || fault.is_conflict() => Ok(()),
        Err(fault) => Err(fault.step(&call, &session.api.target)),
    }
}

/// Waits until an object is gone. One that a finalizer holds is told; a lenient deletion does not wait for it.
async fn gone(
    session: &Session,
    one: &Found,
    strictness: Strictness,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let mut pause = Duration::from_millis(20);
    let mut told = false;
    loop {
        let found: Option<Value> = session
            .api
            .find(&one.path)
            .await
            .map_err(|f| f.step(&format!("look at {}", one.item.reference), &session.api.target))?;
        let same =
            found.as_ref().and_then(|value| value.pointer("/metadata/uid")?.as_str()) == Some(&one.item.uid);
        let Some(value) = found.filter(|_| same) else { return Ok(()) };
        if !told && pause > Duration::from_millis(500) {
            let finalizers = value.pointer("/metadata/finalizers").cloned().unwrap_or_else(|| json!([]));
            let text =
                format!("{} is being deleted; finalizers that hold it: {finalizers}", one.item.reference);
            session.say(log, Level::Warn, &text).await?;
            told = true;
            if strictness == Strictness::Lenient {
                return Ok(());
            }
        }
        tokio::select! {
            biased;
            (reason, _) = session.cx.cancel.wait() => {
                let text = format!("{} is being deleted and not gone yet", one.item.reference);
                return Err(cancelled(reason, &text));
            }
            () = session.cx.clock.sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// What is in `before` and not in `after`; kinds whose deletion takes more with it than themselves are never among it.
pub(crate) fn candidates(before: &[Item], after: &BTreeSet<Reference>) -> Vec<Item> {
    const NEVER: [&str; 4] =
        ["Namespace", "CustomResourceDefinition", "PersistentVolumeClaim", "PersistentVolume"];
    before
        .iter()
        .filter(|item| !after.contains(&item.reference) && !NEVER.contains(&item.reference.kind.as_str()))
        .cloned()
        .collect()
}

/// Asks for the right to delete each kind of `items` in its namespace.
///
/// **Errors**: `KUBE-025` lists what may not be deleted; nothing was.
pub(crate) async fn permitted(session: &Session, items: &[Item]) -> Result<(), StepError> {
    let mut asked: BTreeMap<(String, Option<&str>), bool> = BTreeMap::new();
    let mut refused = Vec::new();
    for item in items {
        let Some(resource) = session.discovery.of_reference(&item.reference) else { continue };
        let namespace = item.reference.namespace.as_deref();
        let key = (resource.full_name(), namespace);
        let allowed = match asked.get(&key) {
            Some(known) => *known,
            None => {
                let allowed = is_allowed(session, resource, namespace, "delete").await;
                asked.insert(key, allowed);
                allowed
            }
        };
        if !allowed {
            refused.push(item.reference.to_string());
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let text =
        format!("the account of the connector may not delete: {}; nothing was changed", refused.join(", "));
    Err(StepError::new(Class::Authorization, "KUBE-025", text)
        .target(session.api.target.clone())
        .hint("give it the verb delete on these resources"))
}

/// Whether labels fit a selector of equalities and sets, as `kubectl -l` takes it.
///
/// **Errors**: a part that is none.
pub(crate) fn selects(selector: &str, labels: &Value) -> Result<bool, String> {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let mut all = true;
    for part in parts(selector) {
        let part = part.trim();
        let fits = if let Some((key, list)) = part.split_once(" notin ") {
            !values(list)?.iter().any(|value| label(key.trim()) == Some(value))
        } else if let Some((key, list)) = part.split_once(" in ") {
            values(list)?.iter().any(|value| label(key.trim()) == Some(value))
        } else if let Some((key, value)) = part.split_once("!=") {
            label(key.trim()) != Some(value.trim())
        } else if let Some((key, value)) = part.split_once('=') {
            label(key.trim()) == Some(value.trim_start_matches('=').trim())
        } else if let Some(key) = part.strip_prefix('!') {
            label(key.trim()).is_none()
        } else if !part.is_empty() && !part.contains(char::is_whitespace) {
            label(part).is_some()
        } else {
            return Err(format!(
                "`{part}` in the selector `{selector}`; expected key=value, key!=value, key in (a,b)"
            ));
        };
        all &= fits;
    }
    Ok(all)
}

/// Parts of a selector: commas inside parentheses do not separate.
fn parts(selector: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, c) in selector.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.extend(selector.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(selector.get(start..));
    parts
}

fn values(list: &str) -> Result<Vec<String>, String> {
    let inner = list.trim().strip_prefix('(').and_then(|l| l.strip_suffix(')'));
    let inner = inner.ok_or_else(|| format!("`{list}` in the selector; expected a list in parentheses"))?;
    Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_kubectl_reads_them() {
        let labels = json!({"app": "web", "tier": "front"});
        for (selector, wanted) in [
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=web,tier=back", false),
            ("app in (api,web)", true),
            ("tier notin (front, back)", false),
            ("!gone", true),
            ("app", true),
            ("app!=web", false),
        ] {
            assert_eq!(selects(selector, &labels), Ok(wanted), "{selector}");
        }
        assert!(selects("app in web", &labels).is_err());
        assert!(selects("a b", &labels).is_err());
        assert!(selects("", &labels).is_err());
    }

    #[test]
    fn what_takes_more_with_it_is_never_pruned() {
        let item = |kind: &str| Item {
            reference: Reference {
                group: String::new(),
                kind: kind.into(),
                namespace: None,
                name: "x".into(),
            },
            uid: "u".into(),
        };
        let before = [item("Namespace"), item("ConfigMap"), item("Service"), item("PersistentVolumeClaim")];
        let after = BTreeSet::from([item("Service").reference]);
        let found = candidates(&before, &after);
        assert_eq!(found, [item("ConfigMap")]);
    }
}
