//! Sealed JSON documents. The name that a document is sealed under binds it to its row.

use super::{Session, StoreError};
use serde_json::Value;

fn broken(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Backend(format!("{what}: {error}"))
}

impl Session<'_> {
    /// Seals text under the row it belongs to.
    pub(super) fn seal_text(&self, table: &str, id: &str, text: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.key.seal(&format!("{table}/{id}"), text).map_err(|e| broken(table, e))
    }

    /// Seals a document under the row it belongs to.
    pub(super) fn seal(&self, table: &str, id: &str, doc: &Value) -> Result<Vec<u8>, StoreError> {
        self.seal_text(table, id, &serde_json::to_vec(doc).map_err(|e| broken(table, e))?)
    }

    /// Opens sealed text.
    pub(super) fn open_text(&self, table: &str, id: &str, sealed: &[u8]) -> Result<String, StoreError> {
        let clear = self.key.unseal(&format!("{table}/{id}"), sealed).map_err(|e| broken(table, e))?;
        String::from_utf8(clear.expose().to_vec()).map_err(|e| broken(table, e))
    }

    /// Opens a sealed document.
    pub(super) fn open(&self, table: &str, id: &str, sealed: &[u8]) -> Result<Value, StoreError> {
        let clear = self.key.unseal(&format!("{table}/{id}"), sealed).map_err(|e| broken(table, e))?;
        serde_json::from_slice(clear.expose()).map_err(|e| broken(table, e))
    }
}
