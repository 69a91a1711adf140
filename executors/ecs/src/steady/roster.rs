//! Tasks of many services at once: what waits need at their end, asked for together.
//!
//! Waits that end within a moment share a round: its first member asks for all. Where many services are asked about and the
//! cluster is not much larger than they are, its tasks are listed without regard to services.

use super::instances::{TASKS, arns, described};
use crate::session::{Session, ecs};
use aws::Fault;
use aws::document::text;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A round is open so long.
const OPEN: Duration = Duration::from_millis(500);
/// Where fewer services than this are waited for, each asks for itself.
pub(super) const FEW: usize = 4;

/// Tasks by service; `None`: they could not be had together.
pub(crate) type Found = Option<Arc<HashMap<String, Vec<Value>>>>;
/// Account and cluster.
type Key = (String, String);

#[derive(Default)]
struct Round {
    services: Vec<String>,
    /// Set once, by the one that asks.
    found: Option<watch::Receiver<Option<Found>>>,
}

/// The open round of each cluster.
#[derive(Clone, Default)]
pub(crate) struct Rounds(Arc<Mutex<HashMap<Key, Round>>>);

/// How a member gets its answer.
pub(crate) enum Part {
    /// It asks for all.
    Ask(watch::Sender<Option<Found>>),
    Wait(watch::Receiver<Option<Found>>),
}

impl Rounds {
    /// Takes part in the open round of `key`; `service` is what its answer is about.
    pub(crate) fn join(&self, key: &Key, service: &str) -> Part {
        let mut rounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let round = rounds.entry(key.clone()).or_default();
        round.services.push(service.to_owned());
        // A round whose asker has gone is taken over by whoever comes next.
        match round.found.clone().filter(|found| found.has_changed().is_ok()) {
            Some(found) => Part::Wait(found),
            None => {
                let (sender, found) = watch::channel(None);
                round.found = Some(found);
                Part::Ask(sender)
            }
        }
    }

    /// Ends the round, and says what it is about.
    pub(crate) fn close(&self, key: &Key) -> Vec<String> {
        let mut rounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut services = rounds.remove(key).unwrap_or_default().services;
        services.sort_unstable();
        services.dedup();
        services
    }
}

/// Tasks of a service that are to run; nothing in it is older than the call.
///
/// **Errors**: those of the account. **Cancel**, **Repeat**: safe.
pub(super) async fn running(session: &Session, service: &str) -> Result<Vec<Value>, Fault> {
    if session.waits() >= FEW
        && let Some(tasks) = together(session, service).await
    {
        return Ok(tasks);
    }
    let arns = arns(session, service, "RUNNING").await?;
    described(session, &arns).await
}

async fn together(session: &Session, service: &str) -> Option<Vec<Value>> {
    let (rounds, key) = (session.pollers.rounds(), session.poll_key());
    let found = match rounds.join(&key, service) {
        Part::Ask(sender) => {
            session.cx.clock.sleep(OPEN).await;
            let services = rounds.close(&key);
            let found = of_all(session, &services).await.ok().map(Arc::new);
            sender.send_replace(Some(found.clone()));
            found
        }
        Part::Wait(mut found) => {
            let told = found.wait_for(Option::is_some).await.ok()?;
            told.clone().flatten()
        }
    };
    found.map(|found| found.get(service).cloned().unwrap_or_default())
}

async fn of_all(session: &Session, services: &[String]) -> Result<HashMap<String, Vec<Value>>, Fault> {
    let mut all = Vec::new();
    if whole_is_cheaper(services.len(), session.tasks) {
        let input = json!({"cluster": session.cluster, "desiredStatus": "RUNNING", "maxResults": TASKS});
        let found = session.pages(ecs("ListTasks"), input, "taskArns").await?;
        all.extend(found.iter().filter_map(Value::as_str).map(str::to_owned));
    } else {
        for service in services {
            all.extend(arns(session, service, "RUNNING").await?);
        }
    }
    let mut by_service: HashMap<String, Vec<Value>> = HashMap::new();
    for task in described(session, &all).await? {
        let group =
            text(&task, &["group"]).and_then(|group| group.strip_prefix("service:")).map(str::to_owned);
        if let Some(group) = group.filter(|group| services.contains(group)) {
            by_service.entry(group).or_default().push(task);
        }
    }
    Ok(by_service)
}

/// Whether listing and describing all tasks of a cluster takes fewer calls than a list for each service. The count is from the
/// beginning of a step, and rollouts double the tasks of their services for a while.
fn whole_is_cheaper(services: usize, tasks: usize) -> bool {
    let pages = tasks.saturating_mul(2).div_ceil(TASKS).max(1);
    pages.saturating_mul(2) < services
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        ("a".into(), "c".into())
    }

    #[tokio::test]
    async fn one_asks_for_all_that_came_while_the_round_was_open() {
        let rounds = Rounds::default();
        let Part::Ask(sender) = rounds.join(&key(), "one") else { panic!("the first asks") };
        let Part::Wait(mut found) = rounds.join(&key(), "two") else { panic!("the second waits") };
        let other = ("b".to_owned(), "c".to_owned());
        assert!(matches!(rounds.join(&other, "one"), Part::Ask(_)));
        assert!(matches!(rounds.join(&key(), "one"), Part::Wait(_)));
        assert_eq!(rounds.close(&key()), ["one", "two"]);
        // Whoever comes now is not shown what was asked before.
        assert!(matches!(rounds.join(&key(), "late"), Part::Ask(_)));
        sender.send_replace(Some(Some(Arc::default())));
        assert!(found.wait_for(Option::is_some).await.is_ok());
    }

    #[tokio::test]
    async fn a_round_whose_asker_was_cancelled_goes_on_with_the_next() {
        let rounds = Rounds::default();
        let Part::Ask(sender) = rounds.join(&key(), "one") else { panic!("the first asks") };
        let Part::Wait(mut found) = rounds.join(&key(), "two") else { panic!("the second waits") };
        drop(sender);
        // It asks for itself then.
        assert!(found.wait_for(Option::is_some).await.is_err());
        assert!(matches!(rounds.join(&key(), "three"), Part::Ask(_)));
    }

    #[test]
    fn a_large_cluster_is_not_listed_for_a_few_services() {
        for (services, tasks, is) in [
            (50, 100, true),
            (50, 1000, true),
            (50, 5000, false),
            (4, 10, true),
            (4, 200, false),
            (50, usize::MAX, false),
        ] {
            assert_eq!(whole_is_cheaper(services, tasks), is, "{services} of {tasks}");
        }
    }
}
