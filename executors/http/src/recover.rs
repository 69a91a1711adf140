//! What the checkpoints of an Http step say.
//!
//! Only a request that changes something leaves marks. `Sent` is durable before the request leaves; `Answered` follows
//! the answer. Between the two, nobody can know whether the request was carried out.

use crate::request::Response;
use executor_api::Checkpoint;
use serde::{Deserialize, Serialize};

/// Version of [`Mark`]; it stands in every checkpoint.
const VERSION: u32 = 1;

/// What a checkpoint of this executor holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
enum Mark {
    /// A request is about to be sent.
    #[serde(rename_all = "camelCase")]
    Sent {
        v: u32,
        /// A second one does no harm.
        repeatable: bool,
    },
    /// The final answer, from which the step can be judged again.
    Answered { v: u32, response: Response },
}

/// Where the step stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// Nothing was sent that a second request could double.
    Fresh,
    /// Sent, and no answer is known.
    Unknown { call: String },
    /// Answered.
    Answered(Box<Response>),
}

/// The mark before a request leaves.
pub(crate) fn sent(call: &str, repeatable: bool) -> Checkpoint {
    Checkpoint {
        intent: format!("send {call}"),
        calls: vec![call.to_owned()],
        state: encode(&Mark::Sent { v: VERSION, repeatable }),
        undo: None,
    }
}

/// The mark after the final answer.
pub(crate) fn answered(call: &str, response: &Response) -> Checkpoint {
    Checkpoint {
        intent: format!("{call} was answered with HTTP {}", response.status),
        calls: vec![],
        state: encode(&Mark::Answered { v: VERSION, response: response.clone() }),
        undo: None,
    }
}

fn encode(mark: &Mark) -> serde_json::Value {
    // A mark holds only texts, numbers and booleans; it can always be written.
    serde_json::to_value(mark).unwrap_or_default()
}

/// Where the step stands. A mark that this build cannot read counts as sent: it stands for a request all the same.
pub(crate) fn standing(history: &[Checkpoint]) -> Standing {
    let mut standing = Standing::Fresh;
    for checkpoint in history {
        match serde_json::from_value(checkpoint.state.clone()) {
            Ok(Mark::Answered { response, .. }) => standing = Standing::Answered(Box::new(response)),
            Ok(Mark::Sent { repeatable: true, .. }) => {}
            Ok(Mark::Sent { .. }) | Err(_) => {
                let call = checkpoint.calls.first().unwrap_or(&checkpoint.intent);
                standing = Standing::Unknown { call: call.clone() };
            }
        }
    }
    standing
}

/// For a failure text.
pub(crate) fn evidence(call: &str) -> String {
    format!("`{call}` was sent before the agent stopped, and its answer is not known")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> Response {
        Response { status: 201, body: "ok".into(), cut: false, retry_after_s: None }
    }

    #[test]
    fn the_last_mark_decides() {
        assert_eq!(standing(&[]), Standing::Fresh);
        assert_eq!(standing(&[sent("PUT u", true)]), Standing::Fresh);
        let open = sent("POST u", false);
        assert_eq!(standing(std::slice::from_ref(&open)), Standing::Unknown { call: "POST u".into() });
        let done = answered("POST u", &response());
        assert_eq!(standing(&[open.clone(), done.clone()]), Standing::Answered(Box::new(response())));
        assert_eq!(standing(&[open.clone(), done, open]), Standing::Unknown { call: "POST u".into() });
    }

    #[test]
    fn an_unreadable_mark_counts_as_sent() {
        let mut mark = sent("POST u", false);
        mark.state = serde_json::json!({"phase": "teleported"});
        assert_eq!(standing(&[mark]), Standing::Unknown { call: "POST u".into() });
    }
}
