//! The one thing a restarted agent must know: when the window began.

use executor_api::Checkpoint;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    v: u32,
    start_ms: i64,
}

/// The mark at the start of a window. An analysis changes nothing, so it announces no call.
pub(crate) fn started(start_ms: i64) -> Checkpoint {
    Checkpoint {
        intent: format!("observe metrics from {}", proto::logs::rfc3339(start_ms)),
        calls: vec![],
        state: serde_json::to_value(Mark { v: VERSION, start_ms }).unwrap_or_default(),
        undo: None,
    }
}

/// When the window began, if it did. The first readable mark counts: a later one would move the window.
pub(crate) fn start_of(history: &[Checkpoint]) -> Option<i64> {
    history.iter().find_map(|mark| Some(serde_json::from_value::<Mark>(mark.state.clone()).ok()?.start_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_counts() {
        assert_eq!(start_of(&[]), None);
        let mut odd = started(1);
        odd.state = serde_json::json!("?");
        assert_eq!(start_of(&[odd, started(5), started(9)]), Some(5));
    }
}
