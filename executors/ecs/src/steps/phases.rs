//! The services `<name>__<n>` of a phased deployment: which is which, and how many tasks each is to have (facts A10). Pure but
//! for [`found`].

use super::size;
use crate::memory::Undo;
use crate::scaling::Scaling;
use crate::service::{self, Snapshot};
use crate::session::{Session, ecs};
use crate::steady;
use aws::document::text;
use executor_api::StepError;
use proto::task::{EcsSpec, ResizeStrategy, TaskCount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Tag that names the pipeline which made a service.
pub(crate) const PIPELINE: &str = "delegate:pipeline";

/// What a phased deployment has done so far, and what it found. A rollback needs nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Phased {
    /// Name of the new service.
    pub(crate) new: String,
    /// How many tasks it is to have in the end.
    pub(crate) new_count: u32,
    /// The service that ran before; `None`: there was none.
    pub(crate) old: Option<Old>,
    /// Which changes its size first.
    pub(crate) resize: ResizeStrategy,
    /// The autoscaling of the old service is suspended.
    pub(crate) suspended: bool,
    /// Names of scaling policies that the new service got, once it has its autoscaling.
    pub(crate) scaled: Option<Vec<String>>,
    /// What the steps did is not known: this record was made before them, and they left none.
    pub(crate) unrecorded: bool,
}

/// The service that ran before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Old {
    pub(crate) name: String,
    /// How many tasks it had.
    pub(crate) count: u32,
    pub(crate) snapshot: Snapshot,
    pub(crate) scaling: Scaling,
}

/// One of the services of a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbered {
    pub(crate) number: u32,
    pub(crate) live: Value,
}

impl Numbered {
    pub(crate) fn name(&self) -> &str {
        text(&self.live, &["serviceName"]).unwrap_or_default()
    }
}

/// What the names of all services of a name begin with.
pub(crate) fn prefix(name: &str) -> String {
    format!("{name}__")
}

/// `web__3`.
pub(crate) fn name_of(name: &str, number: u32) -> String {
    format!("{}{number}", prefix(name))
}

fn number(name: &str, service: &str) -> Option<u32> {
    let digits = service.strip_prefix(name)?.strip_prefix("__")?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Every service of a name that is not gone, by number.
///
/// **Errors**: those of the account.
pub(crate) async fn found(session: &Session, name: &str) -> Result<Vec<Numbered>, StepError> {
    let what = format!("look for the services {name}__1, {name}__2, …");
    let input = json!({"cluster": session.cluster, "maxResults": 100});
    let arns = session.pages(ecs("ListServices"), input, "serviceArns").await;
    let arns = arns.map_err(|fault| session.fault(fault, &what))?;
    let names = arns.iter().filter_map(Value::as_str).filter_map(|arn| arn.rsplit('/').next());
    let names: Vec<&str> = names.filter(|service| number(name, service).is_some()).collect();
    let services = session.services(&names).await.map_err(|fault| session.fault(fault, &what))?;
    let mut found: Vec<Numbered> = services
        .into_iter()
        .filter(|live| text(live, &["status"]) != Some("INACTIVE"))
        .filter_map(|live| Some(Numbered { number: number(name, text(&live, &["serviceName"])?)?, live }))
        .collect();
    found.sort_by_key(|service| service.number);
    Ok(found)
}

/// The one that serves: the newest that wants tasks.
pub(crate) fn current(found: &[Numbered]) -> Option<&Numbered> {
    found
        .iter()
        .rev()
        .find(|service| service::is_active(&service.live) && service::desired(&service.live) > 0)
}

/// Number of the next one.
pub(crate) fn next(found: &[Numbered]) -> u32 {
    found.last().map_or(1, |newest| newest.number.saturating_add(1))
}

/// What becomes of a service that does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It still has tasks: they go, the service stays until the next setup.
    Shrink,
    /// Kept for a rollback.
    Keep,
    /// Another pipeline made it.
    Foreign,
    Delete,
}

/// What becomes of the services that do not serve. `kept` of those without tasks stay, the newest first.
pub(crate) fn fates<'a>(
    found: &'a [Numbered],
    current: Option<u32>,
    kept: usize,
    pipeline: &str,
) -> Vec<(&'a Numbered, Fate)> {
    let mut left = kept;
    let mut fates = Vec::new();
    for service in found.iter().rev() {
        if Some(service.number) == current || !service::is_active(&service.live) {
            continue;
        }
        let owner = service::tag(&service.live, PIPELINE);
        let fate = if owner.is_some_and(|owner| owner != pipeline) {
            Fate::Foreign
        } else if service::desired(&service.live) > 0 || service::running(&service.live) > 0 {
            left = left.saturating_sub(1);
            Fate::Shrink
        } else if left > 0 {
            left -= 1;
            Fate::Keep
        } else {
            Fate::Delete
        };
        fates.push((service, fate));
    }
    fates
}

/// Sizes of the new and the old service after an upgrade (facts A10).
pub(crate) fn sizes(phased: &Phased, new: TaskCount, old: Option<TaskCount>) -> (u32, Option<u32>) {
    let new_size = of(new, phased.new_count);
    let old_size = phased.old.as_ref().map(|before| match (old, new) {
        (Some(stays), _) => of(stays, before.count),
        (None, TaskCount::Percentage(percent)) => {
            size::share(TaskCount::Percentage(100_u32.saturating_sub(percent)), before.count)
        }
        (None, TaskCount::Count(count)) => before.count.saturating_sub(count),
    });
    (new_size, old_size)
}

fn of(count: TaskCount, all: u32) -> u32 {
    size::share(count, all).min(all)
}

/// What the steps of this stage have done, by what the newest of them left behind.
///
/// **Errors**: `ECS-004`.
pub(crate) fn earlier(spec: &EcsSpec) -> Result<Option<Phased>, StepError> {
    let kinds = ["EcsServiceSetup", "EcsUpgradeContainer"];
    for earlier in spec.earlier.undo.iter().rev().filter(|earlier| kinds.contains(&earlier.kind.as_str())) {
        if let Undo::Phased { phased } = Undo::read(&earlier.data)? {
            return Ok(Some(*phased));
        }
    }
    Ok(None)
}

/// A service in an outcome.
pub(crate) fn shown(name: &str, count: u32) -> Value {
    json!({"serviceName": name, "desiredCount": count})
}

/// The same with the tasks that run.
pub(crate) async fn shown_running(session: &Session, name: &str, count: u32) -> Result<Value, StepError> {
    let instances = steady::instances(session, name).await?;
    Ok(json!({"serviceName": name, "desiredCount": count, "instances": instances}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(number: u32, status: &str, desired: u32, pipeline: Option<&str>) -> Numbered {
        let tags: Vec<Value> =
            pipeline.iter().map(|pipeline| json!({"key": PIPELINE, "value": pipeline})).collect();
        let live = json!({"serviceName": name_of("web", number), "status": status, "desiredCount": desired,
            "runningCount": desired, "tags": tags});
        Numbered { number, live }
    }

    #[test]
    fn services_of_the_name_are_told_from_others() {
        for (service, is) in [
            ("web__1", Some(1)),
            ("web__12", Some(12)),
            ("web__", None),
            ("web__1a", None),
            ("web_1", None),
            ("web2__1", None),
            ("web__99999999999", None),
        ] {
            assert_eq!(number("web", service), is, "{service}");
        }
    }

    #[test]
    fn the_newest_that_wants_tasks_serves_and_the_next_has_a_number_of_its_own() {
        let found =
            [service(1, "ACTIVE", 2, None), service(2, "ACTIVE", 3, None), service(7, "ACTIVE", 0, None)];
        assert_eq!(current(&found).unwrap().number, 2);
        assert_eq!((next(&found), next(&[])), (8, 1));
        assert!(current(&[service(1, "DRAINING", 2, None)]).is_none());
    }

    #[test]
    fn what_does_not_serve_shrinks_stays_or_goes_and_never_what_another_pipeline_made() {
        let found = [
            service(1, "ACTIVE", 0, Some("p")),
            service(2, "ACTIVE", 0, Some("other")),
            service(3, "ACTIVE", 0, None),
            service(4, "ACTIVE", 0, Some("p")),
            service(5, "ACTIVE", 2, Some("p")),
            service(6, "DRAINING", 0, Some("p")),
        ];
        let fates = |current, kept| -> Vec<(u32, Fate)> {
            super::fates(&found, current, kept, "p").into_iter().map(|(s, fate)| (s.number, fate)).collect()
        };
        let (k, d, f) = (Fate::Keep, Fate::Delete, Fate::Foreign);
        assert_eq!(fates(Some(5), 1), [(4, k), (3, d), (2, f), (1, d)]);
        assert_eq!(fates(Some(5), 0), [(4, d), (3, d), (2, f), (1, d)]);
        assert_eq!(fates(None, 2), [(5, Fate::Shrink), (4, k), (3, d), (2, f), (1, d)]);
    }

    #[test]
    fn sizes_are_shares_of_what_each_has_in_the_end() {
        let phased = |new_count, old: Option<u32>| Phased {
            new_count,
            old: old.map(|count| Old { count, ..Old::default() }),
            ..Phased::default()
        };
        let (count, percent) = (TaskCount::Count, TaskCount::Percentage);
        for (new_count, old_count, new, old, is) in [
            (4, Some(4), percent(50), None, (2, Some(2))),
            (4, Some(4), percent(100), None, (4, Some(0))),
            (3, Some(5), percent(50), None, (2, Some(3))),
            (4, Some(4), count(1), None, (1, Some(3))),
            (4, Some(2), count(9), None, (4, Some(0))),
            (4, Some(4), percent(50), Some(percent(25)), (2, Some(1))),
            (4, Some(4), count(4), Some(count(9)), (4, Some(4))),
            (4, None, percent(50), None, (2, None)),
        ] {
            assert_eq!(sizes(&phased(new_count, old_count), new, old), is, "{new:?} {old:?}");
        }
    }
}
