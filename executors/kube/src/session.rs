//! A connected cluster for the length of one step.

use crate::KubeExecutor;
use crate::config::Settings;
use crate::connect::connect;
use crate::discovery::{Discovery, Resource};
use crate::error::{bad_spec, log_closed};
use crate::objects::{Mask, Object, Reference};
use crate::rest::Api;
use executor_api::{Level, StepContext, StepError, UnitLog};
use proto::task::KubernetesSpec;
use serde_json::Value;

/// The minor version of Kubernetes that this agent is tested with.
const TESTED: u32 = 36;
/// How far from it a server may be without a warning.
const UNTESTED: u32 = 3;

/// Warns when the server's version is far from the tested one. What it does not say is not worth a failure.
async fn skew(api: &Api, log: &dyn UnitLog) -> Result<(), StepError> {
    let version: Value = match api.get("/version").await {
        Ok(version) => version,
        Err(fault) if matches!(fault.code(), Some(403 | 404)) => return Ok(()),
        Err(fault) => return Err(fault.step("ask for the version", &api.target)),
    };
    let text = |key: &str| version.get(key).and_then(Value::as_str).unwrap_or_default();
    let minor: String = text("minor").chars().take_while(char::is_ascii_digit).collect();
    match minor.parse::<u32>() {
        Ok(minor) if text("major") == "1" && minor.abs_diff(TESTED) <= UNTESTED => Ok(()),
        _ => {
            let text = format!(
                "the API server is of version {}; this agent is tested with 1.{TESTED}",
                text("gitVersion")
            );
            log.line(Level::Warn, &text).await.map_err(log_closed)
        }
    }
}

/// What every step has: the server, what it serves, whom to tell, what to hide.
pub(crate) struct Session {
    pub(crate) api: Api,
    pub(crate) discovery: Discovery,
    pub(crate) cx: StepContext,
    pub(crate) settings: Settings,
    /// Namespace of objects that name none.
    pub(crate) namespace: String,
    /// Namespaces in which objects of the release lie, as far as they are known; that of the step is the first.
    pub(crate) places: Vec<String>,
    /// Name of the release.
    pub(crate) release: String,
    /// Values that must not be shown.
    pub(crate) mask: Mask,
}

impl Session {
    /// Connects and asks what the server serves.
    pub(crate) async fn open(
        executor: &KubeExecutor,
        spec: &KubernetesSpec,
        cx: &StepContext,
        log: &dyn UnitLog,
    ) -> Result<Session, StepError> {
        let settings = &executor.settings;
        if let Some((reason, _)) = cx.cancel.requested() {
            return Err(crate::error::cancelled(reason, "nothing was changed"));
        }
        let (client, target) = connect(&spec.cluster, cx, log, settings).await?;
        let api = Api::new(client, cx, executor.probe.clone(), settings, target);
        skew(&api, log).await?;
        let discovery =
            Discovery::load(&api).await.map_err(|fault| fault.step("ask what is served", &api.target))?;
        if !discovery.stale.is_empty() {
            let text =
                format!("these groups of the API server do not answer now: {}", discovery.stale.join(", "));
            log.line(Level::Warn, &text).await.map_err(log_closed)?;
        }
        Ok(Session {
            api,
            discovery,
            cx: cx.clone(),
            settings: settings.clone(),
            namespace: spec.namespace.clone(),
            places: vec![spec.namespace.clone()],
            release: spec.release_name.clone(),
            mask: Mask::default(),
        })
    }

    /// Writes a line without any secret of the set.
    pub(crate) async fn say(&self, log: &dyn UnitLog, level: Level, text: &str) -> Result<(), StepError> {
        log.line(level, &self.mask.hide(text)).await.map_err(log_closed)
    }

    /// The error with every secret of the set hidden: API servers quote values in their messages.
    pub(crate) fn masked(&self, mut error: StepError) -> StepError {
        error.what = self.mask.hide(&error.what);
        error
    }

    /// Gives the namespace of the step to every object that lies in one and names none, and takes it from those that
    /// lie in none. Objects whose kind is not served yet keep what they have, unless `namespaced` knows them.
    pub(crate) fn place(&self, objects: &mut [Object], namespaced: &dyn Fn(&Object) -> Option<bool>) {
        for object in objects {
            let lies_in_one = self.discovery.of(object).map(|r| r.namespaced).or_else(|| namespaced(object));
            match lies_in_one {
                Some(true) if object.namespace().is_none() => object.set_namespace(self.namespace.clone()),
                Some(false) => {
                    object.remove(&["metadata", "namespace"]);
                }
                _ => {}
            }
        }
    }

    /// Where an object is served.
    ///
    /// **Errors**: `KUBE-018`: its kind is not.
    pub(crate) fn resource(&self, object: &Object) -> Result<&Resource, StepError> {
        self.discovery.of(object).ok_or_else(|| self.not_served(object))
    }

    pub(crate) fn not_served(&self, object: &Object) -> StepError {
        let versions = self.discovery.versions_of(object.group(), object.kind());
        let known = if versions.is_empty() {
            "the cluster does not know this kind".to_owned()
        } else {
            format!("the cluster serves it as {}", versions.join(", "))
        };
        let text = format!(
            "{} ({}): kind {} of {}: {known}",
            object.reference(),
            object.source,
            object.kind(),
            object.api_version()
        );
        bad_spec("KUBE-018", text).target(self.api.target.clone()).hint(
            "install the definition (CRD) first or add it to the manifests, or use a version that is served",
        )
    }

    /// Path of an object in the cluster.
    pub(crate) fn path(&self, object: &Object) -> Result<String, StepError> {
        Ok(self.resource(object)?.path(object.namespace(), object.name()))
    }

    /// Path of what a reference names; `None` when its kind is not served (any more).
    pub(crate) fn path_of(&self, reference: &Reference) -> Option<String> {
        let resource = self.discovery.of_reference(reference)?;
        Some(resource.path(reference.namespace.as_deref(), &reference.name))
    }

    /// A reference written as `[namespace/]Kind/name`, in the namespace of the step when it names none.
    ///
    /// **Errors**: `KUBE-010` for another shape, `KUBE-018` for an unknown kind.
    pub(crate) fn parse_reference(&self, text: &str) -> Result<Reference, StepError> {
        let parts: Vec<&str> = text.trim().split('/').collect();
        let (namespace, kind, name) = match parts.as_slice() {
            [kind, name] => (None, *kind, *name),
            [namespace, kind, name] => (Some(*namespace), *kind, *name),
            _ => (None, "", ""),
        };
        if kind.is_empty() || name.is_empty() || namespace == Some("") {
            let text = format!(
                "`{text}` names no object; expected [namespace/]Kind/name, for example Deployment/web"
            );
            return Err(bad_spec("KUBE-010", text));
        }
        let resource = self.discovery.of_kind(kind).ok_or_else(|| {
            bad_spec("KUBE-018", format!("`{text}`: the cluster does not know the kind {kind}"))
                .target(self.api.target.clone())
        })?;
        Ok(Reference {
            group: resource.gvk.group.clone(),
            kind: resource.gvk.kind.clone(),
            namespace: resource.namespaced.then(|| namespace.unwrap_or(&self.namespace).to_owned()),
            name: name.to_owned(),
        })
    }
}
