//! How long events wait for their commit. Counted for operators and the bench; nothing depends on it.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds in milliseconds; what took longer is counted behind them.
const BOUNDS: [u64; 18] = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 200, 500, 1000, 5000, 30_000];

/// Counters since the start of this manager.
#[derive(Debug, Default)]
pub(super) struct Figures {
    within: [AtomicU64; BOUNDS.len()],
    later: AtomicU64,
    transitions: AtomicU64,
}

impl Figures {
    /// A commit that took in events which were received so many milliseconds ago.
    pub(super) fn committed(&self, waited_ms: impl Iterator<Item = u64>) {
        self.transitions.fetch_add(1, Ordering::Relaxed);
        for waited in waited_ms {
            let at = BOUNDS.partition_point(|bound| *bound < waited);
            self.within.get(at).unwrap_or(&self.later).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `{"transitions", "committedWithinMs": [{"ms", "events"}]}`; the last `ms` is null: no bound.
    pub(super) fn document(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let within = BOUNDS.iter().zip(&self.within);
        let mut buckets: Vec<Value> =
            within.map(|(bound, counter)| json!({ "ms": bound, "events": read(counter) })).collect();
        buckets.push(json!({ "ms": null, "events": read(&self.later) }));
        json!({ "transitions": read(&self.transitions), "committedWithinMs": buckets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_counts_under_the_first_bound_that_holds_it() {
        let figures = Figures::default();
        figures.committed([0, 1, 2, 50, 51, 30_001].into_iter());
        let document = figures.document();
        let events = |ms: Value| -> u64 {
            let buckets = document["committedWithinMs"].as_array().unwrap();
            buckets.iter().find(|bucket| bucket["ms"] == ms).unwrap()["events"].as_u64().unwrap()
        };
        assert_eq!((events(json!(1)), events(json!(2)), events(json!(50)), events(json!(75))), (2, 1, 1, 1));
        assert_eq!((events(json!(null)), &document["transitions"]), (1, &json!(1)));
    }
}
