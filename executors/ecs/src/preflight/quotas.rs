//! Counts over a quota, when the account's quotas can be read.

use super::{Wanted, not_looked};
use crate::error::bad_spec;
use crate::session::Session;
use aws::{Operation, Service, document};
use executor_api::{StepError, UnitLog};
use serde_json::json;

/// Quota "Tasks per service" of ECS (AWS' list of service quotas, code `L-46458851`).
const TASKS_PER_SERVICE: &str = "L-46458851";

/// The outer error ends the step; the inner one is a finding.
pub(super) async fn check(
    session: &Session,
    wanted: &Wanted<'_>,
    log: &dyn UnitLog,
) -> Result<Result<(), StepError>, StepError> {
    // Far below every quota that an account has ever had: nothing to ask.
    const SURELY_FINE: u64 = 100;
    if wanted.desired <= SURELY_FINE {
        return Ok(Ok(()));
    }
    let operation = Operation { service: Service::ServiceQuotas, name: "GetServiceQuota" };
    let input = json!({"ServiceCode": "ecs", "QuotaCode": TASKS_PER_SERVICE});
    let answer = match session.read(operation, input).await {
        Ok(answer) => answer,
        Err(fault) => {
            not_looked(session, log, "the quota of tasks in a service", &fault).await?;
            return Ok(Ok(()));
        }
    };
    Ok(match document::number(&answer, &["Quota", "Value"]) {
        Some(most) if (wanted.desired as f64) > most => Err(bad_spec(
            "ECS-091",
            format!(
                "service {}: {} tasks are wanted, and the account's quota is {most} in a service",
                wanted.service, wanted.desired
            ),
        )
        .hint("lower `desiredCount`, or ask AWS for a higher quota of tasks per service")),
        _ => Ok(()),
    })
}
