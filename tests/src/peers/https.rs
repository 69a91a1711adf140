//! A small HTTPS server whose answers a test decides, for the peers that a real system calls by itself: an admission
//! webhook, an OpenID provider.
//!
//! This file stands alone: `executors/kube/tests` takes it by `#[path]`.
#![allow(dead_code, unreachable_pub, reason = "Each test program uses a part of it.")]

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// What a request is answered with: `GET /path` and the body give a status and a JSON document.
pub type Answer = dyn Fn(&str, &[u8]) -> (u16, Value) + Send + Sync;

/// The server. Its threads end with the test program.
#[derive(Debug, Clone, Copy)]
pub struct Https {
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Https {
    /// Starts it with a certificate and key, both PEM.
    ///
    /// # Panics
    /// When no port is free or the files are not what they should be.
    pub fn start(
        certificate: &Path,
        key: &Path,
        answer: impl Fn(&str, &[u8]) -> (u16, Value) + Send + Sync + 'static,
    ) -> Https {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        Https::on(listener, certificate, key, answer)
    }

    /// Starts it on a socket that is bound already, so that its port can stand in what it answers.
    ///
    /// # Panics
    /// When the files are not what they should be.
    pub fn on(
        listener: TcpListener,
        certificate: &Path,
        key: &Path,
        answer: impl Fn(&str, &[u8]) -> (u16, Value) + Send + Sync + 'static,
    ) -> Https {
        let port = listener.local_addr().expect("its address").port();
        let read = |path: &Path| std::fs::read(path).expect("a PEM file");
        let chain = CertificateDer::pem_slice_iter(&read(certificate)).map(|der| der.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_slice(&read(key)).expect("a key in PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("certificate and key");
        let (config, answer): (_, Arc<Answer>) = (Arc::new(config), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, answer) = (Arc::clone(&config), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let _ended = serve(stream, config, &*answer);
                });
            }
        });
        Https { port }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// Serves one connection, request after request, until the client closes it.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, answer: &Answer) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let what: Vec<&str> = first.split_whitespace().take(2).collect();
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            match line.trim().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().map_err(std::io::Error::other)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let (status, document) = answer(&what.join(" "), &body);
        let text = document.to_string();
        let to = stream.get_mut();
        write!(
            to,
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        )?;
        to.flush()?;
    }
}
