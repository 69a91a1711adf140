//! Setting, finding and handing out local secrets.

use super::{KeyError, ManagerKey, SecretBytes};
use crate::app::{SealError, SecretProvider};
use crate::engine::{self, EngineError};
use crate::store::{Applied, Millis, Store, StoreError};
use async_trait::async_trait;
use pipeline::entities::{CatalogEntity, EntityKind, Snapshot};
use pipeline::machine::State;
use proto::text::SecretRef;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest value of a secret. Keys and certificates are far smaller; a larger one does not belong in every package.
pub const MAX_SECRET_BYTES: usize = 256 * 1024;

/// A secret could not be stored or handed out.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A secret that a task needs was never set, or was deleted since.
    #[error("secret `{reference}` is not set; run `delegate secret set {id}`")]
    Missing {
        /// As the task names it.
        reference: String,
        /// Its id in the store.
        id: String,
    },
    /// A task needs a secret output that its execution does not have.
    #[error("the execution has no secret output `{output}` of `{node}`")]
    NoOutput {
        /// Node of the step.
        node: String,
        /// Path of the output.
        output: String,
    },
    /// The state of the execution cannot be read.
    #[error(transparent)]
    State(#[from] EngineError),
    /// Too large.
    #[error("secret `{id}` has {found} bytes; at most {MAX_SECRET_BYTES} are stored")]
    TooLarge {
        /// Which one.
        id: String,
        /// Its size.
        found: usize,
    },
    /// The agent's public key cannot be used.
    #[error("secret `{reference}` could not be sealed to the agent")]
    Seal {
        /// Which one.
        reference: String,
        /// Why.
        #[source]
        source: proto::seal::SealError,
    },
}

/// The local secret store.
#[derive(Clone)]
pub struct LocalSecrets {
    store: Arc<dyn Store>,
    key: Arc<ManagerKey>,
}

/// The ids under which a reference is looked for, best first.
///
/// `account.x` and `org.x` name a scope and then an id; `delegate secret set x` knows no scope, so that a value without
/// one serves every scope unless the exact name is set. **Source**: pipeline.md §3.5.
pub fn scoped_candidates(reference: &str) -> impl Iterator<Item = &str> {
    let bare = reference.strip_prefix("account.").or_else(|| reference.strip_prefix("org."));
    std::iter::once(reference).chain(bare)
}

/// Node and path of a secret output: pipelines write `output/NODE/PATH` for one (`pipeline::scope`). A stored
/// secret cannot have such an id: the API refuses it.
fn output_reference(reference: &str) -> Option<(&str, &str)> {
    reference.strip_prefix("output/")?.split_once('/')
}

/// The clear text of a secret output. One that is not secret has no reference of this kind.
fn secret_output(machine: &State, node: &str, output: &str) -> Option<SecretBytes> {
    let output = machine.runs.get(node)?.outputs.get(output).filter(|output| output.secret)?;
    let text = match &output.value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(SecretBytes::new(text.into_bytes()))
}

/// The name under which a value is sealed; tokens are sealed with the same key under another prefix.
fn seal_name(id: &str) -> String {
    format!("secret:{id}")
}

impl LocalSecrets {
    /// The secrets of `store`, sealed with `key`.
    pub fn new(store: Arc<dyn Store>, key: Arc<ManagerKey>) -> Self {
        LocalSecrets { store, key }
    }

    /// The key; delegate tokens are sealed with it too.
    pub fn key(&self) -> &Arc<ManagerKey> {
        &self.key
    }

    /// Stores a value. The answer tells a repeated equal value from a changed one. **Repeat**: safe.
    pub async fn set(&self, id: &str, value: &SecretBytes, now: Millis) -> Result<Applied, SecretsError> {
        let found = value.expose().len();
        if found > MAX_SECRET_BYTES {
            return Err(SecretsError::TooLarge { id: id.to_owned(), found });
        }
        let name = seal_name(id);
        // Two seals of one value differ, so equality is decided here and not by the store.
        if let Some(sealed) = self.store.secret(id).await?
            && let Ok(known) = self.key.unseal(&name, &sealed)
            && aws_lc_rs::constant_time::verify_slices_are_equal(known.expose(), value.expose()).is_ok()
        {
            return Ok(Applied::Unchanged);
        }
        let sealed = self.key.seal(&name, value.expose())?;
        Ok(self.store.put_secret(id, sealed, now).await?)
    }

    /// Ids with the time of their last change.
    pub async fn list(&self) -> Result<Vec<(String, Millis)>, SecretsError> {
        Ok(self.store.secrets().await?)
    }

    /// Forgets a value; `NotFound` if there is none.
    pub async fn delete(&self, id: &str) -> Result<(), SecretsError> {
        Ok(self.store.delete_secret(id).await?)
    }

    /// The stored id that serves `reference`, if any: the reference itself, or the id of the secret entity that it
    /// names by rule R1.
    pub async fn find(&self, reference: &str) -> Result<Option<String>, SecretsError> {
        for id in scoped_candidates(reference) {
            if self.store.secret(id).await?.is_some() {
                return Ok(Some(id.to_owned()));
            }
        }
        let entities = self.store.entities("secret").await?;
        let catalog = Snapshot {
            entities: entities
                .into_iter()
                .map(|entity| CatalogEntity {
                    kind: EntityKind::Secret,
                    id: entity.id,
                    name: entity.name,
                    scope: entity.scope,
                    yaml: String::new(),
                })
                .collect(),
            secrets: Vec::new(),
        };
        let Ok(entity) = pipeline::entities::find(&catalog, EntityKind::Secret, reference, "") else {
            return Ok(None);
        };
        Ok(self.store.secret(&entity.id).await?.map(|_| entity.id.clone()))
    }

    /// The references of `wanted` that no stored value serves, in their order.
    pub async fn missing(&self, wanted: &[SecretRef]) -> Result<Vec<SecretRef>, SecretsError> {
        let mut missing = Vec::new();
        for reference in wanted {
            if self.find(&reference.0).await?.is_none() {
                missing.push(reference.clone());
            }
        }
        Ok(missing)
    }

    /// The values of `references`, each sealed to the agent's X25519 `public_key` (base64) with the reference as
    /// associated data: what the acquire answer carries in `sealedSecrets`. References to secret outputs are those of
    /// `execution`.
    ///
    /// **Errors**: `Missing` or `NoOutput` names the first reference without a value.
    pub async fn sealed_for(
        &self,
        execution: &str,
        references: &[String],
        public_key: &str,
    ) -> Result<BTreeMap<String, String>, SecretsError> {
        let mut sealed = BTreeMap::new();
        // The outputs of an execution stand in its state, which is read once and only for those who need it.
        let mut machine = None;
        for reference in references {
            let value = match output_reference(reference) {
                Some((node, output)) => {
                    if machine.is_none() {
                        machine = engine::load(self.store.as_ref(), execution).await?;
                    }
                    let found =
                        machine.as_ref().and_then(|(_, record)| secret_output(&record.machine, node, output));
                    found.ok_or_else(|| SecretsError::NoOutput {
                        node: node.to_owned(),
                        output: output.to_owned(),
                    })?
                }
                None => self.open(reference).await?,
            };
            let text = proto::seal::seal(public_key, reference, value.expose())
                .map_err(|source| SecretsError::Seal { reference: reference.clone(), source })?;
            sealed.insert(reference.clone(), text);
        }
        Ok(sealed)
    }

    async fn open(&self, reference: &str) -> Result<SecretBytes, SecretsError> {
        if let Some(id) = self.find(reference).await?
            && let Some(sealed) = self.store.secret(&id).await?
        {
            return Ok(self.key.unseal(&seal_name(&id), &sealed)?);
        }
        let id = scoped_candidates(reference).last().unwrap_or(reference);
        Err(SecretsError::Missing { reference: reference.to_owned(), id: id.to_owned() })
    }
}

#[async_trait]
impl SecretProvider for LocalSecrets {
    async fn sealed_for(
        &self,
        execution: &str,
        refs: &[String],
        public_key: &str,
    ) -> Result<BTreeMap<String, String>, SealError> {
        LocalSecrets::sealed_for(self, execution, refs, public_key).await.map_err(|error| match error {
            SecretsError::Missing { reference, .. } => SealError::Missing(reference),
            SecretsError::NoOutput { node, output } => SealError::NoOutput { node, output },
            SecretsError::Seal { source: proto::seal::SealError::PublicKey, .. } => SealError::PublicKey,
            SecretsError::Store(_)
            | SecretsError::Key(_)
            | SecretsError::State(_)
            | SecretsError::TooLarge { .. }
            | SecretsError::Seal { .. } => SealError::Broken(error.to_string()),
        })
    }
}
