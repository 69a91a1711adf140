//! The bytes of Kryo 4.0.3 in its v2 profile: references off, enums by name. **Source**: facts `kryo-dialect.md` §2 and §3,
//! each rule held by the vectors in `tests/peers/kryo`.
//!
//! A field of a record is a stream of *chunks*. Kryo gathers a chunk in a buffer of [`CHUNK`] bytes for each level of
//! nesting and passes it on when it is full, and also whenever something inside it is passed on. A reader takes any split;
//! ours is the same as Kryo's, so that whole messages can be compared byte for byte.

use super::class::Class;

/// Size of the buffer in which Kryo gathers a chunk.
const CHUNK: usize = 1024;

/// The longest text that is written raw, in characters.
const RAW: usize = 63;

/// Gathers one message.
#[derive(Debug)]
pub struct Writer {
    /// The message, then one buffer for each level of nesting.
    levels: Vec<Vec<u8>>,
    /// The level that is written to now; 0 is the message itself and has no bound.
    depth: usize,
    /// Ids of the classes whose header stands in the message already.
    known: Vec<u32>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { levels: vec![Vec::with_capacity(CHUNK)], depth: 0, known: Vec::with_capacity(16) }
    }
}

impl Writer {
    /// The message.
    pub fn finish(mut self) -> Vec<u8> {
        self.levels.swap_remove(0)
    }

    /// Begins another message in the same buffers and hands over the one before.
    pub fn take(&mut self) -> Vec<u8> {
        self.depth = 0;
        self.known.clear();
        self.levels.first_mut().map(std::mem::take).unwrap_or_default()
    }

    fn free(&self, level: usize) -> usize {
        match level {
            0 => usize::MAX,
            _ => CHUNK - self.levels.get(level).map_or(0, Vec::len),
        }
    }

    fn push(&mut self, level: usize, bytes: &[u8]) {
        if let Some(buffer) = self.levels.get_mut(level) {
            buffer.extend_from_slice(bytes);
        }
    }

    /// Makes room for `count` bytes on a level, as Kryo does it: all of it or a new chunk.
    fn require(&mut self, level: usize, count: usize) {
        if self.free(level) < count {
            self.flush_level(level);
        }
    }

    /// Bytes one after the other, each where there is room: how chunks and arrays pass through a buffer.
    fn pour(&mut self, level: usize, mut bytes: &[u8]) {
        let mut count = self.free(level).min(bytes.len());
        loop {
            let (now, later) = bytes.split_at(count);
            self.push(level, now);
            if later.is_empty() {
                return;
            }
            bytes = later;
            count = bytes.len().min(CHUNK);
            self.require(level, count);
        }
    }

    fn flush_level(&mut self, level: usize) {
        if level == 0 {
            return;
        }
        let Some(mut chunk) = self.levels.get_mut(level).map(std::mem::take) else { return };
        if !chunk.is_empty() {
            let mut size = chunk.len();
            while size > 0x7f {
                self.put(level - 1, size as u8 | 0x80);
                size >>= 7;
            }
            self.put(level - 1, size as u8);
            self.pour(level - 1, &chunk);
        }
        chunk.clear();
        if let Some(buffer) = self.levels.get_mut(level) {
            *buffer = chunk;
        }
        self.flush_level(level - 1);
    }

    fn put(&mut self, level: usize, byte: u8) {
        self.require(level, 1);
        self.push(level, &[byte]);
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.put(self.depth, byte);
    }

    /// Bytes that belong together in Kryo's own buffer: a number.
    fn whole(&mut self, bytes: &[u8]) {
        self.require(self.depth, bytes.len());
        self.push(self.depth, bytes);
    }

    /// Big-endian numbers of fixed size, as `byte`, `short`, `float` and their like are written.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.whole(bytes);
    }

    /// Bytes of an array, without its length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.pour(self.depth, bytes);
    }

    /// Unsigned number of variable length, at most five bytes.
    pub fn varint(&mut self, value: u32) {
        let (mut buffer, mut count, mut rest) = ([0u8; 5], 0, value);
        for slot in &mut buffer {
            count += 1;
            *slot = rest as u8 & 0x7f;
            rest >>= 7;
            if rest == 0 {
                break;
            }
            *slot |= 0x80;
        }
        self.whole(buffer.get(..count).unwrap_or_default());
    }

    /// Unsigned number of variable length, at most nine bytes: the ninth is a full one.
    pub fn varlong(&mut self, value: u64) {
        let (mut buffer, mut count, mut rest) = ([0u8; 9], 0, value);
        for slot in &mut buffer {
            count += 1;
            if count == 9 {
                *slot = rest as u8;
                break;
            }
            *slot = rest as u8 & 0x7f;
            rest >>= 7;
            if rest == 0 {
                break;
            }
            *slot |= 0x80;
        }
        self.whole(buffer.get(..count).unwrap_or_default());
    }

    /// `int`, also boxed.
    pub fn int(&mut self, value: i32) {
        self.varint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// `long`, also boxed.
    pub fn long(&mut self, value: i64) {
        self.varlong(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Number of elements, bytes or fields. What is written is bounded long before Java's `int` ends.
    pub fn size(&mut self, count: usize) {
        self.varint(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// `null` of a text; every other `null` is the byte 0.
    pub fn null_text(&mut self) {
        self.byte(0x80);
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        let ascii = text.is_ascii();
        let count = if ascii { text.len() } else { text.encode_utf16().count() };
        match count {
            0 => return self.byte(0x81),
            2..=RAW if ascii => {
                self.pour(self.depth, text.as_bytes());
                if let Some(last) = self.levels.get_mut(self.depth).and_then(|buffer| buffer.last_mut()) {
                    *last |= 0x80;
                }
                return;
            }
            _ => self.length_head(count + 1),
        }
        if ascii {
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                if self.free(self.depth) == 0 {
                    self.flush_level(self.depth);
                }
                let (now, later) = rest.split_at(self.free(self.depth).min(rest.len()));
                self.push(self.depth, now);
                rest = later;
            }
            return;
        }
        for unit in text.encode_utf16() {
            if self.free(self.depth) == 0 {
                self.flush_level(self.depth);
            }
            match unit {
                0..=0x7f => self.push(self.depth, &[unit as u8]),
                0x80..=0x7ff => {
                    self.push(self.depth, &[0xc0 | (unit >> 6) as u8]);
                    self.whole(&[0x80 | (unit & 0x3f) as u8]);
                }
                _ => {
                    self.push(self.depth, &[0xe0 | (unit >> 12) as u8]);
                    self.whole(&[0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8]);
                }
            }
        }
    }

    fn length_head(&mut self, count: usize) {
        let (mut buffer, mut used, mut rest) = ([0u8; 6], 0, count);
        for (index, slot) in buffer.iter_mut().enumerate() {
            used += 1;
            let (bits, more, mark) = if index == 0 { (6, 0x40, 0x80) } else { (7, 0x80, 0) };
            *slot = (rest & ((1 << bits) - 1)) as u8 | mark;
            rest >>= bits;
            if rest == 0 {
                break;
            }
            *slot |= more;
        }
        self.whole(buffer.get(..used).unwrap_or_default());
    }

    /// The id of a class, before an object whose class its place does not say.
    pub fn class(&mut self, id: u32) {
        self.varint(id + 2);
    }

    /// Passes everything gathered on: a Protocol Buffers message ends so.
    pub fn flush(&mut self) {
        self.flush_level(self.depth);
    }

    /// Begins an object: names its fields if it is the first of its class in the message, and opens the place for their
    /// chunks.
    pub fn open(&mut self, class: &Class) {
        if !self.known.contains(&class.id) {
            self.known.push(class.id);
            self.size(class.fields.len());
            for field in class.fields {
                self.text(field.name);
            }
        }
        self.depth += 1;
        if self.levels.len() <= self.depth {
            self.levels.push(Vec::with_capacity(CHUNK));
        }
    }

    /// Ends a field.
    pub fn end_field(&mut self) {
        self.flush_level(self.depth);
        self.put(self.depth - 1, 0);
    }

    /// Ends an object.
    pub fn close(&mut self) {
        self.depth -= 1;
    }
}
