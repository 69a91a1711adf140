//! EcsRunTask: its shapes told apart (facts A11, rule R9).

use super::one_off::{self, Wish};
use super::{command, definition, green, shift, terminate};
use crate::EcsExecutor;
use executor_api::{Plan, StepContext, StepError, StepOutput};
use proto::task::{EcsSpec, RunTaskShape};

/// Runs the step.
pub(super) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    shape: &RunTaskShape,
) -> Result<StepOutput, StepError> {
    match shape {
        RunTaskShape::Run { .. } => Box::pin(one_off::run(executor, spec, cx, Wish::of(shape))).await,
        RunTaskShape::Describe { task_definition } => {
            definition::describe(executor, spec, cx, task_definition).await
        }
        RunTaskShape::Command { task_definition, command } => {
            Box::pin(command::run(executor, spec, cx, task_definition, command)).await
        }
        RunTaskShape::Register { document } => {
            Box::pin(definition::register(executor, spec, cx, document)).await
        }
        RunTaskShape::Green { .. } => Box::pin(green::run(executor, spec, cx)).await,
        RunTaskShape::Shift { .. } => Box::pin(shift::run(executor, spec, cx)).await,
        RunTaskShape::Terminate { .. } => Box::pin(terminate::run(executor, spec, cx)).await,
    }
}

/// What the step would change.
pub(super) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    shape: &RunTaskShape,
) -> Result<Plan, StepError> {
    let cannot = |reason: &str| Ok(Plan::Unsupported { reason: reason.to_owned() });
    match shape {
        RunTaskShape::Run { .. } => Box::pin(one_off::plan(executor, spec, cx, Wish::of(shape))).await,
        RunTaskShape::Describe { .. } => cannot("looking at a task definition changes nothing"),
        RunTaskShape::Command { .. } => cannot("what a command changes is known only when it runs"),
        RunTaskShape::Register { document } => {
            Box::pin(definition::plan_register(executor, spec, cx, document)).await
        }
        RunTaskShape::Green { .. } => Box::pin(green::plan(executor, spec, cx)).await,
        RunTaskShape::Shift { .. } => Box::pin(shift::plan(executor, spec, cx)).await,
        RunTaskShape::Terminate { .. } => Box::pin(terminate::plan(executor, spec, cx)).await,
    }
}
