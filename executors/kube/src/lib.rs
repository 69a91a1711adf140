//! Kubernetes steps.
//!
//! The only crate that names `kube` and `k8s-openapi`; their errors become a [`StepError`] once, in `error`.
//!
//! ```text
//! spec ─manifests─► documents ─objects─► set ─validate (dry run, rights)─► apply (waves) ─► steady state ─► prune
//!                                              release history ◄──────────────────┘
//! ```

mod apply;
mod bluegreen;
mod canary;
mod check;
mod config;
mod connect;
mod discovery;
mod error;
pub mod manifests;
pub mod objects;
mod oidc;
mod probe;
mod prune;
mod release;
mod rest;
mod session;
pub mod steady;
mod steps;
mod traffic;
mod variant;

pub use config::Settings;

use executor_api::{
    Executor, NoProbe, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, TransportProbe,
};

use proto::task::KubernetesSpec;
use secrets::Cover;
use std::sync::{Arc, Mutex, PoisonError};

/// Runs Kubernetes steps. One per agent; it holds no state of a task.
#[derive(Clone)]
pub struct KubeExecutor {
    pub(crate) settings: Settings,
    pub(crate) probe: Arc<dyn TransportProbe>,
    /// How manifests are fetched; made with the system's roots when the agent gave none.
    pub(crate) sources: Option<sources::Client>,
    /// What the one step that this value runs has to say to people beside its own notices.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
}

impl KubeExecutor {
    /// An executor with these limits.
    pub fn new(settings: Settings) -> KubeExecutor {
        KubeExecutor { settings, probe: Arc::new(NoProbe), sources: None, told: Arc::default() }
    }

    /// Fetches manifests with this client, which knows the agent's own CA.
    #[must_use]
    pub fn with_sources(mut self, sources: sources::Client) -> KubeExecutor {
        self.sources = Some(sources);
        self
    }

    /// The client for [`manifests::load`].
    pub(crate) fn sources(&self) -> Result<sources::Client, StepError> {
        if let Some(client) = &self.sources {
            return Ok(client.clone());
        }
        sources::Client::new(sources::ClientOptions::default()).map_err(|failed| {
            let text = format!("manifests cannot be fetched: {failed}");
            StepError::new(executor_api::Class::Bug, "KUBE-068", text).source(failed)
        })
    }

    /// Reports every change it asks the API server for to `probe`; for the conformance kit.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn TransportProbe>) -> KubeExecutor {
        self.probe = probe;
        self
    }
}

impl Executor for KubeExecutor {
    type Spec = KubernetesSpec;

    fn check(&self, spec: &KubernetesSpec, _cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        let faults = check::faults(spec);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    async fn plan(&self, spec: &KubernetesSpec, cx: &StepContext) -> Result<Plan, StepError> {
        let cover = Cover::new(cx);
        match steps::plan(self, spec, &cover.cx).await {
            Ok(plan) => Ok(cover.plan(plan)),
            Err(error) => Err(cover.error(located(error, spec))),
        }
    }

    async fn run(&self, spec: &KubernetesSpec, cx: &StepContext) -> Result<StepOutput, StepError> {
        if let Some((reason, _)) = cx.cancel.requested()
            && cx.checkpoints.history().is_empty()
        {
            return Err(error::cancelled(reason, "nothing was changed"));
        }
        let cover = Cover::new(cx);
        // Steps share the executor; each has a list of its own.
        let executor = KubeExecutor { told: Arc::default(), ..self.clone() };
        let mut output = steps::run(&executor, spec, &cover.cx)
            .await
            .map_err(|error| cover.error(located(error, spec)))?;
        output.notices.append(&mut executor.told.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(output)
    }

    async fn recover(&self, _spec: &KubernetesSpec, cx: &StepContext) -> Result<Recovery, StepError> {
        // Every step goes on by looking at the cluster: what is there already is left as it is.
        Ok(if cx.checkpoints.history().is_empty() { Recovery::NeverStarted } else { Recovery::Running })
    }
}

/// Every error says what it happened to; those from before the cluster was known name its connector.
fn located(error: StepError, spec: &KubernetesSpec) -> StepError {
    if error.target.is_some() {
        return error;
    }
    error.target(format!("connector {}, namespace {}", spec.cluster.connector, spec.namespace))
}
