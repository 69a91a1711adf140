//! Why something cannot become ready: each with its error code, class and advice.

use executor_api::Class;
use std::time::Duration;

/// The kind of evidence that a wait ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// An image cannot be pulled.
    ImagePull,
    /// A container ends again and again.
    Crash,
    /// A container uses more memory than it may.
    OutOfMemory,
    /// No node takes the pod.
    Unschedulable,
    /// The API server refuses new pods: quota, admission, policy.
    Refused,
    /// The Deployment made no progress for its `progressDeadlineSeconds`.
    ProgressDeadline,
    /// A Job gave up.
    Job,
    /// Nodes throw the pods out again and again.
    Rejected,
    /// A container cannot be made from what it names: ConfigMap, Secret, volume.
    Config,
    /// The object is not there, or was deleted in the meantime.
    Missing,
    /// The object says so itself by a condition or phase.
    Failed,
    /// It is paused.
    Paused,
    /// The expression of `harness.io/steadyStateCondition` cannot be evaluated.
    Expression,
}

impl Cause {
    /// Code with a page in `docs/errors`.
    pub fn code(self) -> &'static str {
        match self {
            Cause::ImagePull => "KUBE-040",
            Cause::Crash => "KUBE-041",
            Cause::OutOfMemory => "KUBE-042",
            Cause::Unschedulable => "KUBE-043",
            Cause::Refused => "KUBE-044",
            Cause::ProgressDeadline => "KUBE-045",
            Cause::Job => "KUBE-046",
            Cause::Rejected => "KUBE-047",
            Cause::Config => "KUBE-048",
            Cause::Missing => "KUBE-049",
            Cause::Failed => "KUBE-050",
            Cause::Paused => "KUBE-051",
            Cause::Expression => "KUBE-052",
        }
    }

    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Cause::ImagePull => "check the image's name and tag, and the imagePullSecrets of the pod",
            Cause::Crash => {
                "read the container's last lines above; check its command, environment and configuration"
            }
            Cause::OutOfMemory => "raise the container's memory limit, or lower what it uses",
            Cause::Unschedulable => {
                "ask for less CPU and memory, or add nodes that fit; check selectors and tolerations"
            }
            Cause::Refused => "change what the server names: quota, limit, policy or admission webhook",
            Cause::ProgressDeadline => {
                "see the pods above; when they only need longer, raise spec.progressDeadlineSeconds"
            }
            Cause::Job => {
                "read the last lines of its pod above; raise backoffLimit or activeDeadlineSeconds if it needs it"
            }
            Cause::Rejected => "look at the nodes: memory, disk and their taints",
            Cause::Config => "create what the message names, or correct the reference to it",
            Cause::Missing => "find out who deletes it, or correct its name and namespace",
            Cause::Failed => "see the message of its controller",
            Cause::Paused => "resume it first, with a K8sRollout step (command resume)",
            Cause::Expression => "correct the annotation harness.io/steadyStateCondition",
        }
    }

    /// For decisions: the workload failed, not the way to it.
    pub fn class(self, exit: Option<i32>) -> Class {
        match self {
            Cause::Expression => Class::BadSpec,
            Cause::Crash | Cause::OutOfMemory | Cause::Job => Class::RemoteFailed { code: exit.unwrap_or(1) },
            _ => Class::RemoteFailed { code: 1 },
        }
    }
}

/// How much patience each kind of evidence gets before it is conclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Restarts of one container after which it is a crash loop.
    pub restarts: u32,
    /// The same when its last end was for memory.
    pub memory_kills: u32,
    /// A pull that failed for a reason that does not pass: no such image, no permission.
    pub pull_refused: Duration,
    /// A pull that failed for another reason: network, registry down.
    pub pull_troubled: Duration,
    /// A ConfigMap, Secret or volume that is not there.
    pub config: Duration,
    /// A refusal of pods that does not pass by itself (quota, policy), while nothing of the workload goes away.
    pub refused: Duration,
    /// A refusal that may pass: a webhook that does not answer.
    pub refused_troubled: Duration,
    /// A pod that fits no node even when the node is empty, where no autoscaler is.
    pub never_fits: Duration,
    /// A pod that fits no node now.
    pub unschedulable: Duration,
    /// The same where an autoscaler may bring nodes.
    pub autoscaler: Duration,
    /// So many pods were thrown out.
    pub rejected_pods: usize,
    /// A container that ended before must run this long until its pod counts.
    pub proven_after_crash: Duration,
    /// A progress deadline that was exceeded before the wait began counts at once. For `K8sRollout status`.
    pub trust_old_deadline: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            restarts: 3,
            memory_kills: 2,
            pull_refused: Duration::from_secs(5),
            pull_troubled: Duration::from_secs(120),
            config: Duration::from_secs(30),
            refused: Duration::from_secs(6),
            refused_troubled: Duration::from_secs(60),
            never_fits: Duration::from_secs(6),
            unschedulable: Duration::from_secs(300),
            autoscaler: Duration::from_secs(900),
            rejected_pods: 3,
            proven_after_crash: Duration::from_secs(10),
            trust_old_deadline: false,
        }
    }
}
