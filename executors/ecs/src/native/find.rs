//! Which service deployment is ours.

use super::follow::Followed;
use super::looks::{look, task_definitions};
use super::strategy;
use crate::documents::arn::short;
use crate::error::cancelled;
use crate::session::{Session, ecs};
use aws::Fault;
use aws::document::{list, text, time};
use executor_api::{Class, StepError};
use serde_json::{Value, json};

/// How many of the newest deployments are looked at.
const NEWEST: usize = 20;

/// The newest service deployment of a service, whoever made it: what is newer afterwards was made since. `None`: there is none.
///
/// **Errors**: those of the account. **Repeat**: safe.
pub(crate) async fn previous(session: &Session, service: &str) -> Result<Option<String>, StepError> {
    let all = newest(session, service).await;
    let all = all.map_err(|fault| session.fault(fault, &format!("list deployments of service {service}")))?;
    Ok(all.first().map(|brief| arn(brief).to_owned()))
}

fn arn(brief: &Value) -> &str {
    text(brief, &["serviceDeploymentArn"]).unwrap_or_default()
}

/// Newest first.
async fn newest(session: &Session, service: &str) -> Result<Vec<Value>, Fault> {
    let input = json!({"cluster": session.cluster, "service": service, "maxResults": NEWEST});
    let answer = match session.read(ecs("ListServiceDeployments"), input).await {
        Err(fault) if fault.is("ServiceNotFoundException") => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = list(&answer, &["serviceDeployments"]).to_vec();
    // AWS sorts them so already; the order decides here, so nothing is left to that.
    all.sort_by_key(|brief| std::cmp::Reverse(time(brief, &["createdAt"])));
    Ok(all)
}

/// Whether a deployment is not over.
///
/// **Errors**: those of the account. **Repeat**: safe.
pub(crate) async fn under_way(session: &Session, found: &Followed) -> Result<bool, StepError> {
    let view = look(session, &found.arn).await;
    let view = view.map_err(|fault| session.fault(fault, "look at the service deployment"))?;
    Ok(view.is_some_and(|view| !view.status.is_final()))
}

/// The newest deployment of `task_definition` that is newer than `before`; waits for it as long as a change may take to be shown
/// when it must be there.
///
/// **Errors**: `ECS-081`: it does not appear; those of the account. **Cancel**: the step ends. **Repeat**: safe.
pub(crate) async fn find(
    session: &Session,
    live: &Value,
    task_definition: &str,
    before: Option<&str>,
    must: bool,
) -> Result<Option<Followed>, StepError> {
    let name = text(live, &["serviceName"]).unwrap_or_default();
    let begun = session.cx.clock.mono();
    loop {
        match once(session, live, name, task_definition, before).await {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) if !must => return Ok(None),
            Err(Fault::Cancelled(reason)) => return Err(cancelled(reason, &left(name))),
            Err(fault) if !fault.may_pass() || !must => {
                return Err(session.fault(fault, &format!("look for the deployment of service {name}")));
            }
            Ok(None) | Err(_) => {}
        }
        if session.cx.clock.mono() >= begun + session.settings.settle {
            let what = format!(
                "service {name}: the update to {} was taken, and ECS shows no service deployment for it",
                short(task_definition)
            );
            return Err(StepError::new(Class::RemoteFailed { code: 1 }, "ECS-081", what)
                .target(session.target().to_owned())
                .hint(
                    "look at the service's deployments and events; run the step again when there is none",
                ));
        }
        session.pause(session.settings.poll, &left(name)).await?;
    }
}

/// What becomes of a deployment that nobody has found yet.
fn left(name: &str) -> String {
    format!(
        "the update of service {name} was sent; ECS deploys it by itself, to its next gate, whose timeout decides, or to its end"
    )
}

async fn once(
    session: &Session,
    live: &Value,
    name: &str,
    task_definition: &str,
    before: Option<&str>,
) -> Result<Option<Followed>, Fault> {
    let all = newest(session, name).await?;
    let since: Vec<&Value> = all.iter().take_while(|brief| Some(arn(brief)) != before).collect();
    let revision = |brief: &Value| text(brief, &["targetServiceRevisionArn"]).unwrap_or_default().to_owned();
    let mut revisions: Vec<String> = since.iter().map(|brief| revision(brief)).collect();
    revisions.retain(|arn| !arn.is_empty());
    revisions.dedup();
    if revisions.is_empty() {
        return Ok(None);
    }
    let definitions = task_definitions(session, &revisions).await?;
    let ours = |brief: &&&Value| definitions.get(&revision(brief)).is_some_and(|of| of == task_definition);
    Ok(since.iter().find(ours).map(|brief| Followed {
        service: name.to_owned(),
        arn: arn(brief).to_owned(),
        revision: revision(brief),
        task_definition: task_definition.to_owned(),
        strategy: strategy(live).to_owned(),
        previous: None,
        answered: None,
    }))
}
