//! What a rollout has come to: a function of what AWS answered so far and of the time.
//!
//! The judge asks for nothing itself; with each verdict it says what it wants to be shown. It decides by ids, revisions,
//! states and counts. Only where ECS gives no state at all (no `rolloutState`) does the "steady state" event shorten a wait,
//! and never decides it (facts A5).

mod conclude;

use super::Target;
use super::tasks::{Cause, Stopped, Task};
use super::view::{Deployment, Rollout, Service, ServiceDeployment};
use std::time::Duration;

/// How patient the judge is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// So long an answer that does not show our own write is taken for late (facts A1).
    pub(crate) settle: Duration,
    /// So many tasks that stopped for one reason that cannot pass end the wait.
    pub(crate) same_reason: u32,
    /// `false`: only AWS gives up.
    pub(crate) fail_fast: bool,
    /// So long the rollout must stay steady.
    pub(crate) bake: Duration,
    /// So long the circuit breaker may take to trip once we would have given up, if it is about to.
    pub(crate) breaker: Duration,
    /// So long AWS may take to begin the rollback it is set to make.
    pub(crate) rollback: Duration,
    /// A service without rollout states must stand still so long.
    pub(crate) still: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            settle: Duration::from_secs(60),
            same_reason: 3,
            fail_fast: true,
            bake: Duration::ZERO,
            breaker: Duration::from_secs(60),
            rollback: Duration::from_secs(30),
            still: Duration::from_secs(30),
        }
    }
}

/// What is new.
pub(crate) enum News<'a> {
    /// An answer of DescribeServices; `None`: the service is MISSING.
    Service(Option<&'a Service>),
    /// Stopped tasks of the service, those of others among them.
    Stopped(&'a [Task]),
    /// All running tasks of the service.
    Running(&'a [Task]),
    /// What DescribeServiceDeployments says of ours; `None` when it cannot be had.
    ServiceDeployment(Option<ServiceDeployment>),
}

/// What the judge wants to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) stopped: bool,
    pub(crate) running: bool,
    pub(crate) service_deployment: bool,
}

/// What it has come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Not over; what stands in the way, in words.
    Going(String),
    /// Our revision runs as asked.
    Succeeded,
    /// It will not come to that.
    Failed(Failure),
}

/// How a rollback that AWS made stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollback {
    Done,
    Running,
    Failed,
}

/// Why a rollout failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// AWS gave it up and brought back `to`.
    RolledBack { to: String, reason: String, state: Rollback },
    /// Somebody else deployed meanwhile.
    Superseded { deployment: String, task_definition: String, ours_failed: Option<String> },
    /// AWS gave it up, and that was all.
    Broken { reason: String, rollback_expected: bool },
    /// Its tasks stop for a reason that does not pass.
    Unrecoverable { cause: Cause, words: String, times: u32, exit: Option<i32> },
    /// The service is being deleted, or gone.
    NotActive { status: String },
    /// Somebody stopped the deployment.
    Stopped { status: String, reason: String },
}

/// The state. Times are counted from the beginning of the wait.
#[derive(Debug)]
pub(crate) struct Judge {
    target: Target,
    patience: Patience,
    now: Duration,
    /// The newest answer that is not from before our write.
    service: Option<Service>,
    seen_at: Duration,
    missing: bool,
    /// The newest answer is from before our write.
    late: bool,
    /// The count that was asked for was seen.
    count_seen: bool,
    /// AWS declared our deployment failed: why, when.
    failed: Option<(String, Duration)>,
    told: Option<ServiceDeployment>,
    told_asked: bool,
    stopped: Stopped,
    outlived: bool,
    limit_at: Option<Duration>,
    running: Option<u32>,
    steady_since: Option<Duration>,
    still: (Vec<u32>, Duration),
    progress: (Vec<u32>, Duration),
    failed_tasks: u32,
    looked_at: Duration,
}

/// First look for stopped tasks of a rollout that does not move; the next ones take as long again, up to a minute.
const FIRST_LOOK: Duration = Duration::from_secs(15);
const LAST_LOOK: Duration = Duration::from_secs(60);

impl Judge {
    pub(crate) fn new(target: Target, patience: Patience) -> Judge {
        Judge {
            target,
            patience,
            now: Duration::ZERO,
            service: None,
            seen_at: Duration::ZERO,
            missing: false,
            late: true,
            count_seen: false,
            failed: None,
            told: None,
            told_asked: false,
            stopped: Stopped::default(),
            outlived: false,
            limit_at: None,
            running: None,
            steady_since: None,
            still: (Vec::new(), Duration::ZERO),
            progress: (Vec::new(), Duration::ZERO),
            failed_tasks: 0,
            looked_at: Duration::ZERO,
        }
    }

    /// The newest answer that counts.
    pub(crate) fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// Tasks that stopped.
    pub(crate) fn stopped(&self) -> &Stopped {
        &self.stopped
    }

    /// When everything was as asked for the first time of those that lasted.
    pub(crate) fn steady_at(&self) -> Option<Duration> {
        self.steady_since
    }

    /// Takes in what is new at `now`, and says what it has come to.
    pub(crate) fn apply(&mut self, news: News<'_>, now: Duration) -> (Verdict, Wants) {
        self.now = self.now.max(now);
        let mut wants = Wants::default();
        match news {
            News::Service(answer) => {
                self.take_service(answer);
                wants.stopped = self.wants_stopped();
            }
            News::Stopped(tasks) => self.stopped.take(&self.target, tasks),
            News::Running(tasks) => {
                self.outlived = self.stopped.outlived(tasks);
                let ours = |task: &&Task| task.last_status == "RUNNING" && task.is_of(&self.target);
                self.running = Some(u32::try_from(tasks.iter().filter(ours).count()).unwrap_or(u32::MAX));
            }
            News::ServiceDeployment(told) => {
                self.told_asked = true;
                self.told = told;
            }
        }
        let verdict = self.judge(&mut wants);
        (verdict, wants)
    }

    fn take_service(&mut self, answer: Option<&Service>) {
        self.running = None;
        let Some(service) = answer else {
            self.missing = true;
            return;
        };
        self.missing = false;
        self.late = self.is_late(service);
        if self.late {
            return;
        }
        self.seen_at = self.now;
        self.count_seen |= self.target.desired.is_none_or(|asked| asked == service.desired)
            || self.now >= self.patience.settle;
        if let Some(ours) = self.ours(service) {
            if ours.rollout == Some(Rollout::Failed) && self.failed.is_none() {
                self.failed = Some((ours.reason.clone(), self.now));
            }
            let counts = vec![ours.desired, ours.running, ours.pending, ours.failed];
            if self.progress.0 != counts {
                self.progress = (counts, self.now);
                self.looked_at = self.now;
            }
        }
        let counts: Vec<u32> = [service.desired, service.running, service.pending]
            .into_iter()
            .chain(service.deployments.iter().map(Deployment::live))
            .collect();
        if self.still.0 != counts {
            self.still = (counts, self.now);
        }
        self.service = Some(service.clone());
    }

    /// Our deployment in an answer.
    fn ours<'a>(&self, service: &'a Service) -> Option<&'a Deployment> {
        match &self.target.deployment {
            Some(id) => service.deployments.iter().find(|deployment| deployment.id == *id),
            None => {
                service.primary().filter(|primary| primary.task_definition == self.target.task_definition)
            }
        }
    }

    /// Whether an answer may be from before our write. One that shows our deployment is not, nor one that shows something
    /// younger than it.
    fn is_late(&self, service: &Service) -> bool {
        if self.now >= self.patience.settle || self.ours(service).is_some() {
            return false;
        }
        if self.target.deployment.is_none() && self.target.task_definition.is_empty() {
            // Nothing but the count was asked for, and that is looked at by itself.
            return false;
        }
        let Some(begun) = self.target.created else { return true };
        let times = service.deployments.iter().flat_map(|d| [d.created, d.updated]);
        let times = times.chain(service.events.iter().map(|event| event.at));
        !times.flatten().any(|at| at > begun)
    }

    /// A growing count of failed tasks is looked into at once, a standstill from time to time.
    fn wants_stopped(&mut self) -> bool {
        let Some(ours) = self.service.as_ref().and_then(|service| self.ours(service)) else { return false };
        let (failed, complete) = (ours.failed, ours.rollout == Some(Rollout::Completed));
        let grown = failed > self.failed_tasks;
        self.failed_tasks = failed;
        let moved = self.progress.1;
        let pause = self.looked_at.saturating_sub(moved).clamp(FIRST_LOOK, LAST_LOOK);
        let wants = grown || (!complete && self.now >= self.looked_at + pause);
        if wants {
            self.looked_at = self.now;
        }
        wants
    }

    fn judge(&mut self, wants: &mut Wants) -> Verdict {
        if self.missing {
            return if self.now < self.seen_at + self.patience.settle {
                Verdict::Going("ECS does not show the service".to_owned())
            } else {
                Verdict::Failed(Failure::NotActive { status: "MISSING".to_owned() })
            };
        }
        let Some(service) = self.service.clone().filter(|_| !self.late) else {
            return Verdict::Going("ECS does not show the change yet".to_owned());
        };
        if service.status != "ACTIVE" {
            return Verdict::Failed(Failure::NotActive { status: service.status });
        }
        if service.native
            && let Some(verdict) = self.native(wants)
        {
            return verdict;
        }
        let primary = service.primary();
        match (self.ours(&service), primary) {
            (Some(ours), _) if ours.primary => self.leading(&service, &ours.clone(), wants),
            (ours, Some(primary)) => {
                let unfailed = ours.is_some_and(|ours| ours.rollout != Some(Rollout::Failed));
                self.lost(&service, primary, unfailed, wants)
            }
            // A service without deployments: others control it, and only its counts say anything.
            (None, None) if self.target.deployment.is_none() => self.counted(&service, None, wants),
            (_, None) => Verdict::Going("ECS shows no primary deployment".to_owned()),
        }
    }

    /// The failure as far as it is known, for a wait that is ended while AWS still rolls back.
    pub(crate) fn failing(&self) -> Option<Failure> {
        let (reason, _) = self.failed.as_ref()?;
        let primary = self.service.as_ref().and_then(Service::primary)?;
        if Some(&primary.id) == self.target.deployment.as_ref() {
            return Some(Failure::Broken { reason: reason.clone(), rollback_expected: true });
        }
        let to = primary.task_definition.clone();
        Some(Failure::RolledBack { to, reason: reason.clone(), state: Rollback::Running })
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
