//! What a wait knows, and what it concludes from it. No I/O and no clock: changes and the time since the start come
//! from outside.

mod conclude;

use super::cause::{Cause, Limits};
use super::faults::Fault;
use super::view::{ClusterEvent, Pod, ReplicaSet};
use super::{Instance, Target, resources};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// What is said of an object before its first list.
pub(crate) const UNSEEN: &str = "not looked at yet";
/// Events are kept up to this many; more say nothing new.
const EVENTS: usize = 2000;

/// One object that is waited for.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) target: Target,
    pub(crate) object: Option<Value>,
    /// Its first list has come.
    listed: bool,
    /// It was there once.
    seen: bool,
    /// Its pods were listed, or cannot be. Before that its own word is not enough.
    pods_known: bool,
    /// The same of its ReplicaSets.
    sets_known: bool,
    /// Its pods cannot be followed: it does not say which they are, or the account may not look at them.
    blind: bool,
    /// When the exceeded progress deadline was written that stood there from the beginning.
    old_deadline: Option<String>,
}

/// What is concluded about one object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Conclusion {
    Ready(String),
    Waiting(String),
    Failed { cause: Cause, text: String, exit: Option<i32> },
}

/// A conclusion with what stands behind it.
#[derive(Debug)]
pub(crate) struct Assessment {
    pub(crate) conclusion: Conclusion,
    pub(crate) faults: Vec<Fault>,
    /// Without any change, look again at this time.
    pub(crate) again: Option<Duration>,
}

/// Everything known.
pub(crate) struct Picture {
    limits: Limits,
    /// RFC 3339: pods and events from before do not count.
    since: String,
    pub(crate) watched: Vec<Watched>,
    pods: BTreeMap<String, (usize, Pod)>,
    sets: BTreeMap<String, (usize, ReplicaSet)>,
    events: BTreeMap<String, ClusterEvent>,
    /// Restarts at first sight of pods that are older than the wait.
    before: HashMap<String, HashMap<String, u32>>,
    standing: HashMap<Key, Duration>,
    pub(crate) autoscaler: Option<bool>,
}

/// What stands: a kind of evidence at a place.
type Key = (Cause, String, String);

impl Picture {
    pub(crate) fn new(targets: &[Target], limits: Limits, since: String) -> Picture {
        let watched = |t: &Target| Watched {
            target: t.clone(),
            pods_known: !resources::makes_pods(&t.kind),
            sets_known: t.kind != "Deployment",
            ..Watched::default()
        };
        let watched = targets.iter().map(watched).collect();
        Picture {
            limits,
            since,
            watched,
            pods: BTreeMap::new(),
            sets: BTreeMap::new(),
            events: BTreeMap::new(),
            before: HashMap::new(),
            standing: HashMap::new(),
            autoscaler: None,
        }
    }

    /// Takes all objects of a collection; those of `members` that are not among them are not there.
    pub(crate) fn all_objects(&mut self, members: &[usize], objects: Vec<Value>) {
        for index in members {
            let Some(watched) = self.watched.get_mut(*index) else { continue };
            watched.listed = true;
            watched.object = None;
        }
        for object in objects {
            self.put_object(members, object);
        }
    }

    pub(crate) fn put_object(&mut self, members: &[usize], mut object: Value) {
        let text = |name: &str| {
            object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or_default()
        };
        let (name, trust) = (text("name").to_owned(), self.limits.trust_old_deadline);
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
        }
        let named = |index: &&usize| self.watched.get(**index).is_some_and(|w| w.target.name == name);
        let Some(index) = members.iter().find(named) else { return };
        let Some(watched) = self.watched.get_mut(*index) else { return };
        // Items of a list carry no kind of their own.
        if let Some(map) = object.as_object_mut() {
            map.insert("kind".into(), Value::from(watched.target.kind.clone()));
            map.insert("apiVersion".into(), Value::from(watched.target.api_version.clone()));
        }
        if !watched.seen && !trust {
            watched.old_deadline = exceeded_at(&object).map(str::to_owned);
        }
        watched.seen = true;
        watched.object = Some(object);
    }

    pub(crate) fn gone_object(&mut self, members: &[usize], object: &Value) {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        for index in members {
            if let Some(watched) = self.watched.get_mut(*index).filter(|w| w.target.name == name) {
                watched.object = None;
            }
        }
    }

    /// The pods of these targets are known as far as they can be.
    pub(crate) fn pods_known(&mut self, members: &[usize]) {
        for index in members {
            if let Some(watched) = self.watched.get_mut(*index) {
                watched.pods_known = true;
            }
        }
    }

    /// The pods of these targets cannot be followed, so nothing waits for them.
    pub(crate) fn without_pods(&mut self, members: &[usize]) {
        for index in members {
            if let Some(watched) = self.watched.get_mut(*index) {
                watched.pods_known = true;
                watched.blind = true;
            }
        }
    }

    /// The ReplicaSets of these targets cannot be followed, and so not the pods of those that are Deployments.
    pub(crate) fn without_sets(&mut self, members: &[usize]) {
        for index in members {
            if let Some(watched) = self.watched.get_mut(*index) {
                watched.sets_known = true;
                watched.blind |= watched.target.kind == "Deployment";
            }
        }
    }

    /// The ReplicaSets of these targets are known as far as they can be.
    pub(crate) fn sets_known(&mut self, members: &[usize]) {
        for index in members {
            if let Some(watched) = self.watched.get_mut(*index) {
                watched.sets_known = true;
            }
        }
    }

    pub(crate) fn all_pods(&mut self, from: usize, pods: Vec<Pod>) {
        self.pods.retain(|_, (source, _)| *source != from);
        for pod in pods {
            self.put_pod(from, pod);
        }
    }

    pub(crate) fn put_pod(&mut self, from: usize, pod: Pod) {
        let uid = pod.metadata.uid.clone();
        if !self.pods.contains_key(&uid) && pod.metadata.creation_timestamp < self.since {
            let counts = pod.statuses().map(|s| (s.name.clone(), s.restart_count)).collect();
            self.before.entry(uid.clone()).or_insert(counts);
        }
        self.pods.insert(uid, (from, pod));
    }

    pub(crate) fn gone_pod(&mut self, pod: &Pod) {
        self.pods.remove(&pod.metadata.uid);
    }

    pub(crate) fn all_sets(&mut self, from: usize, sets: Vec<ReplicaSet>) {
        self.sets.retain(|_, (source, _)| *source != from);
        for set in sets {
            self.put_set(from, set);
        }
    }

    pub(crate) fn put_set(&mut self, from: usize, set: ReplicaSet) {
        self.sets.insert(set.metadata.meta.uid.clone(), (from, set));
    }

    pub(crate) fn gone_set(&mut self, set: &ReplicaSet) {
        self.sets.remove(&set.metadata.meta.uid);
    }

    /// Takes an event; says whether it is news about one of the objects here.
    pub(crate) fn put_event(&mut self, event: ClusterEvent) -> bool {
        if event.kind == "Normal" || event.last() < self.since.as_str() {
            return false;
        }
        if self.events.len() >= EVENTS && !self.events.contains_key(&event.metadata.uid) {
            return false;
        }
        let before = self.events.insert(event.metadata.uid.clone(), event);
        before.is_none()
    }

    /// Looks at the time `now` (since the start of the wait).
    pub(crate) fn assess(&mut self, now: Duration) -> Vec<Assessment> {
        let mut seen = HashSet::new();
        let mut standing = std::mem::take(&mut self.standing);
        let all: Vec<Assessment> =
            (0..self.watched.len()).map(|index| self.one(index, now, &mut standing, &mut seen)).collect();
        standing.retain(|key, _| seen.contains(key));
        self.standing = standing;
        all
    }

    /// ReplicaSet of the revision that is being rolled out.
    fn new_set(&self, object: &Value) -> Option<&ReplicaSet> {
        // Until the controller has seen a change, the revision is that of before: after a rollback its pods would be the
        // failing ones that are on their way out.
        let count = |path: &str| object.pointer(path).and_then(Value::as_i64);
        if let (Some(generation), Some(observed)) =
            (count("/metadata/generation"), count("/status/observedGeneration"))
            && observed < generation
        {
            return None;
        }
        let uid = text(object, "/metadata/uid");
        let revision =
            object.pointer("/metadata/annotations").and_then(|a| a.get("deployment.kubernetes.io/revision"));
        let revision: u64 = revision?.as_str()?.parse().ok()?;
        let mut own = self.sets.values().map(|(_, set)| set).filter(|set| set.metadata.meta.owner() == uid);
        own.find(|set| set.revision() == Some(revision))
    }

    /// Pods of the revision that is being rolled out.
    fn new_pods(&self, index: usize, object: &Value) -> Vec<&Pod> {
        let uid = text(object, "/metadata/uid");
        let all = self.pods.values().map(|(_, pod)| pod);
        let by_label = |label: &'static str, value: String| {
            move |pod: &&Pod| pod.metadata.labels.get(label).is_some_and(|have| *have == value)
        };
        match text(object, "/kind") {
            "Deployment" => {
                let Some(set) = self.new_set(object) else { return Vec::new() };
                all.filter(|pod| pod.metadata.owner() == set.metadata.meta.uid).collect()
            }
            "StatefulSet" => {
                let revision = text(object, "/status/updateRevision").to_owned();
                let own = all.filter(|pod| pod.metadata.owner() == uid);
                own.filter(by_label("controller-revision-hash", revision)).collect()
            }
            "DaemonSet" => {
                let generation = object
                    .pointer("/metadata/annotations")
                    .and_then(|a| a.get("deprecated.daemonset.template.generation"))
                    .and_then(Value::as_str)
                    .unwrap_or("1")
                    .to_owned();
                let own = all.filter(|pod| pod.metadata.owner() == uid);
                own.filter(by_label("pod-template-generation", generation)).collect()
            }
            "Pod" => {
                let name = self.watched.get(index).map_or("", |w| w.target.name.as_str());
                all.filter(|pod| pod.metadata.name == name && pod.metadata.uid == uid).collect()
            }
            _ => all.filter(|pod| pod.metadata.owner() == uid).collect(),
        }
    }

    /// Every pod of the object, whatever its revision.
    fn every_pod(&self, object: &Value) -> Vec<&Pod> {
        let uid = text(object, "/metadata/uid");
        let sets: HashSet<&str> = self
            .sets
            .values()
            .map(|(_, set)| &set.metadata.meta)
            .filter(|meta| meta.owner() == uid)
            .map(|meta| meta.uid.as_str())
            .collect();
        let ours = |pod: &&Pod| {
            let owner = pod.metadata.owner();
            pod.metadata.uid == uid || owner == uid || sets.contains(owner)
        };
        self.pods.values().map(|(_, pod)| pod).filter(ours).collect()
    }

    /// Whether there are events about the object of this uid.
    pub(crate) fn has_events(&self, uid: &str) -> bool {
        self.events_of(uid).next().is_some()
    }

    fn events_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a ClusterEvent> {
        self.events.values().filter(move |e| e.involved_object.uid == uid)
    }

    /// Warnings about the object, its ReplicaSets and its pods, the newest last.
    pub(crate) fn warnings(&self, index: usize) -> Vec<&ClusterEvent> {
        let Some(object) = self.watched.get(index).and_then(|w| w.object.as_ref()) else { return Vec::new() };
        let uid = text(object, "/metadata/uid");
        let mut uids: HashSet<&str> =
            self.every_pod(object).iter().map(|p| p.metadata.uid.as_str()).collect();
        uids.extend(
            self.sets
                .values()
                .map(|(_, s)| &s.metadata.meta)
                .filter(|m| m.owner() == uid)
                .map(|m| m.uid.as_str()),
        );
        uids.insert(uid);
        let mut found: Vec<_> =
            self.events.values().filter(|e| uids.contains(e.involved_object.uid.as_str())).collect();
        found.sort_by(|a, b| a.last().cmp(b.last()));
        found
    }

    /// The pods of an object as they are now.
    pub(crate) fn instances(&self, index: usize) -> Vec<Instance> {
        let Some(object) = self.watched.get(index).and_then(|w| w.object.as_ref()) else { return Vec::new() };
        let new: HashSet<&str> =
            self.new_pods(index, object).iter().map(|p| p.metadata.uid.as_str()).collect();
        let alive = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none() && pod.status.phase == "Running";
        let all = self.every_pod(object);
        all.into_iter()
            .filter(alive)
            .map(|pod| Instance::of(pod, new.contains(pod.metadata.uid.as_str())))
            .collect()
    }

    /// Whether a workload counts more ready pods than are known here, or fewer altogether. What cannot be followed is
    /// never behind, nor is a kind whose pods belong to objects that are not looked at.
    pub(crate) fn is_behind(&self) -> bool {
        let followed =
            |(_, watched): &(usize, &Watched)| !watched.blind && watched.target.kind != "DeploymentConfig";
        self.watched.iter().enumerate().filter(followed).any(|(index, watched)| {
            let count = |field: &str| watched.object.as_ref()?.pointer(field)?.as_u64();
            let ready = count("/status/readyReplicas").or_else(|| count("/status/numberReady"));
            // Controllers leave zeros out; what has no number of replicas has no total.
            let total = count("/spec/replicas").map(|_| count("/status/replicas").unwrap_or(0));
            let known = self.instances(index).len() as u64;
            ready.is_some_and(|ready| ready > known) || total.is_some_and(|total| total < known)
        })
    }

    /// Pods of the new revision, for the screen.
    pub(crate) fn pods_of(&self, index: usize) -> (Vec<&Pod>, usize) {
        let Some(object) = self.watched.get(index).and_then(|w| w.object.as_ref()) else {
            return (Vec::new(), 0);
        };
        let new = self.new_pods(index, object);
        let others = self.every_pod(object).len().saturating_sub(new.len());
        (new, others)
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// When an exceeded progress deadline was written into a Deployment.
fn exceeded_at(object: &Value) -> Option<&str> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|c| {
        c.get("type").and_then(Value::as_str) == Some("Progressing")
            && c.get("reason").and_then(Value::as_str) == Some("ProgressDeadlineExceeded")
    })?;
    found.get("lastUpdateTime").and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
