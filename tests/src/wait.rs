//! Waiting for a condition with a limit; the only place where a test lets time pass.

use std::future::Future;
use std::time::{Duration, Instant};

/// Asks `probe` until it yields a value, at most for `limit`.
///
/// # Panics
/// When the limit is over; `what` names the condition.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A TCP port of the loopback address that was free a moment ago.
///
/// # Panics
/// When the machine has none.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
