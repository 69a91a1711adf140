//! One module for each step; here they are told apart.

mod canary_delete;
mod copies;
mod swap;
mod unit;

use crate::KubeExecutor;
use executor_api::{Class, Plan, StepContext, StepError, StepOutput};
use proto::task::{KubernetesAction, KubernetesSpec};

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    match &spec.action {
        KubernetesAction::K8sCanaryDelete { .. } => canary_delete::run(executor, spec, cx).await,
        KubernetesAction::K8sBGSwapServices { .. } => swap::run(executor, spec, cx).await,
        _ => Err(unknown(spec)),
    }
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    match &spec.action {
        KubernetesAction::K8sCanaryDelete { .. } => canary_delete::plan(executor, spec, cx).await,
        KubernetesAction::K8sBGSwapServices { .. } => swap::plan(executor, spec, cx).await,
        KubernetesAction::K8sRollout { .. } => Ok(Plan::Unsupported {
            reason: "a rollout command changes what the controller does, not the object".into(),
        }),
        _ => Err(unknown(spec)),
    }
}

fn unknown(spec: &KubernetesSpec) -> StepError {
    let text = format!("this agent does not know how to run {}", spec.action.kind());
    StepError::new(Class::BadSpec, "KUBE-001", text).hint("use an agent whose version knows this step")
}
