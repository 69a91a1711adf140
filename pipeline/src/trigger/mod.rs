//! Triggers: what starts a pipeline without a person (pipeline.md §4.5).
//!
//! ```text
//! document --read--> Trigger --judge(event)--> fires | why not
//!                       | fires
//!                       +--> input sets + inputYaml, with TriggerFacts in the scope of the run
//! ```
//! Everything here is pure: the manager brings events and the time, and keeps what came of them.

mod condition;
pub mod cron;
mod facts;
pub(crate) mod inputs;
mod judge;
mod read;
#[cfg(test)]
mod tests;

pub use condition::{Condition, Operator};
pub use facts::TriggerFacts;
pub use judge::{Verdict, judge};
pub use read::{inline, parse, read_trigger};

use crate::fault::Place;
use crate::yaml::Node;
use cron::Schedule;

/// A trigger of one pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Identifier, unique in its pipeline.
    pub identifier: String,
    /// Name, for people.
    pub name: String,
    /// Organisation and project: `org/project`, `org`, or empty.
    pub scope: String,
    /// Identifier of the pipeline that it starts.
    pub pipeline: String,
    /// A disabled one never fires.
    pub enabled: bool,
    /// What it waits for.
    pub source: Source,
    /// Input sets that are laid over the pipeline, in order.
    pub input_sets: Vec<String>,
    /// Inputs of the run, with expressions about the event; laid over the input sets.
    pub input_yaml: Option<String>,
    /// Where it was written.
    pub at: Place,
    /// Its document, as JSON: what `trigger show` prints of one that stands in a pipeline.
    pub document: serde_json::Value,
}

/// What a trigger waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A call of the custom webhook. Every condition must hold.
    Custom {
        /// About the body.
        payload: Vec<Condition>,
        /// About the headers.
        headers: Vec<Condition>,
        /// A condition in JEXL.
        jexl: Option<String>,
    },
    /// The clock.
    Cron(Schedule),
}

impl Source {
    /// What `<+pipeline.triggerType>` says of a run that it started.
    pub fn run_type(&self) -> &'static str {
        match self {
            Source::Custom { .. } => "WEBHOOK_CUSTOM",
            Source::Cron(_) => "SCHEDULER_CRON",
        }
    }

    /// For people: `Custom` or `Cron`.
    pub fn name(&self) -> &'static str {
        match self {
            Source::Custom { .. } => "Custom",
            Source::Cron(_) => "Cron",
        }
    }
}

impl Trigger {
    /// The scope that a trigger or input set of a pipeline is stored under: identifiers are unique in their pipeline.
    pub fn stored_scope(scope: &str, pipeline: &str) -> String {
        match scope {
            "" => pipeline.to_owned(),
            scope => format!("{scope}/{pipeline}"),
        }
    }
}

/// The text of a scalar, or the values of a list of scalars.
fn texts(node: &Node) -> Option<Vec<String>> {
    match node.as_list() {
        Some(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        None => node.as_str().map(|text| vec![text.to_owned()]),
    }
}
