//! One module for each step; here they are told apart.

mod canary;
mod canary_delete;
mod fetched;
pub(crate) mod phased_rollback;
mod phased_setup;
mod phased_upgrade;
pub(crate) mod phases;
mod planned;
mod rollback;
mod rolling;
mod rollout;
mod scale;
mod size;

use crate::EcsExecutor;
use crate::error::bad_spec;
use executor_api::{Plan, StepContext, StepError, StepOutput};
use proto::task::{EcsAction, EcsSpec};

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    match &spec.action {
        EcsAction::EcsBasicRollback {} => phased_rollback::run(executor, spec, cx).await,
        EcsAction::EcsCanaryDelete {} => canary_delete::run(executor, spec, cx).await,
        EcsAction::EcsRollingDeploy { .. } => rolling::run(executor, spec, cx).await,
        EcsAction::EcsRollingRollback { .. } => rollback::run(executor, spec, cx).await,
        EcsAction::EcsCanaryDeploy { .. } => canary::run(executor, spec, cx).await,
        EcsAction::EcsScale { .. } => scale::run(executor, spec, cx).await,
        EcsAction::EcsServiceSetup { .. } => phased_setup::run(executor, spec, cx).await,
        EcsAction::EcsUpgradeContainer { .. } => phased_upgrade::run(executor, spec, cx).await,
        other => Err(unsupported(other)),
    }
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    match &spec.action {
        EcsAction::EcsBasicRollback {} => phased_rollback::plan(executor, spec, cx).await,
        EcsAction::EcsCanaryDelete {} => canary_delete::plan(executor, spec, cx).await,
        EcsAction::EcsRollingDeploy { .. } => rolling::plan(executor, spec, cx).await,
        EcsAction::EcsRollingRollback { .. } => rollback::plan(executor, spec, cx).await,
        EcsAction::EcsCanaryDeploy { .. } => canary::plan(executor, spec, cx).await,
        EcsAction::EcsScale { .. } => scale::plan(executor, spec, cx).await,
        EcsAction::EcsServiceSetup { .. } => phased_setup::plan(executor, spec, cx).await,
        EcsAction::EcsUpgradeContainer { .. } => phased_upgrade::plan(executor, spec, cx).await,
        other => Err(unsupported(other)),
    }
}

fn unsupported(action: &EcsAction) -> StepError {
    bad_spec("ECS-008", format!("this agent does not run {} yet", action.kind()))
}
