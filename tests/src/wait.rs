//! Waiting for a condition with a limit, and free ports.

pub use executor_api::testing::until;

/// A TCP port of the loopback address that was free a moment ago.
///
/// # Panics
/// When the machine has none.
pub fn free_port() -> u16 {
    // Below the range from which the kernel takes ports of outgoing connections: one of those could take a port between
    // this look and the server's start. The process id keeps test programs that run side by side apart.
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 10_240 + (std::process::id().wrapping_mul(331).wrapping_add(n)) % 22_000;
        let port = u16::try_from(port).expect("below 65,536");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
