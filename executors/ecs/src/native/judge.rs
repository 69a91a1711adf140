//! What a service deployment has come to, for a step that follows it: a function of one view and of what was answered.

use super::view::{Status, View};
use serde::{Deserialize, Serialize};

/// A gate: ECS waits until somebody says how to go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Pause {
    /// Ids of the hooks that wait.
    pub(crate) hooks: Vec<String>,
    /// The stage before which it waits.
    pub(crate) stage: String,
    /// Percent of the production requests that the new revision has.
    pub(crate) weight: f64,
    /// Percent of the test requests.
    pub(crate) test_weight: f64,
    /// When the first of them times out, epoch milliseconds by AWS' clock.
    pub(crate) expires: Option<i64>,
    /// What ECS does then: `ROLLBACK` or `CONTINUE`.
    pub(crate) timeout_action: String,
}

impl Pause {
    /// The gate at which a deployment waits, if it does.
    pub(crate) fn of(view: &View) -> Option<Pause> {
        if !view.status.goes_on() {
            return None;
        }
        let waiting: Vec<_> = view.hooks.iter().filter(|hook| hook.waits()).collect();
        let first = waiting.iter().min_by_key(|hook| hook.expires.unwrap_or(i64::MAX))?;
        Some(Pause {
            hooks: waiting.iter().map(|hook| hook.id.clone()).collect(),
            stage: view.stage.clone(),
            weight: view.weight(),
            test_weight: view.target.test.unwrap_or(0.0),
            expires: first.expires,
            timeout_action: first.timeout_action.clone(),
        })
    }

    /// Whether both are the same wait. Where hooks are called several times, stage and weight tell the calls apart.
    pub(crate) fn is(&self, other: &Pause) -> bool {
        self.hooks.iter().any(|hook| other.hooks.contains(hook))
            && self.stage == other.stage
            && (self.weight - other.weight).abs() < f64::EPSILON
    }

    /// `PRE_PRODUCTION_TRAFFIC_SHIFT, with 10 % of production requests on the new revision`.
    pub(crate) fn in_words(&self) -> String {
        let stage = if self.stage.is_empty() { "a stage that AWS does not name" } else { &self.stage };
        format!("{stage}, with {} of production requests on the new revision", super::percent(self.weight))
    }

    /// What happens when nobody continues.
    pub(crate) fn otherwise(&self) -> String {
        let how = match self.timeout_action.as_str() {
            "CONTINUE" => "ECS continues by itself",
            _ => "ECS rolls it back by itself",
        };
        match self.expires {
            Some(at) => format!("{how} at {}", proto::logs::rfc3339(at)),
            None => format!("{how} when the hook times out"),
        }
    }
}

/// What it has come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Not over, and not at a gate that was not answered.
    Going,
    /// It waits at a gate.
    Paused(Pause),
    /// The new revision is deployed, by what the deployment says of itself.
    Succeeded,
    RolledBack,
    RollbackFailed,
    Stopped,
}

/// Judges one view. `answered` is the gate that was continued last; as long as `fresh`, an answer that still shows it waiting is
/// taken for late.
pub(crate) fn verdict(view: &View, answered: Option<&Pause>, fresh: bool) -> Verdict {
    match view.status {
        Status::Successful => Verdict::Succeeded,
        Status::RollbackSuccessful => Verdict::RolledBack,
        Status::RollbackFailed => Verdict::RollbackFailed,
        Status::Stopped => Verdict::Stopped,
        _ => match Pause::of(view) {
            Some(pause) if fresh && answered.is_some_and(|answered| answered.is(&pause)) => Verdict::Going,
            Some(pause) => Verdict::Paused(pause),
            None => Verdict::Going,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(status: &str, hook: &str, weight: f64) -> View {
        View::read(&json!({"status": status, "lifecycleStage": "PRE_PRODUCTION_TRAFFIC_SHIFT",
            "targetServiceRevision": {"requestedProductionTrafficWeight": weight},
            "lifecycleHookDetails": [
                {"hookId": "l", "targetType": "AWS_LAMBDA", "status": "AWAITING_ACTION"},
                {"hookId": "a", "targetType": "PAUSE", "status": hook, "expiresAt": 20, "timeoutAction": "ROLLBACK"},
                {"hookId": "b", "targetType": "PAUSE", "status": hook, "expiresAt": 10, "timeoutAction": "CONTINUE"}]}))
    }

    #[test]
    fn only_hooks_that_pause_are_gates_and_the_first_to_expire_says_what_comes() {
        let Verdict::Paused(pause) = verdict(&view("IN_PROGRESS", "AWAITING_ACTION", 10.0), None, false)
        else {
            panic!("no gate")
        };
        assert_eq!(pause.hooks, ["a", "b"]);
        assert_eq!(pause.otherwise(), "ECS continues by itself at 1970-01-01T00:00:10.000Z");
        assert_eq!(verdict(&view("IN_PROGRESS", "SUCCEEDED", 10.0), None, false), Verdict::Going);
        // What is on its way back waits for nobody.
        assert_eq!(
            verdict(&view("ROLLBACK_IN_PROGRESS", "AWAITING_ACTION", 10.0), None, false),
            Verdict::Going
        );
    }

    #[test]
    fn an_answered_gate_is_not_taken_for_the_next_one() {
        let waiting = view("IN_PROGRESS", "AWAITING_ACTION", 10.0);
        let answered = Pause::of(&waiting).unwrap();
        assert_eq!(verdict(&waiting, Some(&answered), true), Verdict::Going);
        // It did not help: whoever answered is asked again.
        assert!(matches!(verdict(&waiting, Some(&answered), false), Verdict::Paused(_)));
        // The same hook before the next step of a linear deployment.
        let next = view("IN_PROGRESS", "AWAITING_ACTION", 20.0);
        assert!(matches!(verdict(&next, Some(&answered), true), Verdict::Paused(_)));
    }

    #[test]
    fn ends_are_told_apart_and_what_is_unknown_goes_on() {
        for (status, wanted) in [
            ("SUCCESSFUL", Verdict::Succeeded),
            ("ROLLBACK_SUCCESSFUL", Verdict::RolledBack),
            ("ROLLBACK_FAILED", Verdict::RollbackFailed),
            ("STOPPED", Verdict::Stopped),
            ("STOP_REQUESTED", Verdict::Going),
            ("PENDING", Verdict::Going),
            ("SOMETHING_NEW", Verdict::Going),
        ] {
            assert_eq!(verdict(&view(status, "SUCCEEDED", 0.0), None, false), wanted, "{status}");
        }
    }
}
