//! Output by lines.

use bytes::{Bytes, BytesMut};
use executor_api::Stream;
use futures::future::BoxFuture;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A longer line is handed on in pieces of this many bytes, so that a program that never ends its line takes no memory.
pub const MAX_LINE: usize = 64 << 10;

/// Takes the output of a program.
pub trait Sink: Send + Sync {
    /// One line without its newline; the program waits meanwhile, so a slow sink slows it down.
    fn line(&self, stream: Stream, line: Bytes) -> BoxFuture<'_, ()>;
}

/// Keeps output in memory up to a limit: for tools whose answer is their output.
#[derive(Debug)]
pub struct Collected {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    out: Vec<u8>,
    err: Vec<u8>,
    cut: bool,
}

impl Collected {
    /// Keeps at most `limit` bytes of each stream; the rest is dropped and [`Collected::was_cut`] says so.
    pub fn up_to(limit: usize) -> Collected {
        Collected { limit, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came on a stream so far, each line with a newline; invalid UTF-8 is replaced.
    pub fn text(&self, stream: Stream) -> String {
        let kept = self.kept();
        let bytes = match stream {
            Stream::Stdout => &kept.out,
            Stream::Stderr => &kept.err,
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Whether something was dropped.
    pub fn was_cut(&self) -> bool {
        self.kept().cut
    }
}

impl Sink for Collected {
    fn line(&self, stream: Stream, line: Bytes) -> BoxFuture<'_, ()> {
        let mut kept = self.kept();
        let limit = self.limit;
        let bytes = match stream {
            Stream::Stdout => &mut kept.out,
            Stream::Stderr => &mut kept.err,
        };
        if bytes.len() + line.len() < limit {
            bytes.extend_from_slice(&line);
            bytes.push(b'\n');
        } else {
            kept.cut = true;
        }
        Box::pin(std::future::ready(()))
    }
}

/// Reads a stream to its end.
pub(crate) async fn forward(
    mut from: impl AsyncRead + Unpin,
    stream: Stream,
    sink: &dyn Sink,
) -> std::io::Result<()> {
    let mut held = BytesMut::with_capacity(MAX_LINE);
    loop {
        let read = from.read_buf(&mut held).await?;
        while let Some(end) = memchr::memchr(b'\n', &held) {
            let line = held.split_to(end).freeze();
            drop(held.split_to(1));
            sink.line(stream, line).await;
        }
        while held.len() > MAX_LINE {
            let piece = held.split_to(MAX_LINE).freeze();
            sink.line(stream, piece).await;
        }
        if read == 0 {
            if !held.is_empty() {
                sink.line(stream, held.freeze()).await;
            }
            return Ok(());
        }
        held.reserve(8 << 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> String {
        let kept = Collected::up_to(1 << 20);
        forward(input, Stream::Stdout, &kept).await.unwrap();
        kept.text(Stream::Stdout)
    }

    #[tokio::test]
    async fn lines_come_whole_and_endless_ones_in_pieces() {
        assert_eq!(lines(b"one\n\ntwo\nlast").await, "one\n\ntwo\nlast\n");
        let long = vec![b'x'; 3 * MAX_LINE + 5];
        let text = lines(&long).await;
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, MAX_LINE, 5]);
    }

    #[tokio::test]
    async fn what_is_over_the_limit_is_dropped_and_said() {
        let kept = Collected::up_to(8);
        forward(&b"12345\n6789\n"[..], Stream::Stderr, &kept).await.unwrap();
        assert_eq!((kept.text(Stream::Stderr).as_str(), kept.was_cut()), ("12345\n", true));
    }
}
