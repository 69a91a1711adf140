//! The running wait: looks in, lines and a report out.

use super::judge::{Failure, Judge, News, Patience, Verdict, Wants};
use super::poller::{Sight, Subscription};
use super::tasks::Task;
use super::told::{Told, left, span, stopped_line};
use super::view::{Service, ServiceDeployment};
use super::{Options, Report, Target, ending, evidence, instances, roster};
use crate::documents::arn::short;
use crate::error::log_closed;
use crate::session::{Session, ecs};
use aws::Fault;
use aws::document::list;
use executor_api::{CancelReason, Level, StepError, UnitLog};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Stopped tasks whose reasons are shown at the end, by reason.
const SHOWN_REASONS: usize = 5;
/// Old tasks that take longer than this to go are told why.
const LONG_DRAIN: Duration = Duration::from_secs(60);

/// Why a wait ended without success.
enum Ended {
    Failed(Failure),
    Cancelled(CancelReason),
    /// The log is closed, or AWS refuses to show what is needed.
    Error(StepError),
}

impl From<StepError> for Ended {
    fn from(error: StepError) -> Ended {
        Ended::Error(error)
    }
}

impl From<executor_api::LogClosed> for Ended {
    fn from(closed: executor_api::LogClosed) -> Ended {
        Ended::Error(log_closed(closed))
    }
}

pub(super) struct Waiter<'a> {
    session: &'a Session,
    target: &'a Target,
    log: &'a dyn UnitLog,
    options: Options,
    judge: Judge,
    told: Told,
    started: Instant,
    blocker: String,
    /// Running tasks as they were found last.
    tasks: Vec<Value>,
    /// Stopped tasks cannot be listed.
    blind: bool,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(
        session: &'a Session,
        target: &'a Target,
        log: &'a dyn UnitLog,
        options: Options,
    ) -> Waiter<'a> {
        let patience = Patience {
            settle: session.settings.settle,
            same_reason: session.settings.same_reason_limit,
            fail_fast: options.fail_fast,
            bake: session.cx.rehearsed(options.bake),
            ..Patience::default()
        };
        Waiter {
            session,
            target,
            log,
            options,
            judge: Judge::new(target.clone(), patience),
            told: Told::new(target),
            started: session.cx.clock.mono(),
            blocker: String::new(),
            tasks: Vec::new(),
            blind: false,
        }
    }

    pub(super) async fn run(mut self) -> Result<Report, StepError> {
        let mut seat = self.session.watch(&self.target.service);
        let cancel = self.session.cx.cancel.clone();
        let result = tokio::select! {
            biased;
            (reason, _) = cancel.wait() => Err(Ended::Cancelled(reason)),
            result = self.rollout(&mut seat) => result,
        };
        if let Err(ended) = result {
            return Err(self.explain(ended).await);
        }
        let steady = self.judge.steady_at().unwrap_or_default();
        let mut phases = vec![("rollout", steady)];
        if !self.options.bake.is_zero() {
            phases.push(("bake", self.passed().saturating_sub(steady)));
        }
        if let Some(limit) = self.options.drain {
            let begun = self.session.cx.clock.mono();
            self.drain(&mut seat, limit).await?;
            phases.push(("drain", self.session.cx.clock.mono().saturating_duration_since(begun)));
        }
        let words: Vec<String> =
            phases.iter().map(|(name, took)| format!("{name} {}", span(*took))).collect();
        let text = format!("service {} is steady ({})", self.target.service, words.join(", "));
        self.say(Level::Info, &text).await?;
        Ok(Report { instances: instances::shown(&self.target.service, &self.tasks), phases })
    }

    fn passed(&self) -> Duration {
        self.session.cx.clock.mono().saturating_duration_since(self.started)
    }

    async fn say(&self, level: Level, text: &str) -> Result<(), StepError> {
        self.session.say(self.log, level, text).await
    }

    async fn rollout(&mut self, seat: &mut Subscription) -> Result<(), Ended> {
        let mut heartbeat = self.started + self.session.settings.heartbeat;
        loop {
            let look = tokio::select! {
                look = seat.look() => look,
                () = self.session.cx.clock.sleep_until(heartbeat) => {
                    heartbeat += self.session.settings.heartbeat;
                    self.heartbeat().await?;
                    continue;
                }
            };
            let Some(found) = self.seen(look.sight).await? else { continue };
            let passed = self.passed();
            let (verdict, wants) = self.judge.apply(News::Service(found.as_ref()), passed);
            if let Some(service) = &found {
                for (level, line) in self.told.service(service, self.target) {
                    self.say(level, &line).await?;
                }
            }
            // What AWS is asked for takes a while; other looks would be for nothing.
            seat.hold(true);
            match self.satisfy(verdict, wants).await? {
                Verdict::Going(blocker) => {
                    self.blocker = blocker;
                    seat.hold(false);
                }
                // Still held: a look that is due would be asked for before the seat is given back.
                Verdict::Succeeded => return Ok(()),
                Verdict::Failed(failure) => return Err(Ended::Failed(failure)),
            }
        }
    }

    /// The service as a look shows it; outer `None`: it shows nothing.
    async fn seen(&mut self, sight: Sight) -> Result<Option<Option<Service>>, Ended> {
        if let Sight::Troubled(what) = &sight {
            if self.told.is_new("trouble", what) {
                let text = format!("ECS cannot be asked about the service: {what}; it is asked again");
                self.say(Level::Warn, &text).await?;
            }
            return Ok(None);
        }
        if self.told.over("trouble") {
            self.say(Level::Info, "ECS answers again").await?;
        }
        Ok(Some(match sight {
            Sight::Found(service) => Some(Service::clone(&service)),
            Sight::Missing | Sight::Troubled(_) => None,
            // Asked alone, for the reason, or because only the others were refused.
            Sight::Refused => {
                self.session.service(&self.target.service).await?.map(|value| Service::read(&value))
            }
        }))
    }

    /// Shows the judge what it wants to see.
    async fn satisfy(&mut self, mut verdict: Verdict, mut wants: Wants) -> Result<Verdict, Ended> {
        if wants.stopped {
            let stopped = self.stopped().await?;
            let passed = self.passed();
            let (now, more) = self.judge.apply(News::Stopped(&stopped), passed);
            for (level, line) in self.told.stopped(self.judge.stopped()) {
                self.say(level, &line).await?;
            }
            (verdict, wants) = (now, more);
        }
        if wants.service_deployment {
            let told = self.service_deployment().await?;
            let passed = self.passed();
            (verdict, wants) = self.judge.apply(News::ServiceDeployment(told), passed);
        }
        if wants.running {
            match roster::running(self.session, &self.target.service).await {
                Ok(tasks) => self.tasks = tasks,
                Err(Fault::Cancelled(reason)) => return Err(Ended::Cancelled(reason)),
                Err(fault) if fault.may_pass() => {
                    return Ok(Verdict::Going(format!("its tasks cannot be listed: {fault}")));
                }
                Err(fault) => return Err(self.session.fault(fault, "list the tasks of the service").into()),
            }
            let tasks: Vec<Task> = self.tasks.iter().map(Task::read).collect();
            let passed = self.passed();
            (verdict, _) = self.judge.apply(News::Running(&tasks), passed);
        }
        Ok(verdict)
    }

    /// Stopped tasks that the judge does not know.
    async fn stopped(&mut self) -> Result<Vec<Task>, Ended> {
        if self.blind {
            return Ok(Vec::new());
        }
        let read = async {
            let mut arns = instances::arns(self.session, &self.target.service, "STOPPED").await?;
            arns.retain(|arn| !self.judge.stopped().knows(arn));
            instances::described(self.session, &arns).await
        };
        match read.await {
            Ok(tasks) => Ok(tasks.iter().map(Task::read).collect()),
            Err(Fault::Cancelled(reason)) => Err(Ended::Cancelled(reason)),
            Err(fault) => {
                self.blind = !fault.may_pass();
                let text = format!("stopped tasks cannot be listed, so they are no evidence: {fault}");
                if self.told.is_new("stopped", &text) {
                    self.say(Level::Warn, &text).await?;
                }
                Ok(Vec::new())
            }
        }
    }

    async fn service_deployment(&mut self) -> Result<Option<ServiceDeployment>, Ended> {
        let Some(arn) = &self.target.service_deployment else { return Ok(None) };
        let input = json!({"serviceDeploymentArns": [arn]});
        match self.session.read(ecs("DescribeServiceDeployments"), input).await {
            Ok(answer) => Ok(list(&answer, &["serviceDeployments"]).first().map(ServiceDeployment::read)),
            Err(Fault::Cancelled(reason)) => Err(Ended::Cancelled(reason)),
            Err(fault) => {
                let text = format!("the service deployment cannot be described: {fault}");
                if self.told.is_new("service deployment", &text) {
                    self.say(Level::Warn, &text).await?;
                }
                Ok(None)
            }
        }
    }

    async fn heartbeat(&mut self) -> Result<(), Ended> {
        let left = self.session.cx.time_left();
        let text =
            format!("still waiting after {} ({} left): {}", span(self.passed()), span(left), self.blocker);
        self.say(Level::Info, &text).await?;
        let groups = self.judge.service().map(|service| service.target_groups.clone()).unwrap_or_default();
        let health = evidence::target_health(self.session, &groups).await.join("\n");
        if self.told.is_new("health", &health) && !health.is_empty() {
            self.say(Level::Warn, &health).await?;
        }
        Ok(())
    }

    /// Waits until tasks of earlier deployments have gone. What goes wrong here is told and changes nothing: ours has
    /// succeeded.
    async fn drain(&mut self, seat: &mut Subscription, limit: Duration) -> Result<(), StepError> {
        let clock = self.session.cx.clock.clone();
        let begun = clock.mono();
        // The step must not time out for it.
        let until = begun + limit.min(self.session.cx.time_left() / 2);
        let mut hinted = false;
        let mut service = self.judge.service().cloned();
        loop {
            let Some(now) = &service else { return Ok(()) };
            let others = others(now, self.target);
            if others.is_empty() {
                return Ok(());
            }
            let text = format!("old tasks: {}", others.join(", "));
            if self.told.is_new("old tasks", &text) {
                self.say(Level::Info, &text).await?;
            }
            if !hinted && clock.mono() >= begun + LONG_DRAIN {
                hinted = true;
                let text = "they wait for the deregistration delay of their target group (300 s unless set otherwise) and for stopTimeout";
                self.say(Level::Info, text).await?;
            }
            seat.hold(false);
            let look = tokio::select! {
                biased;
                _ = self.session.cx.cancel.wait() => None,
                () = clock.sleep_until(until) => None,
                look = seat.look() => Some(look),
            };
            match look.map(|look| look.sight) {
                None => {
                    let text = format!("{text}; they are left to AWS");
                    return self.say(Level::Warn, &text).await;
                }
                Some(Sight::Found(found)) => {
                    for (level, line) in self.told.service(&found, self.target) {
                        self.say(level, &line).await?;
                    }
                    service = Some(Service::clone(&found));
                }
                Some(_) => {}
            }
        }
    }

    /// Makes the error, after the evidence was told.
    async fn explain(&mut self, ended: Ended) -> StepError {
        let state = self.judge.service().map(left).unwrap_or_default();
        let failure = match ended {
            Ended::Error(error) => return error,
            Ended::Failed(failure) => failure,
            // AWS gave it up already; only its rollback was still waited for.
            Ended::Cancelled(CancelReason::Deadline) if self.judge.failing().is_some() => {
                let Some(failure) = self.judge.failing() else {
                    return crate::error::log_closed(executor_api::LogClosed);
                };
                failure
            }
            Ended::Cancelled(reason) => {
                return ending::cancelled(&self.target.service, reason, &self.blocker, &state);
            }
        };
        if let Ok(stopped) = self.stopped().await {
            let passed = self.passed();
            // The verdict stands; this is for the evidence.
            let _verdict = self.judge.apply(News::Stopped(&stopped), passed);
        }
        let mut screen: Vec<String> = Vec::new();
        let groups = self.judge.stopped().groups();
        screen.extend(groups.iter().rev().take(SHOWN_REASONS).map(stopped_line));
        if groups.len() > SHOWN_REASONS {
            screen.push(format!("and for {} other reasons", groups.len() - SHOWN_REASONS));
        }
        let about = match &failure {
            Failure::Unrecoverable { .. } => self.judge.stopped().worst(),
            _ => groups.last(),
        };
        let last = about.map(|group| group.reason.words.clone());
        let example = about.map(|group| group.example.clone());
        let balanced = self.judge.service().map(|service| service.target_groups.clone()).unwrap_or_default();
        screen.extend(evidence::target_health(self.session, &balanced).await);
        if let Some(task) = example {
            screen.extend(evidence::last_lines(self.session, &task).await);
        }
        if !screen.is_empty() {
            let _the_error_says_it_too = self.log.line(Level::Error, &screen.join("\n")).await;
        }
        ending::failed(self.target, &failure, &state, last.as_deref())
    }
}

/// Tasks of other deployments than ours.
fn others(service: &Service, target: &Target) -> Vec<String> {
    let others = service.deployments.iter().filter(|other| Some(&other.id) != target.deployment.as_ref());
    // Another that is primary by now is none of ours to wait for.
    let others = others.filter(|other| !other.primary && other.live() > 0);
    others.map(|other| format!("{} of {} still run", other.live(), short(&other.task_definition))).collect()
}
