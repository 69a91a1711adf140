//! AWS accounts: credentials, endpoints, token buckets, and signed calls whose inputs and answers are documents.
//!
//! A call takes and gives [`serde_json::Value`] in AWS' own member names, whatever the service speaks on the wire (JSON, or
//! Query and XML), so that no field is lost that is newer than this program (ADR 0009). Credentials and signatures are made
//! by AWS' own crates; everything is sent by one client with one TLS stack, the agent's authorities, host aliases and proxy.
//!
//! ```text
//! Client (one per agent)      connections, credentials by account, token buckets by (account, region, group of actions)
//!   └─ Session (one per step) one account and region; bounded by the step's deadline and cancellation
//!        ├─ read / pages      repeated while that may help
//!        └─ change            announced to the probe once; repeated only where that is safe
//! ```
//! A [`Fault`] says what happened and is turned into a `StepError` once, by [`Fault::step`].

mod bucket;
mod client;
mod connector;
mod credentials;
pub mod document;
pub mod ecr;
mod endpoint;
mod fault;
mod operation;
mod probe;
mod retry;
mod send;
mod session;
mod settings;
mod transport;
mod wire;

pub use client::Client;
pub use fault::{CredentialFault, Fault};
pub use operation::{Operation, Service};
pub use retry::Repeat;
pub use session::{Caller, Session};
pub use settings::{Proxy, Settings, SetupError};
