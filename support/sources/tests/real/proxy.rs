//! A TCP proxy in front of a real peer that cuts the first connections after so many bytes of answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Cuts connection number `i` after `cuts[i]` bytes of answer; later ones pass whole.
    pub(crate) async fn start(to: u16, cuts: Vec<u64>) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let index = count.fetch_add(1, Ordering::SeqCst);
                open.spawn(pass(client, to, cuts.get(index).copied()));
            }
        });
        Proxy { port, connections, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, to: u16, cut: Option<u64>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let up = async {
        let _ended = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _shut = to_server.shutdown().await;
    };
    let down = async {
        let mut answer = from_server.take(cut.unwrap_or(u64::MAX));
        let _ended = tokio::io::copy(&mut answer, &mut to_client).await;
    };
    // A cut ends both directions at once.
    tokio::select! { () = up => {}, () = down => {} }
}
