//! Tokens of the log service: an account, a key prefix and an end, signed by the manager.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Life of a token: as long as Harness' own.
const LIFE_MS: u64 = 48 * 60 * 60 * 1000;

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a log-service token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogTokenError {
    /// Not one of ours, or altered.
    #[error("token is invalid")]
    Invalid,
    /// Its life is over.
    #[error("token has expired")]
    Expired,
    /// It was made for another account or other keys.
    #[error("token does not allow this account or key")]
    Scope,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// Account.
    a: String,
    /// Keys begin with this.
    p: String,
    /// End, epoch milliseconds.
    e: u64,
}

/// Mints and checks log-service tokens.
pub struct LogTokens(hmac::Key);

impl LogTokens {
    /// With a secret of 32 bytes, the same over restarts so that tokens handed out stay valid.
    pub fn new(secret: &[u8; 32]) -> Self {
        LogTokens(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A token for keys of `account` that begin with `prefix` (empty: all of them).
    pub fn mint(&self, account: &str, prefix: &str, now: u64) -> String {
        let claims = Claims { a: account.to_owned(), p: prefix.to_owned(), e: now.saturating_add(LIFE_MS) };
        // Three plain fields always have a JSON form.
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default());
        let tag = hmac::sign(&self.0, body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// Whether `token` allows `key` of `account`. `key` `None`: an operation on the account itself.
    pub fn check(
        &self,
        token: &str,
        account: &str,
        key: Option<&str>,
        now: u64,
    ) -> Result<(), LogTokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(LogTokenError::Invalid);
        }
        let (body, tag) = token.split_once('.').ok_or(LogTokenError::Invalid)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| LogTokenError::Invalid)?;
        // `verify` takes the same time wherever the tags differ.
        hmac::verify(&self.0, body.as_bytes(), &tag).map_err(|_| LogTokenError::Invalid)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| LogTokenError::Invalid)?;
        let claims: Claims = serde_json::from_slice(&body).map_err(|_| LogTokenError::Invalid)?;
        if claims.e <= now {
            return Err(LogTokenError::Expired);
        }
        let key_fits = key.map_or(claims.p.is_empty(), |key| key.starts_with(&claims.p));
        if claims.a == account && key_fits { Ok(()) } else { Err(LogTokenError::Scope) }
    }
}

/// The keys that a task may touch: those of its run. `abstractions` as in the task.
pub fn run_prefix(abstractions: &[(String, String)]) -> String {
    let simplified = abstractions.iter().any(|(key, value)| key == "isSimplified" && value == "true");
    if simplified {
        return abstractions.first().map(|(_, account)| format!("{account}/")).unwrap_or_default();
    }
    let run: Vec<(String, String)> =
        abstractions.iter().take_while(|(key, _)| !key.starts_with("level")).cloned().collect();
    // The border after the run's number matters: run 7 must not reach the logs of run 70. A task without levels has
    // one base key of its own, which ends the prefix.
    let base = proto::logs::base_key(&run);
    if run.len() < abstractions.len() { format!("{base}/") } else { base }
}
