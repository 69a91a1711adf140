//! From step to executor: the one exhaustive match over [`StepSpec`] (D3).

use crate::config::Config;
use executor_api::{Class, Executor, Level, LogClosed, Recovery, StepContext, StepError, StepOutput};
use executor_http::HttpExecutor;
use proto::result::UnitStatus;
use proto::task::{HostKeyMode, NoopSpec, STEP_KINDS, StepSpec, StepTask};
use std::time::Duration;

/// The unit of steps that the agent answers itself.
pub(crate) const UNIT: &str = "Execute";

/// Every executor of this build. One per agent.
pub(crate) struct Executors {
    http: HttpExecutor,
    known_hosts_mode: Option<HostKeyMode>,
}

/// An executor cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the executor of {step} steps cannot be set up")]
pub struct SetupError {
    step: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Executors {
    pub(crate) fn new(config: &Config) -> Result<Executors, SetupError> {
        let ca_pem = match &config.ca_file {
            Some(path) => std::fs::read(path).map_err(|e| SetupError { step: "Http", source: e.into() })?,
            None => Vec::new(),
        };
        let http = HttpExecutor::new(executor_http::Config { ca_pem, ..Default::default() })
            .map_err(|e| SetupError { step: "Http", source: e.into() })?;
        Ok(Executors { http, known_hosts_mode: config.known_hosts_mode })
    }

    /// Applies what this agent's settings say about every task.
    pub(crate) fn adjust(&self, task: &mut StepTask) {
        if let (Some(mode), StepSpec::Command(spec)) = (self.known_hosts_mode, &mut task.step.spec)
            && let Some(target) = &mut spec.target
        {
            target.host_keys.mode = mode;
        }
    }

    /// Checks and runs a step; with `recover` it first finds out what became of it.
    ///
    /// **Cancel**: by `cx.cancel`.
    pub(crate) async fn run(&self, cx: &StepContext, recover: bool) -> Result<StepOutput, StepError> {
        match &cx.task.step.spec {
            StepSpec::Http(spec) => drive(&self.http, spec, cx, recover).await,
            StepSpec::Noop(spec) => noop(spec, cx).await,
            StepSpec::Command(_)
            | StepSpec::Verify(_)
            | StepSpec::ResolveArtifact(_)
            | StepSpec::ConnectorTest(_) => Err(unsupported(cx.task.step.spec.kind())),
            StepSpec::Unknown { kind, .. } => Err(unsupported(kind)),
        }
    }
}

fn unsupported(kind: &str) -> StepError {
    let text =
        format!("this agent does not know steps of type `{kind}`; it supports {}", STEP_KINDS.join(", "));
    StepError::new(Class::BadSpec, "AGT-008", text)
        .hint("use an agent whose version knows this step, or correct its type")
}

/// The order of the four calls for any executor.
async fn drive<E: Executor>(
    executor: &E,
    spec: &E::Spec,
    cx: &StepContext,
    recover: bool,
) -> Result<StepOutput, StepError> {
    if let Err(faults) = executor.check(spec, cx) {
        let list: Vec<String> =
            faults.iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect();
        let text = format!("the step `{}` is written wrongly: {}", cx.task.step.identifier, list.join("; "));
        return Err(StepError::new(Class::BadSpec, "AGT-009", text));
    }
    if recover {
        let found = executor.recover(spec, cx).await?;
        tracing::info!(task = cx.task_id, step = cx.task.step.identifier, verdict = ?found, "recovered a step");
        if let Recovery::Vanished { evidence } = found {
            let text = format!(
                "the step `{}` was started before the agent stopped, and left no result: {evidence}",
                cx.task.step.identifier
            );
            // 255 is what a shell reports for a command whose end nobody saw.
            return Err(StepError::new(Class::RemoteFailed { code: 255 }, "AGT-010", text)
                .hint("look at the target to see how far it got; it is not run again by itself"));
        }
    }
    executor.run(spec, cx).await
}

/// Answers at once, with one log line.
async fn noop(spec: &NoopSpec, cx: &StepContext) -> Result<StepOutput, StepError> {
    let closed = |_: LogClosed| StepError::new(Class::Bug, "AGT-011", "the log of the step is closed");
    let unit = cx.logs.unit(UNIT);
    unit.status(UnitStatus::Running).await.map_err(closed)?;
    unit.line(Level::Info, &spec.line).await.map_err(closed)?;
    unit.status(UnitStatus::Success).await.map_err(closed)?;
    Ok(StepOutput::default())
}

/// What the rest of the agent must know of limits here: nothing of an executor may take longer to end than this after a
/// kill.
pub(crate) const ABANDON_AFTER: Duration = Duration::from_secs(60);
