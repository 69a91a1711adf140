//! The bearer of all calls: minted here, used for half of its life.

use crate::config::Config;
use executor_api::Clock;
use proto::limits::{BEARER_LIFE, BEARER_REUSE};
use proto::token::{AUTH_SCHEME, Audience, Claims, DelegateToken};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// A bearer claims to be this much older, so that a manager whose clock is a little behind accepts it.
const BACKDATE_SECS: i64 = 5;

pub(crate) struct BearerCache {
    token: DelegateToken,
    account: String,
    issuer: String,
    audience: String,
    clock: Arc<dyn Clock>,
    held: Mutex<Option<(Instant, String)>>,
}

impl BearerCache {
    pub(crate) fn new(config: &Config, host: &str, clock: Arc<dyn Clock>) -> BearerCache {
        BearerCache {
            token: config.token.clone(),
            account: config.account_id.clone(),
            issuer: host.to_owned(),
            audience: config.manager_url.clone(),
            clock,
            held: Mutex::new(None),
        }
    }

    /// The value of `Authorization`.
    pub(crate) fn current(&self) -> Result<String, String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.mono();
        if let Some((since, bearer)) = &*held
            && now.saturating_duration_since(*since) < BEARER_REUSE
        {
            return Ok(bearer.clone());
        }
        let seconds = i64::try_from(self.clock.wall() / 1000).unwrap_or(i64::MAX);
        let life = i64::try_from(BEARER_LIFE.as_secs()).unwrap_or(i64::MAX);
        let claims = Claims {
            sub: self.account.clone(),
            iss: self.issuer.clone(),
            aud: Audience::One(self.audience.clone()),
            exp: seconds.saturating_add(life),
            iat: seconds.saturating_sub(BACKDATE_SECS),
            nbf: None,
            jti: uuid::Uuid::new_v4().to_string(),
        };
        let bearer = self.token.mint(&claims, rand::random()).map_err(|error| error.to_string())?;
        let header = format!("{AUTH_SCHEME} {bearer}");
        *held = Some((now, header.clone()));
        Ok(header)
    }

    /// The next call mints a fresh one.
    pub(crate) fn forget(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
