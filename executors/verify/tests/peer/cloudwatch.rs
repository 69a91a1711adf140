//! CloudWatch and load balancers of fakecloud, an emulator that keeps samples and answers like AWS; ends with the value.

use aws::{Client, Repeat, Service, Session, Settings};
use executor_api::testing::{World, free_port, until};
use executor_api::{NoProbe, StepContext};
use proto::task::{AwsAccount, Step, StepTask};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const REGION: &str = "us-east-1";

pub(crate) struct CloudWatch {
    child: Child,
    _dir: tempfile::TempDir,
    port: u16,
    world: World,
    client: Client,
}

impl CloudWatch {
    pub(crate) async fn start() -> CloudWatch {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program())
            .env_clear()
            .env("FAKECLOUD_ADDR", format!("127.0.0.1:{port}"))
            .env("HOME", dir.path())
            .env("PATH", "/usr/bin:/bin")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("fakecloud is installed: scripts/install-test-peers");
        let step = json!({"type": "Noop", "identifier": "s", "name": "s", "spec": {"line": "x"}});
        let step: Step = serde_json::from_value(step).unwrap();
        let world = World::new("peer", StepTask::of(step), []);
        let peer = CloudWatch { child, _dir: dir, port, world, client: client() };
        until("fakecloud listens", Duration::from_secs(120), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        peer
    }

    /// The account as a step names it.
    pub(crate) fn account(&self) -> Value {
        account(&format!("http://127.0.0.1:{}", self.port))
    }

    async fn session(&self) -> (Session, StepContext) {
        let (_handle, cx) = self.world.context();
        let account: AwsAccount = serde_json::from_value(self.account()).unwrap();
        (self.client.session(&account, &cx).await.unwrap(), cx)
    }

    pub(crate) async fn call(&self, service: Service, name: &'static str, input: Value) -> Value {
        let (session, _cx) = self.session().await;
        let answer = session.change(&NoProbe, name, service.op(name), input, Repeat::Safe).await;
        answer.unwrap_or_else(|fault| panic!("{name}: {fault}"))
    }

    /// Two subnets of the default network. EC2 is no service that the product calls, so it is asked by hand; fakecloud checks
    /// no signature.
    pub(crate) async fn subnets(&self) -> Vec<String> {
        let scope = format!("AKIA/20260101/{REGION}/ec2/aws4_request");
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .post(format!("http://127.0.0.1:{}/", self.port))
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=x"),
            )
            .form(&[("Action", "DescribeSubnets"), ("Version", "2016-11-15")])
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let ids = answer.split("<subnetId>").skip(1).filter_map(|rest| rest.split('<').next());
        ids.take(2).map(str::to_owned).collect()
    }

    /// Puts samples, each with its time in epoch milliseconds.
    pub(crate) async fn put(
        &self,
        namespace: &str,
        name: &str,
        dimensions: &[(&str, &str)],
        samples: &[(i64, &[f64])],
    ) {
        let dimensions: Vec<Value> = dimensions.iter().map(|(n, v)| json!({"Name": n, "Value": v})).collect();
        for (at_ms, values) in samples {
            let mut data = Vec::new();
            for value in *values {
                data.push(json!({
                    "MetricName": name, "Dimensions": dimensions, "Value": value,
                    "Timestamp": proto::logs::rfc3339(*at_ms), "StorageResolution": 1,
                }));
            }
            let input = json!({"Namespace": namespace, "MetricData": data});
            self.call(Service::CloudWatch, "PutMetricData", input).await;
        }
    }
}

impl Drop for CloudWatch {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// An account with everything at `url`.
pub(crate) fn account(url: &str) -> Value {
    json!({
        "connector": "aws", "region": REGION, "endpoints": {"": url},
        "credential": {"type": "ManualConfig", "accessKey": "AKIAIOSFODNN7EXAMPLE",
            "secretKey": "org.aws"},
    })
}

/// A client whose requests are no sleepers of a test's clock that anybody would take for a pause between two looks.
pub(crate) fn client() -> Client {
    let settings = Settings {
        request_timeout: Duration::from_secs(4),
        patience: Duration::from_millis(1),
        ..Settings::default()
    };
    Client::new(settings).unwrap()
}

/// Where `scripts/install-test-peers` puts it, unless `FAKECLOUD` says otherwise.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("FAKECLOUD") {
        return named.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    cache.join("delegate/tools/bin/fakecloud")
}
