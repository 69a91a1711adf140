//! How a followed service deployment ends that does not end well, as the error of a step.

use super::follow::Followed;
use super::judge::Pause;
use super::looks::task_definitions;
use super::view::{Revision, View, percent};
use crate::documents::arn::short;
use crate::session::Session;
use crate::steady::{self, Target};
use aws::document::text;
use executor_api::{CancelReason, Class, Level, StepError, UnitLog};
use serde_json::Value;
use std::collections::HashMap;

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    RolledBack,
    RollbackFailed,
    Stopped,
    /// Another deployment, or a revision that is none of ours, is what the service has.
    Superseded {
        by: String,
    },
    /// The service is being deleted, or gone.
    Gone {
        status: String,
    },
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

/// Makes the error, after the evidence was told.
pub(super) async fn failed(
    session: &Session,
    followed: &Followed,
    view: &View,
    end: End,
    log: &dyn UnitLog,
) -> StepError {
    let (lines, last) = match end {
        End::Superseded { .. } | End::Gone { .. } => (Vec::new(), None),
        _ => {
            let target = Target {
                service: followed.service.clone(),
                task_definition: followed.task_definition.clone(),
                ..Target::default()
            };
            steady::evidence(session, &target).await
        }
    };
    if !lines.is_empty() {
        let _the_error_says_it_too = log.line(Level::Error, &lines.join("\n")).await;
    }
    let names = names(session, view).await;
    error(followed, view, &end, &names, last.as_deref()).target(session.target().to_owned())
}

/// Task definitions of the revisions of a deployment, as far as they can be had.
async fn names(session: &Session, view: &View) -> HashMap<String, String> {
    let mut arns: Vec<String> = view.sources.iter().map(|source| source.arn.clone()).collect();
    arns.push(view.target.arn.clone());
    arns.extend(view.rollback.iter().map(|(_, to)| to.clone()));
    arns.retain(|arn| !arn.is_empty());
    task_definitions(session, &arns).await.unwrap_or_default()
}

/// `web:2: 10 % of production requests, 2 of 2 tasks`.
fn serves(revision: &Revision, names: &HashMap<String, String>) -> String {
    let name = names.get(&revision.arn).map_or_else(|| short(&revision.arn), |name| short(name));
    let weight = revision
        .production
        .map_or_else(String::new, |weight| format!("{} of production requests, ", percent(weight)));
    format!("{name}: {weight}{} of {} tasks", revision.running, revision.requested)
}

fn error(
    followed: &Followed,
    view: &View,
    end: &End,
    names: &HashMap<String, String>,
    last: Option<&str>,
) -> StepError {
    let ours = short(&followed.task_definition);
    let deployment = format!("deployment {} of {ours}", short(&followed.arn));
    let before = followed.previous.as_deref().map(|arn| short(arn).to_owned());
    let to = view.rollback.as_ref().and_then(|(_, to)| names.get(to)).map(|name| short(name).to_owned());
    let to = to.or(before).unwrap_or_else(|| "what ran before".to_owned());
    let why = because(&view.why());
    let (code, mut what, hint) = match end {
        End::RolledBack => (
            "ECS-082",
            format!("{deployment} was rolled back by ECS to revision {to}{why}"),
            "the earlier revision serves again; mend what the reason and the log name, then deploy again",
        ),
        End::RollbackFailed => {
            let all: Vec<String> =
                view.sources.iter().chain([&view.target]).map(|one| serves(one, names)).collect();
            let what = format!(
                "{deployment} failed, and ECS' rollback to revision {to} failed too{why}; what serves now: {}",
                all.join("; ")
            );
            (
                "ECS-083",
                what,
                "the service needs a person: look at its events and target groups, bring a revision back that works",
            )
        }
        End::Stopped => (
            "ECS-084",
            format!("{deployment} was stopped by somebody{why}; it was not rolled back: {}", view.in_words()),
            "somebody called StopServiceDeployment (CloudTrail says who); look at what serves, and deploy again when that was a mistake",
        ),
        End::Superseded { by } => (
            "ECS-085",
            format!("{deployment} is over ({}), and {by} took over", view.word),
            "somebody else deployed to this service, and nothing is undone over that; let one pipeline at a time deploy it",
        ),
        End::Gone { status } => (
            "ECS-036",
            format!("the service is {status}, and {deployment} is over with it"),
            "find out who deletes the service, then deploy again",
        ),
    };
    if let Some(last) = last.filter(|last| !what.contains(*last)) {
        what.push_str(&format!("; tasks stopped: {last}"));
    }
    let what = format!("service {}: {what}", followed.service);
    StepError::new(Class::RemoteFailed { code: 1 }, code, what).hint(hint)
}

/// What of a service speaks against our deployment being what it runs; `None`: nothing does.
pub(super) fn taken_over(followed: &Followed, live: &Value) -> Option<String> {
    let current = text(live, &["currentServiceDeployment"]).filter(|current| !current.is_empty());
    if let Some(other) = current.filter(|current| *current != followed.arn) {
        return Some(format!("deployment {}", short(other)));
    }
    let revisions = aws::document::list(live, &["currentServiceRevisions"]);
    let arns: Vec<&str> = revisions.iter().filter_map(|revision| text(revision, &["arn"])).collect();
    if arns.is_empty() {
        let runs = text(live, &["taskDefinition"]).unwrap_or_default();
        return (runs != followed.task_definition).then(|| format!("revision {}", short(runs)));
    }
    (!arns.contains(&followed.revision.as_str())).then(|| {
        format!("service revision {}", arns.iter().map(|arn| short(arn)).collect::<Vec<_>>().join(", "))
    })
}

/// The error of a step that was ended on request: nothing is changed, and the hooks go on.
pub(super) fn cancelled(followed: &Followed, view: Option<&View>, reason: CancelReason) -> StepError {
    let stage = view.map_or_else(|| "its state was not read yet".to_owned(), View::in_words);
    let next = match view.and_then(Pause::of) {
        Some(pause) => format!("it waits at a gate; when nobody continues it, {}", pause.otherwise()),
        None => "it goes on in ECS by itself, to its next gate or to its end".to_owned(),
    };
    let what = format!(
        "service {}: stopped following deployment {} of {}, {}: {stage}; {next}",
        followed.service,
        short(&followed.arn),
        short(&followed.task_definition),
        reason.words()
    );
    let error = StepError::new(Class::Cancelled { reason }, "ECS-086", what);
    match reason {
        CancelReason::Deadline => {
            error.hint("bake times and hooks of functions count: raise the step's timeout")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn followed() -> Followed {
        Followed {
            service: "web".into(),
            arn: "arn:aws:ecs:r:1:service-deployment/c/web/dep2".into(),
            revision: "arn:aws:ecs:r:1:service-revision/c/web/2".into(),
            task_definition: "arn:aws:ecs:r:1:task-definition/web:2".into(),
            strategy: "LINEAR".into(),
            previous: Some("arn:aws:ecs:r:1:task-definition/web:1".into()),
            answered: None,
        }
    }

    fn view() -> View {
        View::read(
            &json!({"status": "ROLLBACK_FAILED", "statusReason": "no capacity.", "lifecycleStage": "BAKE_TIME",
            "targetServiceRevision": {"arn": "rev:2", "requestedTaskCount": 2, "runningTaskCount": 2, "requestedProductionTrafficWeight": 10},
            "sourceServiceRevisions": [{"arn": "rev:1", "requestedTaskCount": 2, "runningTaskCount": 0, "requestedProductionTrafficWeight": 90}],
            "rollback": {"reason": "no capacity", "serviceRevisionArn": "rev:1"}}),
        )
    }

    #[test]
    fn every_end_says_what_became_of_it() {
        let names = HashMap::from([
            ("rev:1".to_owned(), "x/web:1".to_owned()),
            ("rev:2".to_owned(), "x/web:2".to_owned()),
        ]);
        let said = |end: End| {
            let error = error(&followed(), &view(), &end, &names, Some("exit code 3"));
            format!("{} {}", error.code, error.what)
        };
        assert_eq!(
            said(End::RolledBack),
            "ECS-082 service web: deployment dep2 of web:2 was rolled back by ECS to revision web:1 (no capacity); tasks stopped: exit code 3"
        );
        assert_eq!(
            said(End::RollbackFailed),
            "ECS-083 service web: deployment dep2 of web:2 failed, and ECS' rollback to revision web:1 failed too (no capacity); what serves now: web:1: 90 % of production requests, 0 of 2 tasks; web:2: 10 % of production requests, 2 of 2 tasks; tasks stopped: exit code 3"
        );
        assert!(
            said(End::Stopped)
                .starts_with("ECS-084 service web: deployment dep2 of web:2 was stopped by somebody")
        );
        assert!(
            said(End::Superseded { by: "deployment dep3".into() }).contains("and deployment dep3 took over")
        );
    }

    #[test]
    fn a_service_tells_whether_ours_is_what_it_runs() {
        let ours = followed();
        let live = |deployment: &str, revisions: &[&str], definition: &str| {
            let revisions: Vec<Value> = revisions.iter().map(|arn| json!({"arn": arn})).collect();
            json!({"currentServiceDeployment": deployment, "currentServiceRevisions": revisions, "taskDefinition": definition})
        };
        assert_eq!(taken_over(&ours, &live(&ours.arn, &[&ours.revision], "x")), None);
        assert_eq!(taken_over(&ours, &live("", &["a/1", &ours.revision], "x")), None);
        assert_eq!(
            taken_over(&ours, &live("a/dep3", &[&ours.revision], "x")).as_deref(),
            Some("deployment dep3")
        );
        assert_eq!(taken_over(&ours, &live("", &["a/1"], "x")).as_deref(), Some("service revision 1"));
        assert_eq!(taken_over(&ours, &live("", &[], &ours.task_definition)), None);
        assert_eq!(taken_over(&ours, &live("", &[], "x/web:1")).as_deref(), Some("revision web:1"));
    }

    #[test]
    fn a_step_that_was_ended_at_a_gate_says_when_ecs_goes_back() {
        let waiting = View::read(
            &json!({"status": "IN_PROGRESS", "lifecycleStage": "PRE_PRODUCTION_TRAFFIC_SHIFT",
            "lifecycleHookDetails": [{"hookId": "h", "targetType": "PAUSE", "status": "AWAITING_ACTION", "expiresAt": 60, "timeoutAction": "ROLLBACK"}]}),
        );
        let error = cancelled(&followed(), Some(&waiting), CancelReason::User);
        assert!(
            error.what.ends_with(
                "when nobody continues it, ECS rolls it back by itself at 1970-01-01T00:01:00.000Z"
            ),
            "{}",
            error.what
        );
        assert!(cancelled(&followed(), None, CancelReason::Deadline).hint.is_some());
    }
}
