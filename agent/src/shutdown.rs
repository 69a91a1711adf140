//! Going down: in order first, at once when asked again.

use std::sync::Arc;
use tokio::sync::watch;

/// How urgent it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Not asked for.
    #[default]
    No,
    /// Take nothing more, finish what runs, within the drain limit.
    Drain,
    /// Leave at once; what runs is recovered by the next start.
    Now,
}

/// Asks a running agent to go down. Cheap to clone; the command line calls [`ShutdownHandle::request`] on each signal.
#[derive(Clone, Debug)]
pub struct ShutdownHandle(Arc<watch::Sender<Shutdown>>);

impl Default for ShutdownHandle {
    fn default() -> Self {
        ShutdownHandle(Arc::new(watch::Sender::new(Shutdown::No)))
    }
}

impl ShutdownHandle {
    /// A handle that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// One signal: the first drains, the second leaves now.
    pub fn request(&self) {
        self.0.send_modify(|state| {
            *state = match state {
                Shutdown::No => Shutdown::Drain,
                Shutdown::Drain | Shutdown::Now => Shutdown::Now,
            }
        });
    }

    /// Drains. **Repeat**: safe.
    pub fn drain(&self) {
        self.0.send_if_modified(|state| {
            *state == Shutdown::No && std::mem::replace(state, Shutdown::Drain) == Shutdown::No
        });
    }

    /// Leaves at once. **Repeat**: safe.
    pub fn now(&self) {
        self.0.send_replace(Shutdown::Now);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Shutdown> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_request_is_urgent_and_a_drain_never_softens_it() {
        let handle = ShutdownHandle::new();
        let state = handle.watch();
        handle.request();
        assert_eq!(*state.borrow(), Shutdown::Drain);
        handle.request();
        handle.drain();
        assert_eq!(*state.borrow(), Shutdown::Now);
    }
}
