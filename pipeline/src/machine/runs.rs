//! The runs of a state, with a note of which ones changed.

use super::state::Run;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ops::Deref;

/// Runs by id.
///
/// **Shape**: a map on the wire and in comparisons. It also remembers the runs as they were when
/// [`Runs::take_changed`] was last asked, so that whoever stores a large state writes only what an event changed.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    map: BTreeMap<String, Run>,
    /// What touched runs were before; `None` for one that was not there.
    before: BTreeMap<String, Option<RunBefore>>,
}

/// A run that differs from what it was.
#[derive(Debug)]
pub struct Changed {
    /// Its id.
    pub id: String,
    /// What it was; `None` if it was not there.
    pub before: Option<RunBefore>,
}

/// A run as it was. Its lists, which may be long, are kept as their lengths: `items` is set once, when the loop begins,
/// and `children` only grows.
#[derive(Clone, Debug)]
pub struct RunBefore {
    /// The run without `items` and `children`.
    pub run: Run,
    /// Length of `items`.
    pub items: usize,
    /// Length of `children`.
    pub children: usize,
}

impl RunBefore {
    fn of(run: &mut Run) -> Self {
        let (items, children) = (std::mem::take(&mut run.items), std::mem::take(&mut run.children));
        let before = RunBefore { run: run.clone(), items: items.len(), children: children.len() };
        (run.items, run.children) = (items, children);
        before
    }

    /// How long the longer list of `now` is, if its lists are those of before with more behind them; 0 if not.
    pub fn lists_grew_to(&self, now: &Run) -> usize {
        let items = self.items == 0 || self.items == now.items.len();
        if items && self.children <= now.children.len() { now.items.len().max(now.children.len()) } else { 0 }
    }
}

impl Runs {
    /// A run to change.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Run> {
        let run = self.map.get_mut(id)?;
        if !self.before.contains_key(id) {
            self.before.insert(id.to_owned(), Some(RunBefore::of(run)));
        }
        Some(run)
    }

    /// A copy of a run without `items` and `children`, at a cost that does not depend on them.
    pub fn without_lists(&mut self, id: &str) -> Option<Run> {
        self.map.get_mut(id).map(|run| RunBefore::of(run).run)
    }

    /// Adds or replaces a run.
    pub fn insert(&mut self, id: String, run: Run) {
        let old = self.map.insert(id.clone(), run);
        self.before.entry(id).or_insert_with(|| old.map(|mut old| RunBefore::of(&mut old)));
    }

    /// Takes a run away.
    pub fn remove(&mut self, id: &str) -> Option<Run> {
        let mut old = self.map.remove(id)?;
        self.before.entry(id.to_owned()).or_insert_with(|| Some(RunBefore::of(&mut old)));
        Some(old)
    }

    /// The runs that differ from what they were at the last call, or since the map was made or read.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        let before = std::mem::take(&mut self.before);
        let changed = before.into_iter().filter(|(id, old)| match (self.map.get_mut(id), old) {
            (None, None) => false,
            (Some(now), Some(old)) => {
                let now = RunBefore::of(now);
                now.run != old.run || now.items != old.items || now.children != old.children
            }
            (Some(_), None) | (None, Some(_)) => true,
        });
        changed.map(|(id, before)| Changed { id, before }).collect()
    }
}

impl Deref for Runs {
    type Target = BTreeMap<String, Run>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl PartialEq for Runs {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.map.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Runs { map: BTreeMap::deserialize(deserializer)?, before: BTreeMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(runs: &mut Runs) -> Vec<String> {
        runs.take_changed().into_iter().map(|run| run.id).collect()
    }

    #[test]
    fn only_what_differs_counts_as_changed() {
        let mut runs = Runs::default();
        runs.insert("a".to_owned(), Run::default());
        runs.insert("b".to_owned(), Run::default());
        assert_eq!(changed(&mut runs), ["a", "b"]);
        assert!(changed(&mut runs).is_empty());
        runs.get_mut("a").unwrap().attempt = 1;
        runs.get_mut("b").unwrap().attempt = 1;
        runs.get_mut("b").unwrap().attempt = 0;
        assert_eq!(changed(&mut runs), ["a"], "b is what it was");
        assert!(runs.get_mut("c").is_none());
        let read: Runs = serde_json::from_value(serde_json::to_value(&runs).unwrap()).unwrap();
        assert_eq!(read, runs);
    }

    #[test]
    fn a_grown_list_is_told_by_its_length() {
        let mut runs = Runs::default();
        runs.insert("a".to_owned(), Run { children: vec!["a_0".to_owned()], ..Run::default() });
        assert_eq!(changed(&mut runs), ["a"]);
        runs.get_mut("a").unwrap().children.push("a_1".to_owned());
        let grown = runs.take_changed().pop().unwrap().before.unwrap();
        assert_eq!((grown.children, grown.run.children.len(), grown.lists_grew_to(&runs["a"])), (1, 0, 2));
        assert_eq!(runs["a"].children, ["a_0", "a_1"], "the run itself keeps its lists");
        runs.get_mut("a").unwrap().children.clear();
        let shrunk = runs.take_changed().pop().unwrap().before.unwrap();
        assert_eq!(shrunk.lists_grew_to(&runs["a"]), 0);
    }
}
