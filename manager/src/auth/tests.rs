use super::*;
use crate::clock::SystemClock;
use crate::store::changes::Changes;
use crate::store::sqlite::SqliteStore;
use futures::future::BoxFuture;
use proto::token::{Audience, Claims};
use std::sync::atomic::AtomicU64;
use tempfile::TempDir;

#[derive(Default)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn wall(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn mono(&self) -> tokio::time::Instant {
        SystemClock.mono()
    }
    fn sleep_until(&self, at: tokio::time::Instant) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(at)
    }
}

struct World {
    _dir: TempDir,
    store: Arc<dyn Store>,
    clock: Arc<SetClock>,
    credentials: Arc<Credentials>,
}

const NOW_SECS: i64 = 1_800_000_000;

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(ManagerKey::from_bytes(&[3; 32]).unwrap());
    let changes = Arc::new(Changes::default());
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&dir.path().join("m.db"), key.clone(), changes.clone()).unwrap());
    let clock = Arc::new(SetClock(AtomicU64::new(u64::try_from(NOW_SECS).unwrap() * 1000)));
    let credentials = Arc::new(Credentials::new("default", store.clone(), key, clock.clone()));
    changes.listen(credentials.clone());
    World { _dir: dir, store, clock, credentials }
}

fn token_of(secret: &SecretString) -> DelegateToken {
    DelegateToken::normalise(secret.expose_secret()).unwrap()
}

fn bearer(token: &DelegateToken, account: &str, exp: i64) -> String {
    let claims = Claims {
        sub: account.to_owned(),
        iss: "host".to_owned(),
        aud: Audience::One("https://m:443".to_owned()),
        exp,
        iat: exp - 1200,
        nbf: None,
        jti: "j".to_owned(),
    };
    token.mint(&claims, [5; 12]).unwrap()
}

impl World {
    async fn verify(&self, account: &str, bearer: &str, hash: Option<&str>) -> Result<String, AuthError> {
        self.credentials.verify(account, Some(bearer), hash).await.map(|verified| verified.token)
    }
}

#[tokio::test]
async fn a_bearer_opens_with_and_without_the_hash_of_its_token() {
    let w = world();
    let mut tokens = Vec::new();
    for n in 0..20 {
        tokens.push(token_of(&w.credentials.create_token(&format!("t{n}")).await.unwrap()));
    }
    for (n, token) in tokens.iter().enumerate() {
        let bearer = bearer(token, "default", NOW_SECS + 60);
        let name = format!("t{n}");
        assert_eq!(w.verify("default", &bearer, None).await, Ok(name.clone()));
        assert_eq!(w.verify("default", &bearer, None).await, Ok(name.clone()), "the remembered way");
        assert_eq!(w.verify("default", &bearer, Some(&token.hash())).await, Ok(name.clone()));
        let wrong = tokens[(n + 1) % tokens.len()].hash();
        assert_eq!(w.verify("default", &bearer, Some(&wrong)).await, Ok(name), "a wrong hint does no harm");
        assert!(w.verify("default", &bearer, Some("no hash")).await.is_ok());
    }
}

#[tokio::test]
async fn each_refusal_has_its_own_reason() {
    let w = world();
    let token = token_of(&w.credentials.create_token("a").await.unwrap());
    let good = bearer(&token, "default", NOW_SECS + 60);
    assert_eq!(w.credentials.verify("default", None, None).await, Err(AuthError::Denied));
    assert_eq!(w.verify("", &good, None).await, Err(AuthError::Denied));
    assert_eq!(w.verify("other", &good, None).await, Err(AuthError::Denied));
    let foreign = bearer(&DelegateToken::from_bytes([1; 16]), "default", NOW_SECS + 60);
    assert_eq!(w.verify("default", &foreign, None).await, Err(AuthError::Invalid));
    assert_eq!(w.verify("default", "a.b.c.d.e", None).await, Err(AuthError::Invalid));
    assert_eq!(w.verify("default", &"x".repeat(100_000), None).await, Err(AuthError::Invalid));
    // Made for another account with a good key: it may not be used here.
    let moved = bearer(&token, "other", NOW_SECS + 60);
    assert_eq!(w.verify("default", &moved, None).await, Err(AuthError::Invalid));
    let skewed = bearer(&token, "default", NOW_SECS - 30);
    assert!(w.verify("default", &skewed, None).await.is_ok(), "a minute of skew is forgiven");
    let old = bearer(&token, "default", NOW_SECS - 61);
    assert_eq!(w.verify("default", &old, None).await, Err(AuthError::Expired));
}

#[tokio::test]
async fn a_remembered_bearer_still_expires_and_is_still_bound_to_its_account() {
    let w = world();
    let token = token_of(&w.credentials.create_token("a").await.unwrap());
    let good = bearer(&token, "default", NOW_SECS + 60);
    assert!(w.verify("default", &good, None).await.is_ok());
    assert_eq!(w.verify("other", &good, None).await, Err(AuthError::Denied));
    w.clock.0.fetch_add(121_000, Ordering::SeqCst);
    assert_eq!(w.verify("default", &good, None).await, Err(AuthError::Expired));
}

#[tokio::test]
async fn revocation_counts_at_once_and_is_told_from_unknown() {
    let w = world();
    let token = token_of(&w.credentials.create_token("a").await.unwrap());
    let other = token_of(&w.credentials.create_token("b").await.unwrap());
    let good = bearer(&token, "default", NOW_SECS + 60);
    assert!(w.verify("default", &good, None).await.is_ok());
    w.credentials.revoke(TOKEN, "a").await.unwrap();
    assert_eq!(w.verify("default", &good, None).await, Err(AuthError::Revoked));
    assert_eq!(w.verify("default", &good, Some(&token.hash())).await, Err(AuthError::Revoked));
    assert!(w.verify("default", &bearer(&other, "default", NOW_SECS + 60), None).await.is_ok());
    // The name can be given again; the old value stays revoked.
    let again = token_of(&w.credentials.create_token("a").await.unwrap());
    assert_ne!(again, token);
    assert_eq!(w.verify("default", &good, None).await, Err(AuthError::Revoked));
    assert!(w.verify("default", &bearer(&again, "default", NOW_SECS + 60), None).await.is_ok());
    assert!(matches!(w.credentials.create_token("a").await, Err(StoreError::Conflict { .. })));
}

#[tokio::test]
async fn api_keys_are_stored_as_digests_only() {
    let w = world();
    let key = w.credentials.create_api_key("ci", &Principal::named("somebody", Role::Admin)).await.unwrap();
    let value = key.expose_secret();
    assert_eq!(w.credentials.owner_of(value).await.unwrap().as_deref(), Some("somebody"));
    assert_eq!(w.credentials.owner_of("dlk.0").await.unwrap(), None);
    let rows = w.store.credentials(API_KEY).await.unwrap();
    assert!(!format!("{rows:?}").contains(value) && rows[0].sealed.is_empty());
    let token = w.credentials.create_token("t").await.unwrap();
    let rows = w.store.credentials(TOKEN).await.unwrap();
    assert!(!rows[0].sealed.windows(16).any(|part| part == token_of(&token).expose_bytes()));
    w.credentials.revoke(API_KEY, "ci").await.unwrap();
    assert_eq!(w.credentials.owner_of(value).await.unwrap(), None);
}

#[test]
fn log_tokens_are_bound_to_account_key_and_time() {
    let tokens = LogTokens::new(&[9; 32]);
    let token = tokens.mint("default", "accountId:default/run:7/", 1000);
    let check = |token: &str, account, key, now| tokens.check(token, account, Some(key), now);
    assert_eq!(check(&token, "default", "accountId:default/run:7/x", 1001), Ok(()));
    assert_eq!(check(&token, "default", "accountId:default/run:70/x", 1001), Err(LogTokenError::Scope));
    assert_eq!(check(&token, "other", "accountId:default/run:7/x", 1001), Err(LogTokenError::Scope));
    assert_eq!(
        tokens.check(&token, "default", None, 1001),
        Err(LogTokenError::Scope),
        "not the account itself"
    );
    let life = 48 * 3_600_000;
    assert_eq!(
        check(&token, "default", "accountId:default/run:7/x", 1000 + life),
        Err(LogTokenError::Expired)
    );
    for bad in ["", ".", "a.b", &token[1..], &format!("{token}x"), &"a".repeat(20_000)] {
        assert_eq!(
            check(bad, "default", "accountId:default/run:7/x", 1001),
            Err(LogTokenError::Invalid),
            "{bad}"
        );
    }
    let foreign = LogTokens::new(&[8; 32]).mint("default", "", 1000);
    assert_eq!(check(&foreign, "default", "k", 1001), Err(LogTokenError::Invalid));
}

#[test]
fn a_task_may_write_the_logs_of_its_run() {
    let of = |run| proto::logs::abstractions("a", "o", "p", "pl", run, &["pipeline", "stages"], 0);
    let prefix = run_prefix(&of(7));
    assert!(proto::logs::base_key(&of(7)).starts_with(&prefix));
    assert!(!proto::logs::base_key(&of(70)).starts_with(&prefix), "{prefix}");
}
