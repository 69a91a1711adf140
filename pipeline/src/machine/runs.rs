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
    before: BTreeMap<String, Option<Run>>,
}

impl Runs {
    /// A run to change.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Run> {
        let run = self.map.get_mut(id)?;
        if !self.before.contains_key(id) {
            self.before.insert(id.to_owned(), Some(run.clone()));
        }
        Some(run)
    }

    /// Adds or replaces a run.
    pub fn insert(&mut self, id: String, run: Run) {
        let old = self.map.insert(id.clone(), run);
        self.before.entry(id).or_insert(old);
    }

    /// Ids of the runs that differ from what they were at the last call, or since the map was made or read.
    pub fn take_changed(&mut self) -> Vec<String> {
        let before = std::mem::take(&mut self.before);
        let differs = |(id, old): &(String, Option<Run>)| self.map.get(id) != old.as_ref();
        before.into_iter().filter(differs).map(|(id, _)| id).collect()
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

    #[test]
    fn only_what_differs_counts_as_changed() {
        let mut runs = Runs::default();
        runs.insert("a".to_owned(), Run::default());
        runs.insert("b".to_owned(), Run::default());
        assert_eq!(runs.take_changed(), ["a", "b"]);
        assert!(runs.take_changed().is_empty());
        runs.get_mut("a").unwrap().attempt = 1;
        runs.get_mut("b").unwrap().attempt = 1;
        runs.get_mut("b").unwrap().attempt = 0;
        assert_eq!(runs.take_changed(), ["a"], "b is what it was");
        assert!(runs.get_mut("c").is_none());
        let read: Runs = serde_json::from_value(serde_json::to_value(&runs).unwrap()).unwrap();
        assert_eq!(read, runs);
    }
}
