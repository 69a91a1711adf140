//! Rollback of whole executions: PipelineRollback while one runs, and the rollback of a finished one (pipeline.md 2.6).
//!
//! Both open the stages that ran once more, the latest first, and run their rollback steps over what the forward steps
//! recorded. A stage whose rollback has begun is never opened again.

use super::state::{Phase, ROOT_RUN, Run, State, Status};
use super::{Machine, Work, node_of};
use crate::plan::{NodeKind, ROOT, RunFacts};

/// A finished execution that cannot be rolled back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NothingToRollBack {
    /// It has not ended.
    #[error("the execution has not ended; abort it first")]
    Running,
    /// It only rolled another one back.
    #[error("the execution is itself a rollback; roll back the execution {0} that it belongs to")]
    Rollback(String),
    /// Nothing of it can be undone.
    #[error("no stage of it has rollback steps and ran without being rolled back")]
    NoStage,
}

/// The first state of an execution that rolls a finished one back: the runs of its forward steps with their outputs
/// and undo data, and nothing of its rollback.
///
/// **Errors**: why there is nothing to do.
pub fn rollback_of(finished: &State, facts: RunFacts) -> Result<State, NothingToRollBack> {
    if !finished.finished {
        return Err(NothingToRollBack::Running);
    }
    if let Some(original) = &finished.plan.run.rolls_back {
        return Err(NothingToRollBack::Rollback(original.clone()));
    }
    let mut plan = (*finished.plan).clone();
    // Placeholders of secrets in what the forward steps recorded carry the token of that run.
    let secret_token = plan.run.secret_token;
    let rolls_back = Some(plan.run.execution_id.clone());
    plan.run = RunFacts { secret_token, rolls_back, ..facts };
    let mut state = State::new(plan);
    state.learned = finished.learned.clone();
    state.loops = finished.loops.clone();
    for (id, run) in finished.runs.iter().filter(|(id, _)| *id != ROOT_RUN) {
        state.runs.insert(id.clone(), run.clone());
    }
    match next_stage(&state) {
        Some(_) => Ok(state),
        None => Err(NothingToRollBack::NoStage),
    }
}

/// The latest stage that ran, has rollback steps and was not rolled back.
fn next_stage(state: &State) -> Option<String> {
    let open = state.runs.iter().filter(|(id, run)| {
        let Some(node) = node_of(&state.plan, run) else { return false };
        // Without its artifact a stage ran no step.
        let is_step = |run: &Run| {
            node_of(&state.plan, run).is_some_and(|node| !matches!(node.kind, NodeKind::Artifact))
        };
        let ran = run
            .children
            .iter()
            .filter_map(|child| state.runs.get(child))
            .any(|child| is_step(child) && child.status.is_final() && child.status != Status::Skipped);
        matches!(node.kind, NodeKind::Stage(_))
            && !node.rollback.is_empty()
            && !state.is_loop(id)
            && run.status.is_final()
            && !run.rolled_back
            && ran
    });
    let order = |run: &Run| (run.started_at, run.node, run.iteration.as_ref().map(|i| i.index));
    open.max_by_key(|(_, run)| order(run)).map(|(id, _)| id.clone())
}

impl Machine<'_> {
    /// The stages have ended and a rollback of all of them was advised.
    pub(super) fn begin_pipeline_rollback(&mut self, forward: Status) {
        self.clear_timeout(ROOT_RUN);
        self.update(ROOT_RUN, |run| {
            run.phase = Phase::Rollback;
            run.rolled_back = true;
            run.forward = Some(forward);
            // The timer of the pipeline has done its work; rollback steps have timers of their own.
            run.ending = None;
        });
        self.work.push_back(Work::Advance(ROOT_RUN.to_owned()));
    }

    /// An execution that runs nothing but rollback steps begins.
    pub(super) fn start_rollback(&mut self) {
        let plan = self.plan.clone();
        let is_member = |run: &Run| run.parent.as_deref() == Some(ROOT_RUN);
        let mut children: Vec<(usize, String)> = self
            .state
            .runs
            .iter()
            .filter(|(_, run)| is_member(run) && plan.node(run.node).is_some())
            .map(|(id, run)| (run.node, id.clone()))
            .collect();
        children.sort();
        let run = Run {
            node: ROOT,
            status: Status::Running,
            phase: Phase::Rollback,
            started_at: Some(self.at),
            children: children.into_iter().map(|(_, id)| id).collect(),
            rolled_back: true,
            ..Run::default()
        };
        self.state.runs.insert(ROOT_RUN.to_owned(), run);
        self.work.push_back(Work::Advance(ROOT_RUN.to_owned()));
    }

    /// Opens the next stage for its rollback, or ends the execution.
    pub(super) fn next_stage_rollback(&mut self) {
        if self.reopened().is_some() {
            return;
        }
        if self.is_ending(ROOT_RUN) {
            let status = self.ending_status(ROOT_RUN);
            return self.end(ROOT_RUN, status);
        }
        let Some(stage) = next_stage(self.state) else { return self.end_rollback() };
        self.update(&stage, |run| {
            run.forward = Some(run.status);
            run.status = Status::Running;
            run.phase = Phase::Rollback;
            run.rollback_advised = true;
            run.next = 0;
            run.open = 0;
            run.ending = None;
            run.ended_at = None;
        });
        // Whoever deploys to its infrastructure now is waited for.
        if self.claim(&stage) {
            return;
        }
        self.update(&stage, |run| run.rolled_back = true);
        self.work.push_back(Work::Advance(stage));
    }

    /// The stage that was opened again and has not ended. What encloses it ended before.
    pub(super) fn reopened(&self) -> Option<String> {
        if self.run(ROOT_RUN).is_none_or(|root| root.phase != Phase::Rollback) {
            return None;
        }
        let is_stage =
            |run: &Run| node_of(&self.plan, run).is_some_and(|node| matches!(node.kind, NodeKind::Stage(_)));
        let mut open =
            self.state.runs.iter().filter(|(_, run)| run.phase == Phase::Rollback && is_stage(run));
        open.next().map(|(id, _)| id.clone())
    }

    /// Every stage was rolled back as far as it went.
    fn end_rollback(&mut self) {
        let plan = self.plan.clone();
        let forward = self.run(ROOT_RUN).and_then(|run| run.forward);
        let undone = |run: &Run| node_of(&plan, run).is_some_and(|node| node.in_rollback);
        let all_positive =
            self.state.runs.values().filter(|run| undone(run)).all(|run| run.status.is_positive());
        let status = match forward {
            // Somebody asked for the rollback itself: how it went is how the execution ends.
            None if all_positive => Status::Success,
            None => Status::Failed,
            Some(forward) if forward.is_positive() => forward,
            Some(_) => Status::Failed,
        };
        self.end(ROOT_RUN, status);
    }
}
