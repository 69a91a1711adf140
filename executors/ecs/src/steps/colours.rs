//! Tags of the two colours. They say what is known already from where requests go, for people and for other tools.

use crate::memory::Memory;
use crate::service::is_active;
use crate::session::{Session, ecs};
use crate::traffic::pair::{self, BLUE, COLOUR, GREEN};
use aws::Repeat;
use executor_api::{Level, StepError, UnitLog};
use serde_json::{Value, json};

/// Tags the service that gets the requests blue and the other one green. Services that are not there are left out.
///
/// **Errors**: `ECS-002`; those of the calls. **Repeat**: safe.
pub(crate) async fn tag<M: Memory>(
    session: &Session,
    memory: &M,
    blue: Option<&str>,
    green: Option<&str>,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let names: Vec<&str> = blue.into_iter().chain(green).collect();
    let live =
        session.services(&names).await.map_err(|fault| session.fault(fault, "look at the two services"))?;
    let mut todo: Vec<(String, Value)> = Vec::new();
    for service in live.iter().filter(|service| is_active(service)) {
        let colour = if blue == Some(pair::name(service)) { BLUE } else { GREEN };
        let arn = service.get("serviceArn").and_then(Value::as_str).unwrap_or_default();
        if pair::tag(service) != Some(colour) {
            let call = format!("tag service {} {COLOUR}={colour}", pair::name(service));
            // Setting a tag replaces its value: there is no moment without one.
            todo.push((call, json!({"resourceArn": arn, "tags": [{"key": COLOUR, "value": colour}]})));
        }
    }
    if todo.is_empty() {
        return Ok(());
    }
    let calls: Vec<&str> = todo.iter().map(|(call, _)| call.as_str()).collect();
    session.announce("tag the two services with their colours", &calls, memory).await?;
    for (call, input) in &todo {
        session
            .change(call, ecs("TagResource"), input.clone(), Repeat::Safe)
            .await
            .map_err(|fault| session.fault(fault, call))?;
        session.say(log, Level::Info, call).await?;
    }
    Ok(())
}
