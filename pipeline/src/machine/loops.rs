//! Loops: the items of a node's `strategy`, and its iterations (pipeline.md 2.3).
//!
//! The items of a loop stand apart from its run and are written once. What changes with every iteration is a few
//! counters, so that a step costs the same in a loop of ten and of ten thousand.

use super::Machine;
use super::sequence::run_node;
use super::state::{Phase, State};
use crate::model::ecs::EcsAction;
use crate::model::looping::{Items, LoopKind, name_postfix};
use crate::model::step::Spec;
use crate::plan::{Iteration, NodeKind, PlanNode};
use crate::scope::NodeScope;
use proto::failure::{Failure, FailureKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Iterations of rule R7 at once (settled facts §1.6).
const MAX_HOSTS_AT_ONCE: usize = 50;

/// The items of loops by the id of the run that loops, with a note of which are new.
///
/// **Shape**: a map on the wire and in comparisons. Entries are added and never changed.
#[derive(Clone, Debug, Default)]
pub struct Loops {
    map: BTreeMap<String, Arc<Items>>,
    fresh: BTreeSet<String>,
}

impl Loops {
    /// The items of a loop.
    pub fn get(&self, id: &str) -> Option<&Arc<Items>> {
        self.map.get(id)
    }

    /// Adds the items of a loop that begins.
    pub fn insert(&mut self, id: String, items: Items) {
        self.fresh.insert(id.clone());
        self.map.insert(id, Arc::new(items));
    }

    /// Ids of the loops that began since the last call, or since the map was made or read.
    pub fn take_fresh(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.fresh)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl PartialEq for Loops {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl Serialize for Loops {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.map.iter().map(|(id, items)| (id, &**items)))
    }
}

impl<'de> Deserialize<'de> for Loops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read: BTreeMap<String, Items> = BTreeMap::deserialize(deserializer)?;
        let map = read.into_iter().map(|(id, items)| (id, Arc::new(items))).collect();
        Ok(Loops { map, fresh: BTreeSet::new() })
    }
}

impl State {
    /// Whether a run is a loop whose members are iterations.
    pub fn is_loop(&self, id: &str) -> bool {
        // States of older versions hold the items in the run itself.
        self.loops.get(id).is_some() || self.runs.get(id).is_some_and(|run| !run.items.is_empty())
    }

    /// Ids of the runs of a run's members or iterations, in the order in which they began.
    pub fn members(&self, id: &str) -> Vec<String> {
        match (self.loops.get(id), self.runs.get(id)) {
            (Some(items), Some(_)) => (0..items.items.len())
                .map(|index| format!("{id}{}", items.postfix(index)))
                .take_while(|id| self.runs.contains_key(id))
                .collect(),
            (None, Some(run)) => run.children.clone(),
            (_, None) => Vec::new(),
        }
    }
}

impl Machine<'_> {
    /// The iterations of a node that loops.
    pub(super) fn loop_items(&self, id: &str, node: &PlanNode) -> Result<Items, Box<Failure>> {
        let bad = |what: &str, error: String| {
            Box::new(Failure::new(FailureKind::BadSpec, "PIPE-003", format!("`{what}` of the loop: {error}")))
        };
        let Some(looping) = &node.looping else {
            let hosts =
                self.plan.target_of(run_node(self.run(id))).map(|target| &target.infrastructure.hosts);
            let items: Vec<Json> =
                hosts.into_iter().flatten().map(|host| Json::String(host.written.clone())).collect();
            if items.is_empty() {
                return Err(bad("items", "the stage has no hosts".to_owned()));
            }
            return Ok(Items { items, is_host: true, limit: MAX_HOSTS_AT_ONCE, ..Items::default() });
        };
        let scope = self.scope(id);
        let context = self.context(&scope);
        let mut items = looping
            .expand(&|field| super::task::field_value(field, &context))
            .map_err(|error| bad(error.key, error.why))?;
        // A step that undoes one in a loop goes over what that one did.
        if let NodeKind::Step { spec, .. } = &node.kind
            && let Spec::Ecs(step) = &**spec
            && let EcsAction::EcsUndo { of, .. } = &step.action
        {
            let builder = super::task::Builder::new(&self.plan, self.state, id, self.at);
            items.items = super::task::undo_items(&builder, of);
        }
        if let Some(name) = looping.node_name() {
            let named = named_iterations(&mut items, |iteration| {
                let scope = NodeScope { iteration: Some(iteration), ..self.scope(id) };
                super::task::render(name, &self.context(&scope), expr::Mode::Throw)
            });
            named.map_err(|error| bad("nodeName", error.to_string()))?;
        }
        Ok(items)
    }

    pub(super) fn begin_loop(&mut self, id: &str, items: Items) {
        if items.items.is_empty() {
            return self.skip(id);
        }
        let limit = items.limit.max(1);
        self.state.loops.insert(id.to_owned(), items);
        self.update(id, |run| {
            run.phase = Phase::Loop;
            run.iteration = None;
        });
        for _ in 0..limit {
            if !self.next_iteration(id) {
                break;
            }
        }
    }

    /// Starts the next iteration, if there is one left and nothing ends the loop.
    pub(super) fn next_iteration(&mut self, id: &str) -> bool {
        if self.is_ending(id) || self.is_stopped(id) {
            return false;
        }
        let Some(run) = self.run(id) else { return false };
        let (index, node, failed) = (run.next, run.node, run.iteration_failed);
        let next = match self.state.loops.get(id) {
            Some(items) if failed && items.skip_queued => None,
            Some(items) => iteration(items, index),
            // The loop began in an older version.
            None => run.items.get(index).cloned().map(|item| Iteration {
                index,
                total: run.items.len(),
                item,
                is_host: self.plan.node(node).is_some_and(|node| node.looping.is_none()),
                ..Iteration::default()
            }),
        };
        let Some(next) = next else { return false };
        self.update(id, |run| run.next += 1);
        self.add_child(id, node, Some(next));
        true
    }
}

/// Gives the iterations the postfixes that `nodeName` renders to.
pub(crate) fn named_iterations<E>(
    items: &mut Items,
    mut render: impl FnMut(&Iteration) -> Result<String, E>,
) -> Result<(), E> {
    let mut taken = BTreeSet::new();
    let mut postfixes = Vec::with_capacity(items.items.len());
    for index in 0..items.items.len() {
        let Some(iteration) = iteration(items, index) else { break };
        let mut postfix = name_postfix(&render(&iteration)?);
        // Two iterations of the same name stay two nodes.
        while postfix == "_" || !taken.insert(postfix.clone()) {
            postfix.push_str(&items.postfix(index));
        }
        postfixes.push(postfix);
    }
    items.postfixes = postfixes;
    Ok(())
}

fn iteration(items: &Items, index: usize) -> Option<Iteration> {
    let item = items.items.get(index)?.clone();
    let (total, postfix) = (items.items.len(), items.postfix(index));
    Some(Iteration { index, total, item, is_host: items.is_host, kind: items.kind, postfix })
}

impl Iteration {
    /// What the identifier of the iteration ends with.
    pub fn ending(&self) -> String {
        match self.postfix.is_empty() {
            true => format!("_{}", self.index),
            false => self.postfix.clone(),
        }
    }

    /// An iteration that the plan itself fixed.
    pub(crate) fn fixed(items: &Items, index: usize) -> Option<Self> {
        iteration(items, index)
    }

    /// `<+repeat.item>`.
    pub(crate) fn repeat_item(&self) -> Option<&Json> {
        matches!(self.kind, LoopKind::Repeat | LoopKind::Count).then_some(&self.item)
    }
}
