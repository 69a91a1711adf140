//! Calls that share a request.
//!
//! While one request is under way, what comes up meanwhile gathers, and goes out together as the next one. So a single
//! step waits for nothing, and many steps that run at once cost few requests.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use proto::limits::MAX_SHARED_CALL_BYTES;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Requests under way at once. A second one, so that a slow one does not hold back everything.
const AT_ONCE: usize = 2;

/// A service that takes many calls in one request. Cheap to clone.
pub(super) trait Together: Clone + Send + Sync + 'static {
    type Call: Send + 'static;
    type Answer: Send + 'static;
    type Fault: Clone + Send + Sync + 'static;
    /// Calls in one request, and bytes of their bodies at which it is full.
    const MOST: (usize, usize);

    /// Bytes of the body of a call.
    fn weight(call: &Self::Call) -> usize;

    /// What a call answers that the reply says nothing of.
    fn unanswered() -> Self::Fault;

    /// Carries the calls out in one request; the answers are in the order of the calls.
    ///
    /// **Errors**: the request failed as a whole.
    fn send(
        self,
        calls: Vec<Self::Call>,
    ) -> impl Future<Output = Result<Vec<Outcome<Self>>, Self::Fault>> + Send;
}

/// The body of a call as it travels with others. `None`: it is too large for that, or no JSON.
pub(super) fn body_of(body: &Bytes) -> Option<Box<RawValue>> {
    if body.len() > MAX_SHARED_CALL_BYTES {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// What became of one call.
pub(super) type Outcome<T> = Result<<T as Together>::Answer, <T as Together>::Fault>;

/// A request under way. It belongs to all whose calls it carries: as long as one of them waits, it goes on.
type Flight<T> = Shared<BoxFuture<'static, Arc<Landed<T>>>>;

/// Answers by seat, each for one caller.
struct Landed<T: Together>(Result<Vec<Seat<T>>, T::Fault>);

/// Taken by the one whose it is.
type Seat<T> = Mutex<Option<Outcome<T>>>;

impl<T: Together> Landed<T> {
    fn seat(&self, seat: usize) -> Outcome<T> {
        let answers = self.0.as_ref().map_err(Clone::clone)?;
        let answer =
            answers.get(seat).and_then(|one| one.lock().unwrap_or_else(PoisonError::into_inner).take());
        answer.unwrap_or_else(|| Err(T::unanswered()))
    }
}

/// A call, and where its caller learns by which request it goes.
type Waiting<T> = (<T as Together>::Call, oneshot::Sender<(Flight<T>, usize)>);

/// Calls that wait for the next request. The queue is bounded by its callers: each has one call under way.
pub(super) struct Batch<T: Together> {
    waiting: Mutex<VecDeque<Waiting<T>>>,
    turns: Arc<Semaphore>,
    on: AtomicBool,
}

impl<T: Together> Batch<T> {
    /// `on`: whether the service takes such requests, as far as is known.
    pub(super) fn new(on: bool) -> Self {
        Batch { waiting: Mutex::default(), turns: Arc::new(Semaphore::new(AT_ONCE)), on: AtomicBool::new(on) }
    }

    /// Whether the service takes such requests.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// What became known of the service.
    pub(super) fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Carries the call out, in a request with others.
    ///
    /// **Errors**: as the single call; that of the request for all calls of one that failed as a whole. **Cancel**: it is
    /// unknown whether it was carried out; the other calls of its request go on. **Repeat**: safe.
    pub(super) async fn call(&self, service: &T, call: T::Call) -> Outcome<T> {
        let (sender, mut boarded) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((call, sender));
        loop {
            tokio::select! {
                biased;
                flight = &mut boarded => {
                    let Ok((flight, seat)) = flight else { return Err(T::unanswered()) };
                    return flight.await.seat(seat);
                }
                turn = self.turns.clone().acquire_owned() => {
                    // Whoever is ready to call does so first.
                    tokio::task::yield_now().await;
                    // The semaphore is never closed.
                    let Ok(turn) = turn else { return Err(T::unanswered()) };
                    self.depart(service.clone(), turn);
                }
            }
        }
    }

    /// Begins a request with what waits, if something does.
    fn depart(&self, service: T, turn: OwnedSemaphorePermit) {
        let (calls, callers): (Vec<_>, Vec<_>) = self.take().into_iter().unzip();
        if calls.is_empty() {
            return;
        }
        let request = async move {
            let count = calls.len();
            let answers = match service.send(calls).await {
                Ok(answers) if answers.len() != count => Err(T::unanswered()),
                other => other,
            };
            drop(turn);
            Arc::new(Landed(answers.map(|all| all.into_iter().map(|one| Mutex::new(Some(one))).collect())))
        };
        let flight: Flight<T> = request.boxed().shared();
        for (seat, caller) in callers.into_iter().enumerate() {
            // A caller that went away meanwhile misses nothing.
            let _unused = caller.send((flight.clone(), seat));
        }
    }

    fn take(&self) -> Vec<Waiting<T>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (most, full) = T::MOST;
        let (mut calls, mut bytes) = (Vec::new(), 0);
        while calls.len() < most && bytes < full {
            let Some((call, caller)) = waiting.pop_front() else { break };
            // Nobody waits for a call that was given up, and it may be repeated: it is not made.
            if !caller.is_closed() {
                bytes += T::weight(&call);
                calls.push((call, caller));
            }
        }
        calls
    }
}
