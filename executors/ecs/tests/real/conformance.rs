//! The conformance kit: cancel, drain, run twice, and a crash at every checkpoint and call, on a service with real tasks.

use crate::peer::aws::Place;
use crate::peer::{account, definitions, image, place, probed, rolling, run, secrets, spec, task};
use executor_api::TransportProbe;
use executor_api::testing::World;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_ecs::EcsExecutor;
use futures::future::BoxFuture;
use proto::failure::FailureKind;
use proto::task::{AwsAccount, AwsCredential, EcsAction, EcsDefinitions, EcsSpec, TaskCount};
use proto::text::{SecretRef, placeholder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

struct Kit {
    place: Place<'static>,
    image: String,
}

/// A short name of a case that may stand in services.
fn name(key: &str) -> String {
    key.to_ascii_lowercase().replace(' ', "-")
}

impl Kit {
    fn scale(&self, key: &str) -> EcsSpec {
        let instances = TaskCount::Count(2);
        let action = EcsAction::EcsScale { service: name(key), instances, skip_steady_state_check: false };
        spec(&self.place, EcsDefinitions::default(), action)
    }

    fn case(&self, spec: EcsSpec, key: &str) -> Case<EcsSpec> {
        let task = task(&spec, key, "step");
        Case { spec, task }
    }

    /// Makes the case's service with one task.
    fn before(&self, key: &str) {
        let spec = spec(&self.place, definitions(&self.place, &name(key), &self.image, 1, None), rolling());
        let work = async {
            let task = task(&spec, &format!("{key}-before"), "before");
            let world = World::new(format!("{key}-before"), task, self.planted());
            run(&world, &spec).await.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(Box::pin(work)));
    }

    /// The case's service; null while there is none.
    fn found(&self, key: &str) -> Value {
        let asked = json!({"cluster": self.place.name, "services": [name(key)]});
        let mut said = self.place.ecs.aws("ecs", "DescribeServices", asked);
        said["services"].as_array_mut().and_then(Vec::pop).unwrap_or_default()
    }
}

impl Harness for Kit {
    type Executor = EcsExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> EcsExecutor {
        probed(probe)
    }

    fn succeeding(&self, key: &str) -> Case<EcsSpec> {
        self.before(key);
        self.case(self.scale(key), key)
    }

    fn lasting(&self, _key: &str) -> Option<Case<EcsSpec>> {
        None
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.found(key)["desiredCount"] == 2 })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move { Some(usize::from(self.found(key)["desiredCount"] == 2)) })
    }

    fn left_behind<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move { vec![] })
    }

    fn errors(&self) -> Vec<ErrorCase<EcsSpec>> {
        let with = |title: &str, change: &dyn Fn(&mut EcsSpec), kind, code| {
            let mut spec = self.scale(title);
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
        secrets()
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(240)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_count_passes_the_kit() {
    let place = place("kitscale").await;
    let made = tokio::task::spawn_blocking(move || (image(&place, "1", "web"), place)).await.unwrap();
    conformance::run(&Kit { image: made.0, place: made.1 }).await;
}
