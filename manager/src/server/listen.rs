//! The listener: loopback in clear, everything else with TLS.

use super::ManagerError;
use crate::app::ManagerConfig;
use axum::Router;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) struct Listener {
    socket: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    url: String,
    address: String,
}

impl Listener {
    /// Checks the settings and takes the address, so that a second start fails before it touches anything.
    pub(super) fn bind(config: &ManagerConfig) -> Result<Self, ManagerError> {
        let address = config.listen.clone();
        let fault = |source| ManagerError::Listen { address: address.clone(), source };
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(fault)?.collect();
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(tls(cert, key)?),
            (None, None) => None,
            _ => return Err(ManagerError::Tls { what: "--tls-cert and --tls-key go together".to_owned() }),
        };
        if tls.is_none()
            && !config.insecure_http
            && !addresses.iter().all(|address| address.ip().is_loopback())
        {
            return Err(ManagerError::Insecure { address });
        }
        let socket = TcpListener::bind(addresses.as_slice()).map_err(fault)?;
        socket.set_nonblocking(true).map_err(fault)?;
        let local = socket.local_addr().map_err(fault)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        // The name that was given is the one the certificate is for; only a port of 0 is filled in.
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = if local.ip().is_unspecified() { "localhost" } else { host };
        let url = format!("{scheme}://{host}:{}", local.port());
        Ok(Listener { socket, tls, url, address })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Answers requests until `shutdown`.
    pub(super) async fn serve(
        self,
        router: Router,
        shutdown: &CancellationToken,
        drain: Duration,
        ready: impl FnOnce(),
    ) -> Result<(), ManagerError> {
        let fault = |source| ManagerError::Listen { address: self.address.clone(), source };
        let handle = Handle::new();
        let stopping = {
            let (handle, shutdown) = (handle.clone(), shutdown.clone());
            async move {
                shutdown.cancelled().await;
                handle.graceful_shutdown(Some(drain));
            }
        };
        let service = router.into_make_service();
        let server = axum_server::from_tcp(self.socket).map_err(fault)?.handle(handle);
        // The socket listens already: a client that connects from here on is answered.
        ready();
        let served = async {
            match self.tls {
                Some(tls) => {
                    let acceptor =
                        RustlsAcceptor::new(RustlsConfig::from_config(tls)).acceptor(NoDelayAcceptor::new());
                    limits(server.acceptor(acceptor)).serve(service).await
                }
                None => limits(server.acceptor(NoDelayAcceptor::new())).serve(service).await,
            }
        };
        let (served, ()) = tokio::join!(
            async {
                let served = served.await;
                shutdown.cancel();
                served
            },
            stopping
        );
        served.map_err(|source| ManagerError::Listen { address: self.address, source })
    }
}

/// Slow clients must not hold connections for ever before they have said what they want.
fn limits<A: axum_server::Address, Acc>(mut server: Server<A, Acc>) -> Server<A, Acc> {
    // The same timer ends idle connections. It is longer than clients keep theirs (90 s is common), so that none is
    // closed just as a request is sent on it.
    const HEADER_TIME: Duration = Duration::from_secs(120);
    const PING: Duration = Duration::from_secs(20);
    let builder = server.http_builder();
    builder.http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder.http2().timer(hyper_util::rt::TokioTimer::new()).keep_alive_interval(Some(PING));
    server
}

fn tls(cert: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, ManagerError> {
    let fault = |path: &Path, what: &dyn std::fmt::Display| ManagerError::Tls {
        what: format!("{}: {what}", path.display()),
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|e| fault(cert, &e))?;
    if chain.is_empty() {
        return Err(fault(cert, &"there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, &e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(cert, &e))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| fault(key, &e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
