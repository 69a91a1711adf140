//! Names of the manager, the log service and the proxy, looked up once for a burst of connections.
//!
//! The system's resolver blocks a thread for each question. A burst of tasks opens dozens of connections to the same two
//! names, and dozens of threads cost memory that an idle agent then keeps.

use executor_api::Clock;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is used. Short, because a name that moves to another address must be followed soon.
const FRESH_FOR: Duration = Duration::from_secs(10);

type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// The last answer for one name. Whoever asks while it is being looked up waits for that answer.
type Answer = Arc<tokio::sync::Mutex<Option<(Instant, Vec<SocketAddr>)>>>;

/// Asks the system, and remembers for [`FRESH_FOR`]. The names are those of the settings, so their number is bounded.
pub(super) struct RememberingResolver {
    lookup: Arc<Lookup>,
    clock: Arc<dyn Clock>,
    answers: Mutex<HashMap<String, Answer>>,
}

impl RememberingResolver {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        // The port is set by the caller afterwards.
        let lookup = |name: String| -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        };
        Self::with(clock, Arc::new(lookup))
    }

    fn with(clock: Arc<dyn Clock>, lookup: Arc<Lookup>) -> Self {
        RememberingResolver { lookup, clock, answers: Mutex::default() }
    }
}

impl Resolve for RememberingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.entry(name.clone()).or_default().clone();
        let (lookup, clock) = (self.lookup.clone(), self.clock.clone());
        Box::pin(async move {
            let mut answer = answer.lock().await;
            let fresh = answer.as_ref().filter(|(at, _)| clock.mono().duration_since(*at) < FRESH_FOR);
            let addresses = match fresh {
                Some((_, addresses)) => addresses.clone(),
                None => {
                    // A failure is not kept: the next connection asks again.
                    let addresses = lookup(name).await?;
                    *answer = Some((clock.mono(), addresses.clone()));
                    addresses
                }
            };
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_api::SystemClock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Shifted(Arc<Mutex<Duration>>);

    impl Clock for Shifted {
        fn wall(&self) -> u64 {
            SystemClock.wall()
        }
        fn mono(&self) -> Instant {
            SystemClock.mono() + *self.0.lock().unwrap()
        }
        fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
            SystemClock.sleep_until(at)
        }
    }

    async fn ask(resolver: &RememberingResolver, name: &str) -> Result<Vec<SocketAddr>, String> {
        let asked = resolver.resolve(name.parse().unwrap()).await;
        asked.map(Iterator::collect).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_burst_asks_once_and_a_later_connection_asks_again() {
        let (count, shift) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Duration>>::default());
        let asked = count.clone();
        let lookup = move |name: String| -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            let nth = asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                // Others come while it is under way.
                tokio::task::yield_now().await;
                match name.as_str() {
                    "manager" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], u16::try_from(nth).unwrap()))]),
                    _ => Err(io::Error::other("no such name")),
                }
            })
        };
        let resolver = RememberingResolver::with(Arc::new(Shifted(shift.clone())), Arc::new(lookup));
        let all = futures::future::join_all((0..64).map(|_| ask(&resolver, "manager"))).await;
        assert!(all.iter().all(|one| one.as_ref().unwrap()[0].port() == 0), "{all:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1);
        *shift.lock().unwrap() = FRESH_FOR;
        assert_eq!(ask(&resolver, "manager").await.unwrap()[0].port(), 1);
        for _ in 0..2 {
            assert_eq!(ask(&resolver, "nowhere").await.unwrap_err(), "no such name");
        }
        assert_eq!(count.load(Ordering::SeqCst), 4, "a failure was kept");
    }

    #[tokio::test]
    async fn the_system_is_asked() {
        let resolver = RememberingResolver::new(Arc::new(SystemClock));
        assert!(ask(&resolver, "localhost").await.unwrap().iter().all(|address| address.ip().is_loopback()));
    }
}
