//! What a loop gives its iterations: `repeat.…`, `matrix.…`, `strategy.…` and `instance.…` (pipeline.md 2.3).

use super::NodeScope;
use super::values::{found, own, text};
use crate::machine::state::{Run, Status};
use crate::model::looping::LoopKind;
use crate::plan::Iteration;
use expr::{Lookup, Segment, Value};
use serde_json::Value as Json;

impl<'a> NodeScope<'a> {
    /// Iterations around a run, or around a node of the plan, the nearest first.
    fn iterations(&self, run: Option<&'a str>, node: usize) -> Vec<(&'a Iteration, Option<&'a Run>)> {
        let mut found: Vec<(&Iteration, Option<&Run>)> = Vec::new();
        let fixed = |index: usize| self.plan.node(index).and_then(|node| node.fixed.as_ref());
        match run {
            Some(start) => {
                let runs = NodeScope { run: Some(start), ..*self };
                for (_, run) in runs.runs_upwards() {
                    found.extend(run.iteration.as_ref().map(|iteration| (iteration, Some(run))));
                    found.extend(fixed(run.node).filter(|_| run.iteration.is_none()).map(|i| (i, None)));
                }
            }
            None => {
                let mut at = Some(node);
                while let Some((index, node)) = at.and_then(|at| Some((at, self.plan.node(at)?))) {
                    found.extend(fixed(index).map(|iteration| (iteration, None)));
                    at = node.parent;
                }
            }
        }
        found
    }

    /// `repeat.…`, `strategy.…`, `matrix.…`: of the nearest loop, or of the nearest around `from` (a node, its run).
    pub(super) fn iteration(
        &self,
        first: &str,
        path: &[Segment],
        from: Option<(usize, Option<&'a str>)>,
    ) -> Lookup {
        let (node, run) = from.unwrap_or((self.node, self.run));
        let mut around = self.iterations(run, node);
        if let (Some(own), None) = (self.iteration, from) {
            around.insert(0, (own, None));
        }
        if first == "strategy" && path.get(1).and_then(Segment::name) == Some("node") {
            return self.looped_node(path);
        }
        let Some((nearest, run)) = around.first().copied() else {
            return if self.state.is_none() { Lookup::Missing } else { Lookup::Undefined };
        };
        let count = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        // Items come from expressions that were resolved once: they are not resolved again.
        let item = |item: &Json, used: usize| found(Value::from_json(item, true), used);
        let of = |kind: LoopKind| around.iter().map(|(iteration, _)| *iteration).find(|i| i.kind == kind);
        match (first, path.get(1).and_then(Segment::name)) {
            ("repeat", Some("item")) => {
                let hit = around.iter().find_map(|(iteration, _)| iteration.repeat_item());
                hit.map_or(Lookup::Missing, |hit| item(hit, 2))
            }
            ("repeat", Some("partition")) => {
                of(LoopKind::Partition).map_or(Lookup::Missing, |hit| item(&hit.item, 2))
            }
            ("repeat", Some("index")) | ("strategy", Some("iteration")) => found(count(nearest.index), 2),
            ("strategy", Some("iterations")) => found(count(nearest.total), 2),
            ("strategy", Some("identifierPostFix")) => found(text(nearest.ending()), 2),
            ("strategy", Some("currentStatus")) => self.loop_status(run),
            ("matrix", Some(axis)) => {
                let matrices = around.iter().filter(|(iteration, _)| iteration.kind == LoopKind::Matrix);
                let mut values = matrices.filter_map(|(iteration, _)| iteration.item.get(axis));
                values.next().map_or(Lookup::Missing, |value| item(value, 2))
            }
            ("matrix", None) => of(LoopKind::Matrix).map_or(Lookup::Missing, |hit| item(&hit.item, 1)),
            _ => Lookup::Missing,
        }
    }

    /// What the iterations of a loop that have ended come to.
    fn loop_status(&self, iteration: Option<&Run>) -> Lookup {
        let parent = iteration.and_then(|run| run.parent.as_deref());
        let Some(run) = parent.and_then(|id| self.state.and_then(|state| state.runs.get(id))) else {
            return Lookup::Missing;
        };
        let status = run.worst_iteration.unwrap_or(Status::Success);
        found(text(status.engine_name()), 2)
    }

    /// `strategy.node.ID.currentStatus`: the loop of another node.
    fn looped_node(&self, path: &[Segment]) -> Lookup {
        let Some(wanted) = path.get(2).and_then(Segment::name) else { return Lookup::Missing };
        let Some(state) = self.state else { return Lookup::Missing };
        for (base, _) in self.runs_upwards() {
            let hit = self
                .plan
                .nodes
                .iter()
                .filter(|node| node.looping.is_some() && node.identifier == wanted)
                .find_map(|node| state.runs.get(&format!("{base}.{}", node.part)));
            if let (Some(run), Some("currentStatus")) = (hit, path.get(3).and_then(Segment::name)) {
                let status = if run.status.is_final() {
                    run.status
                } else {
                    run.worst_iteration.unwrap_or(Status::Success)
                };
                return found(text(status.engine_name()), 4);
            }
        }
        Lookup::Missing
    }

    pub(super) fn instance(&self, path: &[Segment]) -> Lookup {
        let Some(target) = self.target() else { return Lookup::Missing };
        let names = self.runs_upwards().filter_map(|(_, run)| run.iteration.as_ref()?.item.as_str());
        let mut known =
            names.filter_map(|name| target.infrastructure.hosts.iter().find(|host| host.written == name));
        let Some(host) = known.next() else { return Lookup::Missing };
        match (path.get(1).and_then(Segment::name), path.get(2).and_then(Segment::name)) {
            (Some("name" | "hostName"), _) => found(Value::tainted(host.host.as_str()), 2),
            (Some("host"), Some("instanceName" | "hostName")) => found(Value::tainted(host.host.as_str()), 3),
            (Some("host"), Some(_)) => {
                match own(&host.attributes).child(path.get(2).unwrap_or(&Segment::Index(0))) {
                    Ok(Some(value)) => found(value, 3),
                    _ => Lookup::Missing,
                }
            }
            _ => Lookup::Missing,
        }
    }
}
