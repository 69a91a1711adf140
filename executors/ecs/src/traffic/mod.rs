//! Where requests go: listeners, rules and target groups of Elastic Load Balancing (facts `ecs-ssh-steps.md` A9).
//!
//! `actions`, `weights`, `rule` and `find` are pure: lists of actions are read and changed, rules and target groups are chosen.
//! `look` reads, `health` waits for targets, `change` writes: announced with the whole list that stood there, only if it is
//! still as it was seen, and read back.

mod actions;
#[cfg(test)]
mod actions_tests;
pub(crate) mod change;
pub(crate) mod discover;
mod fault;
pub(crate) mod find;
pub(crate) mod health;
pub(crate) mod look;
pub(crate) mod pair;
mod rule;
pub(crate) mod shift;
pub(crate) mod undo;
mod weights;

pub(crate) use self::{
    actions::Actions,
    change::{Expect, Rules, SavedRule},
    fault::Fault,
    rule::Rule,
    weights::{Weights, short},
};
