//! What can be known to go wrong before the first change: permissions, quotas, images, room.
//!
//! Everything that is found is told at once. What cannot be looked at (no right to ask, an endpoint that does not know the
//! question) is said in the log and does not stop the step: AWS decides in the end.

pub(crate) mod images;
mod permissions;
mod quotas;
mod room;

pub(crate) use room::Surge;

use crate::error::bad_spec;
use crate::session::{Session, ecs};
use aws::Fault;
use executor_api::{Level, StepError, UnitLog};
use room::{Demand, Instance, Room};
use serde_json::{Value, json};

/// Most container instances that one call describes.
const INSTANCES: usize = 100;

/// What is about to be done.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// Name of the service.
    pub(crate) service: &'a str,
    /// The task definition, as registered or to be registered.
    pub(crate) definition: &'a Value,
    /// Tasks in the end.
    pub(crate) desired: u64,
    /// Tasks at once on the way.
    pub(crate) surge: Surge,
    /// `launchType` of the service; EC2 is AWS' default.
    pub(crate) launch_type: Option<&'a str>,
    /// A capacity provider brings the room.
    pub(crate) provided: bool,
}

/// Looks at everything that can be known beforehand.
///
/// **Errors**: `ECS-090`: permissions are missing; `ECS-091`: more tasks than the quota; `ECS-093`: an image is not there or
/// not for the platform; `ECS-092`: no room; several of them together under the first one's code. **Cancel**, **Repeat**: safe; it only reads.
pub(crate) async fn check(
    session: &Session,
    wanted: &Wanted<'_>,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let mut faults: Vec<StepError> = Vec::new();
    if let Err(error) = permissions::check(session, log).await? {
        faults.push(error);
    }
    if let Err(error) = quotas::check(session, wanted, log).await? {
        faults.push(error);
    }
    if let Err(error) = images::check(session, wanted, log).await? {
        faults.push(error);
    }
    if needs_room(wanted) {
        match room_of(session, wanted).await {
            Ok(Room::Enough) => {}
            Ok(Room::Tight(text)) => {
                session
                    .say(log, Level::Warn, &format!("the rollout goes on in smaller steps: {text}"))
                    .await?;
            }
            Ok(Room::None(text)) => faults.push(
                bad_spec(
                    "ECS-092",
                    format!("service {}: there is no room for the rollout: {text}", wanted.service),
                )
                .hint("add an instance, or lower minimumHealthyPercent so that an old task may stop first"),
            ),
            Err(fault) => not_looked(session, log, "the room on the instances", &fault).await?,
        }
    }
    one(faults)
}

/// Looks at the caller's permissions alone.
///
/// **Errors**: `ECS-090`. **Cancel**, **Repeat**: safe; it only reads.
pub(crate) async fn rights(session: &Session, log: &dyn UnitLog) -> Result<(), StepError> {
    permissions::check(session, log).await?
}

/// One error of several: the first one's class and code, the words of all.
fn one(mut faults: Vec<StepError>) -> Result<(), StepError> {
    if faults.is_empty() {
        return Ok(());
    }
    let mut first = faults.remove(0);
    for more in faults {
        first.what = format!("{}; {}: {}", first.what, more.code, more.what);
        first.hint = match (first.hint.take(), more.hint) {
            (Some(one), Some(other)) => Some(format!("{one}; {other}")),
            (one, other) => one.or(other),
        };
    }
    Err(first)
}

async fn not_looked(
    session: &Session,
    log: &dyn UnitLog,
    what: &str,
    fault: &Fault,
) -> Result<(), StepError> {
    if let Fault::Cancelled(reason) = fault {
        return Err(crate::error::cancelled(*reason, "this attempt changed nothing"));
    }
    session.say(log, Level::Info, &format!("{what} cannot be looked at beforehand: {fault}")).await
}

/// Fargate and capacity providers bring room with them.
fn needs_room(wanted: &Wanted<'_>) -> bool {
    !wanted.provided && wanted.launch_type.is_none_or(|kind| kind != "FARGATE") && wanted.desired > 0
}

async fn room_of(session: &Session, wanted: &Wanted<'_>) -> Result<Room, Fault> {
    let input = json!({"cluster": session.cluster, "status": "ACTIVE"});
    let arns = session.pages(ecs("ListContainerInstances"), input, "containerInstanceArns").await?;
    let mut instances = Vec::new();
    for arns in arns.chunks(INSTANCES) {
        let input = json!({"cluster": session.cluster, "containerInstances": arns});
        let answer = session.read(ecs("DescribeContainerInstances"), input).await?;
        instances
            .extend(aws::document::list(&answer, &["containerInstances"]).iter().filter_map(Instance::of));
    }
    // An emulator, or a cluster that only external schedulers know, lists none although tasks run.
    if arns.is_empty() && wanted.launch_type.is_none() {
        return Ok(Room::Enough);
    }
    Ok(room::room(&Demand::of(wanted.definition), wanted.surge, &instances))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_found_is_told_at_once() {
        assert!(one(vec![]).is_ok());
        let first = bad_spec("ECS-090", "no right").hint("grant it");
        let error = one(vec![first, bad_spec("ECS-092", "no room").hint("add one")]).unwrap_err();
        assert_eq!((error.code, error.what.as_str()), ("ECS-090", "no right; ECS-092: no room"));
        assert_eq!(error.hint.as_deref(), Some("grant it; add one"));
    }
}
