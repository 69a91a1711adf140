//! Signals: the first asks for an orderly end, the second ends at once.

use crate::exit::CliError;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What an end "at once" may still take: closing a database, not waiting for steps.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Takes over both signals.
    pub(crate) fn take() -> Result<Signals, CliError> {
        let error = |error: std::io::Error| CliError::failed(format!("signals cannot be watched: {error}"));
        Ok(Signals {
            term: signal(SignalKind::terminate()).map_err(error)?,
            int: signal(SignalKind::interrupt()).map_err(error)?,
        })
    }

    /// Waits for the next of them; tells which.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Runs `work` until it ends. Each signal calls `ask` with its number, from 1; after the second, `work` has
/// [`LAST_CHANCE`] to end by itself.
///
/// Returns what `work` returned, or `None` if it did not end in that time.
pub(crate) async fn until_stopped<T>(
    mut ask: impl FnMut(u32),
    work: impl Future<Output = T>,
) -> Result<Option<T>, CliError> {
    let mut signals = Signals::take()?;
    tokio::pin!(work);
    for count in 1..=2 {
        tokio::select! {
            result = &mut work => return Ok(Some(result)),
            name = signals.next() => {
                tracing::info!(signal = name, "stopping{}", if count == 1 { "; a second signal ends at once" } else { " at once" });
                ask(count);
            }
        }
    }
    Ok(tokio::time::timeout(LAST_CHANCE, work).await.ok())
}
