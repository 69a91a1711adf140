//! One module for each step; here they are told apart.

use crate::EcsExecutor;
use crate::error::bad_spec;
use executor_api::{Plan, StepContext, StepError, StepOutput};
use proto::task::{EcsAction, EcsSpec};

/// Runs the step.
pub(crate) async fn run(
    _executor: &EcsExecutor,
    spec: &EcsSpec,
    _cx: &StepContext,
) -> Result<StepOutput, StepError> {
    #[expect(clippy::match_single_binding, reason = "The steps come one by one.")]
    match &spec.action {
        other => Err(unsupported(other)),
    }
}

/// What the step would change.
pub(crate) async fn plan(
    _executor: &EcsExecutor,
    spec: &EcsSpec,
    _cx: &StepContext,
) -> Result<Plan, StepError> {
    #[expect(clippy::match_single_binding, reason = "The steps come one by one.")]
    match &spec.action {
        other => Err(unsupported(other)),
    }
}

fn unsupported(action: &EcsAction) -> StepError {
    bad_spec("ECS-008", format!("this agent does not run {} yet", action.kind()))
}
