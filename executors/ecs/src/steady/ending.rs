//! How a wait ends that does not end well, as the error of a step.

use super::Target;
use super::judge::{Failure, Rollback};
use super::tasks::Cause;
use crate::documents::arn::short;
use executor_api::{CancelReason, Class, StepError};

/// The error of a rollout that failed; `left` says in what state the service is, `last` for what reason tasks stopped last.
pub(super) fn failed(target: &Target, failure: &Failure, left: &str, last: Option<&str>) -> StepError {
    let ours = short(&target.task_definition);
    let id = target.deployment.as_deref().unwrap_or("of the service");
    let deployment = format!("deployment {id} of {ours}");
    let (code, mut what, hint, exit) = match failure {
        Failure::RolledBack { to, reason, state } => {
            let to = if to.is_empty() { "what ran before" } else { short(to) };
            let (end, hint) = match state {
                Rollback::Done => (
                    format!("AWS rolled it back to {to}"),
                    "the earlier revision serves again; mend what the evidence in the log names, then deploy again",
                ),
                Rollback::Running => (
                    format!("AWS is still rolling it back to {to}"),
                    "wait until AWS' rollback is over; then mend what the evidence in the log names and deploy again",
                ),
                Rollback::Failed => (
                    format!("AWS' rollback to {to} failed too"),
                    "the service needs a person: look at its events, bring a revision back that works",
                ),
            };
            ("ECS-030", format!("{deployment} failed and {end}{}", because(reason)), hint, None)
        }
        Failure::Superseded { deployment: other, task_definition, ours_failed } => {
            let before = match ours_failed {
                Some(reason) => format!("ours had failed{}", because(reason)),
                None => "ours was complete".to_owned(),
            };
            let what = format!(
                "deployment {other} of {} took over before {before} ({deployment})",
                short(task_definition)
            );
            let what = if ours_failed.is_some() {
                what.replace("took over before", "took over after")
            } else {
                what
            };
            let hint = "somebody else deployed to this service, and nothing is undone over that; let one pipeline at a time deploy it";
            ("ECS-031", what, hint, None)
        }
        Failure::Broken { reason, rollback_expected } => {
            let end = match rollback_expected {
                true => "; it is set to roll back, but has not begun to",
                false => "; nothing was rolled back",
            };
            let hint = "mend what the evidence in the log names, then deploy again; with a circuit breaker that rolls back, AWS brings the earlier revision back by itself";
            ("ECS-032", format!("AWS gave {deployment} up{}{end}", because(reason)), hint, None)
        }
        Failure::Unrecoverable { cause, words, times, exit } => {
            let (code, hint) = match cause {
                Cause::Image => (
                    "ECS-033",
                    "check the image's name and tag, that it has the task's platform, and that the execution role may pull it",
                ),
                Cause::Resources => (
                    "ECS-034",
                    "check the secrets, parameters and log group that the task definition names, and what the execution role may read",
                ),
                Cause::Exit => (
                    "ECS-035",
                    "read the container's last lines in the log; check its command, environment and configuration",
                ),
            };
            let what =
                format!("{times} tasks of {deployment} stopped for one reason that does not pass: {words}");
            (code, what, hint, *exit)
        }
        Failure::NotActive { status } => {
            let what = match status.as_str() {
                "MISSING" => format!("the service is gone; {deployment} with it"),
                status => format!("the service is {status}: somebody deletes it, and {deployment} with it"),
            };
            ("ECS-036", what, "find out who deletes the service, then deploy again", None)
        }
        Failure::Stopped { status, reason } => {
            let hint = "somebody ended the service deployment (StopServiceDeployment); deploy again when that was a mistake";
            (
                "ECS-038",
                format!("{deployment} was ended by somebody: {status}{}", because(reason)),
                hint,
                None,
            )
        }
    };
    if let Some(last) = last.filter(|last| !what.contains(*last)) {
        what.push_str(&format!("; tasks stopped: {last}"));
    }
    if !left.is_empty() {
        what.push_str(&format!("; the service is left as it is: {left}"));
    }
    // An exit code of 0 is a failure too where tasks are to stay.
    let code_of_task = exit.filter(|exit| *exit != 0).unwrap_or(1);
    StepError::new(
        Class::RemoteFailed { code: code_of_task },
        code,
        format!("service {}: {what}", target.service),
    )
    .hint(hint)
}

fn because(reason: &str) -> String {
    match reason.trim().trim_end_matches('.') {
        "" => String::new(),
        reason => format!(" ({reason})"),
    }
}

/// The error of a wait that was ended on request: `stage` says how far it had come, `left` in what state the service is.
pub(super) fn cancelled(service: &str, reason: CancelReason, stage: &str, left: &str) -> StepError {
    let mut what = format!("service {service}: stopped waiting, {}", reason.words());
    if !stage.is_empty() {
        what.push_str(&format!(": {stage}"));
    }
    if !left.is_empty() {
        what.push_str(&format!("; the service is left as it is: {left}"));
    }
    let error = StepError::new(Class::Cancelled { reason }, "ECS-037", what);
    match reason {
        CancelReason::Deadline => {
            error.hint("if it only needs longer, raise the step's timeout; else see the last reason above")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            service: "web".into(),
            deployment: Some("ecs-svc/2".into()),
            task_definition: "arn:aws:ecs:eu-west-1:1:task-definition/web:2".into(),
            ..Target::default()
        }
    }

    fn said(failure: &Failure) -> String {
        let error = failed(&target(), failure, "web:1 with 2 of 2 tasks running", None);
        format!("{} {}", error.code, error.what)
    }

    #[test]
    fn every_end_is_told_apart() {
        let to = || "x/web:1".to_owned();
        let rolled = |state| Failure::RolledBack { to: to(), reason: "tasks failed to start.".into(), state };
        let other = |ours_failed| Failure::Superseded {
            deployment: "ecs-svc/3".into(),
            task_definition: "x/web:3".into(),
            ours_failed,
        };
        let table = [
            (
                rolled(Rollback::Done),
                "ECS-030 service web: deployment ecs-svc/2 of web:2 failed and AWS rolled it back to web:1 (tasks failed to start)",
            ),
            (
                rolled(Rollback::Running),
                "ECS-030 service web: deployment ecs-svc/2 of web:2 failed and AWS is still rolling it back to web:1 (tasks failed to start)",
            ),
            (
                rolled(Rollback::Failed),
                "ECS-030 service web: deployment ecs-svc/2 of web:2 failed and AWS' rollback to web:1 failed too (tasks failed to start)",
            ),
            (
                other(None),
                "ECS-031 service web: deployment ecs-svc/3 of web:3 took over before ours was complete (deployment ecs-svc/2 of web:2)",
            ),
            (
                other(Some("x".into())),
                "ECS-031 service web: deployment ecs-svc/3 of web:3 took over after ours had failed (x) (deployment ecs-svc/2 of web:2)",
            ),
            (
                Failure::Broken { reason: "x".into(), rollback_expected: false },
                "ECS-032 service web: AWS gave deployment ecs-svc/2 of web:2 up (x); nothing was rolled back",
            ),
            (
                Failure::NotActive { status: "DRAINING".into() },
                "ECS-036 service web: the service is DRAINING: somebody deletes it, and deployment ecs-svc/2 of web:2 with it",
            ),
        ];
        for (failure, text) in table {
            assert_eq!(
                said(&failure),
                format!("{text}; the service is left as it is: web:1 with 2 of 2 tasks running")
            );
        }
    }

    #[test]
    fn the_exit_code_of_tasks_is_that_of_the_step() {
        let failure = |exit| Failure::Unrecoverable {
            cause: Cause::Exit,
            words: "container app ended with exit code 3".into(),
            times: 3,
            exit,
        };
        let class =
            |exit| failed(&target(), &failure(exit), "", Some("container app ended with exit code 3")).class;
        assert_eq!(class(Some(3)), Class::RemoteFailed { code: 3 });
        assert_eq!(class(Some(0)), Class::RemoteFailed { code: 1 });
        assert!(!said(&failure(Some(3))).contains("tasks stopped:"));
    }

    #[test]
    fn a_timeout_names_the_stage() {
        let error = cancelled(
            "web",
            CancelReason::Deadline,
            "3 of 4 tasks of web:2 run, 1 pending",
            "web:2 with 3 of 4 tasks running",
        );
        assert_eq!(error.code, "ECS-037");
        assert!(error.what.contains("3 of 4 tasks of web:2 run, 1 pending"), "{}", error.what);
        assert!(error.hint.is_some());
        assert!(cancelled("web", CancelReason::User, "", "").hint.is_none());
    }
}
