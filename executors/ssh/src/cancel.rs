//! Ending a script on request: TERM, then KILL, until nothing of it is left.

use crate::command::Job;
use crate::error::Error;
use crate::holder::{self, Ended, Found};
use crate::memory::Memory;
use executor_api::{CancelReason, CancelStage, Level, Stream, UnitLog};
use proto::task::CommandUnit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The unit as it is being followed.
pub(crate) type Following<'a> = Pin<Box<dyn Future<Output = Result<Ended, Error>> + Send + 'a>>;

impl Job<'_> {
    /// The step is to end while a script runs.
    pub(crate) async fn interrupt(
        &self,
        unit: &CommandUnit,
        key: &str,
        reason: CancelReason,
        memory: &mut Memory,
        log: &Arc<dyn UnitLog>,
        following: Option<Following<'_>>,
    ) -> Error {
        if !reason.ends_the_target() {
            let what = format!("unit {} runs on on {} and can be attached to", unit.name, self.host);
            log.line(Level::Warn, &format!("The agent stops following; {what}")).await.unwrap_or_default();
            return self.cancelled(reason, what);
        }
        let call = format!("end {}", unit.identifier);
        let intent = format!("end unit {} on {}", unit.name, self.host);
        // The person asked for the end; an agent that cannot write it down still has to try.
        if let Err(error) = memory.record(self.cx, intent, vec![call.clone()]).await {
            log.line(Level::Warn, &error.to_string()).await.unwrap_or_default();
        }
        log.line(Level::Warn, "Ending the script and everything it started …").await.unwrap_or_default();
        self.shared.probe.before(&self.cx.task_id, &call).await;
        // The script's last words are followed meanwhile.
        let mut last_words = following.is_none();
        let mut following = following.unwrap_or_else(|| Box::pin(std::future::pending()));
        // Units that were launched with this one must not begin any more.
        let keys: Vec<String> = memory.launched.iter().skip_while(|k| *k != key).cloned().collect();
        let ending = async {
            tokio::select! {
                done = self.end_tree(&keys, log) => done,
                () = self.cx.clock.sleep(self.settings().end_within) => {
                    Err(Error::Lost { host: self.host.clone(), why: "it did not answer".into() })
                }
            }
        };
        let mut ending = std::pin::pin!(ending);
        let done = loop {
            tokio::select! {
                done = &mut ending => break done,
                _ended = &mut following, if !last_words => last_words = true,
            }
        };
        if done.is_ok() && !last_words {
            tokio::select! {
                _ended = &mut following => {}
                () = tokio::time::sleep(Duration::from_secs(3)) => {}
            }
        }
        self.shared.probe.after(&self.cx.task_id, &call).await;
        // The folder on the host goes next.
        for stream in [Stream::Stdout, Stream::Stderr] {
            log.durable(stream).await.unwrap_or_default();
        }
        let what = match done {
            Ok(text) => text,
            Err(error) => {
                self.unended.store(true, Ordering::Relaxed);
                format!(
                    "unit {} may still run on {}, it is ended at the next connection: {error}",
                    unit.name, self.host
                )
            }
        };
        log.line(Level::Warn, &what).await.unwrap_or_default();
        self.cancelled(reason, what)
    }

    /// TERM, and KILL after a while or at once when the second stage is asked for.
    pub(crate) async fn end_tree(&self, keys: &[String], log: &Arc<dyn UnitLog>) -> Result<String, Error> {
        let session = self.session(log.as_ref()).await?;
        let ask = tokio::select! {
            answer = self.ask(&session, |nonce| holder::finish(nonce, keys, "TERM")) => Some(answer?),
            () = self.cx.clock.sleep(self.settings().kill_after) => None,
            _ = self.cx.cancel.wait_for(CancelStage::Kill) => None,
        };
        let (answer, how) = match ask {
            Some(answer) if !answer.starts_with("left") => (answer, "ended"),
            _ => {
                log.line(Level::Warn, "It did not end in time; killing it").await?;
                (self.ask(&session, |nonce| holder::finish(nonce, keys, "KILL")).await?, "killed")
            }
        };
        if answer.starts_with("none") {
            return Ok(format!("the script had not been started on {}", self.host));
        }
        let foreign = answer.split("foreign").nth(1).unwrap_or_default().trim();
        let mut text = if answer.starts_with("left") {
            format!("some processes of the script could not be ended on {}", self.host)
        } else {
            format!("the script was {how} on {}; none of its processes is left", self.host)
        };
        if !foreign.is_empty() && foreign != "-" {
            text =
                format!("{text}, except those of another user, which this login may not end: pid {foreign}");
        }
        if answer.contains(" group ") {
            text.push_str(" (/proc is not readable there, so only its process group was ended)");
        }
        // The holder writes the rest of the output and the exit code; then its folder can go.
        for key in keys {
            for _ in 0..25 {
                match self.look(&session, key).await? {
                    Found::Running => self.pause().await,
                    _ => break,
                }
            }
        }
        Ok(text)
    }
}
