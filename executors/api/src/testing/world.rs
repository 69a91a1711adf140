//! Everything one step is given in a test.

use super::{FixedSecrets, Marks, MemoryLogs};
use crate::{Cancel, CancelHandle, Clock, HostAliases, LearnedHostKeys, StepContext, SystemClock};
use proto::task::StepTask;
use std::sync::Arc;
use std::time::Duration;

/// What outlives a "process" in a test: the ledger, the logs, the folders. [`World::context`] makes the context of one
/// process life.
pub struct World {
    /// Id of the task.
    pub task_id: String,
    /// The task document.
    pub task: Arc<StepTask>,
    /// Checkpoints and mutating calls.
    pub marks: Marks,
    /// Logs.
    pub logs: MemoryLogs,
    /// Secrets.
    pub secrets: Arc<FixedSecrets>,
    /// Time; the machine's unless a test puts a [`super::ManualClock`] here.
    pub clock: Arc<dyn Clock>,
    /// How long the step's timer runs.
    pub timeout: Duration,
    /// Host aliases.
    pub aliases: Arc<HostAliases>,
    dir: tempfile::TempDir,
}

impl World {
    /// A world for `task`. Secrets are by scoped id; genuine placeholders carry `task.secret_token`.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    pub fn new(
        task_id: impl Into<String>,
        task: StepTask,
        secrets: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let token = task.secret_token;
        World {
            task_id: task_id.into(),
            task: Arc::new(task),
            marks: Marks::new(),
            logs: MemoryLogs::new(),
            secrets: Arc::new(FixedSecrets::new(token, secrets)),
            clock: Arc::new(SystemClock),
            timeout: Duration::from_secs(600),
            aliases: Arc::new(HostAliases::default()),
            #[expect(clippy::expect_used, reason = "A test cannot go on without it.")]
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// The context of one process life, and the handle that cancels it.
    pub fn context(&self) -> (CancelHandle, StepContext) {
        let (handle, cancel) = Cancel::pair();
        let context = StepContext {
            task_id: self.task_id.clone(),
            task: self.task.clone(),
            deadline: self.clock.mono() + self.timeout,
            cancel,
            clock: self.clock.clone(),
            checkpoints: Arc::new(self.marks.clone()),
            logs: Arc::new(self.logs.clone()),
            secrets: self.secrets.clone(),
            aliases: self.aliases.clone(),
            learned: LearnedHostKeys::default(),
            scratch: self.dir.path().join("scratch"),
            cache: self.dir.path().join("cache"),
        };
        (handle, context)
    }

    /// The agent was killed and started again: whatever was not durable is gone.
    pub fn restart(&self) {
        self.logs.crash();
        self.marks.restart();
    }
}
