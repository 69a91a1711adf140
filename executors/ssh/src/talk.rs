//! The shell that follows units, kept from one to the next, and for the cleaning up.

use crate::command::Job;
use crate::holder::{self, Greeting, Pace};
use crate::session::{Event, Exec, Lease};
use bytes::Bytes;
use std::sync::PoisonError;
use std::time::Duration;

/// A shell that says nothing within this time still follows: something of the last unit keeps its output open.
const ANSWER: Duration = Duration::from_secs(1);

/// A shell on the host that follows units.
pub(crate) struct Talk {
    pub(crate) exec: Exec,
    pub(crate) lease: Lease,
    /// What its announcements begin with.
    pub(crate) nonce: String,
    /// Folder of the unit that the rest of both streams belongs to, and the token of its end marks.
    pub(crate) next: Option<String>,
    pub(crate) token: String,
    /// What has come on each stream after the last unit's end mark, and where in the spool that begins.
    pub(crate) out: Bytes,
    pub(crate) err: Bytes,
    pub(crate) at: (u64, u64),
    pub(crate) pace: Pace,
}

impl Talk {
    pub(crate) fn new(exec: Exec, lease: Lease, nonce: String) -> Self {
        Talk {
            exec,
            lease,
            nonce,
            next: None,
            token: String::new(),
            out: Bytes::new(),
            err: Bytes::new(),
            at: (0, 0),
            pace: Pace::new(),
        }
    }

    /// Has the shell remove folders; it ends with that. `None`: it has not answered.
    async fn sweep(mut self, keys: &[String]) -> Option<String> {
        self.exec.tell(holder::last_sweep(keys));
        let mut answer = Greeting::new(&self.nonce);
        let mut data = std::mem::take(&mut self.out);
        loop {
            // What processes that the last unit left behind have printed may come first.
            while let Some((line, rest)) = answer.feed(&data).ok()? {
                if line.starts_with("swept") {
                    return Some(line);
                }
                answer = Greeting::new(&self.nonce);
                data = rest;
            }
            data = loop {
                match self.exec.next().await {
                    Event::Stdout(data) => break data,
                    Event::Stderr(_) | Event::Exit(_) => {}
                    Event::Closed => return None,
                }
            };
        }
    }
}

impl Job<'_> {
    /// Keeps a shell that has followed a unit to the end marks of both streams.
    pub(crate) fn keep(&self, talk: Talk) {
        *self.talk.lock().unwrap_or_else(PoisonError::into_inner) = Some(talk);
    }

    /// Gives up the kept shell, and with it its place on the connection.
    pub(crate) fn release(&self) -> Option<Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The kept shell, when it goes on with this unit. `None`: the unit is to be attached to, or started, by itself.
    pub(crate) fn onward(&self, key: &str) -> Option<Talk> {
        self.release().filter(|talk| talk.next.as_deref() == Some(key))
    }

    /// Removes folders through the kept shell. `None`: there is none, or it has not answered.
    pub(crate) async fn last_sweep(&self, keys: &[String]) -> Option<String> {
        let talk = self.release()?;
        tokio::time::timeout(ANSWER, talk.sweep(keys)).await.ok()?
    }
}
