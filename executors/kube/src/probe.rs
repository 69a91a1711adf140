//! `delegate connector test` for a cluster: how far it comes, and how long each stage takes.

use crate::connect::connect;
use crate::error::Fault;
use crate::rest::{Api, Ask};
use crate::{KubeExecutor, Settings};
use bytes::Bytes;
use executor_api::{NoProbe, StepContext, StepError};
use http::Method;
use proto::result::TestStage;
use proto::task::Cluster;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What somebody who waits at a terminal has patience for.
const REQUEST: Duration = Duration::from_secs(10);
/// The unit that takes the lines about host aliases.
const UNIT: &str = "Execute";

/// A stage, what it does in words, what is asked, and the answer in words.
type Question = (&'static str, &'static str, Ask, fn(&Value) -> String);

impl KubeExecutor {
    /// Makes the credentials ready, asks the server for its version, whom it takes us for, and whether deployments may
    /// be changed. Changes nothing. The last stage is the failed one.
    ///
    /// **Cancel**: safe at any point. **Repeat**: safe.
    pub async fn test_connection(&self, cluster: &Cluster, cx: &StepContext) -> Vec<TestStage> {
        let mut stages = Vec::new();
        let log = cx.logs.unit(UNIT);
        let began = Instant::now();
        let (client, target) = match connect(cluster, cx, log.as_ref(), &self.settings).await {
            Ok(connected) => connected,
            Err(failed) => {
                stages.push(failed_stage("credentials", began, failed));
                return stages;
            }
        };
        stages.push(passed("credentials", began, format!("for {target}")));
        let settings =
            Settings { request_timeout: REQUEST, patience: Duration::ZERO, ..self.settings.clone() };
        let api = Api::new(client, cx, Arc::new(NoProbe), &settings, target);
        let questions: [Question; 3] = [
            ("server", "ask for the version", Ask::get("/version"), version),
            (
                "login",
                "ask who we are",
                review("selfsubjectreviews", "authentication.k8s.io", json!({})),
                user,
            ),
            (
                "rights",
                "ask what is permitted",
                review(
                    "selfsubjectaccessreviews",
                    "authorization.k8s.io",
                    json!({"resourceAttributes": {"group": "apps", "resource": "deployments", "verb": "patch"}}),
                ),
                rights,
            ),
        ];
        for (stage, what, ask, say) in questions {
            let began = Instant::now();
            let answer = api.ask(ask).await.and_then(|answer| answer.read::<Value>());
            match answer {
                Ok(answer) => stages.push(passed(stage, began, say(&answer))),
                // Before Kubernetes 1.28 there is nothing that tells a user's own name.
                Err(fault) if stage == "login" && fault.is_not_found() => {
                    stages.push(passed(stage, began, "the server is too old to say who we are".to_owned()));
                }
                Err(fault) => {
                    stages.push(failed_stage(stage, began, Fault::step(fault, what, &api.target)));
                    return stages;
                }
            }
        }
        stages
    }
}

fn review(resource: &str, group: &str, spec: Value) -> Ask {
    let kind = if resource == "selfsubjectreviews" { "SelfSubjectReview" } else { "SelfSubjectAccessReview" };
    let body = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec});
    let path = format!("/apis/{group}/v1/{resource}");
    // A review is created and kept nowhere.
    Ask::with(Method::POST, path, "application/json", Bytes::from(body.to_string())).repeatable()
}

fn version(answer: &Value) -> String {
    let found = answer.get("gitVersion").and_then(Value::as_str).unwrap_or("of unknown version");
    format!("Kubernetes {found}")
}

fn user(answer: &Value) -> String {
    let name = answer.pointer("/status/userInfo/username").and_then(Value::as_str).unwrap_or("nobody");
    format!("as {name}")
}

fn rights(answer: &Value) -> String {
    match answer.pointer("/status/allowed").and_then(Value::as_bool) {
        Some(true) => "may change deployments in every namespace".to_owned(),
        _ => {
            "may not change deployments in every namespace; steps check their own before they change anything"
                .to_owned()
        }
    }
}

fn spent(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn passed(stage: &str, began: Instant, message: String) -> TestStage {
    TestStage { stage: stage.to_owned(), duration_ms: spent(began), ok: true, message, hint: None }
}

fn failed_stage(stage: &str, began: Instant, failed: StepError) -> TestStage {
    TestStage {
        stage: stage.to_owned(),
        duration_ms: spent(began),
        ok: false,
        message: failed.what,
        hint: failed.hint,
    }
}
