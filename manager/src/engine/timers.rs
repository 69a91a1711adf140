//! One task that sleeps until the next timer of any execution, and retries what failed.

use super::{Engine, Input};
use crate::store::StoreError;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a failing store or execution is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest sleep: a wall clock that was set back or forth is noticed within it.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Runs until `stop`. It owns no state: timers stand in the store, retries in the shared set.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    loop {
        // Whatever is set while we look wakes us for another look.
        engine.shared.next_look.store(u64::MAX, Ordering::SeqCst);
        let pause = match fire_due(&engine).await {
            Ok(true) => until_next(&engine).await,
            // Something failed and stands in the retry set, or the store is unwell: do not spin.
            Ok(false) => RETRY_AFTER,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot read the timers");
                RETRY_AFTER
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = engine.shared.timers.notified() => {}
            () = engine.shared.clock.sleep(pause) => {}
        }
    }
}

async fn until_next(engine: &Engine) -> Duration {
    match engine.shared.store.next_timer().await {
        Ok(next) => {
            let now = engine.shared.now();
            let longest = now.saturating_add(u64::try_from(MAX_SLEEP.as_millis()).unwrap_or(u64::MAX));
            let at = next.unwrap_or(longest).clamp(now, longest);
            engine.shared.next_look.store(at, Ordering::SeqCst);
            Duration::from_millis(at - now)
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot read the next timer");
            RETRY_AFTER
        }
    }
}

/// Fires what is due and retries what failed; `false` when something failed again.
async fn fire_due(engine: &Engine) -> Result<bool, StoreError> {
    let retry: BTreeSet<String> =
        std::mem::take(&mut *engine.shared.retry.lock().unwrap_or_else(PoisonError::into_inner));
    let due = engine.shared.store.due_timers(engine.shared.now()).await?;
    let retried = retry.iter().map(|id| (id.clone(), Input::Resume));
    let fired = due
        .into_iter()
        // A retried execution looks at its own timers.
        .filter(|timer| !retry.contains(&timer.execution_id))
        .map(|timer| (timer.execution_id, Input::Timer(timer.timer)));
    let answers = join_all(
        retried
            .chain(fired)
            .map(|(execution_id, input)| async move { engine.ask(&execution_id, input).await.is_ok() }),
    )
    .await;
    Ok(answers.into_iter().all(|ok| ok))
}
