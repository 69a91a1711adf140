//! ECS steps.
//!
//! AWS is spoken to in documents through the crate `aws`; its faults become a [`StepError`] once, there or in `error`.
//!
//! ```text
//! spec ─documents─► task definition ─settle─► service ─compare─► [checkpoint ─► change]* ─► steady state ─► outcome
//!                                    scaling: suspend ◄──────────────────────────────────► resume
//! ```

mod changes;
mod check;
mod config;
mod documents;
mod error;
mod logs;
mod memory;
mod native;
mod preflight;
pub mod rights;
mod scaling;
mod service;
mod session;
mod steady;
mod steps;
mod task_definition;
mod traffic;

pub use config::Settings;

use executor_api::{
    Executor, NoProbe, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, SystemClock,
    TransportProbe,
};
use proto::task::EcsSpec;
use secrets::Cover;
use std::sync::{Arc, Mutex, PoisonError};

/// Runs ECS steps. One per agent; it holds connections and the pollers that its steps share, and no state of a task.
#[derive(Clone)]
pub struct EcsExecutor {
    pub(crate) aws: aws::Client,
    pub(crate) settings: Settings,
    pub(crate) probe: Arc<dyn TransportProbe>,
    /// How definitions are fetched; made with the system's roots when the agent gave none.
    pub(crate) sources: Option<sources::Client>,
    /// What the one step that this value runs has to say to people beside its own notices.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
    /// The accounts that this one step has opened.
    pub(crate) accounts: Arc<Mutex<Vec<aws::Session>>>,
    /// Who looks at services, for all steps together.
    pub(crate) pollers: steady::Pollers,
    /// Who looks at service deployments, for all steps together.
    pub(crate) looks: native::Looks,
}

impl EcsExecutor {
    /// An executor that reaches AWS through `aws`.
    pub fn new(aws: aws::Client, settings: Settings) -> EcsExecutor {
        let pace = steady::Pace { young: settings.poll, old: settings.slow_poll };
        let pollers = steady::Pollers::new(pace, Arc::new(SystemClock), rand::random::<f64>);
        EcsExecutor {
            aws,
            settings,
            probe: Arc::new(NoProbe),
            sources: None,
            told: Arc::default(),
            accounts: Arc::default(),
            pollers,
            looks: native::Looks::default(),
        }
    }

    /// Steps share the executor; each has lists of its own.
    fn for_one_step(&self) -> EcsExecutor {
        EcsExecutor { told: Arc::default(), accounts: Arc::default(), ..self.clone() }
    }

    /// Hides the step's secrets in what it writes, and tells what its accounts have to tell: calls that are tried again, turns
    /// that are waited for.
    fn cover(&self, cx: &StepContext) -> Cover {
        let accounts = self.accounts.clone();
        let notes = move || {
            let accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
            accounts.iter().flat_map(aws::Session::notes).collect()
        };
        Cover::with_notes(cx, Arc::new(notes))
    }

    /// Fetches definitions with this client, which knows the agent's own CA.
    #[must_use]
    pub fn with_sources(mut self, sources: sources::Client) -> EcsExecutor {
        self.sources = Some(sources);
        self
    }

    /// The client that definitions in Git are fetched with.
    pub(crate) fn sources(&self) -> Result<sources::Client, StepError> {
        if let Some(client) = &self.sources {
            return Ok(client.clone());
        }
        sources::Client::new(sources::ClientOptions::default()).map_err(|failed| {
            let text = format!("definitions cannot be fetched: {failed}");
            StepError::new(executor_api::Class::Bug, "ECS-007", text).source(failed)
        })
    }

    /// Reports every change it asks AWS for to `probe`; for the conformance kit.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn TransportProbe>) -> EcsExecutor {
        self.probe = probe;
        self
    }
}

impl Executor for EcsExecutor {
    type Spec = EcsSpec;

    fn check(&self, spec: &EcsSpec, _cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        let faults = check::faults(spec);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    async fn plan(&self, spec: &EcsSpec, cx: &StepContext) -> Result<Plan, StepError> {
        let executor = self.for_one_step();
        let cover = executor.cover(cx);
        match steps::plan(&executor, spec, &cover.cx).await {
            Ok(plan) => Ok(cover.plan(plan)),
            Err(error) => Err(cover.error(located(error, spec))),
        }
    }

    async fn run(&self, spec: &EcsSpec, cx: &StepContext) -> Result<StepOutput, StepError> {
        if let Some((reason, _)) = cx.cancel.requested()
            && cx.checkpoints.history().is_empty()
        {
            return Err(error::cancelled(reason, "nothing was changed"));
        }
        let executor = self.for_one_step();
        let cover = executor.cover(cx);
        let result = steps::run(&executor, spec, &cover.cx).await;
        let mut output = result.map_err(|error| cover.error(located(error, spec)))?;
        output.notices.append(&mut executor.told.lock().unwrap_or_else(PoisonError::into_inner));
        output.notices = output.notices.iter().map(|notice| cover.text(notice)).collect();
        Ok(output)
    }

    async fn recover(&self, _spec: &EcsSpec, cx: &StepContext) -> Result<Recovery, StepError> {
        // Every step goes on by what it remembers and by looking at AWS: what is there already is left as it is.
        Ok(if cx.checkpoints.history().is_empty() { Recovery::NeverStarted } else { Recovery::Running })
    }
}

/// Every error says what it happened to.
fn located(error: StepError, spec: &EcsSpec) -> StepError {
    if error.target.is_some() {
        return error;
    }
    error.target(format!("connector {}, cluster {}", spec.account.connector, spec.cluster))
}
