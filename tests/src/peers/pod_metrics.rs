//! What the pods of a cluster would report of themselves: kwok's pods run nothing, so this exporter speaks for each that
//! is there.

use crate::peers::kube::{ControlPlane, tool};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Latency that a healthy pod reports, in seconds, before its noise.
const HEALTHY: f64 = 0.2;

/// What is exported.
#[derive(Debug)]
struct State {
    /// By name of a pod that is ready: its failed requests so far.
    pods: BTreeMap<String, f64>,
    /// How many times slower than the others a canary is.
    slower: f64,
    /// Failed requests that a canary adds at each look.
    failing: f64,
    /// Part of the latency by which every sample strays at most.
    noise: f64,
    random: u64,
}

impl State {
    /// A number of -1 … 1; the same sequence in every run.
    fn stray(&mut self) -> f64 {
        // Knuth's linear congruential generator; its upper bits are even enough for noise.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let upper = u32::try_from(self.random >> 33).unwrap_or(0);
        f64::from(upper) / f64::from(u32::MAX >> 1) * 2.0 - 1.0
    }

    fn text(&mut self) -> String {
        let mut text = String::from("# TYPE request_seconds gauge\n# TYPE request_errors_total counter\n");
        let (slower, failing, noise) = (self.slower, self.failing, self.noise);
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for pod in names {
            let canary = pod.contains("-canary-");
            let seconds = HEALTHY * (1.0 + noise * self.stray()) * if canary { slower } else { 1.0 };
            let errors = self.pods.entry(pod.clone()).or_default();
            *errors += if canary { failing } else { 0.0 };
            let _a_string_takes_everything = writeln!(
                text,
                "request_seconds{{pod=\"{pod}\"}} {seconds:.6}\nrequest_errors_total{{pod=\"{pod}\"}} {errors}"
            );
        }
        text
    }
}

/// An exporter of `request_seconds` (a gauge) and `request_errors_total` with the label `pod`, for every ready pod of a
/// namespace. It follows the pods by a watch, which ends with it.
#[derive(Debug)]
pub struct PodMetrics {
    /// Port of its `/metrics`.
    pub port: u16,
    state: Arc<Mutex<State>>,
    watch: Child,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PodMetrics {
    /// Starts it for the pods of `namespace`; `noise` is the part by which each sample strays at most (0.3: ±30 %).
    ///
    /// # Panics
    /// When no port is free or kubectl is missing.
    pub fn start(plane: &ControlPlane, namespace: &str, noise: f64) -> PodMetrics {
        let state =
            State { pods: BTreeMap::new(), slower: 1.0, failing: 0.0, noise, random: 0x5eed_cafe_0000_0001 };
        let state = Arc::new(Mutex::new(state));
        let mut watch = Command::new(tool("kubectl"))
            .arg("--kubeconfig")
            .arg(plane.kubeconfig())
            .args(["get", "pods", "--watch", "--output-watch-events", "-o", "json", "-n", namespace])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl runs");
        let events = watch.stdout.take().expect("its output");
        let seen = Arc::clone(&state);
        std::thread::spawn(move || {
            let events = serde_json::Deserializer::from_reader(events).into_iter::<Value>();
            for event in events.map_while(Result::ok) {
                let pod = &event["object"];
                let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let conditions = pod["status"]["conditions"].as_array();
                let ready = conditions
                    .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
                let mut state = lock(&seen);
                if ready && event["type"] != "DELETED" {
                    state.pods.entry(name).or_default();
                } else {
                    state.pods.remove(&name);
                }
            }
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let asked = Arc::clone(&state);
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                let _request_is_ignored = client.read(&mut request);
                let body = lock(&asked).text();
                let _closed_by_the_client = write!(
                    client,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        PodMetrics { port, state, watch }
    }

    /// From here on canaries answer `slower` times as slowly as the others and fail `failing` requests at each look.
    pub fn canaries(&self, slower: f64, failing: f64) {
        let mut state = lock(&self.state);
        state.slower = slower;
        state.failing = failing;
    }
}

impl Drop for PodMetrics {
    fn drop(&mut self) {
        let _gone_already = self.watch.kill();
        let _reaped = self.watch.wait();
    }
}
