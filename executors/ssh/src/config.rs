//! Settings of the executor; one value per agent.

use std::path::PathBuf;
use std::time::Duration;

/// Limits and places. The defaults are those that were measured or that `sshd` itself has.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where learned host keys and the list of what was left on hosts are kept. `None`: in memory only.
    pub state_dir: Option<PathBuf>,
    /// One TCP connect.
    pub connect_timeout: Duration,
    /// Key exchange, and authentication, each.
    pub handshake_timeout: Duration,
    /// Pauses between the tries to connect. Refused credentials and host keys are never tried again.
    pub backoff: Vec<Duration>,
    /// Keepalives are sent after this much silence …
    pub keepalive_interval: Duration,
    /// … and so many may stay unanswered.
    pub keepalive_max: usize,
    /// A connection without work is closed after this time.
    pub idle_close: Duration,
    /// Connections being set up at once, over all hosts: a wide fan-out must not hit `MaxStartups`.
    pub dials: usize,
    /// Long channels (followers, copies) on one connection. With [`Settings::short_channels`] at most `MaxSessions`.
    pub long_channels: usize,
    /// Short channels (acknowledge, end, clean up) on one connection. They have places of their own, because a full
    /// spool waits for an acknowledgement.
    pub short_channels: usize,
    /// Bytes of unacknowledged output that a script may leave on its host, both streams together. Then it blocks.
    pub spool_limit: u64,
    /// Between asking a process tree to end and killing it.
    pub kill_after: Duration,
    /// How long ending a process tree may take while its host is away.
    pub end_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            state_dir: None,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(20),
            backoff: [1, 2, 4, 8].map(Duration::from_secs).to_vec(),
            keepalive_interval: Duration::from_secs(15),
            keepalive_max: 4,
            idle_close: Duration::from_secs(60),
            dials: 50,
            long_channels: 8,
            short_channels: 2,
            spool_limit: 256 << 20,
            kill_after: Duration::from_secs(10),
            end_within: Duration::from_secs(30),
        }
    }
}
