//! One module for each step; here they are told apart.

mod canary;
mod canary_delete;
mod command;
mod definition;
mod fetched;
pub(crate) mod phased_rollback;
mod phased_setup;
mod phased_upgrade;
pub(crate) mod phases;
mod planned;
mod rollback;
mod rolling;
mod rollout;
mod run_task;
mod scale;
mod size;

use crate::EcsExecutor;
use crate::error::bad_spec;
use executor_api::{Plan, StepContext, StepError, StepOutput};
use futures::future::BoxFuture;
use proto::task::{EcsAction, EcsSpec};

/// Runs the step. Boxed: together the steps would be larger than a thread's stack likes.
pub(crate) fn run<'a>(
    executor: &'a EcsExecutor,
    spec: &'a EcsSpec,
    cx: &'a StepContext,
) -> BoxFuture<'a, Result<StepOutput, StepError>> {
    match &spec.action {
        EcsAction::EcsBasicRollback {} => Box::pin(phased_rollback::run(executor, spec, cx)),
        EcsAction::EcsCanaryDelete {} => Box::pin(canary_delete::run(executor, spec, cx)),
        EcsAction::EcsRollingDeploy { .. } => Box::pin(rolling::run(executor, spec, cx)),
        EcsAction::EcsRollingRollback { .. } => Box::pin(rollback::run(executor, spec, cx)),
        EcsAction::EcsCanaryDeploy { .. } => Box::pin(canary::run(executor, spec, cx)),
        EcsAction::EcsRunTask { shape } => Box::pin(run_task::run(executor, spec, cx, shape)),
        EcsAction::EcsScale { .. } => Box::pin(scale::run(executor, spec, cx)),
        EcsAction::EcsServiceSetup { .. } => Box::pin(phased_setup::run(executor, spec, cx)),
        EcsAction::EcsUpgradeContainer { .. } => Box::pin(phased_upgrade::run(executor, spec, cx)),
        other => Box::pin(std::future::ready(Err(unsupported(other)))),
    }
}

/// What the step would change.
pub(crate) fn plan<'a>(
    executor: &'a EcsExecutor,
    spec: &'a EcsSpec,
    cx: &'a StepContext,
) -> BoxFuture<'a, Result<Plan, StepError>> {
    match &spec.action {
        EcsAction::EcsBasicRollback {} => Box::pin(phased_rollback::plan(executor, spec, cx)),
        EcsAction::EcsCanaryDelete {} => Box::pin(canary_delete::plan(executor, spec, cx)),
        EcsAction::EcsRollingDeploy { .. } => Box::pin(rolling::plan(executor, spec, cx)),
        EcsAction::EcsRollingRollback { .. } => Box::pin(rollback::plan(executor, spec, cx)),
        EcsAction::EcsCanaryDeploy { .. } => Box::pin(canary::plan(executor, spec, cx)),
        EcsAction::EcsRunTask { shape } => Box::pin(run_task::plan(executor, spec, cx, shape)),
        EcsAction::EcsScale { .. } => Box::pin(scale::plan(executor, spec, cx)),
        EcsAction::EcsServiceSetup { .. } => Box::pin(phased_setup::plan(executor, spec, cx)),
        EcsAction::EcsUpgradeContainer { .. } => Box::pin(phased_upgrade::plan(executor, spec, cx)),
        other => Box::pin(std::future::ready(Err(unsupported(other)))),
    }
}

fn unsupported(action: &EcsAction) -> StepError {
    bad_spec("ECS-008", format!("this agent does not run {} yet", action.kind()))
}
