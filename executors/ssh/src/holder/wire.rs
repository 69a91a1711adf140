//! Reading what the programs on the host print.

use bytes::{Bytes, BytesMut};

/// A greeting longer than this is no greeting.
const MAX_GREETING: usize = 256 << 10;

/// How a unit stands on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Never,
    Running,
    Ended(Ended),
    Vanished(String),
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// Set when it never came to the script: `interpreter`, `directory`.
    pub(crate) fault: Option<String>,
    /// Folder of the unit that the rest of the stream belongs to.
    pub(crate) next: Option<String>,
}

impl Ended {
    /// `CODE FAULT NEXT`, of which the last may be left out; `-` stands for none.
    pub(crate) fn parse(text: &str) -> Option<Ended> {
        let mut words = text.split_whitespace();
        let code = words.next()?.parse().ok()?;
        let mut word = || words.next().filter(|w| *w != "-").map(str::to_owned);
        Some(Ended { code, fault: word(), next: word() })
    }
}

impl Found {
    pub(crate) fn parse(answer: &str) -> Option<Found> {
        let (word, rest) = answer.split_once(' ').unwrap_or((answer, ""));
        Some(match word {
            "never" => Found::Never,
            "running" => Found::Running,
            "ended" => Found::Ended(Ended::parse(rest)?),
            "vanished" => Found::Vanished(match rest.split_once(' ') {
                Some(("restarted", pid)) => {
                    format!("the host was restarted while it ran as process {pid}; it left no exit code")
                }
                Some((_, pid)) => format!("process {pid} is gone and left no exit code"),
                None => "its process is gone and left no exit code".to_owned(),
            }),
            _ => return None,
        })
    }
}

/// The answer of a short program: the rest of the line that begins with the nonce.
pub(crate) fn answer(output: &[u8], nonce: &str) -> Option<String> {
    let mut head = vec![1u8];
    head.extend_from_slice(nonce.as_bytes());
    head.push(b' ');
    let at = find(output, &head)? + head.len();
    let rest = output.get(at..)?;
    let end = rest.iter().position(|b| *b == b'\n')?;
    Some(String::from_utf8_lossy(rest.get(..end)?).into_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

/// Waits for the first answer on a stream and hands on what follows it.
pub(crate) struct Greeting {
    nonce: String,
    seen: BytesMut,
}

impl Greeting {
    pub(crate) fn new(nonce: &str) -> Self {
        Greeting { nonce: nonce.to_owned(), seen: BytesMut::new() }
    }

    /// `Ok(None)`: not yet. **Errors**: what came instead of a greeting.
    pub(crate) fn feed(&mut self, data: &[u8]) -> Result<Option<(String, Bytes)>, String> {
        self.seen.extend_from_slice(data);
        let mut head = vec![1u8];
        head.extend_from_slice(self.nonce.as_bytes());
        if let Some(at) = find(&self.seen, &head)
            && let Some(end) = self.seen.get(at..).and_then(|s| s.iter().position(|b| *b == b'\n'))
        {
            let mut line = self.seen.split_off(at);
            let rest = line.split_off(end + 1).freeze();
            let text =
                String::from_utf8_lossy(line.get(head.len()..end).unwrap_or_default()).trim().to_owned();
            return Ok(Some((text, rest)));
        }
        if self.seen.len() > MAX_GREETING {
            return Err(self.so_far());
        }
        Ok(None)
    }

    /// What was printed instead, shortened.
    pub(crate) fn so_far(&self) -> String {
        let text = String::from_utf8_lossy(self.seen.get(..self.seen.len().min(300)).unwrap_or_default());
        text.trim().to_owned()
    }
}

/// So much is kept of what follows an end mark: what comes of the next unit before the other stream has come to its mark.
/// Units that share a spool have segments of at most 1 MiB, and both streams are sent segment by segment in turn.
const MAX_AFTER: usize = 4 << 20;

/// So much is kept of what follows the last mark: an answer may be in it.
const READ_ON: usize = 64 << 10;

/// Finds the holder's end mark in a stream, over chunk borders.
pub(crate) struct StreamEnd {
    mark: Vec<u8>,
    held: BytesMut,
    ended: Option<Ended>,
    after: BytesMut,
    cut: bool,
}

impl StreamEnd {
    pub(crate) fn new(token: &str) -> Self {
        let mut mark = vec![1u8];
        mark.extend_from_slice(token.as_bytes());
        mark.push(b' ');
        StreamEnd { mark, held: BytesMut::new(), ended: None, after: BytesMut::new(), cut: false }
    }

    /// What has come after the mark. `None`: it was too much to keep.
    pub(crate) fn into_after(self) -> Option<Bytes> {
        (!self.cut).then(|| self.after.freeze())
    }

    /// How the script ended, once the mark has passed.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Takes a chunk and returns what of it is output. What comes after the mark is no output of the script any more.
    pub(crate) fn feed(&mut self, data: Bytes) -> Bytes {
        if self.ended.is_some() {
            // Nobody wants what comes after the last unit.
            if self.ended.as_ref().is_some_and(|e| e.next.is_some()) {
                self.cut |= self.after.len() + data.len() > MAX_AFTER;
                if !self.cut {
                    self.after.extend_from_slice(&data);
                }
            } else if self.after.len() < READ_ON {
                self.after.extend_from_slice(&data);
            }
            return Bytes::new();
        }
        let whole = if self.held.is_empty() {
            data
        } else {
            self.held.extend_from_slice(&data);
            self.held.split().freeze()
        };
        if let Some(at) = find(&whole, &self.mark) {
            let after = whole.slice(at + self.mark.len()..);
            match after.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    let text = String::from_utf8_lossy(&after.slice(..end)).into_owned();
                    self.ended = Ended::parse(&text);
                    self.after.extend_from_slice(&after.slice(end + 1..));
                }
                None => self.held.extend_from_slice(&whole.slice(at..)),
            }
            return whole.slice(..at);
        }
        // Only a beginning of the mark at the very end has to wait for the next chunk.
        let tail = whole.len().saturating_sub(self.mark.len() - 1);
        let begins = |at: &usize| whole.get(*at..).is_some_and(|rest| self.mark.starts_with(rest));
        match (tail..whole.len()).find(begins) {
            Some(at) => {
                self.held.extend_from_slice(&whole.slice(at..));
                whole.slice(..at)
            }
            None => whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_at_every_split() {
        let text = b"one\n\x01two\x01tok 143 - u-2\nlater".to_vec();
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut end = StreamEnd::new("tok");
                let mut out = Vec::new();
                for part in [&text[..first], &text[first..second], &text[second..]] {
                    out.extend_from_slice(&end.feed(Bytes::copy_from_slice(part)));
                }
                assert_eq!(out, b"one\n\x01two", "{first} {second}");
                assert_eq!(end.ended(), Some(&Ended { code: 143, fault: None, next: Some("u-2".into()) }));
                assert_eq!(end.into_after().unwrap(), "later");
            }
        }
    }

    #[test]
    fn a_greeting_is_found_behind_what_login_scripts_print() {
        let mut greeting = Greeting::new("nn");
        assert_eq!(greeting.feed(b"Welcome!\n\x01n").unwrap(), None);
        let (line, rest) = greeting.feed(b"n started tok /d\nout").unwrap().unwrap();
        assert_eq!((line.as_str(), rest.as_ref()), ("started tok /d", b"out".as_ref()));
        assert_eq!(
            Found::parse("ended 3 interpreter").unwrap(),
            Found::Ended(Ended { code: 3, fault: Some("interpreter".into()), next: None })
        );
        assert!(
            matches!(Found::parse("vanished restarted 7"), Some(Found::Vanished(t)) if t.contains("restarted"))
        );
    }
}
