//! One shard: which of its executions move, and in what order.
//!
//! ```text
//! inbox --> waiting (inputs of an execution that is moving) --\
//!    \----------------------------------------------------------> Driver, one per execution, AT_ONCE at once
//! ```
//! Executions wait for the disk beside each other, so that their transitions share a commit. What comes for an
//! execution while it moves is taken together afterwards, as one transition.

use super::shard::{Driver, Loaded};
use super::{Command, EngineError, Shared};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Executions of one shard that move at once.
const AT_ONCE: usize = 32;
/// Commands that wait for an execution that is moving; beyond it the inbox is left alone.
const WAITING: usize = 256;
/// Commands that become one transition.
const BATCH: usize = 64;
/// About how many bytes of executions that rest a shard keeps in memory; more are read from the store as needed.
const KEPT_BYTES: usize = 12 * 1024 * 1024;

/// A turn of an execution is over.
type Turn = BoxFuture<'static, (String, Option<Loaded>)>;

pub(super) struct Shard {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Command>,
    /// The other end of `inbox`, for answers to what this shard had performed.
    own: mpsc::Sender<Command>,
    resting: HashMap<String, Loaded>,
    /// Weight of everything in `resting`.
    kept: usize,
    /// Executions that move, with what waits for them.
    moving: HashMap<String, VecDeque<Command>>,
    /// Commands in `moving`.
    waiting: usize,
    turns: FuturesUnordered<Turn>,
}

impl Shard {
    pub(super) fn new(
        shared: Arc<Shared>,
        inbox: mpsc::Receiver<Command>,
        own: mpsc::Sender<Command>,
    ) -> Self {
        Shard {
            shared,
            inbox,
            own,
            resting: HashMap::new(),
            kept: 0,
            moving: HashMap::new(),
            waiting: 0,
            turns: FuturesUnordered::new(),
        }
    }

    /// Runs until `stop`; turns that have begun are ended.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let has_room = self.turns.len() < AT_ONCE && self.waiting < WAITING;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((id, loaded)) = self.turns.next(), if !self.turns.is_empty() => self.over(id, loaded),
                command = self.inbox.recv(), if has_room => match command {
                    Some(command) => self.take(command),
                    None => break,
                },
            }
        }
        while self.turns.next().await.is_some() {}
    }

    fn take(&mut self, command: Command) {
        if let Some(waiting) = self.moving.get_mut(&command.execution_id) {
            waiting.push_back(command);
            self.waiting += 1;
            return;
        }
        let id = command.execution_id.clone();
        self.moving.insert(id.clone(), VecDeque::new());
        let loaded = self.resting.remove(&id);
        self.kept = self.kept.saturating_sub(loaded.as_ref().map_or(0, Loaded::weight));
        self.begin(id, loaded, vec![command]);
    }

    fn begin(&mut self, id: String, loaded: Option<Loaded>, commands: Vec<Command>) {
        let mut driver = Driver::new(self.shared.clone(), self.own.clone(), id, loaded);
        let shared = self.shared.clone();
        self.turns.push(Box::pin(async move {
            serve(&shared, &mut driver, commands).await;
            driver.into_parts()
        }));
    }

    /// Goes on with what came meanwhile, or lets the execution rest.
    fn over(&mut self, id: String, loaded: Option<Loaded>) {
        let loaded = loaded.filter(|loaded| !loaded.ended());
        if let Some(waiting) = self.moving.get_mut(&id)
            && !waiting.is_empty()
        {
            let commands: Vec<Command> = waiting.drain(..waiting.len().min(BATCH)).collect();
            self.waiting -= commands.len();
            return self.begin(id, loaded, commands);
        }
        self.moving.remove(&id);
        let Some(loaded) = loaded else { return };
        self.kept += loaded.weight();
        self.resting.insert(id.clone(), loaded);
        while self.kept > KEPT_BYTES {
            // Any other one: the order of use would throw out exactly the next one when all take turns.
            let Some(other) = self.resting.keys().find(|other| **other != id).cloned() else { break };
            if let Some(loaded) = self.resting.remove(&other) {
                self.kept = self.kept.saturating_sub(loaded.weight());
            }
        }
    }
}

/// Works on commands of one execution: together, and if that fails, each by itself, so that each gets its own answer.
async fn serve(shared: &Shared, driver: &mut Driver, commands: Vec<Command>) {
    let (mut inputs, mut waiting) = (Vec::with_capacity(commands.len()), Vec::with_capacity(commands.len()));
    let mut execution_id = String::new();
    for command in commands {
        execution_id = command.execution_id;
        inputs.push(command.input);
        waiting.push(command.done);
    }
    let together = driver.process(&inputs).await;
    if together.is_ok() || inputs.len() == 1 {
        let mut outcome = Some(together);
        for done in waiting {
            answer(shared, &execution_id, outcome.take().unwrap_or(Ok(())), done);
        }
        return;
    }
    for (input, done) in inputs.into_iter().zip(waiting) {
        let outcome = driver.process(&[input]).await;
        answer(shared, &execution_id, outcome, done);
    }
}

fn answer(
    shared: &Shared,
    execution_id: &str,
    outcome: Result<(), EngineError>,
    done: Option<tokio::sync::oneshot::Sender<Result<(), EngineError>>>,
) {
    if let Err(error) = &outcome
        && !matches!(error, EngineError::Refused(_))
    {
        tracing::error!(%execution_id, error = error as &dyn std::error::Error, "transition failed");
        // The input stands in the store, or its sender is told: a later look finds it again.
        if matches!(error, EngineError::Store(_) | EngineError::Contended { .. }) {
            shared.retry_later(execution_id);
        }
    }
    if let Some(done) = done
        && done.send(outcome).is_err()
    {
        tracing::debug!(%execution_id, "nobody waits for this any more");
    }
}
