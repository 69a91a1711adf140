//! One scenario of rolling deployments (`rolling.json`, which says how it is written) for two implementations of ECS: the double
//! with the virtual clock, and the emulator with real containers. What both show the same way, the double does not make up.

use serde_json::{Map, Value, json};

/// An implementation of ECS.
pub(crate) trait Side {
    /// As `differs` calls it.
    fn name(&self) -> &'static str;
    /// What stands for `$NAME` in the scenario.
    fn place(&self) -> Vec<(&'static str, String)>;
    /// Calls an operation.
    ///
    /// # Errors
    /// The error code.
    fn call(&self, operation: &str, input: &Value) -> Result<Value, String>;
    /// Looks again until it is good; panics with the last fault when that takes too long.
    fn until(&self, what: &str, look: &mut dyn FnMut() -> Result<(), String>);
}

/// Plays the whole scenario; a panic names the step that does not fit.
pub(crate) fn play(side: &dyn Side) {
    let mut text = include_str!("rolling.json").to_owned();
    for (name, value) in side.place() {
        text = text.replace(&format!("\"${name}\""), &Value::from(value).to_string());
    }
    let scenario: Value = serde_json::from_str(&text).expect("the scenario is JSON");
    let mut player =
        Player { side, cluster: scenario["service"]["cluster"].clone(), deployments: Vec::new() };
    let steps = scenario["steps"].as_array().expect("steps");
    assert!(steps.len() > 40, "{}", steps.len());
    for step in steps {
        let what = format!("{}: {}", side.name(), step["what"].as_str().expect("what it is"));
        player.step(&what, step, &scenario);
    }
}

struct Player<'a> {
    side: &'a dyn Side,
    cluster: Value,
    /// Ids of deployments as they were first seen: a, b, c …
    deployments: Vec<String>,
}

impl Player<'_> {
    fn step(&mut self, what: &str, step: &Value, scenario: &Value) {
        let own = &step["differs"];
        let differs = own["side"] == self.side.name();
        assert!(own.is_null() || own["why"].is_string(), "{what}: a difference needs its reason");
        let expected = if differs { own } else { step };
        if let Some(operation) = step["do"].as_str() {
            assert!(
                expected["gives"].is_object() || expected["refused"].is_string(),
                "{what}: nothing is expected"
            );
            let mut input: Map<String, Value> = step["base"]
                .as_str()
                .and_then(|base| scenario[base].as_object())
                .cloned()
                .unwrap_or_default();
            input.extend(step["with"].as_object().cloned().unwrap_or_default());
            let shown = self.answered(self.side.call(operation, &input.into()));
            fits(expected, &shown).unwrap_or_else(|fault| panic!("{what}: {fault} in {shown:#}"));
            assert!(!differs || fits(step, &shown).is_err(), "{what}: this side differs no more: {shown:#}");
        } else if step["until"].is_object() {
            let floor = step["floor"].as_u64().unwrap_or(0);
            let side = self.side;
            side.until(what, &mut || {
                let shown = self.service_now();
                let running = shown["running"].as_u64().unwrap_or_default();
                assert!(running >= floor, "{what}: {running} tasks run in {shown:#}");
                fits(&expected["until"], &shown).map_err(|fault| format!("{fault} in {shown:#}"))
            });
        } else {
            let tasks = self.tasks(&step["tasks"]);
            let count = json!(tasks.len());
            fits(&expected["count"], &count).unwrap_or_else(|fault| panic!("{what}: {fault} of {tasks:#?}"));
            for task in &tasks {
                fits(&expected["each"], task).unwrap_or_else(|fault| panic!("{what}: {fault} in {task:#}"));
            }
        }
    }

    fn service_now(&mut self) -> Value {
        let input = json!({"cluster": self.cluster, "services": ["scenario"], "include": ["TAGS"]});
        let said = self.side.call("DescribeServices", &input).expect("the service");
        self.service(&said["services"][0])
    }

    /// What of an answer is compared.
    fn answered(&mut self, answer: Result<Value, String>) -> Value {
        let said = match answer {
            Ok(said) => said,
            Err(code) => return json!({"refused": code}),
        };
        let mut shown = Map::new();
        if let Some(definition) = said.get("taskDefinition") {
            shown.insert("revision".into(), short(&definition["taskDefinitionArn"]));
            shown.insert("status".into(), definition["status"].clone());
        }
        if let Some(service) = said.get("service") {
            shown.insert("service".into(), self.service(service));
        }
        if let Some(services) = said["services"].as_array() {
            let services: Vec<Value> = services.iter().map(|service| self.service(service)).collect();
            shown.insert("services".into(), services.into());
            let failures = said["failures"].as_array().expect("failures").iter();
            shown.insert("failures".into(), failures.map(|failure| failure["reason"].clone()).collect());
        }
        if let Some(all) = said["serviceDeployments"].as_array() {
            shown.insert("serviceDeployments".into(), (!all.is_empty()).into());
        }
        json!({"gives": shown})
    }

    fn deployment(&mut self, id: &Value) -> Value {
        let id = id.as_str().unwrap_or_default();
        let at = self.deployments.iter().position(|known| known == id).unwrap_or_else(|| {
            self.deployments.push(id.to_owned());
            self.deployments.len() - 1
        });
        let letter = u8::try_from(at).ok().and_then(|at| b'a'.checked_add(at)).expect("a letter");
        char::from(letter).to_string().into()
    }

    fn service(&mut self, service: &Value) -> Value {
        let all = service["deployments"].as_array().cloned().unwrap_or_default();
        let mut deployments: Vec<Value> = all
            .iter()
            .map(|one| {
                assert!(time(&one["updatedAt"]) && time(&one["createdAt"]), "{one:#}");
                json!({"id": self.deployment(&one["id"]), "status": one["status"], "taskDefinition": short(&one["taskDefinition"]),
                    "desired": one["desiredCount"], "running": one["runningCount"], "pending": one["pendingCount"],
                    "failed": one["failedTasks"].as_u64().unwrap_or(0), "rolloutState": one["rolloutState"]})
            })
            .collect();
        // The primary one first, then the newest.
        deployments.reverse();
        deployments.sort_by_key(|one| std::cmp::Reverse(one["id"].as_str().map(str::to_owned)));
        deployments.sort_by_key(|one| one["status"] != "PRIMARY");
        let events: Vec<Value> = service["events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|event| {
                assert!(time(&event["createdAt"]) && event["id"].is_string(), "{event:#}");
                self.event(event["message"].as_str().unwrap_or_default())
            })
            .collect();
        json!({"status": service["status"], "desired": service["desiredCount"], "running": service["runningCount"],
            "pending": service["pendingCount"], "taskDefinition": short(&service["taskDefinition"]), "deployments": deployments,
            "events": events})
    }

    /// The two lines that end a deployment; others are not compared.
    fn event(&mut self, message: &str) -> Option<Value> {
        if message == "(service scenario) has reached a steady state." {
            return Some("steady".into());
        }
        let id = message
            .strip_prefix("(service scenario) (deployment ")?
            .strip_suffix(") deployment completed.")?;
        let name = self.deployment(&id.into());
        Some(format!("completed {}", name.as_str()?).into())
    }

    fn tasks(&mut self, which: &Value) -> Vec<Value> {
        let input = json!({"cluster": self.cluster, "serviceName": "scenario", "desiredStatus": which["desiredStatus"]});
        let arns = self.side.call("ListTasks", &input).expect("tasks")["taskArns"].clone();
        let input = json!({"cluster": self.cluster, "tasks": arns});
        let said = self.side.call("DescribeTasks", &input).expect("tasks");
        let found = said["tasks"].as_array().cloned().unwrap_or_default();
        let found = found
            .iter()
            .map(|task| {
                let container = |one: &Value| {
                    let ended = one["exitCode"].as_i64().is_some_and(|code| code != 0);
                    let failed = if ended && task["stopCode"] == "EssentialContainerExited" { " failed" } else { "" };
                    format!("{}{failed}", one["name"].as_str().unwrap_or_default())
                };
                let containers = task["containers"].as_array().into_iter().flatten().map(container);
                json!({"taskDefinition": short(&task["taskDefinitionArn"]), "lastStatus": task["lastStatus"], "desiredStatus": task["desiredStatus"], "startedBy": self.deployment(&task["startedBy"]),
                    "group": task["group"], "stopCode": task["stopCode"], "stoppedReason": task["stoppedReason"],
                    "containers": containers.collect::<Vec<_>>(), "started": time(&task["startedAt"])})
            })
            .filter(|task| fits(&which["of"], task).is_ok());
        found.collect()
    }
}

/// `scenario:1` of an ARN.
fn short(arn: &Value) -> Value {
    let arn = arn.as_str().unwrap_or_default();
    arn.rsplit('/').next().unwrap_or(arn).into()
}

/// A time, as a number or as a client library writes it.
fn time(value: &Value) -> bool {
    value.is_number() || value.as_str().is_some_and(|text| text.contains(':'))
}

/// Whether what is seen is what is written.
///
/// # Errors
/// The first place that is not.
fn fits(expected: &Value, seen: &Value) -> Result<(), String> {
    let no = || Err(format!("{seen} instead of {expected}"));
    match expected {
        Value::Object(wanted) if wanted.contains_key("$atLeast") => {
            if seen.as_u64() >= wanted["$atLeast"].as_u64() { Ok(()) } else { no() }
        }
        Value::Object(wanted) if wanted.contains_key("$has") => {
            let all = seen.as_array().map_or(&[][..], Vec::as_slice);
            let missing = |one: &&Value| !all.iter().any(|seen| fits(one, seen).is_ok());
            if wanted["$has"].as_array().into_iter().flatten().any(|one| missing(&one)) {
                no()
            } else {
                Ok(())
            }
        }
        Value::Object(wanted) => {
            let told = ["gives", "refused"];
            // A step is its answer; what else is written of it is not.
            let is_step = wanted.keys().any(|key| told.contains(&key.as_str()));
            for (key, value) in wanted {
                if !is_step || told.contains(&key.as_str()) {
                    fits(value, &seen[key]).map_err(|fault| format!("{key}: {fault}"))?;
                }
            }
            Ok(())
        }
        Value::Array(wanted) => {
            let all = seen.as_array().map_or(&[][..], Vec::as_slice);
            if wanted.len() != all.len() {
                return no();
            }
            wanted.iter().zip(all).try_for_each(|(one, seen)| fits(one, seen))
        }
        _ => {
            if expected == seen {
                Ok(())
            } else {
                no()
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_seen() {
    let seen = json!({"a": 1, "b": [{"c": 2}, {"c": 3}]});
    for good in [
        json!({"a": 1}),
        json!({"b": [{"c": 2}, {}]}),
        json!({"b": {"$has": [{"c": 3}]}}),
        json!({"a": {"$atLeast": 1}}),
    ] {
        assert_eq!(fits(&good, &seen), Ok(()));
    }
    for bad in [
        json!({"a": 2}),
        json!({"d": 1}),
        json!({"b": [{"c": 2}]}),
        json!({"b": [{"c": 3}, {"c": 2}]}),
        json!({"b": {"$has": [{"c": 4}]}}),
        json!({"a": {"$atLeast": 2}}),
        json!({"d": {"$atLeast": 0}}),
        json!({"refused": "X"}),
    ] {
        assert!(fits(&bad, &seen).is_err(), "{bad}");
    }
}
