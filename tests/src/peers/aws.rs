//! A small AWS region on this machine (`tests/peers/aws`): ECS with real containers, load balancers with real traffic, and
//! what else a deployment asks for, behind one endpoint that a test can make misbehave.
//!
//! This file stands alone: `executors/ecs/tests` takes it by `#[path]`, so that there is one starter.
#![allow(dead_code, unreachable_pub, reason = "Each test program uses a part of it.")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the start of everything may take on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long a state may take to come about.
const LIMIT: Duration = Duration::from_secs(120);

/// The account of everything.
pub const ACCOUNT: &str = "123456789012";
/// The region of everything.
pub const REGION: &str = "us-east-1";
/// Host of the account's registry; images are named `HOST/REPOSITORY:TAG`.
pub const ECR: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
/// Variables that send the clients of one service to the emulators.
const ENDPOINTS: [&str; 9] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_ECS",
    "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2",
    "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING",
    "AWS_ENDPOINT_URL_CLOUDWATCH",
    "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
    "AWS_ENDPOINT_URL_ECR",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
];

/// What AWS said instead of doing something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Error code, such as `ClusterNotFoundException`.
    pub code: String,
    /// Its text.
    pub message: String,
}

/// The region.
///
/// Its processes, containers, network and files belong to a keeper that ends them as soon as this program closes its pipe:
/// on drop, after a panic, or when the program is killed. Calls block; they take milliseconds.
#[derive(Debug)]
pub struct Ecs {
    keeper: Child,
    pipe: Option<ChildStdin>,
    dir: PathBuf,
    port: u16,
}

impl Ecs {
    /// The one of this test program; started on first use. Tests keep apart by a [`Place`] each.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Ecs {
        static SHARED: OnceLock<Ecs> = OnceLock::new();
        SHARED.get_or_init(Ecs::start)
    }

    /// One of its own.
    ///
    /// # Panics
    /// When a program is missing (`scripts/install-test-peers` makes it) or it is not ready in three minutes.
    pub fn start() -> Ecs {
        // The keeper removes it.
        let dir = tempfile::Builder::new().prefix("delegate-aws-").tempdir().expect("a directory").keep();
        // Not in the directory: that is gone by the time somebody asks why the start failed.
        let mut log = tempfile::tempfile().expect("a log");
        let mut command = Command::new(tools().join("aws/bin/python"));
        command.arg(peer().join("up")).arg("hold").arg(&dir).arg("--remove").arg("--tools").arg(tools());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone().expect("the log again"));
        // An interrupt at the keyboard is for the tests; the keeper hears of it when their pipe closes.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut keeper =
            command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e} (scripts/install-test-peers)"));
        let pipe = keeper.stdin.take();
        let said = keeper.stdout.take().expect("its output");
        let mut ecs = Ecs { keeper, pipe, dir, port: 0 };
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let _the_limit_is_over = sender.send(BufReader::new(said).lines().next().and_then(Result::ok));
        });
        let Ok(Some(line)) = ready.recv_timeout(START_LIMIT) else {
            let mut said = String::new();
            let _nothing_more_to_say = log.rewind().and_then(|()| log.read_to_string(&mut said));
            panic!("the AWS peer ended before it was ready, or was not in {START_LIMIT:?}: {said}");
        };
        let ready: Value = serde_json::from_str(&line).expect("what it says when it is ready");
        let endpoint = ready["endpoint"].as_str().expect("its endpoint");
        ecs.port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        ecs
    }

    /// Address of every service.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Variables for a process that uses AWS.
    pub fn env(&self) -> BTreeMap<String, String> {
        let mut env: BTreeMap<_, _> =
            ENDPOINTS.iter().map(|name| ((*name).to_owned(), self.endpoint())).collect();
        env.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned());
        env
    }

    /// Port of every service; `/metrics` there tells Prometheus the processor time of the tasks' containers
    /// (`container_cpu_usage_seconds_total{container_name, task, group, revision}`).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its logs (`logs/`) and state lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Process id of the keeper; a part of the names of what it makes in the system.
    pub fn keeper_id(&self) -> u32 {
        self.keeper.id()
    }

    /// One call of the API, as a neighbour of the program under test makes it: neither in [`Ecs::calls`] nor subject to
    /// a [`Fault`]. `service` and the parameters are named as in boto3 (`elbv2`, `TargetGroupArn`); times are strings.
    ///
    /// # Errors
    /// What AWS refused.
    ///
    /// # Panics
    /// When the peer does not answer.
    pub fn ask(&self, service: &str, operation: &str, parameters: Value) -> Result<Value, Refusal> {
        let call = json!({"service": service, "operation": operation, "parameters": parameters});
        let mut said = self.order("call", &call);
        if let Some(error) = said.get("error") {
            let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            return Err(Refusal { code: text("Code"), message: text("Message") });
        }
        Ok(said["done"].take())
    }

    /// The same; must succeed.
    ///
    /// # Panics
    /// When AWS refuses.
    pub fn aws(&self, service: &str, operation: &str, parameters: Value) -> Value {
        let call = format!("{service} {operation} {parameters}");
        self.ask(service, operation, parameters).unwrap_or_else(|refusal| panic!("{call}: {refusal:?}"))
    }

    /// Pushes an image that behaves in one way (`tests/peers/aws/responder.go`: `web`, `web 80`, `slow 3`, `sick`, `late 2`, `crash`,
    /// `job 3 words`), whose revision is its tag; returns its reference and its digest.
    ///
    /// # Panics
    /// When the registry refuses.
    pub fn image(&self, repository: &str, tag: &str, behaviour: &str) -> (String, String) {
        let image = json!({"repository": repository, "tag": tag, "behaviour": behaviour, "revision": tag});
        let digest = self.order("image", &image);
        (format!("{ECR}/{repository}:{tag}"), digest.as_str().expect("a digest").to_owned())
    }

    /// Lets calls go wrong until the result is dropped.
    pub fn fault(&self, fault: Fault) -> Active<'_> {
        Active { ecs: self, rule: self.order("rules", &fault.0) }
    }

    /// What was called since `after` (the last call's number; 0 for all), in the order of arrival, by everybody.
    pub fn calls(&self, after: u64) -> Vec<Call> {
        let said = self.order("calls", &json!({"after": after}));
        let calls = said.as_array().expect("calls").iter().map(|call| {
            let text = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
            Call {
                number: call["number"].as_u64().unwrap_or_default(),
                service: text("service"),
                operation: text("operation"),
                key: text("key"),
                parameters: call["parameters"].clone(),
                status: call["status"].as_u64().and_then(|status| u16::try_from(status).ok()),
            }
        });
        calls.collect()
    }

    /// Where a listener can be reached.
    ///
    /// # Panics
    /// When there is no such listener.
    pub fn door(&self, listener: &str) -> SocketAddr {
        let listeners = self.order("listeners", &Value::Null);
        let found = listeners.as_array().into_iter().flatten().find(|l| l["listener"] == listener);
        let port = found.and_then(|l| l["door"].as_u64()).and_then(|port| u16::try_from(port).ok());
        SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_else(|| panic!("no {listener} in {listeners}"))))
    }

    /// Every listener as `name:port` of its load balancer and the address where it can be reached: host aliases.
    pub fn aliases(&self) -> Vec<(String, SocketAddr)> {
        let listeners = self.order("listeners", &Value::Null);
        let listeners = listeners.as_array().expect("listeners").iter().map(|l| {
            let door = l["door"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            let name = format!("{}:{}", l["name"].as_str().unwrap_or_default(), l["port"]);
            (name, SocketAddr::from(([127, 0, 0, 1], door)))
        });
        listeners.collect()
    }

    fn order(&self, path: &str, said: &Value) -> Value {
        let body = said.to_string();
        let request = format!(
            "POST /_peer/{path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let reply = exchange(address, &request, LIMIT).unwrap_or_else(|e| panic!("/_peer/{path}: {e}"));
        assert_eq!(reply.0, 200, "/_peer/{path} {body}: {}", reply.1);
        serde_json::from_str(&reply.1).unwrap_or_else(|e| panic!("/_peer/{path}: {e}: {}", reply.1))
    }
}

impl Drop for Ecs {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if matches!(self.keeper.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _gone_already = self.keeper.kill();
        let _reaped = self.keeper.wait();
    }
}

/// One call that arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// Grows with each call.
    pub number: u64,
    /// `ecs`, `elbv2`, `application-autoscaling`, `cloudwatch`, …
    pub service: String,
    /// Such as `UpdateService`.
    pub operation: String,
    /// Access key id that signed it.
    pub key: String,
    /// Its parameters as sent: JSON, or the pairs of a form.
    pub parameters: Value,
    /// HTTP status of the answer; 0: none, as a fault wanted; nothing: not yet.
    pub status: Option<u16>,
}

/// A way for calls to go wrong. Without a restriction it holds for all; where a region is shared, restrict it to the test's
/// own calls by [`Fault::by`] or [`Fault::containing`].
#[derive(Clone, Debug)]
pub struct Fault(Value);

impl Fault {
    fn of(kind: &str) -> Fault {
        Fault(json!({"kind": kind}))
    }

    /// An error of the API. ELBv2 and STS get the three usual ones under their own names (`Throttling`, `AccessDenied`,
    /// `ExpiredToken`).
    pub fn error(status: u16, code: &str, message: &str) -> Fault {
        Fault(json!({"kind": "error", "status": status, "code": code, "message": message}))
    }

    /// Too many calls.
    pub fn throttled() -> Fault {
        Fault::error(400, "ThrottlingException", "Rate exceeded")
    }

    /// The service is not there.
    pub fn unavailable() -> Fault {
        Fault::error(503, "ServiceUnavailable", "Service Unavailable")
    }

    /// The caller must not do `action` (`ecs:UpdateService`).
    pub fn denied(action: &str) -> Fault {
        let message = format!(
            "User: arn:aws:iam::{ACCOUNT}:user/deployer is not authorized to perform: {action} on resource: * because no \
             identity-based policy allows the {action} action"
        );
        Fault::error(400, "AccessDeniedException", &message)
    }

    /// The caller's session is over.
    pub fn expired() -> Fault {
        Fault::error(400, "ExpiredTokenException", "The security token included in the request is expired")
    }

    /// No answer, until the caller or the test gives up; nothing is done.
    pub fn silence() -> Fault {
        Fault::of("silence")
    }

    /// The connection ends at once; nothing is done.
    pub fn cut() -> Fault {
        Fault::of("cut")
    }

    /// The call is done, its answer is lost.
    pub fn lost() -> Fault {
        Fault::of("lost")
    }

    /// The same as the last time this was asked, whatever happened since: eventual consistency.
    pub fn stale() -> Fault {
        Fault::of("stale")
    }

    /// The call is done after a while.
    pub fn delay(pause: Duration) -> Fault {
        Fault(json!({"kind": "delay", "seconds": pause.as_secs_f64()}))
    }

    /// The true answer (JSON only) with a merge patch laid over it; a list's members are patched each.
    pub fn patched(patch: Value) -> Fault {
        Fault(json!({"kind": "answer", "body": patch}))
    }

    /// This answer (JSON only) instead of the call.
    pub fn instead(body: Value) -> Fault {
        Fault(json!({"kind": "instead", "body": body}))
    }

    /// Only calls of this operation.
    #[must_use]
    pub fn on(mut self, service: &str, operation: &str) -> Fault {
        self.0["service"] = service.into();
        self.0["operation"] = operation.into();
        self
    }

    /// Only calls that are signed with this access key id.
    #[must_use]
    pub fn by(mut self, key: &str) -> Fault {
        self.0["key"] = key.into();
        self
    }

    /// Only calls whose parameters, as JSON, contain this text.
    #[must_use]
    pub fn containing(mut self, text: &str) -> Fault {
        self.0["containing"] = text.into();
        self
    }

    /// Only so many calls.
    #[must_use]
    pub fn times(mut self, times: u64) -> Fault {
        self.0["times"] = times.into();
        self
    }

    /// Only after so many calls that go well.
    #[must_use]
    pub fn after(mut self, calls: u64) -> Fault {
        self.0["after"] = calls.into();
        self
    }
}

/// A fault that is on; dropping it ends it.
#[derive(Debug)]
pub struct Active<'a> {
    ecs: &'a Ecs,
    rule: Value,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        // A test that panics because the peer is gone must not panic again.
        if !std::thread::panicking() {
            self.ecs.order("rules/end", &self.rule);
        }
    }
}

/// What one test has to itself: a cluster of its name, a network, an access key to be known by.
#[derive(Debug)]
pub struct Place<'a> {
    /// The region.
    pub ecs: &'a Ecs,
    /// Name of the cluster, and a part of everything else's.
    pub name: String,
    /// Access key id for the program under test.
    pub key: String,
    vpc: String,
    /// Two subnets.
    pub subnets: Vec<String>,
    /// A security group.
    pub security_group: String,
}

impl<'a> Place<'a> {
    /// Makes it; `name` (letters and digits, at most 20) must be this test's only.
    pub fn new(ecs: &'a Ecs, name: &str) -> Place<'a> {
        ecs.aws("ecs", "CreateCluster", json!({"clusterName": name}));
        let vpc = ecs.aws("ec2", "CreateVpc", json!({"CidrBlock": "10.3.0.0/16"}));
        let vpc = text(&vpc["Vpc"]["VpcId"]);
        let subnets = ["a", "b"].iter().zip(0..).map(|(zone, n)| {
            let subnet = json!({"VpcId": vpc, "CidrBlock": format!("10.3.{n}.0/24"), "AvailabilityZone": format!("{REGION}{zone}")});
            text(&ecs.aws("ec2", "CreateSubnet", subnet)["Subnet"]["SubnetId"])
        });
        let subnets = subnets.collect();
        let group = json!({"GroupName": name, "Description": "of a test", "VpcId": vpc});
        let security_group = text(&ecs.aws("ec2", "CreateSecurityGroup", group)["GroupId"]);
        let key = format!("AKIA{}", name.to_uppercase());
        Place { ecs, name: name.to_owned(), key, vpc, subnets, security_group }
    }

    /// A cluster that is there already, as seen by whoever signs with `key`; without a network of its own.
    pub fn of(ecs: &'a Ecs, cluster: &str, key: &str) -> Place<'a> {
        let (name, key) = (cluster.to_owned(), key.to_owned());
        Place { ecs, name, key, vpc: String::new(), subnets: Vec::new(), security_group: String::new() }
    }

    /// Its network's id.
    pub fn vpc(&self) -> &str {
        &self.vpc
    }

    /// As services and tasks name their network.
    pub fn network(&self) -> Value {
        json!({"awsvpcConfiguration": {"subnets": self.subnets, "securityGroups": [self.security_group]}})
    }

    /// A task definition with one container `app` on port 8080, as a request: change it at will.
    pub fn definition(&self, family: &str, image: &str) -> Value {
        json!({"family": family, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
            "executionRoleArn": format!("arn:aws:iam::{ACCOUNT}:role/ecsTaskExecutionRole"), "containerDefinitions": [{"name": "app", "image": image, "essential": true,
                "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
                "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": format!("/ecs/{}", self.name),
                    "awslogs-region": REGION, "awslogs-stream-prefix": "ecs", "awslogs-create-group": "true"}}}]})
    }

    /// Registers [`Place::definition`]; returns its ARN.
    pub fn register(&self, family: &str, image: &str) -> String {
        let made = self.ecs.aws("ecs", "RegisterTaskDefinition", self.definition(family, image));
        text(&made["taskDefinition"]["taskDefinitionArn"])
    }

    /// A service with the circuit breaker on, as a request: change it at will.
    pub fn service(&self, name: &str, definition: &str, count: u64, group: Option<&str>) -> Value {
        let mut service = json!({"cluster": self.name, "serviceName": name, "taskDefinition": definition, "desiredCount": count,
            "launchType": "FARGATE", "networkConfiguration": self.network(),
            "deploymentConfiguration": {"maximumPercent": 200, "minimumHealthyPercent": 100,
                "deploymentCircuitBreaker": {"enable": true, "rollback": true}}});
        if let Some(group) = group {
            service["loadBalancers"] =
                json!([{"targetGroupArn": group, "containerName": "app", "containerPort": 8080}]);
        }
        service
    }

    /// Creates [`Place::service`] and waits until it is steady.
    pub fn run(&self, name: &str, definition: &str, count: u64, group: Option<&str>) {
        self.ecs.aws("ecs", "CreateService", self.service(name, definition, count, group));
        self.until_steady(name);
    }

    /// A service as it is now.
    pub fn describe(&self, service: &str) -> Value {
        let mut said = self.ecs.aws(
            "ecs",
            "DescribeServices",
            json!({"cluster": self.name, "services": [service], "include": ["TAGS"]}),
        );
        said["services"][0].take()
    }

    /// Waits until a service has come to a state; returns it.
    ///
    /// # Panics
    /// When it does not within two minutes.
    pub fn until(&self, service: &str, state: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{service} is {state}"), || {
            let now = self.describe(service);
            if holds(&now) { Ok(now) } else { Err(now.to_string()) }
        })
    }

    /// Waits until a service [is steady](Place::is_steady).
    ///
    /// # Panics
    /// When it does not within two minutes.
    pub fn until_steady(&self, service: &str) -> Value {
        self.until(service, "steady", Place::is_steady)
    }

    /// Whether a described service has one deployment, which is completed, and no task more or less than it wants.
    pub fn is_steady(now: &Value) -> bool {
        let deployments = now["deployments"].as_array().map_or(&[][..], Vec::as_slice);
        matches!(deployments, [one] if one["rolloutState"] == "COMPLETED")
            && now["runningCount"] == now["desiredCount"]
    }

    /// Tasks of a service, or all of the cluster, that should run (`RUNNING`) or end (`STOPPED`).
    pub fn tasks(&self, service: Option<&str>, desired: &str) -> Vec<Value> {
        let mut which = json!({"cluster": self.name, "desiredStatus": desired});
        if let Some(service) = service {
            which["serviceName"] = service.into();
        }
        let arns = self.ecs.aws("ecs", "ListTasks", which)["taskArns"].take();
        if arns.as_array().is_none_or(Vec::is_empty) {
            return Vec::new();
        }
        let said = self.ecs.aws("ecs", "DescribeTasks", json!({"cluster": self.name, "tasks": arns}));
        said["tasks"].as_array().cloned().unwrap_or_default()
    }

    /// A load balancer; `name` is of this place only.
    pub fn balancer(&self, name: &str) -> Balancer<'a> {
        let name = format!("{}-{name}", self.name);
        let wanted = json!({"Name": name, "Subnets": self.subnets, "SecurityGroups": [self.security_group]});
        let made = self.ecs.aws("elbv2", "CreateLoadBalancer", wanted);
        let made = &made["LoadBalancers"][0];
        let (arn, dns) = (text(&made["LoadBalancerArn"]), text(&made["DNSName"]));
        Balancer { ecs: self.ecs, vpc: self.vpc.clone(), name, arn, dns }
    }

    /// What the program under test called since `after`, in order: `service:Operation`.
    pub fn calls(&self, after: u64) -> Vec<String> {
        let calls = self.ecs.calls(after).into_iter().filter(|call| call.key == self.key);
        calls.map(|call| format!("{}:{}", call.service, call.operation)).collect()
    }
}

/// An application load balancer.
#[derive(Debug)]
pub struct Balancer<'a> {
    ecs: &'a Ecs,
    vpc: String,
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its name in DNS.
    pub dns: String,
}

impl Balancer<'_> {
    /// A target group whose health is `/health`; returns its ARN. It is in no use before some rule names it.
    pub fn group(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.name);
        let wanted = json!({"Name": name, "Protocol": "HTTP", "Port": 8080, "VpcId": self.vpc, "TargetType": "ip",
            "HealthCheckPath": "/health"});
        text(&self.ecs.aws("elbv2", "CreateTargetGroup", wanted)["TargetGroups"][0]["TargetGroupArn"])
    }

    /// A listener; returns its ARN.
    pub fn listener(&self, port: u16, weights: &[(&str, u64)]) -> String {
        let wanted = json!({"LoadBalancerArn": self.arn, "Protocol": "HTTP", "Port": port, "DefaultActions": forward(weights)});
        text(&self.ecs.aws("elbv2", "CreateListener", wanted)["Listeners"][0]["ListenerArn"])
    }

    /// A rule of a listener for a path; returns its ARN.
    pub fn rule(&self, listener: &str, priority: u64, path: &str, weights: &[(&str, u64)]) -> String {
        let wanted = json!({"ListenerArn": listener, "Priority": priority,
            "Conditions": [{"Field": "path-pattern", "Values": [path]}], "Actions": forward(weights)});
        text(&self.ecs.aws("elbv2", "CreateRule", wanted)["Rules"][0]["RuleArn"])
    }

    /// States of a group's targets, sorted: `healthy`, `initial`, `unhealthy`, `draining`, `unused`.
    pub fn health(&self, group: &str) -> Vec<String> {
        let said = self.ecs.aws("elbv2", "DescribeTargetHealth", json!({"TargetGroupArn": group}));
        let all = said["TargetHealthDescriptions"].as_array().cloned().unwrap_or_default();
        let mut states: Vec<_> = all.iter().map(|t| text(&t["TargetHealth"]["State"])).collect();
        states.sort();
        states
    }
}

/// Actions that forward by weights.
pub fn forward(weights: &[(&str, u64)]) -> Value {
    let groups: Vec<_> =
        weights.iter().map(|(group, weight)| json!({"TargetGroupArn": group, "Weight": weight})).collect();
    json!([{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}])
}

/// Answers to `GET path` by body; what is not status 200 counts as `status body`, what fails as its error.
pub fn traffic(address: SocketAddr, path: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..requests {
        *seen.entry(get(address, path)).or_default() += 1;
    }
    seen
}

/// Whether the share of `body` among the answers to `/` is `share`, within what chance allows 999 times of 1000; a share of
/// 0 or 1 is exact. Looks a second time before it says no, so that a test fails by chance once in a million times.
///
/// # Errors
/// What was seen instead.
pub fn has_share(address: SocketAddr, body: &str, share: f64, requests: usize) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for _ in 0..2 {
        seen = traffic(address, "/", requests);
        if within_chance(seen.get(body).copied().unwrap_or_default(), requests, share) {
            return Ok(());
        }
    }
    Err(format!("{body:?} is not {share} of {seen:?}"))
}

/// Whether `hits` of `total` is within the middle 99.9 % of the binomial distribution for `share`.
pub fn within_chance(hits: usize, total: usize, share: f64) -> bool {
    if share <= 0.0 || share >= 1.0 {
        return hits == if share <= 0.0 { 0 } else { total };
    }
    // By logarithms: the terms of a thousand requests underflow.
    let (p, q) = (share.ln(), (1.0 - share).ln());
    let mut choose = 0.0f64;
    let (mut below, mut above) = (0.0f64, 0.0f64);
    for k in 0..=total {
        #[expect(clippy::cast_precision_loss, reason = "Thousands.")]
        let (k_f, rest) = (k as f64, (total - k) as f64);
        let term = (choose + k_f * p + rest * q).exp();
        if k <= hits {
            below += term;
        }
        if k >= hits {
            above += term;
        }
        choose += rest.ln() - (k_f + 1.0).ln();
    }
    below > 0.0005 && above > 0.0005
}

/// Clients that ask all the time until they are stopped.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Two that ask for `/` a hundred times a second each.
    pub fn start(address: SocketAddr) -> Clients {
        Clients::many(address, 2)
    }

    /// So many; each asks again ten milliseconds after an answer.
    pub fn many(address: SocketAddr, clients: usize) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let threads = (0..clients).map(|_| {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(address, "/");
                    *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(answer).or_default() += 1;
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            })
        });
        let threads = threads.collect();
        Clients { stop, seen, threads }
    }

    /// Answers so far, as [`traffic`] counts them.
    pub fn seen(&self) -> BTreeMap<String, usize> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends them; all answers.
    pub fn stop(mut self) -> BTreeMap<String, usize> {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked_already = thread.join();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

/// One answer in words: the body of a status 200, else status and body, else the error.
pub fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    match exchange(address, &request, Duration::from_secs(30)) {
        Ok((200, body)) => body,
        Ok((status, body)) => format!("{status} {body}"),
        Err(error) => format!("failed: {error}"),
    }
}

/// Waits for something; every failure to see it says what was seen.
///
/// # Panics
/// When it does not come within two minutes.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => {
                assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; last seen: {instead}")
            }
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// moto: answers of many more services and operations, quickly, with nothing behind them. For shapes and pages.
#[derive(Debug)]
pub struct Moto {
    server: Child,
    port: u16,
}

impl Moto {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When it is missing or does not start.
    pub fn start() -> Moto {
        let port = executor_api::testing::free_port();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(tools().join("aws/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p"]).arg(port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server =
            command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e} (scripts/install-test-peers)"));
        let moto = Moto { server, port };
        until("moto listens", || {
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        moto
    }

    /// Address of every service.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _gone_already = self.server.kill();
        let _reaped = self.server.wait();
    }
}

/// Folder with the AWS command line, for a search path.
pub fn command_line() -> PathBuf {
    tools().join("aws/bin")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// Sends one request and reads to the end; the status and the body.
fn exchange(address: SocketAddr, request: &str, limit: Duration) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(request.as_bytes())?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said);
    let broken = || std::io::Error::other(format!("not an answer: {said:?}"));
    let (head, body) = said.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok((status, body.to_owned()))
}

fn tools() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.expect("HOME").join("delegate/tools")
}

fn peer() -> PathBuf {
    // Both users of this file are crates whose folder lies below the project's root.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|p| p.join("tests/peers/aws/up").exists()).expect("the project's root");
    root.join("tests/peers/aws")
}
