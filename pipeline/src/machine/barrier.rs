//! Barriers: steps of one name go on together (pipeline.md 2.10).
//!
//! Whether a barrier opens follows from the runs alone: nothing is counted on the side, so nothing can be counted
//! twice or be forgotten after a crash.

use super::state::{Phase, ROOT_RUN, Status};
use super::{Machine, node_of};
use crate::model::step::Spec;
use crate::plan::NodeKind;
use proto::failure::{Failure, FailureKind};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the steps of one barrier.
#[derive(Default)]
struct Gate {
    /// Runs that wait.
    arrived: Vec<String>,
    /// A step that may still come.
    awaited: bool,
    /// Steps that cannot come any more.
    missing: Vec<String>,
    /// A loop whose further iterations begin only after those that wait for them here.
    crowded: Option<String>,
}

impl Machine<'_> {
    /// Whether steps of this stage wait at a barrier for steps of other stages.
    pub(super) fn meets_other_stages(&self, id: &str) -> bool {
        let Some(own) = self.run(id).map(|run| run.node) else { return false };
        let plan = &self.plan;
        if plan.barriers.is_empty() {
            return false;
        }
        let (mut here, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        for (index, node) in plan.nodes.iter().enumerate().filter(|(_, node)| !node.in_rollback) {
            let NodeKind::Step { spec, .. } = &node.kind else { continue };
            let Spec::Barrier { barrier } = &**spec else { continue };
            let mut above =
                std::iter::successors(Some(index), |at| plan.node(*at).and_then(|node| node.parent));
            let names = if above.any(|at| at == own) { &mut here } else { &mut elsewhere };
            names.insert(barrier.text());
        }
        !here.is_disjoint(&elsewhere)
    }

    /// Opens every barrier that all have reached and fails those that somebody cannot reach any more. `true` if
    /// something changed.
    pub(super) fn open_barriers(&mut self) -> bool {
        if self.plan.barriers.is_empty() || self.state.finished {
            return false;
        }
        let plan = self.plan.clone();
        // Rollback steps wait for rollback steps only: whether those of another stage run at all is not known before.
        let mut gates: BTreeMap<(String, bool), Gate> = BTreeMap::new();
        for (index, node) in plan.nodes.iter().enumerate() {
            let NodeKind::Step { spec, .. } = &node.kind else { continue };
            let Spec::Barrier { barrier } = &**spec else { continue };
            let mut chain = vec![index];
            let mut at = node.parent;
            while let Some(parent) = at {
                chain.push(parent);
                at = plan.node(parent).and_then(|node| node.parent);
            }
            chain.reverse();
            let gate = gates.entry((barrier.text(), node.in_rollback)).or_default();
            self.look(ROOT_RUN, &chain, node.in_rollback, gate);
        }
        let mut changed = false;
        for ((name, _), gate) in gates {
            let hopeless = !gate.missing.is_empty() || gate.crowded.is_some();
            if gate.arrived.is_empty() || gate.awaited && !hopeless {
                continue;
            }
            changed = true;
            let (message, hint) = match (gate.missing.first(), &gate.crowded) {
                (None, None) => {
                    gate.arrived.iter().for_each(|id| self.end(id, Status::Success));
                    continue;
                }
                (Some(first), _) => (
                    format!("`{first}` ended before it reached the barrier `{name}`"),
                    "find out why that branch ended; its own failure is the cause",
                ),
                (None, Some(crowded)) => (
                    format!(
                        "the iterations of `{crowded}` wait for each other at the barrier `{name}`, and the next ones begin only when \
                         one of these has ended"
                    ),
                    "raise `maxConcurrency` of the loop, or leave it out: all iterations must run at once to meet",
                ),
            };
            for id in &gate.arrived {
                let failure = Failure::new(FailureKind::BadSpec, "PIPE-009", message.clone()).hint(hint);
                self.fail(id, failure, Status::Failed);
            }
        }
        changed
    }

    /// Follows the nodes of `chain` from the run `id` of its first one down to the barrier step.
    fn look(&self, id: &str, chain: &[usize], in_rollback: bool, gate: &mut Gate) {
        let Some((_, below)) = chain.split_first() else { return };
        let Some(run) = self.run(id) else { return };
        if run.status.is_final() {
            let came = below.is_empty() && run.status == Status::Success;
            if !came && self.is_missed(id) {
                gate.missing.push(node_of(&self.plan, run).map_or(String::new(), |n| n.identifier.clone()));
            }
            return;
        }
        if run.phase == Phase::Loop {
            let total = self.state.loops.get(id).map_or(run.items.len(), |items| items.items.len());
            let more = run.next < total;
            gate.awaited |= more;
            let (mut waiting, mut all) = (0, more);
            for child in self.state.members(id) {
                let before = gate.arrived.len();
                self.look(&child, chain, in_rollback, gate);
                if gate.arrived.len() > before {
                    waiting += 1;
                } else {
                    all &= self.run(&child).is_some_and(|run| run.status.is_final());
                }
            }
            if all && waiting > 0 {
                gate.crowded = node_of(&self.plan, run).map(|node| node.identifier.clone());
            }
            return;
        }
        let Some(next) = below.first() else {
            match run.phase {
                Phase::Barrier => gate.arrived.push(id.to_owned()),
                _ => gate.awaited = true,
            }
            return;
        };
        let child = run.children.iter().find(|child| self.run(child).is_some_and(|run| run.node == *next));
        match child {
            Some(child) => self.look(child, below, in_rollback, gate),
            // A scope that is being rolled back begins no forward member any more.
            None if run.phase == Phase::Rollback && !in_rollback => {
                gate.missing.extend(node_of(&self.plan, run).map(|node| node.identifier.clone()));
            }
            None => gate.awaited = true,
        }
    }

    /// Whether a run that ended without reaching the barrier should have reached it: not if a condition of its own
    /// kept it out, or its scope ended well without it.
    fn is_missed(&self, id: &str) -> bool {
        let Some(run) = self.run(id) else { return false };
        match run.status {
            Status::Success => false,
            Status::Skipped if run.condition.is_some() => false,
            Status::Skipped => {
                let Some(node) = node_of(&self.plan, run) else { return false };
                match node.kind {
                    NodeKind::Stage(_) => self.run(ROOT_RUN).is_some_and(|root| root.broke),
                    _ => {
                        self.stage_run(id).and_then(|stage| self.run(&stage)).is_some_and(|stage| stage.broke)
                    }
                }
            }
            _ => true,
        }
    }
}
