//! A double of ECS with a virtual clock, for what no emulator has: native strategies, lifecycle hooks, bake times.
//!
//! It proves how a step reads and answers ECS' documents as they are documented, and nothing about AWS itself. Every test of it
//! says "double" in its name. `region` is the state machine, `traffic` who answers the clients of its services; here is the
//! server around them.
//!
//! This file stands alone: `executors/ecs/tests` takes it by `#[path]`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "Test code: each program uses a part of it, and a panic is its way to fail."
)]

mod region;
mod traffic;

use region::Region;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The server. It ends on drop.
#[derive(Debug)]
pub struct EcsDouble {
    port: u16,
    region: Arc<Mutex<Region>>,
    over: Arc<AtomicBool>,
}

impl EcsDouble {
    /// Starts it on a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub fn start() -> EcsDouble {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let region: Arc<Mutex<Region>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (region.clone(), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), region) = (stream, shared.clone()) else { continue };
                std::thread::spawn(move || serve(&stream, &region));
            }
        });
        EcsDouble { port, region, over }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port: calls, the listeners of its services (`/production/NAME`, `/test/NAME`) and `/metrics`.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn region(&self) -> MutexGuard<'_, Region> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets virtual time pass.
    pub fn advance(&self, span: Duration) {
        self.region().advance(span.as_secs_f64());
    }

    /// So much virtual time passes with every look of a client; 5 s at first.
    pub fn pace(&self, span: Duration) {
        self.region().pace = span.as_secs_f64();
    }

    /// Calls an operation of ECS as a client would, without being counted.
    ///
    /// # Errors
    /// The error code.
    pub fn call(&self, operation: &str, input: &Value) -> Result<Value, String> {
        self.region().call(operation, input).map_err(|(code, text)| format!("{code}: {text}"))
    }

    /// Every call so far: operation and input.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.region().calls.clone()
    }

    /// How often an operation was called.
    pub fn count(&self, operation: &str) -> usize {
        self.region().calls.iter().filter(|(name, _)| name == operation).count()
    }

    /// A service as DescribeServices shows it.
    ///
    /// # Panics
    /// When there is none.
    pub fn service(&self, name: &str) -> Value {
        self.region().call("DescribeServices", &json!({"services": [name], "include": ["TAGS"]})).unwrap()["services"][0]
            .clone()
    }

    /// Its newest service deployment as DescribeServiceDeployments shows it.
    ///
    /// # Panics
    /// When there is none.
    pub fn deployment(&self, service: &str) -> Value {
        self.region().newest(service).expect("a service deployment")
    }

    /// The autoscaling target of a service; null when there is none.
    pub fn scaling(&self, service: &str) -> Value {
        self.region().targets.get(service).cloned().unwrap_or_default()
    }

    /// Gives a service an autoscaling target.
    pub fn set_scaling(&self, service: &str, target: Value) {
        self.region().targets.insert(service.to_owned(), target);
    }

    /// From now on rollbacks fail.
    pub fn fail_rollbacks(&self) {
        self.region().rollbacks_fail = true;
    }

    /// Shows another status than a deployment has, such as one that nobody knows; `None`: the true one again.
    pub fn pretend(&self, status: Option<&str>) {
        self.region().pretended = status.map(str::to_owned);
    }

    /// The next calls of an operation are done and answered with an error of the server, so often.
    pub fn lose(&self, operation: &str, times: usize) {
        self.region().lost.insert(operation.to_owned(), times);
    }
}

impl Drop for EcsDouble {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the one that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// One connection, request after request.
fn serve(stream: &TcpStream, region: &Mutex<Region>) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let (mut target, mut length, mut close) = (String::new(), 0, false);
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "x-amz-target" => value.trim().clone_into(&mut target),
                "connection" => close = value.trim().eq_ignore_ascii_case("close"),
                "content-length" => length = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, kind, text) = match path {
            Some(path) => traffic::get(&mut region.lock().unwrap_or_else(PoisonError::into_inner), &path),
            None => answer(region, &target, &body),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nx-amzn-requestid: double\r\n\r\n",
            text.len()
        );
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(text.as_bytes())).is_err()
            || close
        {
            return;
        }
    }
}

fn answer(region: &Mutex<Region>, target: &str, body: &[u8]) -> (u16, &'static str, String) {
    const JSON: &str = "application/x-amz-json-1.1";
    let mut region = region.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((service, operation)) = target.split_once('.') else {
        return query(&String::from_utf8_lossy(body));
    };
    let input: Value = serde_json::from_slice(body).unwrap_or_default();
    region.calls.push((operation.to_owned(), input.clone()));
    let answer = match service {
        "AmazonEC2ContainerServiceV20141113" => region.call(operation, &input),
        "AnyScaleFrontendService" => region.scaling(operation, &input),
        _ => Err(("AccessDeniedException".to_owned(), "the double does not serve this".to_owned())),
    };
    if let Some(left) = region.lost.get_mut(operation).filter(|left| **left > 0) {
        *left -= 1;
        return (
            500,
            JSON,
            json!({"__type": "ServerException", "message": "the answer was lost"}).to_string(),
        );
    }
    match answer {
        Ok(value) => (200, JSON, value.to_string()),
        Err((code, message)) => (400, JSON, json!({"__type": code, "message": message}).to_string()),
    }
}

/// Services that speak in forms and XML: who somebody is, and nothing else.
fn query(form: &str) -> (u16, &'static str, String) {
    if form.contains("Action=GetCallerIdentity") {
        let text = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:root</Arn><UserId>1</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
        return (200, "text/xml", text.to_owned());
    }
    let text = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>the double does not serve this</Message></Error></ErrorResponse>";
    (403, "text/xml", text.to_owned())
}
