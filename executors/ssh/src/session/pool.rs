//! Connections are shared by all steps of the agent.

use super::{Address, KnownHosts, Session, connect, login_key};
use crate::config::Settings;
use crate::error::Error;
use executor_api::{Level, StepContext, UnitLog};
use proto::task::SshTarget;
use russh::keys::HashAlg;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    alias: Option<String>,
    user: String,
    /// Fingerprint of the login key: another credential never gets this connection.
    credential: String,
    /// What the host's key was compared with.
    host_keys: String,
}

#[derive(Default)]
struct Slot {
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    last_used: Mutex<Option<Instant>>,
}

/// The pool; one per agent.
pub(crate) struct Pool {
    settings: Arc<Settings>,
    known: Arc<dyn KnownHosts>,
    slots: Arc<Mutex<HashMap<Key, Arc<Slot>>>>,
    dials: Semaphore,
    reaper: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// A session in use.
#[derive(Clone)]
pub(crate) struct Lease {
    session: Arc<Session>,
    slot: Arc<Slot>,
}

impl Deref for Lease {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.slot.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(reaper) = self.reaper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            reaper.abort();
        }
    }
}

impl Pool {
    pub(crate) fn new(settings: Arc<Settings>, known: Arc<dyn KnownHosts>) -> Self {
        let dials = Semaphore::new(settings.dials.max(1));
        Pool { settings, known, slots: Arc::default(), dials, reaper: Mutex::default() }
    }

    pub(crate) fn known(&self) -> Arc<dyn KnownHosts> {
        self.known.clone()
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    /// A connection to `target`: the one in use, or a new one after as many tries as the settings allow. Refused
    /// credentials and host keys are tried once. The second value says whether the connection is a new one.
    ///
    /// **Cancel**: nothing is left behind.
    pub(crate) async fn get(
        &self,
        target: &SshTarget,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<(Lease, bool), Error> {
        let key = Arc::new(login_key(target, cx.secrets.as_ref())?);
        let address = Address::of(target, &cx.aliases);
        let slot = self.slot(Key {
            host: address.name.clone(),
            alias: address.alias.clone(),
            user: target.user.clone(),
            credential: key.fingerprint(HashAlg::Sha256).to_string(),
            host_keys: format!("{:?} {}", target.host_keys.mode, target.host_keys.known.join(" ")),
        });
        let mut current = slot.session.lock().await;
        if let Some(session) = current.as_ref().filter(|s| !s.is_closed()) {
            return Ok((Lease { session: session.clone(), slot: slot.clone() }, false));
        }
        *current = None;
        if let Some(alias) = &address.alias {
            log.line(Level::Info, &format!("Host alias: {} -> {alias}", address.name)).await?;
        }
        let mut pauses = self.settings.backoff.iter();
        loop {
            let attempt = async {
                let _permit = self.dials.acquire().await;
                connect(&self.settings, target, &address, &key, self.known.clone(), &mut |_| {}).await
            };
            match attempt.await {
                Ok(session) => {
                    let session = Arc::new(session);
                    *current = Some(session.clone());
                    drop(current);
                    self.start_reaper();
                    return Ok((Lease { session, slot: slot.clone() }, true));
                }
                Err(error) if error.is_transient() => match pauses.next() {
                    Some(pause) if cx.time_left() > *pause => {
                        let text = format!("{error}; next try in {} s", pause.as_secs());
                        log.line(Level::Warn, &text).await?;
                        cx.clock.sleep(*pause).await;
                    }
                    _ => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// One task closes what has been idle; it ends when nothing is open, and with the pool.
    fn start_reaper(&self) {
        let mut reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        if reaper.as_ref().is_some_and(|r| !r.is_finished()) {
            return;
        }
        let (slots, idle) = (self.slots.clone(), self.settings.idle_close);
        *reaper = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(idle / 4).await;
                let all: Vec<_> = {
                    let slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                    slots.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
                };
                let mut open = 0;
                for (key, slot) in all {
                    // A slot that is being dialled is in use.
                    let Ok(mut session) = slot.session.try_lock() else {
                        open += 1;
                        continue;
                    };
                    let unused = session.as_ref().is_none_or(|s| Arc::strong_count(s) == 1);
                    let last = *slot.last_used.lock().unwrap_or_else(PoisonError::into_inner);
                    let old = last.is_some_and(|at| at.elapsed() >= idle);
                    if session.as_ref().is_none_or(|s| s.is_closed()) || (unused && old) {
                        *session = None;
                        slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                    } else {
                        open += 1;
                    }
                }
                if open == 0 {
                    return;
                }
            }
        }));
    }
}
