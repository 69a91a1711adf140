//! Wire types of the delegate REST protocol and the log service, delegate tokens, ids and limits. No I/O.
//!
//! Two borders meet here. [`task`], [`result`], [`failure`] and [`text`] hold our own dialect: the typed document that
//! a task carries in `data` (DESIGN D2) and the answer to it. The other modules restate the Harness wire, field by
//! field, with the tolerance that its clients need: [`register`] (register, heartbeat, unregister), [`events`],
//! [`package`] (the JSON acquire reply), [`response`], [`calls`] (many of ours in one request), [`logs`], [`token`] (the bearer), [`selector`]. What we add to
//! that wire stands under `delegateExt` (ADR 0002); [`seal`] is its cryptography for secrets.
//!
//! Nothing here performs I/O or reads a clock. Randomness comes from the caller, except for key generation and sealing
//! in [`seal`], where the cryptographic library draws its own.

pub mod calls;
pub mod events;
pub mod failure;
pub mod ids;
pub mod limits;
pub mod logs;
pub mod package;
pub mod register;
pub mod reply;
pub mod response;
pub mod result;
pub mod seal;
pub mod selector;
pub mod task;
pub mod text;
pub mod token;
mod tolerance;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    /// Any JSON value, with keys that occur on the wire so that decoders are entered.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Quarters: serde_json reads other fractions back with an error in the last digit.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
            ".{0,12}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            ".{0,6}",
            proptest::sample::select(vec![
                "id",
                "type",
                "data",
                "code",
                "delegateExt",
                "resource",
                "eventType",
                "delegateTaskId",
                "logging",
                "abstractions",
                "delegate",
                "timeout",
                "level",
                "time",
                "args",
                "held",
                "features",
                "verdicts",
                "fence",
            ])
            .prop_map(str::to_owned),
        ];
        leaf.prop_recursive(3, 24, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
