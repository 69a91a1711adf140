//! Server-side apply of a set of objects.
//!
//! ```text
//! validate: dry run of everything, rights ──► apply: wave by wave, objects of a wave beside each other
//!              └─ what needs a namespace or definition of the set is validated once those exist, before all else
//! ```
//! Our field manager is [`MANAGER`]. A field that another manager owns with another value is a conflict that names
//! it; fields written by a client-side apply are taken over once, so that removing them from the manifest removes
//! them from the object.

mod definitions;
mod owners;
mod rights;
mod send;
mod validate;

pub(crate) use definitions::Definitions;
pub(crate) use rights::{Need, check_rights, is_allowed};
pub(crate) use validate::{validate, would_be};

use crate::objects::{Object, Reference};
use bytes::Bytes;
use executor_api::StepError;

/// The name under which we own fields.
pub(crate) const MANAGER: &str = "delegate";

/// How a set is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Takes fields over from other managers (command flag `--force-conflicts`).
    pub(crate) force_conflicts: bool,
    /// No dry run before the first change.
    pub(crate) skip_dry_run: bool,
    /// Unknown fields are let through (command flag `--validate=false`).
    pub(crate) lenient: bool,
}

/// What the dry run said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It was not asked (the dry run was skipped).
    Unasked,
    /// It can be asked only when the namespace or definition of the same set exists.
    Deferred,
    /// It is accepted. `version` is that of the live object, `None` when there is none. `adopt`: fields of a
    /// client-side apply are to be taken over first.
    Accepted { version: Option<String>, adopt: bool },
}

/// One object, ready to be sent.
struct Prepared {
    object: Object,
    body: Bytes,
    verdict: Verdict,
}

/// A validated set in the order in which it is applied.
pub(crate) struct Set {
    items: Vec<Prepared>,
    options: Options,
    /// What was applied so far, also when the apply ended early.
    done: Vec<Applied>,
}

impl Set {
    /// The objects in their order.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.items.iter().map(|item| &item.object)
    }

    /// What was applied so far, also when the apply ended early.
    pub(crate) fn done(&self) -> &[Applied] {
        &self.done
    }

    /// Whether this object was applied so far.
    pub(crate) fn has_applied(&self, object: &Object) -> bool {
        let reference = object.reference();
        self.done.iter().any(|applied| applied.reference == reference)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }
}

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Changed,
    Unchanged,
}

/// One object after it was applied.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) reference: Reference,
    pub(crate) uid: String,
    pub(crate) outcome: Outcome,
}

/// One error for all objects that were refused: class and code of the first, the texts of all.
fn gathered(what: &str, total: usize, mut errors: Vec<StepError>) -> StepError {
    const SHOWN: usize = 20;
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let count = errors.len();
    let mut text = format!("{what}: {count} of {total} objects were refused:");
    for error in errors.iter().take(SHOWN) {
        text.push_str("\n- ");
        text.push_str(&error.what);
    }
    if count > SHOWN {
        text.push_str(&format!("\n- and {} more", count - SHOWN));
    }
    let first = errors.remove(0);
    StepError { what: text, ..first }
}
