//! What K8sApply steps of a release put into the cluster: the set within which `--prune` may delete.

use super::Item;
use crate::apply::Applied;
use crate::error::bad_spec;
use crate::objects::Reference;
use crate::rest::{Ask, encode};
use crate::session::Session;
use bytes::Bytes;
use executor_api::{Class, StepError};
use http::Method;
use serde_json::{Value, json};

/// Key in the data of the ConfigMap.
const KEY: &str = "inventory";
/// How often a write is tried again when somebody else wrote in between.
const TRIES: usize = 10;

/// Objects by reference and uid. It holds no content, so it is a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    pub(crate) items: Vec<Item>,
    version: String,
}

fn name(session: &Session) -> String {
    format!("delegate.inventory.{}", session.release)
}

fn collection(session: &Session) -> String {
    format!("/api/v1/namespaces/{}/configmaps", encode(&session.namespace))
}

impl Inventory {
    /// Reads it; an absent one is empty.
    ///
    /// **Errors**: `KUBE-034` when it cannot be read.
    pub(crate) async fn load(session: &Session) -> Result<Inventory, StepError> {
        let path = format!("{}/{}", collection(session), encode(&name(session)));
        let found: Option<Value> =
            session.api.find(&path).await.map_err(|f| f.step("read the inventory", &session.api.target))?;
        let Some(found) = found else { return Ok(Inventory::default()) };
        let text = found.pointer(&format!("/data/{KEY}")).and_then(Value::as_str).unwrap_or("[]");
        let items = serde_json::from_str(text).map_err(|error| {
            bad_spec(
                "KUBE-034",
                format!(
                    "the inventory in ConfigMap {}/{} cannot be read: {error}",
                    session.namespace,
                    name(session)
                ),
            )
            .hint("delete the ConfigMap; what it named is then pruned no more")
        })?;
        let version = found.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        Ok(Inventory { items, version: version.to_owned() })
    }

    /// Adds what was applied and takes out what was deleted, whoever else writes at the same time.
    ///
    /// **Repeat**: safe.
    pub(crate) async fn record(
        session: &Session,
        applied: &[Applied],
        deleted: &[Reference],
    ) -> Result<(), StepError> {
        for _ in 0..TRIES {
            let before = Inventory::load(session).await?;
            let mut items = before.items.clone();
            items.retain(|item| {
                !deleted.contains(&item.reference) && !applied.iter().any(|a| a.reference == item.reference)
            });
            items.extend(applied.iter().map(Item::from));
            items.sort_by(|a, b| a.reference.cmp(&b.reference));
            if items == before.items {
                return Ok(());
            }
            if before.write(session, &items).await? {
                return Ok(());
            }
        }
        let text = format!("the inventory of {} changes too often", session.release);
        Err(StepError::new(Class::RemoteFailed { code: 409 }, "KUBE-027", text)
            .target(session.api.target.clone()))
    }

    /// Whether it was still as it was read.
    async fn write(&self, session: &Session, items: &[Item]) -> Result<bool, StepError> {
        let mut metadata = json!({"name": name(session), "namespace": session.namespace,
            "labels": {"app.kubernetes.io/managed-by": "delegate", "release": session.release}});
        let new = self.version.is_empty();
        if !new && let Value::Object(metadata) = &mut metadata {
            metadata.insert("resourceVersion".to_owned(), Value::from(self.version.as_str()));
        }
        let text = serde_json::to_string(items).unwrap_or_default();
        let document =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: text}});
        let body = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
        let call = "write the inventory";
        session.api.announce(call, vec![call.to_owned()], json!({"v": 1}), None).await?;
        let (method, path) = if new {
            (Method::POST, collection(session))
        } else {
            (Method::PUT, format!("{}/{}", collection(session), encode(&name(session))))
        };
        // Sent twice it is refused the second time; the caller then finds that all is written.
        let ask = Ask::with(method, path, "application/json", body).repeatable();
        match session.api.mutate(call, ask).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.is_conflict() => Ok(false),
            Err(fault) => Err(fault.step(call, &session.api.target)),
        }
    }
}
