//! A relay that keeps everything that passes through it, to look for what must never be on the wire.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A recording relay on a loopback port.
#[derive(Debug)]
pub struct Recorder {
    /// Where to connect instead of the server.
    pub address: SocketAddr,
    bytes: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Starts a relay to `server`.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(server: SocketAddr) -> Recorder {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pump(from_client, to_server, Arc::clone(&kept)));
                tokio::spawn(pump(from_server, to_client, Arc::clone(&kept)));
            }
        });
        Recorder { address, bytes, task }
    }

    /// Everything that passed so far, both ways.
    ///
    /// # Panics
    /// When a pump panicked.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("not poisoned").clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    kept: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut buffer).await {
        let Some(part) = buffer.get(..n).filter(|p| !p.is_empty()) else { break };
        kept.lock().expect("not poisoned").extend_from_slice(part);
        if to.write_all(part).await.is_err() {
            break;
        }
    }
    let _ended = to.shutdown().await;
}
