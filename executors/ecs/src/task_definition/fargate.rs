//! What Fargate refuses, told before anything is registered (facts A2.8).

use super::images::from_private_ecr;
use super::normal::size;
use crate::documents::is_secret;
use serde_json::Value;

/// Sizes of memory in MiB that Fargate has for so many CPU units: from, to, step. After the documentation of
/// RegisterTaskDefinition.
const SIZES: [(u64, u64, u64, u64); 7] = [
    (256, 512, 2048, 0),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16384, 1024),
    (4096, 8192, 30720, 1024),
    (8192, 16384, 61440, 4096),
    (16384, 32768, 122_880, 8192),
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether the definition asks for Fargate.
pub(crate) fn wanted(document: &Value) -> bool {
    list(document, "requiresCompatibilities").iter().any(|name| name == "FARGATE")
}

/// Everything because of which Fargate would refuse the definition or never start a task of it.
pub(crate) fn problems(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mode = text(document, "networkMode");
    if mode != "awsvpc" {
        let is = if mode.is_empty() { "not written".to_owned() } else { format!("`{mode}`") };
        found.push(format!("networkMode is {is}; Fargate has awsvpc only"));
    }
    sizes(document, &mut found);
    role(document, &mut found);
    for container in list(document, "containerDefinitions") {
        let name = text(container, "name");
        if container.get("privileged") == Some(&Value::Bool(true)) {
            found.push(format!("container {name} is privileged"));
        }
        if !list(container, "links").is_empty() {
            found.push(format!("container {name} has links"));
        }
        for port in list(container, "portMappings") {
            let (inside, outside) = (port.get("containerPort"), port.get("hostPort"));
            if outside.is_some_and(|outside| *outside != 0 && Some(outside) != inside) {
                let shown = |port: Option<&Value>| port.map(ToString::to_string).unwrap_or_default();
                let (outside, inside) = (shown(outside), shown(inside));
                found.push(format!(
                    "container {name} maps port {inside} to {outside}; with awsvpc they are the same"
                ));
            }
        }
        let log = container.get("logConfiguration").unwrap_or(&Value::Null);
        if text(log, "logDriver") == "awslogs" {
            let options = log.get("options").unwrap_or(&Value::Null);
            for option in ["awslogs-group", "awslogs-region", "awslogs-stream-prefix"] {
                if options.get(option).is_none() {
                    found.push(format!("container {name} has the log driver awslogs without `{option}`"));
                }
            }
        }
    }
    for volume in list(document, "volumes") {
        let name = text(volume, "name");
        if !text(volume.get("host").unwrap_or(&Value::Null), "sourcePath").is_empty() {
            found.push(format!("volume {name} is a folder of the host"));
        }
        if volume.get("dockerVolumeConfiguration").is_some_and(|docker| !docker.is_null()) {
            found.push(format!("volume {name} is a volume of Docker"));
        }
    }
    found
}

fn sizes(document: &Value, found: &mut Vec<String>) {
    let stated =
        |key: &str| document.get(key).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    for key in ["cpu", "memory"] {
        if !stated(key) {
            found.push(format!("{key} of the task is not written; Fargate needs it"));
        } else if size(document, key).is_none() && !is_secret(text(document, key)) {
            found.push(format!("{key} of the task is `{}`; expected a number of units", text(document, key)));
        }
    }
    let (Some(cpu), Some(memory)) = (size(document, "cpu"), size(document, "memory")) else { return };
    let Some((_, least, most, step)) = SIZES.into_iter().find(|(units, ..)| *units == cpu) else {
        let all: Vec<String> = SIZES.iter().map(|(units, ..)| units.to_string()).collect();
        found.push(format!("cpu {cpu} is no size of Fargate; there are {}", all.join(", ")));
        return;
    };
    let fits = match step {
        0 => matches!(memory, 512 | 1024 | 2048),
        step => (least..=most).contains(&memory) && (memory - least) % step == 0,
    };
    if !fits {
        let steps = match step {
            0 => "512, 1024 or 2048".to_owned(),
            step => format!("{least} to {most} in steps of {step}"),
        };
        found.push(format!("memory {memory} does not go with cpu {cpu}; expected {steps}"));
    }
    let number = |container: &Value, key: &str| container.get(key).and_then(Value::as_u64).unwrap_or(0);
    let containers = list(document, "containerDefinitions");
    let all: u64 = containers.iter().map(|container| number(container, "cpu")).sum();
    if all > cpu {
        found.push(format!("the containers ask for {all} CPU units, the task has {cpu}"));
    }
    for container in containers.iter().filter(|container| number(container, "memory") > memory) {
        let asked = number(container, "memory");
        found.push(format!(
            "container {} may take {asked} MiB, the task has {memory}",
            text(container, "name")
        ));
    }
}

/// Without an execution role nobody fetches private images, writes awslogs or reads secrets.
fn role(document: &Value, found: &mut Vec<String>) {
    if !text(document, "executionRoleArn").is_empty() {
        return;
    }
    let mut needs = Vec::new();
    for container in list(document, "containerDefinitions") {
        let name = text(container, "name");
        let log = container.get("logConfiguration").unwrap_or(&Value::Null);
        if from_private_ecr(text(container, "image")) {
            needs.push(format!("image of {name} in ECR"));
        }
        if text(log, "logDriver") == "awslogs" {
            needs.push(format!("awslogs of {name}"));
        }
        let secret = !list(container, "secrets").is_empty()
            || !list(log, "secretOptions").is_empty()
            || container.get("repositoryCredentials").is_some_and(|credentials| !credentials.is_null());
        if secret {
            needs.push(format!("secrets of {name}"));
        }
        if !list(container, "environmentFiles").is_empty() {
            needs.push(format!("environment files of {name}"));
        }
    }
    if !needs.is_empty() {
        found.push(format!("executionRoleArn is not written, and is needed for {}", needs.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sound() -> Value {
        json!({"family": "a", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256",
            "memory": "512", "containerDefinitions": [{"name": "web", "image": "nginx:1", "memory": 512, "cpu": 256}]})
    }

    fn with(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut document = sound();
        change(&mut document);
        problems(&document)
    }

    #[test]
    fn a_sound_definition_has_no_problem() {
        assert_eq!(problems(&sound()), Vec::<String>::new());
        assert!(wanted(&sound()) && !wanted(&json!({})));
        assert_eq!(with(|d| d["memory"] = json!("0.5 GB")), Vec::<String>::new());
        let of_base = |d: &mut Value| {
            d["executionRoleArn"] = json!("arn:aws:iam::123456789012:role/x");
            d["containerDefinitions"][0]["logConfiguration"] = json!({"logDriver": "awslogs",
                "options": {"awslogs-group": "a", "awslogs-region": "b", "awslogs-stream-prefix": "c"}});
        };
        assert_eq!(with(of_base), Vec::<String>::new());
    }

    #[test]
    fn each_pair_of_sizes_is_judged() {
        let pair = |cpu: &str, memory: &str| {
            !with(|d| {
                d["cpu"] = json!(cpu);
                d["memory"] = json!(memory);
                d["containerDefinitions"] = json!([{"name": "web", "image": "a"}]);
            })
            .iter()
            .any(|problem| problem.contains("does not go with") || problem.contains("no size"))
        };
        for (cpu, memory) in [
            ("256", "2048"),
            ("512", "3072"),
            ("1024", "8192"),
            ("4 vCPU", "30 GB"),
            ("8192", "20480"),
            ("16384", "122880"),
        ] {
            assert!(pair(cpu, memory), "{cpu} {memory}");
        }
        for (cpu, memory) in [
            ("256", "3072"),
            ("512", "512"),
            ("1024", "1024"),
            ("8192", "17408"),
            ("300", "512"),
            ("16384", "131072"),
        ] {
            assert!(!pair(cpu, memory), "{cpu} {memory}");
        }
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let found = with(|d| {
            d["networkMode"] = json!("bridge");
            d["volumes"] = json!([{"name": "v", "host": {"sourcePath": "/x"}}, {"name": "ok", "host": {}}]);
            d["containerDefinitions"] = json!([{"name": "web", "privileged": true, "links": ["a"], "cpu": 512, "memory": 1024,
                "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/a:1", "secrets": [{"name": "A", "valueFrom": "b"}],
                "portMappings": [{"containerPort": 80, "hostPort": 8080}], "logConfiguration": {"logDriver": "awslogs"}}]);
        })
        .join("\n");
        for wanted in [
            "networkMode is `bridge`",
            "512 CPU units, the task has 256",
            "may take 1024 MiB",
            "needed for image of web in ECR, awslogs of web, secrets of web",
            "privileged",
            "links",
            "maps port 80 to 8080",
            "without `awslogs-group`",
            "volume v is a folder",
        ] {
            assert!(found.contains(wanted), "{wanted} in\n{found}");
        }
        assert!(!found.contains("volume ok"));
        let found = with(|d| {
            d.as_object_mut().unwrap().shift_remove("cpu");
            d["memory"] = json!("many");
        });
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
