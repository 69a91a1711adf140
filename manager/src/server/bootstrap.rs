//! The data directory and the first start.

use super::ManagerError;
use crate::app::AppState;
use crate::auth::{API_KEY, Principal, Role, TOKEN};
use crate::secrets::ManagerKey;
use crate::store::{Store, StoreError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The one account of a manager.
pub const ACCOUNT: &str = "default";

/// Fact with the sealed secret that signs log tokens.
const LOG_SECRET: &str = "log.token.secret";
/// Name of the token and the key that the first start makes.
const BOOTSTRAP: &str = "bootstrap";
/// Fact: the first start is complete.
const BOOTSTRAPPED: &str = "bootstrapped";
const FILE: &str = "bootstrap.json";

/// Makes the data directory and takes its lock; the lock ends with the file or the process.
pub(super) fn lock(data_dir: &Path) -> Result<File, ManagerError> {
    let fault = |source| ManagerError::DataDir { path: data_dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(fault)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(data_dir.join("manager.lock"))
        .map_err(fault)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ManagerError::Locked { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(fault(source)),
    }
}

/// The secret that signs log tokens: drawn once, kept sealed, so that tokens survive a restart.
pub(super) async fn log_secret(store: &dyn Store, key: &ManagerKey) -> Result<[u8; 32], StoreError> {
    let broken = |what: String| StoreError::Backend(format!("{LOG_SECRET}: {what}"));
    if let Some(text) = store.get_fact(LOG_SECRET).await? {
        let sealed = STANDARD.decode(text).map_err(|e| broken(e.to_string()))?;
        let clear = key.unseal(LOG_SECRET, &sealed).map_err(|e| broken(e.to_string()))?;
        return <[u8; 32]>::try_from(clear.expose()).map_err(|e| broken(e.to_string()));
    }
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| broken("no random bytes".to_owned()))?;
    let sealed = key.seal(LOG_SECRET, &secret).map_err(|e| broken(e.to_string()))?;
    store.put_fact(LOG_SECRET, &STANDARD.encode(sealed)).await?;
    Ok(secret)
}

/// The first start makes a token and an API key and writes `bootstrap.json`; a later one only brings its URL up to date.
pub(super) async fn first_start(app: &AppState, url: &str) -> Result<(), ManagerError> {
    let path = app.config.data_dir.join(FILE);
    let fault = |source| ManagerError::DataDir { path: path.clone(), source };
    if let Ok(text) = fs::read(&path) {
        let Ok(mut known) = serde_json::from_slice::<Value>(&text) else { return Ok(()) };
        if known.get("url").and_then(Value::as_str) == Some(url) {
            return Ok(());
        }
        if let Some(known) = known.as_object_mut() {
            known.insert("url".to_owned(), json!(url));
        }
        return write(&path, &known).map_err(fault);
    }
    let broken = |source| ManagerError::Store { path: app.config.data_dir.join("manager.db"), source };
    if app.store.get_fact(BOOTSTRAPPED).await.map_err(broken)?.is_some() {
        // Somebody removed the file on purpose.
        return Ok(());
    }
    for kind in [TOKEN, API_KEY] {
        // A start that was cut off before the file was written: what it made is known to nobody.
        match app.credentials.revoke(kind, BOOTSTRAP).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(broken(error)),
        }
    }
    let token = app.credentials.create_token(BOOTSTRAP).await.map_err(broken)?;
    let admin = Principal::named("admin", Role::Admin);
    let api_key = app.credentials.create_api_key(BOOTSTRAP, &admin).await.map_err(broken)?;
    let content = json!({
        "url": url,
        "accountId": app.account,
        "delegateToken": token.expose_secret(),
        "apiKey": api_key.expose_secret(),
    });
    write(&path, &content).map_err(fault)?;
    app.store.put_fact(BOOTSTRAPPED, "1").await.map_err(broken)
}

/// Replaces the file as a whole; never readable by others, not even for a moment.
fn write(path: &Path, content: &Value) -> std::io::Result<()> {
    let fresh = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(format!("{content:#}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
