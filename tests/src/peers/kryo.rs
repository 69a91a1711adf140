//! The real Kryo 4.0.3, set up as a Harness manager sets it up, as a reader of answers.

use serde_json::{Map, Value, json};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// One Java process that reads messages.
#[derive(Debug)]
pub struct Kryo {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Kryo {
    /// Starts it.
    ///
    /// # Panics
    /// When `scripts/install-test-peers` did not build it or Java is missing.
    pub fn start() -> Kryo {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
        let built = cache.unwrap_or_else(home).join("delegate/tools/kryo");
        let classpath = std::fs::read_to_string(built.join("classpath"));
        let classpath =
            classpath.unwrap_or_else(|e| panic!("{}: {e}; run scripts/install-test-peers", built.display()));
        let mut child = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}:{}", built.join("classes").display(), classpath.trim()))
            .args(["kryocheck.Main", "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("java starts");
        let (to, from) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        Kryo { child, to, from }
    }

    /// What it reads in a message, as [`plain`] tells it; `None`: it does not read it to its last byte.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn read(&mut self, message: &[u8]) -> Option<Value> {
        let length = u32::try_from(message.len()).expect("a message").to_be_bytes();
        let whole = [b"j".as_slice(), &length, message, b"f"].concat();
        self.to.write_all(&whole).and_then(|()| self.to.flush()).expect("it takes the message");
        let mut length = [0; 4];
        self.from.read_exact(&mut length).expect("its answer");
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        self.from.read_exact(&mut text).expect("its answer");
        if text.is_empty() {
            return None;
        }
        Some(plain(serde_json::from_slice(&text).expect("JSON")))
    }
}

impl Drop for Kryo {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
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
