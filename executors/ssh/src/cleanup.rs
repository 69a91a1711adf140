//! Leaving nothing on the host: the last unit, and what is made up for later.

use crate::command::Job;
use crate::error::Error;
use crate::holder;
use crate::leftovers::UNENDED;
use crate::memory::Memory;
use crate::session::Lease;
use crate::spec::CLEANUP;
use executor_api::{Level, StepError, UnitLog};
use proto::result::{Output, UnitStatus};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

impl Job<'_> {
    pub(crate) async fn sweep_leftovers(&self, lease: &Lease, log: &dyn UnitLog) {
        let place = self.place();
        let keys = self.shared.leftovers.at(&place);
        if keys.is_empty() {
            return;
        }
        // Best effort: whatever stays is tried again at the next connection.
        for key in keys.iter().filter_map(|k| k.strip_prefix(UNENDED)) {
            let text = "Ending a script whose host was away when it was aborted";
            log.line(Level::Warn, text).await.unwrap_or_default();
            if self.ask(lease, |nonce| holder::finish(nonce, &[key.to_owned()], "KILL")).await.is_err() {
                return;
            }
        }
        let noted = keys;
        let keys: Vec<String> = noted.iter().map(|k| k.trim_start_matches(UNENDED).to_owned()).collect();
        if matches!(self.ask(lease, |nonce| holder::sweep(nonce, &keys)).await.as_deref(), Ok("swept")) {
            self.shared.leftovers.remove(&place, &noted);
            let text = format!("Removed {} folder(s) that earlier steps had to leave here", keys.len());
            log.line(Level::Info, &text).await.unwrap_or_default();
        }
    }

    /// Notes folders that cannot be removed, and says so.
    pub(crate) async fn leave_behind(&self, keys: &[String], log: &dyn UnitLog) {
        let unended = if self.unended.load(Ordering::Relaxed) { UNENDED } else { "" };
        let noted: Vec<String> = keys.iter().map(|k| format!("{unended}{k}")).collect();
        self.shared.leftovers.add(&self.place(), &noted);
        let text = format!(
            "Left on {} until the next connection: {} in ~/.delegate (or /var/tmp/delegate-UID)",
            self.host,
            keys.join(" ")
        );
        log.line(Level::Warn, &text).await.unwrap_or_default();
        self.notice(text);
    }

    pub(crate) async fn cleanup(
        &self,
        memory: &mut Memory,
        outcome: &Result<BTreeMap<String, Output>, StepError>,
    ) -> Result<(), StepError> {
        let log = self.cx.logs.unit(CLEANUP);
        let log = log.as_ref();
        log.status(UnitStatus::Running).await.map_err(|e| self.step_error(e.into()))?;
        memory.finish(outcome);
        let keys = memory.launched.clone();
        let call = "cleanup".to_owned();
        let calls = if keys.is_empty() { vec![] } else { vec![call.clone()] };
        let recorded = memory.record(self.cx, format!("remove our folders from {}", self.host), calls).await;
        recorded.map_err(|e| self.step_error(e))?;
        let mut status = UnitStatus::Success;
        if !keys.is_empty() {
            self.shared.probe.before(&self.cx.task_id, &call).await;
            let work = async {
                if self.unended.load(Ordering::Relaxed) {
                    return Err(Error::Lost {
                        host: self.host.clone(),
                        why: "it did not answer before".into(),
                    });
                }
                if let Some(answer) = self.last_sweep(&keys).await {
                    return Ok(answer);
                }
                let session = self.session(log).await?;
                self.ask(&session, |nonce| holder::sweep(nonce, &keys)).await
            };
            let limit = self.settings().end_within;
            let swept = tokio::select! {
                swept = work => swept,
                () = self.cx.clock.sleep(limit) => {
                    Err(Error::Lost { host: self.host.clone(), why: "it did not answer".into() })
                }
            };
            self.shared.probe.after(&self.cx.task_id, &call).await;
            match swept.as_deref() {
                Ok("swept") => {
                    log.line(Level::Info, "Nothing of the step is left on the host")
                        .await
                        .unwrap_or_default();
                }
                Ok(kept) => {
                    let kept = kept.trim_start_matches("swept").trim();
                    let left: Vec<String> =
                        keys.iter().filter(|k| kept.contains(k.as_str())).cloned().collect();
                    self.leave_behind(&left, log).await;
                    status = UnitStatus::Failure;
                }
                Err(error) => {
                    log.line(Level::Warn, &error.to_string()).await.unwrap_or_default();
                    self.leave_behind(&keys, log).await;
                    status = UnitStatus::Failure;
                }
            }
        }
        log.status(status).await.unwrap_or_default();
        Ok(())
    }
}
