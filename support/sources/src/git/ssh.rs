//! Git over SSH: `git-upload-pack` on the far side, one conversation a fetch.
//!
//! The SSH library lives in another crate (ADR of the SSH executor), so what opens a conversation is given to the client
//! from outside as a [`Tunnel`]. The messages are those of the HTTP form; only their framing by requests is missing: an
//! answer ends at its flush line, and the first thing that comes is the advertisement.

use super::wire::{Advertisement, Line, Lines};
use crate::error;
use crate::http::Access;
use bytes::Bytes;
use executor_api::StepError;
use proto::task::{HttpConnector, SshTarget, SshUrl};
use std::pin::Pin;
use tokio::sync::{Mutex, MutexGuard};
use url::Url;

/// What the methods of a trait object give back.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens programs on hosts over SSH.
pub trait Tunnel: Send + Sync {
    /// Runs `command` in the login shell of `target`, with environment variables that the host may refuse to take. A host
    /// key that is accepted on the way is noted in `access`.
    ///
    /// **Errors**: whatever keeps the login from succeeding, classified. **Cancel**: dropping it leaves nothing behind.
    fn open<'a>(
        &'a self,
        access: &'a Access,
        target: &'a SshTarget,
        command: &'a str,
        environment: &'a [(&'a str, &'a str)],
    ) -> BoxFuture<'a, Result<Box<dyn Conversation>, StepError>>;
}

/// A program on a host. Dropping it closes its input and the connection.
pub trait Conversation: Send {
    /// Sends input; it goes out while [`Conversation::next`] is awaited.
    fn send(&mut self, input: Vec<u8>);

    /// The next part of its output; `None` when it has ended well.
    ///
    /// **Errors**: the connection is lost, or the program ended badly: its own words.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Ended>>;
}

/// Why a conversation is over.
#[derive(Debug)]
pub enum Ended {
    /// The connection.
    Lost(StepError),
    /// The program, with what it wrote to its standard error.
    Failed(String),
}

/// A repository that was opened.
pub(super) struct Talk(Mutex<Box<dyn Conversation>>);

/// An answer that is being read.
pub(super) struct Reply<'a>(MutexGuard<'a, Box<dyn Conversation>>);

/// Opens the repository of `connector`; returns where it lies for messages, and what it says first.
pub(super) async fn open(
    access: &Access,
    connector: &HttpConnector,
    target: &SshTarget,
) -> Result<(Url, Talk, Advertisement), StepError> {
    let field = format!("connector `{}`, url", connector.identifier);
    let wrong = || error::bad_url(&field, &connector.url, SshUrl::SHAPE);
    let place = SshUrl::parse(&connector.url).ok_or_else(wrong)?;
    let shown = format!("ssh://{}:{}/{}", target.host, target.port, place.path.trim_start_matches('/'));
    let base = Url::parse(&shown).map_err(|_| wrong())?;
    let Some(tunnel) = access.client.tunnel() else {
        return Err(error::bad_url(
            &field,
            &connector.url,
            "an http or https URL: this agent is built without SSH",
        ));
    };
    let command = format!("git-upload-pack '{}'", place.path.replace('\'', r"'\''"));
    let opened = tunnel.open(access, target, &command, &[("GIT_PROTOCOL", "version=2")]);
    let doing = format!("connecting to {}", error::server(&base));
    let talk = Talk(Mutex::new(access.bounded(&doing, opened).await??));
    let greeting = talk.whole(access, &base, super::MAX_REFERENCE_BYTES).await?;
    let advertisement =
        Advertisement::parse(&greeting).map_err(|e| error::unexpected(&base, e.0, "a Git repository"))?;
    Ok((base, talk, advertisement))
}

impl Talk {
    /// Sends a message whose answer is read part by part.
    pub(super) async fn say(&self, message: Vec<u8>) -> Reply<'_> {
        let mut conversation = self.0.lock().await;
        conversation.send(message);
        Reply(conversation)
    }

    /// Sends a message and reads its answer to the flush line.
    pub(super) async fn ask(
        &self,
        access: &Access,
        base: &Url,
        message: Vec<u8>,
        limit: u64,
    ) -> Result<Vec<u8>, StepError> {
        self.0.lock().await.send(message);
        self.whole(access, base, limit).await
    }

    async fn whole(&self, access: &Access, base: &Url, limit: u64) -> Result<Vec<u8>, StepError> {
        let mut reply = Reply(self.0.lock().await);
        let (mut lines, mut whole) = (Lines::default(), Vec::new());
        while let Some(chunk) = reply.next(access, base).await? {
            lines.push(&chunk);
            whole.extend_from_slice(&chunk);
            if whole.len() as u64 > limit {
                return Err(error::too_large(base, "its list of references", limit));
            }
            while let Some(line) =
                lines.next().map_err(|e| error::unexpected(base, e.0, "a Git repository"))?
            {
                if line == Line::Flush {
                    return Ok(whole);
                }
            }
        }
        Err(error::cut_short(base, whole.len() as u64, whole.len() as u64 + 1))
    }
}

impl Reply<'_> {
    /// The next part of the answer.
    pub(super) async fn next(&mut self, access: &Access, base: &Url) -> Result<Option<Bytes>, StepError> {
        let doing = format!("reading from {}", error::server(base));
        match access.bounded(&doing, self.0.next()).await? {
            Ok(chunk) => Ok(chunk),
            Err(Ended::Lost(error)) => Err(error),
            Err(Ended::Failed(words)) => Err(error::refused_over_ssh(base, &words)),
        }
    }
}
