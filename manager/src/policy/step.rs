//! The Policy step: from the sets that it names to its result.

use super::{JudgeError, SelectError, Status, Verdict, select};
use crate::app::App;
use crate::engine::Job;
use crate::entities;
use proto::failure::{Failure, FailureKind};
use proto::result::{Output, StepResult, StepStatus};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Messages that a failure repeats; the outputs hold all of them.
const SHOWN: usize = 10;

/// Asks the sets. **Repeat**: safe; the same stored policies give the same answer, since the time is the step's.
pub(crate) async fn perform(app: &App, job: &Job, sets: &[String], payload: &Json, at: u64) -> StepResult {
    let catalog = match entities::catalog(app).await {
        Ok(catalog) => catalog,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "policies cannot be read");
            let message = "the policies cannot be read: the store failed";
            return StepResult::failed(
                Failure::new(FailureKind::PolicyEvaluationFailure, "POL-005", message)
                    .hint("the manager's log says why; run the step again when the store works"),
            );
        }
    };
    let asked = match select(&catalog, &job.facts.scope(), sets) {
        Ok(asked) => asked,
        Err(error) => return StepResult::failed(not_selected(&error)),
    };
    match app.judges.judge(asked, payload.clone(), at).await {
        Ok(verdict) => result(&verdict),
        Err(error) => StepResult::failed(not_judged(&error)),
    }
}

/// The failure for sets that cannot be asked.
pub(crate) fn not_selected(error: &SelectError) -> Failure {
    let hint = match error {
        SelectError::UnknownSet { .. } => {
            "names are compared exactly; `delegate get policySet` lists the sets"
        }
        SelectError::UnknownPolicy { .. } => "`delegate apply` the policy, or take it out of the set",
        SelectError::Unreadable { .. } => "apply the document again",
    };
    Failure::new(FailureKind::PolicyEvaluationFailure, "POL-003", error.to_string()).hint(hint)
}

/// The failure for an evaluation without a verdict.
pub(crate) fn not_judged(error: &JudgeError) -> Failure {
    let (code, hint) = match error {
        JudgeError::TooLarge { .. } => ("POL-002", "give the policies only what they judge"),
        JudgeError::Stuck { .. } => ("POL-002", "simplify the policies; a rule may loop over too much"),
        JudgeError::Broken(_) => {
            ("POL-005", "the manager's log may say more; this is a fault of the manager")
        }
    };
    Failure::new(FailureKind::PolicyEvaluationFailure, code, error.to_string()).hint(hint)
}

/// The failure that a verdict comes to, if it is one.
pub(crate) fn refusal(verdict: &Verdict) -> Option<Failure> {
    if verdict.status != Status::Error {
        return None;
    }
    let lines = verdict.lines(Status::Error);
    let mut message = lines.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if lines.len() > SHOWN {
        message.push_str(&format!(" (and {} more)", lines.len() - SHOWN));
    }
    let kind = FailureKind::PolicyEvaluationFailure;
    Some(match verdict.gave_no_answer() {
        true => Failure::new(kind, "POL-006", format!("a policy gave no answer: {message}"))
            .hint("a policy that fails counts as violated; try it with `delegate policy eval`"),
        false => Failure::new(kind, "POL-001", format!("policies deny this: {message}"))
            .hint("`output.policySetDetails` of the step has the messages of every policy"),
    })
}

fn result(verdict: &Verdict) -> StepResult {
    let outputs: BTreeMap<String, Output> = BTreeMap::from([
        ("status".to_owned(), json!(verdict.status.name()).into()),
        ("policySetDetails".to_owned(), verdict.details().into()),
    ]);
    let notices: Vec<String> =
        verdict.lines(Status::Warning).into_iter().map(|line| format!("policy warning: {line}")).collect();
    match refusal(verdict) {
        Some(failure) => StepResult { outputs, notices, ..StepResult::failed(failure) },
        None => StepResult { outputs, notices, ..StepResult::bare(StepStatus::Success, None) },
    }
}
