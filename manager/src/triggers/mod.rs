//! What starts pipelines without a person: webhooks and the clock (pipeline.md §4.5).
//!
//! ```text
//! webhook ──▶ row in the store ──▶ answer          clock ──▶ row (its id is the tick) ──▶ last time in the store
//!                  └──────────▶ process: judge, launch, result in the row ◀──────────┘
//! ```
//! An event is stored before anybody is told that it was taken. The id of the execution that it starts is derived from
//! the event and the trigger, so that processing it again after a crash starts nothing twice.

mod find;
mod process;
mod schedule;

pub(crate) use find::{Stored, all, named};

use crate::app::App;
use crate::engine::Engine;
use crate::store::changes::{Change, Listener};
use crate::store::{StoreError, TriggerEvent};
use pipeline::trigger::Verdict;
use proto::ids::Id;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Refused calls that are written down in one second; the others only stand in the manager's log. Whoever has no key
/// must not fill the store.
const REFUSALS_PER_SECOND: u32 = 5;

/// What the store keeps of an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EventDoc {
    /// `webhook` or `tick`.
    pub(crate) kind: String,
    /// Scope that the call named: `org/project`, or empty.
    pub(crate) scope: String,
    /// Owner of the key.
    pub(crate) by: String,
    /// Body.
    pub(crate) payload: Value,
    /// Headers, without those that hold keys.
    pub(crate) headers: BTreeMap<String, String>,
    /// The tick, epoch milliseconds.
    pub(crate) scheduled_at: u64,
    /// What became of it, one for each trigger.
    pub(crate) results: Vec<Outcome>,
}

impl EventDoc {
    /// The one result that stands for all: the first that started something, otherwise the first.
    pub(crate) fn shown(&self) -> Option<&Outcome> {
        let started = self.results.iter().find(|result| result.execution_id.is_some());
        started.or(self.results.first())
    }
}

/// What became of an event at one trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// Pipeline of the trigger.
    pub(crate) pipeline: String,
    /// Trigger; empty when none was found.
    pub(crate) trigger: String,
    /// State of the event log.
    pub(crate) status: Verdict,
    /// Why.
    pub(crate) message: String,
    /// The execution that it started.
    #[serde(default)]
    pub(crate) execution_id: Option<String>,
}

/// The triggers of a manager.
pub struct Triggers {
    pub(crate) app: App,
    pub(crate) engine: Engine,
    events: Notify,
    schedules: Notify,
    refusals: Mutex<(u64, u32)>,
}

impl Listener for Triggers {
    fn committed(&self, change: &Change) {
        if matches!(change, Change::Entities) {
            self.schedules.notify_one();
        }
    }
}

impl Triggers {
    /// The triggers of this manager. Spawn [`Triggers::process`] and [`Triggers::keep_time`] beside it.
    pub fn new(app: App, engine: Engine) -> Arc<Self> {
        Arc::new(Triggers {
            app,
            engine,
            events: Notify::new(),
            schedules: Notify::new(),
            refusals: Mutex::default(),
        })
    }

    /// Stores an event that is to be processed; durable when it returns. `false`: this id is known already.
    pub(crate) async fn take(
        &self,
        id: String,
        of: (&str, &str),
        doc: &EventDoc,
    ) -> Result<bool, StoreError> {
        let event = self.row(id, of, doc, false)?;
        let added = self.app.store.add_trigger_event(event).await?;
        self.events.notify_one();
        Ok(added)
    }

    /// Writes down an event that needs no processing.
    pub(crate) async fn note(&self, id: String, of: (&str, &str), doc: &EventDoc) -> Result<(), StoreError> {
        let event = self.row(id, of, doc, true)?;
        self.app.store.add_trigger_event(event).await.map(|_| ())
    }

    fn row(
        &self,
        id: String,
        of: (&str, &str),
        doc: &EventDoc,
        done: bool,
    ) -> Result<TriggerEvent, StoreError> {
        let doc = serde_json::to_value(doc).map_err(|error| StoreError::Backend(error.to_string()))?;
        let (pipeline, trigger) = (of.0.to_owned(), of.1.to_owned());
        Ok(TriggerEvent { id, pipeline, trigger, at: self.app.clock.wall(), done, doc })
    }

    /// Whether one more refused call may be written down now.
    pub(crate) fn may_note_refusal(&self) -> bool {
        let second = self.app.clock.wall() / 1000;
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.0 != second {
            *refusals = (second, 0);
        }
        refusals.1 = refusals.1.saturating_add(1);
        refusals.1 <= REFUSALS_PER_SECOND
    }
}

/// What an event row holds; one that cannot be read shows as empty.
pub(crate) fn doc_of(event: &TriggerEvent) -> EventDoc {
    serde_json::from_value(event.doc.clone()).unwrap_or_default()
}

/// An id that the same parts always give.
fn derived(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0_u8; 16];
    for (to, from) in bytes.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    Id::typeable(bytes).to_string()
}
