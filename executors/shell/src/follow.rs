//! Streams what a script prints from the holder's spool into the log.

use crate::error::Error;
use crate::holder::{Found, Place};
use bytes::{Bytes, BytesMut};
use executor_api::{Clock, Level, Stream, UnitLog};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::time::Instant;

/// One read of a spool file.
const READ: usize = 64 << 10;

/// Pauses between two looks at a spool that brought nothing: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// How long the end of the output may be missing after the script has ended and its holder is gone.
const MISSING: Duration = Duration::from_secs(3);

/// One stream of a script.
struct Spool {
    stream: Stream,
    dir: PathBuf,
    name: &'static str,
    /// The open file and the offset that it begins at.
    open: Option<(u64, File)>,
    /// Offset of the next byte to read.
    read: u64,
    /// Files that were read to their end, by the offset that they begin at.
    done: VecDeque<u64>,
    /// Offset that the holder was told of.
    acknowledged: u64,
    mark: Mark,
}

/// Finds the word that ends a stream, over the borders of chunks.
struct Mark {
    word: Vec<u8>,
    held: BytesMut,
    ended: bool,
}

impl Mark {
    fn new(token: &str) -> Mark {
        let word = format!("\u{1}{token}\n").into_bytes();
        Mark { word, held: BytesMut::new(), ended: false }
    }

    /// What of `data` is output of the script.
    fn feed(&mut self, data: &[u8]) -> Bytes {
        if self.ended {
            return Bytes::new();
        }
        self.held.extend_from_slice(data);
        if let Some(at) = memchr::memmem::find(&self.held, &self.word) {
            self.ended = true;
            return self.held.split_to(at).freeze();
        }
        // Only what may be the beginning of the word waits for more.
        let from = self.held.len().saturating_sub(self.word.len() - 1);
        let begins = |at: &usize| self.held.get(*at..).is_some_and(|rest| self.word.starts_with(rest));
        let keep = (from..self.held.len()).find(begins).unwrap_or(self.held.len());
        self.held.split_to(keep).freeze()
    }

    /// The stream ends without the word: what waits is output too.
    fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

impl Spool {
    fn new(stream: Stream, dir: &Path, from: u64, token: &str) -> Spool {
        let name = match stream {
            Stream::Stdout => "o",
            Stream::Stderr => "e",
        };
        let (dir, mark) = (dir.to_owned(), Mark::new(token));
        Spool { stream, dir, name, open: None, read: from, done: VecDeque::new(), acknowledged: from, mark }
    }

    fn file(&self, offset: u64) -> PathBuf {
        self.dir.join(format!("{}.{offset}", self.name))
    }

    /// Opens the file that holds the next byte, if it exists yet.
    async fn seek(&mut self) -> io::Result<()> {
        let mut starts = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let start =
                name.to_str().and_then(|n| n.strip_prefix(self.name)?.strip_prefix('.')?.parse().ok());
            starts.extend(start.filter(|start: &u64| *start <= self.read));
        }
        starts.sort_unstable();
        let Some(start) = starts.pop() else { return Ok(()) };
        if self.done.is_empty() {
            self.done.extend(starts);
        }
        let mut file = File::open(self.file(start)).await?;
        file.seek(SeekFrom::Start(self.read - start)).await?;
        self.open = Some((start, file));
        Ok(())
    }

    /// The next output of the script; empty when there is none now.
    async fn next(&mut self) -> io::Result<Bytes> {
        let mut buffer = vec![0; READ];
        loop {
            if self.open.is_none() {
                self.seek().await?;
            }
            let Some((start, file)) = self.open.as_mut() else { return Ok(Bytes::new()) };
            let start = *start;
            let count = file.read(&mut buffer).await?;
            if count > 0 {
                self.read += count as u64;
                let output = self.mark.feed(buffer.get(..count).unwrap_or_default());
                if output.is_empty() && !self.mark.ended {
                    continue;
                }
                return Ok(output);
            }
            // The next file begins where this one ends, and is made only once this one is complete.
            let next = self.dir.join(format!("{}.{}", self.name, self.read));
            if self.read == start || !next.exists() {
                return Ok(Bytes::new());
            }
            // Bytes may have come between the read and the look.
            let count = file.read(&mut buffer).await?;
            if count > 0 {
                self.read += count as u64;
                return Ok(self.mark.feed(buffer.get(..count).unwrap_or_default()));
            }
            self.done.push_back(start);
            self.open = None;
        }
    }

    /// Everything before `upto` is safe: files before it go, and the holder may go on.
    fn acknowledge(&mut self, upto: u64) -> io::Result<()> {
        self.acknowledged = self.acknowledged.max(upto);
        while let Some(start) = self.done.front().copied() {
            let end = self.done.get(1).copied().or(self.open.as_ref().map(|(start, _)| *start));
            if end.is_none_or(|end| end > upto) {
                break;
            }
            self.done.pop_front();
            match fs::remove_file(self.file(start)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let next = self.dir.join(format!("{}.ack.tmp", self.name));
        fs::write(&next, format!("{upto}\n"))?;
        fs::rename(next, self.dir.join(format!("{}.ack", self.name)))
    }

    fn lost(&self) -> bool {
        self.dir.join(format!("{}.lost", self.name)).exists()
    }
}

/// A script being followed.
pub(crate) struct Follow<'a> {
    place: &'a Place,
    clock: &'a dyn Clock,
    log: Arc<dyn UnitLog>,
    spools: [Spool; 2],
    /// Bytes between two acknowledgements.
    step: u64,
}

impl<'a> Follow<'a> {
    /// Begins where the log's durable part ends.
    pub(crate) fn new(
        place: &'a Place,
        clock: &'a dyn Clock,
        log: Arc<dyn UnitLog>,
        spool_limit: u64,
    ) -> io::Result<Follow<'a>> {
        let token = place.token()?;
        let spool = |stream| Spool::new(stream, &place.dir, log.resume_at(stream), &token);
        let spools = [spool(Stream::Stdout), spool(Stream::Stderr)];
        Ok(Follow { place, clock, log, spools, step: (spool_limit / 16).max(READ as u64) })
    }

    /// Follows to the end of both streams; returns the exit status.
    ///
    /// **Errors**: the script is gone and left no status. **Cancel**: the script runs on; whoever comes next goes on
    /// where the log is durable.
    pub(crate) async fn run(&mut self) -> Result<i32, Error> {
        let mut pause = PAUSES.0;
        let mut missing_since = None;
        loop {
            if self.take().await? {
                pause = PAUSES.0;
                missing_since = None;
                continue;
            }
            if self.spools.iter().all(|spool| spool.mark.ended)
                && let Some(code) = self.place.exit()
            {
                self.end().await?;
                return Ok(code);
            }
            match self.place.look() {
                Found::Running => {}
                Found::Ended(code) => {
                    let young = self.is_young(&mut missing_since);
                    let lost = self.spools.iter().any(Spool::lost);
                    if (lost || !self.place.held()) && !young {
                        let text = "The end of the output is missing: the disk of the agent is full, or the spooler \
                                    was killed";
                        self.log.line(Level::Warn, text).await?;
                        self.end().await?;
                        return Ok(code);
                    }
                }
                // Just started, it has no environment yet by which it could be found.
                Found::Never if self.place.token().is_ok() && self.is_young(&mut missing_since) => {}
                Found::Never | Found::Vanished(_) => {
                    // Its last words may have come between the read and the look.
                    while self.take().await? {}
                    let evidence = match self.place.look() {
                        Found::Vanished(evidence) => evidence,
                        Found::Never => "its folder is gone from the agent".to_owned(),
                        Found::Running | Found::Ended(_) => continue,
                    };
                    self.end().await?;
                    return Err(Error::Vanished { evidence });
                }
            }
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Whether less than [`MISSING`] has passed since this was first asked.
    fn is_young(&self, since: &mut Option<Instant>) -> bool {
        let now = self.clock.mono();
        now.saturating_duration_since(*since.get_or_insert(now)) < MISSING
    }

    /// One round over both streams; whether anything came.
    async fn take(&mut self) -> Result<bool, Error> {
        let mut any = false;
        for spool in &mut self.spools {
            let before = spool.read;
            let output = spool.next().await?;
            any |= spool.read != before;
            if !output.is_empty() {
                self.log.write(spool.stream, output).await?;
            }
            if spool.read - spool.acknowledged >= self.step && !spool.mark.ended {
                let upto = self.log.durable(spool.stream).await?;
                spool.acknowledge(upto)?;
            }
        }
        Ok(any)
    }

    /// Both streams are complete as far as they ever will be, and safe.
    async fn end(&mut self) -> Result<(), Error> {
        for spool in &mut self.spools {
            if !spool.mark.ended {
                let rest = spool.mark.rest();
                self.log.write(spool.stream, rest).await?;
            }
            self.log.end_of_stream(spool.stream).await?;
            self.log.durable(spool.stream).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_at_every_split() {
        let text = b"one\n\x01two\x01token\nlater";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut mark = Mark::new("token");
                let mut out = Vec::new();
                for part in [&text[..first], &text[first..second], &text[second..]] {
                    out.extend_from_slice(&mark.feed(part));
                }
                assert_eq!((out.as_slice(), mark.ended), (&b"one\n\x01two"[..], true), "{first} {second}");
            }
        }
    }

    #[test]
    fn a_stream_without_its_mark_loses_nothing() {
        let mut mark = Mark::new("token");
        let mut out = mark.feed(b"text\x01tok").to_vec();
        assert_eq!(out, b"text");
        out.extend_from_slice(&mark.rest());
        assert_eq!(out, b"text\x01tok");
    }
}
