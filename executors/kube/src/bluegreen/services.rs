//! What a Service selects, and the two changes of a swap.

use super::{COLOR, Color};
use crate::variant::{Fault, reference};
use serde_json::{Value, json};

/// What a live Service selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selects {
    /// Reference of the Service.
    pub(crate) service: String,
    /// Its colour, if its selector names one.
    pub(crate) color: Option<Color>,
    /// The whole selector, for people: `app=web,harness.io/color=blue`.
    pub(crate) selector: String,
}

/// Reads a live Service.
///
/// **Errors**: its colour is neither blue nor green.
pub(crate) fn selects(service: &Value, default_namespace: &str) -> Result<Selects, Fault> {
    let labels = service.pointer("/spec/selector").and_then(Value::as_object);
    let mut pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    let selector = if pairs.is_empty() { "nothing".to_owned() } else { pairs.join(",") };
    let service_name = reference(service, default_namespace);
    let color = match labels.and_then(|labels| labels.get(COLOR)) {
        None => None,
        Some(text) => {
            let found = text.as_str().unwrap_or_default();
            let bad = || Fault::BadColour { service: service_name.clone(), found: found.to_owned() };
            Some(Color::parse(found).ok_or_else(bad)?)
        }
    };
    Ok(Selects { service: service_name, color, selector })
}

/// Which of the two Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Stage,
}

/// One request of a swap.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// Of which Service.
    pub(crate) role: Role,
    /// What it selects before.
    pub(crate) from: Color,
    /// What it selects afterwards.
    pub(crate) to: Color,
    /// A merge patch that the API server refuses when the Service changed since it was read.
    pub(crate) patch: Value,
}

/// What is left to do until `primary` selects `target` and `stage` the other colour: nothing, one or two changes, the
/// primary first. A Service that already selects its colour is left alone, so repeating the swap changes nothing and one
/// that was interrupted is completed.
///
/// **Errors**: a Service selects no colour.
pub(crate) fn changes(
    primary: &Value,
    stage: &Value,
    target: Color,
    default_namespace: &str,
) -> Result<Vec<Change>, Fault> {
    let mut changes = Vec::new();
    for (role, service, to) in [(Role::Primary, primary, target), (Role::Stage, stage, target.other())] {
        let Selects { service: service_name, color, selector } = selects(service, default_namespace)?;
        let Some(from) = color else { return Err(Fault::Colourless { service: service_name, selector }) };
        if from != to {
            let version = service.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
            let patch =
                json!({"metadata": {"resourceVersion": version}, "spec": {"selector": {COLOR: to.as_str()}}});
            changes.push(Change { role, from, to, patch });
        }
    }
    Ok(changes)
}
