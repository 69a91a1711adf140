//! The Java process with the real Kryo 4.0.3 (`tests/peers/kryo`) that reads messages, each of them told in one of its ways.
//!
//! This file stands alone: `dialect` takes it by `#[path]`, so that there is one starter.
#![allow(unreachable_pub, reason = "Where it is taken by its path, it is a module of a test.")]

use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The process; it ends with this.
#[derive(Debug)]
pub struct KryoProcess {
    child: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl KryoProcess {
    /// Starts it.
    ///
    /// # Panics
    /// When `scripts/install-test-peers` did not build it or Java is missing.
    pub fn start() -> KryoProcess {
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
        let to = BufWriter::with_capacity(1 << 16, child.stdin.take().expect("its input"));
        let from = BufReader::new(child.stdout.take().expect("its output"));
        KryoProcess { child, to, from }
    }

    /// Hands it a message; `op` says how it is to be told (`tests/peers/kryo`). Nothing is sure to arrive before
    /// [`KryoProcess::flush`].
    ///
    /// # Panics
    /// When the process is gone.
    pub fn send(&mut self, op: u8, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("a message").to_be_bytes();
        let head = [[op].as_slice(), &length].concat();
        self.to.write_all(&head).and_then(|()| self.to.write_all(message)).expect("it takes the message");
    }

    /// Asks for the replies to all that was sent.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn flush(&mut self) {
        self.to.write_all(b"f").and_then(|()| self.to.flush()).expect("it takes the messages");
    }

    /// The next bytes of its replies.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).expect("its reply");
        bytes
    }

    /// The reply to one message that is told in words; nothing: it has none to say.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn told(&mut self, op: u8, message: &[u8]) -> Vec<u8> {
        self.send(op, message);
        self.flush();
        let mut text = vec![0; u32::from_be_bytes(self.take()) as usize];
        self.from.read_exact(&mut text).expect("its reply");
        text
    }
}

impl Drop for KryoProcess {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
