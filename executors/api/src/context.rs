//! Everything that belongs to one run of one step.

use crate::{Cancel, Checkpoints, Clock, LogSink, SecretSource};
use proto::result::LearnedHostKey;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What an executor is given beside the step itself.
#[derive(Clone)]
pub struct StepContext {
    /// Id of the task; stable over restarts of the agent.
    pub task_id: String,
    /// The whole task document: service, artifact, config files, environment, undo data.
    pub task: Arc<proto::task::StepTask>,
    /// When the step's timer runs out. The agent cancels with `Deadline` then; an executor uses it to bound single
    /// calls.
    pub deadline: Instant,
    /// Two-stage cancellation.
    pub cancel: Cancel,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Durable marks.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Log units.
    pub logs: Arc<dyn LogSink>,
    /// Secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// Host aliases of this agent (D17).
    pub aliases: Arc<HostAliases>,
    /// Host keys accepted on the way, by whatever logs in for this step.
    pub learned: LearnedHostKeys,
    /// A private directory of this task on the agent, 0700, removed when the task is reported. Made on first use.
    pub scratch: PathBuf,
    /// The agent's cache of artifacts, shared by all tasks and keyed by content.
    pub cache: PathBuf,
}

impl StepContext {
    /// `span` divided by the rehearsal factor, if this execution is a rehearsal (D16). Only for waits, analysis
    /// windows and bake times; never for timeouts (settled facts §1.9).
    pub fn rehearsed(&self, span: Duration) -> Duration {
        match self.task.rehearsal {
            Some(factor) if factor > 1 => span / factor,
            _ => span,
        }
    }

    /// Time left on the step's timer.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(self.clock.mono())
    }
}

/// Host keys accepted on the way of a step. They reach the manager however the step ends. Cheap to clone: all clones share
/// one list.
#[derive(Clone, Debug, Default)]
pub struct LearnedHostKeys(Arc<Mutex<Vec<LearnedHostKey>>>);

impl LearnedHostKeys {
    /// Adds a key. **Repeat**: a key that is there already counts once.
    pub fn note(&self, key: &LearnedHostKey) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(key) {
            all.push(key.clone());
        }
    }

    /// All so far, in the order they were accepted.
    pub fn all(&self) -> Vec<LearnedHostKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `name[:port] -> address[:port]`, like curl's `--connect-to` (D17). Certificates and host keys are still checked
/// against the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAliases(BTreeMap<String, String>);

impl HostAliases {
    /// From pairs as configured. Keys are compared case-insensitively.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        HostAliases(pairs.into_iter().map(|(k, v)| (k.to_ascii_lowercase(), v)).collect())
    }

    /// Where to connect for `host:port`, or `None` when no alias applies. `name:port` goes before `name`; an address
    /// without a port keeps the asked one.
    pub fn lookup(&self, host: &str, port: u16) -> Option<(String, u16)> {
        let host = host.to_ascii_lowercase();
        let address = self.0.get(&format!("{host}:{port}")).or_else(|| self.0.get(&host))?;
        match address.rsplit_once(':') {
            Some((name, to)) if !name.contains(':') || name.ends_with(']') => match to.parse() {
                Ok(to) => Some((name.trim_start_matches('[').trim_end_matches(']').to_owned(), to)),
                Err(_) => Some((address.clone(), port)),
            },
            _ => Some((address.clone(), port)),
        }
    }

    /// Every pair, for HTTP clients that take a resolver table.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_with_port_goes_first_and_a_missing_port_is_kept() {
        let aliases = HostAliases::new([
            ("Web.example.com:8080".to_owned(), "127.0.0.1:18080".to_owned()),
            ("web.example.com".to_owned(), "127.0.0.2".to_owned()),
            ("six.example.com".to_owned(), "[::1]:2222".to_owned()),
        ]);
        assert_eq!(aliases.lookup("web.example.com", 8080), Some(("127.0.0.1".into(), 18080)));
        assert_eq!(aliases.lookup("WEB.example.com", 22), Some(("127.0.0.2".into(), 22)));
        assert_eq!(aliases.lookup("six.example.com", 22), Some(("::1".into(), 2222)));
        assert_eq!(aliases.lookup("other", 22), None);
    }
}
