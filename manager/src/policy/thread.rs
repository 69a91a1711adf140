//! Where evaluations run: on threads of their own, a few at a time.
//!
//! An evaluation ends by itself within its limits; it cannot be ended from outside. A bounded number of places keeps one
//! that does not from costing more than its place, and its caller hears of it all the same.

use super::{Asked, Dialect, Limits, SyntaxFault, Verdict, check, judge};
use serde_json::Value as Json;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Evaluations at once. Each takes a core, and the manager has other work.
const AT_ONCE: usize = 2;
/// Rules ask each other on the stack. Only what is used of it is taken from the machine.
const STACK_BYTES: usize = 256 * 1024 * 1024;
/// How much longer than its limit an evaluation may take to notice that it is over.
const GRACE: Duration = Duration::from_secs(3);

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// The input is larger than [`Limits::input_bytes`].
    #[error("the input of the policies is too large: at most {limit} bytes are taken")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// It did not end in time.
    #[error("the evaluation of the policies did not end within {} s", limit.as_secs_f32())]
    Stuck {
        /// What it was given.
        limit: Duration,
    },
    /// The thread could not be started, or it broke.
    #[error("the evaluation of the policies broke: {0}")]
    Broken(String),
}

/// Runs evaluations. Clones share their places.
#[derive(Clone, Debug)]
pub struct Judges {
    places: Arc<Semaphore>,
    limits: Limits,
}

impl Default for Judges {
    fn default() -> Self {
        Judges::new(Limits::default())
    }
}

impl Judges {
    /// With limits of the caller's.
    pub fn new(limits: Limits) -> Self {
        Judges { places: Arc::new(Semaphore::new(AT_ONCE)), limits }
    }

    /// The limits of each evaluation.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Asks the sets. Waits for a place; an evaluation itself ends within its limit and [`GRACE`].
    pub async fn judge(&self, asked: Vec<Asked>, input: Json, now_ms: u64) -> Result<Verdict, JudgeError> {
        let limit = self.limits.input_bytes;
        if serde_json::to_writer(Room(limit), &input).is_err() {
            return Err(JudgeError::TooLarge { limit });
        }
        let limits = self.limits;
        self.run(move || judge(&asked, &input, now_ms, &limits)).await
    }

    /// Reads a Rego text (see [`check`]). What it says about the text is the inner result.
    pub async fn check(&self, rego: String) -> Result<Result<Dialect, SyntaxFault>, JudgeError> {
        let limits = self.limits;
        self.run(move || check(&rego, &limits)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JudgeError> {
        let broken = |why: String| JudgeError::Broken(why);
        let place = self.places.clone().acquire_owned().await.map_err(|error| broken(error.to_string()))?;
        let limit = self.limits.time;
        // The waiting takes a thread of the runtime, so that an own clock of a test cannot run ahead of the work.
        let wait = tokio::task::spawn_blocking(move || on_thread(place, limit, work));
        wait.await.map_err(|error| broken(error.to_string()))?
    }
}

/// Room for so many bytes: an input is measured without a copy of it, and no further than its limit.
struct Room(usize);

impl std::io::Write for Room {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(text.len()).ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn on_thread<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JudgeError> {
    let (answer, answered) = sync_channel(1);
    let whole = move || {
        let done = work();
        drop(place);
        // Nobody listens any more when it took too long.
        drop(answer.send(done));
    };
    let thread = std::thread::Builder::new().name("policy".to_owned()).stack_size(STACK_BYTES).spawn(whole);
    let thread = thread.map_err(|error| JudgeError::Broken(error.to_string()))?;
    match answered.recv_timeout(limit + GRACE) {
        Ok(done) => Ok(done),
        Err(RecvTimeoutError::Timeout) => Err(JudgeError::Stuck { limit }),
        // The sender is gone without an answer: the thread has panicked, and is over.
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err();
            let why = panic.as_ref().and_then(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            });
            Err(JudgeError::Broken(why.unwrap_or_else(|| "the interpreter panicked".to_owned())))
        }
    }
}
