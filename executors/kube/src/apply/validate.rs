//! Everything is validated before anything is changed.

use super::owners::{self, Head};
use super::{Definitions, MANAGER, Options, Prepared, Set, Verdict, gathered, is_allowed};
use crate::error::{Fault, bad_spec};
use crate::objects::{Object, sort};
use crate::rest::{APPLY, Ask, encode};
use crate::session::Session;
use bytes::Bytes;
use executor_api::{Class, Level, StepError, UnitLog};
use futures::StreamExt as _;
use http::Method;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Sorts `objects` and has the API server try each of them without storing anything. Objects that need a namespace or
/// a definition of the same set are checked as far as that goes now, and tried when those exist.
///
/// **Errors**: every object that is refused, in one error; twice the same object (`KUBE-010`); a kind that is not
/// served (`KUBE-018`).
pub(crate) async fn validate(
    session: &Session,
    mut objects: Vec<Object>,
    options: Options,
    log: &dyn UnitLog,
) -> Result<Set, StepError> {
    if objects.is_empty() {
        return Err(bad_spec("KUBE-032", "the manifests hold no object")
            .hint("check the paths of the manifest and whether its templates render to anything"));
    }
    let definitions = Definitions::of(&objects);
    session.place(&mut objects, &|object| definitions.namespaced(object));
    sort(&mut objects);
    twice(&objects)?;
    let mut errors: Vec<StepError> =
        objects.iter().filter_map(|object| definitions.check(session, object)).collect();
    if !errors.is_empty() {
        let total = objects.len();
        return Err(session.masked(gathered("validation", total, std::mem::take(&mut errors))));
    }
    let mut items = Vec::with_capacity(objects.len());
    for object in objects {
        let body = Bytes::from(serde_json::to_vec(&object.value).unwrap_or_default());
        items.push(Prepared { object, body, verdict: Verdict::Unasked });
    }
    let mut set = Set { items, options, done: Vec::new() };
    if options.skip_dry_run {
        session
            .say(
                log,
                Level::Warn,
                "the dry run is skipped: what the API server refuses shows only on the way",
            )
            .await?;
    } else {
        let all: Vec<usize> = (0..set.items.len()).collect();
        try_all(session, &mut set, &all, &definitions).await?;
        let deferred = set.items.iter().filter(|item| item.verdict == Verdict::Deferred).count();
        let text = match deferred {
            0 => format!("{} objects are valid", set.items.len()),
            n => format!(
                "{} objects are valid; {n} of them are tried again when what they need exists",
                set.items.len()
            ),
        };
        session.say(log, Level::Info, &text).await?;
    }
    Ok(set)
}

fn twice(objects: &[Object]) -> Result<(), StepError> {
    let mut seen: HashMap<_, &Object> = HashMap::new();
    for object in objects {
        if let Some(first) = seen.insert(object.reference(), object) {
            let text = format!(
                "{} stands twice in the manifests: {} and {}",
                object.reference(),
                first.source,
                object.source
            );
            return Err(
                bad_spec("KUBE-010", text).hint("leave one of them out, or give them different names")
            );
        }
    }
    Ok(())
}

/// Dry run of the items at `which`; their verdicts are set.
pub(super) async fn try_all(
    session: &Session,
    set: &mut Set,
    which: &[usize],
    definitions: &Definitions,
) -> Result<(), StepError> {
    let options = set.options;
    let results: Vec<(usize, Result<Verdict, StepError>)> = {
        let items = &set.items;
        futures::stream::iter(which.iter().copied())
            .map(|at| async move {
                let result = match items.get(at) {
                    Some(item) => attempt(session, item, options, definitions).await,
                    None => Ok(Verdict::Unasked),
                };
                (at, result)
            })
            .buffer_unordered(session.settings.apply_concurrency.max(1))
            .collect()
            .await
    };
    let mut errors = BTreeMap::new();
    for (at, result) in results {
        match result {
            Ok(verdict) => {
                if let Some(item) = set.items.get_mut(at) {
                    item.verdict = verdict;
                }
            }
            Err(error) => {
                errors.insert(at, error);
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    // A cancel goes before whatever else went wrong on its account.
    let mut errors: Vec<StepError> = errors.into_values().collect();
    if let Some(at) = errors.iter().position(|error| matches!(error.class, Class::Cancelled { .. })) {
        return Err(errors.swap_remove(at));
    }
    Err(session.masked(gathered("validation", set.items.len(), errors)))
}

/// Query of an apply.
pub(super) fn query(options: Options, dry: bool, force: bool) -> String {
    let force = force || options.force_conflicts;
    // Unknown fields have been found by the dry run; asking again would cost the server time.
    let check = if options.lenient || !(dry || options.skip_dry_run) { "Ignore" } else { "Strict" };
    let dry = if dry { "&dryRun=All" } else { "" };
    format!("fieldManager={}&force={force}&fieldValidation={check}{dry}", encode(MANAGER))
}

async fn attempt(
    session: &Session,
    item: &Prepared,
    options: Options,
    definitions: &Definitions,
) -> Result<Verdict, StepError> {
    let object = &item.object;
    if session.discovery.of(object).is_none() {
        // `definitions.check` has seen it already.
        return Ok(Verdict::Deferred);
    }
    let path = session.path(object)?;
    let send = |force: bool| {
        let path = format!("{path}?{}", query(options, true, force));
        session.api.ask(Ask::with(Method::PATCH, path, APPLY, item.body.clone()).repeatable())
    };
    let fault = match send(false).await {
        Ok(answer) => return verdict(session, &answer, object),
        Err(fault) => fault,
    };
    if fault.has_cause("FieldManagerConflict") {
        let live: Value = session.api.get(&path).await.map_err(|f| refused(session, object, f))?;
        let causes = fault.causes();
        let fields: Vec<&str> = causes.iter().map(|(field, ..)| *field).collect();
        let foreign = owners::foreign(&live, &fields);
        if foreign.is_empty() && owners::takeover(&live).is_some() {
            let answer = send(true).await.map_err(|f| refused(session, object, f))?;
            return match verdict(session, &answer, object)? {
                Verdict::Accepted { version, .. } => Ok(Verdict::Accepted { version, adopt: true }),
                other => Ok(other),
            };
        }
        let mut error = refused(session, object, fault);
        if !foreign.is_empty() {
            error.what = format!("{} ({}): {}", object.reference(), object.source, foreign.join("; "));
        }
        return Err(error);
    }
    let missing_namespace = object.namespace().filter(|_| fault.is_not_found());
    if let Some(namespace) = missing_namespace {
        if definitions.has_namespace(namespace) {
            elsewhere(session, object, options, "default").await?;
            return Ok(Verdict::Deferred);
        }
        let text =
            format!("{} ({}): the namespace {namespace} does not exist", object.reference(), object.source);
        return Err(bad_spec("KUBE-023", text)
            .target(session.api.target.clone())
            .hint("create the namespace first, or add it to the manifests"));
    }
    if fault.code() == Some(500) {
        // A patch that does not fit the schema is an internal error to the server. Asked to create the object, it says
        // what is wrong with which field.
        elsewhere(session, object, options, object.namespace().unwrap_or_default()).await?;
    }
    explain(session, object, fault).await
}

fn verdict(session: &Session, answer: &crate::rest::Answer, object: &Object) -> Result<Verdict, StepError> {
    let head: Head = answer.read().map_err(|fault| refused(session, object, fault))?;
    let exists = answer.status == 200 && !head.metadata.resource_version.is_empty();
    let version = exists.then(|| head.metadata.resource_version.clone());
    Ok(Verdict::Accepted { version, adopt: head.adopt() })
}

/// Tries to create an object in `namespace` under a name that nobody has: for one whose own namespace does not exist
/// yet. What only that can say (quotas, policies) is found when it exists.
async fn elsewhere(
    session: &Session,
    object: &Object,
    options: Options,
    namespace: &str,
) -> Result<(), StepError> {
    let mut copy = object.clone();
    copy.remove(&["metadata", "name"]);
    copy.set(&["metadata", "generateName"], Value::from(format!("{}-", object.name())));
    let resource = session.resource(object)?;
    if resource.namespaced {
        copy.set_namespace(namespace);
    }
    let check = if options.lenient { "Ignore" } else { "Strict" };
    let path = format!(
        "{}?dryRun=All&fieldManager={}&fieldValidation={check}",
        resource.collection(Some(namespace)),
        encode(MANAGER)
    );
    let body = Bytes::from(serde_json::to_vec(&copy.value).unwrap_or_default());
    match session.api.ask(Ask::with(Method::POST, path, "application/json", body).repeatable()).await {
        Ok(_) => Ok(()),
        // No right to create it there says nothing of the object; neither does a policy of that namespace.
        Err(fault) if matches!(fault.code(), Some(403 | 404 | 500)) => Ok(()),
        Err(fault) => Err(refused(session, object, fault)),
    }
}

/// The error for a refused object; a 403 is told apart by asking for the right itself, not by reading the message.
pub(super) async fn explain<T>(session: &Session, object: &Object, fault: Fault) -> Result<T, StepError> {
    let forbidden = fault.code() == Some(403) && !fault.has_cause("NamespaceTerminating");
    let said = fault.to_string();
    let code = fault.code().unwrap_or(403);
    // A webhook is asked after the rights were judged and refuses with any status: the server takes 400 when it names
    // none, which would read as a wrong field.
    let webhook = (400..500).contains(&code) && said.starts_with("admission webhook ");
    let error = refused(session, object, fault);
    if !forbidden && !webhook {
        return Err(error);
    }
    let resource = session.resource(object)?;
    if webhook || is_allowed(session, resource, object.namespace(), "patch").await {
        let text = format!("{} ({}): admission refuses it: {said}", object.reference(), object.source);
        return Err(StepError::new(Class::RemoteFailed { code: i32::from(code) }, "KUBE-021", text)
            .target(session.api.target.clone())
            .hint("a quota, a policy or an admission webhook refuses the object; its message says which"));
    }
    Err(error)
}

pub(super) fn refused(session: &Session, object: &Object, fault: Fault) -> StepError {
    fault.step(&format!("{} ({})", object.reference(), object.source), &session.api.target)
}

/// A dry run of one object: the object as it would be, or why not. For plans and diffs.
pub(crate) async fn would_be(session: &Session, object: &Object, options: Options) -> Result<Value, Fault> {
    let Some(resource) = session.discovery.of(object) else { return Ok(object.value.clone()) };
    let path = resource.path(object.namespace(), object.name());
    // A conflict is for the apply to report; the plan shows what would be asked for.
    let path = format!("{path}?{}", query(options, true, true));
    let body = Bytes::from(serde_json::to_vec(&object.value).unwrap_or_default());
    match session.api.ask(Ask::with(Method::PATCH, path, APPLY, body).repeatable()).await {
        Ok(answer) => answer.read(),
        Err(fault) if fault.is_not_found() => Ok(object.value.clone()),
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_looked_for_once() {
        let usual = Options::default();
        assert!(query(usual, true, false).ends_with("force=false&fieldValidation=Strict&dryRun=All"));
        assert!(query(usual, false, false).ends_with("force=false&fieldValidation=Ignore"));
        let skipped = Options { skip_dry_run: true, ..usual };
        assert!(query(skipped, false, false).ends_with("fieldValidation=Strict"));
        assert!(query(Options { force_conflicts: true, ..usual }, false, false).contains("force=true"));
    }

    #[test]
    fn an_object_that_stands_twice_is_named_with_both_places() {
        let object = |source: &str| {
            Object::new(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}), source)
                .unwrap()
        };
        let error = twice(&[object("x.yaml:1"), object("y.yaml:3")]).unwrap_err();
        assert!(error.what.contains("x.yaml:1 and y.yaml:3"), "{error}");
    }
}
