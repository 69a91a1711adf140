//! Who is asking: delegate tokens (JWE), API keys, log-service tokens.
//!
//! Tokens and keys are few, so all of them stand in memory; a revocation counts from the moment it is committed. The
//! only thing remembered of a bearer is which token opened it, and it is opened again each time: a cached bearer can
//! never be used under another account, another token, or after its end.

mod log_token;
mod role;
#[cfg(test)]
mod tests;

pub use log_token::{LogTokenError, LogTokens, run_prefix};
pub use role::{Role, needed};

use crate::clock::Clock;
use crate::secrets::ManagerKey;
use crate::store::changes::{Change, Listener};
use crate::store::{Credential, Millis, Store, StoreError};
use proto::token::{DelegateToken, pad_hash};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// `kind` of delegate tokens in the store.
pub const TOKEN: &str = "token";
/// `kind` of API keys in the store.
pub const API_KEY: &str = "apikey";

/// Clocks of agents may be this far behind before their bearers count as expired.
const SKEW_SECS: i64 = 60;
/// Bearers whose token is remembered. One agent has one bearer for ten minutes or more.
const REMEMBERED: usize = 4096;
/// First characters of an API key, so that one is recognised when it turns up where it should not be.
const API_KEY_PREFIX: &str = "dlk.";

/// Why a delegate request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No bearer, or the account is not this manager's.
    #[error("access denied")]
    Denied,
    /// No token of the account opens the bearer, or it was made for another account.
    #[error("the bearer does not belong to a token of this account")]
    Invalid,
    /// A revoked token opens it.
    #[error("the token was revoked")]
    Revoked,
    /// Its life is over.
    #[error("the bearer has expired; check the clock of the agent's machine")]
    Expired,
    /// The store failed.
    #[error("the tokens cannot be read")]
    Unavailable,
}

/// What a valid bearer proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The account.
    pub account: String,
    /// Name of the token that opened it.
    pub token: String,
}

/// For whom an API key acts, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who: the email of the key's user, otherwise the key's own owner.
    pub owner: String,
    /// What it may do.
    pub role: Role,
    /// The user that the key belongs to, by email. A key of no user can do no person's part, such as approving.
    pub user: Option<String>,
}

struct Token {
    name: String,
    hash: String,
    token: DelegateToken,
    revoked: bool,
}

#[derive(Default)]
struct Known {
    /// Generation of the credentials that this was read from.
    generation: u64,
    /// Active ones first.
    tokens: Vec<Token>,
    /// Hash of an API key → for whom it acts. Revoked ones are left out.
    api_keys: HashMap<String, Principal>,
}

/// Tokens and API keys.
pub struct Credentials {
    account: String,
    store: Arc<dyn Store>,
    key: Arc<ManagerKey>,
    clock: Arc<dyn Clock>,
    generation: AtomicU64,
    known: RwLock<Arc<Known>>,
    reading: tokio::sync::Mutex<()>,
    /// Digest of a bearer → hash of the token that opened it.
    opened_by: Mutex<HashMap<[u8; 32], String>>,
}

impl Principal {
    /// Somebody of no user with a role.
    pub fn named(owner: &str, role: Role) -> Self {
        Principal { owner: owner.to_owned(), role, user: None }
    }

    /// A user with a role.
    pub fn user(email: &str, role: Role) -> Self {
        Principal { owner: email.to_owned(), role, user: Some(email.to_owned()) }
    }
}

impl Listener for Credentials {
    fn committed(&self, change: &Change) {
        if matches!(change, Change::Credentials) {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Credentials {
    /// Tokens of `account`. Register it as a listener of the store's changes.
    pub fn new(account: &str, store: Arc<dyn Store>, key: Arc<ManagerKey>, clock: Arc<dyn Clock>) -> Self {
        Credentials {
            account: account.to_owned(),
            store,
            key,
            clock,
            generation: AtomicU64::new(1),
            known: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            opened_by: Mutex::default(),
        }
    }

    /// Makes a delegate token; its 32 hex characters are shown this once.
    ///
    /// **Errors**: `Conflict` when an unrevoked one has this name.
    pub async fn create_token(&self, name: &str) -> Result<SecretString, StoreError> {
        let mut bytes = zeroize::Zeroizing::new([0_u8; 16]);
        random(bytes.as_mut())?;
        let token = DelegateToken::from_bytes(*bytes);
        let hash = token.padded_hash();
        let sealed = self
            .key
            .seal(&sealed_name(&hash), token.expose_bytes())
            .map_err(|e| StoreError::Backend(e.to_string()))?;
        let created_at: Millis = self.clock.wall();
        self.store
            .add_credential(Credential {
                kind: TOKEN.to_owned(),
                name: name.to_owned(),
                hash,
                sealed,
                owner: String::new(),
                created_at,
                revoked_at: None,
                role: String::new(),
                user: String::new(),
            })
            .await?;
        Ok(SecretString::from(token.expose_hex().to_owned()))
    }

    /// Makes an API key that acts for `principal`; shown this once.
    ///
    /// **Errors**: `Conflict` when an unrevoked one has this name.
    pub async fn create_api_key(
        &self,
        name: &str,
        principal: &Principal,
    ) -> Result<SecretString, StoreError> {
        let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
        random(bytes.as_mut())?;
        let value = SecretString::from(format!("{API_KEY_PREFIX}{}", hex::encode(bytes.as_ref())));
        self.store
            .add_credential(Credential {
                kind: API_KEY.to_owned(),
                name: name.to_owned(),
                hash: digest_of(value.expose_secret()),
                sealed: Vec::new(),
                owner: principal.owner.clone(),
                created_at: self.clock.wall(),
                revoked_at: None,
                role: principal.role.name().to_owned(),
                user: principal.user.clone().unwrap_or_default(),
            })
            .await?;
        Ok(value)
    }

    /// All of a kind, revoked ones included.
    pub async fn list(&self, kind: &str) -> Result<Vec<Credential>, StoreError> {
        self.store.credentials(kind).await
    }

    /// Revokes by name; counts at once. **Errors**: `NotFound`.
    pub async fn revoke(&self, kind: &str, name: &str) -> Result<(), StoreError> {
        self.store.revoke_credential(kind, name, self.clock.wall()).await
    }

    /// For whom an API key acts and what it may do; `None` for an unknown or revoked one.
    pub async fn principal(&self, api_key: &str) -> Result<Option<Principal>, StoreError> {
        // The table is looked up by a digest, so timing says nothing about the key itself.
        let known = self.known().await?;
        Ok(known.api_keys.get(&digest_of(api_key)).cloned())
    }

    /// Who owns an API key; `None` for an unknown or revoked one.
    pub async fn owner_of(&self, api_key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.principal(api_key).await?.map(|principal| principal.owner))
    }

    /// Checks a bearer for `account`. `token_hash` is the header `delegateTokenHash`, which may be absent.
    pub async fn verify(
        &self,
        account: &str,
        bearer: Option<&str>,
        token_hash: Option<&str>,
    ) -> Result<Verified, AuthError> {
        let bearer = bearer.ok_or(AuthError::Denied)?;
        if account != self.account {
            return Err(AuthError::Denied);
        }
        let known = self.known().await.map_err(|error| {
            tracing::error!(%error, "tokens cannot be read");
            AuthError::Unavailable
        })?;
        let digest: [u8; 32] = Sha256::digest(bearer.as_bytes()).into();
        let hint = token_hash.and_then(pad_hash).or_else(|| self.remembered(&digest));
        let hinted = hint.as_deref().and_then(|hint| known.tokens.iter().find(|token| token.hash == hint));
        // A wrong hint must not keep the right token from being tried.
        let opened = hinted.into_iter().chain(&known.tokens).find_map(|token| {
            let claims = token.token.open(bearer).ok()?;
            Some((token, claims))
        });
        let (token, claims) = opened.ok_or(AuthError::Invalid)?;
        if token.revoked {
            return Err(AuthError::Revoked);
        }
        if claims.sub != account {
            return Err(AuthError::Invalid);
        }
        let now = i64::try_from(self.clock.wall() / 1000).unwrap_or(i64::MAX);
        if claims.expired_at(now.saturating_sub(SKEW_SECS)) {
            return Err(AuthError::Expired);
        }
        self.remember(digest, &token.hash);
        Ok(Verified { account: account.to_owned(), token: token.name.clone() })
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<String> {
        self.opened_by.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn remember(&self, digest: [u8; 32], hash: &str) {
        let mut opened = self.opened_by.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() >= REMEMBERED {
            // Bearers live minutes; starting over is cheaper than keeping their order.
            opened.clear();
        }
        opened.insert(digest, hash.to_owned());
    }

    async fn known(&self) -> Result<Arc<Known>, StoreError> {
        let wanted = self.generation.load(Ordering::SeqCst);
        let current = || Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner));
        if current().generation >= wanted {
            return Ok(current());
        }
        let _one_reader = self.reading.lock().await;
        // Read before the rows: a change during the read leads to another read, never to a stale table.
        let generation = self.generation.load(Ordering::SeqCst);
        if current().generation >= generation {
            return Ok(current());
        }
        let mut tokens = Vec::new();
        for row in self.store.credentials(TOKEN).await? {
            match self.key.unseal(&sealed_name(&row.hash), &row.sealed) {
                Ok(clear) => {
                    let Ok(bytes) = <[u8; 16]>::try_from(clear.expose()) else { continue };
                    tokens.push(Token {
                        name: row.name,
                        hash: row.hash,
                        token: DelegateToken::from_bytes(bytes),
                        revoked: row.revoked_at.is_some(),
                    });
                }
                Err(error) => tracing::error!(token = %row.name, %error, "a delegate token cannot be opened"),
            }
        }
        tokens.sort_by_key(|token| token.revoked);
        let api_keys = self
            .store
            .credentials(API_KEY)
            .await?
            .into_iter()
            .filter(|row| row.revoked_at.is_none())
            .map(|row| {
                // A role that a newer program wrote and we do not know must not open more than it meant to.
                let role = Role::from_name(&row.role).unwrap_or(Role::Viewer);
                let user = (!row.user.is_empty()).then_some(row.user);
                (row.hash, Principal { owner: row.owner, role, user })
            })
            .collect();
        let fresh = Arc::new(Known { generation, tokens, api_keys });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }
}

/// SHA-256 in hex: what is stored of an API key. The keys are 256 random bits, so that no slow hash is needed.
pub fn digest_of(value: &str) -> String {
    hex::encode(Sha256::digest(value.as_bytes()))
}

fn sealed_name(hash: &str) -> String {
    format!("credential/{hash}")
}

fn random(bytes: &mut [u8]) -> Result<(), StoreError> {
    aws_lc_rs::rand::fill(bytes)
        .map_err(|_| StoreError::Backend("no random bytes from the operating system".to_owned()))
}
