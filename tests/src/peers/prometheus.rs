//! Prometheus, and a source of metrics that a test turns up and down.

use crate::peers::owned::Owned;
use crate::wait::{free_port, until};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A counter `http_requests_total` that grows by a rate the test sets: the traffic a load balancer would report.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Port of its `/metrics`.
    pub port: u16,
    rate: Arc<AtomicU64>,
}

impl Traffic {
    /// Starts it; `rate` is requests a second.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(rate: u64) -> Traffic {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let rate = Arc::new(AtomicU64::new(rate));
        let current = Arc::clone(&rate);
        std::thread::spawn(move || {
            let mut total = 0.0;
            let mut last = Instant::now();
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                let _request_is_ignored = client.read(&mut request);
                total += last.elapsed().as_secs_f64() * current.load(Ordering::SeqCst) as f64;
                last = Instant::now();
                let body = format!(
                    "# TYPE http_requests_total counter\nhttp_requests_total{{app=\"myapp\"}} {total:.0}\n"
                );
                let _closed_by_the_client = write!(
                    client,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Traffic { port, rate }
    }

    /// Requests a second from here on.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::SeqCst);
    }
}

/// A container of the application that has used as much processor time as the test says; of 0 nothing is told. No real
/// container can use minutes of it within a test.
#[derive(Debug, Clone)]
pub struct Stray {
    /// Port of its `/metrics`.
    pub port: u16,
    seconds: Arc<AtomicU64>,
}

impl Stray {
    /// Starts it, silent.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(container: &str) -> Stray {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let seconds = Arc::new(AtomicU64::new(0));
        let (current, container) = (Arc::clone(&seconds), container.to_owned());
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                let _request_is_ignored = client.read(&mut request);
                let body = match current.load(Ordering::SeqCst) {
                    0 => "stray_seconds 0\n".to_owned(),
                    seconds => format!(
                        "# TYPE container_cpu_usage_seconds_total counter\ncontainer_cpu_usage_seconds_total{{container_name=\"{container}\",task=\"stray\"}} {seconds}\n"
                    ),
                };
                let _closed_by_the_client = write!(
                    client,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Stray { port, seconds }
    }

    /// What it has used from here on.
    pub fn set_seconds(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }
}

/// A Prometheus server.
#[derive(Debug)]
pub struct Prometheus {
    _server: Owned,
    /// Its port.
    pub port: u16,
}

impl Prometheus {
    /// Starts it under `dir`; it scrapes `target` (a loopback port) every second. Returns once the first value is there.
    ///
    /// # Panics
    /// When the program is missing or no value comes within 30 s.
    pub async fn start(dir: &Path, target: u16) -> Prometheus {
        Prometheus::scraping(dir, target, "1s", "http_requests_total").await
    }

    /// As [`Prometheus::start`], with the time between two looks at the target, and the query whose first answer is waited
    /// for (`up` when the target has nothing to say yet).
    ///
    /// # Panics
    /// When the program is missing or no value comes within 30 s.
    pub async fn scraping(dir: &Path, target: u16, interval: &str, awaited: &str) -> Prometheus {
        Prometheus::scraping_all(dir, &[target], interval, awaited).await
    }

    /// As [`Prometheus::scraping`], of several targets.
    ///
    /// # Panics
    /// When the program is missing or no value comes within 30 s.
    pub async fn scraping_all(dir: &Path, targets: &[u16], interval: &str, awaited: &str) -> Prometheus {
        let dir = dir.join("prometheus");
        std::fs::create_dir_all(&dir).expect("folder");
        let port = free_port();
        let config = dir.join("prometheus.yml");
        let targets: Vec<String> = targets.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
        let targets = targets.join(", ");
        let text = format!(
            "global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\nscrape_configs:\n- job_name: myapp\n  static_configs:\n  - targets: [{targets}]\n"
        );
        std::fs::write(&config, text).expect("config");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn");
        let server = Owned::listening(command, &dir.join("out"), port).await;
        let prometheus = Prometheus { _server: server, port };
        until("the first scrape", Duration::from_secs(30), || async {
            let reply = prometheus.query(awaited).await;
            reply["data"]["result"].as_array().is_some_and(|r| !r.is_empty()).then_some(())
        })
        .await;
        prometheus
    }

    /// An instant query.
    pub async fn query(&self, query: &str) -> serde_json::Value {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let Ok(reply) = reqwest::Client::new().get(url).query(&[("query", query)]).send().await else {
            return serde_json::Value::Null;
        };
        reply.json().await.unwrap_or_default()
    }
}
