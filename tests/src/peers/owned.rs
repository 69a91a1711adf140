//! A server process of a test: started with its output in a file, ended by its own process id.

use crate::wait::until;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running server.
#[derive(Debug)]
pub struct Owned(Child);

impl Owned {
    /// Starts `command` and waits until 127.0.0.1:`port` accepts connections.
    ///
    /// # Panics
    /// When it does not start or does not listen within 30 s.
    pub async fn listening(mut command: Command, log: &Path, port: u16) -> Owned {
        let file = std::fs::File::create(log).expect("log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("log")).stderr(file);
        let owned = Owned(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
        until(&format!("{command:?} listens on {port}"), Duration::from_secs(30), || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
        })
        .await;
        owned
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // TERM first, so that a server with workers takes them along.
        let _gone_already = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        for _ in 0..100 {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}
