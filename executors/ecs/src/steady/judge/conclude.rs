//! The verdicts, one for each place that our deployment can be in.

use super::{Failure, Judge, Rollback, Verdict, Wants};
use crate::documents::arn::short;
use crate::steady::tasks::Cause;
use crate::steady::view::{Deployment, Rollout, Service};

impl Judge {
    /// Ours is the deployment that ECS works towards.
    pub(super) fn leading(&mut self, service: &Service, ours: &Deployment, wants: &mut Wants) -> Verdict {
        if let Some((reason, at)) = self.failed.clone() {
            let others = service
                .deployments
                .iter()
                .any(|other| !other.primary && other.rollout != Some(Rollout::Failed));
            let expected = service.rolls_back() && (others || self.target.previous_task_definition.is_some());
            if expected && self.now < at + self.patience.rollback {
                return Verdict::Going(format!(
                    "AWS gave the deployment up ({reason}) and is to roll it back"
                ));
            }
            return Verdict::Failed(Failure::Broken { reason, rollback_expected: expected });
        }
        if let Some(failure) = self.unrecoverable(service, ours, wants) {
            return Verdict::Failed(failure);
        }
        self.counted(service, Some(ours), wants)
    }

    /// Whether what runs is what was asked for.
    pub(super) fn counted(
        &mut self,
        service: &Service,
        ours: Option<&Deployment>,
        wants: &mut Wants,
    ) -> Verdict {
        let (desired, running) =
            ours.map_or((service.desired, service.running), |ours| (ours.desired, ours.running));
        // Somebody may change the count while we wait. More than was asked for is not ours to wait for; none at all is.
        let need = match self.target.desired {
            Some(asked) if asked > 0 => asked.min(desired),
            _ => desired,
        };
        if let Some(blocker) = self.blocker(service, ours, need) {
            self.steady_since = None;
            return Verdict::Going(blocker);
        }
        let since = *self.steady_since.get_or_insert(self.now);
        let left = self.patience.bake.saturating_sub(self.now.saturating_sub(since));
        if !left.is_zero() {
            return Verdict::Going(format!("steady; it must stay so for {} s more", left.as_secs()));
        }
        match self.running {
            _ if need == 0 => Verdict::Succeeded,
            Some(found) if found >= need => Verdict::Succeeded,
            Some(found) => Verdict::Going(format!(
                "ECS counts {running} running tasks, but {found} of {need} of {} are found",
                short(&self.target.task_definition)
            )),
            None => {
                wants.running = true;
                Verdict::Going("steady; looking at its tasks".to_owned())
            }
        }
    }

    /// What is not as asked; `None` when nothing is.
    fn blocker(&self, service: &Service, ours: Option<&Deployment>, need: u32) -> Option<String> {
        if !self.count_seen {
            return Some("ECS does not show the new count yet".to_owned());
        }
        if let Some(other) =
            ours.map(|ours| &ours.task_definition).filter(|of| **of != self.target.task_definition)
        {
            return Some(format!("the deployment is of {}, not of ours", short(other)));
        }
        let (desired, running, pending) = ours
            .map_or((service.desired, service.running, service.pending), |ours| {
                (ours.desired, ours.running, ours.pending)
            });
        let state = || Some(self.in_words(service, ours));
        if running < need || running > desired {
            return state();
        }
        if desired == 0 && service.running + service.pending > 0 {
            return Some(format!("{} tasks still run, {} are pending", service.running, service.pending));
        }
        match ours.map(|ours| (ours.rollout, ours.steady)) {
            Some((Some(Rollout::Completed), _) | (None, Some(true))) => None,
            // Nothing is to run and nothing does; a rollout of nothing need not complete. The tasks of a daemon may be
            // yet to be counted.
            Some((Some(_), _)) if self.target.desired == Some(0) && desired == 0 => None,
            Some((Some(_), _)) if running < desired => state(),
            Some((Some(_), _)) => {
                let mut words = self.in_words(service, ours);
                words.push_str("; ECS still replaces others or looks at their health");
                Some(words)
            }
            Some((None, Some(false))) => state(),
            Some((None, None)) | None => {
                let others = service.deployments.iter().any(|other| !other.primary && other.live() > 0);
                if others || pending > 0 || running != desired {
                    return state();
                }
                let since = ours.and_then(|ours| ours.updated);
                let told = service.events.iter().any(|event| {
                    event.at.is_some()
                        && event.at >= since
                        && event.message.ends_with("has reached a steady state.")
                });
                let still = self.now.saturating_sub(self.still.1) >= self.patience.still;
                (!told && !still)
                    .then(|| format!("{running} of {desired} tasks run; waiting for it to stay so"))
            }
        }
    }

    /// `1 of 4 tasks of web:8 run, 1 pending, 2 failed; last reason: …`.
    fn in_words(&self, service: &Service, ours: Option<&Deployment>) -> String {
        let name = ours.map_or(self.target.task_definition.as_str(), |ours| ours.task_definition.as_str());
        let (desired, running, pending, failed) = match ours {
            Some(ours) => (ours.desired, ours.running, ours.pending, ours.failed),
            None => (service.desired, service.running, service.pending, 0),
        };
        let mut words = format!("{running} of {desired} tasks of {} run", short(name));
        for (number, what) in [(pending, "pending"), (failed, "failed")] {
            if number > 0 {
                words.push_str(&format!(", {number} {what}"));
            }
        }
        if let Some(last) = self.last_reason(service) {
            words.push_str(&format!("; last reason: {last}"));
        }
        words
    }

    /// The newest reason for which a task stopped or could not be placed.
    fn last_reason(&self, service: &Service) -> Option<String> {
        let group = self.stopped.groups().last();
        let ours = |at: Option<i64>| at >= self.target.created;
        let event = service
            .events
            .iter()
            .filter(|event| ours(event.at))
            .find(|event| event.message.contains("unable to"));
        match (group, event) {
            (Some(group), Some(event)) if event.at > group.example.stopped => Some(event.message.clone()),
            (Some(group), _) => Some(match group.times {
                1 => group.reason.words.clone(),
                times => format!("{} ({times} tasks)", group.reason.words),
            }),
            (None, event) => event.map(|event| event.message.clone()),
        }
    }

    /// Tasks that stop again and again for a reason that does not pass.
    fn unrecoverable(&mut self, service: &Service, ours: &Deployment, wants: &mut Wants) -> Option<Failure> {
        let worst = self.stopped.worst()?;
        if !self.patience.fail_fast
            || worst.times < self.patience.same_reason
            || ours.rollout == Some(Rollout::Completed)
        {
            return None;
        }
        let cause = worst.reason.cause?;
        if cause == Cause::Exit {
            // A crash is a rule only while no task has ever lived through it.
            if self.running.is_none() && ours.running > 0 {
                wants.running = true;
                return None;
            }
            if self.outlived {
                return None;
            }
        }
        let failure = Failure::Unrecoverable {
            cause,
            words: worst.reason.words.clone(),
            times: worst.times,
            exit: worst.reason.exit,
        };
        let at = *self.limit_at.get_or_insert(self.now);
        // A breaker that is about to trip says more, and rolls back.
        let near = self.patience.same_reason.saturating_mul(2);
        let trips = service.breaker.enabled && service.breaker.threshold(ours.desired) <= near;
        if trips && self.now < at + self.patience.breaker {
            return None;
        }
        Some(failure)
    }

    /// Another deployment is the one that ECS works towards. `unfailed`: ours is still listed, and not as failed.
    pub(super) fn lost(
        &mut self,
        service: &Service,
        primary: &Deployment,
        unfailed: bool,
        wants: &mut Wants,
    ) -> Verdict {
        if self.target.service_deployment.is_some() && !self.told_asked {
            wants.service_deployment = true;
            return Verdict::Going("another deployment has taken over; asking why".to_owned());
        }
        let previous = self.target.previous_task_definition.as_deref();
        let told = self.told.as_ref().filter(|told| told.rollback.is_some());
        let younger = primary.created > self.target.created;
        let foreign = previous.is_some_and(|previous| previous != primary.task_definition) && younger;
        let by_aws = match (&self.failed, told) {
            (_, Some(_)) => !foreign,
            (Some(_), None) => !foreign && service.rolls_back(),
            // It was gone before we saw it fail.
            (None, None) => {
                !unfailed && service.rolls_back() && previous == Some(primary.task_definition.as_str())
            }
        };
        if !by_aws {
            return Verdict::Failed(Failure::Superseded {
                deployment: primary.id.clone(),
                task_definition: primary.task_definition.clone(),
                ours_failed: self.failed.as_ref().map(|(reason, _)| reason.clone()),
            });
        }
        let reason = self.failed.as_ref().map(|(reason, _)| reason.clone());
        let reason = reason.or_else(|| told.map(|told| told.reason.clone())).unwrap_or_default();
        let made = |state| {
            Verdict::Failed(Failure::RolledBack { to: primary.task_definition.clone(), reason, state })
        };
        let enough = primary.running >= primary.desired;
        match primary.rollout {
            Some(Rollout::Failed) => made(Rollback::Failed),
            Some(Rollout::Completed) | None if enough => made(Rollback::Done),
            _ => Verdict::Going(format!(
                "AWS rolls back to {}: {} of {} tasks run",
                short(&primary.task_definition),
                primary.running,
                primary.desired
            )),
        }
    }

    /// Strategies other than the rolling one say what they have come to in the service deployment. `None`: nothing that
    /// decides, or nothing to ask.
    pub(super) fn native(&mut self, wants: &mut Wants) -> Option<Verdict> {
        self.target.service_deployment.as_ref()?;
        let Some(told) = self.told.clone() else {
            if self.told_asked {
                // It cannot be read; what DescribeServices says must do.
                return None;
            }
            wants.service_deployment = true;
            return Some(Verdict::Going("asking for the state of the service deployment".to_owned()));
        };
        let words = match told.reason.as_str() {
            "" => told.status.clone(),
            reason => format!("{}: {reason}", told.status),
        };
        let back = |state| {
            let to = self.target.previous_task_definition.clone().unwrap_or_default();
            Some(Verdict::Failed(Failure::RolledBack { to, reason: words.clone(), state }))
        };
        match told.status.as_str() {
            "SUCCESSFUL" => None,
            "ROLLBACK_SUCCESSFUL" => back(Rollback::Done),
            "ROLLBACK_FAILED" => back(Rollback::Failed),
            "STOPPED" => Some(Verdict::Failed(Failure::Stopped { status: told.status, reason: told.reason })),
            _ => {
                // Asked again with the next answer.
                self.told_asked = false;
                self.told = None;
                Some(Verdict::Going(format!("service deployment {words}")))
            }
        }
    }
}
