//! What steps that change where requests go have in common: which two services they work on, how many targets must answer,
//! what they would change.

use crate::EcsExecutor;
use crate::error::bad_spec;
use crate::preflight::{self, Surge};
use crate::service::{self, Call};
use crate::session::Session;
use crate::steps::beside::Deployment;
use crate::steps::stage;
use crate::task_definition;
use crate::traffic::discover::Told;
use crate::traffic::pair::Pair;
use crate::traffic::{self, Actions, Fault, Rule, SavedRule, discover, undo};
use aws::document::text;
use executor_api::{Level, Plan, StepError, UnitLog};
use proto::task::EcsSpec;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The pair that a step of this stage works on: the one that the step before decided on, else by the spec, the service's
/// variables and discovery. What the spec says must not contradict what was decided.
///
/// **Errors**: `ECS-051`, `ECS-053`, `ECS-058`, `ECS-004`.
pub(crate) async fn pair_of(
    executor: &EcsExecutor,
    session: &Session,
    spec: &EcsSpec,
    told: Told,
    log: &dyn UnitLog,
) -> Result<Pair, StepError> {
    if let Some(pair) = undo::pair(spec)? {
        return Box::pin(against(session, pair, told, log)).await;
    }
    let told = told.over(Told::by_variables(&spec.variables));
    let definition = stage::service(executor, spec, &session.cx, log).await?;
    let service = stage::name(definition.as_ref());
    let live = match service {
        Some(name) => session.service(name).await?.into_iter().collect(),
        None => Vec::new(),
    };
    Box::pin(discover::for_shift(session, &told, service, &live)).await
}

/// A pair that was decided on before, with what the spec of this step says about rule and groups.
async fn against(session: &Session, pair: Pair, told: Told, log: &dyn UnitLog) -> Result<Pair, StepError> {
    let mut pair = pair;
    if let Some(arn) = &told.rule {
        pair.production = traffic::look::rule(session, arn).await?;
    } else if let Some(listener) = &told.listener {
        pair.production = Rule::default_of(listener.clone());
    }
    let groups = [&told.blue_group, &told.green_group];
    let swapped = told.green_group.as_deref().is_some_and(|group| group == pair.blue_group)
        || told.blue_group.as_deref().is_some_and(|group| group == pair.green_group);
    if swapped {
        let text = "the spec names the colours the other way round; green is the service that was deployed in this stage";
        session.say(log, Level::Warn, text).await?;
        return Ok(pair);
    }
    for group in groups.into_iter().flatten() {
        if *group != pair.blue_group && *group != pair.green_group {
            let text = format!(
                "target group `{group}` is none of the two that this stage works on ({} and {})",
                pair.blue_group, pair.green_group
            );
            return Err(Fault::Unfit(text).into_step());
        }
    }
    Ok(pair)
}

/// How many healthy targets each colour needs before it gets more requests: as many as its service wants tasks.
pub(crate) async fn needs(session: &Session, pair: &Pair) -> Result<Vec<(String, u32)>, StepError> {
    let mut needs = Vec::new();
    for (service, group) in [(Some(&pair.green), &pair.green_group), (pair.blue.as_ref(), &pair.blue_group)] {
        // A step that knows the target group alone needs one target that answers.
        let Some(service) = service.filter(|service| !service.is_empty()) else { continue };
        let live = session.service(service).await?;
        let desired = live.as_ref().filter(|live| service::is_active(live)).map_or(0, service::desired);
        needs.push((group.clone(), desired));
    }
    Ok(needs)
}

/// What a step makes of a rule.
pub(crate) type Wanted<'a> = &'a (dyn Fn(&Actions) -> Result<Actions, Fault> + Send + Sync);

/// The plan of a step that changes rules.
pub(crate) async fn plan(session: &Session, changes: &[(&Rule, Wanted<'_>)]) -> Result<Plan, StepError> {
    let mut text = String::new();
    for (rule, wanted) in changes {
        text.push_str(&changed(session, rule, *wanted).await?);
    }
    Ok(planned(text))
}

/// What a step would make of a rule, as a diff; empty when it is so already.
pub(crate) async fn changed(session: &Session, rule: &Rule, wanted: Wanted<'_>) -> Result<String, StepError> {
    let now = traffic::look::actions(session, rule).await?;
    let next = wanted(&now).map_err(Fault::into_step)?;
    Ok(match next.same(&now) {
        true => String::new(),
        false => difference(&rule.to_string(), &now.pretty(), &next.pretty()),
    })
}

/// A unified diff of two texts.
pub(crate) fn difference(name: &str, before: &str, after: &str) -> String {
    let diff = similar::TextDiff::from_lines(before, after);
    let mut unified = diff.unified_diff();
    unified.context_radius(3).header(name, name).missing_newline_hint(false).to_string()
}

/// A plan as text; the same text has the same hash.
pub(crate) fn planned(text: String) -> Plan {
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    Plan::Diff { text, hash }
}

/// The text of an unexpected action.
pub(crate) fn wrong_step(spec: &EcsSpec) -> StepError {
    bad_spec("ECS-008", format!("{} is another step", spec.action.kind()))
}

/// What bringing a rule back would change.
pub(crate) async fn restoring(session: &Session, saved: &SavedRule) -> Result<String, StepError> {
    let now = traffic::look::actions(session, &saved.rule).await?;
    let back = saved.restored(&now).map_err(Fault::into_step)?;
    Ok(match back.same(&now) {
        true => String::new(),
        false => difference(&saved.rule.to_string(), &now.pretty(), &back.pretty()),
    })
}

/// Looks at everything that can go wrong, before the first change.
///
/// **Errors**: `ECS-090` … `ECS-092`.
pub(crate) async fn preflight(
    session: &Session,
    document: &Value,
    definition: &Value,
    count: u32,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let wanted = preflight::Wanted {
        service: text(document, &["serviceName"]).unwrap_or_default(),
        definition,
        desired: u64::from(count),
        // Green comes beside blue: all of its tasks at once, and none of blue's may go for it.
        surge: Surge { beside: u64::from(count), may_stop: 0 },
        launch_type: text(document, &["launchType"]),
        provided: !aws::document::list(document, &["capacityProviderStrategy"]).is_empty(),
    };
    Box::pin(preflight::check(session, &wanted, log)).await
}

/// The plan of a step that deploys a service beside the live one.
pub(crate) async fn plan_beside(session: &Session, memory: &Deployment) -> Result<Plan, StepError> {
    let Some(green) = &memory.green else { return Ok(planned(String::new())) };
    let wanted =
        Box::pin(task_definition::wanted(session, &memory.source, &[], session.cx.task.artifact.as_ref()))
            .await?;
    let mut lines = wanted.lines();
    let name = &green.pair.green;
    let live = session.service(name).await?.filter(service::is_active);
    match live.filter(|_| !memory.replace) {
        None => {
            let text =
                serde_json::to_string_pretty(&crate::changes::sorted(&memory.document)).unwrap_or_default();
            lines.push(difference(&format!("service {name}"), "", &text));
        }
        Some(live) => {
            let revision = service::revision(session, &live).await?;
            let call = Call {
                cluster: &session.cluster,
                service: name,
                task_definition: wanted.existing.as_deref().unwrap_or("(a new revision)"),
                count: Some(memory.count),
                force: memory.force,
            };
            let update = service::update_input(&memory.document, &live, revision.as_ref(), call);
            lines.extend(update.changes.iter().map(|change| format!("service {name}: {change}")));
        }
    }
    let text = lines.join("\n");
    Ok(planned(if text.is_empty() { text } else { format!("{text}\n") }))
}
