//! Services: what a document makes of one, and how one is brought back (facts A3).
//!
//! Everything but this module is pure.

pub(crate) mod check;
mod compare;
pub(crate) mod count;
mod input;
mod restore;
mod snapshot;

pub(crate) use compare::covers;
pub(crate) use count::count;
pub(crate) use input::{Call, Update, create_input, tags_to_set, update_input};
pub(crate) use restore::{restore, way_back};
pub(crate) use snapshot::{Snapshot, described, desired, is_active, primary, running, written_count};

use crate::memory::Memory;
use crate::session::{Session, ecs};
use aws::document::{list, text};
use aws::{Fault, Repeat};
use executor_api::{Level, StepError, UnitLog};
use proto::task::EcsSpec;
use serde_json::{Value, json};

/// Tag of services that a step made: the execution.
pub(crate) const EXECUTION: &str = "delegate:execution";
/// Tag of services that a step made: the step.
pub(crate) const STEP: &str = "delegate:step";

/// The revision of the service that runs, with what DescribeServices does not tell; `None` where ECS has none to show.
///
/// **Errors**: those of the account. **Cancel**, **Repeat**: safe.
pub(crate) async fn revision(session: &Session, live: &Value) -> Result<Option<Value>, StepError> {
    let Some(arn) = snapshot::revision_arn(live) else { return Ok(None) };
    let answer = session.read(ecs("DescribeServiceRevisions"), json!({"serviceRevisionArns": [arn]})).await;
    match answer {
        Ok(mut answer) => {
            Ok(answer.pointer_mut("/serviceRevisions/0").map(Value::take).filter(|found| !found.is_null()))
        }
        // An endpoint that is not AWS may not know the question.
        Err(fault) if is_unknown(&fault) => Ok(None),
        Err(fault) => Err(session.fault(fault, "look at the revision of the service")),
    }
}

fn is_unknown(fault: &Fault) -> bool {
    fault.is("UnknownOperationException")
        || fault.is("InvalidAction")
        || matches!(fault, Fault::Refused { status: 404 | 501, .. })
}

/// What is needed to bring back an active service.
///
/// **Errors**, **Cancel**, **Repeat**: as [`revision`].
pub(crate) async fn snapshot(
    session: &Session,
    live: &Value,
    log: &dyn UnitLog,
) -> Result<Snapshot, StepError> {
    let revision = revision(session, live).await?;
    let snapshot = Snapshot::of(live, revision.as_ref(), session.cx.clock.wall());
    let running = primary(live).and_then(|primary| text(primary, &["rolloutState"]));
    if let Some(state) = running.filter(|state| *state != "COMPLETED") {
        let text = format!(
            "ecs.service.unsettled: the deployment of {} that runs now is {state}; a rollback brings back what it was to become",
            crate::documents::arn::short(&snapshot.task_definition)
        );
        session.say(log, Level::Warn, &text).await?;
        session.tell(text);
    }
    Ok(snapshot)
}

/// Tags that mark a service as made by this step, with the namespace of the infrastructure (settled facts §3.4).
pub(crate) fn own_tags(session: &Session, spec: &EcsSpec) -> Vec<(String, String)> {
    let execution = &session.cx.task.execution;
    let mut tags = Vec::new();
    for (name, value) in [(EXECUTION, &execution.execution_id), (STEP, &execution.node)] {
        if !value.is_empty() {
            tags.push((name.to_owned(), tag_value(value)));
        }
    }
    tags.extend(namespace_tag(spec));
    tags
}

/// The namespace of the infrastructure as a tag.
pub(crate) fn namespace_tag(spec: &EcsSpec) -> Option<(String, String)> {
    let namespace = spec.namespace.as_deref().map(str::trim).filter(|namespace| !namespace.is_empty())?;
    Some(("namespace".to_owned(), tag_value(namespace)))
}

/// A value that tags may have: 256 letters, digits, spaces and `_.:/=+-@`.
fn tag_value(text: &str) -> String {
    let fits =
        |c: char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '.' | ':' | '/' | '=' | '+' | '-' | '@');
    text.chars().take(256).map(|c| if fits(c) { c } else { '_' }).collect()
}

/// The value of a tag of a service.
pub(crate) fn tag<'a>(live: &'a Value, name: &str) -> Option<&'a str> {
    let tag = list(live, &["tags"]).iter().find(|tag| text(tag, &["key"]) == Some(name))?;
    text(tag, &["value"])
}

/// Whether this node of this execution made the service.
pub(crate) fn is_ours(session: &Session, live: &Value) -> bool {
    let execution = &session.cx.task.execution;
    let is = |name: &str, value: &str| tag(live, name) == Some(tag_value(value).as_str());
    !execution.execution_id.is_empty() && is(EXECUTION, &execution.execution_id) && is(STEP, &execution.node)
}

/// Whether this execution made the service, or the one that it rolls back.
pub(crate) fn is_of_execution(session: &Session, live: &Value) -> bool {
    let mut covered = session.cx.task.execution.covered();
    tag(live, EXECUTION).is_some_and(|value| covered.any(|id| tag_value(id) == value))
}

/// Sets tags on a service, and removes some.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn set_tags<M: Memory>(
    session: &Session,
    live: &Value,
    set: &[Value],
    remove: &[String],
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let (name, arn) =
        (text(live, &["serviceName"]).unwrap_or_default(), text(live, &["serviceArn"]).unwrap_or_default());
    let (tag, untag) = (format!("TagResource {name}"), format!("UntagResource {name}"));
    let mut calls: Vec<&str> = Vec::new();
    if !set.is_empty() {
        calls.push(&tag);
    }
    if !remove.is_empty() {
        calls.push(&untag);
    }
    if calls.is_empty() {
        return Ok(());
    }
    session.announce(format!("set tags of service {name}"), &calls, memory).await?;
    if !set.is_empty() {
        let keys: Vec<&str> = set.iter().filter_map(|tag| text(tag, &["key"])).collect();
        session.say(log, Level::Info, &format!("tags are set: {}", keys.join(", "))).await?;
        let input = json!({"resourceArn": arn, "tags": set});
        let answer = session.change(&tag, ecs("TagResource"), input, Repeat::Safe).await;
        answer.map_err(|fault| session.fault(fault, &tag))?;
    }
    if !remove.is_empty() {
        session.say(log, Level::Info, &format!("tags are removed: {}", remove.join(", "))).await?;
        let input = json!({"resourceArn": arn, "tagKeys": remove});
        let answer = session.change(&untag, ecs("UntagResource"), input, Repeat::Safe).await;
        answer.map_err(|fault| session.fault(fault, &untag))?;
    }
    Ok(())
}

/// Deletes a service with its tasks. One that is gone already is deleted.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn delete<M: Memory>(session: &Session, name: &str, memory: &M) -> Result<(), StepError> {
    let call = format!("DeleteService {name}");
    session.announce(format!("delete service {name}"), &[&call], memory).await?;
    let input = json!({"cluster": session.cluster, "service": name, "force": true});
    match session.change(&call, ecs("DeleteService"), input, Repeat::Safe).await {
        Ok(_) => Ok(()),
        Err(fault) if fault.is("ServiceNotFoundException") || fault.is("ServiceNotActiveException") => Ok(()),
        Err(fault) => Err(session.fault(fault, &call)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_tags_are_such_that_aws_takes_them() {
        assert_eq!(tag_value("pipeline.stages.a[0]/b"), "pipeline.stages.a_0_/b");
        assert_eq!(tag_value(&"é".repeat(300)).chars().count(), 256);
        let live = json!({"tags": [{"key": "a", "value": "b"}, {"key": "c"}]});
        assert_eq!((tag(&live, "a"), tag(&live, "c"), tag(&live, "d")), (Some("b"), None, None));
    }
}
