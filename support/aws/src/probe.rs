//! `delegate connector test` for an account: how far it comes, and how long each stage takes.

use crate::client::{Bounds, Client};
use crate::document::{list, text};
use crate::fault::Fault;
use crate::operation::Service;
use crate::session::Session;
use executor_api::{StepContext, StepError};
use proto::result::TestStage;
use proto::task::AwsAccount;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What somebody who waits at a terminal has patience for. The metadata service of a machine that has none takes ten seconds
/// to be missed.
const BOUNDS: Bounds =
    Bounds { request_timeout: Duration::from_secs(20), patience: Duration::from_secs(2), anew: true };

impl Client {
    /// Gets credentials, asks AWS whom it takes us for, and whether clusters may be listed and described. Changes nothing.
    /// The last stage is the failed one.
    ///
    /// **Cancel**: safe at any point. **Repeat**: safe.
    pub async fn test_connection(&self, account: &AwsAccount, cx: &StepContext) -> Vec<TestStage> {
        let mut stages = Vec::new();
        let began = Instant::now();
        let session = match self.open(account, cx, BOUNDS) {
            Ok(session) => session,
            Err(error) => {
                stages.push(failed("credentials", began, error));
                return stages;
            }
        };
        if let Err(fault) = session.credentials().await {
            stages.push(failed("credentials", began, fault.step("get credentials", &session)));
            return stages;
        }
        stages.push(passed("credentials", began, format!("for {}", session.target())));
        let began = Instant::now();
        match session.caller().await {
            Ok(caller) => {
                stages.push(passed(
                    "login",
                    began,
                    format!("as {} of account {}", caller.arn, caller.account),
                ));
            }
            Err(fault) => {
                stages.push(failed("login", began, fault.step("ask who we are", &session)));
                return stages;
            }
        }
        let began = Instant::now();
        stages.push(match rights(&session).await {
            Ok(message) => passed("rights", began, message),
            // An account for metrics or images alone needs no clusters.
            Err(fault) if fault.is_denied() => {
                let error = fault.step("look at clusters", &session);
                let message =
                    format!("{}; steps check their own rights before they change anything", error.what);
                TestStage { hint: error.hint, ..passed("rights", began, message) }
            }
            Err(fault) => failed("rights", began, fault.step("look at clusters", &session)),
        });
        stages
    }
}

async fn rights(session: &Session) -> Result<String, Fault> {
    let found = session.read(Service::Ecs.op("ListClusters"), json!({"maxResults": 10})).await?;
    let clusters: Vec<Value> = list(&found, &["clusterArns"]).to_vec();
    let input = if clusters.is_empty() { json!({}) } else { json!({"clusters": clusters}) };
    let described = session.read(Service::Ecs.op("DescribeClusters"), input).await?;
    let names: Vec<&str> =
        list(&described, &["clusters"]).iter().filter_map(|one| text(one, &["clusterName"])).collect();
    Ok(match names.as_slice() {
        [] => "may list and describe clusters; there is none in this region".to_owned(),
        names => format!("may list and describe clusters, among them {}", names.join(", ")),
    })
}

fn passed(stage: &str, began: Instant, message: String) -> TestStage {
    TestStage { stage: stage.to_owned(), duration_ms: spent(began), ok: true, message, hint: None }
}

fn failed(stage: &str, began: Instant, error: StepError) -> TestStage {
    let StepError { what, hint, .. } = error;
    TestStage { stage: stage.to_owned(), duration_ms: spent(began), ok: false, message: what, hint }
}

fn spent(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
