//! The history of releases in the cluster: what was deployed, so that it can be compared, pruned and brought back.
//!
//! One Secret for each release, in the format that Harness' own delegate reads and writes ("declarative", facts
//! k8s-steps §7.2); what only we need stands under a key of its own. Writes are compare-and-set.

mod history;
mod inventory;
mod versioning;
mod wire;

pub(crate) use history::History;
pub(crate) use inventory::Inventory;
pub(crate) use versioning::{Versioned, follow, versioned};

use crate::apply::Applied;
use crate::objects::{Object, Reference};
use serde::{Deserialize, Serialize};

/// How a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    InProgress,
    Succeeded,
    Failed,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::InProgress => "InProgress",
            Status::Succeeded => "Succeeded",
            Status::Failed => "Failed",
        }
    }
}

/// One object that a release put into the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Which.
    #[serde(flatten)]
    pub(crate) reference: Reference,
    /// Identity in the cluster: an object of the same name with another uid is somebody else's.
    #[serde(default)]
    pub(crate) uid: String,
}

impl From<&Applied> for Item {
    fn from(applied: &Applied) -> Item {
        Item { reference: applied.reference.clone(), uid: applied.uid.clone() }
    }
}

/// What only we keep about a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ours {
    /// Version of this document.
    pub(crate) v: u32,
    /// The task that made it: the same task goes on with the same number.
    pub(crate) task: String,
    /// The execution and stage it belongs to.
    pub(crate) execution: String,
    pub(crate) stage: String,
    /// `K8sRollingDeploy`, `K8sCanaryDeploy`, `K8sBlueGreenDeploy`.
    pub(crate) step: String,
    /// Everything it applied.
    pub(crate) inventory: Vec<Item>,
    /// ConfigMaps and Secrets that carry a version in their name.
    pub(crate) versioned: Vec<Versioned>,
    /// What it pruned.
    pub(crate) pruned: Vec<Item>,
}

/// One release.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Release {
    pub(crate) number: u64,
    pub(crate) status: Status,
    /// Blue-green: the colour it was deployed as.
    pub(crate) color: Option<String>,
    /// Blue-green: `stage` or `primary`.
    pub(crate) environment: Option<String>,
    /// Hash of its manifests.
    pub(crate) manifest_hash: Option<String>,
    /// The final objects, as they were applied.
    pub(crate) objects: Vec<Object>,
    pub(crate) ours: Ours,
    /// `metadata.resourceVersion` of its Secret; empty before it is stored.
    pub(crate) version: String,
    /// Uid of its Secret; empty before it is read back.
    pub(crate) uid: String,
    /// Further labels and annotations of its Secret, kept as they are.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) annotations: Vec<(String, String)>,
}

impl Release {
    /// A new release that nothing was done for yet.
    pub(crate) fn new(number: u64, objects: Vec<Object>, ours: Ours) -> Release {
        Release {
            number,
            status: Status::InProgress,
            color: None,
            environment: None,
            manifest_hash: None,
            objects,
            ours: Ours { v: 1, ..ours },
            version: String::new(),
            uid: String::new(),
            labels: Vec::new(),
            annotations: Vec::new(),
        }
    }

    /// Everything it put into the cluster. Releases of Harness' own delegate name only their objects, without uid.
    pub(crate) fn items(&self) -> Vec<Item> {
        if self.ours.inventory.is_empty() {
            let items = self.objects.iter();
            return items.map(|object| Item { reference: object.reference(), uid: String::new() }).collect();
        }
        self.ours.inventory.clone()
    }
}
