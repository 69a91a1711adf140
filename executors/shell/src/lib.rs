//! ShellScript steps on the agent itself.
//!
//! A script does not belong to the agent's process. A small holder in the task's private folder starts it in a process
//! group of its own, with a clean environment and standard input closed, spools both outputs and writes down how it
//! ended. The agent follows the spool; a new agent process attaches where the log is durable. So a killed agent loses
//! neither the script nor a line of it, and never runs it twice. What does not survive – the machine or the container
//! going down – is found out by `recover` and fails the step.

mod config;
mod error;
mod follow;
mod holder;
mod memory;
mod script;
mod spec;

pub use config::Settings;
pub use error::VANISHED;

use executor_api::{
    Executor, NoProbe, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, TransportProbe,
};
use holder::{Found, Place};
use proto::task::ShellScriptSpec;
use script::Job;
use std::sync::Arc;

/// Runs ShellScript steps. One per agent; it holds no state of a task.
#[derive(Clone)]
pub struct ShellExecutor {
    settings: Settings,
    probe: Arc<dyn TransportProbe>,
}

impl ShellExecutor {
    /// An executor with these limits.
    pub fn new(settings: Settings) -> ShellExecutor {
        ShellExecutor { settings, probe: Arc::new(NoProbe) }
    }

    /// Reports what it starts and ends to `probe`; for the conformance kit.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn TransportProbe>) -> ShellExecutor {
        self.probe = probe;
        self
    }
}

impl Executor for ShellExecutor {
    type Spec = ShellScriptSpec;

    fn check(&self, spec: &ShellScriptSpec, cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        spec::check(spec, cx)
    }

    async fn plan(&self, _spec: &ShellScriptSpec, _cx: &StepContext) -> Result<Plan, StepError> {
        Ok(Plan::Unsupported { reason: "nobody can say beforehand what a script changes".into() })
    }

    async fn run(&self, spec: &ShellScriptSpec, cx: &StepContext) -> Result<StepOutput, StepError> {
        Job::new(&self.settings, self.probe.as_ref(), spec, cx).run().await
    }

    async fn recover(&self, _spec: &ShellScriptSpec, cx: &StepContext) -> Result<Recovery, StepError> {
        Ok(match Place::of(cx).look() {
            Found::Never => Recovery::NeverStarted,
            Found::Running => Recovery::Running,
            Found::Ended(code) => Recovery::Ended(code),
            Found::Vanished(evidence) => Recovery::Vanished { evidence },
        })
    }

    async fn clear(&self, spec: &ShellScriptSpec, cx: &StepContext) -> Result<(), StepError> {
        Job::new(&self.settings, self.probe.as_ref(), spec, cx).clear().await
    }
}
