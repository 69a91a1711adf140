//! The log of one command unit: the producer's side.
//!
//! `write` masks, splits, numbers and appends to the spool on a blocking thread, then publishes the new end to the
//! shipper. Memory holds one chunk and one unfinished line per stream, however much is logged.

use super::budget::Budget;
use super::ship::Wake;
use super::split::{CONTINUES, Piece, Splitter};
use super::spool::{NO_OFFSET, Origin, Record, Spool, Tail, encode};
use crate::telemetry::Telemetry;
use bytes::Bytes;
use executor_api::{Clock, Level, LogClosed, Stream, UnitLog};
use futures::future::BoxFuture;
use proto::result::UnitStatus;
use secrets::Masker;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Mutex, Semaphore};

/// Larger writes are taken in pieces of this size: it bounds the memory of one write and the overshoot of the spool.
const CHUNK_BYTES: usize = 64 * 1024;

/// As much of a last line as a failure's message has room for.
const LAST_WORDS_CHARS: usize = 300;

/// What the producer, the shipper and the result share about one unit.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) dir: PathBuf,
    /// Lines below this number are in the spool and may be shipped.
    pub(crate) published: AtomicU64,
    /// Source offsets that are durable.
    durable: [AtomicU64; 2],
    /// No more lines come: the shipper closes the stream once everything is shipped.
    pub(crate) ended: AtomicBool,
    /// Nobody waits for room any more; what does not fit is cut (kill stage of a cancellation).
    released: AtomicBool,
    pub(crate) wake: Wake,
}

/// Takes a unit's name and its status.
pub(crate) type StatusSink = Arc<dyn Fn(&str, UnitStatus) + Send + Sync>;

struct Writer {
    spool: Spool,
    splitters: [Splitter; 2],
    own: Masker,
    /// Encoded records that are not in the spool yet, because the source offset behind them is not known.
    buffer: Vec<u8>,
    /// Number of the first record in `buffer`.
    buffer_from: u64,
    /// Length of the front of `buffer` that may be written.
    settled: usize,
    /// As of the front that is in the spool, and as of everything encoded.
    written: Tail,
    encoded: Tail,
    /// Bytes that had to be cut since the last line that was stored.
    cut: u64,
    /// The latest line of the unit's standard error that is not blank, masked.
    last_error: String,
    clock: Arc<dyn Clock>,
}

/// One unit. Shared by the executor (through [`UnitLog`]) and the log sink of the task.
pub(crate) struct Unit {
    pub(crate) shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    /// One sync at a time; who waited here finds its bytes covered by the sync of the one before.
    sync: Mutex<u64>,
    budget: Arc<Budget>,
    room: Arc<super::budget::UnitRoom>,
    workers: Arc<Semaphore>,
    telemetry: Arc<Telemetry>,
    status: StatusSink,
    /// The spool could not be written; said once a unit.
    broken: AtomicBool,
}

/// What a unit is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) dir: PathBuf,
    pub(crate) masker: Masker,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) workers: Arc<Semaphore>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) status: StatusSink,
    pub(crate) wake: Wake,
    /// The spool and where it stands.
    pub(crate) spool: (Spool, Tail),
}

impl Unit {
    /// The unit goes on behind the last whole line of its spool.
    pub(crate) fn new(parts: Parts) -> Unit {
        let (spool, tail) = parts.spool;
        let room = parts.budget.unit(tail.bytes);
        let splitter = |stream: usize| {
            Splitter::new(parts.masker.stream(), tail.offsets.get(stream).copied().unwrap_or(0))
        };
        let shared = Shared {
            name: parts.name,
            key: parts.key,
            dir: parts.dir,
            published: AtomicU64::new(tail.next_seq),
            durable: tail.offsets.map(AtomicU64::new),
            ended: AtomicBool::new(false),
            released: AtomicBool::new(false),
            wake: parts.wake,
        };
        let writer = Writer {
            spool,
            splitters: [splitter(0), splitter(1)],
            own: parts.masker,
            buffer: Vec::new(),
            buffer_from: tail.next_seq,
            settled: 0,
            written: tail,
            encoded: tail,
            cut: 0,
            last_error: String::new(),
            clock: parts.clock,
        };
        Unit {
            shared: Arc::new(shared),
            writer: Arc::new(Mutex::new(writer)),
            sync: Mutex::new(0),
            budget: parts.budget,
            room,
            workers: parts.workers,
            telemetry: parts.telemetry,
            status: parts.status,
            broken: AtomicBool::new(false),
        }
    }

    /// The latest line of its standard error, masked; `None`: it wrote none.
    pub(crate) async fn last_error(&self) -> Option<String> {
        let writer = self.writer.lock().await;
        Some(writer.last_error.clone()).filter(|line| !line.is_empty())
    }

    /// The disk this unit uses.
    pub(crate) fn room(&self) -> Arc<super::budget::UnitRoom> {
        self.room.clone()
    }

    /// Numbers continue from `seq` at least: the log service has more lines than the spool, which happens only when the
    /// machine itself went down.
    pub(crate) async fn skip_to(&self, seq: u64) {
        let mut writer = self.writer.lock().await;
        if writer.encoded.next_seq < seq && writer.buffer.is_empty() {
            writer.encoded.next_seq = seq;
            writer.written.next_seq = seq;
            writer.buffer_from = seq;
            self.shared.published.store(seq, Ordering::Release);
        }
    }

    /// Nobody waits for room from here on.
    pub(crate) fn release(&self) {
        self.shared.released.store(true, Ordering::Release);
        self.budget.wake();
    }

    /// No more lines: unfinished ones become lines.
    ///
    /// **Repeat**: safe.
    pub(crate) async fn end(&self) {
        let job = |writer: &mut Writer| {
            for stream in [Stream::Stdout, Stream::Stderr] {
                writer.finish(stream);
            }
            writer.settle_all();
        };
        // Usually every line has its end already, and no thread is needed to find that out.
        if !self.writer.lock().await.is_settled() {
            // A closed unit has ended already.
            let _unused = self.work(job).await;
        }
        self.shared.ended.store(true, Ordering::Release);
        self.shared.wake.notify();
    }

    /// Runs `job` on the writer on a blocking thread, writes what it settled and publishes it.
    async fn work(&self, job: impl FnOnce(&mut Writer) + Send + 'static) -> Result<(), LogClosed> {
        let mut writer = self.writer.clone().lock_owned().await;
        // A bounded number of threads does log work, however many units write.
        let worker = self.workers.clone().acquire_owned().await.map_err(|_| LogClosed)?;
        let done = tokio::task::spawn_blocking(move || {
            job(&mut writer);
            let outcome = writer.flush();
            drop(worker);
            (outcome, writer.written, writer.cut)
        });
        let (outcome, written, cut) = done.await.map_err(|_| LogClosed)?;
        match outcome {
            Ok(bytes) => {
                if bytes > 0 {
                    self.room.add(bytes);
                    self.telemetry.log_lines(
                        written.next_seq.saturating_sub(self.shared.published.load(Ordering::Acquire)),
                    );
                }
            }
            Err(error) => {
                self.telemetry.log_cut(cut);
                if !self.broken.swap(true, Ordering::AcqRel) {
                    tracing::error!(code = "AGT-006", unit = self.shared.name, %error, "the spool cannot be written; lines are cut");
                }
            }
        }
        self.shared.published.store(written.next_seq, Ordering::Release);
        self.shared.wake.notify();
        Ok(())
    }

    async fn take(&self, stream: Stream, bytes: Bytes) -> Result<(), LogClosed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.shared.ended.load(Ordering::Acquire) {
                return Err(LogClosed);
            }
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            let fits = self.budget.admit(&self.room, &self.shared.released).await;
            self.work(move |writer| {
                if fits {
                    writer.push(stream, &chunk);
                } else {
                    writer.cut += chunk.len() as u64;
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn synced(&self, stream: Stream) -> Result<u64, LogClosed> {
        let index = stream as usize;
        let target = self.shared.published.load(Ordering::Acquire);
        let mut synced = self.sync.lock().await;
        if *synced < target || target == 0 {
            let (files, tail) = {
                let mut writer = self.writer.lock().await;
                (writer.spool.take_unsynced().map_err(|_| LogClosed)?, writer.written)
            };
            // Steps that end together would otherwise take a thread each.
            let worker = self.workers.clone().acquire_owned().await.map_err(|_| LogClosed)?;
            let outcome = tokio::task::spawn_blocking(move || {
                let _worker = worker;
                files.iter().try_for_each(std::fs::File::sync_data)
            })
            .await;
            if let Err(error) = outcome.map_err(|_| LogClosed)? {
                tracing::error!(code = "AGT-006", unit = self.shared.name, %error, "the spool cannot be made durable");
                return Err(LogClosed);
            }
            *synced = tail.next_seq;
            for (durable, offset) in self.shared.durable.iter().zip(tail.offsets) {
                durable.store(offset, Ordering::Release);
            }
        }
        Ok(self.shared.durable.get(index).map_or(0, |offset| offset.load(Ordering::Acquire)))
    }
}

impl Writer {
    /// Whether everything taken is in the spool as whole lines.
    fn is_settled(&self) -> bool {
        self.cut == 0 && self.buffer.is_empty() && self.splitters.iter().all(Splitter::is_empty)
    }

    fn push(&mut self, stream: Stream, chunk: &[u8]) {
        self.feed(stream, |splitter, emit| splitter.push(chunk, emit));
    }

    fn finish(&mut self, stream: Stream) {
        self.feed(stream, |splitter, emit| splitter.finish(emit));
    }

    fn feed(&mut self, stream: Stream, feed: impl FnOnce(&mut Splitter, &mut dyn FnMut(Piece<'_>))) {
        self.mark_gap();
        let time = self.clock.wall();
        let index = stream as usize;
        let Writer { splitters, buffer, settled, encoded, last_error, .. } = self;
        let Some(splitter) = splitters.get_mut(index) else { return };
        feed(splitter, &mut |piece| {
            let text = String::from_utf8_lossy(piece.text);
            let marked;
            let text = if piece.continues {
                marked = format!("{text}{CONTINUES}");
                marked.as_str()
            } else {
                text.as_ref()
            };
            if stream == Stream::Stderr && !text.trim().is_empty() {
                last_error.clear();
                last_error.extend(text.trim().chars().take(LAST_WORDS_CHARS));
            }
            let end = piece.end.unwrap_or(NO_OFFSET);
            encode(
                &Record { seq: encoded.next_seq, end, time, origin: Origin::Source(stream), text },
                buffer,
            );
            encoded.next_seq += 1;
            if let Some(end) = piece.end {
                encoded.reached(stream, end);
                *settled = buffer.len();
            }
        });
    }

    /// A line of our own, at its place in arrival order.
    fn line(&mut self, level: Level, text: &str) {
        self.mark_gap();
        let time = self.clock.wall();
        // A unit that waits for an offset keeps waiting: only source lines settle the buffer behind themselves.
        let was_settled = self.settled == self.buffer.len();
        let masked = self.own.mask_str(text);
        let mut splitter = Splitter::new(Masker::new().stream(), 0);
        let Writer { buffer, encoded, .. } = self;
        let mut emit = |piece: Piece<'_>| {
            let text = String::from_utf8_lossy(piece.text);
            encode(
                &Record {
                    seq: encoded.next_seq,
                    end: NO_OFFSET,
                    time,
                    origin: Origin::Own(level),
                    text: &text,
                },
                buffer,
            );
            encoded.next_seq += 1;
        };
        splitter.push(masked.as_bytes(), &mut emit);
        splitter.push(b"\n", &mut emit);
        if was_settled {
            self.settled = self.buffer.len();
        }
    }

    /// Says where lines are missing.
    fn mark_gap(&mut self) {
        if self.cut == 0 {
            return;
        }
        let text = format!("[{} bytes of this log were cut here: no room in the agent's spool]", self.cut);
        self.cut = 0;
        self.line(Level::Warn, &text);
    }

    /// At the end of the unit nothing waits for an offset any more.
    fn settle_all(&mut self) {
        self.mark_gap();
        self.settled = self.buffer.len();
    }

    /// Writes the settled front of the buffer. On an error its lines are cut and counted.
    fn flush(&mut self) -> std::io::Result<u64> {
        if self.settled == 0 {
            return Ok(0);
        }
        let bytes = self.settled as u64;
        let whole = self.settled == self.buffer.len();
        let front = self.buffer.get(..self.settled).unwrap_or_default();
        if let Err(error) = self.spool.append(front, self.buffer_from, &self.written) {
            self.drop_front();
            return Err(error);
        }
        if whole {
            self.written = self.encoded;
            self.buffer.clear();
            // A burst must not keep its buffer for the rest of a long step.
            self.buffer.shrink_to(CHUNK_BYTES / 4);
        } else {
            let mut at = 0;
            while at < self.settled {
                let Some((record, length)) = super::spool::decode(self.buffer.get(at..).unwrap_or_default())
                else {
                    break;
                };
                self.written.next_seq = record.seq + 1;
                if let (Origin::Source(stream), true) = (record.origin, record.end != NO_OFFSET) {
                    self.written.reached(stream, record.end);
                }
                at += length;
            }
            self.buffer.drain(..self.settled);
        }
        self.settled = 0;
        self.buffer_from = self.written.next_seq;
        Ok(bytes)
    }

    /// Gives up what cannot be stored; its numbers are used again.
    fn drop_front(&mut self) {
        self.cut += self.buffer.len() as u64;
        self.buffer.clear();
        self.settled = 0;
        // The source has moved on: offsets keep what was encoded, numbers go back to what is stored.
        self.written.offsets = self.encoded.offsets;
        self.encoded.next_seq = self.written.next_seq;
        self.buffer_from = self.written.next_seq;
    }
}

impl UnitLog for Unit {
    fn write(&self, stream: Stream, bytes: Bytes) -> BoxFuture<'_, Result<(), LogClosed>> {
        Box::pin(self.take(stream, bytes))
    }

    fn line(&self, level: Level, text: &str) -> BoxFuture<'_, Result<(), LogClosed>> {
        let text = text.to_owned();
        Box::pin(async move {
            if self.shared.ended.load(Ordering::Acquire) {
                return Err(LogClosed);
            }
            let fits = self.budget.admit(&self.room, &self.shared.released).await;
            self.work(
                move |writer| if fits { writer.line(level, &text) } else { writer.cut += text.len() as u64 },
            )
            .await
        })
    }

    fn resume_at(&self, stream: Stream) -> u64 {
        self.shared.durable.get(stream as usize).map_or(0, |offset| offset.load(Ordering::Acquire))
    }

    fn durable(&self, stream: Stream) -> BoxFuture<'_, Result<u64, LogClosed>> {
        Box::pin(self.synced(stream))
    }

    fn end_of_stream(&self, stream: Stream) -> BoxFuture<'_, Result<(), LogClosed>> {
        Box::pin(self.work(move |writer| writer.finish(stream)))
    }

    fn status(&self, status: UnitStatus) -> BoxFuture<'_, Result<(), LogClosed>> {
        (self.status)(&self.shared.name, status);
        Box::pin(std::future::ready(Ok(())))
    }
}
