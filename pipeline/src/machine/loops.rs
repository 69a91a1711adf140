//! Loops: the items of a node's `strategy`, and its iterations (pipeline.md 2.3).

use super::Machine;
use super::sequence::run_node;
use super::state::{Iteration, Phase};
use crate::model::step::Looping;
use crate::plan::PlanNode;
use proto::failure::{Failure, FailureKind};
use serde_json::Value as Json;

/// Iterations of rule R7 at once (settled facts §1.6).
const MAX_HOSTS_AT_ONCE: usize = 50;

/// Most iterations of a loop. More is a mistake in the expression that gives the items.
pub(crate) const MAX_ITERATIONS: usize = 10_000;

impl Machine<'_> {
    /// Items, how many at once, and whether they are hosts.
    pub(super) fn loop_items(
        &self,
        id: &str,
        node: &PlanNode,
    ) -> Result<(Vec<Json>, usize, bool), Box<Failure>> {
        let bad = |what: &str, error: String| {
            Box::new(Failure::new(FailureKind::BadSpec, "PIPE-003", format!("`{what}` of the loop: {error}")))
        };
        let scope = self.scope(id);
        let context = self.context(&scope);
        let number = |field: &crate::model::Field, what: &str| -> Result<usize, Box<Failure>> {
            let value =
                super::task::field_value(field, &context).map_err(|error| bad(what, error.to_string()))?;
            let number = match &value {
                Json::Number(number) => number.as_u64(),
                Json::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            number
                .and_then(|number| usize::try_from(number).ok())
                .ok_or_else(|| bad(what, format!("expected a whole number, found {value}")))
        };
        let (items, limit, is_host) = match &node.looping {
            None => {
                let hosts =
                    self.plan.target_of(run_node(self.run(id))).map(|target| &target.infrastructure.hosts);
                let items: Vec<Json> =
                    hosts.into_iter().flatten().map(|host| Json::String(host.written.clone())).collect();
                if items.is_empty() {
                    return Err(bad("items", "the stage has no hosts".to_owned()));
                }
                (items, MAX_HOSTS_AT_ONCE, true)
            }
            Some(Looping::Repeat { items: Some(items), max_concurrency, .. }) => {
                let value = super::task::field_value(items, &context)
                    .map_err(|error| bad("items", error.to_string()))?;
                let Json::Array(list) = value else {
                    return Err(bad("items", format!("expected a list, found {value}")));
                };
                let limit =
                    max_concurrency.as_ref().map_or(Ok(0), |field| number(field, "maxConcurrency"))?;
                (list, limit, false)
            }
            Some(Looping::Repeat { times: Some(count), max_concurrency, .. })
            | Some(Looping::Parallelism { count, max_concurrency }) => {
                let count = number(count, "times")?;
                let limit =
                    max_concurrency.as_ref().map_or(Ok(0), |field| number(field, "maxConcurrency"))?;
                if count > MAX_ITERATIONS {
                    return Err(bad("times", format!("{count} iterations; the limit is {MAX_ITERATIONS}")));
                }
                ((0..count).map(Json::from).collect(), limit, false)
            }
            Some(Looping::Repeat { .. }) => (Vec::new(), 0, false),
        };
        if items.len() > MAX_ITERATIONS {
            return Err(bad("items", format!("{} iterations; the limit is {MAX_ITERATIONS}", items.len())));
        }
        let limit = if limit == 0 { items.len().max(1) } else { limit };
        Ok((items, limit, is_host))
    }

    pub(super) fn begin_loop(&mut self, id: &str, items: Vec<Json>, limit: usize, is_host: bool) {
        if items.is_empty() {
            return self.skip(id);
        }
        self.update(id, |run| {
            run.phase = Phase::Loop;
            run.items = items;
            run.limit = limit;
            run.iteration = None;
        });
        for _ in 0..limit {
            if !self.next_iteration(id, is_host) {
                break;
            }
        }
    }

    /// Starts the next iteration, if there is one left and nothing ends the loop.
    pub(super) fn next_iteration(&mut self, id: &str, is_host: bool) -> bool {
        if self.is_ending(id) {
            return false;
        }
        let Some(run) = self.run(id) else { return false };
        let (index, total, node) = (run.next, run.items.len(), run.node);
        let Some(item) = run.items.get(index).cloned() else { return false };
        self.update(id, |run| run.next += 1);
        self.add_child(id, node, Some(Iteration { index, total, item, is_host }));
        true
    }
}
