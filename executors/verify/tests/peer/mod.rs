//! A real Prometheus with its own history, scraping itself, behind a password; ends with the value.

use std::net::{SocketAddr, TcpListener};
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

/// A port that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Prometheus {
    /// `history` is OpenMetrics text with timestamps; it becomes blocks before the server starts.
    pub(crate) async fn start(history: &str) -> Prometheus {
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
        std::fs::write(path("web.yml"), format!("basic_auth_users:\n  {USER}: {HASH}\n")).unwrap();
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
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let ready = client.get(server.url("/-/ready")).basic_auth(USER, Some(PASSWORD)).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return server;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "prometheus is not ready: {}",
                server.read("log")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
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
