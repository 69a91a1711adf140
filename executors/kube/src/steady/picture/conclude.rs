//! What is concluded about one object of a picture.

use super::super::cause::Cause;
use super::super::expression;
use super::super::faults::{Around, Fault, faults, refusal_stays};
use super::super::rules::{Verdict, condition, judge};
use super::super::view::Pod;
use super::{Assessment, Conclusion, Key, Picture, UNSEEN, Watched, exceeded_at, text};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

impl Picture {
    pub(super) fn one(
        &self,
        index: usize,
        now: Duration,
        standing: &mut HashMap<Key, Duration>,
        seen: &mut HashSet<Key>,
    ) -> Assessment {
        let plain = |conclusion| Assessment { conclusion, faults: Vec::new(), again: None };
        let waiting = |text: &str| plain(Conclusion::Waiting(text.to_owned()));
        let Some(watched) = self.watched.get(index) else { return waiting("") };
        let Some(object) = &watched.object else {
            return match (watched.listed, watched.seen) {
                (false, _) => waiting(UNSEEN),
                (true, false) => failed(Cause::Missing, "it is not there".into()),
                (true, true) => failed(Cause::Missing, "it was deleted while it was waited for".into()),
            };
        };
        let mut stands = |key: Key| {
            seen.insert(key.clone());
            now.saturating_sub(*standing.entry(key).or_insert(now))
        };
        let mut again: Option<Duration> = None;
        let text = match self.verdict(watched, object, now) {
            Verdict::Failed(cause, text) => {
                let faults = self.faults(index, object);
                // The pods say more than "exceeded its deadline"; the code stays that of what was decided on.
                return Assessment {
                    conclusion: Conclusion::Failed { cause, text, exit: exit(&faults) },
                    faults,
                    again,
                };
            }
            Verdict::Ready(text) if !watched.pods_known || !watched.sets_known => text,
            Verdict::Ready(text) => {
                let limit = self.limits.proven_after_crash;
                let Some((key, name)) = self.unproven(index, object) else {
                    return plain(Conclusion::Ready(text));
                };
                let stood = stands(key);
                if stood >= limit {
                    return plain(Conclusion::Ready(text));
                }
                again = Some(now + limit - stood);
                return Assessment {
                    conclusion: Conclusion::Waiting(format!(
                        "{text}, but {name} has ended before; it counts after {} s of running",
                        limit.as_secs()
                    )),
                    faults: Vec::new(),
                    again,
                };
            }
            Verdict::Progress(text) => text,
        };
        let faults = self.faults(index, object);
        for fault in &faults {
            let stood = stands((fault.cause, fault.uid.clone(), fault.container.clone()));
            if stood >= fault.needs {
                let conclusion =
                    Conclusion::Failed { cause: fault.cause, text: fault.text.clone(), exit: fault.exit };
                // What decided comes first.
                let mut faults = faults.clone();
                faults.sort_by_key(|other| other.cause != fault.cause);
                return Assessment { conclusion, faults, again };
            }
            let at = now + fault.needs - stood;
            again = Some(again.map_or(at, |other| other.min(at)));
        }
        if let Some(at) = self.own_deadline(watched, object) {
            again = Some(again.map_or(at, |other| other.min(at)));
        }
        Assessment { conclusion: Conclusion::Waiting(text), faults, again }
    }

    /// The rules of the kind, the object's own expression, and an exceeded deadline that is older than the wait.
    fn verdict(&self, watched: &Watched, object: &Value, now: Duration) -> Verdict {
        if let Some(expression) = expression::of(object) {
            return match expression::holds(expression, object) {
                Ok(true) => Verdict::Ready("its steady state condition holds".into()),
                Ok(false) => Verdict::Progress(format!("not yet: {expression}")),
                Err(text) => Verdict::Failed(Cause::Expression, text),
            };
        }
        match judge(object) {
            Verdict::Failed(Cause::ProgressDeadline, text)
                if watched.old_deadline.is_some()
                    && exceeded_at(object) == watched.old_deadline.as_deref()
                    && self.own_deadline(watched, object).is_some_and(|at| now < at) =>
            {
                Verdict::Progress(format!("it was stuck before ({text}); it gets its deadline once more"))
            }
            other => other,
        }
    }

    /// When the patience with a deadline that was exceeded before the wait ends.
    fn own_deadline(&self, watched: &Watched, object: &Value) -> Option<Duration> {
        watched.old_deadline.as_ref()?;
        let seconds = object.pointer("/spec/progressDeadlineSeconds").and_then(Value::as_u64).unwrap_or(600);
        Some(Duration::from_secs(seconds))
    }

    /// A pod that is ready but whose container has ended since the start, and runs for a short time only.
    fn unproven(&self, index: usize, object: &Value) -> Option<(Key, String)> {
        if text(object, "/kind") == "Job" {
            return None;
        }
        for pod in self.new_pods(index, object) {
            for status in &pod.status.container_statuses {
                if status.restart_count > self.restarts_before(pod, &status.name) && status.restart_count > 0
                {
                    let run = status.state.running.as_ref().map_or("", |r| r.started_at.as_str());
                    let place = format!("{}@{}@{run}", status.name, status.restart_count);
                    let name = format!("container {} of pod {}", status.name, pod.metadata.name);
                    return Some(((Cause::Crash, pod.metadata.uid.clone(), place), name));
                }
            }
        }
        None
    }

    fn restarts_before(&self, pod: &Pod, container: &str) -> u32 {
        self.before.get(&pod.metadata.uid).and_then(|c| c.get(container)).copied().unwrap_or(0)
    }

    fn faults(&self, index: usize, object: &Value) -> Vec<Fault> {
        let job = text(object, "/kind") == "Job";
        let pods = self.new_pods(index, object);
        let mut found = Vec::new();
        for pod in &pods {
            let warnings: Vec<(&str, &str)> =
                self.events_of(&pod.metadata.uid).map(|e| (e.reason.as_str(), e.message.as_str())).collect();
            let around = Around {
                limits: &self.limits,
                before: &|container| self.restarts_before(pod, container),
                warnings: &warnings,
                restarts_count: !job,
                autoscaler: self.autoscaler,
            };
            found.extend(faults(pod, &around));
        }
        if !job {
            found.extend(self.rejected(&pods));
        }
        found.extend(self.refused(object));
        // The soonest to be conclusive decides.
        found.sort_by_key(|fault| fault.needs);
        found
    }

    /// Pods that nodes threw out: one may happen, several of one revision are a pattern.
    fn rejected(&self, pods: &[&Pod]) -> Option<Fault> {
        let out = |pod: &&&Pod| {
            pod.status.phase == "Failed"
                && !pod.status.reason.is_empty()
                && !matches!(
                    pod.status.reason.as_str(),
                    "Shutdown" | "NodeShutdown" | "Terminated" | "Preempting"
                )
                && pod.metadata.creation_timestamp >= self.since
        };
        let out: Vec<&&Pod> = pods.iter().filter(out).collect();
        let last = out.iter().max_by_key(|pod| &pod.metadata.creation_timestamp)?;
        if out.len() < self.limits.rejected_pods {
            return None;
        }
        Some(Fault {
            cause: Cause::Rejected,
            pod: last.metadata.name.clone(),
            uid: last.metadata.owner().to_owned(),
            container: String::new(),
            text: format!(
                "{} pods were thrown out: {}: {}",
                out.len(),
                last.status.reason,
                last.status.message
            ),
            needs: Duration::ZERO,
            exit: None,
            previous_log: false,
        })
    }

    /// Pods that the server refuses to make. While pods of the same namespace are on their way out, a quota may become
    /// free.
    fn refused(&self, object: &Value) -> Option<Fault> {
        let namespace = text(object, "/metadata/namespace");
        let leaving =
            |pod: &Pod| pod.metadata.namespace == namespace && pod.metadata.deletion_timestamp.is_some();
        if self.pods.values().any(|(_, pod)| leaving(pod)) {
            return None;
        }
        let set = self.new_set(object).map(|set| (&set.metadata.meta, &set.status.conditions));
        let uid = text(object, "/metadata/uid");
        let by_set = set.and_then(|(meta, conditions)| {
            let failure = conditions.iter().find(|c| c.kind == "ReplicaFailure" && c.status == "True")?;
            Some((meta.name.clone(), meta.uid.clone(), failure.message.clone()))
        });
        let by_object = || {
            let (status, _, message) = condition(object, "ReplicaFailure")?;
            let own = text(object, "/kind") != "Deployment" && status == "True";
            own.then(|| (text(object, "/metadata/name").to_owned(), uid.to_owned(), message.to_owned()))
        };
        // StatefulSets, DaemonSets and Jobs have no such condition, only events.
        let by_event = || {
            let eventual = matches!(text(object, "/kind"), "StatefulSet" | "DaemonSet" | "Job");
            let last = self
                .events_of(uid)
                .filter(|e| e.reason == "FailedCreate")
                .max_by_key(|e| e.last().to_owned())?;
            let newest = self.every_pod(object).iter().map(|p| p.metadata.creation_timestamp.clone()).max();
            let stands = eventual && newest.is_none_or(|made| made.as_str() < last.last());
            stands.then(|| (text(object, "/metadata/name").to_owned(), uid.to_owned(), last.message.clone()))
        };
        let (pod, uid, message) = by_set.or_else(by_object).or_else(by_event)?;
        let stays = refusal_stays(&message);
        let status = object.get("status");
        let counts =
            ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "active", "succeeded"]
                .map(|name| status.and_then(|s| s.get(name)).and_then(Value::as_i64).unwrap_or(0));
        Some(Fault {
            cause: Cause::Refused,
            pod,
            uid,
            // Progress makes it another standing.
            container: format!("{counts:?}"),
            text: format!("new pods are refused: {message}"),
            needs: if stays { self.limits.refused } else { self.limits.refused_troubled },
            exit: None,
            previous_log: false,
        })
    }
}

fn failed(cause: Cause, text: String) -> Assessment {
    Assessment { conclusion: Conclusion::Failed { cause, text, exit: None }, faults: Vec::new(), again: None }
}

fn exit(faults: &[Fault]) -> Option<i32> {
    faults.iter().find_map(|fault| fault.exit)
}
