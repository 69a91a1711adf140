//! The normal form of a task definition: two definitions that ECS would run alike have the same one.
//!
//! ECS answers with more than it was given (empty lists, defaults), and in an order of its own. The normal form leaves out
//! what says nothing and sorts what has no order. Defaults are those that the API's documentation names for
//! RegisterTaskDefinition (facts A2.5).

use crate::changes::{canonical, sorted};
use serde_json::{Map, Value};

/// The normal form of the input of RegisterTaskDefinition.
///
/// **Shape**: keys sorted; nothing empty, no default. The normal form of a normal form is itself.
pub(crate) fn normal(document: &Value) -> Value {
    let Value::Object(members) = document else { return sorted(document) };
    let mode = members.get("networkMode").and_then(Value::as_str).unwrap_or("bridge").to_owned();
    let fargate_only = runs_on_fargate_only(document);
    let context = Context { same_ports: matches!(mode.as_str(), "awsvpc" | "host"), fargate_only };
    sorted(&object("", members, &context).unwrap_or_else(|| Value::Object(Map::new())))
}

/// Whether the definition is for Fargate and nothing else.
fn runs_on_fargate_only(document: &Value) -> bool {
    let names = document.get("requiresCompatibilities").and_then(Value::as_array);
    names.is_some_and(|names| !names.is_empty() && names.iter().all(|name| name == "FARGATE"))
}

struct Context {
    /// The host's port is the container's.
    same_ports: bool,
    fargate_only: bool,
}

/// `name` is the member that the object is the value of, or is an item of.
fn object(name: &str, members: &Map<String, Value>, context: &Context) -> Option<Value> {
    let mut out = Map::new();
    for (key, value) in members {
        if let Some(value) = member(name, key, value, members, context) {
            out.insert(key.clone(), value);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn member(
    object_name: &str,
    key: &str,
    value: &Value,
    beside: &Map<String, Value>,
    context: &Context,
) -> Option<Value> {
    if is_default(object_name, key, value, beside, context) {
        return None;
    }
    match value {
        Value::Null => None,
        Value::Object(members) if is_table(key) => (!members.is_empty()).then(|| value.clone()),
        Value::Object(members) => object(key, members, context),
        Value::Array(items) => {
            let mut items: Vec<Value> = items
                .iter()
                .filter_map(|item| match item {
                    Value::Object(members) => object(key, members, context),
                    Value::Null => None,
                    item => Some(item.clone()),
                })
                .collect();
            if unordered(key) {
                // Stable: of two variables of one name the container sees the later one.
                match key {
                    "environment" => items.sort_by_key(|item| text(item, "name").to_owned()),
                    _ => items.sort_by_cached_key(canonical),
                }
            }
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::String(text) if object_name.is_empty() => match key {
            "cpu" => Some(units(text, &["vcpu"], 1024.0).unwrap_or_else(|| value.clone())),
            "memory" => Some(units(text, &["gb"], 1024.0).unwrap_or_else(|| value.clone())),
            _ => Some(value.clone()),
        },
        value => Some(value.clone()),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Maps whose keys are the author's; even an empty value of theirs means something.
fn is_table(key: &str) -> bool {
    matches!(key, "options" | "dockerLabels" | "driverOpts" | "labels")
}

/// Lists in which the order means nothing.
fn unordered(key: &str) -> bool {
    matches!(
        key,
        "containerDefinitions"
            | "environment"
            | "secrets"
            | "secretOptions"
            | "portMappings"
            | "ulimits"
            | "mountPoints"
            | "volumesFrom"
            | "volumes"
            | "dependsOn"
            | "systemControls"
            | "extraHosts"
            | "resourceRequirements"
            | "inferenceAccelerators"
            | "devices"
            | "tmpfs"
            | "tags"
            | "requiresCompatibilities"
            | "placementConstraints"
            | "properties"
            | "add"
            | "drop"
            | "permissions"
            | "mountOptions"
            | "links"
            | "dockerSecurityOptions"
            | "ignoredExitCodes"
    )
}

fn is_default(
    object: &str,
    key: &str,
    value: &Value,
    beside: &Map<String, Value>,
    context: &Context,
) -> bool {
    let is = |wanted: &str| value == wanted;
    match (object, key) {
        ("containerDefinitions", "essential") => value == true,
        // What a restart policy says about itself must be said.
        ("restartPolicy", "enabled") => false,
        ("containerDefinitions", "cpu") | ("healthCheck", "startPeriod") => value == 0,
        ("containerDefinitions", "versionConsistency") => is("enabled"),
        ("portMappings", "protocol") => is("tcp"),
        ("portMappings", "hostPort") => {
            value == 0 || (context.same_ports && beside.get("containerPort") == Some(value))
        }
        ("healthCheck", "interval") => value == 30,
        ("healthCheck", "timeout") => value == 5,
        ("healthCheck", "retries") => value == 3,
        // No member of the task itself means anything when it is empty; some answers hold it nevertheless.
        ("", _) if is("") => true,
        ("", "networkMode") => is("bridge"),
        ("dockerVolumeConfiguration", "scope") => is("task"),
        ("efsVolumeConfiguration", "transitEncryption") | ("authorizationConfig", "iam") => is("DISABLED"),
        ("efsVolumeConfiguration" | "s3filesVolumeConfiguration", "rootDirectory") => is("/"),
        // Elsewhere an instance of any platform may take a task that names none.
        ("runtimePlatform", "operatingSystemFamily") => context.fargate_only && is("LINUX"),
        ("runtimePlatform", "cpuArchitecture") => context.fargate_only && is("X86_64"),
        // Every other flag of the API is off when it is not written.
        _ => value == false,
    }
}

/// `"1 vCPU"`, `"0.5 GB"` and `"1024"` in ECS' own unit.
fn units(text: &str, suffixes: &[&str], factor: f64) -> Option<Value> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, factor) = match suffixes.iter().find_map(|suffix| lower.strip_suffix(suffix)) {
        Some(number) => (number.trim().parse::<f64>().ok()?, factor),
        None => (lower.parse::<f64>().ok()?, 1.0),
    };
    let size = number * factor;
    (size.is_finite() && size >= 0.0 && size.fract() == 0.0).then(|| Value::from(format!("{size:.0}")))
}

/// Whole units of a size at task level; `None` when it is not written or no size.
pub(super) fn size(document: &Value, key: &str) -> Option<u64> {
    let suffixes: &[&str] = if key == "cpu" { &["vcpu"] } else { &["gb"] };
    let text = document.get(key)?;
    let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
    units(&text, suffixes, 1024.0)?.as_str()?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// What a person writes, and what ECS answers to it.
    #[test]
    fn what_ecs_adds_is_taken_away() {
        let written = json!({"family": "a", "cpu": "0.25 vCPU", "memory": "512", "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"], "containerDefinitions": [
                {"name": "web", "image": "a:1", "portMappings": [{"containerPort": 8080}],
                    "environment": [{"name": "B", "value": ""}, {"name": "A", "value": "1"}],
                    "healthCheck": {"command": ["CMD", "true"]},
                    "logConfiguration": {"logDriver": "awslogs", "options": {"x": ""}}}]});
        let answered = json!({"family": "a", "ipcMode": "", "taskRoleArn": "", "cpu": "256", "memory": "512", "networkMode": "awsvpc", "volumes": [],
            "placementConstraints": [], "requiresCompatibilities": ["FARGATE"], "enableFaultInjection": false,
            "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"},
            "containerDefinitions": [{"environment": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
                "name": "web", "image": "a:1", "cpu": 0, "essential": true, "mountPoints": [], "volumesFrom": [],
                "portMappings": [{"containerPort": 8080, "hostPort": 8080, "protocol": "tcp"}], "systemControls": [],
                "healthCheck": {"command": ["CMD", "true"], "interval": 30, "timeout": 5, "retries": 3},
                "logConfiguration": {"logDriver": "awslogs", "options": {"x": ""}, "secretOptions": []}}]});
        assert_eq!(normal(&written), normal(&answered));
        assert_eq!(normal(&written)["cpu"], "256");
    }

    #[test]
    fn what_makes_a_difference_stays() {
        let differ = |a: Value, b: Value| assert_ne!(normal(&a), normal(&b), "{a} {b}");
        let container = |more: Value| {
            let mut all = json!({"name": "web", "image": "a:1"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"containerDefinitions": [all]})
        };
        differ(container(json!({"essential": false})), container(json!({})));
        differ(container(json!({"command": ["a", "b"]})), container(json!({"command": ["b", "a"]})));
        differ(container(json!({"environment": [{"name": "A", "value": ""}]})), container(json!({})));
        differ(
            container(json!({"portMappings": [{"containerPort": 80, "hostPort": 80}]})),
            container(json!({"portMappings": [{"containerPort": 80}]})),
        );
        differ(container(json!({"restartPolicy": {"enabled": false}})), container(json!({})));
        differ(container(json!({"dnsServers": ["1", "2"]})), container(json!({"dnsServers": ["2", "1"]})));
        differ(
            json!({"runtimePlatform": {"cpuArchitecture": "X86_64"}, "requiresCompatibilities": ["EC2"]}),
            json!({"requiresCompatibilities": ["EC2"]}),
        );
        differ(json!({"tags": [{"key": "a", "value": "1"}]}), json!({}));
    }

    #[test]
    fn sizes_are_read_in_every_spelling() {
        for (key, text, wanted) in [
            ("cpu", json!("256"), Some(256)),
            ("cpu", json!(".25 vCPU"), Some(256)),
            ("cpu", json!("2vcpu"), Some(2048)),
            ("memory", json!("1 GB"), Some(1024)),
            ("memory", json!("0.5GB"), Some(512)),
            ("memory", json!("1 MB"), None),
            ("memory", json!("many"), None),
        ] {
            assert_eq!(size(&json!({key: text}), key), wanted, "{text}");
        }
    }

    /// Definitions that use every member in the table, as far as their types go.
    pub(crate) fn definition() -> impl Strategy<Value = Value> {
        let name = "[a-c]{1,2}";
        let pair = (name, "[a-z0-9]{0,3}").prop_map(|(name, value)| json!({"name": name, "value": value}));
        let port = (0..3u32, 0..3u32, prop::option::of("(tcp|udp)")).prop_map(|(container, host, protocol)| {
            json!({"containerPort": container, "hostPort": host, "protocol": protocol})
        });
        let container = (
            name,
            prop::collection::vec(pair, 0..4),
            prop::collection::vec(port, 0..3),
            prop::option::of(any::<bool>()),
            prop::option::of(0..3u32),
            prop::option::of(prop::collection::vec("[a-b]", 0..3)),
            prop::option::of((prop::option::of(1..40u32), prop::option::of(1..7u32))),
        )
            .prop_map(|(name, environment, ports, essential, cpu, command, health)| {
                let health = health.map(
                    |(interval, timeout)| json!({"command": ["x"], "interval": interval, "timeout": timeout}),
                );
                json!({"name": name, "image": "i", "environment": environment, "portMappings": ports,
                    "essential": essential, "cpu": cpu, "command": command, "healthCheck": health})
            });
        (
            prop::collection::vec(container, 0..3),
            prop::option::of("(bridge|awsvpc|host)"),
            prop::collection::vec("(FARGATE|EC2)", 0..2),
            prop::option::of("(256|1 vCPU|0.25 vcpu|x)"),
            prop::collection::vec("[a-b]".prop_map(|key| json!({"key": key, "value": ""})), 0..2),
        )
            .prop_map(|(containers, mode, compatibilities, cpu, tags)| {
                json!({"family": "f", "containerDefinitions": containers, "networkMode": mode, "cpu": cpu,
                    "requiresCompatibilities": compatibilities, "tags": tags})
            })
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(document in definition()) {
            let once = normal(&document);
            prop_assert_eq!(canonical(&normal(&once)), canonical(&once));
        }

        #[test]
        fn the_order_of_keys_means_nothing(document in definition()) {
            prop_assert_eq!(canonical(&normal(&sorted(&document))), canonical(&normal(&document)));
        }
    }
}
