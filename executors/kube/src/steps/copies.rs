//! Finds canaries, colours and their Services in the cluster, by label.
//!
//! Not by history: after a crash, an abort or a lost history the labels still say what belongs to whom.

use crate::bluegreen::{self, COLOR, Color};
use crate::discovery::Resource;
use crate::error::Fault;
use crate::objects::{Annotation, Gvk, Object, Reference};
use crate::release::History;
use crate::rest::{Ask, MERGE, encode};
use crate::session::Session;
use crate::variant::{self, RELEASE_LABEL};
use bytes::Bytes;
use executor_api::{Class, Level, StepError, UnitLog};
use http::Method;
use serde_json::{Value, json};

/// What can be copied, by group and kind.
pub(crate) const WORKLOADS: [(&str, &str); 4] = [
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("apps.openshift.io", "DeploymentConfig"),
];
/// What guards a copy. It goes before the workload: an autoscaler must not work against a deletion.
pub(crate) const GUARDS: [(&str, &str); 2] =
    [("autoscaling", "HorizontalPodAutoscaler"), ("policy", "PodDisruptionBudget")];
/// What a copy reads.
pub(crate) const CONFIGURATION: [(&str, &str); 2] = [("", "Secret"), ("", "ConfigMap")];
/// Routes with weights.
pub(crate) const ROUTES: [(&str, &str); 3] = [
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("networking.istio.io", "VirtualService"),
    ("split.smi-spec.io", "TrafficSplit"),
];
/// Services.
pub(crate) const SERVICES: [(&str, &str); 1] = [("", "Service")];

/// A live object and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) object: Object,
    pub(crate) path: String,
}

impl Live {
    /// How messages and outcomes call it.
    pub(crate) fn name(&self) -> String {
        self.object.reference().to_string()
    }
}

impl Session {
    /// How a kind is served, in the version that the server prefers.
    pub(crate) fn resource_of(&self, group: &str, kind: &str) -> Option<&Resource> {
        let of = Reference {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: None,
            name: String::new(),
        };
        self.discovery.of_reference(&of)
    }

    /// Notes the namespaces of these objects as places of the release.
    pub(crate) fn add_places<'a>(&mut self, objects: impl IntoIterator<Item = &'a Object>) {
        for namespace in objects.into_iter().filter_map(Object::namespace) {
            if !self.places.iter().any(|known| known == namespace) {
                self.places.push(namespace.to_owned());
            }
        }
    }

    /// Learns from the history where objects of the release lie: a manifest may name other namespaces than the step's.
    /// Without a history that can be read, only the step's own is looked at, and that is told.
    pub(crate) async fn learn_places(&mut self, log: &dyn UnitLog) -> Result<(), StepError> {
        match History::load(self).await {
            Ok(history) => self.add_places(history.releases().iter().flat_map(|release| &release.objects)),
            Err(error) if matches!(error.class, Class::Cancelled { .. }) => return Err(error),
            Err(error) => {
                let text = format!("only {} is looked at: {}", self.namespace, error.what);
                self.say(log, Level::Warn, &text).await?;
            }
        }
        Ok(())
    }

    /// Objects of these kinds, in the namespaces of the release, that carry all `labels` and that of the release. Kinds
    /// that the cluster does not serve, or that the account may not list, are left out; the latter are told.
    pub(crate) async fn labelled(
        &self,
        kinds: &[(&str, &str)],
        labels: &[(&str, &str)],
        log: &dyn UnitLog,
    ) -> Result<Vec<Live>, StepError> {
        let mut selector = format!("{RELEASE_LABEL}={}", self.release);
        for (key, value) in labels {
            selector.push_str(&format!(",{key}={value}"));
        }
        let query = format!("labelSelector={}", encode(&selector));
        let mut found = Vec::new();
        for (group, kind) in kinds {
            let Some(resource) = self.resource_of(group, kind) else { continue };
            for place in &self.places {
                self.listed(resource, place, &query, &mut found, log).await?;
            }
        }
        Ok(found)
    }

    async fn listed(
        &self,
        resource: &Resource,
        place: &str,
        query: &str,
        found: &mut Vec<Live>,
        log: &dyn UnitLog,
    ) -> Result<(), StepError> {
        let items = match self.api.list(&resource.collection(Some(place)), query).await {
            Ok(items) => items,
            Err(fault) if fault.code() == Some(403) => {
                let text = format!(
                    "the account may not list {} in {place}: those of the release are not looked at",
                    resource.full_name()
                );
                return self.say(log, Level::Warn, &text).await;
            }
            Err(fault) => {
                return Err(fault.step(&format!("list {}", resource.full_name()), &self.api.target));
            }
        };
        for mut item in items {
            // Items of a list do not say what they are.
            variant::set(&mut item, &["apiVersion"], resource.gvk.api_version().into());
            variant::set(&mut item, &["kind"], resource.gvk.kind.clone().into());
            if let Ok(object) = Object::new(item, "the cluster") {
                let path = resource.path(object.namespace(), object.name());
                found.push(Live { object, path });
            }
        }
        Ok(())
    }

    /// One live object of a kind, if it is there.
    pub(crate) async fn live(
        &self,
        kind: &Gvk,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Live>, StepError> {
        let Some(resource) =
            self.discovery.of_gvk(kind).or_else(|| self.resource_of(&kind.group, &kind.kind))
        else {
            return Ok(None);
        };
        let path = resource.path(Some(namespace), name);
        let what = format!("read {namespace}/{}/{name}", kind.kind);
        let found: Option<Value> = self.api.find(&path).await.map_err(|f| f.step(&what, &self.api.target))?;
        Ok(found.and_then(|value| Object::new(value, "the cluster").ok()).map(|object| Live { object, path }))
    }

    /// A live Service.
    pub(crate) async fn service(&self, namespace: &str, name: &str) -> Result<Option<Live>, StepError> {
        self.live(&Gvk::new("v1", "Service"), namespace, name).await
    }

    /// The primary Service of the release and the colour that it selects.
    pub(crate) async fn primary(&self, log: &dyn UnitLog) -> Result<Option<(Live, Color)>, StepError> {
        let services = self.labelled(&SERVICES, &[], log).await?;
        let primary = services.into_iter().find(|live| live.object.says(Annotation::PrimaryService));
        let Some(primary) = primary else { return Ok(None) };
        let color = bluegreen::primary_color(Some(&primary.object.value), &self.namespace)
            .map_err(variant::Fault::into_step)?;
        Ok(Some((primary, color)))
    }

    /// Objects of one colour, in the order in which they are deleted.
    pub(crate) async fn of_color(&self, color: Color, log: &dyn UnitLog) -> Result<Vec<Live>, StepError> {
        let kinds: Vec<(&str, &str)> = [&GUARDS[..], &WORKLOADS, &CONFIGURATION].concat();
        self.labelled(&kinds, &[(COLOR, color.as_str())], log).await
    }

    /// Deletes live objects one after another, each only if it is still the one that was found. What is gone already is
    /// fine. One checkpoint announces all of them.
    ///
    /// **Cancel**: between two of them. **Repeat**: safe.
    pub(crate) async fn delete_all(
        &self,
        objects: &[Live],
        intent: &str,
        state: Value,
        undo: Option<Value>,
        log: &dyn UnitLog,
    ) -> Result<(), StepError> {
        if objects.is_empty() {
            return Ok(());
        }
        let call = |live: &Live| format!("delete {}", live.name());
        self.api.announce(intent, objects.iter().map(call).collect(), state, undo).await?;
        let mut left: Vec<String> = objects.iter().map(Live::name).collect();
        for live in objects {
            if let Some((reason, _)) = self.cx.cancel.requested() {
                return Err(crate::error::cancelled(reason, &format!("not deleted: {}", left.join(", "))));
            }
            let uid = live.object.at("/metadata/uid").cloned().unwrap_or_default();
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
                "preconditions": {"uid": uid}});
            let body = Bytes::from(options.to_string());
            let ask = Ask::with(Method::DELETE, &live.path, "application/json", body).repeatable();
            match self.api.mutate(&call(live), ask).await {
                Ok(_) => self.say(log, Level::Info, &format!("deleted {}", live.name())).await?,
                // Gone, or another object has taken its name: ours is gone either way.
                Err(fault) if fault.is_not_found() || fault.is_conflict() => {
                    self.say(log, Level::Info, &format!("{} is gone already", live.name())).await?;
                }
                Err(fault) => {
                    let mut error = fault.step(&call(live), &self.api.target);
                    error.what.push_str(&format!("; not deleted: {}", left.join(", ")));
                    return Err(self.masked(error));
                }
            }
            left.remove(0);
        }
        Ok(())
    }

    /// Sends a merge patch that a checkpoint has announced as `call`.
    pub(crate) async fn merge(&self, path: &str, call: &str, patch: &Value) -> Result<Value, Fault> {
        let path = format!("{path}?fieldManager={}", crate::apply::MANAGER);
        let ask = Ask::with(Method::PATCH, path, MERGE, Bytes::from(patch.to_string()));
        self.api.mutate(call, ask).await?.read()
    }
}

/// The plan that this text describes.
pub(crate) fn planned(text: String) -> executor_api::Plan {
    use sha2::{Digest, Sha256};
    let text = if text.is_empty() { "nothing changes\n".to_owned() } else { text };
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    executor_api::Plan::Diff { text, hash }
}
