//! Local child processes, for everything of the agent that starts a program.
//!
//! A program gets a process group of its own and a clean environment: the basics that every tool needs and what the
//! caller passes, nothing else of the agent's. Its output comes by lines. A cancellation ends it in two stages, and
//! with it everything that it has started, also what has made itself a session of its own: every process carries a
//! random mark in its environment, by which it is found again.
//!
//! Start reading at [`run`] for a tool that is waited for, at [`detach`] for a process that outlives the agent.

mod environment;
mod error;
mod launch;
mod lines;
mod tree;

pub use environment::basics;
pub use error::ProcessError;
pub use launch::{Ended, Exit, Program, detach, run};
pub use lines::{Collected, MAX_LINE, Sink};
pub use tree::{End, Ending, Member, Tree, random_mark};
