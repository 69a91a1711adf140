//! The conformance kit: cancel, drain, run twice, and a crash at every checkpoint and call, on services with real tasks.

use crate::peer::aws::Place;
use crate::peer::{account, definitions, image, place, probed, rolling, run, secrets, spec, task};
use executor_api::TransportProbe;
use executor_api::testing::World;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_ecs::EcsExecutor;
use futures::future::BoxFuture;
use proto::failure::FailureKind;
use proto::task::{AwsAccount, AwsCredential, EcsAction, EcsSpec, TaskCount};
use proto::text::{SecretRef, placeholder};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rolling,
    Scale,
}

struct Kit {
    place: Place<'static>,
    kind: Kind,
    images: [String; 3],
}

/// A short name of a case that may stand in services.
fn name(key: &str) -> String {
    key.to_ascii_lowercase().replace(' ', "-")
}

impl Kit {
    async fn new(called: &'static str, kind: Kind) -> Kit {
        let place = place(called).await;
        let (place, images) = tokio::task::spawn_blocking(move || {
            let images = [("1", "web"), ("2", "web"), ("never", "sick")];
            let images = images.map(|(tag, behaviour)| image(&place, tag, behaviour));
            (place, images)
        })
        .await
        .unwrap();
        Kit { place, kind, images }
    }

    fn rolling(&self, key: &str, image: usize) -> EcsSpec {
        let mut all = definitions(&self.place, &name(key), &self.images[image], 1, None);
        let Some(proto::task::EcsDocument::Value { value, .. }) =
            all.task.as_mut().and_then(|task| task.document.as_mut())
        else {
            panic!("another document")
        };
        let secret = placeholder(&SecretRef("planted".into()), 77);
        value["containerDefinitions"][0]["environment"] = json!([{"name": "PASSWORD", "value": secret}]);
        spec(&self.place, all, rolling())
    }

    fn scale(&self, key: &str, count: u32) -> EcsSpec {
        let action = EcsAction::EcsScale {
            service: name(key),
            instances: TaskCount::Count(count),
            skip_steady_state_check: false,
        };
        spec(&self.place, proto::task::EcsDefinitions::default(), action)
    }

    fn case(&self, spec: EcsSpec, key: &str) -> Case<EcsSpec> {
        let task = task(&spec, key, "step");
        Case { spec, task }
    }

    /// Runs a step that goes before the one under test.
    fn before(&self, key: &str, spec: &EcsSpec) {
        let work = async {
            let task = task(spec, &format!("{key}-before"), "before");
            let world = World::new(format!("{key}-before"), task, self.planted());
            run(&world, spec).await.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(Box::pin(work)));
    }

    /// The case's service; null while there is none.
    fn found(&self, key: &str) -> serde_json::Value {
        let asked = json!({"cluster": self.place.name, "services": [name(key)]});
        let mut said = self.place.ecs.aws("ecs", "DescribeServices", asked);
        said["services"].as_array_mut().and_then(Vec::pop).unwrap_or_default()
    }

    /// Revisions of the case's family.
    fn revisions(&self, key: &str) -> usize {
        let family = format!("{}-{}", self.place.name, name(key));
        let said = self.place.ecs.aws(
            "ecs",
            "ListTaskDefinitions",
            json!({"familyPrefix": family, "status": "ACTIVE"}),
        );
        said["taskDefinitionArns"].as_array().map_or(0, Vec::len)
    }
}

impl Harness for Kit {
    type Executor = EcsExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> EcsExecutor {
        probed(probe)
    }

    fn succeeding(&self, key: &str) -> Case<EcsSpec> {
        self.before(key, &self.rolling(key, 0));
        match self.kind {
            Kind::Rolling => self.case(self.rolling(key, 1), key),
            Kind::Scale => self.case(self.scale(key, 2), key),
        }
    }

    fn lasting(&self, key: &str) -> Option<Case<EcsSpec>> {
        match self.kind {
            // Its tasks answer, and never get traffic: only a load balancer would tell. So it waits for a group.
            Kind::Rolling => {
                let short: String = name(key).rsplit('-').next().unwrap_or("x").chars().take(12).collect();
                let group = self.place.balancer(&short).group(&short);
                let mut all = definitions(&self.place, &name(key), &self.images[2], 1, Some(&group));
                if let Some(proto::task::EcsDocument::Value { value, .. }) = all.service.as_mut() {
                    // Nobody gives up early.
                    value["deploymentConfiguration"] =
                        json!({"maximumPercent": 200, "minimumHealthyPercent": 100});
                    value["healthCheckGracePeriodSeconds"] = json!(3600);
                }
                Some(self.case(spec(&self.place, all, rolling()), key))
            }
            Kind::Scale => None,
        }
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.found(key)["status"] == "ACTIVE" })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move {
            let service = self.found(key);
            Some(match self.kind {
                // The first revision is of the step before.
                Kind::Rolling => self.revisions(key).saturating_sub(1),
                Kind::Scale => usize::from(service["desiredCount"] == 2),
            })
        })
    }

    fn left_behind<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move { vec![] })
    }

    fn errors(&self) -> Vec<ErrorCase<EcsSpec>> {
        if self.kind != Kind::Rolling {
            return vec![];
        }
        let with = |title: &str, change: &dyn Fn(&mut EcsSpec), kind, code| {
            let mut spec = self.rolling(title, 0);
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
        all.push(("planted".into(), "pl4nted-s3cret-value".into()));
        all
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(240)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_passes_the_kit() {
    conformance::run(&Kit::new("kitrolling", Kind::Rolling).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_count_passes_the_kit() {
    conformance::run(&Kit::new("kitscale", Kind::Scale).await).await;
}
