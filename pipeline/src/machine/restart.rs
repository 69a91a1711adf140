//! RetryStepGroup: a failed step group runs again from its beginning (pipeline.md 2.5).
//!
//! What ran in it is taken away and begins anew; only the numbers of the attempts go on, so that no task of the new
//! round is taken for one of the old.

use super::state::{Phase, Run, Status};
use super::timers::name;
use super::{Action, Machine, Work, node_of};
use crate::model::failure::FailureAction;
use crate::plan::NodeKind;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What a step group remembers of its earlier rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rounds {
    /// How often it was begun again.
    pub restarts: u32,
    /// It is to be begun again after this pause, milliseconds, as soon as everything in it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<u64>,
    /// Attempts and undo data of what ran in it, by node id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tried: BTreeMap<String, Tried>,
}

/// What is kept of a run that was taken away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tried {
    /// Its latest attempt.
    pub attempt: u32,
    /// What undoes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<Json>,
}

impl Machine<'_> {
    /// A run failed, and the strategy says that its group is to run again.
    pub(super) fn retry_group(&mut self, id: &str, action: &FailureAction, status: Status) {
        let FailureAction::RetryStepGroup { count, intervals_ms, then } = action else { return };
        let Some(group) = self.group_that_retries(id, action) else { return self.act(id, then, status) };
        let Some(rounds) = self.run(&group).map(|run| run.rounds.as_deref().cloned().unwrap_or_default())
        else {
            return;
        };
        // Two members of a parallel block may fail: the group runs again once.
        let wanted = rounds.pause.is_some();
        if !wanted && rounds.restarts >= *count {
            return self.act(id, then, status);
        }
        if !wanted {
            let index = (rounds.restarts as usize).min(intervals_ms.len().saturating_sub(1));
            let pause = self.rehearsed(intervals_ms.get(index).copied().unwrap_or(0));
            let why = self.run(id).and_then(|run| run.failure.as_ref()).map(|f| f.message.clone());
            let step = id.rsplit('.').next().unwrap_or(id);
            let note = format!(
                "begun again ({} of {count}): `{step}` failed: {}",
                rounds.restarts + 1,
                why.unwrap_or_default()
            );
            self.update(&group, |run| {
                run.rounds = Some(Box::new(Rounds { pause: Some(pause), ..rounds }));
                run.notices.push(note);
            });
        }
        if id == group { self.wait_for_restart(id) } else { self.end(id, status) }
    }

    /// The group whose strategy it is: the outermost one that hands this action down to the run. A step's own strategy
    /// means the nearest group.
    fn group_that_retries(&self, id: &str, action: &FailureAction) -> Option<String> {
        let mut nearest = None;
        let mut declared = None;
        let mut at = Some(id.to_owned());
        while let Some(current) = at {
            let run = self.run(&current)?;
            let node = node_of(&self.plan, run)?;
            if matches!(node.kind, NodeKind::Group) && run.phase != Phase::Loop {
                nearest = nearest.or_else(|| Some(current.clone()));
                if node.strategies.values().any(|own| own == action) {
                    declared = Some(current.clone());
                }
            }
            at = run.parent.clone();
        }
        declared.or(nearest)
    }

    /// Whether the run, or something around it, is to begin again: what happens in it no longer counts.
    pub(super) fn is_retried(&self, id: &str) -> bool {
        let mut at = Some(id);
        while let Some(run) = at.and_then(|id| self.run(id)) {
            if run.rounds.as_ref().is_some_and(|rounds| rounds.pause.is_some()) {
                return true;
            }
            at = run.parent.as_deref();
        }
        false
    }

    /// Everything in the group has ended. `false`: something around it ends, and it does not begin again.
    pub(super) fn may_restart(&self, id: &str) -> bool {
        let Some(run) = self.run(id) else { return false };
        let wanted = run.rounds.as_ref().is_some_and(|rounds| rounds.pause.is_some());
        let outside =
            run.parent.as_deref().is_some_and(|parent| self.is_ending(parent) || self.is_stopped(parent));
        wanted && run.phase == Phase::Forward && run.open == 0 && !run.rollback_advised && !outside
    }

    pub(super) fn wait_for_restart(&mut self, id: &str) {
        let mut pause = 0;
        self.clear_timeout(id);
        self.update(id, |run| {
            pause = run.rounds.as_ref().and_then(|rounds| rounds.pause).unwrap_or(0);
            run.phase = Phase::RetryWait;
            run.ending = None;
            run.failure = None;
        });
        let timer = name("retry", 0, id);
        self.actions.push(Action::SetTimer { timer, at: self.at.saturating_add(pause) });
    }

    /// The pause is over: the group begins as if nothing had run in it.
    pub(super) fn restart_group(&mut self, id: &str) {
        let plan = self.plan.clone();
        let mut tried = BTreeMap::new();
        let mut gone = self.state.members(id);
        while let Some(member) = gone.pop() {
            gone.extend(self.state.members(&member));
            let Some(run) = self.state.runs.remove(&member) else { continue };
            if run.attempt > 0 || run.undo.is_some() {
                tried.insert(member, Tried { attempt: run.attempt, undo: run.undo });
            }
        }
        self.update(id, |run| {
            let rounds = run.rounds.get_or_insert_default();
            rounds.pause = None;
            rounds.restarts += 1;
            rounds.tried.extend(tried);
            run.phase = Phase::Forward;
            run.children.clear();
            run.next = 0;
            run.open = 0;
        });
        self.forget_what_broke(id);
        let Some(node) = self.run(id).and_then(|run| node_of(&plan, run)) else { return };
        self.arm_timeout(id, node);
        self.work.push_back(Work::Advance(id.to_owned()));
    }

    /// What `stageStatus` looks at, without what was taken away.
    fn forget_what_broke(&mut self, id: &str) {
        let Some(stage) = self.stage_run(id) else { return };
        let inside = format!("{stage}.");
        let broke = self.state.runs.iter().any(|(id, run)| {
            let counts = node_of(&self.plan, run).is_some_and(|node| !node.in_rollback);
            let bad = run.status.is_final() && !run.status.is_positive();
            id.starts_with(&inside) && counts && bad && run.iteration.is_none()
        });
        self.update(&stage, |run| run.broke = broke);
    }

    /// A run as it begins: with the number of attempts that it had in an earlier round of its group.
    pub(super) fn fresh_run(&self, id: &str, parent: &str, mut run: Run) -> Run {
        let mut at = Some(parent);
        while let Some(outer) = at.and_then(|id| self.run(id)) {
            if let Some(tried) = outer.rounds.as_ref().and_then(|rounds| rounds.tried.get(id)) {
                run.attempt = tried.attempt;
                run.attempts_before = tried.attempt;
                run.undo.clone_from(&tried.undo);
                break;
            }
            at = outer.parent.as_deref();
        }
        run
    }
}
