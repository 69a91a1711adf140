//! Settings of the executor; one value per agent.

use std::time::Duration;

/// Limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of one output stream that a script may leave unread in the agent's data directory. Then it waits.
    pub spool_limit: u64,
    /// Between asking a process tree to end and killing it.
    pub kill_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { spool_limit: 128 << 20, kill_after: Duration::from_secs(10) }
    }
}
