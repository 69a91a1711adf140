//! Brings a service back to what a snapshot says: changed back, or made again when it is gone.

use super::input::{Call, create_input, restore_input, tags_to_remove, tags_to_set};
use super::snapshot::{Snapshot, is_active};
use super::{revision, set_tags};
use crate::changes::Change;
use crate::documents::arn::short;
use crate::memory::Memory;
use crate::session::{Session, ecs};
use crate::steady::{self, Target};
use aws::Repeat;
use aws::document::{list, text};
use executor_api::{Level, StepError, UnitLog};
use serde_json::Value;

/// What a restore came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Restored {
    /// What to wait for.
    pub(crate) target: Target,
    /// Whether anything had to be changed.
    pub(crate) changed: bool,
    /// Whether ECS starts a deployment for it.
    pub(crate) rolls: bool,
}

/// Brings the service back. `task_definition` is the revision to run: the snapshot's, unless it had to be registered
/// again. `count` is sent when a count is to be sent; `tagged` are the keys of tags that the deployment set.
///
/// **Errors**: those of the account; `ECS-002`; those of [`steady::wait_inactive`] for a name that is still taken.
/// **Repeat**: safe: what is back already is not sent again.
pub(crate) async fn restore<M: Memory>(
    session: &Session,
    snapshot: &Snapshot,
    task_definition: &str,
    count: Option<u32>,
    tagged: &[String],
    memory: &M,
    log: &dyn UnitLog,
) -> Result<Restored, StepError> {
    let name = snapshot.name.as_str();
    let mut live = session.service(name).await?;
    if live.as_ref().is_some_and(|live| text(live, &["status"]) == Some("DRAINING")) {
        steady::wait_inactive(session, name, log).await?;
        live = None;
    }
    let call = Call { cluster: &session.cluster, service: name, task_definition, count, force: false };
    let Some(live) = live.filter(is_active) else {
        let text = format!(
            "service {name} is gone: it is made again from the snapshot, with {}",
            short(task_definition)
        );
        session.say(log, Level::Warn, &text).await?;
        let count = count.or(Some(snapshot.desired)).filter(|_| !is_daemon(&snapshot.document));
        let token = session.token(&format!("restore {name}"), 32);
        let input = create_input(&snapshot.document, Call { count, ..call }, &token, &[]);
        let step = format!("CreateService {name}");
        session.announce(format!("make service {name} again"), &[&step], memory).await?;
        let answer = session.change(&step, ecs("CreateService"), input, Repeat::Safe).await;
        let answer = answer.map_err(|fault| session.fault(fault, &step))?;
        return Ok(Restored { target: steady::target_of(&answer), changed: true, rolls: true });
    };
    let revision = revision(session, &live).await?;
    let update = restore_input(snapshot, &live, revision.as_ref(), call);
    for warning in &update.warnings {
        session.say(log, Level::Warn, warning).await?;
    }
    let set = tags_to_set(&live, &without_ours(list(&snapshot.document, &["tags"])));
    let remove = tags_to_remove(snapshot, &live, tagged);
    set_tags(session, &live, &set, &remove, memory, log).await?;
    if update.is_nothing() {
        session.say(log, Level::Info, &format!("service {name} is as it was; nothing is changed")).await?;
        return Ok(Restored { target: steady::target_of(&live), changed: false, rolls: false });
    }
    for change in &update.changes {
        session.say(log, Level::Info, &format!("  {change}")).await?;
    }
    let step = format!("UpdateService {name}");
    session
        .announce(format!("bring service {name} back to {}", short(task_definition)), &[&step], memory)
        .await?;
    let rolls = update.rolls;
    let answer = session.change(&step, ecs("UpdateService"), update.input, Repeat::Safe).await;
    let answer = answer.map_err(|fault| session.fault(fault, &step))?;
    Ok(Restored { target: steady::target_of(&answer), changed: true, rolls })
}

/// What [`restore`] would change of a service that is there.
pub(crate) fn way_back(
    session: &Session,
    snapshot: &Snapshot,
    live: &Value,
    revision: Option<&Value>,
    task_definition: &str,
    count: Option<u32>,
) -> Vec<Change> {
    let call =
        Call { cluster: &session.cluster, service: &snapshot.name, task_definition, count, force: false };
    restore_input(snapshot, live, revision, call).changes
}

fn is_daemon(document: &Value) -> bool {
    text(document, &["schedulingStrategy"]) == Some("DAEMON")
}

/// The marks of whoever made a service stay those of now.
fn without_ours(tags: &[Value]) -> Vec<Value> {
    let foreign = |tag: &&Value| text(tag, &["key"]).is_some_and(|key| !key.starts_with("delegate:"));
    tags.iter().filter(foreign).cloned().collect()
}
