//! The conformance kit (DESIGN §6): fakes of our own traits that behave like the real ones, and a suite that every
//! executor passes in its own tests against its real peer.
//!
//! The fakes stand only for what the agent provides. What the executor talks to is never faked here.
//!
//! ```text
//! Harness (per executor) ──► conformance::run ──► executor ──► real peer
//!                                  │                 │ TransportProbe::before/after
//!                                  └── World: MemoryLogs, Marks (checkpoints + probe), FixedSecrets, clock, cancel
//! ```

mod clock;
pub mod conformance;
pub mod figures;
mod logs;
mod marks;
mod ports;
mod secrets;
mod wait;
mod world;

pub use clock::ManualClock;
pub use logs::{Line, LineKind, MemoryLogs};
pub use marks::{CrashAt, Marks};
pub use ports::free_port;
pub use secrets::FixedSecrets;
pub use wait::{until, until_ok};
pub use world::World;

/// The checkpoint store of the kit; it is the transport probe at the same time, because only the two together can tell
/// whether a mutating call was announced.
pub type MemoryCheckpoints = Marks;
