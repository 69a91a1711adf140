//! The conformance kit: cancel, drain, run twice, and a crash at every checkpoint and call, on services with real tasks.
//!
//! Each case has a service of its own, deployments and swaps a load balancer too. A step's effect is counted by what AWS has
//! in the end (revisions, services) or by the calls that arrived, so that one that took place twice is seen.

use crate::peer::aws::{Balancer, Place};
use crate::peer::{
    account, create, definitions, image, listeners, place, probed, rolling, run, secrets, spec, task, undo,
};
use executor_api::testing::World;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_api::{StepOutput, TransportProbe};
use executor_ecs::EcsExecutor;
use futures::future::BoxFuture;
use proto::failure::FailureKind;
use proto::task::{
    AwsAccount, AwsCredential, EcsAction, EcsDefinitions, EcsDocument, EcsEarlier, EcsSpec, EcsUndo,
    TaskCount,
};
use proto::text::{SecretRef, placeholder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The kinds of step that are held to the kit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Scale,
    Rolling,
    Canary,
    Create,
    Swap,
}

/// A load balancer of one case: production and stage, each with a target group.
struct Gate {
    balancer: Balancer<'static>,
    blue: String,
    production: String,
    stage: String,
}

struct Kit {
    kind: Kind,
    place: Place<'static>,
    /// Answers at once, in its first and its second revision.
    images: [String; 2],
    /// Answers after five minutes: its rollout lasts.
    late: String,
    gates: Mutex<BTreeMap<String, Arc<Gate>>>,
}

/// What stands in the environment of every container that a step deploys.
const PASSWORD: &str = "pl4nted-password-of-the-kit";

/// Short and unique name of a case, for names of load balancers.
fn name(key: &str) -> String {
    let sum = key.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("w{:07x}", sum & 0xfff_ffff)
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(Box::pin(work)))
}

impl Kit {
    async fn new(kind: Kind, name: &'static str) -> Kit {
        let place = place(name).await;
        let made = tokio::task::spawn_blocking(move || {
            let late = image(&place, "late", "late 300");
            ([image(&place, "1", "web"), image(&place, "2", "web")], late, place)
        });
        let (images, late, place) = made.await.unwrap();
        Kit { kind, place, images, late, gates: Mutex::default() }
    }

    fn case(&self, spec: EcsSpec, key: &str) -> Case<EcsSpec> {
        let task = task(&spec, key, "step");
        Case { spec, task }
    }

    fn aws(&self, service: &str, operation: &str, input: Value) -> Value {
        self.place.ecs.aws(service, operation, input)
    }

    /// Ends what earlier cases left: tasks take memory, listeners one of the peer's doors each.
    fn clear(&self) {
        for gate in std::mem::take(&mut *self.gates.lock().unwrap()).into_values() {
            for listener in [&gate.production, &gate.stage] {
                self.aws("elbv2", "DeleteListener", json!({"ListenerArn": listener}));
            }
        }
        let all = self.aws("ecs", "ListServices", json!({"cluster": self.place.name, "maxResults": 100}));
        for arn in all["serviceArns"].as_array().into_iter().flatten() {
            let gone = json!({"cluster": self.place.name, "service": arn, "force": true});
            self.aws("ecs", "DeleteService", gone);
        }
    }

    /// The load balancer of a case. Production sends to blue, the stage to green.
    fn gate(&self, key: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap();
        let made = || {
            let balancer = self.place.balancer(&name(key));
            let (blue, green) = (balancer.group("b"), balancer.group("g"));
            let production = balancer.listener(80, &[(&blue, 1)]);
            let stage = balancer.listener(9001, &[(&green, 1)]);
            Arc::new(Gate { balancer, blue, production, stage })
        };
        gates.entry(name(key)).or_insert_with(made).clone()
    }

    /// The case's service, with a secret in its environment.
    fn definitions(&self, key: &str, image: &str, group: Option<&str>) -> EcsDefinitions {
        let mut all = definitions(&self.place, &name(key), image, 1, group);
        let task = all.task.as_mut().and_then(|task| task.document.as_mut());
        if let Some(EcsDocument::Value { value, .. }) = task {
            let secret = placeholder(&SecretRef("password".into()), 77);
            value["containerDefinitions"][0]["environment"] = json!([{"name": "PASSWORD", "value": secret}]);
        }
        if let Some(EcsDocument::Value { value, .. }) = all.service.as_mut().filter(|_| group.is_some()) {
            // The peer divides it by twenty.
            value["healthCheckGracePeriodSeconds"] = json!(12_000);
        }
        all
    }

    /// Runs what comes before the step.
    fn before(&self, key: &str, what: &str, spec: &EcsSpec) -> (StepOutput, World) {
        blocking(async {
            let task = task(spec, &format!("{key}-before"), what);
            let world = World::new(format!("{key}-{what}"), task, self.planted());
            let result = run(&world, spec).await;
            let output = result.unwrap_or_else(|e| panic!("{}: {e}\n{}", e.code, world.logs.everything()));
            (output, world)
        })
    }

    /// Makes the case's service with one task.
    fn deployed(&self, key: &str, group: Option<&str>) {
        let defined = definitions(&self.place, &name(key), &self.images[0], 1, group);
        self.before(key, "deploy", &spec(&self.place, defined, rolling()));
    }

    /// A service that scales by itself, so that a deployment has something to suspend.
    fn scaled(&self, key: &str) {
        let target = json!({"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount",
            "ResourceId": self.resource(key), "MinCapacity": 1, "MaxCapacity": 4});
        self.aws("application-autoscaling", "RegisterScalableTarget", target);
    }

    fn resource(&self, key: &str) -> String {
        format!("service/{}/{}", self.place.name, name(key))
    }

    fn scale(&self, key: &str) -> EcsSpec {
        let instances = TaskCount::Count(2);
        let action = EcsAction::EcsScale { service: name(key), instances, skip_steady_state_check: false };
        spec(&self.place, EcsDefinitions::default(), action)
    }

    fn canary(&self, key: &str, image: &str, group: Option<&str>) -> EcsSpec {
        let action =
            EcsAction::EcsCanaryDeploy { instances: Some(TaskCount::Count(1)), replace_existing: false };
        spec(&self.place, self.definitions(key, image, group), action)
    }

    fn create(&self, key: &str, image: &str) -> EcsSpec {
        let gate = self.gate(key);
        let action = create(listeners(&gate.balancer.name, &gate.production, &gate.stage));
        spec(&self.place, self.definitions(key, image, Some("<+targetGroupArn>")), action)
    }

    /// Blue lives, green was created, and blue scales by itself. `delay`: how long the swap waits before it empties blue.
    fn swap(&self, key: &str, delay: u64) -> EcsSpec {
        let gate = self.gate(key);
        let blue = format!("{}__1", name(key));
        let revision = self.place.register(&format!("{}-{blue}", self.place.name), &self.images[0]);
        self.place.run(&blue, &revision, 1, Some(&gate.blue));
        let target = json!({"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount",
            "ResourceId": format!("service/{}/{blue}", self.place.name), "MinCapacity": 1, "MaxCapacity": 4});
        self.aws("application-autoscaling", "RegisterScalableTarget", target);
        let (output, world) = self.before(key, "create", &self.create(key, &self.images[1]));
        let action = EcsAction::EcsBlueGreenSwapTargetGroups {
            do_not_downsize_old_service: false,
            downsize_old_service_delay_ms: delay,
        };
        let left = EcsUndo {
            step: "create".into(),
            kind: "EcsBlueGreenCreateService".into(),
            succeeded: true,
            data: undo(Some(&output), &world),
        };
        let mut spec = spec(&self.place, EcsDefinitions::default(), action);
        spec.earlier = EcsEarlier { undo: vec![left] };
        spec
    }

    /// A service; null while there is none.
    fn found(&self, service: &str) -> Value {
        let asked = json!({"cluster": self.place.name, "services": [service]});
        let mut said = self.aws("ecs", "DescribeServices", asked);
        said["services"].as_array_mut().and_then(Vec::pop).unwrap_or_default()
    }

    /// Number of the revision that a service runs, if it is active.
    fn revision(&self, service: &str) -> usize {
        let found = self.found(service);
        let number = || found["taskDefinition"].as_str()?.rsplit(':').next()?.parse().ok();
        if found["status"] == "ACTIVE" { number().unwrap_or(0) } else { 0 }
    }

    /// How often the production listener of a case was changed by the program under test.
    fn swapped(&self, key: &str) -> usize {
        let production = self.gate(key).production.clone();
        let ours = |call: &crate::peer::aws::Call| {
            call.operation == "ModifyListener"
                && call.key == self.place.key
                && call.parameters.to_string().contains(&production)
        };
        self.place.ecs.calls(0).iter().filter(|call| ours(call)).count()
    }
}

impl Harness for Kit {
    type Executor = EcsExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> EcsExecutor {
        probed(probe)
    }

    fn succeeding(&self, key: &str) -> Case<EcsSpec> {
        self.clear();
        let spec = match self.kind {
            Kind::Scale => {
                self.deployed(key, None);
                self.scale(key)
            }
            Kind::Rolling => {
                self.deployed(key, None);
                self.scaled(key);
                spec(&self.place, self.definitions(key, &self.images[1], None), rolling())
            }
            Kind::Canary => self.canary(key, &self.images[0], None),
            Kind::Create => self.create(key, &self.images[0]),
            Kind::Swap => self.swap(key, 0),
        };
        self.case(spec, key)
    }

    fn lasting(&self, key: &str) -> Option<Case<EcsSpec>> {
        self.clear();
        let spec = match self.kind {
            Kind::Scale => {
                // Without tasks it is steady at once; those that it gets now are not ready for minutes.
                let gate = self.gate(key);
                let family = format!("{}-{}", self.place.name, name(key));
                let revision = self.place.register(&family, &self.late);
                let mut service = self.place.service(&name(key), &revision, 0, Some(&gate.blue));
                service["healthCheckGracePeriodSeconds"] = json!(12_000);
                self.aws("ecs", "CreateService", service);
                self.place.until_steady(&name(key));
                self.scale(key)
            }
            Kind::Rolling => {
                let gate = self.gate(key);
                self.deployed(key, Some(&gate.blue));
                self.scaled(key);
                spec(&self.place, self.definitions(key, &self.late, Some(&gate.blue)), rolling())
            }
            Kind::Canary => self.canary(key, &self.late, Some(&self.gate(key).blue)),
            Kind::Create => self.create(key, &self.late),
            Kind::Swap => self.swap(key, 300_000),
        };
        Some(self.case(spec, key))
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        let begun = || match self.kind {
            Kind::Scale => self.found(&name(key))["desiredCount"] == 2,
            Kind::Rolling => self.revision(&name(key)) == 2,
            Kind::Canary => self.revision(&format!("{}Canary", name(key))) == 1,
            Kind::Create => self.revision(&format!("{}__1", name(key))) == 1,
            Kind::Swap => self.swapped(key) == 1,
        };
        Box::pin(async move { begun() })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        let effects = || match self.kind {
            Kind::Scale => usize::from(self.found(&name(key))["desiredCount"] == 2),
            // The second revision, and no third one.
            Kind::Rolling => self.revision(&name(key)).saturating_sub(1),
            Kind::Canary => self.revision(&format!("{}Canary", name(key))),
            Kind::Create => {
                self.revision(&format!("{}__1", name(key))) + self.revision(&format!("{}__2", name(key)))
            }
            Kind::Swap => self.swapped(key),
        };
        Box::pin(async move { Some(effects()) })
    }

    /// Autoscaling that is suspended, where the step is not meant to leave it so.
    fn left_behind<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Vec<String>> {
        let left = || {
            if self.kind != Kind::Rolling {
                return vec![];
            }
            let which = json!({"ServiceNamespace": "ecs", "ResourceIds": [self.resource(key)]});
            let said = self.aws("application-autoscaling", "DescribeScalableTargets", which);
            let state = said["ScalableTargets"][0]["SuspendedState"].clone();
            let suspended = state["DynamicScalingInSuspended"] == true;
            if suspended { vec![format!("autoscaling is suspended: {state}")] } else { vec![] }
        };
        Box::pin(async move { left() })
    }

    fn errors(&self) -> Vec<ErrorCase<EcsSpec>> {
        let with = |title: &str, change: &dyn Fn(&mut EcsSpec), kind, code| {
            let mut spec = match self.kind {
                Kind::Scale | Kind::Swap => self.scale(title),
                Kind::Rolling => spec(&self.place, self.definitions(title, &self.images[0], None), rolling()),
                Kind::Canary => self.canary(title, &self.images[0], None),
                Kind::Create => self.create(title, &self.images[0]),
            };
            change(&mut spec);
            ErrorCase { name: title.into(), case: self.case(spec, title), kind, code }
        };
        let nobody = |spec: &mut EcsSpec| {
            spec.account.endpoints = BTreeMap::from([(String::new(), "http://127.0.0.1:1".to_owned())]);
        };
        let absent = |spec: &mut EcsSpec| {
            let secret_key = placeholder(&SecretRef("absent".into()), 77).into();
            let access_key = self.place.key.as_str().into();
            spec.account = AwsAccount {
                credential: AwsCredential::ManualConfig { access_key, secret_key, session_token: None },
                ..account(&self.place)
            };
        };
        vec![
            with("nobody there", &nobody, FailureKind::Connectivity, "AWS-007"),
            with("no secret", &absent, FailureKind::BadSpec, "AWS-001"),
            with("no cluster", &|spec| spec.cluster = "missing".into(), FailureKind::BadSpec, "ECS-005"),
        ]
    }

    fn planted(&self) -> Vec<(String, String)> {
        let mut all = secrets();
        all.push(("password".into(), PASSWORD.into()));
        all
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(240)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_count_passes_the_kit() {
    conformance::run(&Kit::new(Kind::Scale, "kitscale").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_passes_the_kit() {
    conformance::run(&Kit::new(Kind::Rolling, "kitroll").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_passes_the_kit() {
    conformance::run(&Kit::new(Kind::Canary, "kitcanary").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_the_stage_passes_the_kit() {
    conformance::run(&Kit::new(Kind::Create, "kitcreate").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_of_target_groups_passes_the_kit() {
    conformance::run(&Kit::new(Kind::Swap, "kitswap").await).await;
}
