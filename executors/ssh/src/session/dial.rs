//! One connection attempt: name, TCP, key exchange, host key, login.

use super::hostkeys::openssh;
use super::{Judge, KnownHosts, Session, Verdict, auth};
use crate::config::Settings;
use crate::error::Error;
use executor_api::HostAliases;
use proto::task::SshTarget;
use russh::keys::{PrivateKey, PublicKeyOrCertificate};
use russh::{Preferred, cipher, client, kex};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// How far a connection attempt came; `delegate connector test` reports each with its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Dns,
    Tcp,
    Kex,
    HostKey,
    Auth,
}

/// Where to connect for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `name:port` that the key is checked against.
    pub(crate) name: String,
    /// Set when a host alias applies.
    pub(crate) alias: Option<String>,
    host: String,
    port: u16,
}

impl Address {
    /// Applies the aliases (D17).
    pub(crate) fn of(target: &SshTarget, aliases: &HostAliases) -> Self {
        let name = format!("{}:{}", target.host, target.port);
        match aliases.lookup(&target.host, target.port) {
            Some((host, port)) => Address { name, alias: Some(format!("{host}:{port}")), host, port },
            None => Address { name, alias: None, host: target.host.clone(), port: target.port },
        }
    }
}

/// Looks the name up.
async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Error> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|source| Error::Resolve { host: address.host.clone(), source })?
        .collect();
    if found.is_empty() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::Resolve { host: address.host.clone(), source });
    }
    Ok(found)
}

/// A TCP stream that asks for immediate acknowledgements during the first reads: otherwise the server's Nagle waits for
/// our delayed ACK, 45 ms on every connect and first exec.
struct Quick {
    stream: TcpStream,
    left: u32,
}

/// Key exchange, login and the first exec take fewer reads than this.
const QUICK_READS: u32 = 64;

impl Quick {
    fn rearm(&mut self) {
        #[cfg(target_os = "linux")]
        if self.left > 0 {
            self.left -= 1;
            // It is a hint; without it everything works, only later.
            self.stream.set_quickack(true).unwrap_or_default();
        }
    }
}

impl AsyncRead for Quick {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.rearm();
        }
        read
    }
}

impl AsyncWrite for Quick {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

type Found = Arc<Mutex<Option<Result<Verdict, Error>>>>;

/// Our side of the protocol; it only judges the host's key.
pub(crate) struct Client {
    judge: Judge,
    known: Arc<dyn KnownHosts>,
    found: Found,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let key = key.public_key();
        let verdict = self.judge.judge(&key);
        if verdict.is_ok()
            && self.judge.is_news(&key)
            && let Err(error) = self.known.learn(&self.judge_host(), &openssh(&key))
        {
            tracing::warn!(%error, "the learned host key could not be stored on this agent");
        }
        let good = verdict.is_ok();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        Ok(good)
    }
}

impl Client {
    fn judge_host(&self) -> String {
        self.judge.host().to_owned()
    }
}

fn config(settings: &Settings, judge: &Judge) -> client::Config {
    let mut preferred = Preferred::DEFAULT.clone();
    // mlkem768x25519 and curve25519 stand first in russh's own list. GCM is the cheapest cipher where the processor has
    // AES; chacha20, russh's first, costs twice the CPU (ssh-perf.md §5).
    preferred.cipher = Cow::Borrowed(&[
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ]);
    preferred.kex = Cow::Borrowed(&[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::DH_GEX_SHA256,
        kex::DH_G18_SHA512,
        kex::DH_G16_SHA512,
        kex::DH_G14_SHA256,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    ]);
    let known = judge.algorithms();
    let is_known = |a: &russh::keys::Algorithm| {
        known.iter().any(|k| match (k, a) {
            (russh::keys::Algorithm::Rsa { .. }, russh::keys::Algorithm::Rsa { .. }) => true,
            (known, other) => known == other,
        })
    };
    // SHA-1 signatures of hosts are not accepted.
    let mut order: Vec<_> = preferred
        .key
        .iter()
        .filter(|a| !matches!(a, russh::keys::Algorithm::Rsa { hash: None }))
        .cloned()
        .collect();
    order.sort_by_key(|a| !is_known(a));
    preferred.key = Cow::Owned(order);
    client::Config {
        preferred,
        channel_buffer_size: 8,
        keepalive_interval: Some(settings.keepalive_interval),
        keepalive_max: settings.keepalive_max,
        // Sent keepalives do not reset it, so a quiet script would be cut.
        inactivity_timeout: None,
        nodelay: true,
        ..client::Config::default()
    }
}

/// Makes one connection. `stage` is told how far it came.
///
/// **Cancel**: nothing is left behind.
pub(crate) async fn connect(
    settings: &Settings,
    target: &SshTarget,
    address: &Address,
    key: &Arc<PrivateKey>,
    known: Arc<dyn KnownHosts>,
    stage: &mut (dyn FnMut(Stage) + Send),
) -> Result<Session, Error> {
    stage(Stage::Dns);
    let addresses = resolve(address).await?;
    stage(Stage::Tcp);
    let mut stream = Err(Error::Connect { address: address.name.clone(), why: "no address".into() });
    for socket in addresses {
        let failed = |why: String| Error::Connect {
            address: address.name.clone(),
            why: if address.alias.is_some() || address.name.contains(&socket.ip().to_string()) {
                format!("{why} ({socket})")
            } else {
                why
            },
        };
        stream = match tokio::time::timeout(settings.connect_timeout, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.kind().to_string())),
            Err(_) => Err(failed(format!("no answer within {:?}", settings.connect_timeout))),
        };
        if stream.is_ok() {
            break;
        }
    }
    let stream = stream?;
    // Without these two a connect plus exec takes 136 ms instead of 48 (ssh-perf.md §4).
    stream.set_nodelay(true).unwrap_or_default();
    let mut quick = Quick { stream, left: QUICK_READS };
    quick.rearm();

    stage(Stage::Kex);
    let judge = Judge::new(address.name.clone(), &target.host_keys, known.as_ref());
    let config = Arc::new(config(settings, &judge));
    let found: Found = Arc::default();
    let client = Client { judge, known, found: found.clone() };
    let handshake =
        tokio::time::timeout(settings.handshake_timeout, client::connect_stream(config, quick, client)).await;
    let verdict = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    if verdict.is_some() {
        stage(Stage::HostKey);
    }
    let verdict = verdict.transpose()?;
    let failed = |why: String| Error::Handshake { address: address.name.clone(), why };
    let mut handle = match handshake {
        Ok(Ok(handle)) => handle,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("not done within {:?}", settings.handshake_timeout))),
    };
    let Some(verdict) = verdict else { return Err(failed("no host key was presented".into())) };

    stage(Stage::Auth);
    match tokio::time::timeout(
        settings.handshake_timeout,
        auth::authenticate(&mut handle, target, &address.name, key),
    )
    .await
    {
        Ok(done) => done?,
        Err(_) => return Err(failed("authentication did not end".into())),
    }
    Ok(Session {
        handle,
        host: address.name.clone(),
        verdict,
        long: Arc::new(Semaphore::new(settings.long_channels)),
        short: Arc::new(Semaphore::new(settings.short_channels)),
    })
}
