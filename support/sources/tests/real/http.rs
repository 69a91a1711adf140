//! Routes and TLS.

use crate::peers::Nginx;
use crate::{Setup, World, anonymous};
use executor_api::Class;
use proto::task::DownloadSource;
use sources::download;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn source(url: &str, path: &str) -> DownloadSource {
    DownloadSource { connector: anonymous(url), repository: String::new(), path: path.into(), sha256: None }
}

fn alias(from: String, to: String) -> Setup {
    Setup { aliases: vec![(from, to)], ..Setup::default() }
}

#[tokio::test]
async fn an_alias_leads_elsewhere_and_the_server_hears_the_name() {
    let (nginx, cache) = (Nginx::start(""), tempfile::tempdir().unwrap());
    nginx.put("a", b"content");
    let to = format!("127.0.0.1:{}", nginx.port);
    for (from, url) in [
        ("artifacts.example.com:8081", "http://artifacts.example.com:8081/open"),
        ("artifacts.example.com", "http://artifacts.example.com/open"),
        ("192.0.2.7:9999", "http://192.0.2.7:9999/open"),
    ] {
        let world = World::with(alias(from.into(), to.clone()));
        download(&world.access, &source(url, "a"), cache.path()).await.unwrap();
        let host = url.trim_start_matches("http://").trim_end_matches("/open");
        nginx.log_with(&format!("host={host}\n"), 1).await;
        assert_eq!(world.notices().matches(&format!("-> {to}")).count(), 1, "{}", world.notices());
    }
    let world = World::with(alias("bad.example.com".into(), "no-such-name.invalid:1".into()));
    let error =
        download(&world.access, &source("http://bad.example.com/open", "a"), cache.path()).await.unwrap_err();
    assert_eq!(error.code, "SRC-008");
}

/// A TLS front for one fixed answer, as no plain peer here speaks TLS.
async fn tls_server(name: &str) -> (u16, Vec<u8>, tokio::task::JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let pem = made.cert.pem().into_bytes();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 4096];
            let _request = stream.read(&mut buffer).await;
            let _sent = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecure")
                .await;
            let _shut = stream.shutdown().await;
        }
    });
    (port, pem, task)
}

#[tokio::test]
async fn certificates_and_names_are_checked_also_behind_an_alias() {
    let cache = tempfile::tempdir().unwrap();
    let (port, pem, task) = tls_server("artifacts.example.com").await;
    let setup = |name: &str, ca: bool| Setup {
        ca_pem: ca.then(|| pem.clone()),
        ..alias(name.to_owned(), format!("127.0.0.1:{port}"))
    };
    let good = World::with(setup("artifacts.example.com", true));
    let got =
        download(&good.access, &source("https://artifacts.example.com/x", "a"), cache.path()).await.unwrap();
    assert_eq!(std::fs::read(got.path).unwrap(), b"secure");
    for (name, ca) in [("artifacts.example.com", false), ("other.example.com", true)] {
        let world = World::with(setup(name, ca));
        let url = format!("https://{name}/y");
        let error = download(&world.access, &source(&url, "a"), cache.path()).await.unwrap_err();
        assert_eq!((error.class, error.code), (Class::Authentication, "SRC-003"), "{error}");
        assert!(!world.notices().contains("next attempt"), "a refusal is not repeated");
    }
    task.abort();
}

#[tokio::test]
async fn certificates_that_are_none_are_refused() {
    for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let options =
            sources::ClientOptions { ca_pem: Some(pem.into()), ..sources::ClientOptions::default() };
        assert!(sources::Client::new(options).is_err(), "{pem}");
    }
}
