//! Why documents cannot become a canary, a colour or a route.

use executor_api::{Class, StepError};

/// What is wrong with the documents or with what lives in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the manifest has no workload to copy: it needs one Deployment, or one StatefulSet")]
    NoWorkload,
    #[error("the manifest has several workloads to copy: {}", .0.join(", "))]
    SeveralWorkloads(Vec<String>),
    #[error("the manifest has no Service that could carry the production traffic")]
    NoService,
    #[error("the manifest has several Services and does not say which carries the {role} traffic: {}", .services.join(", "))]
    SeveralServices { role: &'static str, services: Vec<String> },
    #[error(
        "Service {service} lives in the cluster without the label harness.io/color in its selector (it selects {selector})"
    )]
    Colourless { service: String, selector: String },
    #[error("Service {service} selects the colour {found:?}; a colour is blue or green")]
    BadColour { service: String, found: String },
    #[error("Service {0} does not exist")]
    ServiceMissing(String),
    #[error(
        "Service {service} was changed by somebody else meanwhile: it selects {found}, expected {expected}"
    )]
    ServiceChanged { service: String, found: String, expected: String },
    #[error("no pod of the colour {color} is ready (selected by {selector}): {service} would answer nothing")]
    NoPods { service: String, color: &'static str, selector: String },
    #[error("{field}: {problem}")]
    Routing { field: String, problem: String },
    #[error("{0}")]
    Unroutable(String),
}

impl Fault {
    /// The step's error.
    pub(crate) fn into_step(self) -> StepError {
        let (class, code, hint) = match &self {
            Fault::NoWorkload => (
                Class::BadSpec,
                "KUBE-080",
                "add the workload to the manifest, or remove harness.io/direct-apply from it",
            ),
            Fault::SeveralWorkloads(_) => (
                Class::BadSpec,
                "KUBE-080",
                "annotate all but one with harness.io/direct-apply: \"true\", or deploy them as services of their own",
            ),
            Fault::NoService => (
                Class::BadSpec,
                "KUBE-081",
                "add a Service to the manifest; blue-green moves traffic by its selector",
            ),
            Fault::SeveralServices { .. } => (
                Class::BadSpec,
                "KUBE-081",
                "annotate one with harness.io/primary-service: \"true\" and, if there is one, the other with \
                 harness.io/stage-service: \"true\"",
            ),
            Fault::Colourless { .. } | Fault::BadColour { .. } => (
                Class::Verification,
                "KUBE-082",
                "the Service carries traffic that blue-green does not know: delete it, or give its selector and the \
                 pods behind it harness.io/color: blue",
            ),
            Fault::ServiceMissing(_) => {
                (Class::BadSpec, "KUBE-083", "run K8sBlueGreenDeploy first; it makes both Services")
            }
            Fault::ServiceChanged { .. } => (
                Class::Verification,
                "KUBE-084",
                "nothing more was changed; find out who changed it (managedFields) and run the step again",
            ),
            Fault::NoPods { .. } => (
                Class::Verification,
                "KUBE-087",
                "production stays where it is; deploy that colour, or scale it up, and swap then",
            ),
            Fault::Routing { .. } => (Class::BadSpec, "KUBE-085", "correct trafficRouting of the step"),
            Fault::Unroutable(_) => (
                Class::BadSpec,
                "KUBE-086",
                "nothing was routed; the page of this code lists what each provider needs",
            ),
        };
        let target = match &self {
            Fault::NoWorkload
            | Fault::SeveralWorkloads(_)
            | Fault::NoService
            | Fault::SeveralServices { .. } => "manifest",
            Fault::Colourless { service, .. }
            | Fault::BadColour { service, .. }
            | Fault::ServiceMissing(service)
            | Fault::NoPods { service, .. }
            | Fault::ServiceChanged { service, .. } => service,
            Fault::Routing { field, .. } => field,
            Fault::Unroutable(_) => "trafficRouting",
        };
        StepError::new(class, code, self.to_string()).hint(hint).target(target)
    }
}
