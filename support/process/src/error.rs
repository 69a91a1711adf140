//! What can go wrong with a child process beside its own exit status.

use std::io;

/// A program could not be run. The caller gives it class and code: it knows what the program was for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such program on this agent.
    #[error("`{program}` is not installed on this agent (PATH {path})")]
    Missing {
        /// As asked for.
        program: String,
        /// Where it was looked for.
        path: String,
    },
    /// The working directory cannot be entered.
    #[error("the directory {directory} cannot be entered: {source}")]
    Directory {
        /// As asked for.
        directory: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is there and cannot be started.
    #[error("`{program}` cannot be started: {source}")]
    Start {
        /// As asked for.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its output or its end could not be read.
    #[error("`{program}` was started and cannot be followed: {source}")]
    Follow {
        /// As asked for.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
