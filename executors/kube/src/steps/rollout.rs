//! `K8sRollout`: `restart`, `status`, `pause`, `resume`, `undo` and `history` of workloads.
//!
//! What a command does to each workload is decided once and stands in the checkpoint before the first change; a repeated
//! step goes on with that decision, so a restart restarts once and an undo does not undo itself.

use super::render;
use super::revisions::{self, Revision};
use super::workload::{self, Workload};
use crate::KubeExecutor;
use crate::error::{bad_spec, cancelled};
use crate::objects::Object;
use crate::rest::{Ask, JSON_PATCH, MERGE};
use crate::session::Session;
use crate::steady::{self, Limits};
use bytes::Bytes;
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput};
use http::Method;
use k8s_openapi::jiff::Timestamp;
use proto::task::{KubernetesAction, KubernetesSpec, Selection};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
const RELEASE: &str = "harness.io/release-name";
const TRACK: &str = "harness.io/track";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Restart,
    Status,
    Pause,
    Resume,
    Undo,
    History,
}

fn asked(spec: &KubernetesSpec) -> Result<(Command, &Selection), StepError> {
    let KubernetesAction::K8sRollout { command, resources } = &spec.action else {
        return Err(bad_spec("KUBE-001", format!("{} is no rollout", spec.action.kind())));
    };
    let command = match command.as_str() {
        "restart" => Command::Restart,
        "status" => Command::Status,
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "undo" => Command::Undo,
        "history" => Command::History,
        other => {
            let text =
                format!("command: `{other}`; expected restart, status, pause, resume, undo or history");
            return Err(bad_spec("KUBE-059", text));
        }
    };
    Ok((command, resources))
}

/// `--to-revision` of undo, `--revision` of history.
fn revision(spec: &KubernetesSpec, command: Command) -> Result<Option<u64>, StepError> {
    let mut found = None;
    let ours = |flag: &&proto::task::CommandFlag| {
        flag.command.is_empty() || flag.command.eq_ignore_ascii_case("Rollout")
    };
    for flag in spec.command_flags.iter().filter(ours) {
        let words = flag.flag.replace('=', " ");
        let mut words = words.split_whitespace();
        while let Some(word) = words.next() {
            let known = match command {
                Command::Undo => word == "--to-revision",
                Command::History => word == "--revision",
                Command::Status => word == "--watch" || word == "--timeout",
                _ => false,
            };
            if !known {
                return Err(bad_spec(
                    "KUBE-059",
                    format!("the command flag `{word}` of this rollout is not supported"),
                )
                .hint("supported are --to-revision with undo and --revision with history"));
            }
            let value = words.next().unwrap_or_default();
            if word.ends_with("revision") {
                let number = value.parse().map_err(|_| {
                    bad_spec("KUBE-059", format!("{word}: `{value}` is no number of a revision"))
                })?;
                // kubectl takes 0 for the last one.
                found = Some(number).filter(|number| *number > 0);
            }
        }
    }
    Ok(found)
}

/// The workloads that are meant.
async fn chosen(
    session: &mut Session,
    resources: &Selection,
    fetched: Option<&mut render::Fetched>,
) -> Result<Vec<Workload>, StepError> {
    let workloads = match resources {
        Selection::Names(names) => {
            let names =
                names.iter().flat_map(|names| names.split(',')).map(str::trim).filter(|n| !n.is_empty());
            names
                .map(|name| workload::by_reference(session, session.parse_reference(name)?))
                .collect::<Result<_, _>>()?
        }
        Selection::Release => of_release(session).await?,
        Selection::Manifests(_) => {
            let (mut objects, mask) = match fetched {
                Some(fetched) => fetched.objects(0, None, false)?,
                None => return Err(bad_spec("KUBE-059", "resources: no manifest was fetched")),
            };
            session.mask = mask;
            session.place(&mut objects, &|_| None);
            let ours =
                objects.iter().filter(|o| matches!(o.kind(), "Deployment" | "StatefulSet" | "DaemonSet"));
            ours.map(|object| workload::by_reference(session, object.reference()))
                .collect::<Result<_, _>>()?
        }
    };
    if workloads.is_empty() {
        let text = match resources {
            Selection::Manifests(_) => {
                "the manifests hold no Deployment, StatefulSet or DaemonSet".to_owned()
            }
            _ => format!("no workload of release {} is in {}", session.release, session.namespace),
        };
        return Err(bad_spec("KUBE-055", text)
            .target(session.release.clone())
            .hint("deploy the release first, or use ResourceName"));
    }
    Ok(workloads)
}

/// By the label that every deployment step gives to the pods of its workloads; canaries are not of the release.
async fn of_release(session: &Session) -> Result<Vec<Workload>, StepError> {
    let mut found = Vec::new();
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        let Some(resource) = session.resource_of("apps", kind).cloned() else { continue };
        let what = format!("list {}", resource.full_name());
        let collection = resource.collection(Some(&session.namespace));
        let items =
            session.api.list(&collection, "").await.map_err(|f| f.step(&what, &session.api.target))?;
        for item in items {
            let label = |name: &str| item.pointer("/spec/template/metadata/labels")?.get(name)?.as_str();
            let name = item.pointer("/metadata/name").and_then(Value::as_str);
            if label(RELEASE) == Some(session.release.as_str())
                && label(TRACK) != Some("canary")
                && let Some(name) = name
            {
                let reference = crate::objects::Reference {
                    group: "apps".into(),
                    kind: kind.into(),
                    namespace: Some(session.namespace.clone()),
                    name: name.to_owned(),
                };
                found.push(workload::by_reference(session, reference)?);
            }
        }
    }
    Ok(found)
}

/// One change of one workload.
struct Change {
    workload: Workload,
    call: String,
    media: &'static str,
    body: Value,
    /// For people.
    text: String,
}

/// What the command changes of one workload; `None`: it is so already.
async fn change(
    session: &Session,
    command: Command,
    workload: &Workload,
    to: Option<u64>,
) -> Result<Option<Change>, StepError> {
    let object = workload.read(session).await?;
    let kind = workload.reference.kind.as_str();
    let paused = object.at("/spec/paused").and_then(Value::as_bool).unwrap_or(false);
    let name = workload.name();
    let fault = |text: String, hint: &str| Err(bad_spec("KUBE-059", text).target(name.clone()).hint(hint));
    let (media, body, text) = match command {
        Command::Restart | Command::Undo if paused => {
            return fault(format!("{name} is paused"), "resume it first (command resume)");
        }
        Command::Restart if !matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet") => {
            return fault(
                format!("{name} cannot be restarted"),
                "restart a Deployment, StatefulSet or DaemonSet",
            );
        }
        Command::Restart => {
            let now = Timestamp::from_millisecond(i64::try_from(session.cx.clock.wall()).unwrap_or(0));
            let now = now.unwrap_or_default().to_string();
            let body = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED: now}}}}});
            (MERGE, body, format!("restarted at {now}"))
        }
        Command::Pause | Command::Resume if kind != "Deployment" => {
            return fault(format!("{name} cannot be paused or resumed"), "only Deployments can");
        }
        Command::Pause if paused => return Ok(None),
        Command::Resume if !paused => return Ok(None),
        Command::Pause => (MERGE, json!({"spec": {"paused": true}}), "paused".to_owned()),
        Command::Resume => (MERGE, json!({"spec": {"paused": null}}), "resumed".to_owned()),
        Command::Undo => {
            let known = revisions::of(session, workload, &object).await?;
            let target = revisions::target(&known, to, &name)?;
            let Some((media, body)) = undo(&object, target) else { return Ok(None) };
            (media, body, format!("goes back to revision {}", target.number))
        }
        Command::Status | Command::History => return Ok(None),
    };
    let call = format!("{} {name}", verb(command));
    Ok(Some(Change { workload: workload.clone(), call, media, body, text }))
}

fn verb(command: Command) -> &'static str {
    match command {
        Command::Restart => "restart",
        Command::Pause => "pause",
        Command::Resume => "resume",
        Command::Undo => "undo",
        Command::Status => "status",
        Command::History => "history",
    }
}

/// The patch that brings a revision's template back; `None`: it is there.
fn undo(object: &Object, target: &Revision) -> Option<(&'static str, Value)> {
    match &target.template {
        revisions::Template::Whole(template) => {
            if object.at("/spec/template") == Some(template) {
                return None;
            }
            let mut operations = vec![json!({"op": "replace", "path": "/spec/template", "value": template})];
            if let Some(cause) = &target.cause {
                if object.annotations().is_none() {
                    operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
                }
                let path = "/metadata/annotations/kubernetes.io~1change-cause";
                operations.push(json!({"op": "add", "path": path, "value": cause}));
            }
            Some((JSON_PATCH, Value::Array(operations)))
        }
        revisions::Template::Patch(patch) => Some((STRATEGIC, patch.clone())),
    }
}

async fn changes(
    session: &Session,
    spec: &KubernetesSpec,
    command: Command,
    workloads: &[Workload],
) -> Result<Vec<Change>, StepError> {
    let to = revision(spec, command)?;
    // After a crash the decision stands, also where it would be another one now.
    let history = session.cx.checkpoints.history();
    if let Some(decided) = history.iter().find_map(|c| c.state.get("rollout")?.as_array().cloned()) {
        let again = |entry: &Value| {
            let text = |name: &str| entry.get(name).and_then(Value::as_str);
            let workload = workloads.iter().find(|w| Some(w.name().as_str()) == text("workload"))?;
            let media = [MERGE, JSON_PATCH, STRATEGIC].into_iter().find(|m| Some(*m) == text("media"))?;
            Some(Change {
                workload: workload.clone(),
                call: text("call")?.to_owned(),
                media,
                body: entry.get("body")?.clone(),
                text: text("text")?.to_owned(),
            })
        };
        return Ok(decided.iter().filter_map(again).collect());
    }
    let mut found = Vec::new();
    for workload in workloads {
        found.extend(change(session, command, workload, to).await?);
    }
    Ok(found)
}

async fn send(session: &Session, changes: &[Change], unit: &Unit) -> Result<(), StepError> {
    if changes.is_empty() {
        return unit.say(Level::Info, "nothing changes").await;
    }
    if let Some((reason, _)) = session.cx.cancel.requested() {
        return Err(cancelled(reason, "nothing was changed"));
    }
    let done: Vec<String> = changes.iter().map(|c| c.call.clone()).collect();
    let decided: Vec<Value> = changes
        .iter()
        .map(|c| json!({"workload": c.workload.name(), "call": c.call, "media": c.media, "body": c.body, "text": c.text}))
        .collect();
    let intent = done.join(", ");
    session.api.announce(intent, done, json!({"v": 1, "rollout": decided}), None).await?;
    for (number, change) in changes.iter().enumerate() {
        if let Some((reason, _)) = session.cx.cancel.requested() {
            let left: Vec<String> = changes.iter().skip(number).map(|c| c.workload.name()).collect();
            return Err(cancelled(reason, &format!("not changed: {}", left.join(", "))));
        }
        // Each sets values, so sending it twice is sending it once.
        let path = format!("{}?fieldManager={}", change.workload.path, crate::apply::MANAGER);
        let body = Bytes::from(change.body.to_string());
        let ask = Ask::with(Method::PATCH, path, change.media, body).repeatable();
        session
            .api
            .mutate(&change.call, ask)
            .await
            .map_err(|fault| fault.step(&change.call, &session.api.target))?;
        unit.say(Level::Info, &format!("{}: {}", change.workload.name(), change.text)).await?;
    }
    Ok(())
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let (command, resources) = asked(spec)?;
    let mut fetched = match resources {
        Selection::Manifests(paths) => Some(render::in_unit(executor, spec, paths, cx).await?),
        _ => None,
    };
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        let workloads = chosen(&mut session, resources, fetched.as_mut()).await?;
        let changes = changes(&session, spec, command, &workloads).await?;
        Ok((session, workloads, changes))
    };
    let result = work.await;
    let (session, workloads, changes) = unit.end(result).await?;
    let names: Vec<String> = workloads.iter().map(Workload::name).collect();
    let mut outputs = BTreeMap::from([("workloads".to_owned(), Value::from(names).into())]);
    let unit = Unit::begin(cx, "Rollout").await?;
    let work = async {
        match command {
            Command::Status => {
                let targets: Vec<_> = workloads.iter().map(Workload::target).collect();
                // Asked for the state, a deadline that was exceeded before is the answer.
                let limits = Limits { trust_old_deadline: true, ..Limits::default() };
                let report =
                    steady::wait_with(session.api.client(), &targets, cx, unit.log(), &limits).await?;
                outputs.extend(workload::pods(&report, &[]));
            }
            Command::History => {
                let mut all = serde_json::Map::new();
                for workload in &workloads {
                    let object = workload.read(&session).await?;
                    let known = revisions::of(&session, workload, &object).await?;
                    let only = revision(spec, command)?;
                    let shown = known.iter().filter(|r| only.is_none_or(|only| r.number == only));
                    let shown: Vec<&Revision> = shown.collect();
                    for revision in &shown {
                        let cause = revision.cause.as_deref().unwrap_or("<none>");
                        let text = format!(
                            "{}: revision {}: {} ({cause})",
                            workload.name(),
                            revision.number,
                            revision.images.join(", ")
                        );
                        unit.say(Level::Info, &text).await?;
                    }
                    let list: Vec<Value> = shown
                        .iter()
                        .map(|r| json!({"revision": r.number, "changeCause": r.cause, "images": r.images}))
                        .collect();
                    all.insert(workload.name(), list.into());
                }
                outputs.insert("history".to_owned(), Value::Object(all).into());
            }
            _ => send(&session, &changes, &unit).await?,
        }
        Ok(())
    };
    let result = work.await;
    unit.end(result).await?;
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let (command, resources) = asked(spec)?;
    let log = cx.logs.unit("Initialize");
    let mut fetched = match resources {
        Selection::Manifests(paths) => Some(render::fetch(executor, spec, paths, cx, log.as_ref()).await?),
        _ => None,
    };
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let workloads = chosen(&mut session, resources, fetched.as_mut()).await?;
    let mut text = String::new();
    for change in changes(&session, spec, command, &workloads).await? {
        // The time of a restart is that of the run.
        let what = if command == Command::Restart { "restarts" } else { change.text.as_str() };
        text.push_str(&format!("change {}: {what}\n", change.workload.name()));
    }
    Ok(super::copies::planned(text))
}
