//! Lines on disk: append-only segment files of one unit.
//!
//! **Shape** of a record: `u32` length of the body, `u64` check over the body, body = `u64` number, `u64` source offset
//! (or [`NO_OFFSET`]), `u64` epoch milliseconds, `u8` origin, UTF-8 text. Little endian. A record that is cut off or does
//! not check is the torn end of an interrupted write: it and what follows is dropped.
//!
//! All functions block; the unit calls them on a blocking thread.

use executor_api::{Level, Stream};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A segment is closed at this size. Smaller means more files, larger means that acknowledged lines hold disk longer.
pub(crate) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Offset of a record that does not say where its stream stands.
pub(crate) const NO_OFFSET: u64 = u64::MAX;
const HEAD: usize = 12;
const BODY_HEAD: usize = 25;
/// No record is longer: a longer one is a torn length.
const MAX_BODY: usize = 64 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Source(Stream),
    Own(Level),
}

impl Origin {
    fn to_byte(self) -> u8 {
        match self {
            Origin::Source(Stream::Stdout) => 0,
            Origin::Source(Stream::Stderr) => 1,
            Origin::Own(Level::Info) => 2,
            Origin::Own(Level::Warn) => 3,
            Origin::Own(Level::Error) => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Origin> {
        Some(match byte {
            0 => Origin::Source(Stream::Stdout),
            1 => Origin::Source(Stream::Stderr),
            2 => Origin::Own(Level::Info),
            3 => Origin::Own(Level::Warn),
            4 => Origin::Own(Level::Error),
            _ => return None,
        })
    }

    /// Harness' level. Standard error is ERROR there.
    pub(crate) fn level(self) -> &'static str {
        match self {
            Origin::Source(Stream::Stdout) | Origin::Own(Level::Info) => "INFO",
            Origin::Own(Level::Warn) => "WARN",
            Origin::Source(Stream::Stderr) | Origin::Own(Level::Error) => "ERROR",
        }
    }
}

/// One line on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) seq: u64,
    pub(crate) end: u64,
    pub(crate) time: u64,
    pub(crate) origin: Origin,
    pub(crate) text: &'a str,
}

/// Not cryptographic: it only tells a torn record from a whole one, at memory speed.
fn check(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = bytes.len() as u64 ^ PRIME;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(value)).wrapping_mul(PRIME).rotate_left(29);
    }
    for byte in words.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME).rotate_left(29);
    }
    hash
}

/// Appends the encoded record to `out`.
pub(crate) fn encode(record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    out.extend_from_slice(&record.seq.to_le_bytes());
    out.extend_from_slice(&record.end.to_le_bytes());
    out.extend_from_slice(&record.time.to_le_bytes());
    out.push(record.origin.to_byte());
    out.extend_from_slice(record.text.as_bytes());
    let (mut length, mut sum) = (0, 0);
    if let Some(body) = out.get(start + HEAD..) {
        length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        sum = check(body);
    }
    if let Some(head) = out.get_mut(start..start + HEAD) {
        let (a, b) = head.split_at_mut(4);
        a.copy_from_slice(&length.to_le_bytes());
        b.copy_from_slice(&sum.to_le_bytes());
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The first record of `bytes` and its length, or `None` when there is no whole one.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let length = u32::from_le_bytes(number(bytes, 0)?) as usize;
    if !(BODY_HEAD..=MAX_BODY).contains(&length) {
        return None;
    }
    let body = bytes.get(HEAD..HEAD + length)?;
    if check(body) != u64::from_le_bytes(number(bytes, 4)?) {
        return None;
    }
    let record = Record {
        seq: u64::from_le_bytes(number(body, 0)?),
        end: u64::from_le_bytes(number(body, 8)?),
        time: u64::from_le_bytes(number(body, 16)?),
        origin: Origin::from_byte(*body.get(24)?)?,
        text: std::str::from_utf8(body.get(BODY_HEAD..)?).ok()?,
    };
    Some((record, HEAD + length))
}

/// What was found on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Number of the next line.
    pub(crate) next_seq: u64,
    /// Source offsets of stdout and stderr behind their last complete line.
    pub(crate) offsets: [u64; 2],
    /// Bytes on disk.
    pub(crate) bytes: u64,
}

impl Tail {
    /// Lines of `stream` are complete up to `end`.
    pub(crate) fn reached(&mut self, stream: Stream, end: u64) {
        let [stdout, stderr] = &mut self.offsets;
        *match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        } = end;
    }
}

/// The writing end.
pub(crate) struct Spool {
    dir: PathBuf,
    file: Option<File>,
    /// Length of the current segment.
    length: u64,
    /// Segments that were written and not yet synced, beside the current one.
    unsynced: Vec<File>,
    /// The directory got a new entry since the last sync.
    dir_dirty: bool,
    /// What the directory is for; written when the directory is made.
    meta: Option<Vec<u8>>,
}

/// Name of the file that says what a unit's directory is for.
pub(crate) const META: &str = "meta";

fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}.seg"))
}

/// The first numbers of all segments in `dir`, in order.
pub(crate) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(first) = name.to_str().and_then(|n| n.strip_suffix(".seg")).and_then(|n| n.parse().ok()) {
            found.push(first);
        }
    }
    found.sort_unstable();
    Ok(found)
}

impl Spool {
    /// The spool of a unit that has none. Touches no disk; the directory is made by the first append.
    pub(crate) fn fresh(dir: PathBuf, meta: Vec<u8>) -> Spool {
        Spool { dir, file: None, length: 0, unsynced: Vec::new(), dir_dirty: false, meta: Some(meta) }
    }

    /// Opens the spool of a unit after a restart: reads what is there, drops a torn end, makes the rest durable, and goes
    /// on behind it.
    pub(crate) fn open(dir: PathBuf) -> io::Result<(Spool, Tail)> {
        let mut tail = read_marks(&dir)?;
        let mut last = None;
        let list = segments(&dir)?;
        for (index, first) in list.iter().enumerate() {
            let path = segment_path(&dir, *first);
            let bytes = fs::read(&path)?;
            let mut good = 0;
            while let Some((record, length)) = decode(bytes.get(good..).unwrap_or_default()) {
                good += length;
                tail.next_seq = record.seq + 1;
                match record.origin {
                    Origin::Source(stream) if record.end != NO_OFFSET => tail.reached(stream, record.end),
                    _ => {}
                }
            }
            if good < bytes.len() {
                OpenOptions::new().write(true).open(&path)?.set_len(good as u64)?;
                // Nothing behind a torn record is in order any more.
                for later in list.get(index + 1..).unwrap_or_default() {
                    fs::remove_file(segment_path(&dir, *later))?;
                }
                tail.bytes += good as u64;
                last = Some((path, good as u64));
                break;
            }
            tail.bytes += good as u64;
            last = Some((path, good as u64));
        }
        // Lines that the process before wrote may still be in memory only; offsets read here count as durable.
        for first in segments(&dir)? {
            File::open(segment_path(&dir, first))?.sync_data()?;
        }
        let (file, length) = match last {
            Some((path, length)) => (Some(OpenOptions::new().append(true).open(path)?), length),
            None => (None, 0),
        };
        Ok((Spool { dir, file, length, unsynced: Vec::new(), dir_dirty: false, meta: None }, tail))
    }

    /// Appends encoded records whose first has the number `first_seq`. On an error nothing of them counts: a torn rest is
    /// cut off.
    pub(crate) fn append(&mut self, bytes: &[u8], first_seq: u64, marks: &Tail) -> io::Result<()> {
        if let Some(meta) = &self.meta {
            fs::create_dir_all(&self.dir)?;
            fs::write(self.dir.join(META), meta)?;
            self.meta = None;
        }
        if self.length >= SEGMENT_BYTES
            && let Some(full) = self.file.take()
        {
            self.unsynced.push(full);
            // Numbers and offsets must outlive the deletion of acknowledged segments.
            write_marks(&self.dir, marks)?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => {
                let path = segment_path(&self.dir, first_seq);
                self.length = 0;
                self.dir_dirty = true;
                empty.insert(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        if let Err(error) = file.write_all(bytes) {
            // Best effort: a torn record is dropped when the spool is opened, too.
            let _unused = file.set_len(self.length);
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Handles of everything that is to be synced, so that the sync can run without holding the writer.
    pub(crate) fn take_unsynced(&mut self) -> io::Result<Vec<File>> {
        let mut files: Vec<File> = std::mem::take(&mut self.unsynced);
        if let Some(file) = &self.file {
            files.push(file.try_clone()?);
        }
        if std::mem::take(&mut self.dir_dirty) {
            files.push(File::open(&self.dir)?);
        }
        Ok(files)
    }
}

/// `marks`: next number and offsets as of the last rotation.
fn write_marks(dir: &Path, tail: &Tail) -> io::Result<()> {
    let mut body = Vec::with_capacity(32);
    for value in [tail.next_seq, tail.offsets[0], tail.offsets[1]] {
        body.extend_from_slice(&value.to_le_bytes());
    }
    let sum = check(&body);
    body.extend_from_slice(&sum.to_le_bytes());
    let fresh = dir.join("marks.new");
    fs::write(&fresh, &body)?;
    fs::rename(fresh, dir.join("marks"))
}

fn read_marks(dir: &Path) -> io::Result<Tail> {
    let body = match fs::read(dir.join("marks")) {
        Ok(body) => body,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tail::default()),
        Err(error) => return Err(error),
    };
    let read = || {
        let sum = u64::from_le_bytes(number(&body, 24)?);
        if body.get(..24).map(check) != Some(sum) {
            return None;
        }
        let next_seq = u64::from_le_bytes(number(&body, 0)?);
        let offsets = [u64::from_le_bytes(number(&body, 8)?), u64::from_le_bytes(number(&body, 16)?)];
        Some(Tail { next_seq, offsets, bytes: 0 })
    };
    read().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the spool's marks do not check"))
}

/// The reading end: gives records in order up to what the writer has published.
pub(crate) struct Reader {
    dir: PathBuf,
    file: Option<(u64, File)>,
    position: u64,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Reader { dir, file: None, position: 0, buffer: Vec::new() }
    }

    /// Calls `take` with each record numbered `from` and up to `before`, until it says stop. Returns the number behind
    /// the last one taken.
    pub(crate) fn read(
        &mut self,
        from: u64,
        before: u64,
        mut take: impl FnMut(&Record<'_>) -> bool,
    ) -> io::Result<u64> {
        let mut next = from;
        while next < before {
            if self.file.is_none() {
                let list = segments(&self.dir)?;
                let Some(first) = list.iter().rev().find(|first| **first <= next).or(list.first()).copied()
                else {
                    return Ok(next);
                };
                self.file = Some((first, File::open(segment_path(&self.dir, first))?));
                self.position = 0;
            }
            let Some((first, file)) = &mut self.file else { return Ok(next) };
            file.seek(SeekFrom::Start(self.position))?;
            self.buffer.clear();
            Read::by_ref(file).take(READ_BYTES).read_to_end(&mut self.buffer)?;
            let mut at = 0;
            let mut found = 0;
            while let Some((record, length)) = decode(self.buffer.get(at..).unwrap_or_default()) {
                if record.seq >= before {
                    self.position += at as u64;
                    return Ok(next);
                }
                found += 1;
                if record.seq >= next {
                    if !take(&record) {
                        self.position += at as u64;
                        return Ok(next);
                    }
                    next = record.seq + 1;
                }
                at += length;
            }
            self.position += at as u64;
            if found == 0 {
                // This segment is read to its end; the next one begins behind it.
                let first = *first;
                match segments(&self.dir)?.into_iter().find(|later| *later > first) {
                    Some(later) => {
                        self.file = Some((later, File::open(segment_path(&self.dir, later))?));
                        self.position = 0;
                    }
                    None => return Ok(next),
                }
            }
        }
        Ok(next)
    }

    /// Starts again at any number.
    pub(crate) fn rewind(&mut self) {
        self.file = None;
        self.position = 0;
        self.buffer = Vec::new();
    }

    /// Gives the read buffer back while there is nothing to read.
    pub(crate) fn idle(&mut self) {
        self.buffer = Vec::new();
    }
}

/// One read; holds several of the longest records.
const READ_BYTES: u64 = 256 * 1024;

/// Deletes segments whose lines are all numbered below `acknowledged`, except the last one, and returns the bytes freed.
pub(crate) fn free(dir: &Path, acknowledged: u64) -> io::Result<u64> {
    let list = segments(dir)?;
    let mut freed = 0;
    for pair in list.windows(2) {
        let [first, next] = pair else { continue };
        if *next > acknowledged {
            break;
        }
        let path = segment_path(dir, *first);
        freed += fs::metadata(&path)?.len();
        fs::remove_file(path)?;
    }
    Ok(freed)
}
