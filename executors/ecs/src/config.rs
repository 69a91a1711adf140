//! Limits that hold for every ECS step of an agent.

use std::time::Duration;

/// Limits of the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Pause between two looks at a rollout in its first minute.
    pub poll: Duration,
    /// Pause between two looks afterwards.
    pub slow_poll: Duration,
    /// How long an answer from before our own write is taken for late rather than true (facts A1).
    pub settle: Duration,
    /// How often a rollout without news says that it is still waited for.
    pub heartbeat: Duration,
    /// How many tasks may stop for the same reason that cannot pass before a rollout is given up (facts A5.5).
    pub same_reason_limit: u32,
    /// What may be done after the end of the step's timer or an abort to leave things in order: suspended scaling is
    /// resumed within it.
    pub finish: Duration,
    /// How many of the last lines of a failed container are shown.
    pub last_lines: usize,
    /// Successive services `<name>__<n>` without tasks that a phased deployment keeps for rollbacks.
    pub kept_revisions: usize,
    /// A stopped task's log is read until nothing has come for so long.
    pub log_settle: Duration,
    /// First pause before a task that found no room is started again; doubled up to a minute.
    pub no_room: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            poll: Duration::from_secs(2),
            slow_poll: Duration::from_secs(5),
            settle: Duration::from_secs(60),
            heartbeat: Duration::from_secs(60),
            same_reason_limit: 3,
            finish: Duration::from_secs(60),
            last_lines: 20,
            kept_revisions: 1,
            log_settle: Duration::from_secs(4),
            no_room: Duration::from_secs(5),
        }
    }
}
