//! One command unit: its log and how it ended.

use crate::{CancelReason, Class, Level, LogClosed, StepContext, StepError, UnitLog};
use proto::result::UnitStatus;
use std::sync::Arc;

/// The log pipeline closes only when the agent goes down.
fn log_closed(_: LogClosed) -> StepError {
    let class = Class::Cancelled { reason: CancelReason::Drain };
    StepError::new(class, "AGT-013", "the agent goes down")
}

/// A command unit that has begun. Its last status is what [`Unit::end`] was told.
pub struct Unit {
    log: Arc<dyn UnitLog>,
}

impl Unit {
    /// Opens the unit `name`, one of Harness' names.
    ///
    /// **Errors**: `AGT-013`: the agent goes down; so with every other call here.
    pub async fn begin(cx: &StepContext, name: &str) -> Result<Unit, StepError> {
        let log = cx.logs.unit(name);
        log.status(UnitStatus::Running).await.map_err(log_closed)?;
        Ok(Unit { log })
    }

    /// Its log.
    pub fn log(&self) -> &dyn UnitLog {
        self.log.as_ref()
    }

    /// Writes a line.
    pub async fn say(&self, level: Level, text: &str) -> Result<(), StepError> {
        self.log.line(level, text).await.map_err(log_closed)
    }

    /// Ends the unit as `result` says and hands it on. An error is written to the log, with what to do about it.
    pub async fn end<T>(self, result: Result<T, StepError>) -> Result<T, StepError> {
        match &result {
            Ok(_) => self.log.status(UnitStatus::Success).await.map_err(log_closed)?,
            Err(error) => {
                let mut text = format!("{}: {}", error.code, error.what);
                if let Some(hint) = &error.hint {
                    text.push_str(&format!("\n{hint}"));
                }
                let level =
                    if matches!(error.class, Class::Cancelled { .. }) { Level::Warn } else { Level::Error };
                // The step fails with its own error also when the log is closed.
                let _closed = self.log.line(level, &text).await;
                let _closed = self.log.status(UnitStatus::Failure).await;
            }
        }
        result
    }
}
