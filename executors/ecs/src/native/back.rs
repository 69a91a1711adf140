//! A native deployment that is still under way is rolled back by ECS itself: it knows the weights and the tasks.

use super::follow::{Following, Way, answer, follow, lost, refused};
use super::judge::Pause;
use super::looks::look;
use super::view::{Status, View};
use crate::session::{Session, ecs};
use aws::Repeat;
use executor_api::{Level, StepError, UnitLog};
use serde_json::json;

/// What became of a deployment that is to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undoing {
    /// ECS has brought back what ran before.
    Back,
    /// It is over otherwise: what ran before is to be deployed again.
    Over,
}

/// Ends the service deployment of `memory` by a rollback, if it is not over.
///
/// **Errors**: `ECS-083`: ECS' rollback failed; `ECS-087`: ECS does not take the order; those of [`follow`]. **Repeat**: safe: what is
/// on its way back is only waited for.
pub(crate) async fn undo<M: Following>(
    session: &Session,
    memory: &mut M,
    log: &dyn UnitLog,
) -> Result<Undoing, StepError> {
    let Some(followed) = memory.followed().cloned() else { return Ok(Undoing::Over) };
    let view = look(session, &followed.arn).await;
    let view = view.map_err(|fault| session.fault(fault, "look at the service deployment"))?;
    let Some(view) = view else { return Ok(Undoing::Over) };
    match view.status {
        Status::Successful | Status::Stopped => return Ok(Undoing::Over),
        Status::RollbackSuccessful => {
            session.say(log, Level::Info, "ECS has rolled the deployment back already").await?;
            return Ok(Undoing::Back);
        }
        _ if view.status.goes_on() => order(session, memory, &view, log).await?,
        _ => {}
    }
    let arrival = follow(session, memory, Way::Back, log).await;
    match arrival {
        Ok(arrival) if arrival.succeeded => Ok(Undoing::Over),
        Ok(_) => Ok(Undoing::Back),
        // Stopped without a rollback meanwhile.
        Err(error) if error.code == "ECS-084" => Ok(Undoing::Over),
        Err(error) => Err(error),
    }
}

async fn order<M: Following>(
    session: &Session,
    memory: &mut M,
    view: &View,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if let Some(pause) = Pause::of(view) {
        return answer(session, memory, &pause, "ROLLBACK", log).await;
    }
    let followed = memory.followed().cloned().ok_or_else(lost)?;
    let (arn, name) = (followed.arn, followed.service);
    let text = format!(
        "the deployment of service {name} is under way ({}): ECS is told to roll it back",
        view.in_words()
    );
    session.say(log, Level::Info, &text).await?;
    let call = format!("StopServiceDeployment {name}");
    session.announce(format!("roll the deployment of service {name} back"), &[&call], memory).await?;
    let input = json!({"serviceDeploymentArn": arn, "stopType": "ROLLBACK"});
    match session.change(&call, ecs("StopServiceDeployment"), input, Repeat::Safe).await {
        Ok(_) => Ok(()),
        Err(fault) => {
            // It may have ended, or come to a gate, just now.
            match look(session, &arn).await.ok().flatten() {
                Some(now) if !now.status.goes_on() => Ok(()),
                Some(now) => match Pause::of(&now) {
                    Some(pause) => answer(session, memory, &pause, "ROLLBACK", log).await,
                    None => Err(refused(session, fault, &name, "stop its deployment")),
                },
                None => Err(refused(session, fault, &name, "stop its deployment")),
            }
        }
    }
}
