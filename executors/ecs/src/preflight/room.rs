//! Whether the instances of a cluster have room for the tasks that a rollout starts beside the old ones. Pure.
//!
//! Only for services of launch type EC2 or EXTERNAL without a capacity provider: providers and Fargate bring their own
//! room. What AWS decides in the end is still AWS' (placement constraints are not computed); this finds what can be known
//! before anything is changed.

use serde_json::Value;

/// What one task takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// CPU units.
    pub(crate) cpu: u64,
    /// MiB.
    pub(crate) memory: u64,
    /// Ports of the instance that it must have for itself, with their protocol: `8080/tcp`.
    pub(crate) ports: Vec<String>,
    /// An elastic network interface for itself.
    pub(crate) interface: bool,
}

/// What one instance has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instance {
    /// Its id, for messages.
    pub(crate) id: String,
    cpu: u64,
    memory: u64,
    taken: Vec<String>,
}

/// A number, also one that AWS writes as text (`"256"`, `"1 vCPU"`, `"2 GB"`).
fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Number(number)) => number.as_u64().unwrap_or(0),
        Some(Value::String(text)) => {
            let text = text.trim().to_ascii_lowercase();
            let (digits, factor) = match (text.strip_suffix("vcpu"), text.strip_suffix("gb")) {
                (Some(digits), _) | (None, Some(digits)) => (digits.trim(), 1024.0),
                (None, None) => (text.as_str(), 1.0),
            };
            // Whole units come out, whatever fraction of a vCPU or GB was written.
            digits.parse::<f64>().map_or(0, |number| (number * factor).clamp(0.0, 1e12) as u64)
        }
        _ => 0,
    }
}

impl Demand {
    /// Of one task of a definition, as it is registered or described.
    pub(crate) fn of(definition: &Value) -> Demand {
        let containers = definition.get("containerDefinitions").and_then(Value::as_array);
        let containers = containers.map(Vec::as_slice).unwrap_or_default();
        let sum = |field: &str, other: &str| {
            containers
                .iter()
                .map(|container| match number(container.get(field)) {
                    0 => number(container.get(other)),
                    some => some,
                })
                .sum()
        };
        let mode = definition.get("networkMode").and_then(Value::as_str).unwrap_or("bridge");
        let mut ports = Vec::new();
        for mapping in
            containers.iter().filter_map(|container| container.get("portMappings")?.as_array()).flatten()
        {
            let port = match number(mapping.get("hostPort")) {
                0 if mode == "host" => number(mapping.get("containerPort")),
                port => port,
            };
            if port != 0 && mode != "awsvpc" {
                let protocol = mapping.get("protocol").and_then(Value::as_str).unwrap_or("tcp");
                ports.push(format!("{port}/{protocol}"));
            }
        }
        let whole = |field: &str, sum: u64| match number(definition.get(field)) {
            0 => sum,
            some => some,
        };
        Demand {
            cpu: whole("cpu", sum("cpu", "cpu")),
            // The reservation counts for placement when there is one.
            memory: whole("memory", sum("memoryReservation", "memory")),
            ports,
            interface: mode == "awsvpc",
        }
    }

    fn words(&self) -> String {
        let mut text = format!("{} CPU units and {} MiB", self.cpu, self.memory);
        if !self.ports.is_empty() {
            text.push_str(&format!(" and the ports {}", self.ports.join(", ")));
        }
        text
    }
}

impl Instance {
    /// Of one entry of DescribeContainerInstances; `None` when it takes no tasks.
    pub(crate) fn of(described: &Value) -> Option<Instance> {
        let connected = described.get("agentConnected").and_then(Value::as_bool).unwrap_or(true);
        let active = described.get("status").and_then(Value::as_str).is_none_or(|status| status == "ACTIVE");
        if !(connected && active) {
            return None;
        }
        let mut instance = Instance {
            id: described
                .get("ec2InstanceId")
                .or_else(|| described.get("containerInstanceArn"))
                .and_then(Value::as_str)
                .unwrap_or("an instance")
                .to_owned(),
            ..Instance::default()
        };
        let resources = described.get("remainingResources").and_then(Value::as_array);
        for resource in resources.map(Vec::as_slice).unwrap_or_default() {
            let ports = |protocol: &str| -> Vec<String> {
                let list = resource.get("stringSetValue").and_then(Value::as_array);
                list.into_iter()
                    .flatten()
                    .filter_map(|port| Some(format!("{}/{protocol}", port.as_str()?)))
                    .collect()
            };
            match resource.get("name").and_then(Value::as_str) {
                Some("CPU") => instance.cpu = number(resource.get("integerValue")),
                Some("MEMORY") => instance.memory = number(resource.get("integerValue")),
                Some("PORTS") => instance.taken.extend(ports("tcp")),
                Some("PORTS_UDP") => instance.taken.extend(ports("udp")),
                _ => {}
            }
        }
        Some(instance)
    }

    fn takes(&self, demand: &Demand) -> bool {
        self.cpu >= demand.cpu
            && self.memory >= demand.memory
            && !demand.ports.iter().any(|port| self.taken.contains(port))
    }

    fn place(&mut self, demand: &Demand) {
        self.cpu = self.cpu.saturating_sub(demand.cpu);
        self.memory = self.memory.saturating_sub(demand.memory);
        self.taken.extend(demand.ports.iter().cloned());
    }
}

/// How many tasks a rollout may and must have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surge {
    /// Tasks that may be started before any old one stops.
    pub(crate) beside: u64,
    /// Old tasks that may be stopped before a new one runs.
    pub(crate) may_stop: u64,
}

impl Surge {
    /// Of a rolling deployment: `running` old tasks, `desired` new ones, percentages as AWS rounds them (the lower bound
    /// up, the upper one down).
    pub(crate) fn rolling(desired: u64, running: u64, minimum_percent: u64, maximum_percent: u64) -> Surge {
        let most = desired.saturating_mul(maximum_percent) / 100;
        let least = desired.saturating_mul(minimum_percent).div_ceil(100);
        Surge { beside: most.saturating_sub(running).min(desired), may_stop: running.saturating_sub(least) }
    }
}

/// What can be said before anything is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// All tasks that may be started at once have room.
    Enough,
    /// Some have; the rollout goes on in smaller steps. Words for a warning.
    Tight(String),
    /// None has, and no old one may be stopped first: the rollout would stand still. Words for the failure.
    None(String),
}

/// Whether `surge` tasks of `demand` have room.
pub(crate) fn room(demand: &Demand, surge: Surge, instances: &[Instance]) -> Room {
    if surge.beside == 0 {
        return match surge.may_stop {
            0 => Room::None(
                "neither may a new task be started nor an old one be stopped: minimumHealthyPercent and \
                 maximumPercent leave no way to go"
                    .to_owned(),
            ),
            _ => Room::Enough,
        };
    }
    let mut left = instances.to_vec();
    let mut placed = 0;
    while placed < surge.beside {
        let Some(instance) = left.iter_mut().find(|instance| instance.takes(demand)) else { break };
        instance.place(demand);
        placed += 1;
    }
    if placed == surge.beside {
        return Room::Enough;
    }
    let best: Vec<String> = {
        let mut by_room: Vec<&Instance> = instances.iter().collect();
        by_room.sort_by_key(|instance| std::cmp::Reverse((instance.memory, instance.cpu)));
        let words =
            |one: &&Instance| format!("{} has {} CPU units and {} MiB left", one.id, one.cpu, one.memory);
        by_room.iter().take(3).map(words).collect()
    };
    let most = match best.is_empty() {
        true => "the cluster has no instance that takes tasks".to_owned(),
        false => best.join("; "),
    };
    let text = format!(
        "a task takes {}; of {} that are started beside the old ones {placed} have room ({most})",
        demand.words(),
        surge.beside
    );
    if placed == 0 && surge.may_stop == 0 { Room::None(text) } else { Room::Tight(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn instance(id: &str, cpu: u64, memory: u64, ports: &[&str]) -> Instance {
        Instance::of(
            &json!({"ec2InstanceId": id, "agentConnected": true, "status": "ACTIVE", "remainingResources": [
                {"name": "CPU", "type": "INTEGER", "integerValue": cpu},
                {"name": "MEMORY", "type": "INTEGER", "integerValue": memory},
                {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ports},
            ]}),
        )
        .unwrap()
    }

    #[test]
    fn a_task_takes_what_its_definition_says_or_its_containers_together() {
        let containers = json!([
            {"cpu": 100, "memory": 300, "memoryReservation": 200, "portMappings": [{"containerPort": 80, "hostPort": 8080}]},
            {"cpu": 50, "memory": 100, "portMappings": [{"containerPort": 53, "hostPort": 0, "protocol": "udp"}]},
        ]);
        let sum = Demand::of(&json!({"containerDefinitions": containers}));
        assert_eq!(sum, Demand { cpu: 150, memory: 300, ports: vec!["8080/tcp".into()], interface: false });
        let whole = json!({"cpu": "1 vCPU", "memory": "2 GB", "networkMode": "awsvpc", "containerDefinitions": containers});
        assert_eq!(Demand::of(&whole), Demand { cpu: 1024, memory: 2048, ports: vec![], interface: true });
        let host = json!({"networkMode": "host", "containerDefinitions": containers});
        assert_eq!(Demand::of(&host).ports, ["8080/tcp", "53/udp"]);
    }

    #[test]
    fn percentages_are_rounded_as_ecs_does() {
        assert_eq!(Surge::rolling(3, 3, 100, 200), Surge { beside: 3, may_stop: 0 });
        assert_eq!(Surge::rolling(3, 3, 50, 100), Surge { beside: 0, may_stop: 1 });
        assert_eq!(Surge::rolling(1, 1, 100, 150), Surge { beside: 0, may_stop: 0 });
        assert_eq!(Surge::rolling(4, 0, 100, 200), Surge { beside: 4, may_stop: 0 });
    }

    #[test]
    fn room_is_counted_by_instance_and_by_port() {
        let demand = Demand { cpu: 256, memory: 512, ports: vec![], interface: false };
        let surge = Surge { beside: 2, may_stop: 0 };
        let two = [instance("i-1", 300, 600, &[]), instance("i-2", 300, 600, &[])];
        assert_eq!(room(&demand, surge, &two), Room::Enough);
        let Room::Tight(text) = room(&demand, surge, &two[..1]) else { panic!() };
        assert!(text.contains("of 2 that are started beside the old ones 1 have room"), "{text}");
        let Room::None(text) = room(&demand, surge, &[instance("i-1", 100, 600, &[])]) else { panic!() };
        assert!(text.contains("i-1 has 100 CPU units"), "{text}");
        let with_port = Demand { ports: vec!["8080/tcp".into()], ..demand.clone() };
        let taken = [instance("i-1", 3000, 6000, &["22", "8080"])];
        assert!(matches!(room(&with_port, surge, &taken), Room::None(_)));
        // An old task that may stop first frees its port.
        assert!(matches!(room(&with_port, Surge { beside: 1, may_stop: 1 }, &taken), Room::Tight(_)));
        assert!(matches!(room(&demand, Surge { beside: 0, may_stop: 0 }, &two), Room::None(_)));
    }

    #[test]
    fn instances_that_take_no_tasks_have_no_room() {
        for away in [json!({"agentConnected": false}), json!({"status": "DRAINING"})] {
            assert_eq!(Instance::of(&away), None);
        }
    }
}
