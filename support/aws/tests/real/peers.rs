//! Servers of the tests: moto (an emulator of AWS), haproxy, and small ones of our own.

use executor_api::testing::{free_port, until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A generous bound for starting a server on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A server process: started with its output in a file, ended by its own process id.
pub(crate) struct Owned(Child);

impl Owned {
    pub(crate) async fn listening(mut command: Command, log: &Path, port: u16) -> Owned {
        let file = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let owned = Owned(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        until(&format!("{command:?} listens on {port}"), LIMIT, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        owned
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// moto: an emulator whose answers have the shapes of AWS'.
pub(crate) struct Moto {
    pub(crate) port: u16,
    _process: Owned,
}

impl Moto {
    pub(crate) async fn start(dir: &Path) -> Moto {
        let port = free_port();
        let mut command = Command::new(program());
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        Moto { port, _process: Owned::listening(command, &dir.join(format!("moto-{port}.log")), port).await }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Where `scripts/install-test-peers` puts it, unless `MOTO_SERVER` says otherwise.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("MOTO_SERVER") {
        return named.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    cache.join("delegate/tools/aws/bin/moto_server")
}
