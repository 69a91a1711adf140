//! Reading and writing releases in the cluster.

use super::{Release, Status, wire};
use crate::error::{Fault, bad_spec};
use crate::objects::Reference;
use crate::rest::{Ask, encode};
use crate::session::Session;
use bytes::Bytes;
use executor_api::{Class, Level, StepError, UnitLog};
use http::Method;
use proto::task::ExecutionRef;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every release of one name in one namespace, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    releases: Vec<Release>,
    /// Highest number of the older format of Harness, which has one object for all releases.
    older: u64,
}

impl History {
    /// Reads it.
    ///
    /// **Errors**: `KUBE-034` when a release cannot be read: it is never taken for absent.
    pub(crate) async fn load(session: &Session) -> Result<History, StepError> {
        let mut history = History::records(session).await?;
        if history.releases.is_empty() {
            let failed = |fault: Fault| fault.step("read the history of releases", &session.api.target);
            history.older = older(session).await.map_err(failed)?;
        }
        Ok(history)
    }

    /// Reads the releases alone, for a step that makes none: the older format has nothing but numbers for us.
    ///
    /// **Errors**: as [`History::load`].
    pub(crate) async fn records(session: &Session) -> Result<History, StepError> {
        let failed = |fault: Fault| fault.step("read the history of releases", &session.api.target);
        let selector = encode(&format!("owner=harness,release={}", session.release));
        let query =
            format!("labelSelector={selector}&fieldSelector={}", encode(&format!("type={}", wire::TYPE)));
        let collection = collection(session);
        let secrets = session.api.list(&collection, &query).await.map_err(failed)?;
        let mut releases = Vec::with_capacity(secrets.len());
        for secret in &secrets {
            releases.push(wire::from_secret(secret).map_err(|problem| {
                let name = secret.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                bad_spec(
                    "KUBE-034",
                    format!("the release in Secret {}/{name} cannot be read: {problem}", session.namespace),
                )
                .target(session.api.target.clone())
                .hint("look at the Secret; delete it if that release is not needed for a rollback any more")
            })?);
        }
        releases.sort_by_key(|release| release.number);
        Ok(History { releases, older: 0 })
    }

    /// Every release, oldest first.
    pub(crate) fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The number of the next release.
    pub(crate) fn next(&self) -> u64 {
        self.releases.last().map_or(0, |release| release.number).max(self.older) + 1
    }

    /// The release that this task has made already, before the agent stopped.
    pub(crate) fn of_task(&self, task: &str) -> Option<&Release> {
        self.releases.iter().rev().find(|release| release.ours.task == task)
    }

    /// The newest release that a stage of an execution has made.
    pub(crate) fn of_execution(&self, execution: &str, stage: &str) -> Option<&Release> {
        self.releases.iter().rev().find(|release| {
            !execution.is_empty() && release.ours.execution == execution && release.ours.stage == stage
        })
    }

    /// The releases that an execution has made, or the one that it undoes.
    pub(crate) fn covered_by(&self, execution: &ExecutionRef) -> impl DoubleEndedIterator<Item = &Release> {
        self.releases.iter().filter(|release| execution.covered().any(|id| id == release.ours.execution))
    }

    /// One release.
    pub(crate) fn numbered(&self, number: u64) -> Option<&Release> {
        self.releases.iter().find(|release| release.number == number)
    }

    /// The newest successful release before `number`.
    pub(crate) fn succeeded_before(&self, number: u64) -> Option<&Release> {
        self.releases
            .iter()
            .rev()
            .find(|release| release.number < number && release.status == Status::Succeeded)
    }

    /// The newest successful release.
    pub(crate) fn succeeded(&self) -> Option<&Release> {
        self.succeeded_before(u64::MAX)
    }

    /// Stores a release: a new one must not exist yet, an older one must be as it was read.
    ///
    /// **Errors**: `KUBE-027` when somebody else wrote it at the same time; `KUBE-036` when it is too large.
    /// **Repeat**: safe.
    pub(crate) async fn store(session: &Session, release: &mut Release) -> Result<(), StepError> {
        let number = release.number;
        let secret = wire::to_secret(release, &session.release, &session.namespace).map_err(|size| {
            let text = format!(
                "release {number} takes {size} bytes packed; a Secret holds {}",
                wire::MAX_DATA
            );
            bad_spec("KUBE-036", text).hint("deploy the largest objects (CRDs, big ConfigMaps) with a K8sApply step or a release of their own")
        })?;
        let body = Bytes::from(serde_json::to_vec(&secret).unwrap_or_default());
        let path = format!("{}/{}", collection(session), wire::name(&session.release, number));
        let what = format!("store release {number} of {} as {}", session.release, release.status.as_str());
        session
            .api
            .announce(what.clone(), vec![what.clone()], json!({"v": 1, "release": number}), None)
            .await?;
        let new = release.version.is_empty();
        let ask = if new {
            Ask::with(Method::POST, collection(session), "application/json", body)
        } else {
            Ask::with(Method::PUT, path.clone(), "application/json", body)
        };
        // Sent twice it is refused the second time, and the refusal is looked into below.
        let stored: Value = match session.api.mutate(&what, ask.repeatable()).await {
            Ok(answer) => answer.read().map_err(|fault| fault.step(&what, &session.api.target))?,
            Err(fault) if fault.is_conflict() => {
                let found: Option<Value> =
                    session.api.find(&path).await.map_err(|fault| fault.step(&what, &session.api.target))?;
                // The answer of an earlier try may have been lost.
                match found
                    .filter(|found| found.get("data") == secret.get("data") && labels_equal(found, &secret))
                {
                    Some(found) => found,
                    None => return Err(taken(session, number)),
                }
            }
            Err(fault) => return Err(fault.step(&what, &session.api.target)),
        };
        release.version = stored
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Ok(())
    }

    /// Removes what a successful `current` release makes superfluous: failed releases before it, those in progress that
    /// nobody can be at work on any more, and successful ones beyond the number that is kept; with them the versioned
    /// ConfigMaps and Secrets that no other release names. What cannot be removed is told and left for the next release.
    pub(crate) async fn clean(
        &self,
        session: &Session,
        current: &Release,
        log: &dyn UnitLog,
    ) -> Result<(), StepError> {
        let (stay, go) = self.part(current.number, session.settings.kept_releases);
        if go.is_empty() {
            return Ok(());
        }
        let needed: BTreeSet<Reference> = stay
            .iter()
            .copied()
            .chain([current])
            .flat_map(|release| release.objects.iter().map(crate::objects::Object::reference))
            .collect();
        let mut superfluous = Vec::new();
        for release in &go {
            for versioned in &release.ours.versioned {
                let item = release.ours.inventory.iter().find(|item| item.reference == versioned.reference);
                if let Some(item) = item.filter(|item| !needed.contains(&item.reference)) {
                    superfluous.push(item.clone());
                }
            }
        }
        superfluous.sort_by(|a, b| a.reference.cmp(&b.reference));
        superfluous.dedup();
        for release in &go {
            superfluous.push(record(session, release));
        }
        let numbers: Vec<String> = go.iter().map(|release| release.number.to_string()).collect();
        session
            .say(log, Level::Info, &format!("releases that are not needed any more: {}", numbers.join(", ")))
            .await?;
        crate::prune::delete(session, superfluous, crate::prune::Strictness::Lenient, log).await.map(|_| ())
    }

    /// What stays and what goes beside the successful release `current`, when so many successful ones are kept.
    fn part(&self, current: u64, kept: usize) -> (Vec<&Release>, Vec<&Release>) {
        let earlier = self.releases.iter().rev().filter(|release| release.number < current);
        let succeeded: Vec<u64> = earlier
            .filter(|release| release.status == Status::Succeeded)
            .map(|release| release.number)
            .collect();
        self.releases.iter().filter(|release| release.number != current).partition(|release| {
            // Another execution may be at work on one with a higher number (a colour keeps its latest release, too), and
            // on one in progress, as long as none after it had succeeded when this one began.
            release.number > current
                || succeeded.iter().take(kept).any(|number| *number == release.number)
                || (release.status == Status::InProgress
                    && succeeded.iter().all(|number| *number < release.number))
        })
    }

    /// The Secrets that hold the history, for deletion of a whole release.
    pub(crate) fn secrets(&self, session: &Session) -> Vec<super::Item> {
        self.releases.iter().map(|release| record(session, release)).collect()
    }
}

/// The Secret of a release.
fn record(session: &Session, release: &Release) -> super::Item {
    super::Item {
        reference: Reference {
            group: String::new(),
            kind: "Secret".to_owned(),
            namespace: Some(session.namespace.clone()),
            name: wire::name(&session.release, release.number),
        },
        uid: release.uid.clone(),
    }
}

fn labels_equal(a: &Value, b: &Value) -> bool {
    a.pointer("/metadata/labels") == b.pointer("/metadata/labels")
}

fn taken(session: &Session, number: u64) -> StepError {
    let text =
        format!("release {number} of {} is written by somebody else at the same time", session.release);
    StepError::new(Class::RemoteFailed { code: 409 }, "KUBE-027", text)
        .target(session.api.target.clone())
        .hint("another execution deploys the same release; let it end and run this one again, or use a resource constraint")
}

fn collection(session: &Session) -> String {
    format!("/api/v1/namespaces/{}/secrets", encode(&session.namespace))
}

/// Highest number in the older format: one Secret or ConfigMap of the release's name.
async fn older(session: &Session) -> Result<u64, Fault> {
    use base64::Engine as _;
    for plural in ["secrets", "configmaps"] {
        let path = format!(
            "/api/v1/namespaces/{}/{plural}/{}",
            encode(&session.namespace),
            encode(&session.release)
        );
        let Some(found) = session.api.find::<Value>(&path).await? else { continue };
        let Some(text) = found.pointer("/data/releaseHistory").and_then(Value::as_str) else { continue };
        let packed = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
        let text = match wire::gunzip(&packed) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            // Entries of long ago are not packed.
            Err(_) => text.to_owned(),
        };
        let numbers = text.lines().filter_map(|line| {
            line.trim()
                .trim_start_matches("- ")
                .strip_prefix("number:")?
                .trim()
                .trim_matches('"')
                .parse::<u64>()
                .ok()
        });
        return Ok(numbers.max().unwrap_or(0));
    }
    Ok(0)
}

#[cfg(test)]
impl History {
    /// The history with one more release.
    pub(crate) fn with(mut self, release: Release) -> History {
        self.releases.push(release);
        self.releases.sort_by_key(|release| release.number);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Ours;

    #[test]
    fn what_failed_and_what_is_old_goes_but_nothing_that_somebody_may_be_at_work_on() {
        let gone = |statuses: &str, current: u64, kept: usize| -> Vec<u64> {
            let history = statuses.chars().zip(1..).fold(History::default(), |history, (status, number)| {
                let mut release = Release::new(number, Vec::new(), Ours::default());
                release.status = match status {
                    's' => Status::Succeeded,
                    'f' => Status::Failed,
                    _ => Status::InProgress,
                };
                history.with(release)
            });
            let (stay, go) = history.part(current, kept);
            assert_eq!(stay.len() + go.len(), statuses.len() - usize::from(current <= statuses.len() as u64));
            go.iter().map(|release| release.number).collect()
        };
        assert_eq!(gone("sfs", 4, 5), [2]);
        assert_eq!(gone("ssss", 5, 2), [1, 2]);
        assert_eq!(gone("ssss", 4, 2), [1]);
        // It was in progress when this one began, so it may be still.
        assert_eq!(gone("p", 2, 5), Vec::<u64>::new());
        assert_eq!(gone("spf", 4, 5), [3]);
        // One that succeeded after it has overtaken it.
        assert_eq!(gone("sps", 4, 5), [2]);
        // A higher number is another execution's.
        assert_eq!(gone("sfpf", 2, 5), Vec::<u64>::new());
    }
}
