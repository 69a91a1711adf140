//! The shipper of one unit: from the spool to the log service.
//!
//! It sends batches in order, one at a time, and repeats until each is acknowledged. With the extension `streamResume`
//! every batch carries the number of its first line, so that a repeated batch is stored once; without it a batch whose
//! reply was lost may be stored twice, which is all that the foreign protocol allows.

use super::budget::UnitRoom;
use super::spool::{self, Reader};
use super::unit::{Shared, Unit};
use crate::client::{LogClient, LogFault, RetryPolicy};
use crate::telemetry::Telemetry;
use bytes::Bytes;
use executor_api::Clock;
use proto::limits::MAX_LOG_BATCH_LINES;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Lines wait at most this long for company (protocol.md §9.4: the Java delegate flushes every 100 ms).
const LINGER: Duration = Duration::from_millis(100);
/// A stream is opened this long after its first line, unless the unit ends before: then all of it is one call.
const BEFORE_OPEN: Duration = Duration::from_millis(25);
/// A batch is closed at this size of its JSON.
const BATCH_BYTES: usize = 512 * 1024;
/// The log service may be away for a day; after that the unit's lines are given up, so that spools do not pile up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);
/// So many refusals that no repetition mends (a wrong token) end the shipping of an ended unit.
const MAX_REFUSALS: u32 = 5;

/// Wakes a shipper. Level-triggered for one waiter.
#[derive(Clone, Default)]
pub(crate) struct Wake(Arc<Notify>);

impl Wake {
    pub(crate) fn notify(&self) {
        self.0.notify_one();
    }
    async fn wait(&self) {
        self.0.notified().await;
    }
}

/// A unit on its way to the log service.
pub(crate) struct Shipper {
    pub(crate) unit: Arc<Unit>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) room: Arc<UnitRoom>,
    pub(crate) client: LogClient,
    /// Whether the log service knows `streamResume`.
    pub(crate) resume: bool,
    /// The stream may exist already: the unit was opened by an earlier process.
    pub(crate) existed: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) workers: Arc<Semaphore>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) stop: CancellationToken,
}

/// How the shipping of a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// Everything is stored and the stream is closed; the spool is gone.
    Whole,
    /// Given up; the spool is gone.
    GivenUp,
    /// The agent goes down; the spool stays for the next start.
    Stopped,
}

struct Cursor {
    /// The next line to send.
    next: u64,
    /// Lines that the service will never get because neither side has them: subtracted from numbers on the wire.
    shift: u64,
    opened: bool,
    attempt: u32,
    refusals: u32,
    ended_since: Option<Instant>,
}

struct Batch {
    body: Vec<u8>,
    first: u64,
    lines: usize,
    next: u64,
}

impl Batch {
    /// Whether it is everything from the first line to the last.
    fn is_all(&self, published: u64) -> bool {
        self.first == 0 && self.next == published && self.lines as u64 == published
    }
}

impl Shipper {
    /// Ships until the unit has ended and everything is stored, or until told to stop.
    pub(crate) async fn run(self) -> Shipped {
        let mut reader = Some(Reader::new(self.shared.dir.clone()));
        let next = if self.existed { shipped_before(&self.shared.dir) } else { 0 };
        let mut at =
            Cursor { next, shift: 0, opened: self.existed, attempt: 0, refusals: 0, ended_since: None };
        let mut waited = false;
        loop {
            if self.stop.is_cancelled() {
                return Shipped::Stopped;
            }
            let ended = self.shared.ended.load(Ordering::Acquire);
            let published = self.shared.published.load(Ordering::Acquire);
            if ended && at.ended_since.is_none() {
                at.ended_since = Some(self.clock.mono());
            }
            let short = !at.opened && self.client.takes_whole();
            let outcome = if short && ended && at.next == 0 && at.attempt == 0 {
                match self.whole(&mut at, &mut reader, published).await {
                    Ok(true) => {
                        self.clear().await;
                        return Shipped::Whole;
                    }
                    Ok(false) => self.open(&mut at).await,
                    Err(fault) => Err(fault),
                }
            } else if short && !ended && !waited {
                waited = true;
                self.wait_for_lines(at.next, BEFORE_OPEN).await;
                continue;
            } else if !at.opened && (published > 0 || ended) {
                self.open(&mut at).await
            } else if at.next < published {
                match self.batch(&mut reader, &at, published).await {
                    Some(batch) if batch.lines > 0 => self.send(&mut at, &mut reader, batch).await,
                    // The spool has no such line: it was deleted from outside, or its disk is broken.
                    _ => {
                        tracing::error!(
                            code = "AGT-006",
                            unit = self.shared.name,
                            line = at.next,
                            "lines are missing in the spool"
                        );
                        self.telemetry.log_cut(published - at.next);
                        at.shift += published - at.next;
                        at.next = published;
                        Ok(())
                    }
                }
            } else if ended {
                match self.client.close(&self.shared.key).await {
                    Ok(()) | Err(LogFault::NotFound) => {
                        self.clear().await;
                        return Shipped::Whole;
                    }
                    Err(fault) => Err(fault),
                }
            } else {
                if let Some(reader) = &mut reader {
                    reader.idle();
                }
                self.wait_for_lines(at.next, LINGER).await;
                continue;
            };
            if let Err(fault) = outcome
                && self.failed(&mut at, &fault).await
            {
                return if self.stop.is_cancelled() { Shipped::Stopped } else { Shipped::GivenUp };
            }
        }
    }

    /// Waits for a first line, then a little for company.
    async fn wait_for_lines(&self, sent: u64, company: Duration) {
        let some = || self.shared.published.load(Ordering::Acquire) > sent;
        let ended = || self.shared.ended.load(Ordering::Acquire);
        while !some() && !ended() {
            tokio::select! {
                () = self.shared.wake.wait() => {}
                () = self.stop.cancelled() => return,
            }
        }
        let until = self.clock.mono() + company;
        while !ended() && self.shared.published.load(Ordering::Acquire) < sent + MAX_LOG_BATCH_LINES as u64 {
            tokio::select! {
                () = self.shared.wake.wait() => {}
                () = self.clock.sleep_until(until) => return,
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Ships a unit that has ended in one call. `false`: it is not of that kind, and nothing was sent.
    async fn whole(
        &self,
        at: &mut Cursor,
        reader: &mut Option<Reader>,
        published: u64,
    ) -> Result<bool, LogFault> {
        let lines = if published == 0 {
            Bytes::from_static(b"[]")
        } else {
            let batch = self.batch(reader, at, published).await.filter(|batch| batch.is_all(published));
            // Whoever goes on here begins at the first line again.
            if let Some(reader) = reader {
                reader.rewind();
            }
            let Some(batch) = batch else { return Ok(false) };
            Bytes::from(batch.body)
        };
        match self.client.whole(&self.shared.key, 0, &lines).await {
            Some(shipped) => shipped.map(|_| true),
            None => Ok(false),
        }
    }

    async fn open(&self, at: &mut Cursor) -> Result<(), LogFault> {
        let next = self.client.open(&self.shared.key, self.resume).await?;
        at.opened = true;
        at.attempt = 0;
        if let Some(next) = next {
            let published = self.shared.published.load(Ordering::Acquire);
            if next > published {
                self.unit.skip_to(next).await;
            }
            if next > at.next {
                at.next = next;
            }
        }
        Ok(())
    }

    /// Reads the next batch on a blocking thread.
    async fn batch(&self, reader: &mut Option<Reader>, at: &Cursor, published: u64) -> Option<Batch> {
        let mut own = reader.take().unwrap_or_else(|| Reader::new(self.shared.dir.clone()));
        let (from, shift) = (at.next, at.shift);
        let worker = self.workers.clone().acquire_owned().await.ok()?;
        let job = tokio::task::spawn_blocking(move || {
            let mut batch = Batch { body: vec![b'['], first: from, lines: 0, next: from };
            let mut stamp = (u64::MAX, String::new());
            let read = own.read(from, published, |record| {
                if batch.lines >= MAX_LOG_BATCH_LINES || batch.body.len() >= BATCH_BYTES {
                    return false;
                }
                if batch.lines == 0 {
                    batch.first = record.seq;
                } else {
                    batch.body.push(b',');
                }
                if stamp.0 != record.time {
                    stamp =
                        (record.time, proto::logs::rfc3339(i64::try_from(record.time).unwrap_or(i64::MAX)));
                }
                batch.lines += 1;
                line(&mut batch.body, record, shift, &stamp.1).is_ok()
            });
            batch.body.push(b']');
            drop(worker);
            match read {
                Ok(next) => batch.next = next,
                Err(error) => {
                    tracing::error!(code = "AGT-006", %error, "the spool cannot be read");
                    batch.lines = 0;
                }
            }
            (own, batch)
        });
        let (own, batch) = job.await.ok()?;
        *reader = Some(own);
        Some(batch)
    }

    async fn send(&self, at: &mut Cursor, reader: &mut Option<Reader>, batch: Batch) -> Result<(), LogFault> {
        if batch.first > at.next {
            at.shift += batch.first - at.next;
        }
        let seq = self.resume.then(|| batch.first - at.shift);
        let acknowledged = match self.client.append(&self.shared.key, seq, Bytes::from(batch.body)).await {
            Ok(Some(next)) => next + at.shift,
            Ok(None) => batch.next,
            Err(LogFault::Gap { next }) => {
                // The service misses lines before this batch.
                let wanted = next + at.shift;
                tracing::warn!(
                    unit = self.shared.name,
                    wanted,
                    sent = batch.first,
                    "the log service asks for earlier lines"
                );
                let first = spool::segments(&self.shared.dir).ok().and_then(|list| list.first().copied());
                if wanted >= batch.first || first.is_none_or(|first| first > wanted) {
                    // Nobody has them: number what follows so that the service takes it.
                    at.shift = batch.first.saturating_sub(next);
                    self.telemetry.log_cut(batch.first.saturating_sub(wanted));
                } else {
                    at.next = wanted;
                }
                if let Some(reader) = reader {
                    reader.rewind();
                }
                return Ok(());
            }
            Err(fault) => {
                if let Some(reader) = reader {
                    reader.rewind();
                }
                return Err(fault);
            }
        };
        at.attempt = 0;
        at.refusals = 0;
        if acknowledged != batch.next
            && let Some(reader) = reader
        {
            reader.rewind();
        }
        at.next = acknowledged.clamp(batch.first, batch.next.max(batch.first));
        if acknowledged > self.shared.published.load(Ordering::Acquire) {
            self.unit.skip_to(acknowledged).await;
            at.next = acknowledged;
        }
        self.acknowledged(at.next).await;
        Ok(())
    }

    /// Gives disk back and, where the service cannot say where it stands, remembers it.
    async fn acknowledged(&self, next: u64) {
        let (dir, resume) = (self.shared.dir.clone(), self.resume);
        let crowded = self.room.used() > spool::SEGMENT_BYTES;
        if resume && !crowded {
            return;
        }
        let Ok(worker) = self.workers.clone().acquire_owned().await else { return };
        let done = tokio::task::spawn_blocking(move || {
            let _worker = worker;
            if !resume {
                std::fs::write(dir.join("shipped"), next.to_le_bytes())?;
            }
            if crowded { spool::free(&dir, next) } else { Ok(0) }
        });
        match done.await {
            Ok(Ok(freed)) => self.room.free(freed),
            Ok(Err(error)) => {
                tracing::warn!(unit = self.shared.name, %error, "acknowledged lines cannot be deleted")
            }
            Err(_) => {}
        }
    }

    /// Waits before the next try. `true`: there is none.
    async fn failed(&self, at: &mut Cursor, fault: &LogFault) -> bool {
        let retry_after = match fault {
            LogFault::NotFound => {
                // Its time is over, or the service was restarted: what it had is gone there, the rest goes on.
                at.opened = false;
                at.attempt += 1;
                if at.attempt <= 1 {
                    return false;
                }
                None
            }
            LogFault::Gap { .. } => None,
            LogFault::Refused { .. } => {
                at.refusals += 1;
                // Waiting for room would wait for ever.
                self.unit.release();
                if at.refusals >= MAX_REFUSALS && at.ended_since.is_some() {
                    return self.give_up(fault).await;
                }
                None
            }
            LogFault::Away { retry_after, .. } => *retry_after,
        };
        if at
            .ended_since
            .is_some_and(|since| self.clock.mono().saturating_duration_since(since) > GIVE_UP_AFTER)
        {
            return self.give_up(fault).await;
        }
        at.attempt = at.attempt.saturating_add(1);
        let pause = RetryPolicy::LOGS.delay(at.attempt, retry_after, rand::random());
        tracing::debug!(unit = self.shared.name, %fault, ?pause, "the log service did not take lines");
        tokio::select! {
            () = self.clock.sleep(pause) => false,
            () = self.stop.cancelled() => true,
        }
    }

    async fn give_up(&self, fault: &LogFault) -> bool {
        tracing::error!(code = "AGT-007", unit = self.shared.name, %fault, "the log of this unit is given up");
        self.telemetry.log_cut(self.room.used());
        self.clear().await;
        true
    }

    /// The unit is done: its spool goes.
    async fn clear(&self) {
        let dir = self.shared.dir.clone();
        if let Ok(worker) = self.workers.clone().acquire_owned().await {
            let removal = tokio::task::spawn_blocking(move || {
                remove_unit(&dir);
                drop(worker);
            });
            if removal.await.is_err() {
                tracing::error!(unit = self.shared.name, "a spool was not removed");
            }
        }
        self.room.free(self.room.used());
    }
}

/// Removes the directory of a unit, and that of its task when it was the last one. Absent ones are no error.
pub(crate) fn remove_unit(dir: &Path) {
    if dir.exists()
        && let Err(error) = std::fs::remove_dir_all(dir)
    {
        tracing::warn!(dir = %dir.display(), %error, "a spool cannot be removed");
    }
    if let Some(task) = dir.parent() {
        // Refused while other units are in it, which is right.
        let _unused = std::fs::remove_dir(task);
    }
}

/// How far an earlier process got, where the service cannot say it. 0 asks from the first line that is left.
fn shipped_before(dir: &Path) -> u64 {
    let read = std::fs::read(dir.join("shipped"))
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    let first = spool::segments(dir).ok().and_then(|list| list.first().copied()).unwrap_or(0);
    read.max(first)
}

/// One line as the log service takes it (protocol.md §9.2).
fn line(body: &mut Vec<u8>, record: &spool::Record<'_>, shift: u64, time: &str) -> std::io::Result<()> {
    write!(
        body,
        r#"{{"level":"{}","pos":{},"out":"#,
        record.origin.level(),
        record.seq.saturating_sub(shift)
    )?;
    serde_json::to_writer(&mut *body, record.text)?;
    write!(body, r#","time":"{time}","args":null}}"#)
}
