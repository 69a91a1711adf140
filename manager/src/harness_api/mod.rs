//! Harness' own external API, as far as webhooks use it (pipeline.md §5, endpoints 1 and 9).
//!
//! The base `/gateway` may be left out or stand behind `/prod`; answers have Harness' envelope.

pub(crate) mod envelope;
mod webhook;

use crate::triggers::Triggers;
use axum::Router;
use axum::routing::{get, post};
use pipeline::model::scope_name;
use serde::Deserialize;
use std::sync::Arc;

/// Prefixes under which the same paths answer.
const PREFIXES: [&str; 6] = [
    "/gateway/pipeline/api",
    "/gateway/ng/api",
    "/prod/gateway/pipeline/api",
    "/prod/gateway/ng/api",
    "/pipeline/api",
    "/ng/api",
];

/// The routes. Each of them asks for an API key.
pub fn router(triggers: Arc<Triggers>) -> Router {
    let mut router = Router::new();
    for prefix in PREFIXES {
        router = router
            .route(&format!("{prefix}/webhook/custom"), post(webhook::custom))
            .route(&format!("{prefix}/webhook/custom/v2"), post(webhook::custom))
            .route(&format!("{prefix}/webhook/custom/{{token}}/v3"), post(webhook::custom_of_token))
            .route(
                &format!("{prefix}/webhook/triggerExecutionDetails/{{event}}"),
                get(webhook::execution_details),
            )
            .route(&format!("{prefix}/webhook/triggerProcessingDetails"), get(webhook::processing_details));
    }
    router.with_state(triggers)
}

/// Where a call says that its subject is: the names that Harness' clients send with every call.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meant {
    account_identifier: Option<String>,
    org_identifier: String,
    project_identifier: String,
}

impl Meant {
    /// In a project.
    pub(crate) fn project(org: String, project: String) -> Self {
        Meant { account_identifier: None, org_identifier: org, project_identifier: project }
    }

    /// `org/project`, `org`, or empty: any.
    pub(crate) fn scope(&self) -> String {
        match self.org_identifier.as_str() {
            "" => String::new(),
            org => scope_name(org, &self.project_identifier),
        }
    }

    /// Whether the account of this manager is meant. **Errors**: what to answer when another one is.
    pub(crate) fn check_account(&self, account: &str) -> Result<(), String> {
        match &self.account_identifier {
            Some(named) if named != account => {
                Err(format!("`accountIdentifier` is `{named}`; the account of this manager is `{account}`"))
            }
            _ => Ok(()),
        }
    }
}
