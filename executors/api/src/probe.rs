//! A window on the remote calls of an executor, for the conformance kit.

use futures::future::BoxFuture;

/// Told of every mutating remote call by the layer that sends it. The conformance kit uses it to prove that each
/// mutation was announced by a checkpoint (DESIGN D4), and to let the process "die" right after one.
///
/// An executor takes one in its constructor and uses [`NoProbe`] outside tests. `call` is the text that stands in
/// [`crate::Checkpoint::calls`]. A call that is sent again because the connection broke, and that is safe to send
/// again, is reported once.
pub trait TransportProbe: Send + Sync {
    /// The call is about to be sent.
    ///
    /// **Cancel**: when this future is dropped, the call must not be sent.
    fn before<'a>(&'a self, task_id: &'a str, call: &'a str) -> BoxFuture<'a, ()>;

    /// The call has been answered, successfully or not.
    fn after<'a>(&'a self, task_id: &'a str, call: &'a str) -> BoxFuture<'a, ()>;
}

/// Looks at nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl TransportProbe for NoProbe {
    fn before<'a>(&'a self, _task_id: &'a str, _call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
    fn after<'a>(&'a self, _task_id: &'a str, _call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}
