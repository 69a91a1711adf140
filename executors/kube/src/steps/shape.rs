//! What a rolling release adds to the objects of a manifest, and what it leaves to others.

use crate::apply::{Definitions, MANAGER, Need, check_rights};
use crate::objects::{LABEL_RELEASE, LABEL_TRACK, Object, Reference, Role, put};
use crate::release::{History, Versioned, versioned};
use crate::session::Session;
use crate::steady::Target;
use executor_api::{Level, StepError, UnitLog};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The live workloads of a set, by reference.
pub(crate) type Live = BTreeMap<Reference, Value>;

/// Reads the live workloads of the set.
pub(crate) async fn live(session: &Session, objects: &[Object]) -> Result<Live, StepError> {
    let paths: Vec<(Reference, String)> = objects
        .iter()
        .filter(|object| object.role() == Role::Managed)
        .filter_map(|object| {
            let resource = session.discovery.of(object)?;
            Some((object.reference(), resource.path(object.namespace(), object.name())))
        })
        .collect();
    let found: Vec<_> = futures::stream::iter(paths)
        .map(|(reference, path)| async move {
            let found = session.api.find::<Value>(&path).await;
            let found = found.map_err(|f| f.step(&format!("read {reference}"), &session.api.target))?;
            Ok(found.map(|value| (reference, value)))
        })
        .buffered(session.settings.apply_concurrency.max(1))
        .collect()
        .await;
    let found: Result<Vec<Option<(Reference, Value)>>, StepError> = found.into_iter().collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Labels pods with the release, and with the track in a canary workflow; gives configuration its versions.
pub(crate) fn rolling(
    objects: &mut [Object],
    session: &Session,
    number: u64,
    history: &History,
    live: &Live,
    how: Rolling,
) -> Vec<Versioned> {
    let release = session.release.clone();
    for object in objects.iter_mut().filter(|object| object.role() == Role::Managed) {
        let live = live.get(&object.reference());
        let selects_track = live.is_some_and(|live| {
            live.pointer("/spec/selector/matchLabels").and_then(|labels| labels.get(LABEL_TRACK)).is_some()
        });
        if let Some(template) = object.pod_template_mut() {
            put(template, &["metadata", "labels", LABEL_RELEASE], json!(release));
            if how.in_canary_workflow || selects_track {
                put(template, &["metadata", "labels", LABEL_TRACK], json!("stable"));
            }
        }
        // A selector is immutable: it keeps the track that an earlier release of Harness put there, and never gets one.
        if selects_track {
            object.set(&["spec", "selector", "matchLabels", LABEL_TRACK], json!("stable"));
        }
    }
    if how.skip_versioning { Vec::new() } else { versioned(objects, number, history, &session.namespace) }
}

/// How a rolling release is shaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rolling {
    pub(crate) in_canary_workflow: bool,
    pub(crate) skip_versioning: bool,
}

/// Leaves the number of pods of every workload that an autoscaler scales as it is.
///
/// Removing the field from what we apply would be wrong while we own it alone: the server would put its default of 1
/// there. So it is left out when somebody else owns it, and set to the live number when we do.
pub(crate) async fn hold_replicas(
    session: &Session,
    objects: &mut [Object],
    live: &Live,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let scalable = |object: &Object| object.role() == Role::Managed && object.replicas().is_some();
    let namespaces: BTreeSet<String> = objects
        .iter()
        .filter(|object| scalable(object) && live.contains_key(&object.reference()))
        .filter_map(|object| object.namespace().map(str::to_owned))
        .collect();
    if namespaces.is_empty() {
        return Ok(());
    }
    let mut scaled: BTreeSet<(String, String, String)> = BTreeSet::new();
    let mut note = |autoscaler: &Value, namespace: &str| {
        let text =
            |path: &str| autoscaler.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        scaled.insert((
            namespace.to_owned(),
            text("/spec/scaleTargetRef/kind"),
            text("/spec/scaleTargetRef/name"),
        ));
    };
    for object in objects.iter().filter(|object| object.kind() == "HorizontalPodAutoscaler") {
        note(&object.value, object.namespace().unwrap_or(&session.namespace));
    }
    for namespace in &namespaces {
        let path = format!(
            "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
            crate::rest::encode(namespace)
        );
        match session.api.list(&path, "").await {
            Ok(found) => found.iter().for_each(|autoscaler| note(autoscaler, namespace)),
            // Without the right to look, the manifest decides.
            Err(fault) if matches!(fault.code(), Some(403 | 404)) => {}
            Err(fault) => return Err(fault.step("look for autoscalers", &session.api.target)),
        }
    }
    for object in objects.iter_mut().filter(|object| scalable(object)) {
        let reference = object.reference();
        let key =
            (reference.namespace.clone().unwrap_or_default(), reference.kind.clone(), reference.name.clone());
        let Some(live) = live.get(&reference).filter(|_| scaled.contains(&key)) else { continue };
        let replicas = live.pointer("/spec/replicas").cloned();
        match replicas.filter(|_| we_own_replicas(live)) {
            Some(replicas) => object.set(&["spec", "replicas"], replicas),
            None => {
                object.remove(&["spec", "replicas"]);
            }
        }
        let text =
            format!("{reference}: an autoscaler sets its replicas; the manifest's number is not applied");
        session.say(log, Level::Info, &text).await?;
    }
    Ok(())
}

fn we_own_replicas(live: &Value) -> bool {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    entries
        .filter(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            text("manager") == MANAGER || text("manager") == "kubectl-client-side-apply"
        })
        .any(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some())
}

/// What a step writes down in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    /// Releases.
    Releases,
    /// The inventory of K8sApply; it reads the releases.
    Inventory,
}

/// Asks for the rights that applying `objects` takes, and those for the records of the step.
///
/// **Errors**: `KUBE-025` lists what is missing.
pub(crate) async fn rights(
    session: &Session,
    mut objects: Vec<Object>,
    records: Records,
) -> Result<(), StepError> {
    let definitions = Definitions::of(&objects);
    session.place(&mut objects, &|object| definitions.namespaced(object));
    let mut needs = BTreeSet::new();
    for object in &objects {
        let Some(resource) = session.discovery.of(object) else { continue };
        let watched = matches!(object.role(), Role::Managed | Role::Custom | Role::Job);
        let verbs = ["get", "create", "patch", "list", "watch"];
        for verb in verbs.into_iter().take(if watched { 5 } else { 3 }) {
            needs.insert(Need {
                group: resource.gvk.group.clone(),
                resource: resource.plural.clone(),
                namespace: object.namespace().filter(|_| resource.namespaced).map(str::to_owned),
                verb,
            });
        }
    }
    let wanted: &[(&str, &'static str)] = match records {
        Records::Releases => &[
            ("secrets", "get"),
            ("secrets", "list"),
            ("secrets", "create"),
            ("secrets", "update"),
            ("secrets", "delete"),
        ],
        Records::Inventory => {
            &[("secrets", "list"), ("configmaps", "get"), ("configmaps", "create"), ("configmaps", "update")]
        }
    };
    needs.extend(wanted.iter().map(|(resource, verb)| Need {
        group: String::new(),
        resource: (*resource).to_owned(),
        namespace: Some(session.namespace.clone()),
        verb,
    }));
    check_rights(session, needs).await
}

/// What is waited for: managed and custom workloads, and Jobs if `jobs`.
pub(crate) fn targets<'a>(objects: impl IntoIterator<Item = &'a Object>, jobs: bool) -> Vec<Target> {
    objects
        .into_iter()
        .filter(|object| match object.role() {
            Role::Managed | Role::Custom => true,
            Role::Job => jobs,
            Role::Versioned | Role::Plain => false,
        })
        .map(|object| Target {
            api_version: object.api_version().to_owned(),
            kind: object.kind().to_owned(),
            namespace: object.namespace().unwrap_or_default().to_owned(),
            name: object.name().to_owned(),
        })
        .collect()
}
