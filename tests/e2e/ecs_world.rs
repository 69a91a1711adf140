//! The seed's ECS world: the region with the cluster, task definitions, service and load balancer that its pipelines name, a
//! Prometheus that watches the containers, a manager and an agent.
//!
//! What the seeds name and an emulator cannot have is replaced in the entities when they are applied: identifiers of
//! subnets, the security group and the target group. The pipelines stay byte for byte.

use e2e::peers::aws::{self, Call, Clients, Ecs, Fault, Place, forward};
use e2e::peers::prometheus::{Prometheus, Stray};
use e2e::world::{AgentProcess, Manager, step};
use executor_api::testing::{until, until_ok};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Cluster of the seeds.
pub(crate) const CLUSTER: &str = "production-cluster";
/// Service of the seeds.
pub(crate) const SERVICE: &str = "myapp-service";
/// Family of the seeds' task definitions; ten revisions are there.
pub(crate) const FAMILY: &str = "myapp-task";
/// Load balancer's name of the seeds' health check.
pub(crate) const PROD_HOST: &str = "myapp-alb-123456789.us-east-1.elb.amazonaws.com";
/// Name under which the seeds look at green.
pub(crate) const GREEN_HOST: &str = "green-alb.us-east-1.elb.amazonaws.com";
/// Access key id of the seeds' connector: what the agent calls is signed with it.
pub(crate) const KEY: &str = "AKIASEED";
/// Revision that runs before any pipeline did.
pub(crate) const BASE: &str = "base";

/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// A folder of this package.
pub(crate) fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The whole world. Some fields only live as long as it.
pub(crate) struct World {
    /// Where the production listener can be reached.
    pub(crate) prod: SocketAddr,
    /// Where the test listener can be reached.
    pub(crate) test: SocketAddr,
    /// Target group of production, and the one that nobody uses.
    pub(crate) groups: [String; 2],
    /// Production listener, test listener.
    pub(crate) listeners: [String; 2],
    pub(crate) subnets: Vec<String>,
    pub(crate) security_group: String,
    pub(crate) manager: Manager,
    pub(crate) agent: AgentProcess,
    pub(crate) prometheus: Prometheus,
    /// Makes the seed's verification fail.
    pub(crate) stray: Stray,
    pub(crate) ecs: Ecs,
    /// Dropped last: everything lies in it.
    _dir: tempfile::TempDir,
}

impl World {
    /// Starts everything: three tasks of revision 10 of the family answer [`BASE`] behind the load balancer.
    pub(crate) async fn start() -> World {
        World::made(false, "web").await
    }

    /// The same with the seeds' entities applied, and a metric that a test can raise.
    pub(crate) async fn with_entities() -> World {
        World::made(true, "web").await
    }

    /// The same; what runs at first behaves so.
    pub(crate) async fn with_base(behaviour: &'static str) -> World {
        World::made(true, behaviour).await
    }

    async fn made(with_entities: bool, base: &'static str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let ecs = tokio::task::spawn_blocking(Ecs::start).await.unwrap();
        let region = Region::make(&ecs, base);
        let stray = Stray::start("myapp-container");
        let scraped = if with_entities { vec![ecs.port(), stray.port] } else { vec![ecs.port()] };
        let prometheus =
            Prometheus::scraping_all(dir.path(), &scraped, "1s", "container_cpu_usage_seconds_total").await;
        let manager = Manager::start(dir.path());
        let aliases = [
            format!("{PROD_HOST}:80={}", region.prod),
            format!("{GREEN_HOST}:80={}", region.test),
            format!("prometheus.example.com:9090=127.0.0.1:{}", prometheus.port),
        ]
        .join(",");
        let mut env = ecs.env();
        env.insert("DELEGATE_HOST_ALIASES".to_owned(), aliases);
        env.insert("PATH".to_owned(), search_path(dir.path()));
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let agent = AgentProcess::start(&manager, dir.path(), "zone-a", &env);
        let Region { prod, test, groups, listeners, subnets, security_group } = region;
        let world = World {
            prod,
            test,
            groups,
            listeners,
            subnets,
            security_group,
            manager,
            agent,
            prometheus,
            stray,
            ecs,
            _dir: dir,
        };
        if with_entities {
            world.apply_entities();
        }
        world
    }

    /// The seeds' entities with this region's identifiers, and what the pipelines name beside them.
    fn apply_entities(&self) {
        self.manager.set_secret("aws_access_key", KEY.as_bytes());
        self.manager.set_secret("aws_secret_key", b"aws-secret-of-the-seed");
        for name in ["aws-connector", "ecs-entities/connectors", "ecs-entities/environment"] {
            self.manager.ok(&["apply", package(&format!("seeds/{name}.yaml")).to_str().unwrap()]);
        }
        let service = std::fs::read_to_string(package("seeds/ecs-service-full.yaml")).unwrap();
        self.manager.apply("ecs-service-full", &self.localised(&service));
    }

    /// What an execution wrote, for a test that fails.
    pub(crate) fn log(&self, execution: &Value) -> String {
        let id = execution["executionId"].as_str().unwrap();
        self.manager.ok(&["execution", "logs", id])
    }

    /// Starts a pipeline, so many times as fast as it is written; returns the execution's id.
    pub(crate) fn begin(&self, file: &Path, factor: u32) -> String {
        self.manager.start_pipeline(&[file.to_str().unwrap(), "--rehearse", &factor.to_string()])
    }

    /// Runs a pipeline to its end, sixty times as fast as it is written.
    pub(crate) async fn run(&self, file: &Path) -> Value {
        let execution = self.begin(file, 60);
        self.manager.finished(&execution, LIMIT).await
    }

    /// Waits until a step has come to one of these states. It fails as soon as the execution is over without that.
    pub(crate) async fn until_step(&self, execution: &str, id: &str, states: &[&str]) {
        until(&format!("{id} is {states:?}"), LIMIT, async || {
            let view = self.manager.show(execution);
            let state = step(&view, id)["status"].as_str().unwrap_or_default();
            let there = states.contains(&state);
            let over =
                ["Success", "Failed", "Aborted", "Expired"].contains(&view["status"].as_str().unwrap());
            assert!(there || !over, "{id} is {state}\n{view:#}\n{}", self.log(&view));
            there.then_some(())
        })
        .await;
    }

    /// Kills the agent while the next call of this operation is under way, and starts it again over the same data. The call
    /// is done, but only after the agent has died.
    pub(crate) async fn killed_during(&mut self, service: &str, operation: &str) {
        let before = self.last_call();
        let slow =
            self.ecs.fault(Fault::delay(Duration::from_secs(2)).on(service, operation).by(KEY).times(1));
        until(&format!("{operation} is called"), LIMIT, async || {
            (!self.calls_that(before, |call| call.operation == operation).is_empty()).then_some(())
        })
        .await;
        self.agent.kill9();
        self.agent.launch();
        drop(slow);
    }

    /// Waits until a call of the agent after the call `after` that fits has been answered, then kills the agent and starts it
    /// again over the same data.
    pub(crate) async fn killed_after(&mut self, after: u64, what: &str, fits: impl Fn(&Call) -> bool) {
        until(&format!("{what} is called and answered"), LIMIT, async || {
            (!self.calls_that(after, |call| call.status == Some(200) && fits(call)).is_empty()).then_some(())
        })
        .await;
        self.agent.kill9();
        self.agent.launch();
    }

    /// Follows an execution to its end; the agent is killed, and started again over the same data, as soon as each of its
    /// calls that change something has been answered. Returns the execution and what was done when it was killed.
    ///
    /// What an agent that was killed has to do once more is let pass: it might never come to write down that it did.
    pub(crate) async fn killed_at_each_change(
        &mut self,
        execution: &str,
        after: u64,
    ) -> (Value, Vec<String>) {
        let (mut at, mut killed) = (after, Vec::new());
        let mut known = BTreeSet::new();
        loop {
            let mut looks = 0_u32;
            let changed = until("the agent changes something, or all is over", LIMIT, async || {
                let done = |call: &Call| call.status.is_some() && changes(call);
                if let Some(call) = self.calls_that(at, done).into_iter().next() {
                    return Some(Ok(call));
                }
                // Calls are looked at far more often: asking for the execution takes a process.
                looks += 1;
                let view = looks.is_multiple_of(20).then(|| self.manager.show(execution))?;
                let over = ["Success", "Failed", "Aborted", "Expired"].contains(&view["status"].as_str()?);
                over.then_some(Err(view))
            })
            .await;
            match changed {
                Ok(call) => {
                    at = call.number;
                    if known.insert((call.operation.clone(), call.parameters.to_string())) {
                        self.agent.kill9();
                        self.agent.launch();
                        killed.push(call.operation);
                    }
                }
                Err(view) => return (view, killed),
            }
        }
    }

    /// Calls of the agent after the call `after` that fit.
    pub(crate) fn calls_that(&self, after: u64, fits: impl Fn(&Call) -> bool) -> Vec<Call> {
        self.ecs.calls(after).into_iter().filter(|call| call.key == KEY && fits(call)).collect()
    }

    /// Number of the newest call.
    pub(crate) fn last_call(&self) -> u64 {
        self.ecs.calls(0).last().map_or(0, |call| call.number)
    }

    /// Names of the services that are there.
    pub(crate) fn services(&self) -> Vec<String> {
        let said = self.ecs.aws("ecs", "ListServices", json!({"cluster": CLUSTER}));
        let arns = said["serviceArns"].as_array().cloned().unwrap_or_default();
        arns.iter().filter_map(|arn| arn.as_str()?.rsplit('/').next().map(str::to_owned)).collect()
    }

    /// Lets a service scale between three and ten tasks.
    pub(crate) fn autoscale(&self, service: &str) {
        let resource = format!("service/{CLUSTER}/{service}");
        let target = json!({"ServiceNamespace": "ecs", "ResourceId": resource, "ScalableDimension": "ecs:service:DesiredCount",
            "MinCapacity": 3, "MaxCapacity": 10});
        self.ecs.aws("application-autoscaling", "RegisterScalableTarget", target);
        let policy = json!({"ServiceNamespace": "ecs", "ResourceId": resource, "ScalableDimension": "ecs:service:DesiredCount",
            "PolicyName": "cpu", "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
                "TargetValue": 60.0, "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}}});
        self.ecs.aws("application-autoscaling", "PutScalingPolicy", policy);
    }

    /// How a service scales: least, most, whether that is suspended, names of its policies. `None`: not at all.
    pub(crate) fn scaling(&self, service: &str) -> Option<(u64, u64, bool, Vec<String>)> {
        let resource = format!("service/{CLUSTER}/{service}");
        let ask = |operation: &str, which: Value| self.ecs.aws("application-autoscaling", operation, which);
        let targets =
            ask("DescribeScalableTargets", json!({"ServiceNamespace": "ecs", "ResourceIds": [resource]}));
        let target = targets["ScalableTargets"].as_array()?.first()?.clone();
        let state = target["SuspendedState"].as_object().cloned().unwrap_or_default();
        let suspended = state.values().any(|one| *one == true);
        let policies =
            ask("DescribeScalingPolicies", json!({"ServiceNamespace": "ecs", "ResourceId": resource}));
        let policies = policies["ScalingPolicies"].as_array().into_iter().flatten();
        let names = policies.map(|one| text(&one["PolicyName"])).collect();
        Some((target["MinCapacity"].as_u64()?, target["MaxCapacity"].as_u64()?, suspended, names))
    }

    /// Weights of the production listener, of [`World::groups`].
    pub(crate) fn weights(&self) -> [u64; 2] {
        let said = self.ecs.aws("elbv2", "DescribeListeners", json!({"ListenerArns": [self.listeners[0]]}));
        let groups = said["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"].clone();
        let weight = |group: &String| {
            let own = groups.as_array().into_iter().flatten().find(|one| one["TargetGroupArn"] == *group);
            own.map_or(0, |own| own["Weight"].as_u64().unwrap_or(1))
        };
        [weight(&self.groups[0]), weight(&self.groups[1])]
    }

    /// From here on the seed's metric says that the containers use too much.
    pub(crate) async fn exhausted(&self) {
        self.stray.set_seconds(100_000);
        self.until_used("the metric rises", |seconds| seconds > 80.0).await;
    }

    /// From here on it says again what is true.
    pub(crate) async fn rested(&self) {
        self.stray.set_seconds(0);
        self.until_used("the metric falls", |seconds| seconds < 80.0).await;
    }

    async fn until_used(&self, what: &str, fits: impl Fn(f64) -> bool) {
        let average = r#"avg(container_cpu_usage_seconds_total{container_name="myapp-container"})"#;
        until_ok(what, LIMIT, async || {
            let reply = self.prometheus.query(average).await;
            let value =
                reply["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
            value.filter(|value| fits(*value)).ok_or(reply)
        })
        .await;
    }

    /// Waits until this revision alone answers at the production listener.
    pub(crate) async fn answers(&self, revision: &str) {
        until_ok("one revision answers", LIMIT, async || {
            let seen = aws::traffic(self.prod, "/", 30);
            if seen.keys().eq([revision]) { Ok(()) } else { Err(format!("{seen:?} instead of {revision}")) }
        })
        .await;
    }

    /// The cluster, as the agent's calls see it.
    pub(crate) fn place(&self) -> Place<'_> {
        Place::of(&self.ecs, CLUSTER, KEY)
    }

    /// Publishes `myapp:TAG`, which behaves so.
    pub(crate) fn publish(&self, tag: &str, behaviour: &str) {
        self.ecs.image("myapp", tag, behaviour);
    }

    /// A document of the seeds with the identifiers of this region.
    pub(crate) fn localised(&self, text: &str) -> String {
        let pairs = [
            ("subnet-12345678", self.subnets[0].as_str()),
            ("subnet-87654321", &self.subnets[1]),
            ("sg-12345678", &self.security_group),
            (
                "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/myapp-tg/1234567890123456",
                &self.groups[0],
            ),
        ];
        pairs.iter().fold(text.to_owned(), |text, (seed, here)| text.replace(seed, here))
    }
}

/// Whether a call changes anything.
fn changes(call: &Call) -> bool {
    !["Describe", "List", "Get", "BatchGet", "AssumeRole"].iter().any(|verb| call.operation.starts_with(verb))
}

/// Whether a call changes this service.
pub(crate) fn updates(call: &Call, service: &str) -> bool {
    call.operation == "UpdateService" && call.parameters["service"] == service
}

/// A pipeline of the seeds.
pub(crate) fn seed(name: &str) -> PathBuf {
    package("seeds").join(name)
}

/// Every step that is not one of a rollback, with its status.
fn of_stage(view: &Value) -> Vec<String> {
    view["stages"][0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["identifier"].as_str().unwrap(), one["status"].as_str().unwrap()))
        .collect()
}

/// Everything went well.
pub(crate) fn succeeded(view: &Value, world: &World) {
    assert_eq!(
        (&view["status"], &view["rolledBack"]),
        (&json!("Success"), &json!(false)),
        "{view:#}\n{}",
        world.log(view)
    );
    assert!(of_stage(view).iter().all(|one| one.ends_with(" Success")), "{view:#}");
}

/// A step failed, and what was done was taken back.
pub(crate) fn failed_and_back(view: &Value, world: &World) {
    assert_eq!(
        (&view["status"], &view["rolledBack"]),
        (&json!("Failed"), &json!(true)),
        "{view:#}\n{}",
        world.log(view)
    );
}

/// What clients saw while a step ran, in two halves.
pub(crate) async fn halves(
    world: &World,
    clients: &Clients,
    execution: &str,
    id: &str,
) -> [BTreeMap<String, usize>; 2] {
    world.until_step(execution, id, &["Running"]).await;
    let mut seen = vec![clients.seen()];
    until("the step has run", LIMIT, async || {
        let now = clients.seen();
        let runs = step(&world.manager.show(execution), id)["status"] == "Running";
        if runs {
            seen.push(now);
        }
        (!runs).then_some(())
    })
    .await;
    let marks = [&seen[0], &seen[seen.len() / 2], &seen[seen.len() - 1]];
    [(0, 1), (1, 2)].map(|(from, to)| {
        let before = |body: &String| marks[from].get(body).copied().unwrap_or(0);
        marks[to].iter().map(|(body, count)| (body.clone(), count - before(body))).collect()
    })
}

/// By chance this is wrong once in a million times.
pub(crate) fn shared_by(halves: &[BTreeMap<String, usize>; 2], body: &str, share: f64) {
    let fits = |seen: &BTreeMap<String, usize>| {
        let total: usize = seen.values().sum();
        total >= 100 && aws::within_chance(seen.get(body).copied().unwrap_or(0), total, share)
    };
    assert!(halves.iter().any(fits), "{body} has not {share} of {halves:?}");
}

/// What the seeds take for granted.
struct Region {
    prod: SocketAddr,
    test: SocketAddr,
    groups: [String; 2],
    listeners: [String; 2],
    subnets: Vec<String>,
    security_group: String,
}

impl Region {
    fn make(ecs: &Ecs, base: &str) -> Region {
        let place = Place::new(ecs, CLUSTER);
        let made = ecs.aws(
            "elbv2",
            "CreateLoadBalancer",
            json!({"Name": "myapp-alb", "Subnets": place.subnets, "SecurityGroups": [place.security_group]}),
        );
        let balancer = made["LoadBalancers"][0]["LoadBalancerArn"].clone();
        let groups = ["myapp-tg", "myapp-tg-green"].map(|name| {
            let wanted = json!({"Name": name, "Protocol": "HTTP", "Port": 8080, "VpcId": place.vpc(), "TargetType": "ip",
                "HealthCheckPath": "/health"});
            text(&ecs.aws("elbv2", "CreateTargetGroup", wanted)["TargetGroups"][0]["TargetGroupArn"])
        });
        let listeners = [(80, &groups[0]), (8080, &groups[1])].map(|(port, group)| {
            let wanted = json!({"LoadBalancerArn": balancer, "Protocol": "HTTP", "Port": port,
                "DefaultActions": forward(&[(group, 1)])});
            text(&ecs.aws("elbv2", "CreateListener", wanted)["Listeners"][0]["ListenerArn"])
        });
        ecs.aws("logs", "CreateLogGroup", json!({"logGroupName": "/ecs/myapp"}));
        let (image, _) = ecs.image("myapp", BASE, base);
        let mut newest = String::new();
        for revision in 1..=10 {
            let made = ecs.aws("ecs", "RegisterTaskDefinition", definition(&image, revision));
            newest = text(&made["taskDefinition"]["taskDefinitionArn"]);
        }
        assert_eq!(newest, format!("arn:aws:ecs:us-east-1:{}:task-definition/{FAMILY}:10", aws::ACCOUNT));
        let mut service = place.service(SERVICE, &newest, 3, None);
        service["loadBalancers"] =
            json!([{"targetGroupArn": groups[0], "containerName": "myapp-container", "containerPort": 8080}]);
        service["healthCheckGracePeriodSeconds"] = 60.into();
        ecs.aws("ecs", "CreateService", service);
        place.until_steady(SERVICE);
        let [prod, test] = [&listeners[0], &listeners[1]].map(|listener| ecs.door(listener));
        let (subnets, security_group) = (place.subnets.clone(), place.security_group.clone());
        Region { prod, test, groups, listeners, subnets, security_group }
    }
}

/// A revision of the family as the seed's entity describes it, with the roles that Fargate asks for.
fn definition(image: &str, revision: u32) -> Value {
    let role = |name: &str| format!("arn:aws:iam::{}:role/{name}", aws::ACCOUNT);
    json!({"family": FAMILY, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
        "executionRoleArn": role("ecsTaskExecutionRole"), "taskRoleArn": role("myapp"),
        "containerDefinitions": [{"name": "myapp-container", "image": image, "essential": true, "memory": 512, "cpu": 256,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
            "environment": [{"name": "ENVIRONMENT", "value": "production"}, {"name": "LOG_LEVEL", "value": "INFO"},
                {"name": "VERSION", "value": format!("base-{revision}")}],
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/ecs/myapp",
                "awslogs-region": aws::REGION, "awslogs-stream-prefix": "ecs"}}}]})
}

/// The agent's search path with the AWS command line, and nothing else of the environment that it is installed in.
fn search_path(dir: &Path) -> String {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(aws::command_line().join("aws"), bin.join("aws")).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}
