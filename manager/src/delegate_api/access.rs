//! Who is asking: every handler of this API takes a [`Caller`], which exists only after the bearer was checked.

use super::reply::Refusal;
use crate::app::App;
use axum::extract::{FromRequestParts, Query};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use proto::token::{TOKEN_HASH_HEADER, bearer_of};
use serde::Deserialize;

/// A request with a valid bearer of this manager's account.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The account, from the query and confirmed by the bearer.
    pub(super) account: String,
    /// Name of the delegate token.
    pub(super) token: String,
}

#[derive(Deserialize)]
struct AccountQuery {
    #[serde(default, rename = "accountId")]
    account_id: String,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let account =
            Query::<AccountQuery>::try_from_uri(&parts.uri).map(|Query(q)| q.account_id).unwrap_or_default();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = header(AUTHORIZATION.as_str()).and_then(bearer_of);
        let verified = app.credentials.verify(&account, bearer, header(TOKEN_HASH_HEADER)).await?;
        Ok(Caller { account: verified.account, token: verified.token })
    }
}
