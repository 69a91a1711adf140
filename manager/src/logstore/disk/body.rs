//! One body: an ordered run of lines in chunk files.

use super::{LogError, io, locked};
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A chunk that has reached this size is followed by another one. A read looks through at most one chunk to find a
/// line by its number.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Reading positions remembered for each body: so many readers go on where they stopped without searching.
const CURSORS: usize = 8;

/// File of a blob that was uploaded as a whole.
const BLOB: &str = "blob";

/// One body. Every method blocks.
#[derive(Debug)]
pub(super) struct Body {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    loaded: bool,
    closed: bool,
    chunks: Vec<Chunk>,
    next: u64,
    cursors: Vec<Cursor>,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: u64,
    bytes: u64,
}

/// Line `line` begins at byte `offset` of chunk `chunk`.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    line: u64,
    chunk: usize,
    offset: u64,
}

fn chunk_name(first: u64) -> String {
    format!("{first:020}")
}

impl Body {
    pub(super) fn new(folder: PathBuf, closed: bool) -> Self {
        Body { folder, state: Mutex::new(State { closed, ..State::default() }) }
    }

    /// Number of lines.
    pub(super) fn lines(&self) -> Result<u64, LogError> {
        let mut state = locked(&self.state);
        self.load(&mut state)?;
        Ok(state.next)
    }

    pub(super) fn set_closed(&self, closed: bool) -> Result<(), LogError> {
        let mut state = locked(&self.state);
        self.load(&mut state)?;
        state.closed = closed;
        Ok(())
    }

    /// Removes the files. A body that was never written to has none.
    pub(super) fn erase(&self) -> Result<(), LogError> {
        let mut state = locked(&self.state);
        *state = State { loaded: true, closed: true, ..State::default() };
        match fs::remove_dir_all(&self.folder) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io("erase a log")(error)),
        }
    }

    /// Finds out what is on the disk: after a restart, once.
    fn load(&self, state: &mut State) -> Result<(), LogError> {
        if state.loaded {
            return Ok(());
        }
        let mut chunks = Vec::new();
        match fs::read_dir(&self.folder) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(io("list a log"))?;
                    let name = entry.file_name();
                    let Some(first) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else {
                        continue;
                    };
                    let bytes = entry.metadata().map_err(io("look at a log"))?.len();
                    chunks.push(Chunk { first, bytes });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("list a log")(error)),
        }
        chunks.sort_by_key(|chunk| chunk.first);
        let mut next = 0;
        if let Some(last) = chunks.last_mut() {
            let (lines, whole) = count(&self.path(*last))?;
            if whole < last.bytes {
                // A torn line at the end, from a power failure. Its writer sends it again: it was not counted.
                let file = OpenOptions::new().write(true).open(self.path(*last)).map_err(io("open a log"))?;
                file.set_len(whole).map_err(io("cut a torn line"))?;
                last.bytes = whole;
            }
            next = last.first + lines;
        }
        state.chunks = chunks;
        state.next = next;
        state.loaded = true;
        Ok(())
    }

    fn path(&self, chunk: Chunk) -> PathBuf {
        self.folder.join(chunk_name(chunk.first))
    }

    /// Appends whole lines. Returns the next line number and the files written to.
    pub(super) fn append(&self, seq: Option<u64>, lines: &[Bytes]) -> Result<(u64, Vec<PathBuf>), LogError> {
        let mut state = locked(&self.state);
        self.load(&mut state)?;
        if state.closed {
            return Err(LogError::NotOpen);
        }
        let known = match seq {
            Some(seq) if seq > state.next => return Err(LogError::Gap { next: state.next }),
            Some(seq) => usize::try_from(state.next - seq).unwrap_or(usize::MAX),
            None => 0,
        };
        let mut fresh = lines.get(known..).unwrap_or_default();
        let mut written = Vec::new();
        while !fresh.is_empty() {
            let index = match state.chunks.last() {
                Some(chunk) if chunk.bytes < CHUNK_BYTES => state.chunks.len() - 1,
                _ => {
                    let first = state.next;
                    state.chunks.push(Chunk { first, bytes: 0 });
                    state.chunks.len() - 1
                }
            };
            let Some(chunk) = state.chunks.get(index).copied() else { return Err(LogError::NotOpen) };
            let mut text = Vec::new();
            let mut taken = 0;
            for line in fresh {
                text.extend_from_slice(line);
                text.push(b'\n');
                taken += 1;
                if chunk.bytes + size(&text) >= CHUNK_BYTES {
                    break;
                }
            }
            let path = self.path(chunk);
            if let Err(error) = write(&self.folder, &path, &text) {
                // What of it reached the file is found out at the next use.
                state.loaded = false;
                return Err(io("write a log")(error));
            }
            if let Some(chunk) = state.chunks.get_mut(index) {
                chunk.bytes += size(&text);
            }
            state.next += u64::try_from(taken).unwrap_or(0);
            fresh = fresh.get(taken..).unwrap_or_default();
            written.push(path);
        }
        Ok((state.next, written))
    }

    /// Stores a whole blob in place of lines.
    pub(super) fn put(&self, content: &[u8]) -> Result<PathBuf, LogError> {
        let path = self.folder.join(BLOB);
        write(&self.folder, &path, content).map_err(io("write a blob"))?;
        Ok(path)
    }

    /// Whole lines from number `from` on: (first, next, text). Of an uploaded blob, its lines.
    pub(super) fn read(&self, from: u64, max_bytes: usize) -> Result<(u64, u64, Bytes), LogError> {
        let mut state = locked(&self.state);
        self.load(&mut state)?;
        if state.chunks.is_empty() {
            let blob = self.folder.join(BLOB);
            return if blob.exists() {
                read_blob_lines(&blob, from, max_bytes)
            } else {
                Ok((from, from, Bytes::new()))
            };
        }
        if from >= state.next {
            return Ok((from, from, Bytes::new()));
        }
        let start = state.cursors.iter().find(|cursor| cursor.line == from).copied();
        let start = match start {
            Some(cursor) => cursor,
            None => {
                let after = state.chunks.partition_point(|chunk| chunk.first <= from);
                let chunk = after.saturating_sub(1);
                let Some(found) = state.chunks.get(chunk) else { return Ok((from, from, Bytes::new())) };
                let offset = skip(&self.path(*found), from - found.first)?;
                Cursor { line: from, chunk, offset }
            }
        };
        let Some(chunk) = state.chunks.get(start.chunk).copied() else {
            return Ok((from, from, Bytes::new()));
        };
        let left = chunk.bytes.saturating_sub(start.offset);
        let (text, lines) = read_lines(&self.path(chunk), start.offset, left, max_bytes)?;
        let next = from + lines;
        let offset = start.offset + size(&text);
        let at_end = offset >= chunk.bytes && start.chunk + 1 < state.chunks.len();
        let cursor = if at_end {
            Cursor { line: next, chunk: start.chunk + 1, offset: 0 }
        } else {
            Cursor { line: next, chunk: start.chunk, offset }
        };
        state.cursors.retain(|old| old.line != from && old.line != next);
        if state.cursors.len() >= CURSORS {
            state.cursors.remove(0);
        }
        state.cursors.push(cursor);
        Ok((from, next, Bytes::from(text)))
    }

    /// Bytes of the body as one file.
    pub(super) fn bytes(&self, from: u64, max_bytes: usize) -> Result<Bytes, LogError> {
        let mut state = locked(&self.state);
        self.load(&mut state)?;
        let blob = self.folder.join(BLOB);
        if state.chunks.is_empty() && blob.exists() {
            return read_bytes(&blob, from, max_bytes);
        }
        let mut skipped = 0;
        for chunk in &state.chunks {
            if from < skipped + chunk.bytes {
                let left = usize::try_from(skipped + chunk.bytes - from).unwrap_or(usize::MAX);
                return read_bytes(&self.path(*chunk), from - skipped, max_bytes.min(left));
            }
            skipped += chunk.bytes;
        }
        Ok(Bytes::new())
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn write(folder: &Path, path: &Path, text: &[u8]) -> std::io::Result<()> {
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let mut file = match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            open()?
        }
        other => other?,
    };
    file.write_all(text)
}

/// Lines in a chunk, and the bytes they fill.
fn count(path: &Path) -> Result<(u64, u64), LogError> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path).map_err(io("open a log"))?);
    let (mut lines, mut whole, mut seen) = (0, 0, 0_u64);
    loop {
        let buffer = reader.fill_buf().map_err(io("read a log"))?;
        if buffer.is_empty() {
            return Ok((lines, whole));
        }
        for (at, byte) in (1_u64..).zip(buffer) {
            if *byte == b'\n' {
                lines += 1;
                whole = seen + at;
            }
        }
        let used = buffer.len();
        seen += size(buffer);
        reader.consume(used);
    }
}

/// Where line `lines` of a chunk begins.
fn skip(path: &Path, lines: u64) -> Result<u64, LogError> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path).map_err(io("open a log"))?);
    let mut offset = 0;
    for _ in 0..lines {
        let skipped = reader.skip_until(b'\n').map_err(io("read a log"))?;
        offset += u64::try_from(skipped).unwrap_or(0);
    }
    Ok(offset)
}

/// Whole lines from a byte on, at most about `max_bytes` but at least one.
fn read_lines(path: &Path, offset: u64, left: u64, max_bytes: usize) -> Result<(Vec<u8>, u64), LogError> {
    let mut file = File::open(path).map_err(io("open a log"))?;
    file.seek(SeekFrom::Start(offset)).map_err(io("read a log"))?;
    // The end that is known is used, not the file's: an append may be writing behind it.
    let mut reader = file.take(left);
    let mut text = vec![0; max_bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
    let got = read_full(&mut reader, &mut text)?;
    text.truncate(got);
    match text.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => text.truncate(end + 1),
        None => {
            // One line longer than the limit.
            let mut reader = BufReader::new(reader);
            reader.read_until(b'\n', &mut text).map_err(io("read a log"))?;
        }
    }
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    Ok((text, u64::try_from(lines).unwrap_or(0)))
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, LogError> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io("read a log")(error)),
        }
    }
    Ok(got)
}

fn read_bytes(path: &Path, from: u64, max_bytes: usize) -> Result<Bytes, LogError> {
    let mut file = File::open(path).map_err(io("open a log"))?;
    file.seek(SeekFrom::Start(from)).map_err(io("read a log"))?;
    let mut text = vec![0; max_bytes];
    let got = read_full(&mut file, &mut text)?;
    text.truncate(got);
    Ok(Bytes::from(text))
}

/// An uploaded blob need not end with a newline.
fn read_blob_lines(path: &Path, from: u64, max_bytes: usize) -> Result<(u64, u64, Bytes), LogError> {
    let offset = skip(path, from)?;
    let bytes = fs::metadata(path).map_err(io("look at a blob"))?.len();
    if offset >= bytes {
        return Ok((from, from, Bytes::new()));
    }
    let (mut text, mut lines) = read_lines(path, offset, bytes - offset, max_bytes)?;
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
        lines += 1;
    }
    Ok((from, from + lines, Bytes::from(text)))
}
