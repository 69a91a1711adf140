//! One module for each step; here they are told apart.

use crate::KubeExecutor;
use executor_api::{Class, Plan, StepContext, StepError, StepOutput};
use proto::task::{KubernetesAction, KubernetesSpec};

/// Runs the step.
pub(crate) async fn run(
    _executor: &KubeExecutor,
    spec: &KubernetesSpec,
    _cx: &StepContext,
) -> Result<StepOutput, StepError> {
    Err(unknown(spec))
}

/// What the step would change.
pub(crate) async fn plan(
    _executor: &KubeExecutor,
    spec: &KubernetesSpec,
    _cx: &StepContext,
) -> Result<Plan, StepError> {
    match &spec.action {
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
