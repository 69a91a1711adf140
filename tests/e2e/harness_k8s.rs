//! K8S_COMMAND_TASK_NG of a Harness manager on a real control plane: a rolling deployment, a canary and its deletion, the next release and its
//! rollback, blue-green with its swaps, where each package says what the answer before it said, as Harness builds them; manifests
//! from a Git repository, rendered, applied and deleted.

use crate::harness_manager::{HarnessManager, LIMIT, detail, ssh_login, units};
use crate::k8s_git_ssh::{repository, with_helm};
use e2e::peers::kube::ControlPlane;
use e2e::peers::sshd::Sshd;
use e2e::wait::until;
use serde_json::{Value, json};

const K8S: &str = "K8S_COMMAND_TASK_NG";

/// URL of the API server.
pub(crate) fn server(plane: &ControlPlane) -> String {
    plane
        .kubectl(&["config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}"])
        .trim()
        .to_owned()
}

/// Certificate of its authority.
pub(crate) fn authority(plane: &ControlPlane) -> String {
    std::fs::read_to_string(plane.dir().join("pki/ca.crt")).unwrap()
}

/// A token of a service account that may do everything.
pub(crate) fn robot(plane: &ControlPlane, namespace: &str) -> String {
    let name = format!("robot-{}", e2e::wait::free_port());
    plane.kubectl(&["create", "serviceaccount", &name, "-n", namespace]);
    let account = format!("--serviceaccount={namespace}:{name}");
    plane.kubectl(&["create", "clusterrolebinding", &name, "--clusterrole=cluster-admin", &account]);
    plane.kubectl(&["create", "token", &name, "-n", namespace]).trim().to_owned()
}

struct World {
    plane: &'static ControlPlane,
    namespace: String,
    token: String,
    manager: HarnessManager,
    dir: tempfile::TempDir,
}

impl World {
    async fn start(name: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let plane = tokio::task::spawn_blocking(ControlPlane::shared).await.unwrap();
        let namespace = format!("harness-{name}");
        plane.kubectl(&["create", "namespace", &namespace]);
        let token = robot(plane, &namespace);
        let manager = HarnessManager::start(dir.path()).await;
        World { plane, namespace, token, manager, dir }
    }

    /// What every request of the family holds.
    fn request(&self, task: &str, more: Value) -> Value {
        let mut all = json!({
            "taskType": task, "commandName": task, "accountId": "acct1", "releaseName": "release-7", "timeoutIntervalInMin": 10,
            "k8sInfraDelegateConfig": {"namespace": self.namespace, "connectorType": "K8sCluster", "kubernetesClusterConfigDTO": {
                    "credential": {"type": "ManualConfig", "spec": {"masterUrl": server(self.plane), "auth": {"type": "ServiceAccount",
                        "spec": {"serviceAccountTokenRef": "account.k8s_token", "caCertRef": "account.k8s_ca"}}}}, "delegateSelectors": []},
                "encryptionDataDetails": [detail("serviceAccountTokenRef", &self.token), detail("caCertRef", &authority(self.plane))],
                "useSocketCapability": false},
            "serviceHooks": [], "valuesYamlList": [], "kustomizePatchesList": [], "openshiftParamList": [], "k8sCommandFlags": {},
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    }

    /// A request with the manifest of this version.
    fn deploy(&self, task: &str, image: &str, more: Value) -> Value {
        let manifest = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: shop-settings}}\ndata: {{image: \"{image}\"}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: shop, labels: {{app: shop}}}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: shop}}}}\n  template:\n    metadata: {{labels: {{app: shop}}}}\n    spec:\n      containers:\n      - {{name: app, image: \"{image}\", envFrom: [{{configMapRef: {{name: shop-settings}}}}]}}\n"
        );
        let mut all = self.request(task, more);
        all["manifestDelegateConfig"] = json!({"manifestType": "K8S_MANIFEST", "storeDelegateConfig": {"type": "INLINE",
            "identifier": "shop", "files": [{"name": "shop.yaml", "content": manifest}]}});
        all
    }

    async fn ok(&mut self, id: &str, data: Value) -> Value {
        let response = self.manager.run(self.manager.package(id, K8S, data)).await;
        assert_eq!(
            (&response["@"], &response["commandExecutionStatus"]),
            (&json!("K8sDeployResponse"), &json!("SUCCESS")),
            "{id}: {response:#}"
        );
        assert!(response["errorMessage"].is_null(), "{response:#}");
        let told = units(&response["commandUnitsProgress"]["unitProgresses"]);
        assert!(
            !told.is_empty() && told.iter().all(|(_, status)| status == "SUCCESS" || status == "SKIPPED"),
            "{told:?}"
        );
        self.manager.answered_once(id);
        response["k8sNGTaskResponse"].clone()
    }

    fn image(&self, deployment: &str) -> String {
        self.field(&format!("deployment/{deployment}"), ".spec.template.spec.containers[0].image")
    }

    /// What stands at a place of an object.
    fn field(&self, object: &str, path: &str) -> String {
        self.plane.kubectl(&["get", object, "-n", &self.namespace, "-o", &format!("jsonpath={{{path}}}")])
    }

    fn is_there(&self, object: &str) -> bool {
        self.plane.try_kubectl(&["get", object, "-n", &self.namespace]).status.success()
    }

    /// The colours that get the requests to `shop` and to `shop-stage`.
    fn colours(&self) -> [String; 2] {
        ["service/shop", "service/shop-stage"].map(|one| self.field(one, ".spec.selector.harness\\.io/color"))
    }

    fn pods(&self) -> Vec<String> {
        let listed = self.plane.kubectl(&["get", "pods", "-n", &self.namespace, "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let alive = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let mut names: Vec<String> = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(alive)
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort_unstable();
        names
    }
}

/// Names of the pods of an answer; what holds of each of them is checked here.
fn told_pods(told: &Value, namespace: &str, image: &str) -> Vec<String> {
    let pods = told["k8sPodList"].as_array().unwrap_or_else(|| panic!("no pods in {told:#}"));
    let mut names = Vec::new();
    for pod in pods {
        assert_eq!(
            (&pod["@"], &pod["namespace"], &pod["releaseName"]),
            (&json!("K8sPod"), &json!(namespace), &json!("release-7")),
            "{pod:#}"
        );
        assert_eq!(pod["containerList"][0]["@"], "K8sContainer", "{pod:#}");
        assert_eq!(pod["containerList"][0]["image"], image, "{pod:#}");
        assert!(pod["uid"].is_string() && pod["labels"].is_object(), "{pod:#}");
        names.push(pod["name"].as_str().unwrap().to_owned());
    }
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_canary_and_rollback_build_on_what_the_answers_said() {
    let mut world = World::start("sequence").await;
    let _agent = world.manager.agent(world.dir.path(), &[]);
    let (one, two) = ("registry.example/shop:1", "registry.example/shop:2");
    let flags = || json!({"skipDryRun": false, "inCanaryWorkflow": false, "pruningEnabled": false, "skipResourceVersioning": false});

    let first = world.ok("roll-1", world.deploy("DEPLOYMENT_ROLLING", one, flags())).await;
    assert_eq!(
        (&first["@"], &first["releaseNumber"]),
        (&json!("K8sRollingDeployResponse"), &json!(1)),
        "{first:#}"
    );
    assert_eq!(told_pods(&first, &world.namespace, one), world.pods());
    assert_eq!((world.image("shop").as_str(), world.pods().len()), (one, 2));
    let lines = world.manager.lines("roll-1", "Apply").await.join("\n");
    assert!(lines.contains("shop"), "{lines}");
    assert!(!world.manager.all_lines().contains(&world.token));

    let canary =
        json!({"instances": 1, "instanceUnitType": "COUNT", "maxInstances": null, "skipDryRun": false});
    let canary = world.ok("canary", world.deploy("CANARY_DEPLOY", two, canary)).await;
    assert_eq!(
        (&canary["@"], &canary["canaryWorkloadDeployed"]),
        (&json!("K8sCanaryDeployResponse"), &json!(true)),
        "{canary:#}"
    );
    assert_eq!(canary["currentInstances"], 1, "{canary:#}");
    let workload = canary["canaryWorkload"].as_str().unwrap();
    assert_eq!(world.image(workload.rsplit('/').next().unwrap()), two);
    assert_eq!(world.pods().len(), 3);

    let told =
        world.ok("canary-delete", world.request("CANARY_DELETE", json!({"canaryWorkloads": workload}))).await;
    assert!(told.is_null(), "{told:#}");
    until("the canary is gone", LIMIT, || std::future::ready((world.pods().len() == 2).then_some(()))).await;

    let mut more = flags();
    more["inCanaryWorkflow"] = json!(true);
    let second = world.ok("roll-2", world.deploy("DEPLOYMENT_ROLLING", two, more)).await;
    let number = second["releaseNumber"].as_u64().unwrap();
    assert!(number > 1, "{second:#}");
    assert_eq!(told_pods(&second, &world.namespace, two), world.pods());
    assert_eq!(world.image("shop"), two);

    let back = world
        .request("DEPLOYMENT_ROLLING_ROLLBACK", json!({"releaseNumber": number, "pruningEnabled": false}));
    let back = world.ok("back", back).await;
    assert_eq!(back["@"], "K8sRollingDeployRollbackResponse", "{back:#}");
    assert_eq!(world.image("shop"), one);
    assert_eq!(told_pods(&back, &world.namespace, one), world.pods());

    let scale = json!({"workload": "Deployment/shop", "instances": 3, "instanceUnitType": "COUNT", "maxInstances": null, "skipSteadyStateCheck": false});
    let scaled = world.ok("scale", world.request("SCALE", scale)).await;
    assert_eq!(scaled["@"], "K8sScaleResponse", "{scaled:#}");
    assert_eq!(world.pods().len(), 3);
    let delete = json!({"resources": "Deployment/shop", "deleteNamespacesForRelease": false, "deleteResourcesType": "ResourceName"});
    world.ok("delete", world.request("DELETE", delete)).await;
    assert!(!world.is_there("deployment/shop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_take_turns_by_what_the_answers_said_and_the_stage_gives_its_pods_back() {
    let mut world = World::start("colours").await;
    let _agent = world.manager.agent(world.dir.path(), &[]);
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {selector: {app: shop}, ports: [{port: 80}]}\n";
    for (number, stage, production) in [(1, "blue", "green"), (2, "green", "blue")] {
        let image = format!("registry.example/shop:{number}");
        let flags = json!({"skipDryRun": false, "pruningEnabled": false, "skipResourceVersioning": false, "skipUnchangedManifest": false});
        let mut data = world.deploy("BLUE_GREEN_DEPLOY", &image, flags);
        let content = &mut data["manifestDelegateConfig"]["storeDelegateConfig"]["files"][0]["content"];
        *content = json!(content.as_str().unwrap().to_owned() + service);
        let told = world.ok(&format!("deploy-{number}"), data).await;
        let wanted = json!({"@": "K8sBGDeployResponse", "primaryColor": production, "stageColor": stage, "primaryServiceName": "shop",
            "stageServiceName": "shop-stage", "stageDeploymentSkipped": false, "releaseNumber": number, "prunedResourceIds": [],
            "helmChartInfo": null});
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(told[name], *value, "{name}: {told:#}");
        }
        // Pods of both colours are told; those of the stage are the new ones.
        let all = told["k8sPodList"].as_array().unwrap();
        let mut names: Vec<&str> = all.iter().map(|pod| pod["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, world.pods());
        let (new, old): (Vec<Value>, Vec<Value>) = all.iter().cloned().partition(|pod| pod["newPod"] == true);
        assert_eq!((new.len(), old.len()), (2, 2 * (number - 1)), "{told:#}");
        told_pods(&json!({"k8sPodList": new}), &world.namespace, &image);
        assert!(new.iter().all(|pod| pod["labels"]["harness.io/color"] == stage), "{new:#?}");
        let workload = format!("shop-{stage}");
        assert_eq!(
            (world.image(&workload), world.colours()),
            (image, [production, stage].map(str::to_owned))
        );

        let services = json!({"service1": told["primaryServiceName"], "service2": told["stageServiceName"]});
        let told =
            world.ok(&format!("swap-{number}"), world.request("SWAP_SERVICE_SELECTORS", services)).await;
        assert!(told.is_null(), "{told:#}");
        assert_eq!(world.colours(), [stage, production]);
    }
    let down = world.request("BLUE_GREEN_STAGE_SCALE_DOWN", json!({"deleteResources": false}));
    let told = world.ok("down", down).await;
    assert!(told.is_null(), "{told:#}");
    let replicas =
        ["deployment/shop-blue", "deployment/shop-green"].map(|one| world.field(one, ".spec.replicas"));
    assert_eq!(replicas, ["0", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_has_no_more_is_pruned_and_comes_back_with_the_rollback() {
    let mut world = World::start("prune").await;
    let _agent = world.manager.agent(world.dir.path(), &[]);
    let flags = || json!({"skipDryRun": false, "inCanaryWorkflow": false, "pruningEnabled": true, "skipResourceVersioning": false});
    let mut data = world.deploy("DEPLOYMENT_ROLLING", "registry.example/shop:1", flags());
    let content = &mut data["manifestDelegateConfig"]["storeDelegateConfig"]["files"][0]["content"];
    let extra = "---\napiVersion: v1\nkind: Service\nmetadata: {name: extra}\nspec: {selector: {app: shop}, ports: [{port: 80}]}\n";
    *content = json!(content.as_str().unwrap().to_owned() + extra);
    let first = world.ok("roll-1", data).await;
    assert_eq!(
        (&first["prunedResourceIds"], world.is_there("service/extra")),
        (&json!([]), true),
        "{first:#}"
    );

    let id = json!([{"@": "KubernetesResourceId", "kind": "Service", "name": "extra", "namespace": world.namespace, "versioned": false}]);
    let second =
        world.ok("roll-2", world.deploy("DEPLOYMENT_ROLLING", "registry.example/shop:2", flags())).await;
    assert_eq!((&second["prunedResourceIds"], world.is_there("service/extra")), (&id, false), "{second:#}");

    let back = json!({"releaseNumber": second["releaseNumber"], "pruningEnabled": true});
    let back = world.ok("back", world.request("DEPLOYMENT_ROLLING_ROLLBACK", back)).await;
    assert_eq!((&back["recreatedResourceIds"], world.is_there("service/extra")), (&id, true), "{back:#}");
    assert_eq!(world.image("shop"), "registry.example/shop:1");
    assert_eq!(told_pods(&back, &world.namespace, "registry.example/shop:1"), world.pods());
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_a_git_repository_are_shown_applied_and_deleted() {
    let mut world = World::start("git").await;
    let sshd = Sshd::start(&world.dir.path().join("ssh"), 1).await;
    let (path, commit) = repository(&sshd, world.dir.path());
    let _agent = world.manager.agent(world.dir.path(), &[("PATH", &with_helm())]);
    let key = std::fs::read_to_string(&sshd.client_key).unwrap();
    let url = format!("ssh://{}@{}:{}{path}", sshd.user, sshd.hosts()[0], sshd.port);
    let of_git = |world: &World, task: &str, more: Value| {
        let mut data = world.request(task, more);
        // The manager has fetched the values itself.
        data["valuesYamlList"] = json!(["level: from the manager\n"]);
        data["manifestDelegateConfig"] = json!({"manifestType": "K8S_MANIFEST", "storeDelegateConfig": {"type": "GIT",
            "connectorName": "shop git", "connectorId": "shopgit", "manifestId": "shop", "branch": "main", "commitId": null, "fetchType": "BRANCH",
            "paths": ["base/", "more/three.yaml"], "gitConfigDTO": {"url": url, "type": "Ssh", "connectionType": "Repo",
                "spec": {"sshKeyRef": "account.ssh_key"}, "delegateSelectors": []},
            "sshKeySpecDTO": ssh_login(&sshd), "encryptedDataDetails": [detail("key", &key)], "apiAuthEncryptedDataDetails": null,
            "optimizedFilesFetch": false}});
        data
    };
    let mut dry = of_git(&world, "DRY_RUN_MANIFEST", json!({}));
    let store = &mut dry["manifestDelegateConfig"]["storeDelegateConfig"];
    store["fetchType"] = json!("COMMIT");
    store["commitId"] = json!(commit);
    let told = world.ok("dry", dry).await;
    assert_eq!(told["@"], "K8sDryRunManifestResponse", "{told:#}");
    let yaml = told["manifestDryRunYaml"].as_str().unwrap();
    for part in ["name: one", "name: two", "name: three", "level: from the manager"] {
        assert!(yaml.contains(part), "{part}: {yaml}");
    }
    assert!(!["one", "two", "three"].iter().any(|name| world.is_there(&format!("configmap/{name}"))));

    let files = json!(["base/one.yaml", "base/two.yaml", "more/three.yaml"]);
    let apply = json!({"filePaths": files, "skipDryRun": false, "skipSteadyStateCheck": false, "skipRendering": false});
    let told = world.ok("apply", of_git(&world, "APPLY", apply)).await;
    assert!(told.is_null(), "{told:#}");
    let levels = ["one", "two", "three"].map(|name| world.field(&format!("configmap/{name}"), ".data.level"));
    assert_eq!(levels, ["plain", "plain", "from the manager"]);
    let log = world.manager.lines("apply", "Fetch Files").await.join("\n");
    assert!(log.contains(&commit), "{log}");

    let by_path = json!({"filePaths": "base/one.yaml", "deleteResourcesType": "ManifestPath"});
    let by_name =
        world.request("DELETE", json!({"resources": "ConfigMap/two", "deleteResourcesType": "ResourceName"}));
    for (id, data) in [("delete-path", of_git(&world, "DELETE", by_path)), ("delete-name", by_name)] {
        let told = world.ok(id, data).await;
        assert!(told.is_null(), "{told:#}");
    }
    let left = ["one", "two", "three"].map(|name| world.is_there(&format!("configmap/{name}")));
    assert_eq!(left, [false, false, true]);
    assert!(!world.manager.all_lines().contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn charts_and_overlays_of_the_file_store_are_deployed() {
    let mut world = World::start("store").await;
    let _agent = world.manager.agent(world.dir.path(), &[("PATH", &with_helm())]);
    let workload = |name: &str, image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: app, image: \"{image}\"}}]}}\n"
        )
    };
    let stored = |world: &World, release: &str, files: &[(&str, String)], config: Value| {
        let mut data =
            world.request("DEPLOYMENT_ROLLING", json!({"releaseName": release, "skipDryRun": false}));
        let file = |(path, content): &(&str, String)| json!({"fileName": path.rsplit('/').next(), "filePath": format!("/{path}"), "fileContent": content});
        let files: Vec<Value> = files.iter().map(file).collect();
        data["manifestDelegateConfig"] = json!({"storeDelegateConfig": {"type": "HARNESS", "manifestIdentifier": "shop",
            "manifestFiles": files}});
        data["manifestDelegateConfig"].as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        data
    };

    let chart = [
        ("charts/shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.4.0\n".to_owned()),
        ("charts/shop/values.yaml", "image: registry.example/shop:0\n".to_owned()),
        ("charts/shop/templates/web.yaml", workload("{{ .Chart.Name }}", "{{ .Values.image }}")),
    ];
    let config = json!({"manifestType": "HELM_CHART", "helmVersion": "V380", "helmCommandFlag": null});
    let mut data = stored(&world, "release-7", &chart, config);
    data["valuesYamlList"] = json!(["image: registry.example/shop:1\n"]);
    let told = world.ok("chart", data).await;
    assert_eq!(
        (&told["@"], &told["releaseNumber"]),
        (&json!("K8sRollingDeployResponse"), &json!(1)),
        "{told:#}"
    );
    let info = json!({"@": "HelmChartInfo", "name": "shop", "version": "1.4.0", "repoUrl": null, "subChartPath": null});
    assert_eq!(told["helmChartInfo"], info);
    assert_eq!(told_pods(&told, &world.namespace, "registry.example/shop:1"), world.pods());

    let overlay = [
        ("base/kustomization.yaml", "resources: [web.yaml]\n".to_owned()),
        ("base/web.yaml", workload("front", "registry.example/front:1")),
        (
            "overlays/prod/kustomization.yaml",
            "resources: [../../base]\nimages: [{name: registry.example/front, newTag: \"2\"}]\n".to_owned(),
        ),
    ];
    let config =
        json!({"manifestType": "KUSTOMIZE", "kustomizeDirPath": "overlays/prod", "pluginPath": null});
    let mut data = stored(&world, "release-8", &overlay, config);
    data["kustomizePatchesList"] =
        json!(["apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: front}\nspec: {replicas: 1}\n"]);
    let told = world.ok("overlay", data).await;
    assert!(told["helmChartInfo"].is_null(), "{told:#}");
    let pods = told["k8sPodList"].as_array().unwrap();
    assert_eq!((pods.len(), &pods[0]["releaseName"]), (1, &json!("release-8")), "{told:#}");
    assert_eq!(pods[0]["containerList"][0]["image"], "registry.example/front:2", "{told:#}");
    assert_eq!(
        (world.image("front").as_str(), world.field("deployment/front", ".spec.replicas").as_str()),
        ("registry.example/front:2", "1")
    );
    assert_eq!(world.image("shop"), "registry.example/shop:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_timeout_abort_and_a_kill_in_the_middle() {
    let mut world = World::start("trouble").await;
    let mut agent = world.manager.agent(world.dir.path(), &[]);
    let image = "registry.example/shop:1";
    // Pods count as available only after so many seconds: until then the step waits.
    let slow = |world: &World, seconds: u32| {
        let flags = json!({"skipDryRun": false, "inCanaryWorkflow": false, "pruningEnabled": false});
        let mut data = world.deploy("DEPLOYMENT_ROLLING", image, flags);
        let content = &mut data["manifestDelegateConfig"]["storeDelegateConfig"]["files"][0]["content"];
        let text = content
            .as_str()
            .unwrap()
            .replace("replicas: 2", &format!("replicas: 2\n  minReadySeconds: {seconds}"));
        *content = json!(text);
        data
    };

    let mut late = world.manager.package("late", K8S, slow(&world, 500));
    late["timeout"] = json!(12_000);
    let response = world.manager.run(late).await;
    assert_eq!(
        (&response["@"], &response["failureTypes"]),
        (&json!("ErrorNotifyResponseData"), &json!(["TIMEOUT_ERROR"])),
        "{response:#}"
    );

    world.manager.offer(world.manager.package("gone", K8S, slow(&world, 500)));
    waits(&world, "gone").await;
    world.manager.abort("gone");
    let response = world.manager.answer("gone").await["response"].clone();
    assert_eq!(
        (&response["@"], &response["commandExecutionStatus"]),
        (&json!("K8sDeployResponse"), &json!("FAILURE")),
        "{response:#}"
    );
    let told = units(&response["commandUnitsProgress"]["unitProgresses"]);
    assert!(told.contains(&("Wait for Steady State".to_owned(), "FAILURE".to_owned())), "{told:?}");

    world.manager.offer(world.manager.package("kill", K8S, slow(&world, 20)));
    waits(&world, "kill").await;
    agent.kill9();
    agent.launch();
    let response = world.manager.answer("kill").await["response"].clone();
    assert_eq!(response["commandExecutionStatus"], "SUCCESS", "{response:#}");
    let told = &response["k8sNGTaskResponse"];
    assert_eq!(told_pods(told, &world.namespace, image), world.pods());
    // One release for one task, however often it was begun.
    let number = told["releaseNumber"].as_u64().unwrap();
    assert_eq!(number, 3, "{told:#}");

    let mut wrong = slow(&world, 0);
    wrong["manifestDelegateConfig"]["storeDelegateConfig"]["files"][0]["content"] =
        json!("apiVersion: v9\nkind: Nonsense\nmetadata: {name: x}\n");
    let response = world.manager.run(world.manager.package("wrong", K8S, wrong)).await;
    assert_eq!(
        (&response["@"], &response["commandExecutionStatus"]),
        (&json!("K8sDeployResponse"), &json!("FAILURE")),
        "{response:#}"
    );
    assert!(response["errorMessage"].as_str().unwrap().contains("Nonsense"), "{response:#}");
    for task in ["late", "gone", "kill", "wrong"] {
        world.manager.answered_once(task);
    }
}

/// Waits until a rolling deployment waits for its pods.
async fn waits(world: &World, id: &str) {
    until("it waits for a steady state", LIMIT, || {
        std::future::ready(
            world.manager.lines_now(id, "Wait for Steady State").filter(|lines| !lines.is_empty()),
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_with_a_failure_and_touch_no_cluster() {
    let mut world = World::start("bad").await;
    let _agent = world.manager.agent(world.dir.path(), &[]);
    let fine = || world.deploy("DEPLOYMENT_ROLLING", "registry.example/shop:1", json!({}));
    let mut all = Vec::new();
    let mut add = |id: &'static str, code: &'static str, change: fn(&mut Value)| {
        let mut data = fine();
        change(&mut data);
        all.push((id, code, data));
    };
    add("newer", "HRN-004", |data| data["taskType"] = json!("TELEPORT"));
    add("typeless", "HRN-003", |data| drop(data.as_object_mut().unwrap().remove("taskType")));
    add("cloud", "HRN-004", |data| {
        data["k8sInfraDelegateConfig"] = json!({"namespace": "x", "gcpConnectorDTO": {}})
    });
    add("hooks", "HRN-004", |data| data["serviceHooks"] = json!([{"identifier": "h"}]));
    add("store", "HRN-004", |data| {
        data["manifestDelegateConfig"]["storeDelegateConfig"]["type"] = json!("S3_HELM")
    });
    add("empty", "HRN-003", |data| {
        data["manifestDelegateConfig"]["storeDelegateConfig"]["files"] = json!([])
    });
    add("leaves", "HRN-003", |data| {
        data["manifestDelegateConfig"]["storeDelegateConfig"]["files"][0]["name"] = json!("../x.yaml")
    });
    add("number", "HRN-003", |data| data["k8sInfraDelegateConfig"]["namespace"] = json!(7));
    for (id, code, data) in all {
        let response = world.manager.run(world.manager.package(id, K8S, data)).await;
        assert_eq!(
            (&response["@"], &response["commandExecutionStatus"]),
            (&json!("K8sDeployResponse"), &json!("FAILURE")),
            "{id}: {response:#}"
        );
        assert!(response["commandUnitsProgress"].is_object(), "{id}: the manager uses it without asking");
        let text = response["errorMessage"].as_str().unwrap();
        assert!(text.ends_with(&format!("[{code}]")), "{id}: {text}");
        world.manager.answered_once(id);
    }
    let left =
        world.plane.kubectl(&["get", "deployments,configmaps,secrets", "-n", &world.namespace, "-o", "name"]);
    assert!(!left.contains("shop") && !left.contains("release-7"), "{left}");
}
