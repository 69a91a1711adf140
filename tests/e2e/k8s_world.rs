//! The seed's Kubernetes world: two control planes with one agent each, the configuration repository, people with keys.

use e2e::peers::kube::{ControlPlane, tool};
use e2e::peers::web::GitServer;
use e2e::wait::until;
use e2e::world::{AgentProcess, Manager, step, steps};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a whole run may take on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// A folder of this package.
pub(crate) fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The manifest of the seed's Git repository: image with the placeholder, settings, a Service.
pub(crate) fn manifest(replicas: u32) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata:
  name: payment-settings
  labels: {{app: payment-service}}
data:
  level: info
---
apiVersion: v1
kind: Service
metadata:
  name: payment-service
  labels: {{app: payment-service}}
spec:
  selector: {{app: payment-service}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: payment-service
  labels: {{app: payment-service}}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: payment-service}}
  template:
    metadata:
      labels: {{app: payment-service}}
    spec:
      containers:
      - name: app
        image: registry.example.com/payments/payment-service:PLACEHOLDER_TAG
        envFrom: [{{configMapRef: {{name: payment-settings}}}}]
        ports: [{{containerPort: 8080}}]
"
    )
}

/// The path of the manifest in the repository, as the seed writes it.
fn path_of(environment: &str) -> String {
    format!("generated/payment-service/{environment}/euw1/manifests.yaml")
}

/// The change window of the example policies, around now or away from now.
fn window(open: bool) -> String {
    let text =
        std::fs::read_to_string(package("../deploy/examples/policies/prod_change_window.yaml")).unwrap();
    let days = r#"{"MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY"}"#;
    let hours = r#"hh >= "10"; hh < "16""#;
    assert!(text.contains(days) && text.contains(hours), "the example policy has another text: {text}");
    let all = r#"{"MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"}"#;
    let never = r#"{"NODAY"}"#;
    text.replace(days, if open { all } else { never }).replace(hours, r#"hh >= "00"; hh < "24""#)
}

/// One cluster with its agent.
pub(crate) struct Zone {
    pub(crate) plane: ControlPlane,
    pub(crate) agent: Option<AgentProcess>,
    environment: &'static str,
}

impl Zone {
    /// Namespace of the seed's pipeline.
    pub(crate) fn namespace(&self) -> String {
        format!("{}-payment-service-euw1", self.environment)
    }

    /// Objects of a kind in the namespace, as the API server has them.
    pub(crate) fn objects(&self, kind: &str) -> Vec<Value> {
        let text = self.plane.kubectl(&["get", kind, "-n", &self.namespace(), "-o", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// One object; `None` when it is not there.
    pub(crate) fn object(&self, kind: &str, name: &str) -> Option<Value> {
        self.objects(kind).into_iter().find(|one| one["metadata"]["name"] == name)
    }

    /// The image of the Deployment, and how many replicas it has.
    pub(crate) fn deployed(&self) -> (String, u64) {
        let found = self.object("deployments", "payment-service").expect("the Deployment");
        let image = found["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
        (image.to_owned(), found["spec"]["replicas"].as_u64().unwrap())
    }
}

/// Everything. Fields that begin with `_` only live as long as it.
pub(crate) struct World {
    pub(crate) manager: Manager,
    pub(crate) int: Zone,
    pub(crate) prod: Zone,
    pub(crate) keys: BTreeMap<&'static str, String>,
    git: GitServer,
    revision: u32,
    /// `name:port=address:port`, for every agent that is connected from then on.
    pub(crate) aliases: String,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    /// Starts everything and applies the seed with its entities. `agents`: for `int`, for `prod`.
    pub(crate) async fn start(agents: (bool, bool)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let planes = tokio::task::spawn_blocking(|| {
            let int = std::thread::spawn(|| ControlPlane::start(&["--nodes=2"]));
            let prod = ControlPlane::start(&["--nodes=2"]);
            (int.join().unwrap(), prod)
        });
        let git = GitServer::start(dir.path(), "robot", "git-token-1").await;
        let manager = Manager::start_with(dir.path(), &["--agent-wait", "3s"]);
        let (int, prod) = planes.await.unwrap();
        let zone = |plane, environment| Zone { plane, agent: None, environment };
        let aliases = format!("git.example.com:8082=127.0.0.1:{}", git.port);
        let mut world = World {
            int: zone(int, "int-stable"),
            prod: zone(prod, "prod"),
            keys: BTreeMap::new(),
            manager,
            git,
            revision: 0,
            aliases,
            dir,
        };
        world.entities();
        for (wanted, environment) in [(agents.0, "int-stable"), (agents.1, "prod")] {
            if wanted {
                world.connect(environment);
            }
        }
        for zone in [&world.int, &world.prod] {
            zone.plane.kubectl(&["create", "namespace", &zone.namespace()]);
        }
        world
    }

    /// Starts the agent of a zone, with the kubeconfig of its cluster and nothing of the other one.
    pub(crate) fn connect(&mut self, environment: &str) {
        let zone = if environment == "prod" { &mut self.prod } else { &mut self.int };
        let kubeconfig = zone.plane.kubeconfig();
        let tools = tool("helm").parent().map(|folder| format!(":{}", folder.display())).unwrap_or_default();
        let path = format!("{}{tools}", std::env::var("PATH").unwrap_or_default());
        // The seed's selector is `harness-delegate-<env>-<region>`; the int agent carries it beside its own name.
        let tag = format!("harness-delegate-{environment}-euw1");
        let name =
            if environment == "prod" { "harness-delegate-prod-euw1" } else { "harness-delegate-int-euw1" };
        let extra = [
            ("DELEGATE_HOST_ALIASES", self.aliases.as_str()),
            ("DELEGATE_TAGS", tag.as_str()),
            ("KUBECONFIG", kubeconfig.to_str().unwrap()),
            ("PATH", path.as_str()),
        ];
        zone.agent = Some(AgentProcess::start(&self.manager, self.dir.path(), name, &extra));
    }

    fn entities(&mut self) {
        self.manager.set_secret("git_token", b"git-token-1");
        for (name, groups) in [("ann", ""), ("eve", ""), ("ci", "payments_team"), ("mallory", "sales")] {
            self.keys.insert(name, self.manager.add_user(&format!("{name}@corp.example"), groups));
        }
        let mut args = vec!["apply".to_owned()];
        for file in ["connectors", "environments", "governance"] {
            args.push(package(&format!("seeds/k8s-entities/{file}.yaml")).display().to_string());
        }
        self.manager.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        self.change_window(true);
        let seed = package("seeds/k8s-payment-service-cd.yaml");
        self.manager.ok(&["apply", seed.to_str().unwrap()]);
    }

    /// Opens or closes the change window of production.
    pub(crate) fn change_window(&self, open: bool) {
        self.manager.apply("window", &window(open));
    }

    /// Commits a manifest for an environment; the branch `main` then holds nothing else. Returns the commit.
    pub(crate) fn commit(&mut self, environment: &str, text: &str) -> String {
        self.revision += 1;
        // The peer makes a repository at once; a new one under the same name takes its place.
        let name = format!("config-{}", self.revision);
        let commit = self.git.repository(&name, &[(&path_of(environment), text)]);
        let stored = std::fs::read_to_string(package("seeds/k8s-entities/connectors.yaml")).unwrap();
        let connector = stored.split("---").last().unwrap().replace("platform-next/config.git", &name);
        self.manager.apply("git", &connector);
        commit
    }

    /// The seed's webhook body, sent with the key of `who`; the HTTP status and the answer.
    pub(crate) async fn webhook(&self, who: &str, body: &Value) -> (u16, Value) {
        let query = "accountIdentifier=default&orgIdentifier=default&projectIdentifier=platform\
                     &pipelineIdentifier=payment-service_cd&triggerIdentifier=app_image_trigger";
        let url = format!("{}/gateway/ng/api/webhook/custom/v2?{query}", self.manager.url);
        let key = self.keys.get(who).map_or("wrong", String::as_str);
        let request = reqwest::Client::new().post(url).header("X-Api-Key", key);
        let reply = request.body(body.to_string()).send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap_or_default())
    }

    /// What became of an event.
    pub(crate) async fn event(&self, reply: &Value) -> Value {
        let id = reply["data"]["eventCorrelationId"].as_str().unwrap_or_else(|| panic!("{reply:#}"));
        until("the event is processed", LIMIT, || async {
            let events = self.manager.json(&["trigger", "events", "--output", "json"]);
            let found = events.as_array().unwrap().iter().find(|one| one["eventId"] == id).cloned();
            found.filter(|one| one["status"] != "QUEUED")
        })
        .await
    }

    /// Starts the pipeline by the seed's webhook, as the build of an application does; returns the execution.
    pub(crate) async fn built(&self, tag: &str, environment: &str) -> String {
        let body = json!({
            "service_name": "payment-service",
            "image_tag": tag,
            "target_env": environment,
            "target_region": "euw1",
        });
        let (status, reply) = self.webhook("ci", &body).await;
        assert_eq!(status, 200, "{reply:#}");
        let event = self.event(&reply).await;
        assert_eq!(event["status"], "TARGET_EXECUTION_REQUESTED", "{event:#}");
        event["executionId"].as_str().unwrap().to_owned()
    }

    /// The approval that an execution waits for.
    pub(crate) async fn approval(&self, execution: &str) -> String {
        until("it waits for approval", LIMIT, || async {
            let list = self.manager.json(&["approval", "list", "--output", "json"]);
            let found = list.as_array().unwrap().iter().find(|one| one["executionId"] == execution)?;
            found["id"].as_str().map(str::to_owned)
        })
        .await
    }

    /// Somebody decides; returns whether it was taken and what was said.
    pub(crate) fn decide(&self, who: &str, verb: &str, approval: &str) -> (bool, String) {
        let mut args = vec!["approval", verb, approval, "--output", "json"];
        if verb == "approve" {
            args.extend(["--input", "change_ticket=CHG-1", "--input", "rollback_plan=undo"]);
            // Not required by the seed, so it may be empty.
            args.extend(["--input", "business_justification="]);
        }
        let output = self.manager.cli(&args).env("DELEGATE_API_KEY", &self.keys[who]).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }

    /// Both of those whom the seed asks.
    pub(crate) async fn approve(&self, execution: &str) {
        let approval = self.approval(execution).await;
        for who in ["ann", "eve"] {
            let (taken, said) = self.decide(who, "approve", &approval);
            assert!(taken, "{who}: {said}");
        }
    }

    /// How many tasks an agent was ever given.
    pub(crate) fn tasks_of(&self, agent: &str) -> Vec<Value> {
        let list = self.manager.json(&["execution", "list", "--output", "json"]);
        let ids = list.as_array().unwrap().iter().filter_map(|one| one["executionId"].as_str());
        let views: Vec<Value> = ids.map(|id| self.manager.show(id)).collect();
        let its_own = |step: &&Value| step["agent"].as_str().is_some_and(|name| name.contains(agent));
        views.iter().flat_map(steps).filter(its_own).cloned().collect()
    }

    /// The log of a step as people read it.
    pub(crate) fn log(&self, execution: &str) -> String {
        let output = self.manager.run(&["execution", "logs", execution]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Statuses of several steps, for one comparison.
pub(crate) fn statuses(view: &Value, ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| step(view, id)["status"].as_str().unwrap_or("?").to_owned()).collect()
}
