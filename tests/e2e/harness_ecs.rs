//! ECS_COMMAND_TASK_NG of a Harness manager on a small AWS region: rolling deployments with their failure and rollback,
//! blue-green from the first deployment over a swap to its rollback, where each package says what the answers before it said,
//! as Harness builds them; a canary with its deletion, and one-off tasks. `harness_ecs_trouble` has what ends otherwise.

use crate::harness_manager::{HarnessManager, detail, units};
use e2e::peers::aws::{Balancer, Clients, Ecs, Place, REGION, has_share};
use serde_json::{Value, json};

pub(crate) const ECS: &str = "ECS_COMMAND_TASK_NG";
/// Nobody may see it.
const SECRET: &str = "pl4nted/secret+access-key";
/// What the manager puts where the target group of the stage goes.
pub(crate) const WORD: &str = "1733740000000targetGroup";
const INFRASTRUCTURE: &str = "9f3c";

pub(crate) struct World {
    pub(crate) place: Place<'static>,
    pub(crate) manager: HarnessManager,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start(name: &'static str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let place = tokio::task::spawn_blocking(move || Place::new(Ecs::shared(), name)).await.unwrap();
        let manager = HarnessManager::start(dir.path()).await;
        World { place, manager, dir }
    }

    pub(crate) fn agent(&self) -> e2e::world::AgentProcess {
        let env = self.place.ecs.env();
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.manager.agent(self.dir.path(), &env)
    }

    /// What every request of the family holds.
    pub(crate) fn request(&self, command: &str, more: Value) -> Value {
        let mut all = json!({
            "accountId": "acct1", "ecsCommandType": command, "commandName": command, "timeoutIntervalInMin": 10,
            "commandUnitsProgress": {"commandUnitProgressMap": {}},
            "ecsInfraConfig": {"ecsInfraType": "ECS", "region": REGION, "cluster": self.place.name,
                "infraStructureKey": INFRASTRUCTURE, "connectorType": "Aws",
                "awsConnectorDTO": {"credential": {"type": "ManualConfig", "crossAccountAccess": null, "region": null,
                    "spec": {"accessKey": self.place.key, "accessKeyRef": null, "secretKeyRef": "account.aws_secret"}},
                    "delegateSelectors": []},
                "encryptionDataDetails": [detail("secretKeyRef", SECRET)]},
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    }

    /// The definitions of service `web`, whose application answers `tag`.
    pub(crate) fn definitions(&self, tag: &str, behaviour: &str, group: Option<&str>) -> Value {
        let repository = format!("app-{}", self.place.name);
        let image = self.place.ecs.image(&repository, tag, behaviour).0;
        json!({"ecsTaskDefinitionManifestContent": self.place.definition(&format!("{}-web", self.place.name), &image).to_string(),
            "ecsServiceDefinitionManifestContent": self.service(group), "ecsScalableTargetManifestContentList": [],
            "ecsScalingPolicyManifestContentList": [], "sameAsAlreadyRunningInstances": false, "forceNewDeployment": false})
    }

    pub(crate) fn service(&self, group: Option<&str>) -> String {
        let count = if group.is_some() { 1 } else { 2 };
        let mut service = self.place.service("web", "x", count, group);
        for key in ["cluster", "taskDefinition"] {
            service.as_object_mut().unwrap().remove(key);
        }
        service.to_string()
    }

    /// The whole response to a request.
    pub(crate) async fn response(&mut self, id: &str, data: Value) -> Value {
        let response = self.manager.run(self.manager.package(id, ECS, data)).await;
        self.manager.answered_once(id);
        assert!(!self.manager.all_lines().contains(SECRET), "{id}");
        response
    }

    /// The result of a request that succeeds, which stands in `field` of the response class `class`.
    pub(crate) async fn ok(&mut self, id: &str, data: Value, class: &str, field: &str) -> Value {
        let response = self.response(id, data).await;
        succeeded(&response, class, field)
    }

    pub(crate) async fn prepared(&mut self, id: &str) -> Value {
        let data = self.request(
            "ECS_PREPARE_ROLLBACK_DATA",
            json!({"ecsServiceDefinitionManifestContent": self.service(None)}),
        );
        self.ok(id, data, "EcsPrepareRollbackDataResponse", "ecsPrepareRollbackDataResult").await
    }

    pub(crate) fn deploy(&self, tag: &str, behaviour: &str) -> Value {
        self.request("ECS_ROLLING_DEPLOY", self.definitions(tag, behaviour, None))
    }

    /// The package that Harness makes of the answer to the recording task.
    pub(crate) fn rollback(&self, prepared: &Value) -> Value {
        let of = |name: &str| prepared[name].clone();
        let config = json!({"serviceName": of("serviceName"), "firstDeployment": of("isFirstDeployment"),
            "createServiceRequestBuilderString": of("createServiceRequestBuilderString"),
            "registerScalableTargetRequestBuilderStrings": of("registerScalableTargetRequestBuilderStrings"),
            "registerScalingPolicyRequestBuilderStrings": of("registerScalingPolicyRequestBuilderStrings")});
        self.request("ECS_ROLLING_ROLLBACK", json!({"ecsRollingRollbackConfig": config}))
    }

    /// Field by field what runs: the tasks of an answer are those of the service.
    pub(crate) fn same_tasks(&self, told: &Value, service: &str) {
        let told = told["ecsTasks"].as_array().unwrap_or_else(|| panic!("no tasks in {told:#}"));
        let mut live = self.place.tasks(Some(service), "RUNNING");
        live.retain(|task| task["lastStatus"] == "RUNNING");
        assert_eq!(told.len(), live.len(), "{told:#?}");
        for task in live {
            let one = told
                .iter()
                .find(|one| one["taskArn"] == task["taskArn"])
                .unwrap_or_else(|| panic!("{task:#}"));
            assert_eq!((&one["@"], &one["serviceName"]), (&json!("EcsTask"), &json!(service)));
            for field in ["clusterArn", "taskDefinitionArn", "launchType", "startedBy"] {
                assert_eq!(one[field], task[field], "{field}: {one:#}");
            }
            assert!(one["startedAt"].as_i64().is_some_and(|at| at > 1_600_000_000_000), "{one:#}");
            let container = &one["containers"][0];
            assert_eq!(container["@"], "EcsContainer");
            for field in ["containerArn", "image", "name", "runtimeId"] {
                assert_eq!(container[field], task["containers"][0][field], "{field}: {one:#}");
            }
        }
    }

    /// A one-off task of the family `job`, whose program does `behaviour`.
    pub(crate) fn one_off(&self, tag: &str, behaviour: &str) -> Value {
        let image = self.place.ecs.image(&format!("job-{}", self.place.name), tag, behaviour).0;
        let definition = self.place.definition(&self.job(), &image);
        let request =
            json!({"launchType": "FARGATE", "count": 1, "networkConfiguration": self.place.network()});
        self.request(
            "ECS_RUN_TASK",
            json!({"ecsTaskDefinitionManifestContent": definition.to_string(),
                "ecsRunTaskRequestDefinitionManifestContent": request.to_string(), "skipSteadyStateCheck": false}),
        )
    }

    fn job(&self) -> String {
        format!("{}-job", self.place.name)
    }

    /// One-off tasks that should run (`RUNNING`) or end (`STOPPED`).
    pub(crate) fn jobs(&self, desired: &str) -> Vec<Value> {
        let mut all = self.place.tasks(None, desired);
        all.retain(|task| task["taskDefinitionArn"].as_str().unwrap().contains(&self.job()));
        all
    }

    pub(crate) fn revision(&self) -> Value {
        self.place.describe("web")["taskDefinition"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_deployments_fail_and_go_back_by_what_the_answers_said() {
    let mut world = World::start("harnessroll").await;
    let _agent = world.agent();
    let first = world.prepared("prepare-1").await;
    assert_eq!((&first["serviceName"], &first["isFirstDeployment"]), (&json!("web"), &json!(true)));
    let data = world.deploy("1", "web");
    let told = world.ok("deploy-1", data, "EcsRollingDeployResponse", "ecsRollingDeployResult").await;
    assert_eq!((&told["serviceName"], &told["region"]), (&json!("web"), &json!(REGION)), "{told:#}");
    world.same_tasks(&told, "web");
    assert!(world.manager.lines("deploy-1", "Deploy").await.join("\n").contains("web"));
    let one = world.revision();

    // A revision whose tasks end at once: AWS rolls it back, and the answer says so.
    let before = world.prepared("prepare-2").await;
    assert_eq!(before["isFirstDeployment"], false);
    let data = world.deploy("2", "crash");
    let response = world.response("deploy-2", data).await;
    failed(&response, "EcsRollingDeployResponse", "ecsRollingDeployResult", "Deploy");
    let text = response["errorMessage"].as_str().unwrap();
    assert!(text.contains("[ECS-030]") && text.contains("web"), "{text}");
    let data = world.rollback(&before);
    world.ok("back-2", data, "EcsRollingRollbackResponse", "ecsRollingRollbackResult").await;
    assert_eq!(world.revision(), one);

    // A good one, and back.
    let before = world.prepared("prepare-3").await;
    let data = world.deploy("3", "web");
    world.ok("deploy-3", data, "EcsRollingDeployResponse", "ecsRollingDeployResult").await;
    assert_ne!(world.revision(), one);
    // What a Java delegate would have written is refused before anything is asked of AWS.
    let mut foreign = world.rollback(&before);
    foreign["ecsRollingRollbackConfig"]["createServiceRequestBuilderString"] =
        json!("serviceName: web\ndesiredCount: 1\n");
    let number = world.place.ecs.calls(0).last().map_or(0, |call| call.number);
    let response = world.response("back-foreign", foreign).await;
    assert_eq!(response["@"], "EcsRollingRollbackResponse", "{response:#}");
    assert_eq!(response["commandExecutionStatus"], "FAILURE", "{response:#}");
    assert!(response["errorMessage"].as_str().unwrap().contains("another kind of delegate"), "{response:#}");
    assert_eq!(world.place.calls(number), Vec::<String>::new());
    let data = world.rollback(&before);
    let told = world.ok("back-3", data, "EcsRollingRollbackResponse", "ecsRollingRollbackResult").await;
    assert_eq!(
        (&told["firstDeployment"], &told["infrastructureKey"], &told["region"]),
        (&json!(false), &json!(INFRASTRUCTURE), &json!(REGION))
    );
    world.same_tasks(&told, "web");
    assert_eq!(world.revision(), one);

    // The first deployment of all goes back to nothing.
    let data = world.rollback(&first);
    let told = world.ok("back-1", data, "EcsRollingRollbackResponse", "ecsRollingRollbackResult").await;
    assert_eq!((&told["firstDeployment"], &told["ecsTasks"]), (&json!(true), &json!([])));
    assert_eq!(world.place.describe("web")["status"], "INACTIVE");
}

/// The class of the answer to a swap, and the field of its result.
pub(crate) const SWAPPED: (&str, &str) =
    ("EcsBlueGreenSwapTargetGroupsResponse", "ecsBlueGreenSwapTargetGroupsResult");

/// A load balancer with two listeners.
pub(crate) struct Town {
    balancer: Balancer<'static>,
    pub(crate) one: String,
    pub(crate) two: String,
    pub(crate) production: String,
    stage: String,
}

impl Town {
    pub(crate) fn new(place: &Place<'static>) -> Town {
        let balancer = place.balancer("lb");
        let (one, two) = (balancer.group("one"), balancer.group("two"));
        let production = balancer.listener(80, &[(&one, 1)]);
        let stage = balancer.listener(9001, &[(&two, 1)]);
        Town { balancer, one, two, production, stage }
    }

    /// The load balancer as the step of the pipeline names it.
    fn named(&self) -> Value {
        json!({"loadBalancer": self.balancer.name, "prodListenerArn": self.production, "prodListenerRuleArn": null,
            "prodTargetGroupArn": null, "stageListenerArn": self.stage, "stageListenerRuleArn": null, "stageTargetGroupArn": null})
    }

    /// As the answers say it: with the target groups.
    fn told(&self, production: &str, stage: &str) -> Value {
        let mut all = self.named();
        all["prodTargetGroupArn"] = json!(production);
        all["stageTargetGroupArn"] = json!(stage);
        all
    }
}

/// The fields of `wanted` in an answer.
fn holds(told: &Value, wanted: &Value) {
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(told[name], *value, "{name}: {told:#}");
    }
}

/// The result in a response that tells of a success.
pub(crate) fn succeeded(response: &Value, class: &str, field: &str) -> Value {
    assert_eq!(
        (&response["@"], &response["commandExecutionStatus"], &response["errorMessage"]),
        (&json!(class), &json!("SUCCESS"), &Value::Null),
        "{response:#}"
    );
    let told = units(&response["unitProgressData"]["unitProgresses"]);
    assert!(!told.is_empty() && told.iter().all(|(_, status)| status == "SUCCESS"), "{told:?}");
    response[field].clone()
}

/// A failure that is told by the family's own response, whose last unit it is.
pub(crate) fn failed(response: &Value, class: &str, field: &str, unit: &str) {
    assert_eq!(
        (&response["@"], &response["commandExecutionStatus"], &response[field]),
        (&json!(class), &json!("FAILURE"), &Value::Null),
        "{response:#}"
    );
    let told = units(&response["unitProgressData"]["unitProgresses"]);
    assert_eq!(told.last().unwrap(), &(unit.to_owned(), "FAILURE".to_owned()), "{told:?}");
}

/// What one blue-green deployment was told.
pub(crate) struct Deployed {
    prepared: Value,
    created: Value,
}

impl Deployed {
    /// The package that Harness makes of the answers for the swap.
    pub(crate) fn swap(&self, world: &World) -> Value {
        let (prepared, created) = (&self.prepared, &self.created);
        world.request(
            "ECS_BLUE_GREEN_SWAP_TARGET_GROUPS",
            json!({"ecsLoadBalancerConfig": prepared["ecsLoadBalancerConfig"], "oldServiceName": prepared["serviceName"],
                "newServiceName": created["serviceName"], "firstDeployment": prepared["isFirstDeployment"],
                "doNotDownsizeOldService": false, "downsizeOldServiceDelayInSecs": 0}),
        )
    }

    /// The target groups have been swapped, and the answer says so.
    pub(crate) fn is_swapped(
        &self,
        world: &World,
        town: &Town,
        told: &Value,
        (production, stage): (&str, &str),
    ) {
        holds(told, &town.told(production, stage));
        holds(told, &json!({"trafficShifted": true, "infrastructureKey": INFRASTRUCTURE, "region": REGION}));
        world.same_tasks(told, self.created["serviceName"].as_str().unwrap());
    }
}

/// Green as far as it can be had without a client noticing.
pub(crate) async fn created(
    world: &mut World,
    town: &Town,
    tag: &str,
    groups: (&str, &str),
    names: (Value, &str),
) -> Deployed {
    let (production, stage) = groups;
    let (blue, green) = names;
    let service = world.service(Some(WORD));
    let data = world.request(
        "ECS_BLUE_GREEN_PREPARE_ROLLBACK_DATA",
        json!({"ecsServiceDefinitionManifestContent": service, "ecsLoadBalancerConfig": town.named()}),
    );
    let prepared = world
        .ok(
            &format!("prepare-{tag}"),
            data,
            "EcsBlueGreenPrepareRollbackDataResponse",
            "ecsBlueGreenPrepareRollbackDataResult",
        )
        .await;
    assert_eq!((&prepared["serviceName"], &prepared["isFirstDeployment"]), (&blue, &json!(blue.is_null())));
    holds(&prepared["ecsLoadBalancerConfig"], &town.told(production, stage));

    let mut more = world.definitions(tag, "web", Some(WORD));
    more["targetGroupArnKey"] = json!(WORD);
    // The manager takes the groups from the answer, and the rest from the step.
    more["ecsLoadBalancerConfig"] = town.named();
    for name in ["prodTargetGroupArn", "stageTargetGroupArn"] {
        more["ecsLoadBalancerConfig"][name] = prepared["ecsLoadBalancerConfig"][name].clone();
    }
    let data = world.request("ECS_BLUE_GREEN_CREATE_SERVICE", more);
    let created = world
        .ok(
            &format!("create-{tag}"),
            data,
            "EcsBlueGreenCreateServiceResponse",
            "ecsBlueGreenCreateServiceResult",
        )
        .await;
    holds(
        &created,
        &json!({"isNewServiceCreated": true, "serviceName": green, "targetGroupArn": stage, "listenerArn": town.stage,
            "loadBalancer": town.balancer.name, "region": REGION}),
    );
    world.same_tasks(&created, green);
    has_share(world.place.ecs.door(&town.stage), tag, 1.0, 5).unwrap();

    Deployed { prepared, created }
}

async fn blue_green(
    world: &mut World,
    town: &Town,
    tag: &str,
    groups: (&str, &str),
    names: (Value, &str),
) -> Deployed {
    let deployed = created(world, town, tag, groups, names).await;
    let data = deployed.swap(world);
    let swapped = world.ok(&format!("swap-{tag}"), data, SWAPPED.0, SWAPPED.1).await;
    deployed.is_swapped(world, town, &swapped, groups);
    has_share(world.place.ecs.door(&town.production), tag, 1.0, 20).unwrap();
    deployed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_comes_and_goes_and_a_task_runs_once() {
    let mut world = World::start("harnesscanary").await;
    let _agent = world.agent();
    let base = world.place.ecs.image("app-harnesscanary", "1", "web").0;
    let one = world.place.register("harnesscanary-web", &base);
    world.place.run("web", &one, 1, None);

    let mut more = world.definitions("2", "web", None);
    more["desiredCountOverride"] = json!(1);
    more["ecsServiceNameSuffix"] = json!("Canary");
    let data = world.request("ECS_CANARY_DEPLOY", more);
    let told = world.ok("canary", data, "EcsCanaryDeployResponse", "ecsCanaryDeployResult").await;
    holds(&told, &json!({"@": "EcsCanaryDeployResult", "canaryServiceName": "webCanary", "region": REGION}));
    assert_eq!(told["ecsTasks"].as_array().map(Vec::len), Some(1), "{told:#}");
    world.same_tasks(&told, "webCanary");
    assert_ne!(told["ecsTasks"][0]["taskDefinitionArn"], one);

    // The second time there is nothing left to delete, and that is no failure.
    for (id, deleted) in [("delete", true), ("delete-again", false)] {
        let more = json!({"ecsServiceDefinitionManifestContent": world.service(None), "ecsServiceNameSuffix": "Canary"});
        let data = world.request("ECS_CANARY_DELETE", more);
        let told = world.ok(id, data, "EcsCanaryDeleteResponse", "ecsCanaryDeleteResult").await;
        let wanted =
            json!({"@": "EcsCanaryDeleteResult", "canaryDeleted": deleted, "canaryServiceName": "webCanary"});
        assert_eq!(told, wanted);
        assert_eq!(world.place.describe("webCanary")["status"], "INACTIVE");
    }
    let live = world.place.describe("web");
    assert_eq!((&live["taskDefinition"], &live["runningCount"]), (&json!(one), &json!(1)));

    let data = world.one_off("1", "job 0 migrated 7 tables");
    let told = world.ok("job", data, "EcsRunTaskResponse", "ecsRunTaskResult").await;
    assert_eq!((&told["@"], &told["region"]), (&json!("EcsRunTaskResult"), &json!(REGION)), "{told:#}");
    let jobs = world.jobs("STOPPED");
    let arns: Vec<&Value> = told["ecsTasks"].as_array().unwrap().iter().map(|one| &one["taskArn"]).collect();
    assert_eq!((jobs.len(), arns), (1, vec![&jobs[0]["taskArn"]]), "{told:#}");
    let lines = world.manager.lines("job", "Run Task").await;
    assert!(lines.iter().any(|line| line.contains("migrated")), "{lines:?}");

    // One that ends with 3 is a failure, which says so.
    let data = world.one_off("2", "job 3 halfway");
    let response = world.response("job-fails", data).await;
    failed(&response, "EcsRunTaskResponse", "ecsRunTaskResult", "Run Task");
    assert!(response["errorMessage"].as_str().unwrap().contains("exit code 3"), "{response:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_is_created_swapped_and_rolled_back_by_what_the_answers_said() {
    let mut world = World::start("harnesspair").await;
    let town = Town::new(&world.place);
    let _agent = world.agent();
    let (one, two) = (town.one.clone(), town.two.clone());
    blue_green(&mut world, &town, "1", (&one, &two), (Value::Null, "web__1")).await;
    let door = world.place.ecs.door(&town.production);
    let clients = Clients::start(door);
    let second = blue_green(&mut world, &town, "2", (&two, &one), (json!("web__1"), "web__2")).await;
    assert_eq!(world.place.describe("web__1")["desiredCount"], 0);

    let (prepared, created) = (&second.prepared, &second.created);
    let data = world.request(
        "ECS_BLUE_GREEN_ROLLBACK",
        json!({"ecsLoadBalancerConfig": prepared["ecsLoadBalancerConfig"], "oldServiceName": prepared["serviceName"],
            "newServiceName": created["serviceName"], "firstDeployment": prepared["isFirstDeployment"],
            "newServiceCreated": created["isNewServiceCreated"], "targetShiftStarted": true,
            "oldServiceCreateRequestBuilderString": prepared["createServiceRequestBuilderString"],
            "oldServiceScalableTargetManifestContentList": prepared["registerScalableTargetRequestBuilderStrings"],
            "oldServiceScalingPolicyManifestContentList": prepared["registerScalingPolicyRequestBuilderStrings"]}),
    );
    let rolled =
        world.ok("rollback", data, "EcsBlueGreenRollbackResponse", "ecsBlueGreenRollbackResult").await;
    holds(&rolled, &town.told(&two, &one));
    holds(
        &rolled,
        &json!({"isFirstDeployment": false, "infrastructureKey": INFRASTRUCTURE, "region": REGION}),
    );
    world.same_tasks(&rolled, "web__1");
    assert_eq!(world.place.describe("web__1")["desiredCount"], 1);
    assert_eq!(world.place.describe("web__2")["status"], "INACTIVE");
    has_share(door, "1", 1.0, 20).unwrap();
    let seen = clients.stop();
    assert!(seen.keys().all(|body| body == "1" || body == "2"), "{seen:?}");
}
