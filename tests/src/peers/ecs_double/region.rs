//! Services, their deployments and the clock that moves them.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Answer = Result<Value, (String, String)>;

const ACCOUNT: &str = "arn:aws:ecs:us-east-1:123456789012";
/// How long a task needs to run, and tasks of an old revision to go, seconds.
const START: f64 = 10.0;
const STOP: f64 = 5.0;

fn no(code: &str, message: impl Into<String>) -> (String, String) {
    (code.to_owned(), message.into())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn short(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

#[derive(Debug)]
pub(super) struct Region {
    now: f64,
    pub(super) pace: f64,
    next: u64,
    definitions: BTreeMap<String, Vec<Value>>,
    services: BTreeMap<String, Service>,
    deployments: Vec<Deployment>,
    revisions: Vec<(String, Value)>,
    tasks: Vec<Task>,
    pub(super) targets: BTreeMap<String, Value>,
    pub(super) calls: Vec<(String, Value)>,
    pub(super) lost: BTreeMap<String, usize>,
    pub(super) rollbacks_fail: bool,
    pub(super) pretended: Option<String>,
    /// Requests so far, of each service's production and test listener.
    pub(super) asked: BTreeMap<(String, bool), u64>,
}

impl Default for Region {
    fn default() -> Self {
        Region {
            now: 1_790_000_000.0,
            pace: 5.0,
            next: 0,
            definitions: BTreeMap::new(),
            services: BTreeMap::new(),
            deployments: Vec::new(),
            revisions: Vec::new(),
            tasks: Vec::new(),
            targets: BTreeMap::new(),
            calls: Vec::new(),
            lost: BTreeMap::new(),
            rollbacks_fail: false,
            pretended: None,
            asked: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
struct Service {
    /// As it was made and updated.
    document: Map<String, Value>,
    status: &'static str,
    desired: u64,
    task_definition: String,
    created: f64,
    tags: Vec<Value>,
    token: String,
    /// Newest first.
    events: Vec<Value>,
}

#[derive(Clone, Debug)]
struct Task {
    arn: String,
    service: String,
    deployment: u64,
    definition: String,
    created: f64,
    /// When it was told to stop.
    stopping: Option<f64>,
    status: &'static str,
    failed: bool,
}

/// One phase of a native deployment: a stage with how long it takes and what it does.
#[derive(Clone, Debug)]
enum Do {
    Nothing,
    Scale,
    Test,
    Weight(f64),
    Clean,
}

#[derive(Clone, Debug)]
struct Hook {
    id: String,
    kind: String,
    status: &'static str,
    expires: f64,
    action: String,
}

#[derive(Clone, Debug)]
struct Deployment {
    id: u64,
    service: String,
    revision: String,
    definition: String,
    strategy: String,
    status: String,
    reason: String,
    created: f64,
    updated: f64,
    desired: u64,
    /// Stages that are left, the next one first.
    phases: Vec<(&'static str, f64, Do)>,
    stage: Option<&'static str>,
    since: f64,
    hooks: Vec<Hook>,
    /// What there was: revision, task definition, deployment.
    source: Option<(String, String, u64)>,
    weight: f64,
    test: f64,
    back: Option<String>,
    failures: u64,
    rollout: &'static str,
    rollout_reason: String,
    primary: bool,
    listed: bool,
}

impl Deployment {
    fn arn(&self) -> String {
        format!("{ACCOUNT}:service-deployment/double/{}/dep{}", self.service, self.id)
    }

    fn over(&self) -> bool {
        ["SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"].contains(&self.status.as_str())
    }
}

impl Region {
    pub(super) fn advance(&mut self, seconds: f64) {
        let until = self.now + seconds;
        while self.now < until {
            self.now = (self.now + 1.0).min(until);
            self.tick();
        }
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn healthy(&self, definition: &str) -> bool {
        let found = self.definition(definition).unwrap_or_default();
        let containers = found["containerDefinitions"].as_array().cloned().unwrap_or_default();
        !containers.iter().any(|container| text(container, "image").contains("exit"))
    }

    fn definition(&self, named: &str) -> Option<Value> {
        let name = short(named);
        let (family, revision) = name.split_once(':').unwrap_or((name, ""));
        let all = self.definitions.get(family)?;
        match revision.parse::<usize>() {
            Ok(revision) => all.get(revision.checked_sub(1)?).cloned(),
            Err(_) => all.last().cloned(),
        }
    }

    // --- the clock ---

    fn tick(&mut self) {
        let now = self.now;
        self.drain();
        let definitions: Vec<(usize, bool)> =
            self.tasks.iter().enumerate().map(|(n, task)| (n, self.healthy(&task.definition))).collect();
        for (n, healthy) in definitions {
            let task = &mut self.tasks[n];
            if task.status == "STOPPED" {
                continue;
            }
            if let Some(at) = task.stopping {
                if now >= at + STOP {
                    task.status = "STOPPED";
                }
            } else if task.status == "PENDING" && now >= task.created + START {
                if healthy {
                    task.status = "RUNNING";
                } else {
                    task.status = "STOPPED";
                    task.failed = true;
                    let deployment = task.deployment;
                    if let Some(own) = self.deployments.iter_mut().find(|one| one.id == deployment) {
                        own.failures += 1;
                    }
                }
            }
        }
        for index in 0..self.deployments.len() {
            if self.deployments[index].over() {
                self.keep(index);
            } else if self.deployments[index].strategy == "ROLLING" {
                self.roll(index);
            } else {
                self.shift(index);
            }
        }
    }

    fn live(&self, deployment: u64) -> (u64, u64) {
        let count = |status: &str| {
            let of = |task: &&Task| {
                task.deployment == deployment && task.stopping.is_none() && task.status == status
            };
            self.tasks.iter().filter(of).count() as u64
        };
        (count("RUNNING"), count("PENDING"))
    }

    /// Gives a deployment so many tasks.
    fn scale(&mut self, deployment: u64, count: u64) {
        let Some(own) = self.deployments.iter().find(|one| one.id == deployment).cloned() else { return };
        let (running, pending) = self.live(deployment);
        for _ in running + pending..count {
            let id = self.id();
            self.tasks.push(Task {
                arn: format!("{ACCOUNT}:task/double/{id:08x}"),
                service: own.service.clone(),
                deployment,
                definition: own.definition.clone(),
                created: self.now,
                stopping: None,
                status: "PENDING",
                failed: false,
            });
        }
        let mut more = (running + pending).saturating_sub(count);
        for task in self.tasks.iter_mut().rev() {
            if more > 0
                && task.deployment == deployment
                && task.stopping.is_none()
                && task.status != "STOPPED"
            {
                task.stopping = Some(self.now);
                more -= 1;
            }
        }
    }

    /// Keeps the count of what is deployed.
    fn keep(&mut self, index: usize) {
        let own = self.deployments[index].clone();
        let active = self.services.get(&own.service).filter(|service| service.status == "ACTIVE");
        if own.primary && active.is_some() && own.rollout != "FAILED" {
            let desired = active.map_or(0, |service| service.desired);
            self.scale(own.id, desired);
            self.deployments[index].desired = desired;
            // What a circuit breaker made primary again.
            let again = own.status == "SUCCESSFUL" && own.rollout == "IN_PROGRESS" && self.now > own.updated;
            if again && self.live(own.id).0 >= desired {
                self.complete(index);
            }
        }
    }

    /// A service that is deleted is inactive as soon as its last task has stopped.
    fn drain(&mut self) {
        let busy: Vec<String> = self
            .tasks
            .iter()
            .filter(|task| task.status != "STOPPED")
            .map(|task| task.service.clone())
            .collect();
        for (name, service) in &mut self.services {
            if service.status == "DRAINING" && !busy.contains(name) {
                service.status = "INACTIVE";
            }
        }
    }

    /// A rolling deployment has all its tasks: those of the others end.
    fn complete(&mut self, index: usize) {
        let own = self.deployments[index].clone();
        let others: Vec<u64> = self
            .deployments
            .iter()
            .filter(|other| other.service == own.service && other.id != own.id)
            .map(|other| other.id)
            .collect();
        for other in others {
            self.scale(other, 0);
            if let Some(other) = self.deployments.iter_mut().find(|one| one.id == other) {
                (other.listed, other.desired) = (false, 0);
            }
        }
        let now = self.now;
        let done = &mut self.deployments[index];
        "SUCCESSFUL".clone_into(&mut done.status);
        done.rollout = "COMPLETED";
        done.rollout_reason = format!("ECS deployment ecs-svc/{} completed.", done.id);
        done.updated = now;
        let completed = format!("(deployment ecs-svc/{}) deployment completed.", own.id);
        self.event(&own.service, &completed);
        self.event(&own.service, "has reached a steady state.");
    }

    fn event(&mut self, service: &str, message: &str) {
        let (id, now) = (format!("event-{}", self.id()), self.now);
        if let Some(own) = self.services.get_mut(service) {
            let message = format!("(service {service}) {message}");
            own.events.insert(0, json!({"id": id, "createdAt": now, "message": message}));
            own.events.truncate(100);
        }
    }

    fn roll(&mut self, index: usize) {
        let own = self.deployments[index].clone();
        let Some(service) = self.services.get(&own.service) else { return };
        let (desired, configuration) =
            (service.desired, service.document.get("deploymentConfiguration").cloned().unwrap_or_default());
        self.deployments[index].desired = desired;
        self.scale(own.id, desired);
        let breaker = &configuration["deploymentCircuitBreaker"];
        let threshold = desired.div_ceil(2).clamp(3, 200);
        if breaker["enable"] == true && own.failures >= threshold {
            return self.trip(index, breaker["rollback"] == true);
        }
        let (running, _) = self.live(own.id);
        if running >= desired {
            self.complete(index);
        }
    }

    /// The circuit breaker of a rolling deployment.
    fn trip(&mut self, index: usize, back: bool) {
        let own = self.deployments[index].clone();
        self.scale(own.id, 0);
        let now = self.now;
        let failed = &mut self.deployments[index];
        failed.rollout = "FAILED";
        failed.rollout_reason = "ECS deployment circuit breaker: tasks failed to start.".to_owned();
        (failed.desired, failed.updated) = (0, now);
        let Some((_, definition, source)) = own.source.clone().filter(|_| back) else {
            "STOPPED".clone_into(&mut failed.status);
            return;
        };
        "ROLLBACK_SUCCESSFUL".clone_into(&mut failed.status);
        failed.primary = false;
        failed.back = Some("circuit breaker".to_owned());
        // The newest deployment that had completed is in progress again, with the tasks that it still has.
        if let Some(old) = self.deployments.iter_mut().find(|other| other.id == source) {
            (old.primary, old.listed, old.rollout, old.updated) = (true, true, "IN_PROGRESS", now);
            old.rollout_reason =
                format!("ECS deployment circuit breaker: rolling back to deploymentId ecs-svc/{source}.");
        }
        if let Some(service) = self.services.get_mut(&own.service) {
            service.task_definition = definition;
        }
    }

    fn shift(&mut self, index: usize) {
        let now = self.now;
        let own = self.deployments[index].clone();
        let desired = self.services.get(&own.service).map_or(0, |service| service.desired);
        if let Some((_, _, source)) = &own.source {
            self.scale(*source, desired);
        }
        match own.status.as_str() {
            "PENDING" => {
                "IN_PROGRESS".clone_into(&mut self.deployments[index].status);
                self.enter(index);
            }
            "ROLLBACK_REQUESTED" => {
                if now >= own.since + 2.0 {
                    let back = &mut self.deployments[index];
                    "ROLLBACK_IN_PROGRESS".clone_into(&mut back.status);
                    back.since = now;
                    if !self.rollbacks_fail {
                        (back.weight, back.test) = (0.0, 0.0);
                    }
                }
            }
            "ROLLBACK_IN_PROGRESS" => {
                if now >= own.since + STOP {
                    self.rolled_back(index);
                }
            }
            _ => self.stage(index, desired),
        }
    }

    /// Waits for the hooks of the stage, then for the stage itself.
    fn stage(&mut self, index: usize, desired: u64) {
        let now = self.now;
        for hook in &mut self.deployments[index].hooks {
            if hook.status == "AWAITING_ACTION" && now >= hook.expires {
                hook.status = "TIMED_OUT";
                if hook.action == "ROLLBACK" {
                    return self.roll_back(index, "Lifecycle hook timed out.");
                }
            }
        }
        let own = self.deployments[index].clone();
        if own.hooks.iter().any(|hook| hook.status == "AWAITING_ACTION") {
            return;
        }
        let Some((_, seconds, what)) = own.phases.first().cloned() else { return };
        match what {
            Do::Scale => self.scale(own.id, desired),
            Do::Test => self.deployments[index].test = 100.0,
            Do::Weight(weight) => self.deployments[index].weight = weight,
            Do::Clean => {
                if let Some((_, _, source)) = own.source {
                    self.deployments[index].source = None;
                    self.scale(source, 0);
                    if let Some(source) = self.deployments.iter_mut().find(|one| one.id == source) {
                        source.listed = false;
                    }
                }
            }
            Do::Nothing => {}
        }
        let scaled = !matches!(what, Do::Scale) || self.live(own.id).0 >= desired;
        if own.failures >= 3 {
            return self.roll_back(index, "ECS deployment circuit breaker: tasks failed to start.");
        }
        if scaled && now >= own.since + seconds {
            self.deployments[index].phases.remove(0);
            self.enter(index);
        }
    }

    /// Begins the next stage, with its hooks; ends the deployment when there is none.
    fn enter(&mut self, index: usize) {
        let now = self.now;
        let Some((stage, ..)) = self.deployments[index].phases.first().cloned() else {
            let done = &mut self.deployments[index];
            "SUCCESSFUL".clone_into(&mut done.status);
            (done.stage, done.rollout, done.updated) = (None, "COMPLETED", now);
            return;
        };
        let service = self.deployments[index].service.clone();
        let configuration =
            self.services[&service].document.get("deploymentConfiguration").cloned().unwrap_or_default();
        let mut hooks = Vec::new();
        for hook in configuration["lifecycleHooks"].as_array().cloned().unwrap_or_default() {
            if hook["lifecycleStages"].as_array().is_some_and(|stages| stages.iter().any(|one| one == stage))
            {
                let timeout = &hook["timeoutConfiguration"];
                let minutes = timeout["timeoutInMinutes"].as_f64().unwrap_or(1440.0);
                let pauses = text(&hook, "targetType") == "PAUSE";
                hooks.push(Hook {
                    id: format!("ecs-pause-{}", self.id()),
                    kind: text(&hook, "targetType").to_owned(),
                    status: if pauses { "AWAITING_ACTION" } else { "SUCCEEDED" },
                    expires: now + minutes * 60.0,
                    action: timeout["action"].as_str().unwrap_or("ROLLBACK").to_owned(),
                });
            }
        }
        let own = &mut self.deployments[index];
        own.hooks = hooks;
        (own.stage, own.since, own.updated) = (Some(stage), now, now);
    }

    fn roll_back(&mut self, index: usize, reason: &str) {
        let now = self.now;
        let own = &mut self.deployments[index];
        "ROLLBACK_REQUESTED".clone_into(&mut own.status);
        reason.clone_into(&mut own.reason);
        own.back = Some(reason.to_owned());
        own.since = now;
    }

    fn rolled_back(&mut self, index: usize) {
        let own = self.deployments[index].clone();
        let Some((_, definition, source)) = own.source.clone().filter(|_| !self.rollbacks_fail) else {
            "ROLLBACK_FAILED".clone_into(&mut self.deployments[index].status);
            return;
        };
        self.scale(own.id, 0);
        let back = &mut self.deployments[index];
        "ROLLBACK_SUCCESSFUL".clone_into(&mut back.status);
        (back.primary, back.listed, back.rollout, back.desired) = (false, false, "FAILED", 0);
        if let Some(source) = self.deployments.iter_mut().find(|one| one.id == source) {
            (source.primary, source.listed) = (true, true);
        }
        if let Some(service) = self.services.get_mut(&own.service) {
            service.task_definition = definition;
        }
    }

    // --- deployments ---

    fn begin(
        &mut self,
        service: &str,
        definition: &str,
        strategy: &str,
        revision: Option<String>,
        source: Option<(String, String, u64)>,
    ) -> u64 {
        let id = self.id();
        let revision = revision.unwrap_or_else(|| {
            let arn = format!("{ACCOUNT}:service-revision/double/{service}/{id}");
            let mut shown = self.services[service].document.clone();
            shown.insert("serviceRevisionArn".to_owned(), json!(arn));
            shown.insert("taskDefinition".to_owned(), json!(definition));
            self.revisions.push((arn.clone(), Value::Object(shown)));
            arn
        });
        for other in self.deployments.iter_mut().filter(|other| other.service == service) {
            other.primary = false;
            if !other.over() {
                "STOPPED".clone_into(&mut other.status);
                "A newer deployment has begun.".clone_into(&mut other.reason);
            }
        }
        let configuration =
            self.services[service].document.get("deploymentConfiguration").cloned().unwrap_or_default();
        let deployment = Deployment {
            id,
            service: service.to_owned(),
            revision,
            definition: definition.to_owned(),
            strategy: strategy.to_owned(),
            status: if strategy == "ROLLING" { "IN_PROGRESS" } else { "PENDING" }.to_owned(),
            reason: String::new(),
            created: self.now,
            updated: self.now,
            desired: self.services[service].desired,
            phases: phases(strategy, &configuration),
            stage: None,
            since: self.now,
            hooks: Vec::new(),
            source,
            weight: 0.0,
            test: 0.0,
            back: None,
            failures: 0,
            rollout: "IN_PROGRESS",
            rollout_reason: format!("ECS deployment ecs-svc/{id} in progress."),
            primary: true,
            listed: true,
        };
        self.deployments.push(deployment);
        id
    }

    /// Starts what an update or creation asks for.
    fn deploy(&mut self, service: &str) {
        let own = &self.services[service];
        let definition = own.task_definition.clone();
        let configuration = own.document.get("deploymentConfiguration").cloned().unwrap_or_default();
        let strategy = configuration["strategy"].as_str().unwrap_or("ROLLING").to_owned();
        let source = self.serving(service).map(|one| (one.revision.clone(), one.definition.clone(), one.id));
        self.begin(service, &definition, &strategy, None, source);
    }

    fn show(&self, own: &Deployment) -> Value {
        let counted = |deployment: u64| self.live(deployment);
        let (running, pending) = counted(own.id);
        let mut shown = json!({
            "serviceDeploymentArn": own.arn(), "serviceArn": format!("{ACCOUNT}:service/double/{}", own.service),
            "clusterArn": format!("{ACCOUNT}:cluster/double"), "createdAt": own.created, "startedAt": own.created,
            "updatedAt": own.updated, "status": self.pretended.as_ref().unwrap_or(&own.status),
            "targetServiceRevision": {"arn": own.revision, "requestedTaskCount": own.desired, "runningTaskCount": running,
                "pendingTaskCount": pending, "requestedTestTrafficWeight": own.test, "requestedProductionTrafficWeight": own.weight},
            "sourceServiceRevisions": [], "lifecycleHookDetails": own.hooks.iter().map(|hook| json!({"hookId": hook.id,
                "targetType": hook.kind, "status": hook.status, "expiresAt": hook.expires, "timeoutAction": hook.action}))
                .collect::<Vec<_>>(),
        });
        if !own.reason.is_empty() {
            shown["statusReason"] = json!(own.reason);
        }
        if let Some(stage) = own.stage {
            shown["lifecycleStage"] = json!(stage);
        }
        if let Some((revision, _, source)) = &own.source {
            let (running, pending) = counted(*source);
            shown["sourceServiceRevisions"] = json!([{"arn": revision, "requestedTaskCount": own.desired, "runningTaskCount": running,
                "pendingTaskCount": pending, "requestedProductionTrafficWeight": 100.0 - own.weight}]);
            if let Some(reason) = &own.back {
                shown["rollback"] =
                    json!({"reason": reason, "startedAt": own.since, "serviceRevisionArn": revision});
            }
        }
        shown
    }

    pub(super) fn newest(&self, service: &str) -> Option<Value> {
        self.deployments.iter().rev().find(|one| one.service == service).map(|one| self.show(one))
    }

    /// Names of all services.
    pub(super) fn names(&self) -> Vec<String> {
        self.services.keys().cloned().collect()
    }

    /// Images that answer at a service's production or test listener, with their shares in percent; what is deployed first.
    /// While a rolling deployment is under way, that is the revision from before it.
    pub(super) fn behind(&self, service: &str, test: bool) -> Vec<(String, f64)> {
        let image = |definition: &str| {
            let found = self.definition(definition).unwrap_or_default();
            text(&found["containerDefinitions"][0], "image").to_owned()
        };
        let newest = self.deployments.iter().rev().find(|one| one.service == service);
        let shifts = newest
            .filter(|one| one.strategy != "ROLLING" && (!one.over() || one.status == "ROLLBACK_FAILED"));
        if let Some(one) = shifts {
            let share = if test && one.test > 0.0 { one.test } else { one.weight };
            let source = one.source.iter().map(|(_, definition, _)| (image(definition), 100.0 - share));
            let all = [(image(&one.definition), share)].into_iter().chain(source);
            return all.filter(|(_, share)| *share > 0.0).collect();
        }
        self.serving(service).map(|one| (image(&one.definition), 100.0)).into_iter().collect()
    }

    /// What requests reach when nothing is shifted: the newest deployment that came to its end.
    fn serving(&self, service: &str) -> Option<&Deployment> {
        let of = |one: &&Deployment| one.service == service && one.listed && one.status == "SUCCESSFUL";
        self.deployments.iter().rev().find(of)
    }

    fn describe(&self, name: &str) -> Option<Value> {
        let own = self.services.get(name)?;
        let mut shown = own.document.clone();
        shown.remove("clientToken");
        let mut all: Vec<&Deployment> = self
            .deployments
            .iter()
            .filter(|one| one.service == name && (one.listed || one.primary))
            .collect();
        all.reverse();
        all.sort_by_key(|one| !one.primary);
        let (mut running, mut pending) = (0, 0);
        let mut listed = Vec::new();
        for one in &all {
            let (now, soon) = self.live(one.id);
            (running, pending) = (running + now, pending + soon);
            let failed = one.rollout == "FAILED" && one.listed;
            if one.primary || now + soon > 0 || failed {
                listed.push(json!({"id": format!("ecs-svc/{}", one.id), "status": if one.primary { "PRIMARY" } else { "ACTIVE" },
                    "taskDefinition": one.definition, "desiredCount": one.desired, "runningCount": now, "pendingCount": soon,
                    "failedTasks": one.failures, "createdAt": one.created, "updatedAt": one.updated,
                    "rolloutState": one.rollout, "rolloutStateReason": one.rollout_reason}));
            }
        }
        let under_way = self.deployments.iter().rev().find(|one| one.service == name && !one.over());
        let mut revisions: Vec<Value> = under_way.iter().map(|one| json!({"arn": one.revision})).collect();
        revisions.extend(self.serving(name).map(|one| json!({"arn": one.revision})));
        let more = json!({"serviceName": name, "serviceArn": format!("{ACCOUNT}:service/double/{name}"), "clusterArn": format!("{ACCOUNT}:cluster/double"),
            "status": own.status, "desiredCount": own.desired, "runningCount": running, "pendingCount": pending,
            "taskDefinition": own.task_definition, "deployments": listed, "events": own.events, "createdAt": own.created,
            "schedulingStrategy": "REPLICA", "tags": own.tags, "currentServiceRevisions": revisions});
        shown.extend(more.as_object().cloned().unwrap_or_default());
        if let Some(under_way) = under_way {
            shown.insert("currentServiceDeployment".to_owned(), json!(under_way.arn()));
        }
        Some(Value::Object(shown))
    }

    // --- the operations ---

    pub(super) fn scaling(&mut self, operation: &str, input: &Value) -> Answer {
        let name = |resource: &str| short(resource).to_owned();
        match operation {
            "DescribeScalableTargets" => {
                let asked = input["ResourceIds"].as_array().cloned().unwrap_or_default();
                let found: Vec<Value> = asked
                    .iter()
                    .filter_map(Value::as_str)
                    .filter_map(|id| self.targets.get(&name(id)))
                    .cloned()
                    .collect();
                Ok(json!({"ScalableTargets": found}))
            }
            "RegisterScalableTarget" => {
                let service = name(text(input, "ResourceId"));
                let target = self.targets.entry(service).or_insert_with(|| json!({}));
                for (key, value) in input.as_object().into_iter().flatten() {
                    target[key] = value.clone();
                }
                Ok(json!({}))
            }
            "DescribeScalingPolicies" => Ok(json!({"ScalingPolicies": []})),
            "DescribeScheduledActions" => Ok(json!({"ScheduledActions": []})),
            "ListTagsForResource" => Ok(json!({"Tags": {}})),
            _ => Err(no("UnknownOperationException", operation)),
        }
    }

    pub(super) fn call(&mut self, operation: &str, input: &Value) -> Answer {
        let named = |name: &str| short(text(input, name)).to_owned();
        let listed = |name: &str| -> Vec<String> {
            let all = input[name].as_array().cloned().unwrap_or_default();
            all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let looks = ["DescribeServices", "DescribeServiceDeployments", "ListServiceDeployments"];
        if looks.contains(&operation) {
            self.advance(self.pace);
        }
        let cluster = text(input, "cluster");
        if operation != "DescribeClusters" && !cluster.is_empty() && short(cluster) != "double" {
            return Err(no("ClusterNotFoundException", "Cluster not found."));
        }
        match operation {
            "DescribeClusters" => Ok(
                json!({"clusters": [{"clusterName": "double", "clusterArn": format!("{ACCOUNT}:cluster/double"),
                "status": "ACTIVE", "runningTasksCount": self.tasks.len()}]}),
            ),
            "RegisterTaskDefinition" => {
                let family = named("family");
                let all = self.definitions.entry(family.clone()).or_default();
                let revision = all.len() + 1;
                let mut made = input.clone();
                made["taskDefinitionArn"] = json!(format!("{ACCOUNT}:task-definition/{family}:{revision}"));
                made["revision"] = json!(revision);
                made["status"] = json!("ACTIVE");
                all.push(made.clone());
                Ok(json!({"taskDefinition": made}))
            }
            "DescribeTaskDefinition" => match self.definition(text(input, "taskDefinition")) {
                Some(found) => Ok(json!({"taskDefinition": found, "tags": []})),
                None => Err(no("ClientException", "Unable to describe task definition.")),
            },
            "DescribeServices" => {
                let asked = listed("services");
                let found: Vec<Value> = asked.iter().filter_map(|name| self.describe(short(name))).collect();
                let missing =
                    asked.iter().map(|name| short(name)).filter(|name| !self.services.contains_key(*name));
                let missing: Vec<Value> = missing
                    .map(|name| json!({"arn": format!("{ACCOUNT}:service/double/{name}"), "reason": "MISSING"}))
                    .collect();
                Ok(json!({"services": found, "failures": missing}))
            }
            "CreateService" => self.create(input, &named("serviceName")),
            "UpdateService" => self.update(input, &named("service")),
            "DeleteService" => self.delete(&named("service"), input["force"] == true),
            "TagResource" | "UntagResource" => {
                let name = named("resourceArn");
                let own = self
                    .services
                    .get_mut(&name)
                    .ok_or_else(|| no("ServiceNotFoundException", "Service not found."))?;
                let gone = listed("tagKeys");
                let new = input["tags"].as_array().cloned().unwrap_or_default();
                own.tags.retain(|tag| {
                    !gone.contains(&text(tag, "key").to_owned())
                        && !new.iter().any(|other| other["key"] == tag["key"])
                });
                own.tags.extend(new);
                Ok(json!({}))
            }
            "ListTasks" => {
                let (service, status) = (named("serviceName"), text(input, "desiredStatus"));
                let is = |task: &&Task| {
                    let stops = task.status == "STOPPED" || task.stopping.is_some();
                    (service.is_empty() || task.service == service) && stops == (status == "STOPPED")
                };
                let arns: Vec<&str> = self.tasks.iter().filter(is).map(|task| task.arn.as_str()).collect();
                Ok(json!({"taskArns": arns}))
            }
            "DescribeTasks" => {
                let arns = listed("tasks");
                let found: Vec<Value> =
                    self.tasks.iter().filter(|task| arns.contains(&task.arn)).map(shown_task).collect();
                Ok(json!({"tasks": found, "failures": []}))
            }
            "DescribeServiceRevisions" => {
                let arns = listed("serviceRevisionArns");
                let found: Vec<&Value> = self
                    .revisions
                    .iter()
                    .filter(|(arn, _)| arns.contains(arn))
                    .map(|(_, shown)| shown)
                    .collect();
                Ok(json!({"serviceRevisions": found, "failures": []}))
            }
            "ListServiceDeployments" => {
                let name = named("service");
                if !self.services.contains_key(&name) {
                    return Err(no("ServiceNotFoundException", "Service not found."));
                }
                let all = self.deployments.iter().rev().filter(|one| one.service == name);
                let briefs: Vec<Value> = all
                    .map(|one| json!({"serviceDeploymentArn": one.arn(), "targetServiceRevisionArn": one.revision, "createdAt": one.created, "status": one.status}))
                    .collect();
                Ok(json!({"serviceDeployments": briefs}))
            }
            "DescribeServiceDeployments" => {
                let arns = listed("serviceDeploymentArns");
                let found: Vec<Value> = self
                    .deployments
                    .iter()
                    .filter(|one| arns.contains(&one.arn()))
                    .map(|one| self.show(one))
                    .collect();
                Ok(json!({"serviceDeployments": found, "failures": []}))
            }
            "ContinueServiceDeployment" => {
                let (arn, hook, action) =
                    (text(input, "serviceDeploymentArn"), text(input, "hookId"), text(input, "action"));
                let index = self
                    .deployments
                    .iter()
                    .position(|one| one.arn() == arn)
                    .ok_or_else(|| no("ServiceDeploymentNotFoundException", arn))?;
                let waiting = self.deployments[index]
                    .hooks
                    .iter_mut()
                    .find(|own| own.id == hook && own.status == "AWAITING_ACTION");
                let waiting = waiting
                    .ok_or_else(|| no("InvalidParameterException", "The hook is not awaiting action."))?;
                waiting.status = if action == "CONTINUE" { "SUCCEEDED" } else { "FAILED" };
                if action == "ROLLBACK" {
                    self.roll_back(index, "Lifecycle hook action ROLLBACK.");
                }
                Ok(json!({"serviceDeploymentArn": arn}))
            }
            "StopServiceDeployment" => {
                let arn = text(input, "serviceDeploymentArn");
                let index = self
                    .deployments
                    .iter()
                    .position(|one| one.arn() == arn)
                    .ok_or_else(|| no("ServiceDeploymentNotFoundException", arn))?;
                if self.deployments[index].over() {
                    return Err(no("ConflictException", "The service deployment is over."));
                }
                match text(input, "stopType") {
                    "ABORT" => {
                        let own = &mut self.deployments[index];
                        "STOPPED".clone_into(&mut own.status);
                        "StopServiceDeployment was called.".clone_into(&mut own.reason);
                    }
                    _ => self.roll_back(index, "StopServiceDeployment was called."),
                }
                Ok(json!({"serviceDeploymentArn": arn}))
            }
            _ => Err(no("UnsupportedFeatureException", format!("the double does not serve {operation}"))),
        }
    }

    fn create(&mut self, input: &Value, name: &str) -> Answer {
        let token = text(input, "clientToken");
        if self.services.get(name).is_some_and(|own| own.status == "DRAINING") {
            let message = "Unable to Start a service that is still Draining.";
            return Err(no("InvalidParameterException", message));
        }
        if let Some(own) = self.services.get(name).filter(|own| own.status != "INACTIVE") {
            if own.token == token && !token.is_empty() {
                return Ok(json!({"service": self.describe(name)}));
            }
            return Err(no("InvalidParameterException", "Creation of service was not idempotent."));
        }
        let definition = self
            .definition(text(input, "taskDefinition"))
            .ok_or_else(|| no("ClientException", "TaskDefinition not found."))?;
        self.deployments.retain(|one| one.service != name);
        let mut document = input.as_object().cloned().unwrap_or_default();
        let tags = document.remove("tags").and_then(|tags| tags.as_array().cloned()).unwrap_or_default();
        document.remove("cluster");
        let service = Service {
            document,
            status: "ACTIVE",
            desired: input["desiredCount"].as_u64().unwrap_or(1),
            task_definition: text(&definition, "taskDefinitionArn").to_owned(),
            created: self.now,
            tags,
            token: token.to_owned(),
            events: Vec::new(),
        };
        self.services.insert(name.to_owned(), service);
        self.deploy(name);
        Ok(json!({"service": self.describe(name)}))
    }

    fn delete(&mut self, name: &str, force: bool) -> Answer {
        let now = self.now;
        let own = self
            .services
            .get_mut(name)
            .ok_or_else(|| no("ServiceNotFoundException", "Service not found."))?;
        if own.desired > 0 && !force {
            let message = "The service cannot be stopped while it is scaled above 0.";
            return Err(no("InvalidParameterException", message));
        }
        (own.status, own.desired) = ("DRAINING", 0);
        for task in self.tasks.iter_mut().filter(|task| task.service == name && task.status != "STOPPED") {
            task.stopping = task.stopping.or(Some(now));
        }
        for one in self.deployments.iter_mut().filter(|one| one.service == name && !one.over()) {
            "STOPPED".clone_into(&mut one.status);
        }
        Ok(json!({"service": self.describe(name)}))
    }

    fn update(&mut self, input: &Value, name: &str) -> Answer {
        let wanted = match input["taskDefinition"].as_str() {
            Some(named) => Some(
                self.definition(named).ok_or_else(|| no("ClientException", "TaskDefinition not found."))?,
            ),
            None => None,
        };
        let own = self
            .services
            .get_mut(name)
            .ok_or_else(|| no("ServiceNotFoundException", "Service not found."))?;
        if own.status != "ACTIVE" {
            return Err(no("ServiceNotActiveException", "Service was not ACTIVE."));
        }
        let mut rolls = input["forceNewDeployment"] == true;
        if let Some(wanted) = wanted {
            let arn = text(&wanted, "taskDefinitionArn");
            rolls |= arn != own.task_definition;
            arn.clone_into(&mut own.task_definition);
        }
        if let Some(desired) = input["desiredCount"].as_u64() {
            own.desired = desired;
        }
        for (key, value) in input.as_object().into_iter().flatten() {
            if !["cluster", "service", "taskDefinition", "desiredCount", "forceNewDeployment"]
                .contains(&key.as_str())
            {
                rolls |= ["loadBalancers", "networkConfiguration", "platformVersion"].contains(&key.as_str())
                    && own.document.get(key) != Some(value);
                own.document.insert(key.clone(), value.clone());
            }
        }
        if rolls {
            self.deploy(name);
        }
        Ok(json!({"service": self.describe(name)}))
    }
}

fn shown_task(task: &Task) -> Value {
    let mut shown = json!({"taskArn": task.arn, "clusterArn": format!("{ACCOUNT}:cluster/double"), "taskDefinitionArn": task.definition,
        "lastStatus": task.status, "desiredStatus": if task.stopping.is_some() || task.status == "STOPPED" { "STOPPED" } else { "RUNNING" },
        "startedBy": format!("ecs-svc/{}", task.deployment), "group": format!("service:{}", task.service), "createdAt": task.created,
        "startedAt": task.created + START, "containers": [{"name": "app", "lastStatus": task.status}]});
    if task.failed {
        shown["stopCode"] = json!("EssentialContainerExited");
        shown["stoppedReason"] = json!("Essential container in task exited");
        shown["stoppedAt"] = json!(task.created + START);
        shown["containers"][0]["exitCode"] = json!(3);
    } else if task.stopping.is_some() {
        shown["stopCode"] = json!("ServiceSchedulerInitiated");
        shown["stoppedReason"] =
            json!(format!("Scaling activity initiated by (deployment ecs-svc/{})", task.deployment));
    }
    shown
}

/// The stages of a native deployment in their order (AWS' developer guide, lifecycle stages).
fn phases(strategy: &str, configuration: &Value) -> Vec<(&'static str, f64, Do)> {
    let minutes = |value: &Value, default: f64| value.as_f64().unwrap_or(default) * 60.0;
    let bake = minutes(&configuration["bakeTimeInMinutes"], 0.0);
    let weights: Vec<(f64, f64)> = match strategy {
        "LINEAR" => {
            let own = &configuration["linearConfiguration"];
            let (step, wait) =
                (own["stepPercent"].as_f64().unwrap_or(10.0), minutes(&own["stepBakeTimeInMinutes"], 6.0));
            let mut weights = Vec::new();
            let mut weight = step;
            while weight < 100.0 {
                weights.push((weight, wait));
                weight += step;
            }
            weights.push((100.0, 1.0));
            weights
        }
        "CANARY" => {
            let own = &configuration["canaryConfiguration"];
            vec![
                (
                    own["canaryPercent"].as_f64().unwrap_or(5.0),
                    minutes(&own["canaryBakeTimeInMinutes"], 10.0),
                ),
                (100.0, 1.0),
            ]
        }
        _ => vec![(100.0, 1.0)],
    };
    let mut all = vec![
        ("PRE_SCALE_UP", 1.0, Do::Nothing),
        ("SCALE_UP", 1.0, Do::Scale),
        ("POST_SCALE_UP", 1.0, Do::Nothing),
        ("TEST_TRAFFIC_SHIFT", 1.0, Do::Test),
        ("POST_TEST_TRAFFIC_SHIFT", 1.0, Do::Nothing),
    ];
    for (weight, wait) in weights {
        all.push(("PRE_PRODUCTION_TRAFFIC_SHIFT", 1.0, Do::Nothing));
        all.push(("PRODUCTION_TRAFFIC_SHIFT", wait, Do::Weight(weight)));
    }
    all.push(("POST_PRODUCTION_TRAFFIC_SHIFT", 1.0, Do::Nothing));
    all.push(("BAKE_TIME", bake, Do::Nothing));
    all.push(("CLEAN_UP", STOP, Do::Clean));
    all
}
