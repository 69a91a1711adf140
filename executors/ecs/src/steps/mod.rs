//! One module for each step; here they are told apart.

mod beside;
mod blue_green;
mod blue_green_rollback;
mod canary;
mod canary_delete;
mod colours;
mod command;
mod continue_deployment;
mod definition;
mod fetched;
mod green;
mod one_off;
pub(crate) mod phased_rollback;
mod phased_setup;
mod phased_upgrade;
pub(crate) mod phases;
mod planned;
mod prepare_rollback;
mod rollback;
mod rolling;
mod rollout;
mod routes;
mod run_task;
mod scale;
mod serve;
mod shift;
mod size;
mod stage;
mod swap;
mod terminate;
mod traffic_shift;
mod undo;

use crate::EcsExecutor;
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
        EcsAction::EcsContinueDeployment { .. } => Box::pin(continue_deployment::run(executor, spec, cx)),
        EcsAction::EcsRollingRollback { .. } => Box::pin(rollback::run(executor, spec, cx)),
        EcsAction::EcsCanaryDeploy { .. } => Box::pin(canary::run(executor, spec, cx)),
        EcsAction::EcsScale { .. } => Box::pin(scale::run(executor, spec, cx)),
        EcsAction::EcsServiceSetup { .. } => Box::pin(phased_setup::run(executor, spec, cx)),
        EcsAction::EcsUpgradeContainer { .. } => Box::pin(phased_upgrade::run(executor, spec, cx)),
        EcsAction::EcsBlueGreenCreateService { .. } => Box::pin(blue_green::run(executor, spec, cx)),
        EcsAction::EcsBlueGreenSwapTargetGroups { .. } => Box::pin(swap::run(executor, spec, cx)),
        EcsAction::EcsBlueGreenTrafficShift { .. } => Box::pin(traffic_shift::run(executor, spec, cx)),
        EcsAction::EcsBlueGreenRollback {} => Box::pin(blue_green_rollback::run(executor, spec, cx)),
        EcsAction::StandAloneTrafficShiftRollback {} => {
            Box::pin(traffic_shift::run_rollback(executor, spec, cx))
        }
        EcsAction::EcsRunTask { shape } => Box::pin(run_task::run(executor, spec, cx, shape)),
        EcsAction::EcsPrepareRollback { .. } => Box::pin(prepare_rollback::run(executor, spec, cx)),
        EcsAction::EcsUndo { .. } => Box::pin(undo::run(executor, spec, cx)),
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
        EcsAction::EcsContinueDeployment { .. } => Box::pin(continue_deployment::plan(executor, spec, cx)),
        EcsAction::EcsRollingRollback { .. } => Box::pin(rollback::plan(executor, spec, cx)),
        EcsAction::EcsCanaryDeploy { .. } => Box::pin(canary::plan(executor, spec, cx)),
        EcsAction::EcsScale { .. } => Box::pin(scale::plan(executor, spec, cx)),
        EcsAction::EcsServiceSetup { .. } => Box::pin(phased_setup::plan(executor, spec, cx)),
        EcsAction::EcsUpgradeContainer { .. } => Box::pin(phased_upgrade::plan(executor, spec, cx)),
        EcsAction::EcsBlueGreenCreateService { .. } => Box::pin(blue_green::plan(executor, spec, cx)),
        EcsAction::EcsBlueGreenSwapTargetGroups { .. } => Box::pin(swap::plan(executor, spec, cx)),
        EcsAction::EcsBlueGreenTrafficShift { .. } => Box::pin(traffic_shift::plan(executor, spec, cx)),
        EcsAction::EcsBlueGreenRollback {} => Box::pin(blue_green_rollback::plan(executor, spec, cx)),
        EcsAction::StandAloneTrafficShiftRollback {} => {
            Box::pin(traffic_shift::plan_rollback(executor, spec, cx))
        }
        EcsAction::EcsRunTask { shape } => Box::pin(run_task::plan(executor, spec, cx, shape)),
        EcsAction::EcsPrepareRollback { .. } => Box::pin(prepare_rollback::plan()),
        EcsAction::EcsUndo { .. } => Box::pin(undo::plan(executor, spec, cx)),
    }
}
