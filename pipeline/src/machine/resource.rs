//! Resources: a deployment stage holds its infrastructure until it ends, so that two executions do not deploy the same
//! service to the same infrastructure at once (`RESOURCE_WAITING`, pipeline.md 2.10).
//!
//! The machine knows its own execution only. It says what it claims and gives back; who comes first is the store's to
//! say, in the same commit as the claim. Stages of one execution share what it holds.

use super::state::{Phase, Status};
use super::{Action, Machine, Work, node_of};
use crate::model::duration::show_duration;
use crate::plan::NodeKind;
use proto::failure::{Failure, FailureKind};

impl Machine<'_> {
    /// Claims the infrastructure of a stage that begins, or is opened again for its rollback. `false`: it needs none,
    /// and goes on at once.
    pub(super) fn claim(&mut self, id: &str) -> bool {
        let plan = self.plan.clone();
        let Some(node) = self.run(id).and_then(|run| node_of(&plan, run)) else { return false };
        let NodeKind::Stage(stage) = &node.kind else { return false };
        let infrastructure = stage.target.as_ref().map(|target| &target.infrastructure);
        let Some(infrastructure) = infrastructure.filter(|i| !i.simultaneous && !i.key.is_empty()) else {
            return false;
        };
        let key = infrastructure.key.clone();
        self.update(id, |run| {
            run.status = Status::ResourceWaiting;
            run.claim = Some(key.clone());
        });
        self.actions.push(Action::Claim { node: id.to_owned(), key });
        true
    }

    /// The execution holds what the stage claimed.
    pub(super) fn granted(&mut self, id: &str) {
        let Some(run) = self.run(id) else { return };
        if run.status != Status::ResourceWaiting {
            return;
        }
        let rolls_back = run.phase == Phase::Rollback;
        self.update(id, |run| run.status = Status::Running);
        if rolls_back {
            self.update(id, |run| run.rolled_back = true);
            return self.work.push_back(Work::Advance(id.to_owned()));
        }
        self.begin_stage(id);
    }

    /// Gives back what a run claimed, whether or not it was granted.
    pub(super) fn release(&mut self, id: &str) {
        if self.run(id).is_none_or(|run| run.claim.is_none()) {
            return;
        }
        self.update(id, |run| run.claim = None);
        self.actions.push(Action::Release { node: id.to_owned() });
    }

    /// The stage timeout ran out before its turn came. Nothing of it has run.
    pub(super) fn claim_expired(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        let waited = show_duration(self.at.saturating_sub(run.started_at.unwrap_or(self.at)));
        let message = format!(
            "the stage `{}` waited {waited} for its infrastructure, which others held",
            node.identifier
        );
        let failure = Failure::new(FailureKind::Timeout, "PIPE-011", message).hint(
            "wait for the other execution or abort it; `allowSimultaneousDeployments: true` of the infrastructure lets both run at once",
        );
        self.release(id);
        self.fail(id, failure, Status::Expired);
    }
}
