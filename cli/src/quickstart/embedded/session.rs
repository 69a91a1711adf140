//! One SSH connection to the embedded target: who may log in, and what its channels do.

use super::program::Program;
use super::sftp::Files;
use russh::keys::PublicKey;
use russh::keys::ssh_key::public::KeyData;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Pty};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Channels of one connection at a time; a client opens about a dozen.
const CHANNELS: usize = 64;

/// Who may log in, and what programs get.
pub(super) struct Access {
    pub(super) user: String,
    pub(super) key: KeyData,
    /// `PATH` of programs.
    pub(super) path: String,
    /// Home and first folder of programs.
    pub(super) home: PathBuf,
}

impl Access {
    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        if user == self.user && *key.key_data() == self.key { Auth::Accept } else { Auth::reject() }
    }
}

/// Makes a [`Connection`] for each client.
pub(super) struct Server {
    pub(super) access: Arc<Access>,
}

impl russh::server::Server for Server {
    type Handler = Connection;

    fn new_client(&mut self, _peer: Option<SocketAddr>) -> Connection {
        Connection { access: self.access.clone(), idle: HashMap::new(), programs: JoinSet::new() }
    }

    fn handle_session_error(&mut self, error: russh::Error) {
        tracing::debug!(%error, "a connection ended");
    }
}

/// One client.
pub(super) struct Connection {
    access: Arc<Access>,
    /// Open channels without a program.
    idle: HashMap<ChannelId, Channel<Msg>>,
    /// Running programs. With the connection their pipes close; they themselves go on, as with any SSH server.
    programs: JoinSet<()>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.access.judge(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(self.access.judge(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        while self.programs.try_join_next().is_some() {}
        if self.idle.len() + self.programs.len() < CHANNELS {
            self.idle.insert(channel.id(), channel);
            reply.accept().await;
        }
        // A reply that is dropped refuses the channel.
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.idle.remove(&id);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(channel) = self.idle.remove(&id) else { return session.channel_failure(id) };
        match Program::start(command, &self.access) {
            Ok(program) => {
                session.channel_success(id)?;
                self.programs.spawn(program.run(channel, session.handle()));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "/bin/sh cannot be started");
                session.channel_failure(id)
            }
        }
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.idle.remove(&id).filter(|_| name == "sftp") {
            Some(channel) => {
                session.channel_success(id)?;
                // It ends with the channel.
                russh_sftp::server::run(channel.into_stream(), Files::default()).await;
                Ok(())
            }
            None => session.channel_failure(id),
        }
    }

    // Without an answer a client would wait forever for what this server does not have.

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }
}
