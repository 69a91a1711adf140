//! The running wait: watches in, lines out.

use super::cause::{Cause, Limits};
use super::picture::{self, Conclusion, Picture};
use super::resources::{self, Collection, resource};
use super::watch::{Delta, News, follow};
use super::wire::{Selector, Trouble, Wire};
use super::{Change, Ended, LOOK_BACK, Report, Target, TargetReport, evidence};
use executor_api::{Level, StepContext, UnitLog};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a report of ready workloads waits at most for the news of their last pods. Their watch may just be resumed.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Pause before a question is asked again that the API server could not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The end of what one outage of the server told.
const ANSWERS: &str = "the API server answers again";
/// Changes that wait to be taken in; a watch pauses when there are more.
const QUEUE: usize = 512;
/// Up to this many workloads of a namespace get watches by their selector; more are cheaper with one for all.
const SELECTIVE: usize = 8;
/// The state of one object is told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// So many different warnings are told as they come.
const TOLD_WARNINGS: usize = 30;

/// What a watch brings, as far as a refusal matters.
#[derive(Clone, Copy)]
enum Of {
    Pods,
    Sets,
    Others,
}

/// What one watch is for.
struct Source {
    what: String,
    /// Positions of its targets.
    members: Vec<usize>,
    of: Of,
    /// The wait is useless without it.
    needed: bool,
}

pub(crate) struct Waiter<'a> {
    pub(super) wire: Wire,
    pub(super) cx: &'a StepContext,
    pub(super) log: &'a dyn UnitLog,
    pub(super) picture: Picture,
    pub(super) watches: JoinSet<()>,
    sources: Vec<Source>,
    sender: mpsc::Sender<(usize, Change)>,
    changes: mpsc::Receiver<(usize, Change)>,
    pub(super) start: Instant,
    /// The state of each target now; it is told a little later.
    pub(super) current: Vec<String>,
    /// What was said last about each target, and when.
    said: Vec<(String, Option<Instant>)>,
    told_warnings: HashSet<(String, String)>,
    /// Namespaces whose pods are watched, and workloads that have their own watches.
    pods_of: HashSet<(String, usize)>,
    troubled: HashSet<usize>,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(
        wire: Wire,
        targets: &[Target],
        cx: &'a StepContext,
        log: &'a dyn UnitLog,
        limits: &Limits,
    ) -> Waiter<'a> {
        let (sender, changes) = mpsc::channel(QUEUE);
        let since = cx.clock.wall().saturating_sub(u64::try_from(LOOK_BACK.as_millis()).unwrap_or(0));
        // The cluster writes whole seconds, so ours are cut as well.
        let since = Timestamp::from_second(i64::try_from(since / 1000).unwrap_or(0)).unwrap_or_default();
        Waiter {
            wire,
            cx,
            log,
            picture: Picture::new(targets, limits.clone(), since.to_string()),
            watches: JoinSet::new(),
            sources: Vec::new(),
            sender,
            changes,
            start: cx.clock.mono(),
            current: vec![String::new(); targets.len()],
            said: vec![(String::new(), None); targets.len()],
            told_warnings: HashSet::new(),
            pods_of: HashSet::new(),
            troubled: HashSet::new(),
        }
    }

    pub(super) async fn run(&mut self) -> Result<(), Ended> {
        self.watch_objects().await?;
        let mut caught_up_by = None;
        loop {
            let now = self.cx.clock.mono();
            let assessed = self.picture.assess(now.saturating_duration_since(self.start));
            self.look_for_autoscaler(&assessed).await;
            let mut again = assessed.iter().filter_map(|a| a.again).min().map(|at| self.start + at);
            let mut ready = 0;
            for (index, assessment) in assessed.into_iter().enumerate() {
                let text = match assessment.conclusion {
                    Conclusion::Failed { cause, text, exit } => {
                        return Err(Ended::Failed { index, cause, text, exit });
                    }
                    Conclusion::Ready(text) => {
                        ready += 1;
                        format!("ready: {text}")
                    }
                    Conclusion::Waiting(text) => match assessment.faults.first() {
                        Some(fault) => format!("{text}; {}", fault.text),
                        None => text,
                    },
                };
                if let Some(current) = self.current.get_mut(index) {
                    current.clone_from(&text);
                }
                if let Some(at) = self.say(index, text, now).await? {
                    again = Some(again.map_or(at, |other| other.min(at)));
                }
            }
            if ready == self.picture.watched.len() {
                // The pods come by a watch of their own, which may be a moment later than that of their workload.
                let behind = !self.pods_of.is_empty() && self.picture.is_behind();
                let limit = *caught_up_by.get_or_insert(now + CATCH_UP);
                if !behind || now >= limit {
                    if !self.troubled.is_empty() {
                        self.log.line(Level::Info, ANSWERS).await?;
                    }
                    return Ok(());
                }
                again = Some(again.map_or(limit, |other| other.min(limit)));
            } else {
                caught_up_by = None;
            }
            self.take_changes(again).await?;
        }
    }

    /// Waits for a change, or until `again`, and takes in all that are there.
    async fn take_changes(&mut self, again: Option<Instant>) -> Result<(), Ended> {
        let timer = async {
            match again {
                Some(at) => self.cx.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            change = self.changes.recv() => change,
            () = timer => None,
        };
        if let Some((source, change)) = first {
            self.take(source, change).await?;
        }
        for _ in 0..QUEUE {
            let Ok((source, change)) = self.changes.try_recv() else { break };
            self.take(source, change).await?;
        }
        self.watch_pods();
        Ok(())
    }

    async fn take(&mut self, source: usize, change: Change) -> Result<(), Ended> {
        let members = self.sources.get(source).map(|s| s.members.clone()).unwrap_or_default();
        let picture = &mut self.picture;
        let other = match change {
            Change::Object(News::Delta(delta)) => {
                match delta {
                    Delta::All(objects) => picture.all_objects(&members, objects),
                    Delta::Put(object) => picture.put_object(&members, object),
                    Delta::Gone(object) => picture.gone_object(&members, &object),
                }
                return Ok(());
            }
            Change::Pod(News::Delta(delta)) => {
                match delta {
                    Delta::All(pods) => {
                        picture.all_pods(source, pods);
                        picture.pods_known(&members);
                        // Warnings that came before what they are about.
                        return self.tell_warnings().await;
                    }
                    Delta::Put(pod) => {
                        let early = picture.has_events(&pod.metadata.uid);
                        picture.put_pod(source, pod);
                        if early {
                            return self.tell_warnings().await;
                        }
                    }
                    Delta::Gone(pod) => picture.gone_pod(&pod),
                }
                return Ok(());
            }
            Change::Set(News::Delta(delta)) => {
                match delta {
                    Delta::All(sets) => {
                        picture.all_sets(source, sets);
                        picture.sets_known(&members);
                        return self.tell_warnings().await;
                    }
                    Delta::Put(set) => {
                        let early = picture.has_events(&set.metadata.meta.uid);
                        picture.put_set(source, set);
                        if early {
                            return self.tell_warnings().await;
                        }
                    }
                    Delta::Gone(set) => picture.gone_set(&set),
                }
                return Ok(());
            }
            Change::Event(News::Delta(delta)) => {
                let events = match delta {
                    Delta::All(events) => events,
                    Delta::Put(event) => vec![event],
                    Delta::Gone(_) => Vec::new(),
                };
                for event in events {
                    picture.put_event(event);
                }
                return self.tell_warnings().await;
            }
            Change::Object(other) => other.without_delta(),
            Change::Pod(other) => other.without_delta(),
            Change::Set(other) => other.without_delta(),
            Change::Event(other) => other.without_delta(),
        };
        self.trouble(source, other).await
    }

    async fn trouble(&mut self, source: usize, news: Option<News<()>>) -> Result<(), Ended> {
        let Some(known) = self.sources.get(source) else { return Ok(()) };
        let what = known.what.clone();
        match news {
            Some(News::Troubled(trouble)) => {
                // One outage breaks every watch; it is told once.
                let first = self.troubled.is_empty();
                self.troubled.insert(source);
                if first {
                    self.log.line(Level::Warn, &in_trouble(&what, &trouble)).await?;
                }
            }
            Some(News::Well) => {
                if self.troubled.remove(&source) && self.troubled.is_empty() {
                    self.log.line(Level::Info, ANSWERS).await?;
                }
            }
            Some(News::Refused { code, message }) if known.needed => {
                return Err(Ended::Refused { what, code, message });
            }
            Some(News::Refused { message, .. }) => {
                let members = known.members.clone();
                match known.of {
                    Of::Pods => self.picture.without_pods(&members),
                    Of::Sets => self.picture.without_sets(&members),
                    Of::Others => {}
                }
                self.troubled.remove(&source);
                let text = format!("{what} cannot be watched, so they are no evidence here: {message}");
                self.log.line(Level::Warn, &text).await?;
            }
            Some(News::Delta(_)) | None => {}
        }
        Ok(())
    }

    /// One watch per collection that has targets.
    async fn watch_objects(&mut self) -> Result<(), Ended> {
        let mut groups: BTreeMap<(String, String, String), Vec<usize>> = BTreeMap::new();
        for (index, watched) in self.picture.watched.iter().enumerate() {
            let t = &watched.target;
            let key = (t.api_version.clone(), t.kind.clone(), t.namespace.clone());
            groups.entry(key).or_default().push(index);
        }
        let mut namespaces = HashSet::new();
        for ((api_version, kind, namespace), members) in groups {
            let what = if namespace.is_empty() { kind.clone() } else { format!("{kind} in {namespace}") };
            let collection = self.collection(&what, &api_version, &kind).await?;
            let name = match members.as_slice() {
                [one] => self.picture.watched.get(*one).map(|w| format!("metadata.name={}", w.target.name)),
                _ => None,
            };
            let path = collection.path(&namespace);
            let selector = Selector { labels: None, fields: name };
            self.follow(
                Source { what, members, of: Of::Others, needed: true },
                path,
                selector,
                Change::Object,
            );
            if collection.has_pods() && namespaces.insert(namespace.clone()) {
                let warnings = Selector { labels: None, fields: Some("type!=Normal".into()) };
                let source = Source {
                    what: format!("events in {namespace}"),
                    members: Vec::new(),
                    of: Of::Others,
                    needed: false,
                };
                self.follow(source, Collection::core("events").path(&namespace), warnings, Change::Event);
            }
        }
        Ok(())
    }

    /// Where the objects of a kind are; asks until the server says so or says no.
    async fn collection(&mut self, what: &str, api_version: &str, kind: &str) -> Result<Collection, Ended> {
        let mut told = false;
        loop {
            let pause = match resource(&self.wire, api_version, kind).await {
                Ok(collection) => return Ok(collection),
                Err(Trouble::Refused { code, message }) => {
                    return Err(Ended::Refused { what: what.to_owned(), code, message });
                }
                Err(trouble) => {
                    if !told {
                        let text = in_trouble(what, &trouble);
                        self.log.line(Level::Warn, &text).await?;
                        told = true;
                    }
                    match trouble {
                        Trouble::Throttled(pause) => pause.max(ASK_AGAIN),
                        _ => ASK_AGAIN,
                    }
                }
            };
            self.cx.clock.sleep_until(self.cx.clock.mono() + pause).await;
        }
    }

    /// Pods and ReplicaSets, as soon as the selectors are known.
    fn watch_pods(&mut self) {
        let (mut wanted, mut without) = (Vec::new(), Vec::new());
        for (index, watched) in self.picture.watched.iter().enumerate() {
            let target = &watched.target;
            let namespace = &target.namespace;
            if !resources::makes_pods(&target.kind) {
                continue;
            }
            let beside = self.picture.watched.iter().enumerate();
            let beside = beside
                .filter(|(_, w)| w.target.namespace == *namespace && resources::makes_pods(&w.target.kind));
            let beside: Vec<usize> = beside.map(|(index, _)| index).collect();
            let (key, members, selector) = if beside.len() > SELECTIVE {
                (usize::MAX, beside, Some(Selector::default()))
            } else {
                let Some(object) = &watched.object else { continue };
                (index, vec![index], resources::selector(&target.kind, object))
            };
            if selector.is_none() {
                without.push(index);
            }
            if let Some(selector) = selector
                && self.pods_of.insert((namespace.clone(), key))
            {
                let sets = key == usize::MAX || target.kind == "Deployment";
                wanted.push((namespace.clone(), members, selector, sets));
            }
        }
        self.picture.without_pods(&without);
        self.picture.without_sets(&without);
        for (namespace, members, selector, sets) in wanted {
            let source = |what: &str, members, of| Source {
                what: format!("{what} in {namespace}"),
                members,
                of,
                needed: false,
            };
            let pods = Collection::core("pods").path(&namespace);
            self.follow(source("pods", members.clone(), Of::Pods), pods, selector.clone(), Change::Pod);
            if sets {
                let path = Collection::known("apps", "v1", "replicasets").path(&namespace);
                self.follow(source("ReplicaSets", members, Of::Sets), path, selector, Change::Set);
            }
        }
    }

    fn follow<T: serde::de::DeserializeOwned + Send + 'static>(
        &mut self,
        source: Source,
        path: String,
        selector: Selector,
        wrap: fn(News<T>) -> Change,
    ) {
        let id = self.sources.len();
        self.sources.push(source);
        let (wire, sender) = (self.wire.clone(), self.sender.clone());
        self.watches.spawn(async move { follow(&wire, &path, &selector, None, &sender, id, wrap).await });
    }

    /// Once, when a pod finds no node: whether something may bring one.
    async fn look_for_autoscaler(&mut self, assessed: &[picture::Assessment]) {
        let unschedulable =
            |a: &picture::Assessment| a.faults.iter().any(|f| f.cause == Cause::Unschedulable);
        if self.picture.autoscaler.is_none() && assessed.iter().any(unschedulable) {
            self.picture.autoscaler = resources::autoscaler(&self.wire).await;
        }
    }

    /// Tells the state of a target when it is another than before. `Some`: it is to be told at that time.
    async fn say(&mut self, index: usize, text: String, now: Instant) -> Result<Option<Instant>, Ended> {
        let Some((last, at)) = self.said.get_mut(index) else { return Ok(None) };
        if *last == text || text == picture::UNSEEN {
            return Ok(None);
        }
        let ready = text.starts_with("ready: ");
        if let Some(at) = at
            && now < *at + TELL_EVERY
            && !ready
        {
            return Ok(Some(*at + TELL_EVERY));
        }
        *last = text;
        *at = Some(now);
        let line = format!(
            "{}: {last}",
            self.picture.watched.get(index).map(|w| w.target.to_string()).unwrap_or_default()
        );
        self.log.line(Level::Info, &line).await?;
        Ok(None)
    }

    async fn tell_warnings(&mut self) -> Result<(), Ended> {
        let mut lines = Vec::new();
        for index in 0..self.picture.watched.len() {
            for event in self.picture.warnings(index) {
                if self.told_warnings.len() >= TOLD_WARNINGS {
                    break;
                }
                let message = evidence::general(
                    &event.message,
                    &event.involved_object.name,
                    &event.involved_object.uid,
                );
                if self.told_warnings.insert((event.reason.clone(), message)) {
                    let involved = &event.involved_object;
                    lines.push(format!(
                        "{} {}/{}: {}",
                        event.reason,
                        involved.kind,
                        involved.name,
                        event.message.trim()
                    ));
                }
            }
        }
        for line in lines {
            self.log.line(Level::Warn, &line).await?;
        }
        Ok(())
    }

    pub(super) fn report(&self) -> Report {
        let one = |(index, watched): (usize, &picture::Watched)| TargetReport {
            target: watched.target.clone(),
            summary: self
                .current
                .get(index)
                .map(|text| text.trim_start_matches("ready: ").to_owned())
                .unwrap_or_default(),
            object: watched.object.clone().unwrap_or_default(),
            pods: self.picture.instances(index),
        };
        let targets = self.picture.watched.iter().enumerate().map(one).collect();
        Report { targets, requests: self.wire.requests(), resumed: self.wire.resumed() }
    }
}

fn in_trouble(what: &str, trouble: &impl std::fmt::Display) -> String {
    format!("watching {what}: the API server is in trouble: {trouble}; the wait goes on")
}
