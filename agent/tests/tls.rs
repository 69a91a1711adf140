//! The connection to the manager: certificates are checked, the client certificate is shown, a proxy is used.

#![allow(clippy::unwrap_used, reason = "only tests use it: a panic is a failed test")]

mod scripted;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use scripted::{Agent, Manager};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key for `name`, PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A TLS gateway in front of the manager, as it stands before a real one.
struct Gateway {
    port: u16,
    /// Handshakes that were completed.
    passed: Arc<AtomicUsize>,
    /// Handshakes that were not.
    failed: watch::Receiver<usize>,
}

async fn gateway(manager: &Manager, authority: &Authority, name: &str, mutual: bool) -> Gateway {
    let _unused = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (certificate, key) = authority.issue(name);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.issuer.pem().as_bytes()).unwrap()).unwrap();
        builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let passed = Arc::new(AtomicUsize::new(0));
    let (count, to) = (passed.clone(), manager.address);
    let (failures, failed) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count, failures) = (acceptor.clone(), count.clone(), failures.clone());
            tokio::spawn(async move {
                let Ok(mut from) = acceptor.accept(stream).await else {
                    failures.send_modify(|failed| *failed += 1);
                    return;
                };
                count.fetch_add(1, Ordering::SeqCst);
                let mut onward = TcpStream::connect(to).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut from, &mut onward).await;
            });
        }
    });
    Gateway { port, passed, failed }
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_configured_authority_and_a_client_certificate_make_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    let authority = Authority::new();
    let Gateway { port, passed, .. } = gateway(&manager, &authority, "localhost", true).await;
    let (certificate, key) = authority.issue("agent");
    let ca = file(dir.path(), "ca.pem", &authority.issuer.pem());
    let certificate = file(dir.path(), "client.pem", &certificate);
    let key = file(dir.path(), "client.key", &key);
    manager.noop("t1", "over tls");
    let agent = Agent::start(
        &manager,
        &dir.path().join("data"),
        &[
            ("MANAGER_HOST_AND_PORT", &format!("https://localhost:{port}")),
            ("DELEGATE_CA_FILE", ca.to_str().unwrap()),
            ("DELEGATE_CLIENT_CERTIFICATE_PATH", certificate.to_str().unwrap()),
            ("DELEGATE_CLIENT_CERTIFICATE_KEY_PATH", key.to_str().unwrap()),
        ],
    );
    assert_eq!(manager.answer("t1").await["data"]["status"], "Success");
    assert!(passed.load(Ordering::SeqCst) > 0);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_unknown_authority_and_a_wrong_name_are_refused() {
    let authority = Authority::new();
    for (name, trusted) in [("localhost", false), ("other.example", true)] {
        let dir = tempfile::tempdir().unwrap();
        let manager = Manager::start(true).await;
        let Gateway { port, passed, mut failed } = gateway(&manager, &authority, name, false).await;
        let url = format!("https://localhost:{port}");
        let ca = file(dir.path(), "ca.pem", &authority.issuer.pem());
        let mut extra = vec![("MANAGER_HOST_AND_PORT", url.as_str())];
        if trusted {
            extra.push(("DELEGATE_CA_FILE", ca.to_str().unwrap()));
        }
        let agent = Agent::start(&manager, &dir.path().join("data"), &extra);
        let twice =
            tokio::time::timeout(std::time::Duration::from_secs(20), failed.wait_for(|failed| *failed >= 2));
        twice.await.expect("no second try").unwrap();
        assert!(manager.lock().registered.is_empty(), "{name}");
        assert_eq!(passed.load(Ordering::SeqCst), 0, "{name}: the handshake was completed");
        agent.shutdown.now();
        agent.ended().await.unwrap();
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(true).await;
    let bad = file(dir.path(), "bad.pem", "no certificate");
    for (setting, path) in [("ca_file", bad.as_path()), ("ca_file", Path::new("/nonexistent.pem"))] {
        let extra = [("DELEGATE_CA_FILE", path.to_str().unwrap())];
        let error = Agent::start(&manager, &dir.path().join("data"), &extra).ended().await.unwrap_err();
        assert_eq!(error.code(), "AGT-019");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(setting) && cause.contains(path.to_str().unwrap()), "{cause}");
    }
}

/// A plain forward proxy: takes absolute URLs, notes the login, passes everything on to the manager.
#[tokio::test]
async fn a_proxy_is_used_with_its_login_and_left_out_where_it_says() {
    let manager = Manager::start(true).await;
    for (no_proxy, through) in [("", true), ("127.0.0.1", false)] {
        let dir = tempfile::tempdir().unwrap();
        // One of its own for each agent: the last words of the one before must not be taken for this one's.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let seen = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
        let (log, to) = (seen.clone(), manager.address);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut onward = TcpStream::connect(to).await.unwrap();
                    let mut head = vec![0; 16 * 1024];
                    let length = from.read(&mut head).await.unwrap();
                    head.truncate(length);
                    log.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                    onward.write_all(&head).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut from, &mut onward).await;
                });
            }
        });
        let before = manager.lock().registered.len();
        let agent = Agent::start(
            &manager,
            dir.path(),
            &[
                ("PROXY_HOST", "127.0.0.1"),
                ("PROXY_PORT", &port),
                ("PROXY_USER", "u"),
                ("PROXY_PASSWORD", "pw"),
                ("NO_PROXY", no_proxy),
            ],
        );
        manager.wait("a registration", |inner| (inner.registered.len() > before).then_some(())).await;
        agent.shutdown.now();
        agent.ended().await.unwrap();
        let heads = seen.lock().unwrap().clone();
        assert_eq!(!heads.is_empty(), through, "NO_PROXY={no_proxy}");
        if through {
            assert!(heads[0].starts_with("POST http://127.0.0.1:"), "{}", heads[0]);
            assert!(
                heads[0].to_ascii_lowercase().contains("proxy-authorization: basic dtpwdw=="),
                "{}",
                heads[0]
            );
        }
    }
}
