//! Calls about log streams that share a request.
//!
//! While one request is under way, what comes up meanwhile gathers, and goes out together as the next one. So a single
//! step waits for nothing, and many steps that run at once cost few requests.

use super::logs::{LogClient, LogFault};
use proto::limits::MAX_STREAM_CALLS;
use proto::logs::{StreamCall, StreamReply};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Requests under way at once. A second one, so that a slow one does not hold back everything.
const AT_ONCE: usize = 2;
/// Bytes of lines in one request.
const MAX_BYTES: usize = 1 << 20;

type Answer = Result<Option<u64>, LogFault>;

/// Calls that wait for the next request. The queue is bounded by its callers: a unit has one call under way.
pub(super) struct Batch {
    waiting: Mutex<VecDeque<(StreamCall, oneshot::Sender<Answer>)>>,
    turns: Semaphore,
    off: AtomicBool,
}

impl Default for Batch {
    fn default() -> Self {
        Batch { waiting: Mutex::default(), turns: Semaphore::new(AT_ONCE), off: AtomicBool::new(false) }
    }
}

impl Batch {
    /// Whether the service still takes such requests.
    pub(super) fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// Carries the call out, in a request with others.
    ///
    /// **Errors**: as the single call; `Away` for all calls of a request that failed as a whole. **Cancel**: it is unknown
    /// whether it was carried out; other calls of the same request answer `Away`. **Repeat**: safe.
    pub(super) async fn call(&self, client: &LogClient, call: StreamCall) -> Answer {
        let (sender, mut answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((call, sender));
        let broken = || LogFault::Away { what: "the request was given up".to_owned(), retry_after: None };
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or_else(|_| Err(broken())),
                turn = self.turns.acquire() => {
                    // Whoever is ready to call does so first.
                    tokio::task::yield_now().await;
                    let calls = self.take();
                    if calls.is_empty() {
                        // Another request has this call.
                        drop(turn);
                        return answer.await.unwrap_or_else(|_| Err(broken()));
                    }
                    self.send(client, calls).await;
                }
            }
        }
    }

    fn take(&self) -> Vec<(StreamCall, oneshot::Sender<Answer>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut calls, mut bytes) = (Vec::new(), 0);
        while calls.len() < MAX_STREAM_CALLS && bytes < MAX_BYTES {
            let Some((call, sender)) = waiting.pop_front() else { break };
            // Nobody waits for a call that was given up, and it may be repeated: it is not made.
            if !sender.is_closed() {
                bytes += call.lines.as_ref().map_or(0, |lines| lines.get().len());
                calls.push((call, sender));
            }
        }
        calls
    }

    async fn send(&self, client: &LogClient, calls: Vec<(StreamCall, oneshot::Sender<Answer>)>) {
        let (calls, senders): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let unreadable =
            || LogFault::Away { what: "an answer that cannot be read".to_owned(), retry_after: None };
        let sent = match serde_json::to_vec(&calls) {
            Ok(body) => client.send_batch(body).await,
            Err(_) => Err(unreadable()),
        };
        let replies = sent.and_then(|body| {
            let replies = serde_json::from_slice::<Vec<StreamReply>>(&body).map_err(|_| unreadable())?;
            if replies.len() == senders.len() { Ok(replies) } else { Err(unreadable()) }
        });
        match replies {
            // Its receiver may be gone, and then nobody misses the answer.
            Ok(replies) => {
                for (sender, reply) in senders.into_iter().zip(replies) {
                    let _unused = sender.send(judged(reply));
                }
            }
            Err(fault) => {
                let refused = matches!(fault, LogFault::NotFound | LogFault::Refused { status: 404 | 405 });
                let fault = match &fault {
                    // 403: no call in it is allowed.
                    LogFault::Away { .. } | LogFault::Refused { status: 403 } => fault,
                    // The refusal is of the request, not of the calls in it.
                    other => {
                        LogFault::Away { what: format!("many calls in one: {other}"), retry_after: None }
                    }
                };
                if refused {
                    // The manager was replaced by one that does not know it.
                    self.off.store(true, Ordering::Relaxed);
                }
                for sender in senders {
                    let _unused = sender.send(Err(fault.clone()));
                }
            }
        }
    }
}

fn judged(reply: StreamReply) -> Answer {
    match (reply.status, reply.next) {
        (200, next) => Ok(next),
        (409, Some(next)) => Err(LogFault::Gap { next }),
        (404, _) => Err(LogFault::NotFound),
        (status @ (408 | 409 | 429 | 500..), _) => {
            Err(LogFault::Away { what: format!("status {status}"), retry_after: None })
        }
        (status, _) => Err(LogFault::Refused { status }),
    }
}
