//! ECS' own strategies from the command line through a manager and an agent, with the pipeline's next steps as gates. No
//! emulator has those strategies: ECS is the double with a virtual clock here (`peers::ecs_double`), whose time passes only
//! when somebody looks. What the manager says is compared with what the double's clients get and what the double was told.

use e2e::peers::aws;
use e2e::peers::ecs_double::EcsDouble;
use e2e::peers::prometheus::Prometheus;
use e2e::wait::until;
use e2e::world::{AgentProcess, Manager, step};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);
const KEY: &str = "AKIADOUBLE";

/// `CONFIGURATION` is the service's deployment configuration.
const ENTITIES: &str = "
connector:
  identifier: aws
  name: aws
  type: Aws
  spec: {credential: {type: ManualConfig, region: us-east-1, spec: {accessKey: AKIADOUBLE, secretKeyRef: aws_secret_key}}}
---
environment: {identifier: prod, name: prod, type: Production}
---
infrastructureDefinition:
  identifier: cluster
  name: cluster
  environmentRef: prod
  deploymentType: ECS
  type: ECS
  spec: {connectorRef: aws, region: us-east-1, cluster: double}
---
service:
  identifier: web
  name: web
  serviceDefinition:
    type: ECS
    spec:
      taskDefinition: {taskDefinitionSpec: TASK}
      serviceDefinition: SERVICE
";

/// The stage around `STEPS`.
const PIPELINE: &str = "
pipeline:
  identifier: native
  name: native
  variables: [{name: image, type: String, value: <+input>}]
  stages:
    - stage:
        identifier: roll
        name: roll
        type: Deployment
        spec:
          deploymentType: ECS
          service: {serviceRef: web}
          environment: {environmentRef: prod, infrastructureDefinitions: [{identifier: cluster}]}
          execution:
";

/// A request through the test listener is one gate, people are the next one. What fails is taken back by the stage itself.
const ASKING: &str = "
            steps:
              - step:
                  type: EcsRollingDeploy
                  identifier: deploy
                  name: deploy
                  timeout: 10m
                  spec: {engine: native, gates: [POST_TEST_TRAFFIC_SHIFT, PRE_PRODUCTION_TRAFFIC_SHIFT], gateTimeout: 45m}
              - step:
                  type: Http
                  identifier: smoke
                  name: smoke
                  timeout: 1m
                  spec: {url: 'http://127.0.0.1:PORT/test/web', method: GET, assertion: <+httpResponseCode> == 200}
              - step: {type: EcsContinueDeployment, identifier: shift, name: shift, timeout: 10m, spec: {until: NextPause}}
              - step:
                  type: HarnessApproval
                  identifier: ask
                  name: ask
                  timeout: 1d
                  spec: {approvalMessage: 'Deploy?', approvers: {userGroups: [releasers], minimumCount: 1}}
              - step: {type: EcsContinueDeployment, identifier: rest, name: rest, timeout: 10m, spec: {until: End}}
";

/// A measurement is the gate before each step of 25 %. The stage has its own way back.
const MEASURING: &str = "
            steps:
              - step:
                  type: EcsRollingDeploy
                  identifier: deploy
                  name: deploy
                  timeout: 10m
                  spec: {gates: [PRE_PRODUCTION_TRAFFIC_SHIFT], gateTimeout: 45m}
              - step:
                  type: EcsContinueDeployment
                  identifier: quarter
                  name: quarter
                  timeout: 10m
                  spec: {until: Weight, weightPercentage: 25}
              - step:
                  type: Verify
                  identifier: measure
                  name: measure
                  timeout: 20m
                  spec:
                    type: Prometheus
                    spec:
                      connectorRef: prometheus
                      metricName: failing
                      query: max(double_failing_percent{service=\"web\"})
                      threshold: {type: Absolute, spec: {value: 5}}
                    duration: 10m
              - step: {type: EcsContinueDeployment, identifier: rest, name: rest, timeout: 10m, spec: {until: End}}
            rollbackSteps:
              - step: {type: EcsRollingRollback, identifier: back, name: back, timeout: 10m, spec: {}}
";

struct World {
    double: EcsDouble,
    manager: Manager,
    agent: AgentProcess,
    _prometheus: Option<Prometheus>,
    dir: tempfile::TempDir,
}

fn task(image: &str) -> Value {
    json!({"family": "web", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
        "containerDefinitions": [{"name": "app", "image": image, "portMappings": [{"containerPort": 80}]}]})
}

fn service(configuration: &Value) -> Value {
    let group =
        |colour: &str| format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{colour}/1");
    json!({"serviceName": "web", "desiredCount": 2, "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "loadBalancers": [{"targetGroupArn": group("blue"), "containerName": "app", "containerPort": 80, "advancedConfiguration": {
            "alternateTargetGroupArn": group("green"), "productionListenerRule": "arn:rule", "testListenerRule": "arn:test",
            "roleArn": "arn:aws:iam::123456789012:role/infrastructure"}}],
        "deploymentConfiguration": configuration})
}

impl World {
    /// `app:1` serves, by revision `web:1` of a service with this deployment configuration, which the pipeline of these steps
    /// deploys.
    async fn start(configuration: Value, steps: &str, measured: bool) -> World {
        let dir = tempfile::tempdir().unwrap();
        let double = EcsDouble::start();
        double.call("RegisterTaskDefinition", &task("app:1")).unwrap();
        let mut first = service(&configuration);
        first["taskDefinition"] = json!("web:1");
        double.call("CreateService", &first).unwrap();
        double.advance(Duration::from_secs(3600));
        // A stage takes a look or two, not an hour.
        double.pace(Duration::from_secs(60));
        let prometheus = match measured {
            true => {
                Some(Prometheus::scraping(dir.path(), double.port(), "250ms", "double_failing_percent").await)
            }
            false => None,
        };
        let manager = Manager::start(dir.path());
        let endpoint = double.endpoint();
        let env = [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_EC2_METADATA_DISABLED", "true")];
        let agent = AgentProcess::start(&manager, dir.path(), "zone-a", &env);
        manager.set_secret("aws_secret_key", b"aws-secret-of-the-double");
        let entities = ENTITIES
            .replace("TASK", &task("<+pipeline.variables.image>").to_string())
            .replace("SERVICE", &service(&configuration).to_string());
        manager.apply("entities", &entities);
        if let Some(prometheus) = &prometheus {
            let connector =
                "connector: {identifier: prometheus, name: prometheus, type: Prometheus, spec: {url: URL}}";
            let url = format!("'http://127.0.0.1:{}'", prometheus.port);
            manager.apply("prometheus", &connector.replace("URL", &url));
        }
        let steps = steps.replace("PORT", &double.port().to_string());
        manager.apply("native", &format!("{}{}", PIPELINE.trim_end(), steps.trim_end()));
        let world = World { double, manager, agent, _prometheus: prometheus, dir };
        assert_eq!((world.serves(), world.revision()), (only("app:1"), "web:1".to_owned()));
        world
    }

    /// Deploys an image; waits and windows are a hundred times as fast.
    fn begin(&self, image: &str) -> String {
        let input = format!("image={image}");
        self.manager.start_pipeline(&["native", "--input", &input, "--rehearse", "100"])
    }

    async fn ended(&self, execution: &str) -> Value {
        self.manager.finished(execution, LIMIT).await
    }

    fn log(&self, view: &Value) -> String {
        self.manager.ok(&["execution", "logs", view["executionId"].as_str().unwrap()])
    }

    fn listener(&self, name: &str) -> BTreeMap<String, usize> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.double.port()));
        aws::traffic(address, &format!("/{name}/web"), 20)
    }

    /// Who answers twenty clients of production.
    fn serves(&self) -> BTreeMap<String, usize> {
        self.listener("production")
    }

    /// The revision that the service has, `web:2`.
    fn revision(&self) -> String {
        let service = self.double.service("web");
        assert_eq!(service["runningCount"], 2, "{service:#}");
        service["taskDefinition"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    }

    /// What hooks were answered since so many answers.
    fn answers(&self, after: usize) -> Vec<String> {
        let calls = self.double.calls().into_iter().filter(|(name, _)| name == "ContinueServiceDeployment");
        calls.skip(after).map(|(_, input)| input["action"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until people are asked; the approval's id.
    async fn asked(&self, execution: &str) -> String {
        until("it waits for approval", LIMIT, async || {
            let view = self.manager.show(execution);
            let over = ["Success", "Failed", "Aborted"].contains(&view["status"].as_str().unwrap());
            assert!(!over, "{view:#}\n{}", self.log(&view));
            let list = self.manager.json(&["approval", "list", "--output", "json"]);
            let own = list.as_array().unwrap().iter().find(|one| one["executionId"] == execution);
            own.map(|one| one["id"].as_str().unwrap().to_owned())
        })
        .await
    }

    fn decide(&self, key: &str, what: &str, id: &str) {
        let output = self.manager.cli(&["approval", what, id]).env("DELEGATE_API_KEY", key).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The manager's word on a run that went well, against the double's.
    fn deployed(&self, view: &Value, image: &str, revision: &str) {
        assert_eq!(
            (&view["status"], &view["rolledBack"]),
            (&json!("Success"), &json!(false)),
            "{view:#}\n{}",
            self.log(view)
        );
        assert_eq!((self.serves(), self.revision()), (only(image), revision.to_owned()), "{view:#}");
        let deployment = self.double.deployment("web");
        assert_eq!(deployment["status"], "SUCCESSFUL", "{deployment:#}");
        let told = &step(view, "rest")["outputs"];
        assert_eq!(
            (&told["paused"], &told["weight"], &told["serviceDeployment"]),
            (&json!(false), &json!(100.0), &deployment["serviceDeploymentArn"]),
            "{view:#}"
        );
        let tasks: Vec<&Value> = told["instances"].as_array().unwrap().iter().collect();
        assert_eq!(tasks.len(), 2, "{told:#}");
        for task in tasks {
            let definition = task["taskDefinitionArn"].as_str().unwrap();
            assert!(definition.ends_with(revision), "{definition} instead of {revision}");
        }
    }

    /// A step failed, and the double serves what it served before.
    fn taken_back(&self, view: &Value, failed: &str, (image, revision): (&str, &str), before: &Value) {
        let log = self.log(view);
        assert_eq!(
            (&view["status"], &view["rolledBack"], &step(view, failed)["status"]),
            (&json!("Failed"), &json!(true), &json!("Failed")),
            "{view:#}\n{log}"
        );
        assert_eq!((self.serves(), self.revision()), (only(image), revision.to_owned()), "{view:#}\n{log}");
        // The gates are those from before as well.
        let hooks = |configuration: &Value| configuration["lifecycleHooks"].clone();
        assert_eq!(hooks(&self.double.service("web")["deploymentConfiguration"]), hooks(before), "{log}");
        assert_eq!(self.double.deployment("web")["status"], "ROLLBACK_SUCCESSFUL", "{log}");
        assert!(!log.contains("aws-secret-of-the-double"), "{log}");
    }
}

/// All of twenty answers.
fn only(image: &str) -> BTreeMap<String, usize> {
    BTreeMap::from([(image.to_owned(), 20)])
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_blue_green_deployment_passes_requests_and_people_or_is_taken_back() {
    let configuration = json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5});
    let mut world = World::start(configuration, ASKING, false).await;
    let ann = world.manager.add_user("ann@example.com", "releasers");

    // People are asked while the new revision answers at the test listener only. The agent dies meanwhile.
    let execution = world.begin("app:2");
    let id = world.asked(&execution).await;
    let view = world.manager.show(&execution);
    let waits = world.double.deployment("web");
    assert_eq!(
        (&waits["lifecycleStage"], &waits["lifecycleHookDetails"][0]["status"]),
        (&json!("PRE_PRODUCTION_TRAFFIC_SHIFT"), &json!("AWAITING_ACTION")),
        "{waits:#}"
    );
    for (name, stage) in [("deploy", "POST_TEST_TRAFFIC_SHIFT"), ("shift", "PRE_PRODUCTION_TRAFFIC_SHIFT")] {
        let told = &step(&view, name)["outputs"];
        assert_eq!(
            (&told["paused"], &told["stage"], &told["weight"], &told["testWeight"], &told["strategy"]),
            (&json!(true), &json!(stage), &json!(0.0), &json!(100.0), &json!("BLUE_GREEN")),
            "{told:#}"
        );
        assert_eq!(told["serviceDeployment"], waits["serviceDeploymentArn"], "{told:#}");
    }
    assert_eq!((world.serves(), world.listener("test")), (only("app:1"), only("app:2")));
    world.agent.kill9();
    world.agent.launch();
    world.decide(&ann, "approve", &id);
    let view = world.ended(&execution).await;
    world.deployed(&view, "app:2", "web:2");
    assert_eq!(world.answers(0), ["CONTINUE", "CONTINUE"]);
    let before = world.double.service("web")["deploymentConfiguration"].clone();

    // It fails at the test listener: nobody is asked, no client of production gets to see it.
    let execution = world.begin("app:3-sick");
    let view = world.ended(&execution).await;
    world.taken_back(&view, "smoke", ("app:2", "web:2"), &before);
    assert_eq!(world.answers(2), ["ROLLBACK"]);
    assert_eq!(step(&view, "undo_deploy")["status"], "Success", "{view:#}");
    assert!(step(&view, "ask")["approval"].is_null(), "{view:#}");

    // People are asked for longer than the gate waits: ECS goes back by itself, and their word comes too late.
    let execution = world.begin("app:4");
    let id = world.asked(&execution).await;
    world.double.advance(Duration::from_secs(46 * 60));
    assert_eq!(world.double.deployment("web")["status"], "ROLLBACK_SUCCESSFUL");
    world.decide(&ann, "approve", &id);
    let view = world.ended(&execution).await;
    world.taken_back(&view, "rest", ("app:2", "web:2"), &before);
    let failure = &step(&view, "rest")["failure"];
    assert_eq!(failure["code"], "ECS-082", "{failure:#}");
    let said = failure["message"].as_str().unwrap();
    assert!(said.contains("was rolled back by ECS to revision web:2"), "{said}");
    assert_eq!(world.answers(3), ["CONTINUE"], "of the first gate");

    // Somebody says no.
    let execution = world.begin("app:5");
    let id = world.asked(&execution).await;
    world.decide(&ann, "reject", &id);
    let view = world.ended(&execution).await;
    assert_eq!(step(&view, "ask")["status"], "ApprovalRejected", "{view:#}");
    assert_eq!((world.serves(), world.revision()), (only("app:2"), "web:2".to_owned()), "{view:#}");
    assert_eq!(world.answers(4), ["CONTINUE", "ROLLBACK"], "{view:#}");
    assert_eq!(world.double.deployment("web")["status"], "ROLLBACK_SUCCESSFUL");

    // Every call was the agent's, with the pipeline's account, and nothing was begun twice.
    let updates = world
        .double
        .calls()
        .into_iter()
        .filter(|(name, input)| name == "UpdateService" && input["taskDefinition"].is_string());
    assert_eq!(updates.count(), 4, "one deployment each");
    let agent_log = std::fs::read_to_string(world.agent.dir.with_extension("log")).unwrap();
    assert!(!agent_log.contains("aws-secret-of-the-double") && !agent_log.contains(KEY), "{agent_log}");
    drop(world.dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_linear_deployment_is_measured_at_its_gate_and_goes_on_or_is_taken_back() {
    let configuration = json!({"strategy": "LINEAR",
        "linearConfiguration": {"stepPercent": 25, "stepBakeTimeInMinutes": 1}});
    let world = World::start(configuration, MEASURING, true).await;

    let execution = world.begin("app:2");
    until("it is measured", LIMIT, async || {
        let view = world.manager.show(&execution);
        let state = step(&view, "measure")["status"].as_str().unwrap_or_default().to_owned();
        assert!(
            !["Failed", "Skipped", "Success"].contains(&state.as_str()),
            "{view:#}\n{}",
            world.log(&view)
        );
        (state == "Running").then_some(())
    })
    .await;
    // A quarter of the clients, as the manager says.
    let quarter = BTreeMap::from([("app:1".to_owned(), 15), ("app:2".to_owned(), 5)]);
    assert_eq!(world.serves(), quarter);
    let view = world.manager.show(&execution);
    let told = &step(&view, "quarter")["outputs"];
    assert_eq!((&told["paused"], &told["weight"]), (&json!(true), &json!(25.0)), "{told:#}");
    let view = world.ended(&execution).await;
    world.deployed(&view, "app:2", "web:2");
    // Gates before 25, 50, 75 and 100 %.
    assert_eq!(world.answers(0), ["CONTINUE"; 4]);
    assert_eq!(step(&view, "measure")["status"], "Success", "{view:#}");
    assert_eq!(step(&view, "back")["status"], "NotStarted", "{view:#}");

    // A quarter of all requests fails.
    let before = world.double.service("web")["deploymentConfiguration"].clone();
    let execution = world.begin("app:3-sick");
    let view = world.ended(&execution).await;
    world.taken_back(&view, "measure", ("app:2", "web:2"), &before);
    assert_eq!(step(&view, "measure")["failure"]["class"], "Verification", "{view:#}");
    assert_eq!(step(&view, "back")["status"], "Success", "{view:#}");
    assert_eq!(world.answers(4), ["CONTINUE", "ROLLBACK"]);
    assert_eq!(world.double.count("StopServiceDeployment"), 0);
}
