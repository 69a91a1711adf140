//! The producer's side of the log pipeline (D7).

use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Which of the two outputs bytes came from. Their mutual order is by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output: level INFO.
    Stdout,
    /// Standard error: level ERROR.
    Stderr,
}

/// Level of a line that the executor itself writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Progress.
    Info,
    /// Something a person should look at.
    Warn,
    /// A failure.
    Error,
}

/// The pipeline no longer takes lines: the agent is going down. The step should end as on `Drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log pipeline is closed")]
pub struct LogClosed;

/// Opens the log of a command unit.
pub trait LogSink: Send + Sync {
    /// The log of the unit `name`. Opening the same name again, also after a restart of the agent, goes on where the
    /// durable part ends.
    fn unit(&self, name: &str) -> Arc<dyn UnitLog>;
}

/// The log of one command unit: split into lines, masked, numbered and spooled behind this trait.
pub trait UnitLog: Send + Sync {
    /// Raw bytes of one stream, contiguous from [`UnitLog::resume_at`] on. Waits while the spool is full.
    ///
    /// **Cancel**: dropping the future leaves it unknown whether the bytes were taken; read `resume_at` after a
    /// restart only.
    fn write(&self, stream: Stream, bytes: Bytes) -> BoxFuture<'_, Result<(), LogClosed>>;

    /// One line of the executor's own, at its place in arrival order. `\n` in it makes several lines.
    fn line(&self, level: Level, text: &str) -> BoxFuture<'_, Result<(), LogClosed>>;

    /// Byte offset in the source stream up to which complete lines are durable. A producer that can seek (a detached
    /// script's spool on the host) starts there after a restart, so that no line is lost and none doubled.
    fn resume_at(&self, stream: Stream) -> u64;

    /// Waits until everything written so far is durable, and returns the offset that `resume_at` then has. A partial
    /// last line is not durable until its newline or [`UnitLog::end_of_stream`] comes.
    fn durable(&self, stream: Stream) -> BoxFuture<'_, Result<u64, LogClosed>>;

    /// The stream has ended: a partial last line becomes a line.
    ///
    /// **Repeat**: safe.
    fn end_of_stream(&self, stream: Stream) -> BoxFuture<'_, Result<(), LogClosed>>;

    /// The unit starts or ends; the status goes to the manager as unit progress.
    fn status(&self, status: proto::result::UnitStatus) -> BoxFuture<'_, Result<(), LogClosed>>;
}
