//! Calls of the Java delegate that ask for nothing we have (protocol facts §2): answered so that it goes on.

use super::access::Caller;
use super::reply::{Refusal, wrapped};
use crate::app::App;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use proto::reply::ErrorCode;
use serde_json::{Value, json};

pub(super) async fn empty(_caller: Caller) -> Response {
    wrapped::<Value>(json!(null))
}

pub(super) async fn no_content(_caller: Caller) -> StatusCode {
    StatusCode::NO_CONTENT
}

pub(super) async fn configuration(_caller: Caller) -> Response {
    wrapped(
        json!({ "delegateVersions": [], "action": null, "validUntil": null, "validTillNextRelease": false }),
    )
}

/// Public: a start-up check of connectivity asks it before it has a token. 401 means that there is no such account.
pub(super) async fn account_status(
    State(app): State<App>,
    Path(account): Path<String>,
) -> Result<Response, Refusal> {
    if account == app.account { Ok(wrapped(json!("ACTIVE"))) } else { Err(Refusal::unknown_account()) }
}

impl Refusal {
    fn unknown_account() -> Self {
        Refusal::coded(StatusCode::UNAUTHORIZED, ErrorCode::InvalidRequest, "there is no such account")
    }
}
