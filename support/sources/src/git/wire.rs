//! The pkt-line format and the messages of protocol 2 and 0. Pure. **Source**: gitprotocol-common(5), -http(5), -v2(5),
//! -pack(5).

use std::collections::BTreeMap;

/// The longest line the format can express.
const MAX_LINE: usize = 65_520;

/// One pkt-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Payload, with its newline if it had one.
    Data(Vec<u8>),
    /// `0000`.
    Flush,
    /// `0001`.
    Delimiter,
    /// `0002`.
    End,
}

/// A stream that is no sequence of pkt-lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Splits a byte stream into pkt-lines. Holds at most one line and one chunk.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    at: usize,
}

impl Lines {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line, `None` until more bytes come.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Malformed> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let Some(head) = rest.get(..4) else { return Ok(None) };
        let length = std::str::from_utf8(head)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or(Malformed("no length at the head of a line"))?;
        let line = match length {
            0 => Line::Flush,
            1 => Line::Delimiter,
            2 => Line::End,
            3 => return Err(Malformed("a line of length 3")),
            length if length > MAX_LINE => return Err(Malformed("a line that is too long")),
            length => match rest.get(4..length) {
                Some(payload) => Line::Data(payload.to_vec()),
                None => return Ok(None),
            },
        };
        self.at += length.max(4);
        Ok(Some(line))
    }

    /// Whether the stream may end here.
    pub(super) fn is_at_border(&self) -> bool {
        self.at == self.buffer.len()
    }
}

/// All lines of a whole answer.
pub(super) fn lines(body: &[u8]) -> Result<Vec<Line>, Malformed> {
    let mut split = Lines::default();
    split.push(body);
    let mut all = Vec::new();
    while let Some(line) = split.next()? {
        all.push(line);
    }
    if split.is_at_border() { Ok(all) } else { Err(Malformed("the last line is cut")) }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).trim_end_matches('\n').to_owned()
}

/// One reference of the remote side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) id: String,
    /// What an annotated tag points to.
    pub(super) peeled: Option<String>,
}

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Advertisement {
    /// Protocol 2: capabilities; references are asked for.
    V2 { capabilities: BTreeMap<String, String> },
    /// Protocol 0 or 1: everything at once.
    V0 { references: Vec<Reference>, capabilities: BTreeMap<String, String> },
}

impl Advertisement {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut lines = lines(body)?.into_iter().peekable();
        if let Some(Line::Data(first)) = lines.peek()
            && text(first) == "# service=git-upload-pack"
        {
            lines.next();
            if lines.next() != Some(Line::Flush) {
                return Err(Malformed("no end after the service line"));
            }
        }
        let payloads: Vec<Vec<u8>> = lines
            .map_while(|line| match line {
                Line::Data(payload) => Some(payload),
                _ => None,
            })
            .collect();
        if let Some(message) =
            payloads.first().map(|payload| text(payload)).filter(|text| text.starts_with("ERR "))
        {
            drop(message);
            return Err(Malformed("the server reports an error"));
        }
        match payloads.split_first() {
            Some((first, rest)) if text(first) == "version 2" => {
                let capabilities = rest.iter().map(|line| key_value(&text(line))).collect();
                Ok(Advertisement::V2 { capabilities })
            }
            Some((first, rest)) if text(first) == "version 1" => Self::v0(rest),
            Some(_) => Self::v0(&payloads),
            None => Ok(Advertisement::V0 { references: Vec::new(), capabilities: BTreeMap::new() }),
        }
    }

    fn v0(payloads: &[Vec<u8>]) -> Result<Self, Malformed> {
        let mut references: Vec<Reference> = Vec::new();
        let mut capabilities = BTreeMap::new();
        for (index, payload) in payloads.iter().enumerate() {
            let line = text(payload);
            let (line, caps) = line.split_once('\0').unwrap_or((&line, ""));
            if index == 0 {
                capabilities = caps.split(' ').filter(|cap| !cap.is_empty()).map(key_value).collect();
            }
            if line.starts_with("shallow ") {
                continue;
            }
            let (id, name) = line.split_once(' ').ok_or(Malformed("a line that is no reference"))?;
            if !is_id(id) {
                return Err(Malformed("a reference without an object id"));
            }
            match name.strip_suffix("^{}") {
                // `capabilities^{}` stands for an empty repository.
                Some("capabilities") => {}
                Some(tag) => {
                    if let Some(reference) =
                        references.iter_mut().rev().find(|reference| reference.name == tag)
                    {
                        reference.peeled = Some(id.to_owned());
                    }
                }
                None => references.push(Reference { name: name.to_owned(), id: id.to_owned(), peeled: None }),
            }
        }
        Ok(Advertisement::V0 { references, capabilities })
    }
}

fn key_value(line: &str) -> (String, String) {
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    (key.to_owned(), value.to_owned())
}

/// The references of an `ls-refs` answer.
pub(super) fn references(body: &[u8]) -> Result<Vec<Reference>, Malformed> {
    let mut found = Vec::new();
    for line in lines(body)? {
        let Line::Data(payload) = line else { continue };
        let line = text(&payload);
        let mut words = line.split(' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err(Malformed("a line that is no reference"));
        };
        // `unborn` is the HEAD of an empty repository.
        if !is_id(id) {
            continue;
        }
        let peeled = words.find_map(|word| word.strip_prefix("peeled:")).map(str::to_owned);
        found.push(Reference { name: name.to_owned(), id: id.to_owned(), peeled });
    }
    Ok(found)
}

/// Whether this is a full SHA-1 object id in hex.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes pkt-lines.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// One line; a newline is added.
    pub(super) fn line(mut self, text: &str) -> Self {
        self.0.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
        self
    }

    pub(super) fn lines(self, texts: impl IntoIterator<Item = String>) -> Self {
        texts.into_iter().fold(self, |message, text| message.line(&text))
    }

    pub(super) fn delimiter(mut self) -> Self {
        self.0.extend_from_slice(b"0001");
        self
    }

    pub(super) fn flush(mut self) -> Self {
        self.0.extend_from_slice(b"0000");
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// What one line of a fetch answer brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes of the pack.
    Pack(Vec<u8>),
    /// The server gave up.
    Refused(String),
    /// Nothing of interest.
    Other,
}

/// Picks the pack out of the lines of a fetch answer, protocol 2 or 0.
#[derive(Debug, Default)]
pub(super) struct FetchAnswer {
    in_pack: bool,
}

impl FetchAnswer {
    pub(super) fn next(&mut self, line: Line) -> Part {
        let Line::Data(payload) = line else { return Part::Other };
        if !self.in_pack {
            let line = text(&payload);
            if let Some(problem) = line.strip_prefix("ERR ") {
                return Part::Refused(problem.to_owned());
            }
            // Protocol 2 names the section; in protocol 0 the pack follows NAK.
            if line == "packfile" || line == "NAK" || line.starts_with("ACK ") {
                self.in_pack = true;
            }
            return Part::Other;
        }
        match payload.split_first() {
            Some((1, pack)) => Part::Pack(pack.to_vec()),
            Some((3, problem)) => Part::Refused(text(problem)),
            Some((b'E', _)) if payload.starts_with(b"ERR ") => {
                Part::Refused(text(payload.get(4..).unwrap_or_default()))
            }
            // Band 2 is progress for people.
            _ => Part::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let body = Message::default().line("command=ls-refs").delimiter().line("peel").flush().into_bytes();
        assert_eq!(body, b"0014command=ls-refs\n00010009peel\n0000");
        let mut split = Lines::default();
        let mut all = Vec::new();
        for byte in &body {
            split.push(&[*byte]);
            while let Some(line) = split.next().unwrap() {
                all.push(line);
            }
        }
        assert_eq!(all, lines(&body).unwrap());
        assert_eq!(all.len(), 4);
        assert!(lines(b"0009pe").is_err());
        assert!(lines(b"0003").is_err());
        assert!(lines(b"zzzz").is_err());
        assert!(lines(b"fff5").is_err());
        assert!(lines(b"+001").is_err());
    }

    #[test]
    fn both_advertisements_are_understood() {
        let head = || Message::default().line("# service=git-upload-pack").flush();
        let v2 =
            head().line("version 2").line("ls-refs=unborn").line("fetch=shallow filter").flush().into_bytes();
        let Advertisement::V2 { capabilities } = Advertisement::parse(&v2).unwrap() else { panic!() };
        assert_eq!(capabilities["fetch"], "shallow filter");
        let v0 = head()
            .line(&format!("{ID} HEAD\0shallow side-band-64k agent=git/2"))
            .line(&format!("{ID} refs/tags/v1"))
            .line(&format!("{} refs/tags/v1^{{}}", ID.replace('0', "f")))
            .flush()
            .into_bytes();
        let Advertisement::V0 { references, capabilities } = Advertisement::parse(&v0).unwrap() else {
            panic!()
        };
        assert!(capabilities.contains_key("shallow"));
        assert_eq!(references.len(), 2);
        assert_eq!(references[1].peeled.as_deref(), Some(ID.replace('0', "f").as_str()));
        let empty =
            head().line(&format!("{} capabilities^{{}}\0shallow", "0".repeat(40))).flush().into_bytes();
        assert!(
            matches!(Advertisement::parse(&empty).unwrap(), Advertisement::V0 { references, .. } if references.is_empty())
        );
        assert!(Advertisement::parse(b"<html>").is_err());
    }

    #[test]
    fn the_pack_is_found_in_either_protocol() {
        let data = |bytes: &[u8]| Line::Data(bytes.to_vec());
        for head in [
            vec![data(b"shallow-info\n"), Line::Delimiter, data(b"packfile\n")],
            vec![Line::Flush, data(b"NAK\n")],
        ] {
            let mut answer = FetchAnswer::default();
            for line in head {
                assert_eq!(answer.next(line), Part::Other);
            }
            assert_eq!(answer.next(data(b"\x02progress")), Part::Other);
            assert_eq!(answer.next(data(b"\x01PACK")), Part::Pack(b"PACK".to_vec()));
            assert_eq!(answer.next(data(b"\x03boom\n")), Part::Refused("boom".into()));
        }
        assert_eq!(
            FetchAnswer::default().next(data(b"ERR not our ref\n")),
            Part::Refused("not our ref".into())
        );
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            drop(Advertisement::parse(&body));
            drop(references(&body));
        }
    }
}
