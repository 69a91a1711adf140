//! ECS' own strategies (facts A14): BLUE_GREEN, LINEAR and CANARY, with PAUSE hooks as gates for the steps of a pipeline.
//!
//! ```text
//! definition ─gates─► UpdateService ─find─► service deployment ─follow─► at a gate: the step ends, others judge
//!                                                ▲                                     │
//!                                                └──── ContinueServiceDeployment ◄─────┘  or ROLLBACK
//! ```
//! ECS does the work and keeps the state; a step only reads it, and answers gates. Nothing runs while a pipeline judges: the
//! hook's own timeout rolls back what nobody continues. `config`, `view` and `judge` are pure.

mod back;
mod config;
mod ending;
mod find;
mod follow;
mod judge;
mod looks;
mod view;

pub(crate) use back::{Undoing, undo};
pub(crate) use config::{configure, is_native, settle, strategy};
pub(crate) use find::{find, previous, under_way};
pub(crate) use follow::{Arrival, Followed, Following, Way, answer, follow};
pub(crate) use judge::Pause;
pub(crate) use looks::{Looks, look};
pub(crate) use view::{View, percent};

use serde_json::{Value, json};

/// What a step that follows a deployment gives on: where it has come to.
pub(crate) fn outputs(followed: &Followed, pause: Option<&Pause>) -> Vec<(&'static str, Value)> {
    let mut outputs = vec![
        ("strategy", json!(followed.strategy)),
        ("serviceDeployment", json!(followed.arn)),
        ("paused", json!(pause.is_some())),
        ("weight", pause.map_or(json!(100.0), |pause| json!(pause.weight))),
    ];
    if let Some(pause) = pause {
        outputs.push(("stage", json!(pause.stage)));
        outputs.push(("testWeight", json!(pause.test_weight)));
        outputs.push(("expiresAt", json!(pause.expires.map(proto::logs::rfc3339))));
    }
    outputs
}
