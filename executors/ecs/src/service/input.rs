//! Inputs of CreateService and UpdateService, and what they change.

use super::compare::{covers, equal};
use super::snapshot::{LISTS, OF_REVISION, Snapshot, described};
use crate::changes::{Change, between};
use crate::documents::names;
use serde_json::{Map, Value, json};

/// An update of a service that exists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    /// Input of UpdateService.
    pub(crate) input: Value,
    /// What it changes.
    pub(crate) changes: Vec<Change>,
    /// What it cannot change, and what else a person should know.
    pub(crate) warnings: Vec<String>,
    /// Whether ECS starts a deployment for it.
    pub(crate) rolls: bool,
}

impl Update {
    /// Nothing differs and nothing is forced.
    pub(crate) fn is_nothing(&self) -> bool {
        self.changes.is_empty() && !self.rolls
    }
}

/// Members whose change starts a deployment (API documentation of UpdateService, facts A3).
const ROLLING: [&str; 9] = [
    "taskDefinition",
    "networkConfiguration",
    "platformVersion",
    "loadBalancers",
    "serviceRegistries",
    "serviceConnectConfiguration",
    "volumeConfigurations",
    "vpcLatticeConfigurations",
    "gatewayConnectors",
];

/// What CreateService takes and UpdateService does not, and how it can be changed then.
const FIXED: [(&str, &str); 3] = [
    ("launchType", "make the service anew, or use capacityProviderStrategy, which can be changed"),
    ("role", "make the service anew"),
    ("schedulingStrategy", "make the service anew"),
];

/// Who is asked for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) service: &'a str,
    /// ARN with revision.
    pub(crate) task_definition: &'a str,
    /// The count to send; `None` leaves it alone.
    pub(crate) count: Option<u32>,
    /// `forceNewDeployment`.
    pub(crate) force: bool,
}

/// Input of CreateService for a document. `token` makes sending it twice safe; `tags` are added to the document's, which
/// go before.
pub(crate) fn create_input(
    document: &Value,
    call: Call<'_>,
    token: &str,
    tags: &[(String, String)],
) -> Value {
    let mut input = document.as_object().cloned().unwrap_or_default();
    input.insert("cluster".to_owned(), json!(call.cluster));
    input.insert("serviceName".to_owned(), json!(call.service));
    input.insert("taskDefinition".to_owned(), json!(call.task_definition));
    input.insert("clientToken".to_owned(), json!(token));
    match call.count {
        Some(count) => input.insert("desiredCount".to_owned(), json!(count)),
        None => input.shift_remove("desiredCount"),
    };
    // A service that does not exist yet has nothing that could be removed.
    input.retain(|name, value| {
        !(LISTS.contains(&name.as_str()) && value.as_array().is_some_and(Vec::is_empty))
    });
    let all = with_tags(aws::document::list(document, &["tags"]), tags);
    if !all.is_empty() {
        input.insert("tags".to_owned(), Value::Array(all));
    }
    Value::Object(input)
}

fn key(tag: &Value) -> &str {
    aws::document::text(tag, &["key"]).unwrap_or_default()
}

fn with_tags(written: &[Value], more: &[(String, String)]) -> Vec<Value> {
    let mut all = written.to_vec();
    for (name, value) in more {
        if all.iter().all(|tag| key(tag) != name) {
            all.push(json!({"key": name, "value": value}));
        }
    }
    all
}

/// The update that gives the service `live` what `document` asks for. What the document does not name stays.
pub(crate) fn update_input(
    document: &Value,
    live: &Value,
    revision: Option<&Value>,
    call: Call<'_>,
) -> Update {
    let now = described(live, revision);
    let mut sent = Map::new();
    for (name, value) in updatable(document) {
        // What cannot be read back is sent as it is written.
        let readable = !OF_REVISION.contains(&name) || revision.is_some() || now.get(name).is_some();
        if !readable || !covers(name, now.get(name), value) {
            let value = match name {
                // A part of it must not reset the rest.
                "deploymentConfiguration" => laid_over(now.get(name), value),
                _ => value.clone(),
            };
            sent.insert(name.to_owned(), value);
        }
    }
    let mut warnings = fixed(document, &now);
    if let Some(name) =
        document.as_object().into_iter().flatten().map(|(name, _)| name).find(|name| is_new(name))
    {
        warnings.push(format!(
            "{name} is not known to this version: it is sent when a service is made, not when one is updated"
        ));
    }
    finish(sent, &now, live, call, warnings)
}

/// The update that brings the service `live` back to `snapshot`. What was added since is removed.
pub(crate) fn restore_input(
    snapshot: &Snapshot,
    live: &Value,
    revision: Option<&Value>,
    call: Call<'_>,
) -> Update {
    let now = described(live, revision);
    let mut sent = Map::new();
    let mut warnings = Vec::new();
    for name in names("ServiceUpdate").filter(|name| !ours(name)) {
        if snapshot.unread.iter().any(|unread| unread == name) {
            continue;
        }
        let (was, is) = (snapshot.document.get(name), now.get(name));
        if equal(name, was, is) {
            continue;
        }
        match was.cloned().or_else(|| removed(name)) {
            Some(value) => {
                let value =
                    if name == "deploymentConfiguration" { without_additions(&value, is) } else { value };
                sent.insert(name.to_owned(), value);
            }
            None => {
                warnings.push(format!("{name} was not set before, and ECS has no way to unset it: it stays"))
            }
        }
    }
    warnings.extend(fixed(&snapshot.document, &now));
    finish(sent, &now, live, call, warnings)
}

fn finish(
    mut sent: Map<String, Value>,
    now: &Value,
    live: &Value,
    call: Call<'_>,
    mut warnings: Vec<String>,
) -> Update {
    let is = aws::document::text(live, &["taskDefinition"]).unwrap_or_default();
    if is != call.task_definition {
        sent.insert("taskDefinition".to_owned(), json!(call.task_definition));
    }
    if let Some(count) = call.count.filter(|count| super::snapshot::desired(live) != *count) {
        sent.insert("desiredCount".to_owned(), json!(count));
    }
    let changes = sent.iter().flat_map(|(name, value)| {
        let (old, new) = (one(name, now.get(name)), one(name, Some(value)));
        between(&old, &new, &|_| None)
    });
    let changes: Vec<Change> = changes.collect();
    let mut force = call.force;
    if sent.contains_key("capacityProviderStrategy") && !force {
        force = true;
        warnings.push("capacityProviderStrategy changes: a new deployment is forced, without which ECS would leave the tasks where they are".to_owned());
    }
    let rolls = force || sent.keys().any(|name| ROLLING.contains(&name.as_str()));
    // The revision always stands in the request, so that it never depends on what ECS takes for the newest.
    sent.insert("taskDefinition".to_owned(), json!(call.task_definition));
    sent.insert("cluster".to_owned(), json!(call.cluster));
    sent.insert("service".to_owned(), json!(call.service));
    if force {
        sent.insert("forceNewDeployment".to_owned(), json!(true));
    }
    Update { input: Value::Object(sent), changes, warnings, rolls }
}

fn one(name: &str, value: Option<&Value>) -> Value {
    let mut map = Map::new();
    if let Some(value) = value {
        map.insert(name.to_owned(), value.clone());
    }
    Value::Object(map)
}

/// Members that the step decides itself.
fn ours(name: &str) -> bool {
    matches!(
        name,
        "cluster" | "service" | "taskDefinition" | "desiredCount" | "forceNewDeployment" | "clientToken"
    )
}

fn is_new(name: &str) -> bool {
    !names("Service").any(|known| known == name)
}

fn updatable(document: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    names("ServiceUpdate").filter(|name| !ours(name)).filter_map(|name| Some((name, document.get(name)?)))
}

/// What the document asks for and no update can bring.
fn fixed(document: &Value, now: &Value) -> Vec<String> {
    let differs = |(name, how): &(&str, &str)| {
        let wanted = document.get(*name)?;
        let is = now.get(*name);
        // A service on capacity providers has no launch type.
        if covers(name, is, wanted) {
            return None;
        }
        let is = is.map_or_else(|| "none".to_owned(), ToString::to_string);
        Some(format!("{name} cannot be changed: the service has {is}, the definition says {wanted}; {how}"))
    };
    FIXED.iter().filter_map(differs).collect()
}

fn laid_over(base: Option<&Value>, part: &Value) -> Value {
    match (base, part) {
        (Some(Value::Object(base)), Value::Object(part)) => {
            let mut out = base.clone();
            for (name, value) in part {
                let value = laid_over(base.get(name), value);
                out.insert(name.clone(), value);
            }
            Value::Object(out)
        }
        (_, part) => part.clone(),
    }
}

/// How a member is unset; `None` when it cannot be.
fn removed(name: &str) -> Option<Value> {
    match name {
        "serviceConnectConfiguration" => Some(json!({"enabled": false})),
        "healthCheckGracePeriodSeconds" => Some(json!(0)),
        "enableExecuteCommand" | "enableECSManagedTags" => Some(json!(false)),
        "propagateTags" => Some(json!("NONE")),
        "platformVersion" => Some(json!("LATEST")),
        "deploymentConfiguration" => Some(json!({})),
        "gatewayConnectors" => Some(json!([])),
        name if LISTS.contains(&name) => Some(json!([])),
        _ => None,
    }
}

/// A deployment configuration that also switches off what was not in it and is now there.
fn without_additions(was: &Value, is: Option<&Value>) -> Value {
    let mut out = was.as_object().cloned().unwrap_or_default();
    let off = [
        ("deploymentCircuitBreaker", json!({"enable": false, "rollback": false})),
        ("alarms", json!({"alarmNames": [], "enable": false, "rollback": false})),
        ("lifecycleHooks", json!([])),
        ("strategy", json!("ROLLING")),
        ("bakeTimeInMinutes", json!(0)),
        ("maximumPercent", json!(200)),
        ("minimumHealthyPercent", json!(100)),
    ];
    for (name, value) in off {
        if !out.contains_key(name) && is.and_then(|is| is.get(name)).is_some() {
            out.insert(name.to_owned(), value);
        }
    }
    Value::Object(out)
}

/// Tags that must be set on the service to have `wanted`; tags that nobody wrote stay.
pub(crate) fn tags_to_set(live: &Value, wanted: &[Value]) -> Vec<Value> {
    let now = aws::document::list(live, &["tags"]);
    let value = |tag: &Value| aws::document::text(tag, &["value"]).unwrap_or_default().to_owned();
    let has = |tag: &Value| now.iter().any(|other| key(other) == key(tag) && value(other) == value(tag));
    wanted.iter().filter(|tag| !has(tag)).cloned().collect()
}

/// Keys of tags that `set` put there and that the snapshot did not have.
pub(crate) fn tags_to_remove(snapshot: &Snapshot, live: &Value, set: &[String]) -> Vec<String> {
    let before = aws::document::list(&snapshot.document, &["tags"]);
    let now = aws::document::list(live, &["tags"]);
    let added = |name: &&String| {
        !before.iter().any(|tag| key(tag) == **name) && now.iter().any(|tag| key(tag) == **name)
    };
    set.iter().filter(added).cloned().collect()
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
