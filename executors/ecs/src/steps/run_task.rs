//! EcsRunTask: its shapes told apart (facts A11, rule R9).

use super::{command, definition, unsupported};
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
        RunTaskShape::Describe { task_definition } => {
            definition::describe(executor, spec, cx, task_definition).await
        }
        RunTaskShape::Command { task_definition, command } => {
            command::run(executor, spec, cx, task_definition, command).await
        }
        RunTaskShape::Register { document } => definition::register(executor, spec, cx, document).await,
        RunTaskShape::Run { .. }
        | RunTaskShape::Green { .. }
        | RunTaskShape::Shift { .. }
        | RunTaskShape::Terminate { .. } => Err(unsupported(&spec.action)),
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
        RunTaskShape::Describe { .. } => cannot("looking at a task definition changes nothing"),
        RunTaskShape::Command { .. } => cannot("what a command changes is known only when it runs"),
        RunTaskShape::Register { document } => definition::plan_register(executor, spec, cx, document).await,
        RunTaskShape::Run { .. }
        | RunTaskShape::Green { .. }
        | RunTaskShape::Shift { .. }
        | RunTaskShape::Terminate { .. } => Err(unsupported(&spec.action)),
    }
}
