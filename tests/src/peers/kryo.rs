//! The real Kryo 4.0.3, set up as a Harness manager sets it up, as a reader of answers.

use super::kryo_process::KryoProcess;
use serde_json::{Map, Value, json};

/// One Java process that reads messages.
#[derive(Debug)]
pub struct Kryo(KryoProcess);

impl Kryo {
    /// Starts it.
    ///
    /// # Panics
    /// As [`KryoProcess::start`] does.
    pub fn start() -> Kryo {
        Kryo(KryoProcess::start())
    }

    /// What it reads in a message, as [`plain`] tells it; `None`: it does not read it to its last byte.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn read(&mut self, message: &[u8]) -> Option<Value> {
        let text = self.0.told(b'j', message);
        if text.is_empty() {
            return None;
        }
        Some(plain(serde_json::from_slice(&text).expect("JSON")))
    }
}

/// The peer's tree as a test compares it: `@` is the class, fields without the class before them, lists, sets of enums and maps as such, bytes in
/// hexadecimal, progress of units read.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(plain).collect(),
        Value::Object(mut map) => {
            let class = map.get("@").and_then(Value::as_str).unwrap_or_default().to_owned();
            let inner = map.remove("v");
            match (class.as_str(), inner) {
                ("HashMap" | "LinkedHashMap", Some(Value::Array(pairs))) => {
                    let pair = |pair: Value| {
                        (pair[0].as_str().unwrap_or_default().to_owned(), plain(pair[1].clone()))
                    };
                    Value::Object(pairs.into_iter().map(pair).collect())
                }
                (_, Some(inner)) => plain(inner),
                ("UnitProgress", None) => {
                    let message = map
                        .iter()
                        .find(|(key, _)| key.ends_with("message"))
                        .map(|(_, value)| value["v"].clone());
                    unit(message.as_ref().and_then(Value::as_str).unwrap_or_default())
                }
                (_, None) => {
                    let field = |(key, value): (String, Value)| {
                        (key.rsplit('.').next().unwrap_or_default().to_owned(), plain(value))
                    };
                    Value::Object(map.into_iter().map(field).collect::<Map<_, _>>())
                }
            }
        }
        other => other,
    }
}

/// A `UnitProgress` of Protocol Buffers: name, status, start, end.
fn unit(hex: &str) -> Value {
    const STATUS: [&str; 7] = ["UNKNOWN", "SUCCESS", "FAILURE", "RUNNING", "QUEUED", "SKIPPED", "EXPIRED"];
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")).collect();
    let mut told = json!({"unitName": "", "status": "UNKNOWN", "startTime": 0, "endTime": 0});
    for (number, field) in fields(&bytes) {
        match (number, field) {
            (1, Field::Bytes(name)) => told["unitName"] = json!(String::from_utf8_lossy(name)),
            (2, Field::Number(status)) => {
                told["status"] = json!(STATUS[usize::try_from(status).expect("a status")])
            }
            (3, Field::Number(time)) => told["startTime"] = json!(time),
            (4, Field::Number(time)) => told["endTime"] = json!(time),
            other => panic!("a field that no UnitProgress has: {other:?}"),
        }
    }
    told
}

/// One field of a message in Protocol Buffers.
#[derive(Debug)]
pub enum Field<'a> {
    /// A number.
    Number(u64),
    /// Bytes, a text, or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message in Protocol Buffers.
///
/// # Panics
/// When it is none.
pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn number(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = number(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(number(&mut bytes)),
            2 => {
                let length = usize::try_from(number(&mut bytes)).expect("a length");
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(content)
            }
            other => panic!("a kind of field that nobody sends here: {other}"),
        };
        all.push((tag >> 3, field));
    }
    all
}
