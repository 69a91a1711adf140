//! One module for each step; here they are told apart.

mod addresses;
mod apply;
mod blue_green;
mod canary;
mod canary_delete;
mod changes;
mod copies;
mod delete;
mod deploy;
mod flags;
mod look;
mod patch;
mod pods;
mod render;
mod revisions;
mod rollback;
mod rolling;
mod rollout;
mod routes;
mod scale;
mod scale_down;
mod shape;
mod swap;
mod traffic;
mod workload;

use crate::KubeExecutor;
use executor_api::{Plan, StepContext, StepError, StepOutput};
use proto::task::{KubernetesAction, KubernetesSpec};

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    match &spec.action {
        KubernetesAction::K8sApply { .. } => apply::run(executor, spec, cx).await,
        KubernetesAction::K8sRollingDeploy { .. } => rolling::run(executor, spec, cx).await,
        KubernetesAction::K8sRollingRollback { .. } => rollback::run(executor, spec, cx).await,
        KubernetesAction::K8sDelete { .. } => delete::run(executor, spec, cx).await,
        KubernetesAction::K8sDryRun {} => look::dry_run(executor, spec, cx).await,
        KubernetesAction::K8sDiff {} => look::diff(executor, spec, cx).await,
        KubernetesAction::K8sCanaryDeploy { .. } => canary::run(executor, spec, cx).await,
        KubernetesAction::K8sCanaryDelete { .. } => canary_delete::run(executor, spec, cx).await,
        KubernetesAction::K8sBlueGreenDeploy { .. } => blue_green::run(executor, spec, cx).await,
        KubernetesAction::K8sBGSwapServices { .. } => swap::run(executor, spec, cx).await,
        KubernetesAction::K8sBlueGreenStageScaleDown { .. } => scale_down::run(executor, spec, cx).await,
        KubernetesAction::K8sTrafficRouting { .. } => traffic::run(executor, spec, cx).await,
        KubernetesAction::K8sScale { .. } => scale::run(executor, spec, cx).await,
        KubernetesAction::K8sRollout { .. } => rollout::run(executor, spec, cx).await,
        KubernetesAction::K8sPatch { .. } => patch::run(executor, spec, cx).await,
    }
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    match &spec.action {
        KubernetesAction::K8sApply { .. } => apply::plan(executor, spec, cx).await,
        KubernetesAction::K8sRollingDeploy { .. } => rolling::plan(executor, spec, cx).await,
        KubernetesAction::K8sRollingRollback { .. } => rollback::plan(executor, spec, cx).await,
        KubernetesAction::K8sDelete { .. } => delete::plan(executor, spec, cx).await,
        KubernetesAction::K8sDryRun {} | KubernetesAction::K8sDiff {} => Ok(look::plan()),
        KubernetesAction::K8sCanaryDeploy { .. } => canary::plan(executor, spec, cx).await,
        KubernetesAction::K8sCanaryDelete { .. } => canary_delete::plan(executor, spec, cx).await,
        KubernetesAction::K8sBlueGreenDeploy { .. } => blue_green::plan(executor, spec, cx).await,
        KubernetesAction::K8sBGSwapServices { .. } => swap::plan(executor, spec, cx).await,
        KubernetesAction::K8sBlueGreenStageScaleDown { .. } => scale_down::plan(executor, spec, cx).await,
        KubernetesAction::K8sTrafficRouting { .. } => traffic::plan(executor, spec, cx).await,
        KubernetesAction::K8sScale { .. } => scale::plan(executor, spec, cx).await,
        KubernetesAction::K8sRollout { .. } => rollout::plan(executor, spec, cx).await,
        KubernetesAction::K8sPatch { .. } => patch::plan(executor, spec, cx).await,
    }
}
