//! Waits until objects are what they were asked to be, by watching them.
//!
//! ```text
//! watches (objects, ReplicaSets, pods, warnings) --Change--> Picture --assess--> Ready | Waiting | Failed + evidence
//! ```
//! One list and one open watch per collection, so that the number of requests depends on neither time nor pods. What is
//! concluded is a function of the picture and the time since the start ([`Picture`] does no I/O). A wait changes
//! nothing in the cluster.

mod cause;
mod ending;
mod evidence;
mod expression;
mod faults;
mod picture;
mod resources;
mod rules;
mod view;
mod waiter;
mod watch;
mod wire;

pub use cause::{Cause, Limits};
pub use rules::{Verdict, judge};

use executor_api::{CancelReason, StepContext, StepError, UnitLog};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use view::{ClusterEvent, Pod, ReplicaSet};
use waiter::Waiter;
use watch::News;
use wire::Wire;

/// Pods and warnings that are older than the wait by more than this belong to something before it.
const LOOK_BACK: Duration = Duration::from_secs(60);

/// One object to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// `apps/v1`, `v1`, `batch/v1` …
    pub api_version: String,
    /// `Deployment` …
    pub kind: String,
    /// Namespace; empty for objects of the whole cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{namespace}/{}/{}", self.kind, self.name),
        }
    }
}

/// What was found when everything was ready.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// In the order of the targets.
    pub targets: Vec<TargetReport>,
    /// Requests sent to the API server.
    pub requests: u64,
    /// How many of them took up a watch that the server had ended. A server that is short of CPU ends the watches of all
    /// whose events it cannot write fast enough, and each is taken up where it was, without a new list.
    pub resumed: u64,
}

/// One ready object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetReport {
    /// Which.
    pub target: Target,
    /// `3 of 3 pods available`.
    pub summary: String,
    /// The object as it was then, without `managedFields`.
    pub object: Value,
    /// Its running pods.
    pub pods: Vec<Instance>,
}

/// A running pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Uid.
    pub uid: String,
    /// Address; empty when it has none yet.
    pub ip: String,
    /// Node.
    pub node: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name, image and id of each container.
    pub containers: Vec<(String, String, String)>,
    /// It is ready to serve.
    pub ready: bool,
    /// It is of the revision that was waited for.
    pub of_new_revision: bool,
}

impl Instance {
    fn of(pod: &Pod, of_new_revision: bool) -> Instance {
        let id = |name: &str| {
            let status = pod.status.container_statuses.iter().find(|s| s.name == name);
            status.map(|s| s.container_id.clone()).unwrap_or_default()
        };
        let containers = pod.spec.containers.iter().map(|c| (c.name.clone(), c.image.clone(), id(&c.name)));
        Instance {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ip: pod.status.pod_ip.clone(),
            node: pod.spec.node_name.clone(),
            labels: pod.metadata.labels.clone(),
            containers: containers.collect(),
            ready: pod.is_ready(),
            of_new_revision,
        }
    }
}

/// What the watches tell.
#[derive(Debug)]
pub(crate) enum Change {
    Object(News<Value>),
    Pod(News<Pod>),
    Set(News<ReplicaSet>),
    Event(News<ClusterEvent>),
}

/// Why a wait ended without success.
pub(crate) enum Ended {
    Cancelled(CancelReason),
    LogClosed,
    Failed { index: usize, cause: Cause, text: String, exit: Option<i32> },
    Refused { what: String, code: u16, message: String },
}

impl From<executor_api::LogClosed> for Ended {
    fn from(_: executor_api::LogClosed) -> Ended {
        Ended::LogClosed
    }
}

/// Waits until every target is ready, or one of them can never be, with [`Limits::default`].
///
/// Progress, warnings of the cluster and, on failure, the evidence are written to `log`.
///
/// **Errors**: `KUBE-040` … `KUBE-052` with the evidence, [`Class::RemoteFailed`]; `KUBE-053` when the API server
/// refuses; `KUBE-054` on cancel. **Cancel**: returns at once and changes nothing. **Repeat**: safe.
pub async fn wait(
    client: &kube::Client,
    targets: &[Target],
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<Report, StepError> {
    wait_with(client, targets, cx, log, &Limits::default()).await
}

/// [`wait`] with limits of the caller's choice.
pub async fn wait_with(
    client: &kube::Client,
    targets: &[Target],
    cx: &StepContext,
    log: &dyn UnitLog,
    limits: &Limits,
) -> Result<Report, StepError> {
    if targets.is_empty() {
        return Ok(Report::default());
    }
    let wire = Wire::new(client.clone());
    let mut waiter = Waiter::new(wire, targets, cx, log, limits);
    let result = tokio::select! {
        biased;
        (reason, _) = cx.cancel.wait() => Err(Ended::Cancelled(reason)),
        result = waiter.run() => result,
    };
    // Ends every watch, also those in the middle of a request.
    waiter.watches.shutdown().await;
    match result {
        Ok(()) => Ok(waiter.report()),
        Err(ended) => Err(waiter.explain(ended).await),
    }
}

/// The label selector of an object's pods, as a query has it.
pub(crate) fn selector_of(kind: &str, object: &Value) -> Option<String> {
    resources::selector(kind, object)?.labels
}
