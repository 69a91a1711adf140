//! Ports for the servers that tests start.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// What keeps the ports that this process was given.
static KEPT: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A free TCP port of the loopback address, for a server that is about to start. Nobody else who asks this function, or
/// `tests/peers/kube/up`, gets the same one while this process lives.
///
/// # Panics
/// When the machine has none.
pub fn free_port() -> u16 {
    // Below the range from which the kernel takes ports of outgoing connections: one of those could take a port between
    // this look and the server's start. The process id keeps test programs that run side by side from asking for the same.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..100_000 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_240 + (std::process::id().wrapping_mul(331).wrapping_add(n)) % 22_000;
        let port = u16::try_from(port).unwrap_or_default();
        // A name, not a file: the kernel takes it back when this process ends, however it does.
        let name = SocketAddr::from_abstract_name(format!("delegate-test-port-{port}"));
        let Ok(kept) = name.and_then(|name| UnixListener::bind_addr(&name)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
            return port;
        }
    }
    panic!("no free port");
}
