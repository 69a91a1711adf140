//! Small documents and a driver, shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "Each test binary uses its own part.")]

use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::machine::{Action, Event, State, TaskRequest, apply};
use pipeline::planner::{PlanOptions, plan};
use pipeline::{Fault, Plan};
use proto::failure::{Failure, FailureKind};
use proto::result::{Output, StepResult, StepStatus};
use std::collections::{BTreeMap, VecDeque};

pub const ENTITIES: &str = r#"
connector:
  identifier: registry
  name: registry
  type: DockerRegistry
  spec:
    dockerRegistryUrl: http://registry.example.com
    auth: {type: Anonymous}
    delegateSelectors: [zone-a]
---
connector:
  identifier: hosts
  name: hosts
  type: Pdc
  spec:
    hosts:
      - {hostname: h1, hostAttributes: {tier: web}}
      - {hostname: h2:2222, hostAttributes: {tier: db}}
      - h3
---
connector:
  identifier: prom
  name: prom
  type: Prometheus
  spec: {url: http://prom.example.com}
---
connector:
  identifier: repo
  name: repo
  type: Github
  spec:
    url: https://git.example.com/acme
    type: Account
    authentication:
      type: Http
      spec:
        type: UsernameToken
        spec: {username: robot, tokenRef: git_token}
---
secret:
  identifier: key
  name: key
  type: SSHKey
  spec:
    port: 2022
    auth: {type: SSH, spec: {credentialType: KeyReference, spec: {userName: deploy, key: pem}}}
---
service:
  identifier: web
  name: Web App
  serviceDefinition:
    type: Ssh
    spec:
      variables:
        - {name: LEVEL, type: String, value: info}
        - {name: TOKEN, type: Secret, value: api_token}
      configFiles:
        - configFile:
            identifier: props
            spec:
              store:
                type: Github
                spec: {connectorRef: repo, gitFetchType: Branch, branch: main, repoName: conf, paths: [a.properties]}
---
environment:
  identifier: prod
  name: Prod
  type: Production
---
infrastructureDefinition:
  identifier: farm
  name: farm
  environmentRef: prod
  deploymentType: Ssh
  type: Pdc
  spec:
    credentialsRef: key
    hosts: [h1, h2]
    delegateSelectors: [Zone-B]
"#;

pub fn catalog() -> Snapshot {
    let entities = parse_entities("entities.yaml", ENTITIES).unwrap_or_else(|faults| panic!("{faults:?}"));
    Snapshot {
        entities: entities.into_iter().map(CatalogEntity::from).collect(),
        secrets: ["pem", "git_token", "api_token"].map(str::to_owned).to_vec(),
    }
}

pub fn options() -> PlanOptions {
    PlanOptions {
        account: "acc".into(),
        execution_id: "ex1".into(),
        sequence_id: 3,
        started_by: "me".into(),
        started_at: 1_000,
        secret_token: 99,
        ..PlanOptions::default()
    }
}

/// A deployment stage of service `web` on `farm` in the official form.
pub fn deployment(steps: &str, rollback: &str) -> String {
    deployment_on("infrastructureDefinitions: [{identifier: farm}]", steps, rollback)
}

pub fn deployment_on(infrastructure: &str, steps: &str, rollback: &str) -> String {
    let mut text = format!(
        "pipeline:
  identifier: p
  name: p
  variables:
    - {{name: color, type: String, value: blue}}
  stages:
    - stage:
        identifier: s
        name: s
        type: Deployment
        spec:
          deploymentType: Ssh
          service: {{serviceRef: web}}
          environment:
            environmentRef: prod
            {infrastructure}
          execution:
            steps:
"
    );
    push(&mut text, 14, steps);
    if !rollback.is_empty() {
        text.push_str("            rollbackSteps:\n");
        push(&mut text, 14, rollback);
    }
    text
}

/// A Custom stage.
pub fn custom(head: &str, steps: &str, rollback: &str) -> String {
    let mut text = String::from("pipeline:\n  identifier: p\n  name: p\n");
    push(&mut text, 2, head);
    text.push_str("  stages:\n    - stage:\n        identifier: s\n        name: s\n        type: Custom\n");
    text.push_str("        spec:\n          execution:\n            steps:\n");
    push(&mut text, 14, steps);
    if !rollback.is_empty() {
        text.push_str("            rollbackSteps:\n");
        push(&mut text, 14, rollback);
    }
    text
}

fn push(text: &mut String, indent: usize, lines: &str) {
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        text.push_str(&" ".repeat(indent));
        text.push_str(line);
        text.push('\n');
    }
}

/// A Noop step with further keys.
pub fn noop(id: &str, more: &str) -> String {
    let mut text =
        format!("- step:\n    identifier: {id}\n    name: {id}\n    type: Noop\n    spec: {{line: x}}\n");
    push(&mut text, 4, more);
    text
}

/// A Command step with one script.
pub fn script(id: &str, script: &str, more: &str) -> String {
    let mut text = format!(
        "- step:
    identifier: {id}
    name: {id}
    type: Command
    spec:
      onDelegate: false
      commandUnits:
        - {{identifier: u, name: u, type: Script, spec: {{shell: Bash, source: {{type: Inline, spec: {{script: '{script}'}}}}}}}}
"
    );
    push(&mut text, 4, more);
    text
}

pub fn planned(yaml: &str) -> Plan {
    planned_with(yaml, &options())
}

pub fn planned_with(yaml: &str, options: &PlanOptions) -> Plan {
    plan("p.yaml", yaml, &catalog(), options).unwrap_or_else(|faults| panic!("{faults:#?}\n{yaml}"))
}

pub fn faults(yaml: &str) -> Vec<Fault> {
    match plan("p.yaml", yaml, &catalog(), &options()) {
        Ok(_) => panic!("accepted:\n{yaml}"),
        Err(faults) => faults,
    }
}

pub fn codes(plan: &Plan) -> Vec<&str> {
    plan.notices.iter().map(|notice| notice.code.as_str()).collect()
}

pub fn success() -> StepResult {
    StepResult { agent: "a1".into(), fence: 1, ..StepResult::bare(StepStatus::Success, None) }
}

pub fn output(name: &str, value: &str) -> StepResult {
    let outputs = BTreeMap::from([(name.to_owned(), Output::from(serde_json::json!(value)))]);
    StepResult { outputs, ..success() }
}

pub fn failed(kind: FailureKind) -> StepResult {
    let failure = Failure::new(kind, "SSH-001", "exit code 1");
    StepResult { status: StepStatus::Failed, failure: Some(failure), ..success() }
}

/// A machine with its world: tasks that are out, timers that are set.
pub struct World {
    pub state: State,
    pub now: u64,
    pub tasks: VecDeque<TaskRequest>,
    pub timers: BTreeMap<String, u64>,
    pub cancelled: Vec<(String, String)>,
    /// Nodes whose older approvals are to be rejected.
    pub rejects_older: Vec<String>,
    pub finished: Option<String>,
    pub order: Vec<String>,
    /// Stages that wait for their infrastructure; they get it at once, unless this is `None`.
    pub claims: Option<Vec<String>>,
}

impl World {
    pub fn start(yaml: &str) -> World {
        World::start_with(planned(yaml))
    }

    pub fn start_with(plan: Plan) -> World {
        World::start_claiming(plan, None)
    }

    /// With a list, claims are kept in it instead of being granted.
    pub fn start_claiming(plan: Plan, claims: Option<Vec<String>>) -> World {
        let mut world = World {
            state: State::new(plan),
            now: 1_000,
            tasks: VecDeque::new(),
            timers: BTreeMap::new(),
            cancelled: vec![],
            rejects_older: vec![],
            finished: None,
            order: vec![],
            claims,
        };
        world.event(|at| Event::Started { at });
        world
    }

    pub fn event(&mut self, make: impl FnOnce(u64) -> Event) -> Vec<Action> {
        self.now += 1;
        let event = make(self.now);
        self.take(&event)
    }

    fn take(&mut self, event: &Event) -> Vec<Action> {
        let mut actions = apply(&mut self.state, event);
        let mut claimed = Vec::new();
        for action in &actions {
            match action {
                Action::Enqueue(task) => {
                    self.order.push(task.task.step.identifier.clone());
                    self.tasks.push_back((**task).clone());
                }
                Action::CancelTask { node, reason, .. } => {
                    self.cancelled.push((node.clone(), reason.clone()))
                }
                // What the manager itself does: a test that asks for it looks into the state.
                Action::Perform { .. } => {}
                Action::RejectOlder { node } => self.rejects_older.push(node.clone()),
                Action::SetTimer { timer, at } => {
                    self.timers.insert(timer.clone(), *at);
                }
                Action::ClearTimer { timer } => {
                    self.timers.remove(timer);
                }
                Action::Claim { node, .. } => match &mut self.claims {
                    Some(claims) => claims.push(node.clone()),
                    None => claimed.push(node.clone()),
                },
                Action::Release { node } => {
                    self.claims.iter_mut().for_each(|claims| claims.retain(|claim| claim != node));
                }
                Action::Finish { status } => self.finished = Some(status.clone()),
            }
        }
        for node in claimed {
            let granted = Event::Granted { node, at: self.now };
            actions.extend(self.take(&granted));
        }
        actions
    }

    /// Answers the oldest open task.
    pub fn answer(&mut self, result: StepResult) -> TaskRequest {
        let task = self.tasks.pop_front().expect("no task is out");
        let (node, attempt) = (task.node.clone(), task.attempt);
        self.event(|at| Event::TaskEnded { node, attempt, result: Box::new(result), at });
        task
    }

    /// Answers every task, newer ones included.
    pub fn answer_all(&mut self, mut result: impl FnMut(&TaskRequest) -> StepResult) {
        while let Some(task) = self.tasks.front() {
            let result = result(task);
            self.answer(result);
        }
    }

    /// Lets the timer whose id begins so run out.
    pub fn fire(&mut self, kind: &str) {
        self.fire_with(kind, None);
    }

    /// The same, with what is known of the task.
    pub fn fire_with(&mut self, kind: &str, holdup: Option<pipeline::machine::Holdup>) {
        let timer = self.timers.keys().find(|timer| timer.starts_with(kind)).cloned();
        let timer = timer.unwrap_or_else(|| panic!("no timer {kind}: {:?}", self.timers));
        let due = self.timers.remove(&timer).unwrap();
        self.now = self.now.max(due);
        self.event(|at| Event::TimerFired { timer, at, holdup });
    }

    pub fn abort(&mut self) -> Vec<Action> {
        self.event(|at| Event::AbortRequested { by: "me".into(), at })
    }

    pub fn status(&self, node: &str) -> &'static str {
        self.state.runs.get(node).map_or("NotStarted", |run| run.status.name())
    }

    pub fn step(&self, id: &str) -> &'static str {
        self.status(&format!("pipeline.stages.s.spec.execution.steps.{id}"))
    }
}
