//! The revisions that controllers keep: ReplicaSets of Deployments, ControllerRevisions of the others.

use super::workload::Workload;
use crate::error::bad_spec;
use crate::objects::Object;
use crate::session::Session;
use executor_api::StepError;
use serde_json::Value;

/// How a revision is brought back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Template {
    /// The pod template as it was.
    Whole(Value),
    /// A strategic merge patch that replaces it.
    Patch(Value),
}

/// One revision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    pub(crate) number: u64,
    /// `kubernetes.io/change-cause`.
    pub(crate) cause: Option<String>,
    pub(crate) images: Vec<String>,
    pub(crate) template: Template,
}

/// Every revision of a workload, oldest first.
///
/// **Errors**: a kind without revisions, or the server's refusal.
pub(crate) async fn of(
    session: &Session,
    workload: &Workload,
    object: &Object,
) -> Result<Vec<Revision>, StepError> {
    let (kind, read): (_, fn(&Value) -> Option<Revision>) = match workload.reference.kind.as_str() {
        "Deployment" => ("ReplicaSet", of_set),
        "StatefulSet" | "DaemonSet" => ("ControllerRevision", of_controller),
        other => {
            return Err(bad_spec(
                "KUBE-059",
                format!("{}: the kind {other} keeps no revisions", workload.name()),
            )
            .target(workload.name())
            .hint("name a Deployment, StatefulSet or DaemonSet"));
        }
    };
    let Some(resource) = session.resource_of("apps", kind) else { return Ok(Vec::new()) };
    let uid = object.at("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
    let what = format!("list {} of {}", resource.full_name(), workload.name());
    let collection = resource.collection(workload.reference.namespace.as_deref());
    let all = session.api.list(&collection, "").await.map_err(|f| f.step(&what, &session.api.target))?;
    let ours = |item: &&Value| {
        let owners =
            item.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
        owners.into_iter().any(|owner| owner.get("uid").and_then(Value::as_str) == Some(uid.as_str()))
    };
    let mut found: Vec<Revision> = all.iter().filter(ours).filter_map(read).collect();
    found.sort_by_key(|revision| revision.number);
    Ok(found)
}

fn annotation(item: &Value, name: &str) -> Option<String> {
    item.pointer("/metadata/annotations")?.get(name)?.as_str().map(str::to_owned)
}

fn images(template: &Value) -> Vec<String> {
    let containers = template.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    containers.into_iter().filter_map(|c| c.get("image")?.as_str().map(str::to_owned)).collect()
}

fn of_set(item: &Value) -> Option<Revision> {
    let mut template = item.pointer("/spec/template")?.clone();
    // The controller adds it to each of its ReplicaSets.
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    Some(Revision {
        number: annotation(item, "deployment.kubernetes.io/revision")?.parse().ok()?,
        cause: annotation(item, "kubernetes.io/change-cause"),
        images: images(&template),
        template: Template::Whole(template),
    })
}

fn of_controller(item: &Value) -> Option<Revision> {
    let data = item.get("data")?;
    Some(Revision {
        number: item.get("revision")?.as_u64()?,
        cause: annotation(item, "kubernetes.io/change-cause"),
        images: data.pointer("/spec/template").map(images).unwrap_or_default(),
        template: Template::Patch(data.clone()),
    })
}

/// The revision to go back to: `to`, else the one before the newest.
///
/// **Errors**: `KUBE-059` with the revisions that are kept.
pub(crate) fn target<'a>(
    known: &'a [Revision],
    to: Option<u64>,
    name: &str,
) -> Result<&'a Revision, StepError> {
    let found = match to {
        Some(number) => known.iter().find(|revision| revision.number == number),
        None => known.iter().rev().nth(1),
    };
    found.ok_or_else(|| {
        let kept: Vec<String> = known.iter().map(|revision| revision.number.to_string()).collect();
        let wanted = to.map_or("an earlier revision".to_owned(), |number| format!("revision {number}"));
        bad_spec("KUBE-059", format!("{name}: {wanted} is not kept; there are: {}", kept.join(", ")))
            .target(name.to_owned())
            .hint("see the revisions with command history; raise spec.revisionHistoryLimit to keep more")
    })
}
