//! Where what was deployed is reached from outside: the addresses of Services of type LoadBalancer.

use crate::objects::Object;
use crate::session::Session;
use executor_api::{Class, Level, StepError, UnitLog};
use serde_json::{Value, json};

/// Outcome `loadBalancer`: the addresses that load balancers have told by now, in the order of their Services; `None` when
/// there are none. Nothing is waited for: an address may come later, or never.
pub(crate) async fn told<'a>(
    session: &Session,
    objects: impl Iterator<Item = &'a Object>,
    log: &dyn UnitLog,
) -> Result<Option<Value>, StepError> {
    let of_type = |object: &&Object| {
        let kind = object.at("/spec/type").and_then(Value::as_str);
        object.group().is_empty() && object.kind() == "Service" && kind == Some("LoadBalancer")
    };
    let mut all = Vec::new();
    for service in objects.filter(of_type) {
        let namespace = service.namespace().unwrap_or(&session.namespace);
        let live = match session.service(namespace, service.name()).await {
            Ok(Some(live)) => live,
            Ok(None) => continue,
            // It is for information; the account may apply Services without the right to read them.
            Err(error) if error.class == Class::Authorization => continue,
            Err(error) => return Err(error),
        };
        let entries = live.object.at("/status/loadBalancer/ingress").and_then(Value::as_array);
        let entries = entries.into_iter().flatten();
        let addresses: Vec<&str> =
            entries.filter_map(|entry| entry.get("hostname").or_else(|| entry.get("ip"))?.as_str()).collect();
        let text = match addresses.as_slice() {
            [] => format!("{}: its load balancer has no address yet", service.reference()),
            some => format!("{} is reached at {}", service.reference(), some.join(", ")),
        };
        session.say(log, Level::Info, &text).await?;
        all.extend(addresses.into_iter().map(str::to_owned));
    }
    Ok((!all.is_empty()).then(|| json!(all)))
}
