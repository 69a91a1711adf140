//! The one way to the network: client, routes, credentials, redirects, retries.

mod access;
mod client;
mod retry;

pub use access::{Access, Answer, Call, Notice};
pub(crate) use access::{basic, bearer};
pub use client::{Client, ClientError, ClientOptions, trusting};
pub use retry::{Backoff, Retry};
