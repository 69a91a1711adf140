//! The clock as a trigger.
//!
//! Which tick came last stands in the store for each trigger. The event of a tick has the tick as its id, so that a
//! crash between the event and that note fires nothing twice. Of ticks that passed while the manager was away only the
//! newest fires, and only within [`CATCH_UP_MS`]; an older one is written down as missed.

use super::{EventDoc, Outcome, Stored, Triggers, all, derived};
use crate::store::StoreError;
use pipeline::trigger::{Source, Verdict};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How late a tick may still fire: ten minutes.
const CATCH_UP_MS: u64 = 10 * 60 * 1000;
/// Longest sleep while there are schedules: a wall clock that was set is noticed within it.
const TICK: Duration = Duration::from_secs(1);
/// Sleep without schedules.
const IDLE: Duration = Duration::from_secs(60);
/// Ticks that are counted at most, for the message.
const COUNTED: usize = 10_000;

/// What the store keeps of a schedule.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Expression and zone: another schedule starts anew.
    schedule: String,
    /// The last tick that was looked at, or since when the schedule is known.
    last: u64,
}

fn fact_name(stored: &Stored) -> String {
    format!("trigger.schedule/{}/{}", stored.pipeline_name(), stored.trigger.identifier)
}

impl Triggers {
    /// Runs until `stop`.
    pub async fn keep_time(self: Arc<Self>, stop: CancellationToken) {
        let mut schedules: Option<Vec<Stored>> = None;
        loop {
            if schedules.is_none() {
                match all(&self.app).await {
                    Ok(mut found) => {
                        found.retain(|stored| matches!(stored.trigger.source, Source::Cron(_)));
                        schedules = Some(found);
                    }
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "cannot read triggers");
                    }
                }
            }
            for stored in schedules.iter().flatten() {
                if let Err(error) = self.look(stored).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(trigger = %stored.trigger.identifier, error, "cannot look at a schedule");
                }
            }
            let pause = if schedules.as_ref().is_some_and(Vec::is_empty) { IDLE } else { TICK };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.schedules.notified() => schedules = None,
                () = self.app.clock.sleep(pause) => {}
            }
        }
    }

    /// Fires what is due of one schedule.
    async fn look(&self, stored: &Stored) -> Result<(), StoreError> {
        let trigger = &stored.trigger;
        let Source::Cron(schedule) = &trigger.source else { return Ok(()) };
        let now = self.app.clock.wall();
        let name = fact_name(stored);
        let described = format!("{} {} {}", trigger.enabled, schedule.zone(), schedule.expression());
        let kept: Option<Kept> =
            self.app.store.get_fact(&name).await?.and_then(|text| serde_json::from_str(&text).ok());
        let last = match kept {
            Some(kept) if kept.schedule == described => kept.last,
            // New, changed or enabled again: what lies behind is not its business.
            _ => return self.remember(&name, described, now).await,
        };
        if !trigger.enabled {
            return Ok(());
        }
        let Some((tick, count)) = schedule.newest_between(last, now, COUNTED) else { return Ok(()) };
        let id = derived(&["tick", &stored.pipeline_name(), &trigger.identifier, &tick.to_string()]);
        let of = (trigger.pipeline.as_str(), trigger.identifier.as_str());
        let mut doc = EventDoc {
            kind: "tick".to_owned(),
            scope: trigger.scope.clone(),
            scheduled_at: tick,
            ..EventDoc::default()
        };
        if now.saturating_sub(tick) <= CATCH_UP_MS {
            if count > 1 {
                tracing::warn!(trigger = %trigger.identifier, count, "of several ticks that passed only the newest fires");
            }
            self.take(id, of, &doc).await?;
        } else {
            doc.results.push(Outcome {
                pipeline: trigger.pipeline.clone(),
                trigger: trigger.identifier.clone(),
                status: Verdict::ScheduledTimeMissed,
                message: format!("the manager was away; {count} times passed, the newest too long ago"),
                execution_id: None,
            });
            self.note(id, of, &doc).await?;
        }
        self.remember(&name, described, tick).await
    }

    async fn remember(&self, name: &str, schedule: String, last: u64) -> Result<(), StoreError> {
        let text = serde_json::to_string(&Kept { schedule, last })
            .map_err(|error| StoreError::Backend(error.to_string()))?;
        self.app.store.put_fact(name, &text).await
    }
}
