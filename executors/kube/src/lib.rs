//! Kubernetes steps.
//!
//! The only crate that names `kube` and `k8s-openapi`; their errors become a [`StepError`] once, in `error`.

#[allow(dead_code, unused_imports, reason = "The steps that use it come next.")]
mod bluegreen;
#[allow(dead_code, unused_imports, reason = "The steps that use it come next.")]
mod canary;
mod config;
#[allow(dead_code, unused_imports, reason = "The steps that use it come next.")]
mod traffic;
#[allow(dead_code, unused_imports, reason = "The steps that use it come next.")]
mod variant;

pub use config::Settings;

use executor_api::{
    Class, Executor, NoProbe, Plan, Recovery, SpecFault, StepContext, StepError, StepOutput, TransportProbe,
};

use proto::task::KubernetesSpec;
use std::sync::Arc;

/// Runs Kubernetes steps. One per agent; it holds no state of a task.
#[derive(Clone)]
pub struct KubeExecutor {
    #[expect(dead_code, reason = "The first step that waits reads it.")]
    settings: Settings,
    probe: Arc<dyn TransportProbe>,
}

impl KubeExecutor {
    /// An executor with these limits.
    pub fn new(settings: Settings) -> KubeExecutor {
        KubeExecutor { settings, probe: Arc::new(NoProbe) }
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

    fn check(&self, _spec: &KubernetesSpec, _cx: &StepContext) -> Result<(), Vec<SpecFault>> {
        Ok(())
    }

    async fn plan(&self, spec: &KubernetesSpec, _cx: &StepContext) -> Result<Plan, StepError> {
        Err(unknown(spec))
    }

    async fn run(&self, spec: &KubernetesSpec, _cx: &StepContext) -> Result<StepOutput, StepError> {
        Err(unknown(spec))
    }

    async fn recover(&self, _spec: &KubernetesSpec, _cx: &StepContext) -> Result<Recovery, StepError> {
        Ok(Recovery::NeverStarted)
    }
}

fn unknown(spec: &KubernetesSpec) -> StepError {
    let text = format!("this agent does not know how to run {}", spec.action.kind());
    StepError::new(Class::BadSpec, "KUBE-001", text).hint("use an agent whose version knows this step")
}
