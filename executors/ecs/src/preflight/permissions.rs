//! Every missing permission at once: what IAM says of the actions that the step may need.
//!
//! `iam:SimulatePrincipalPolicy` answers for the caller's own identity policies. It needs a permission of its own, which
//! many callers lack; then nothing is known beforehand and AWS' own refusal names the action.

use super::not_looked;
use crate::rights;
use crate::session::Session;
use aws::{Operation, Service, document};
use executor_api::{Class, StepError, UnitLog};
use serde_json::json;

/// Most actions that one simulation takes.
const ACTIONS: usize = 100;

/// The role of an assumed-role session: simulation asks for the role itself.
fn principal(arn: &str) -> String {
    // arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    if let [head, partition, "sts", _, account, resource] = parts.as_slice()
        && let Some(role) = resource.strip_prefix("assumed-role/").and_then(|rest| rest.split('/').next())
    {
        return format!("{head}:{partition}:iam::{account}:role/{role}");
    }
    arn.to_owned()
}

/// The outer error ends the step; the inner one is a finding.
pub(super) async fn check(session: &Session, log: &dyn UnitLog) -> Result<Result<(), StepError>, StepError> {
    let caller = match session.aws.caller().await {
        Ok(caller) => caller,
        Err(fault) => {
            not_looked(session, log, "permissions", &fault).await?;
            return Ok(Ok(()));
        }
    };
    // The root user needs no permission and cannot be simulated.
    if caller.arn.ends_with(":root") {
        return Ok(Ok(()));
    }
    let actions: Vec<String> = rights::of(session.kind).into_iter().map(rights::Right::action).collect();
    let mut denied = Vec::new();
    for actions in actions.chunks(ACTIONS) {
        let input = json!({"PolicySourceArn": principal(&caller.arn), "ActionNames": actions});
        let operation = Operation { service: Service::Iam, name: "SimulatePrincipalPolicy" };
        let answer = match session.read(operation, input).await {
            Ok(answer) => answer,
            Err(fault) => {
                not_looked(session, log, "permissions", &fault).await?;
                return Ok(Ok(()));
            }
        };
        for result in document::list(&answer, &["EvaluationResults"]) {
            let decision = document::text(result, &["EvalDecision"]).unwrap_or_default();
            if decision.ends_with("Deny") {
                denied.push(document::text(result, &["EvalActionName"]).unwrap_or("?").to_owned());
            }
        }
    }
    if denied.is_empty() {
        return Ok(Ok(()));
    }
    let text = format!("{} may not {}", caller.arn, denied.join(", "));
    Ok(Err(StepError::new(Class::Authorization, "ECS-090", text).hint(format!(
        "grant what is missing: deploy/aws/{}.json holds the least policy of this step",
        session.kind
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_asked_for_by_its_role() {
        assert_eq!(
            principal("arn:aws:sts::123456789012:assumed-role/deployer/agent-1"),
            "arn:aws:iam::123456789012:role/deployer"
        );
        let user = "arn:aws:iam::123456789012:user/ci";
        assert_eq!(principal(user), user);
    }
}
