//! The shell that follows units, kept from one to the next, and for the cleaning up.

use crate::command::Job;
use crate::holder::{self, Greeting};
use crate::session::{Event, Exec, Lease};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
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
    /// Folders of the units that it goes on to, in their order.
    pub(crate) keys: VecDeque<String>,
    /// What has come on each stream after the last unit's end mark.
    pub(crate) out: Bytes,
    pub(crate) err: Bytes,
}

/// The announcement of a unit, with what has come of its outputs.
pub(crate) struct Next {
    pub(crate) token: String,
    pub(crate) out: Bytes,
    pub(crate) err: Bytes,
}

impl Talk {
    pub(crate) fn new(exec: Exec, lease: Lease, nonce: String) -> Self {
        Talk { exec, lease, nonce, keys: VecDeque::new(), out: Bytes::new(), err: Bytes::new() }
    }

    /// Waits until the shell has gone on to the next unit, which it says on both streams. What comes before is of
    /// processes that the last unit left behind, and dropped.
    async fn next(&mut self) -> Option<Next> {
        let (mut out, mut err) = (Greeting::new(&self.nonce), Greeting::new(&self.nonce));
        let mut found_out = out.feed(&std::mem::take(&mut self.out)).ok()?;
        let mut found_err = err.feed(&std::mem::take(&mut self.err)).ok()?;
        let (mut more_out, mut more_err) = (BytesMut::new(), BytesMut::new());
        loop {
            if let (Some((line, out)), Some((_, err))) = (&found_out, &found_err) {
                let token = line.strip_prefix("next ")?.to_owned();
                let whole = |first: &Bytes, more: BytesMut| [first.as_ref(), &more].concat().into();
                return Some(Next { token, out: whole(out, more_out), err: whole(err, more_err) });
            }
            match self.exec.next().await {
                Event::Stdout(data) if found_out.is_some() => more_out.extend_from_slice(&data),
                Event::Stdout(data) => found_out = out.feed(&data).ok()?,
                Event::Stderr(data) if found_err.is_some() => more_err.extend_from_slice(&data),
                Event::Stderr(data) => found_err = err.feed(&data).ok()?,
                Event::Exit(_) | Event::Closed => return None,
            }
        }
    }

    /// Has the shell remove folders; it ends with that. `None`: it has not answered.
    async fn sweep(mut self, keys: &[String]) -> Option<String> {
        self.exec.tell(holder::last_sweep(keys));
        let mut answer = Greeting::new(&self.nonce);
        let mut data = std::mem::take(&mut self.out);
        loop {
            // The sign that it goes on to nothing comes first.
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

    /// The kept shell, when it has gone on to this unit. `None`: the unit is to be attached to, or started, by itself.
    pub(crate) async fn onward(&self, key: &str) -> Option<(Talk, Next)> {
        let mut talk = self.release()?;
        if talk.keys.pop_front().as_deref() != Some(key) {
            return None;
        }
        let next = tokio::time::timeout(ANSWER, talk.next()).await.ok()??;
        Some((talk, next))
    }

    /// Removes folders through the kept shell. `None`: there is none, or it has not answered.
    pub(crate) async fn last_sweep(&self, keys: &[String]) -> Option<String> {
        let talk = self.release()?;
        tokio::time::timeout(ANSWER, talk.sweep(keys)).await.ok()?
    }
}
