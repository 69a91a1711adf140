//! Limits of the wire, each with its reason.

use std::time::Duration;

/// Longest bearer that is looked at. Java's are about 400 bytes; the rest is head room for long account and host
/// names. Without a limit, decryption attempts over every token of an account could be made expensive.
pub const MAX_BEARER_BYTES: usize = 8 * 1024;

/// Largest body of a register or heartbeat request. The Java delegate lists some 400 task types, about 16 KiB.
pub const MAX_REGISTER_BODY_BYTES: usize = 1024 * 1024;

/// Largest response of a task. Outputs are small; undo data of a Kubernetes step may carry whole manifests.
pub const MAX_RESPONSE_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Largest acquire reply that an agent reads: the same documents travel the other way.
pub const MAX_PACKAGE_BODY_BYTES: usize = 32 * 1024 * 1024;

/// Largest body of one `PUT /stream`.
pub const MAX_LOG_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Calls in one `POST /stream/batch`.
pub const MAX_STREAM_CALLS: usize = 128;

/// Calls in one `POST /api/agent/ext/calls`: as many tasks as one poll lists, and some.
pub const MAX_TASK_CALLS: usize = 128;

/// Packages in one reply to `POST /api/agent/ext/calls`, together. What does not fit is asked for by itself.
pub const MAX_SHARED_PACKAGE_BYTES: usize = 4 * 1024 * 1024;

/// Largest body of a call that shares a request with others; a larger one is worth a request of its own.
pub const MAX_SHARED_CALL_BYTES: usize = 32 * 1024;

/// Lines in one `PUT /stream` that we send. A batch is sent again as a whole after a lost reply, so it stays small.
pub const MAX_LOG_BATCH_LINES: usize = 1000;

/// Bytes of one line. Harness' log service with Redis cuts at this length, possibly inside a character; we cut on a
/// character border before it does.
pub const MAX_LOG_LINE_BYTES: usize = 25_600;

/// Lines that Harness' log service keeps of one stream; older ones are dropped there. Our manager keeps all.
pub const FOREIGN_STREAM_LINES: usize = 5000;

/// Life of a stream that Harness' log service accepts at most; writes do not renew it.
pub const FOREIGN_STREAM_TTL: Duration = Duration::from_hours(24);

/// Pause between two polls for task events, as every known client has it.
pub const POLL_INTERVAL: Duration = Duration::from_secs(3);

/// Longest `wait_ms` that our manager honours: below the idle limit of common proxies (60 s).
pub const MAX_LONG_POLL: Duration = Duration::from_secs(30);

/// Pause between two heartbeats unless the register reply says otherwise; dlite and the runner have the same.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Life of a bearer that we mint: dlite's.
pub const BEARER_LIFE: Duration = Duration::from_mins(20);

/// Age at which a bearer is minted afresh: half its life, so that clock skew of minutes does no harm.
pub const BEARER_REUSE: Duration = Duration::from_mins(10);

/// An agent is connected while its last heartbeat is no older than this. Harness' own limit.
pub const CONNECTED_FOR: Duration = Duration::from_mins(5);

/// Largest secret that is sealed into a task. Key files and certificates are far smaller.
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// Largest checkpoint. Most hold names only; that of an Http step may hold a response body of
/// [`MAX_HTTP_BODY_BYTES`], which JSON escapes may blow up six times.
pub const MAX_CHECKPOINT_BYTES: usize = 8 * 1024 * 1024;

/// Largest body of an Http step's response that becomes an output.
pub const MAX_HTTP_BODY_BYTES: usize = 1024 * 1024;
