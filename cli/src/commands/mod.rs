//! One file per command group.

pub(crate) mod agent;
pub(crate) mod agents;
pub(crate) mod apply;
pub(crate) mod approval;
pub(crate) mod completion;
pub(crate) mod connector;
pub(crate) mod credential;
pub(crate) mod entities;
pub(crate) mod execution;
pub(crate) mod expression;
pub(crate) mod harness;
pub(crate) mod hostkey;
pub(crate) mod init;
pub(crate) mod manager;
pub(crate) mod pipeline;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod secret;
pub(crate) mod trigger;
pub(crate) mod user;
pub(crate) mod watch;
