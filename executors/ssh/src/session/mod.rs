//! Connections: dial, host key, authentication, pool. The only place that names russh, beside `transfer`.

mod auth;
mod channel;
mod dial;
mod hostkeys;
mod pool;

pub(crate) use auth::login_key;
pub(crate) use channel::{Event, Exec};
pub(crate) use dial::{Address, Stage, connect};
pub(crate) use hostkeys::{Judge, Verdict};
pub use hostkeys::{KnownHosts, KnownHostsFile};
pub(crate) use pool::{Lease, Pool};

use crate::error::Error;
use russh::client::Handle;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Tries to open a channel, a tenth of a second apart: a host whose `MaxSessions` is small, or shared with somebody else,
/// has a free place soon; one that never allows a session says so after a few seconds.
const OPEN_TRIES: u32 = 50;

/// How long a channel is expected to live; each kind has its own places on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A follower or a transfer.
    Long,
    /// One question.
    Short,
}

/// An authenticated connection to one host.
pub(crate) struct Session {
    handle: Handle<dial::Client>,
    /// `host:port` for messages.
    pub(crate) host: String,
    /// What was found out about the host's key.
    pub(crate) verdict: Verdict,
    long: Arc<Semaphore>,
    short: Arc<Semaphore>,
}

impl Session {
    /// Whether the connection is known to be gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn lost(&self, error: &russh::Error) -> Error {
        match error {
            russh::Error::ChannelOpenFailure(reason) => {
                Error::Channel { host: self.host.clone(), why: format!("{reason:?}") }
            }
            other => Error::Lost { host: self.host.clone(), why: other.to_string() },
        }
    }

    async fn open(
        &self,
        kind: Use,
    ) -> Result<(russh::Channel<russh::client::Msg>, tokio::sync::OwnedSemaphorePermit), Error> {
        let places = match kind {
            Use::Long => self.long.clone(),
            Use::Short => self.short.clone(),
        };
        let closed = || Error::Lost { host: self.host.clone(), why: "the connection is closed".into() };
        let permit = places.acquire_owned().await.map_err(|_| closed())?;
        let mut tries = 0;
        loop {
            match self.handle.channel_open_session().await {
                Ok(channel) => return Ok((channel, permit)),
                // sshd frees the place of an ended session a little after its end was told.
                Err(russh::Error::ChannelOpenFailure(_)) if tries < OPEN_TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    /// Starts `/bin/sh` on the host with `program` as its text. The text goes over stdin, never over argv.
    ///
    /// **Cancel**: dropping it may leave the program running.
    pub(crate) async fn exec(&self, kind: Use, program: String) -> Result<Exec, Error> {
        let (channel, permit) = self.open(kind).await?;
        // The braces around the program make a text that was cut off by a lost connection a syntax error as a whole.
        channel.exec(false, r#"exec /bin/sh -c 'eval "$(cat)"'"#).await.map_err(|e| self.lost(&e))?;
        Ok(Exec::new(channel, permit, program.into(), false, self.host.clone()))
    }

    /// The same for a program that reads from its input afterwards, which [`Exec::tell`] writes to and the drop ends.
    ///
    /// **Cancel**: dropping it may leave the program running.
    pub(crate) async fn talk(&self, program: String) -> Result<Exec, Error> {
        let (channel, permit) = self.open(Use::Long).await?;
        // Of the input not one byte more than the program is taken; a part of one is a syntax error, as above.
        let shell = format!(r#"exec /bin/sh -c 'eval "$(head -c {})"'"#, program.len());
        channel.exec(false, shell).await.map_err(|e| self.lost(&e))?;
        Ok(Exec::new(channel, permit, program.into(), true, self.host.clone()))
    }

    /// Runs `command` in the login shell as it stands, with its input open. A host that does not take the environment runs
    /// it without.
    ///
    /// **Cancel**: dropping it may leave the program running until the connection ends.
    pub(crate) async fn program(&self, command: &str, environment: &[(&str, &str)]) -> Result<Exec, Error> {
        let (channel, permit) = self.open(Use::Long).await?;
        for (name, value) in environment {
            channel.set_env(false, *name, *value).await.map_err(|e| self.lost(&e))?;
        }
        channel.exec(false, command).await.map_err(|e| self.lost(&e))?;
        Ok(Exec::new(channel, permit, bytes::Bytes::new(), true, self.host.clone()))
    }

    /// Opens an SFTP channel.
    pub(crate) async fn sftp(
        &self,
    ) -> Result<(russh_sftp::client::SftpSession, tokio::sync::OwnedSemaphorePermit), Error> {
        let (channel, permit) = self.open(Use::Long).await?;
        channel.request_subsystem(true, "sftp").await.map_err(|e| self.lost(&e))?;
        let config = russh_sftp::client::Config { request_timeout_secs: 60, ..Default::default() };
        let sftp =
            russh_sftp::client::SftpSession::new_with_config(channel.into_stream(), config).await.map_err(
                |e| Error::Transfer { host: self.host.clone(), path: "sftp".into(), why: e.to_string() },
            )?;
        Ok((sftp, permit))
    }
}
