//! The parts of pods, ReplicaSets and events that a wait looks at. Everything else of an object is dropped while it is
//! read: a pod takes about a kilobyte here and thirty as a document.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// `null` where a list or text may be missing means that it is.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) creation_timestamp: String,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Owner {
    pub(crate) uid: String,
    pub(crate) controller: bool,
}

impl Meta {
    /// Uid of the controller that made it.
    pub(crate) fn owner(&self) -> &str {
        self.owner_references.iter().find(|o| o.controller).map_or("", |o| o.uid.as_str())
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) message: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Meta,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: String,
    pub(crate) restart_policy: String,
    pub(crate) containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) ready: bool,
    pub(crate) restart_count: u32,
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) state: State,
    #[serde(deserialize_with = "or_default")]
    pub(crate) last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) waiting: Option<Waiting>,
    pub(crate) running: Option<Running>,
    pub(crate) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Running {
    #[serde(deserialize_with = "or_default")]
    pub(crate) started_at: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Terminated {
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Pod {
    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none()
            && self.condition("Ready").is_some_and(|c| c.status == "True")
    }

    /// Init containers first, as they run.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.status.init_container_statuses.iter().chain(&self.status.container_statuses)
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct ReplicaSet {
    pub(crate) metadata: SetMeta,
    pub(crate) status: SetStatus,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct SetMeta {
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct SetStatus {
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: Vec<Condition>,
}

impl ReplicaSet {
    /// Number of the revision in its Deployment.
    pub(crate) fn revision(&self) -> Option<u64> {
        self.metadata.annotations.get("deployment.kubernetes.io/revision")?.parse().ok()
    }
}

/// An event of the cluster.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClusterEvent {
    pub(crate) metadata: Meta,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) message: String,
    pub(crate) count: Option<u64>,
    pub(crate) series: Option<Series>,
    pub(crate) involved_object: Involved,
    pub(crate) last_timestamp: Option<String>,
    pub(crate) event_time: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Series {
    pub(crate) count: u64,
    pub(crate) last_observed_time: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Involved {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl ClusterEvent {
    /// How often it happened.
    pub(crate) fn times(&self) -> u64 {
        self.series.as_ref().map(|s| s.count).or(self.count).unwrap_or(1).max(1)
    }

    /// When it happened last, RFC 3339; empty when nobody wrote it down.
    pub(crate) fn last(&self) -> &str {
        let series = self.series.as_ref().and_then(|s| s.last_observed_time.as_deref());
        let times = [series, self.last_timestamp.as_deref(), self.event_time.as_deref()];
        times.into_iter().flatten().max().unwrap_or(&self.metadata.creation_timestamp)
    }
}
