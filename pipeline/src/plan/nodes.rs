//! The nodes of a plan, which many runs of one pipeline can share.

use super::PlanNode;
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

/// The nodes of a plan. Copies share them until one is changed; on paper they are a plain list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nodes(Arc<Vec<PlanNode>>);

impl Nodes {
    /// Takes the place of equal nodes that somebody else keeps, so that they are in memory once. `false`: those are gone,
    /// or differ, and nothing changed.
    pub fn share(&mut self, kept: &Weak<Vec<PlanNode>>) -> bool {
        let Some(kept) = kept.upgrade().filter(|kept| Arc::ptr_eq(kept, &self.0) || **kept == *self.0) else {
            return false;
        };
        self.0 = kept;
        true
    }

    /// What others [share](Nodes::share) these by. It does not keep them.
    pub fn handle(&self) -> Weak<Vec<PlanNode>> {
        Arc::downgrade(&self.0)
    }
}

impl Deref for Nodes {
    type Target = Vec<PlanNode>;

    fn deref(&self) -> &Vec<PlanNode> {
        &self.0
    }
}

impl DerefMut for Nodes {
    /// Makes a copy first when they are shared.
    fn deref_mut(&mut self) -> &mut Vec<PlanNode> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a> IntoIterator for &'a Nodes {
    type Item = &'a PlanNode;
    type IntoIter = std::slice::Iter<'a, PlanNode>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a mut Nodes {
    type Item = &'a mut PlanNode;
    type IntoIter = std::slice::IterMut<'a, PlanNode>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Place;
    use crate::model::Field;
    use crate::plan::NodeKind;

    fn nodes(identifier: &str) -> Nodes {
        let name = Field {
            value: identifier.into(),
            path: String::new(),
            at: Place { source: "".into(), line: 1, column: 1 },
        };
        let mut nodes = Nodes::default();
        nodes.push(PlanNode::bare(identifier, name, NodeKind::Parallel));
        nodes
    }

    #[test]
    fn equal_nodes_are_kept_once_until_one_is_changed() {
        let first = nodes("a");
        let mut second = nodes("a");
        assert!(second.share(&first.handle()));
        assert!(Arc::ptr_eq(&first.0, &second.0));
        second[0].identifier = "b".to_owned();
        assert_eq!(first[0].identifier, "a");
        assert!(!second.share(&first.handle()), "they differ");
        let gone = nodes("b").handle();
        assert!(!second.share(&gone), "nobody keeps them any more");
        assert!(matches!(second[0].kind, NodeKind::Parallel));
    }

    #[test]
    fn on_paper_they_are_a_list() {
        let text = serde_json::to_value(nodes("a")).unwrap();
        assert!(text.as_array().is_some_and(|list| list.len() == 1), "{text}");
        assert_eq!(serde_json::from_value::<Nodes>(text).unwrap(), nodes("a"));
    }
}
