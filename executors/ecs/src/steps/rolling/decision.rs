//! What a rolling deployment is about to change, decided before the first change.

use super::super::rollout;
use super::{Asked, Rolling};
use crate::documents::arn::short;
use crate::preflight;
use crate::scaling;
use crate::service::count::{Count, Known};
use crate::service::{self, Call, Update, check, count};
use crate::session::Session;
use crate::task_definition::{self, Wanted};
use aws::document::{list, text, whole};
use executor_api::{Class, Level, StepError, UnitLog};
use proto::task::EcsSpec;
use serde_json::{Value, json};

/// What is to be sent.
pub(super) enum Decision {
    Create(Value),
    Update(Update),
    /// It was sent by an earlier life of the agent.
    Sent(Value),
    Nothing(Value),
}

/// Everything that is known before the first change, for the log and for a plan.
pub(super) struct Picture {
    pub(super) wanted: Wanted,
    pub(super) count: Count,
    pub(super) force: bool,
    pub(super) lines: Vec<String>,
    pub(super) notices: Vec<String>,
}

/// Looks at everything and decides; changes nothing. `live` is the service when it is active.
pub(super) async fn look(
    session: &Session,
    asked: Asked,
    memory: &Rolling,
    live: Option<&Value>,
) -> Result<Picture, StepError> {
    let fetched = memory.fetched()?;
    let artifact = session.cx.task.artifact.as_ref();
    let wanted = task_definition::wanted(session, &fetched.definition, &[], artifact).await?;
    let effective = match live {
        Some(live) => over(&service::described(live, None), &fetched.service),
        None => fetched.service.clone(),
    };
    wanted.fits_fargate(check::on_fargate(&effective), &fetched.definition.place)?;
    check::consistent(&effective, &wanted.document, &fetched.place)?;
    let scaling = memory.scaling.as_deref().cloned().unwrap_or_default();
    let of_document = fetched.targets.first().and_then(|(target, _)| scaling::bounds(target));
    let decided = count(Known {
        written: fetched.count(),
        live: live.map(service::desired),
        bounds: if live.is_some() { scaling.bounds() } else { scaling.bounds().or(of_document) },
        same: asked.same,
        daemon: text(&effective, &["schedulingStrategy"]) == Some("DAEMON"),
    });
    let mut notices = wanted.warnings.clone();
    notices.extend(decided.notice.clone());
    // Harness deploys a registered revision anew, since nothing else would happen (facts A2.7).
    let runs_it = live.is_some_and(|live| text(live, &["taskDefinition"]) == wanted.existing.as_deref());
    let named_alone = wanted.named && fetched.definition.arn.is_some() && runs_it;
    if named_alone && !asked.force {
        notices.push(format!(
            "ecs.force.named: the service names the revision {} that runs already; its tasks are replaced all the same",
            short(wanted.existing.as_deref().unwrap_or_default())
        ));
    }
    let mut lines = wanted.lines();
    lines.push(decided.to_string());
    Ok(Picture { wanted, count: decided, force: asked.force || named_alone, lines, notices })
}

/// The document with what the service has beside it.
pub(super) fn over(live: &Value, document: &Value) -> Value {
    let (Value::Object(live), Value::Object(document)) = (live, document) else { return document.clone() };
    let mut out = live.clone();
    let chosen = |name: &str| {
        document.get(name).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()))
    };
    // A service has either, and the document's choice goes before.
    if chosen("capacityProviderStrategy") {
        out.shift_remove("launchType");
    }
    if chosen("launchType") {
        out.shift_remove("capacityProviderStrategy");
    }
    for (name, value) in document {
        out.insert(name.clone(), value.clone());
    }
    Value::Object(out)
}

pub(super) async fn decide(
    session: &Session,
    spec: &EcsSpec,
    asked: Asked,
    memory: &mut Rolling,
    log: &dyn UnitLog,
) -> Result<Decision, StepError> {
    let name = memory.name().to_owned();
    let first = memory.snapshot.is_none();
    let live = session.service(&name).await?.filter(service::is_active);
    if !first && live.is_none() {
        return Err(gone(session, &name));
    }
    // An earlier life may have been answered without anybody hearing it.
    if let (Some(sent), Some(live)) = (&memory.sent, &live)
        && rollout::took_effect(session, sent, live, memory.revision.as_deref().unwrap_or_default())
    {
        session
            .say(log, Level::Info, "the deployment that was sent before the interruption is there")
            .await?;
        return Ok(Decision::Sent(live.clone()));
    }
    if first && live.is_some() && memory.sent.is_none() {
        return Err(appeared(session, &name));
    }
    if memory.revision.is_none() {
        let picture = look(session, asked, memory, live.as_ref()).await?;
        for line in &picture.lines {
            session.say(log, Level::Info, line).await?;
        }
        for notice in &picture.notices {
            session.say(log, Level::Warn, notice).await?;
            session.tell(notice.clone());
        }
        let service = over(
            &live.as_ref().map(|live| service::described(live, None)).unwrap_or(json!({})),
            &memory.fetched()?.service,
        );
        let desired = picture.count.send.or(live.as_ref().map(service::desired)).unwrap_or(1);
        let providers = list(&service, &["capacityProviderStrategy"]);
        let checked = preflight::Wanted {
            service: &name,
            definition: &picture.wanted.document,
            desired: u64::from(desired),
            surge: surge(&service, u64::from(desired), live.as_ref()),
            launch_type: text(&service, &["launchType"]),
            provided: !providers.is_empty(),
        };
        preflight::check(session, &checked, log).await?;
        memory.count = Some(picture.count.send);
        memory.force = picture.force;
        let settled = task_definition::settle(session, &picture.wanted, memory, log).await?;
        memory.revision = Some(settled.arn);
    }
    session.go_on("the service was not changed")?;
    let revision = memory.revision.clone().unwrap_or_default();
    let call = Call {
        cluster: &session.cluster,
        service: &name,
        task_definition: &revision,
        count: memory.count.flatten(),
        force: memory.force,
    };
    let document = &memory.fetched()?.service;
    let Some(live) = live else {
        let token = session.token("service", 32);
        return Ok(Decision::Create(service::create_input(
            document,
            call,
            &token,
            &service::own_tags(session, spec),
        )));
    };
    let running = service::revision(session, &live).await?;
    let update = service::update_input(document, &live, running.as_ref(), call);
    for warning in &update.warnings {
        session.say(log, Level::Warn, warning).await?;
        session.tell(format!("service {name}: {warning}"));
    }
    if update.is_nothing() {
        return Ok(Decision::Nothing(live));
    }
    session
        .say(
            log,
            Level::Info,
            &format!("service {name} is updated{}", if memory.force { " by force" } else { "" }),
        )
        .await?;
    for change in &update.changes {
        session.say(log, Level::Info, &format!("  {change}")).await?;
    }
    Ok(Decision::Update(update))
}

fn gone(session: &Session, name: &str) -> StepError {
    let what =
        format!("service {name} was active when the step began, and is not any more; nothing was changed");
    StepError::new(Class::RemoteFailed { code: 1 }, "ECS-025", what)
        .target(session.target().to_owned())
        .hint("somebody deletes it; run the step again when it is known who")
}

fn appeared(session: &Session, name: &str) -> StepError {
    let what = format!(
        "service {name} did not exist when the step began, and somebody has made it since; it was not touched"
    );
    StepError::new(Class::RemoteFailed { code: 1 }, "ECS-025", what)
        .target(session.target().to_owned())
        .hint("look at who else deploys it, then run the step again")
}

/// How far the rollout may go over and under the count.
fn surge(service: &Value, desired: u64, live: Option<&Value>) -> preflight::Surge {
    let daemon = text(service, &["schedulingStrategy"]) == Some("DAEMON");
    let percent = |name: &str, default: u64| {
        let written = whole(service, &["deploymentConfiguration", name])
            .and_then(|percent| u64::try_from(percent).ok());
        written.unwrap_or(default)
    };
    let (most, least) = if daemon {
        (percent("maximumPercent", 100), percent("minimumHealthyPercent", 0))
    } else {
        (percent("maximumPercent", 200), percent("minimumHealthyPercent", 100))
    };
    let running =
        live.and_then(|live| whole(live, &["runningCount"])).and_then(|count| u64::try_from(count).ok());
    preflight::Surge::rolling(desired, running.unwrap_or(0), least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_chooses_between_launch_type_and_capacity_providers() {
        let live = json!({"launchType": "FARGATE", "capacityProviderStrategy": [], "networkConfiguration": {"a": 1}});
        let document = json!({"capacityProviderStrategy": [{"capacityProvider": "x"}]});
        let effective = over(&live, &document);
        assert_eq!(effective.get("launchType"), None);
        assert_eq!(effective["networkConfiguration"], json!({"a": 1}));
        assert_eq!(over(&live, &json!({"capacityProviderStrategy": []}))["launchType"], "FARGATE");
    }
}
