//! Order: what begins when, and how the status of an enclosing node follows from its members (pipeline.md 2.2–2.4).

use super::state::{Ending, Phase, ROOT_RUN, Run, Status};
use super::{Action, Machine, Work, is_step, node_of};
use crate::model::step::WhenStatus;
use crate::plan::{Iteration, NodeKind, PlanNode, ROOT};
use crate::scope::NodeScope;
use proto::failure::{Failure, FailureKind};

/// Stage and pipeline timeout when none is written.
const DEFAULT_LONG_MS: u64 = 8 * 7 * 86_400_000;

impl Machine<'_> {
    pub(super) fn start(&mut self) {
        if self.plan.run.rolls_back.is_some() {
            return self.start_rollback();
        }
        let run = Run { node: ROOT, status: Status::NotStarted, ..Run::default() };
        self.state.runs.insert(ROOT_RUN.to_owned(), run);
        self.work.push_back(Work::Begin(ROOT_RUN.to_owned()));
    }

    pub(super) fn start_aborted(&mut self, by: &str) {
        self.state.aborted_by = Some(by.to_owned());
        self.start();
    }

    /// A run whose predecessors are done: skipped, looped, or begun.
    pub(super) fn begin(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        let is_iteration = run.iteration.is_some();
        let at = self.at;
        self.update(id, |run| {
            run.started_at = Some(at);
            run.status = Status::Running;
        });
        if self.is_ending(id) {
            return self.end(id, Status::Aborted);
        }
        if !is_iteration && !self.status_allows(id, node) {
            return self.skip(id);
        }
        let looped = !is_iteration && (node.looping.is_some() || is_per_host(node));
        // The condition of a looped node may name the iteration, so each iteration asks for itself.
        if !looped || is_per_host(node) && node.looping.is_none() {
            let is_host_iteration =
                self.run(id).and_then(|run| run.iteration.as_ref()).is_some_and(|i| i.is_host);
            if !is_host_iteration {
                match self.condition(id, node) {
                    Ok(true) => {}
                    Ok(false) => return self.skip(id),
                    Err(failure) => return self.fail(id, *failure, Status::Failed),
                }
            }
        }
        // A step that runs on every host of its stage asks once for all of them.
        if looped && node.looping.is_none() && self.asks(id, node) {
            return self.wait_for_inputs(id, 0, node.timeout_ms);
        }
        if looped {
            return match self.loop_items(id, node) {
                Ok(items) => self.begin_loop(id, items),
                Err(failure) => self.fail(id, *failure, Status::Failed),
            };
        }
        match &node.kind {
            NodeKind::Step { .. } | NodeKind::Artifact => self.start_attempt(id),
            NodeKind::Parallel => self.begin_parallel(id, node),
            NodeKind::Pipeline | NodeKind::Group => {
                self.arm_timeout(id, node);
                self.update(id, |run| run.phase = Phase::Forward);
                self.work.push_back(Work::Advance(id.to_owned()));
            }
            // Nobody else is kept waiting for the infrastructure while people are asked, unless stages meet at a barrier:
            // those take their infrastructures at one moment. Taken one by one, two executions could each hold what the
            // other waits for, and neither would ever reach the barrier.
            NodeKind::Stage(_) if self.asks(id, node) && !self.meets_other_stages(id) => {
                self.wait_for_inputs(id, 0, node.timeout_ms);
            }
            NodeKind::Stage(_) => self.enter_stage(id, node),
        }
    }

    /// A stage whose inputs are known takes its turn on its infrastructure.
    pub(super) fn enter_stage(&mut self, id: &str, node: &PlanNode) {
        self.arm_timeout(id, node);
        let holds = self.run(id).is_some_and(|run| run.claim.is_some());
        if holds || !self.claim(id) {
            self.begin_stage(id);
        }
    }

    /// A stage that has what it needs looks up its artifact, then runs its steps.
    pub(super) fn begin_stage(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(node) = self.run(id).and_then(|run| node_of(&plan, run)) else { return };
        if self.asks(id, node) {
            return self.wait_for_inputs(id, 0, node.timeout_ms);
        }
        let artifact = match &node.kind {
            NodeKind::Stage(stage) => stage.artifact,
            _ => None,
        };
        match artifact {
            Some(artifact) => {
                self.update(id, |run| run.phase = Phase::Artifact);
                self.add_child(id, artifact, None);
            }
            None => {
                self.update(id, |run| run.phase = Phase::Forward);
                self.work.push_back(Work::Advance(id.to_owned()));
            }
        }
    }

    pub(super) fn skip(&mut self, id: &str) {
        self.end(id, Status::Skipped);
    }

    pub(super) fn arm_timeout(&mut self, id: &str, node: &PlanNode) {
        // Without a written limit a group needs no timer: its stage has one.
        let ms = match (&node.kind, node.timeout_ms) {
            (_, Some(ms)) => ms,
            (NodeKind::Stage(_) | NodeKind::Pipeline, None) => DEFAULT_LONG_MS,
            _ => return,
        };
        let timer = super::timers::name("timeout", 0, id);
        self.actions.push(Action::SetTimer { timer, at: self.at.saturating_add(ms) });
    }

    /// The status part of a condition: what has ended in the enclosing stage or pipeline so far.
    fn status_allows(&self, id: &str, node: &PlanNode) -> bool {
        let wanted = match (&node.kind, &node.when) {
            (NodeKind::Pipeline | NodeKind::Artifact | NodeKind::Parallel, _) => return true,
            (_, Some(when)) => when.status,
            // A rollback step runs because the stage broke; that is its default condition.
            (_, None) if node.in_rollback => return true,
            (_, None) => WhenStatus::Success,
        };
        // Copies of one stage are asked once, like the iterations of a loop: for the first of them.
        if let Some(first) = node.follows.and_then(|first| self.plan.node(first)) {
            let parent = self.run(id).and_then(|run| run.parent.as_deref()).unwrap_or_default();
            let first = self.run(&format!("{}.{}", self.base(parent), first.part));
            return first.is_none_or(|run| run.status != Status::Skipped || run.condition.is_some());
        }
        let broke = match &node.kind {
            NodeKind::Stage(_) => self.run(ROOT_RUN).is_some_and(|run| run.broke),
            _ => self.stage_run(id).and_then(|stage| self.run(&stage)).is_some_and(|run| run.broke),
        };
        match wanted {
            WhenStatus::All => true,
            WhenStatus::Success => !broke,
            WhenStatus::Failure => broke,
        }
    }

    pub(super) fn condition(&mut self, id: &str, node: &PlanNode) -> Result<bool, Box<Failure>> {
        let Some(condition) = node.when.as_ref().and_then(|when| when.condition.as_ref()) else {
            return Ok(true);
        };
        let text = condition.text();
        // A condition that is still a runtime input was not given: it is false.
        if text.trim().is_empty() {
            return Ok(true);
        }
        if text.trim_start().starts_with("<+input>") {
            return Ok(false);
        }
        let scope = self.scope(id);
        let context = self.context(&scope);
        match expr::evaluate_bool(&text, &context) {
            Ok(truth) => {
                if !truth {
                    self.update(id, |run| run.condition = Some(text));
                }
                Ok(truth)
            }
            Err(error) => {
                let message = format!("the condition `{}` cannot be evaluated: {error}", text.trim());
                Err(Box::new(
                    Failure::new(FailureKind::BadSpec, "PIPE-002", message).target(condition.path.clone()),
                ))
            }
        }
    }

    // --- members ---

    fn begin_parallel(&mut self, id: &str, node: &PlanNode) {
        self.update(id, |run| run.phase = Phase::Forward);
        let at_once = node.copies.as_ref().map_or(usize::MAX, |copies| copies.at_once.max(1));
        if node.copies.is_some() {
            self.update(id, |run| run.next = at_once);
        }
        for child in node.children.iter().take(at_once) {
            self.add_child(id, *child, None);
        }
        if node.children.is_empty() {
            self.end(id, Status::Success);
        }
    }

    /// Copies of a stage may be limited in number: the next one starts when one has ended.
    fn next_copy(&mut self, block: &str, node: &PlanNode, ended: &str) {
        let Some(copies) = &node.copies else { return };
        let failed = self.run(ended).is_some_and(|run| !run.status.is_positive());
        if failed && copies.skip_queued || self.is_ending(block) || self.is_stopped(block) {
            self.update(block, |run| run.next = usize::MAX);
        }
        let next = self.run(block).map_or(0, |run| run.next);
        if let Some(child) = node.children.get(next) {
            self.update(block, |run| run.next += 1);
            self.add_child(block, *child, None);
        }
    }

    /// Creates the run of a member and puts its beginning on the list.
    pub(super) fn add_child(&mut self, parent: &str, node: usize, iteration: Option<Iteration>) {
        let plan = self.plan.clone();
        let Some(plan_node) = plan.node(node) else { return };
        let id = match &iteration {
            Some(iteration) => format!("{parent}{}", iteration.ending()),
            None => format!("{}.{}", self.base(parent), plan_node.part),
        };
        // Ids of iterations follow from their loop. A list of them would grow with every one and be stored each time.
        let listed = iteration.is_none() || self.state.loops.get(parent).is_none();
        let run = Run { node, parent: Some(parent.to_owned()), iteration, ..Run::default() };
        let run = self.fresh_run(&id, parent, run);
        self.state.runs.insert(id.clone(), run);
        self.update(parent, |run| {
            if listed {
                run.children.push(id.clone());
            }
            run.open += 1;
        });
        self.work.push_back(Work::Begin(id));
    }

    /// Parallel blocks have no part in the ids of their members.
    fn base(&self, id: &str) -> String {
        let mut at = id;
        while let Some(run) = self.run(at) {
            let is_block =
                node_of(&self.plan, run).is_some_and(|node| matches!(node.kind, NodeKind::Parallel));
            match (&run.parent, is_block) {
                (Some(parent), true) => at = parent,
                _ => break,
            }
        }
        at.to_owned()
    }

    pub(super) fn child_ended(&mut self, parent: &str, child: &str) {
        let plan = self.plan.clone();
        self.update(parent, |run| run.open = run.open.saturating_sub(1));
        let Some(run) = self.run(parent) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        match run.phase {
            Phase::Loop => {
                if !self.next_iteration(parent) && self.run(parent).is_some_and(|run| run.open == 0) {
                    self.finish(parent);
                }
            }
            Phase::Artifact => self.artifact_ended(parent, child),
            Phase::Forward if matches!(node.kind, NodeKind::Parallel) => {
                self.next_copy(parent, node, child);
                if self.run(parent).is_some_and(|run| run.open == 0) {
                    self.finish(parent);
                }
            }
            Phase::Forward | Phase::Rollback => self.work.push_back(Work::Advance(parent.to_owned())),
            Phase::Idle
            | Phase::Task
            | Phase::RetryWait
            | Phase::Wait
            | Phase::Perform
            | Phase::Approval
            | Phase::Intervention
            | Phase::Input
            | Phase::Barrier => {}
        }
    }

    fn artifact_ended(&mut self, stage: &str, child: &str) {
        let Some(lookup) = self.run(child) else { return };
        if lookup.status != Status::Success {
            let (status, failure) = (lookup.status, lookup.failure.clone());
            // No step has run, so there is nothing to roll back.
            self.update(stage, |run| {
                run.failure = failure;
                run.rollback_advised = false;
            });
            let status = if self.is_ending(stage) { self.ending_status(stage) } else { status };
            return self.end(stage, status);
        }
        let outputs = lookup.outputs.clone();
        self.pin_artifact(stage, outputs);
        self.update(stage, |run| run.phase = Phase::Forward);
        self.work.push_back(Work::Advance(stage.to_owned()));
    }

    /// The next member of a sequence, or its end.
    pub(super) fn advance(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        if run.status != Status::Running || run.open > 0 {
            return;
        }
        if id == ROOT_RUN && run.phase == Phase::Rollback {
            return self.next_stage_rollback();
        }
        let Some(node) = node_of(&plan, run) else { return };
        let list = if run.phase == Phase::Rollback { &node.rollback } else { &node.children };
        let rolling_back = run.phase == Phase::Rollback || node.in_rollback;
        // Inside rollback steps the next one only runs after a positive status.
        let last_broke = rolling_back
            && run.next > 0
            && run
                .children
                .last()
                .and_then(|child| self.run(child))
                .is_some_and(|child| !child.status.is_positive() && !child.carry_on);
        let stopped = last_broke || self.is_ending(id) || self.is_stopped(id);
        match list.get(run.next) {
            Some(child) if !stopped => {
                let child = *child;
                self.update(id, |run| run.next += 1);
                self.add_child(id, child, None);
            }
            _ => self.finish(id),
        }
    }

    /// Whether a rollback was advised for something that encloses this run (itself included), or it is to begin again.
    pub(super) fn is_stopped(&self, id: &str) -> bool {
        let mut at = Some(id);
        while let Some(run) = at.and_then(|id| self.run(id)) {
            // Rollback members go on: they are what was advised.
            if run.phase == Phase::Rollback {
                return false;
            }
            // A rollback of the pipeline waits until the stages that run have ended.
            if run.rounds.as_ref().is_some_and(|rounds| rounds.pause.is_some()) {
                return true;
            }
            if run.rollback_advised && (at == Some(id) || run.parent.is_some()) {
                return true;
            }
            at = run.parent.as_deref();
        }
        false
    }

    /// The members are done: roll back if that was advised, otherwise end with the status that follows from them.
    pub(super) fn finish(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        if self.is_ending(id) && run.ending.is_none() {
            let status = self.ending_status(id);
            return self.end(id, status);
        }
        let forward = run.forward.unwrap_or_else(|| self.aggregate(id, run));
        let (phase, own_ending) = (run.phase, run.ending.clone());
        let aborted = self.state.aborted_by.is_some();
        if aborted {
            return self.end(id, Status::Aborted);
        }
        if self.may_restart(id) {
            return self.wait_for_restart(id);
        }
        let status = match &own_ending {
            Some(Ending::Expired(_)) => Status::Expired,
            Some(Ending::Aborted) => Status::Aborted,
            None => forward,
        };
        if id == ROOT_RUN && phase == Phase::Forward && run.rollback_advised {
            return self.begin_pipeline_rollback(status);
        }
        if phase == Phase::Forward && !node.rollback.is_empty() && run.rollback_advised {
            self.update(id, |run| {
                run.phase = Phase::Rollback;
                run.next = 0;
                run.rolled_back = true;
                run.forward = Some(status);
                // Its own timer has done its work; rollback steps have timers of their own.
                run.ending = None;
            });
            self.clear_timeout(id);
            self.work.push_back(Work::Advance(id.to_owned()));
            return;
        }
        if let (Some(Ending::Expired(failure)), Phase::Forward | Phase::Loop) = (own_ending, phase)
            && !matches!(node.kind, NodeKind::Pipeline)
        {
            return self.fail(id, *failure, Status::Expired);
        }
        let rolled_back = run.rolled_back || run.rollback_advised;
        // A stage that was rolled back counts as failed for what follows (pipeline.md 2.6).
        let status = if rolled_back && !status.is_positive() { Status::Failed } else { status };
        self.end(id, status);
    }

    /// Parent status: pipeline.md 2.10, last line.
    fn aggregate(&self, id: &str, run: &Run) -> Status {
        let mut any = [false; 5];
        let mut all_skipped = true;
        for child in self.state.members(id).iter().filter_map(|child| self.run(child)) {
            all_skipped &= child.status == Status::Skipped;
            let index = match child.status {
                Status::Aborted => 0,
                Status::Failed => 1,
                Status::ApprovalRejected => 2,
                Status::Expired => 3,
                Status::IgnoreFailed => 4,
                _ => continue,
            };
            if let Some(slot) = any.get_mut(index) {
                *slot = true;
            }
        }
        let order = [
            Status::Aborted,
            Status::Failed,
            Status::ApprovalRejected,
            Status::Expired,
            Status::IgnoreFailed,
        ];
        let worst = any.iter().zip(order).find(|(hit, _)| **hit).map(|(_, status)| status);
        match worst {
            Some(status) => status,
            None if all_skipped && run.phase == Phase::Loop => Status::Skipped,
            None => Status::Success,
        }
    }

    // --- context ---

    pub(super) fn scope<'s>(&'s self, id: &'s str) -> NodeScope<'s> {
        let node = run_node(self.run(id));
        NodeScope {
            plan: &self.plan,
            state: Some(self.state),
            node,
            run: Some(id),
            record: None,
            iteration: None,
        }
    }

    pub(super) fn context<'s>(&self, scope: &'s NodeScope<'s>) -> expr::Context<'s> {
        expr::Context {
            scope,
            now_ms: i64::try_from(self.at).unwrap_or(i64::MAX),
            secret_token: self.plan.run.secret_token,
        }
    }

    /// The run of the stage that encloses a run.
    pub(super) fn stage_run(&self, id: &str) -> Option<String> {
        let mut at = Some(id);
        while let Some((key, run)) = at.and_then(|id| self.state.runs.get_key_value(id)) {
            let is_stage =
                node_of(&self.plan, run).is_some_and(|node| matches!(node.kind, NodeKind::Stage(_)));
            if is_stage && run.phase != Phase::Loop {
                return Some(key.clone());
            }
            at = run.parent.as_deref();
        }
        None
    }
}

pub(super) fn run_node(run: Option<&Run>) -> usize {
    run.map_or(ROOT, |run| run.node)
}

fn is_per_host(node: &PlanNode) -> bool {
    is_step(node) && matches!(node.kind, NodeKind::Step { per_host: true, .. })
}
