//! A real Prometheus with its own history, scraping itself, behind a password; ends with the value.

#![allow(dead_code, reason = "Each test file uses a part of it.")]

pub(crate) mod cloudwatch;

use executor_api::testing::{free_port, until_ok};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// User and password of the server.
pub(crate) const USER: &str = "delegate";
pub(crate) const PASSWORD: &str = "pl4nted-secret";

/// bcrypt of [`PASSWORD`] with the smallest cost.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuwsObgmPPQ/dcCVG58c9bRxQd/2bg4bW";

pub(crate) struct Prometheus {
    child: Child,
    dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
}

/// A client for AWS that inherits nothing of this process.
pub(crate) fn aws() -> aws::Client {
    aws::Client::new(aws::Settings::default()).unwrap()
}

/// An address that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

impl Prometheus {
    /// `history` is OpenMetrics text with timestamps; it becomes blocks before the server starts.
    pub(crate) async fn start(history: &str) -> Prometheus {
        Self::start_with(history, None).await
    }

    /// With TLS for `name` under a CA of its own, whose PEM comes back too.
    pub(crate) async fn start_tls(name: &str) -> (Prometheus, Vec<u8>) {
        let certificates = tempfile::tempdir().unwrap();
        let ca = certificate(certificates.path(), name);
        (Self::start_with("", Some(certificates.path())).await, ca)
    }

    async fn start_with(history: &str, tls: Option<&Path>) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        let address = free();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        if !history.is_empty() {
            std::fs::write(path("history"), history).unwrap();
            let made = Command::new("promtool")
                .args(["tsdb", "create-blocks-from", "openmetrics", &path("history"), &path("data")])
                .output()
                .expect("promtool is installed");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, query_log_file: {}}}\n\
             scrape_configs:\n- job_name: self\n  basic_auth: {{username: {USER}, password: {PASSWORD}}}\n  \
             static_configs: [{{targets: ['{address}']}}]\n",
            path("queries")
        );
        std::fs::write(path("prometheus.yml"), config).unwrap();
        let mut web = format!("basic_auth_users:\n  {USER}: {HASH}\n");
        if let Some(certificates) = tls {
            for name in ["cert.pem", "key.pem"] {
                std::fs::copy(certificates.join(name), path(name)).unwrap();
            }
            web.push_str("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n");
        }
        std::fs::write(path("web.yml"), web).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--web.config.file={}", path("web.yml")))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .expect("prometheus is installed");
        let server = Prometheus { child, dir, address };
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let limit = Duration::from_secs(30);
        if tls.is_some() {
            // It listens before it is ready; the test's first query is tolerant of that.
            until_ok("prometheus listens", limit, async || {
                let tried = tokio::net::TcpStream::connect(address).await;
                tried.map(drop).map_err(|error| (error, server.read("log")))
            })
            .await;
            return server;
        }
        until_ok("prometheus is ready", limit, async || {
            let ready = client.get(server.url("/-/ready")).basic_auth(USER, Some(PASSWORD)).send().await;
            let ready = ready.and_then(reqwest::Response::error_for_status);
            ready.map(drop).map_err(|error| (error, server.read("log")))
        })
        .await;
        server
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// Every query that was answered, one JSON line each.
    pub(crate) fn queries(&self) -> String {
        self.read("queries")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn certificate(dir: &Path, name: &str) -> Vec<u8> {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let server = server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    std::fs::write(dir.join("cert.pem"), server.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    ca_pem.into_bytes()
}
