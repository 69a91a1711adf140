//! The conformance kit for the steps that apply, bring back and delete: cancel, drain, run twice, and a crash at every
//! checkpoint and call, against a real control plane.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::testing::World;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_api::{Executor, TransportProbe};
use executor_kube::{KubeExecutor, Settings};
use futures::future::BoxFuture;
use peer::{Place, cluster, inline, rolling, spec, task};
use proto::failure::FailureKind;
use proto::task::{
    Cluster, ClusterCredential, CommandFlag, ExecutionRef, KubernetesAction, KubernetesSpec, Selection,
};
use proto::text::{SecretRef, placeholder};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rolling,
    Rollback,
    Apply,
    Delete,
    Diff,
    DryRun,
}

struct Kit {
    place: Place,
    kind: Kind,
}

/// A short name of a case that may stand in objects.
fn name(key: &str) -> String {
    key.to_ascii_lowercase().replace(' ', "-")
}

fn web(key: &str, image: &str, extra: bool) -> String {
    let name = name(key);
    let secret = placeholder(&SecretRef("planted".into()), 77);
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: s-{name}}}\nstringData: {{password: '{secret}'}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 1\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         containers:\n      - name: app\n        image: {image}\n        envFrom: [{{secretRef: {{name: s-{name}}}}}]\n        \
         readinessProbe: {{httpGet: {{path: /, port: 80}}}}\n"
    );
    if extra {
        text.push_str(&format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: x-{name}, labels: {{part: extra}}}}\nspec: {{ports: [{{port: 80}}]}}\n"));
    }
    text
}

impl Kit {
    async fn new(name: &str, kind: Kind) -> Kit {
        Kit { place: Place::new(name).await, kind }
    }

    fn step(&self, key: &str, action: KubernetesAction, manifest: Option<&str>) -> KubernetesSpec {
        let manifest = manifest.and_then(inline);
        KubernetesSpec { manifest, release_name: name(key), ..spec(&self.place, action) }
    }

    fn rolling(&self, key: &str, image: &str, extra: bool) -> KubernetesSpec {
        self.step(key, rolling(true), Some(&web(key, image, extra)))
    }

    fn apply(&self, key: &str, image: &str, extra: bool) -> KubernetesSpec {
        let action = KubernetesAction::K8sApply {
            file_paths: vec!["all.yaml".into()],
            skip_dry_run: false,
            skip_steady_state_check: false,
            skip_rendering: false,
        };
        let mut spec = self.step(key, action, Some(&web(key, image, extra)));
        spec.command_flags = vec![CommandFlag { command: "Apply".into(), flag: "--prune --all".into() }];
        spec
    }

    fn case(&self, spec: KubernetesSpec) -> Case<KubernetesSpec> {
        let mut task = task(&spec);
        task.execution =
            ExecutionRef { execution_id: "conformance".into(), stage: "s".into(), ..task.execution };
        Case { spec, task }
    }

    /// Runs steps that go before the one under test.
    fn before(&self, key: &str, steps: Vec<KubernetesSpec>) {
        let work = async {
            for (number, spec) in steps.into_iter().enumerate() {
                let case = self.case(spec);
                let world = World::new(format!("{key}-before-{number}"), case.task.clone(), self.planted());
                let executor = KubeExecutor::new(Settings::default());
                let result = executor.run(&case.spec, &world.context().1).await;
                result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
    }

    async fn generation(&self, key: &str) -> usize {
        let found = self.place.get(&self.place.path("apps/v1", &format!("deployments/{}", name(key)))).await;
        found.and_then(|d| d["metadata"]["generation"].as_u64()).unwrap_or(0) as usize
    }
}

impl Harness for Kit {
    type Executor = KubeExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> KubeExecutor {
        KubeExecutor::new(Settings::default()).with_probe(probe)
    }

    fn succeeding(&self, key: &str) -> Case<KubernetesSpec> {
        match self.kind {
            Kind::Rolling => {
                self.before(key, vec![self.rolling(key, "app:1", true)]);
                self.case(self.rolling(key, "app:2", false))
            }
            Kind::Rollback => {
                self.before(key, vec![self.rolling(key, "app:1", true), self.rolling(key, "app:2", false)]);
                let back = KubernetesAction::K8sRollingRollback { pruning_enabled: true };
                let mut case = self.case(self.step(key, back, None));
                case.task.undo = Some(json!({"v": 1, "step": "K8sRollingDeploy", "releaseNumber": 2}));
                case
            }
            Kind::Apply => {
                self.before(key, vec![self.apply(key, "app:1", true)]);
                self.case(self.apply(key, "app:2", false))
            }
            Kind::Delete => {
                self.before(key, vec![self.rolling(key, "app:1", true), self.apply(key, "app:1", true)]);
                let delete =
                    KubernetesAction::K8sDelete { resources: Selection::Release, delete_namespaces: false };
                self.case(self.step(key, delete, None))
            }
            Kind::DryRun => {
                let text = web(key, "app:2", true);
                self.case(self.step(key, KubernetesAction::K8sDryRun {}, Some(&text)))
            }
            Kind::Diff => {
                self.before(key, vec![self.rolling(key, "app:1", true)]);
                let text = web(key, "app:2", false);
                self.case(self.step(key, KubernetesAction::K8sDiff {}, Some(&text)))
            }
        }
    }

    fn lasting(&self, key: &str) -> Option<Case<KubernetesSpec>> {
        match self.kind {
            Kind::Rolling => Some(self.case(self.rolling(key, "app:1-never-ready", true))),
            Kind::Apply => Some(self.case(self.apply(key, "app:1-never-ready", true))),
            _ => None,
        }
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.generation(key).await > 0 })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move {
            let generation = self.generation(key).await;
            Some(match self.kind {
                Kind::Rolling | Kind::Apply => generation.saturating_sub(1),
                Kind::Rollback => generation.saturating_sub(2),
                Kind::Delete => usize::from(generation == 0),
                Kind::Diff | Kind::DryRun => return None,
            })
        })
    }

    fn left_behind<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            if self.kind != Kind::Delete {
                return vec![];
            }
            // What a deletion leaves: nothing when it was carried out.
            if self.generation(key).await > 0 {
                return vec![];
            }
            let text = self.place.plane.kubectl(&[
                "-n",
                &self.place.namespace,
                "get",
                "secrets,services,deployments",
                "-o",
                "name",
            ]);
            text.lines().filter(|line| line.contains(&name(key))).map(str::to_owned).collect()
        })
    }

    fn errors(&self) -> Vec<ErrorCase<KubernetesSpec>> {
        if self.kind != Kind::Rolling {
            return vec![];
        }
        let usual = |key: &str| self.rolling(key, "app:1", false);
        let with = |name: &str, credential, kind, code| {
            let spec =
                KubernetesSpec { cluster: Cluster { connector: "c".into(), credential }, ..usual(name) };
            ErrorCase { name: name.into(), case: self.case(spec), kind, code }
        };
        let of = |id: &str| SecretRef(id.into());
        let ClusterCredential::ClientKeyCert { master_url, .. } = cluster(self.place.plane).0.credential
        else {
            panic!("another credential")
        };
        let token = |url: &str, token: &str, ca: Option<&str>| ClusterCredential::ServiceAccount {
            master_url: url.into(),
            token: of(token),
            ca: ca.map(of),
        };
        let manifest = |name: &str, text: &str, kind, code| ErrorCase {
            name: name.into(),
            case: self.case(self.step(name, usual(name).action, Some(text))),
            kind,
            code,
        };
        let mut flags = usual("flags");
        flags.command_flags = vec![CommandFlag { command: "Apply".into(), flag: "--force".into() }];
        vec![
            with(
                "nobody there",
                token("https://127.0.0.1:1", "planted", Some("ca")),
                FailureKind::Connectivity,
                "KUBE-011",
            ),
            with(
                "another ca",
                token(&master_url, "planted", Some("other-ca")),
                FailureKind::Connectivity,
                "KUBE-012",
            ),
            with(
                "a wrong token",
                token(&master_url, "planted", Some("ca")),
                FailureKind::Authentication,
                "KUBE-013",
            ),
            with("no secret", token(&master_url, "absent", Some("ca")), FailureKind::BadSpec, "KUBE-031"),
            ErrorCase {
                name: "a flag".into(),
                case: self.case(flags),
                kind: FailureKind::BadSpec,
                code: "KUBE-037",
            },
            manifest("not yaml", "a: [", FailureKind::BadSpec, "KUBE-064"),
            manifest(
                "no such kind",
                "apiVersion: a.b/v1\nkind: C\nmetadata: {name: x}\n",
                FailureKind::BadSpec,
                "KUBE-018",
            ),
            manifest(
                "a bad name",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: X_Y}\n",
                FailureKind::BadSpec,
                "KUBE-017",
            ),
        ]
    }

    fn planted(&self) -> Vec<(String, String)> {
        let mut secrets = cluster(self.place.plane).1;
        let other = std::fs::read_to_string(self.place.plane.dir().join("pki/front-proxy-ca.crt"));
        secrets.push(("other-ca".into(), other.unwrap_or_else(|_| secrets[1].1.clone())));
        secrets.push(("planted".into(), "pl4nted-s3cret-value".into()));
        secrets
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_passes_the_kit() {
    conformance::run(&Kit::new("kit-rolling", Kind::Rolling).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_passes_the_kit() {
    conformance::run(&Kit::new("kit-rollback", Kind::Rollback).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_passes_the_kit() {
    conformance::run(&Kit::new("kit-apply", Kind::Apply).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_passes_the_kit() {
    conformance::run(&Kit::new("kit-delete", Kind::Delete).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_passes_the_kit() {
    conformance::run(&Kit::new("kit-diff", Kind::Diff).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_passes_the_kit() {
    conformance::run(&Kit::new("kit-dry-run", Kind::DryRun).await).await;
}
