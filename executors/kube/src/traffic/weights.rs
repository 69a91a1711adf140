//! Weights: they make 100, and no copy gets more than it can carry.

use crate::variant::{Fault, kind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What one Service may get at most, in percent: the share of its pods among all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cap {
    /// Name of the Service.
    pub(crate) service: String,
    /// Percent of the traffic of a route.
    pub(crate) percent: u32,
}

/// Weights that make 100, in proportion to those asked for. All zero means equal shares. What rounding leaves over, and
/// what `cap` takes away, goes to the first destination that is not capped.
///
/// With only the capped destination in the route there is nobody to give it to, and it gets everything.
pub(crate) fn shares(asked: &[(&str, u32)], cap: Option<&Cap>) -> Vec<u32> {
    let sum: u64 = asked.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let count = u64::try_from(asked.len()).unwrap_or(u64::MAX).max(1);
    let share = |weight: u32| match sum {
        0 => 100 / count,
        _ => u64::from(weight) * 100 / sum,
    };
    let mut shares: Vec<u32> =
        asked.iter().map(|(_, weight)| u32::try_from(share(*weight)).unwrap_or(100)).collect();
    let capped = |host: &str| cap.is_some_and(|cap| is_service(host, &cap.service));
    let taker = asked.iter().position(|(host, _)| !capped(host));
    if let (Some(cap), true) = (cap, taker.is_some()) {
        for ((host, _), share) in asked.iter().zip(&mut shares) {
            if capped(host) {
                *share = (*share).min(cap.percent);
            }
        }
    }
    let given: u32 = shares.iter().sum();
    if let Some(share) = shares.get_mut(taker.unwrap_or(0)) {
        *share += 100u32.saturating_sub(given);
    }
    shares
}

/// Whether a host names this Service, in short or with its namespace and domain.
fn is_service(host: &str, service: &str) -> bool {
    host.split('.').next() == Some(service)
}

/// A merge patch that gives destinations of a live route other weights, and refuses when the route changed since it was
/// read; with it the hosts of `wanted` that no route has. `None`: the weights are those already.
///
/// **Errors**: the object is no route that we know.
pub(crate) fn reweight(
    live: &Value,
    wanted: &BTreeMap<String, u32>,
    cap: Option<&Cap>,
) -> Result<(Option<Value>, Vec<String>), Fault> {
    let (list, inner) = match kind(live) {
        "VirtualService" => ("http", Some("route")),
        "HTTPRoute" => ("rules", Some("backendRefs")),
        "TrafficSplit" => ("backends", None),
        other => return Err(Fault::Unroutable(format!("{other} has no weights that can be set"))),
    };
    let path = format!("/spec/{list}");
    let before = live.pointer(&path).cloned().unwrap_or_default();
    let mut after = before.clone();
    let mut seen = Vec::new();
    match inner {
        None => set_weights(&mut after, wanted, cap, &mut seen),
        Some(inner) => {
            for rule in after.as_array_mut().into_iter().flatten() {
                if let Some(destinations) = rule.get_mut(inner) {
                    set_weights(destinations, wanted, cap, &mut seen);
                }
            }
        }
    }
    let missing = wanted.keys().filter(|host| !seen.contains(host)).cloned().collect();
    if before == after {
        return Ok((None, missing));
    }
    let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    Ok((Some(json!({"metadata": {"resourceVersion": version}, "spec": {list: after}})), missing))
}

/// Sets the weights of one list of destinations in which a wanted host stands.
fn set_weights(
    destinations: &mut Value,
    wanted: &BTreeMap<String, u32>,
    cap: Option<&Cap>,
    seen: &mut Vec<String>,
) {
    let Some(list) = destinations.as_array_mut() else { return };
    let host = |destination: &Value| -> String {
        let found = ["/destination/host", "/service", "/name"]
            .iter()
            .find_map(|path| destination.pointer(path)?.as_str());
        found.unwrap_or_default().to_owned()
    };
    let hosts: Vec<String> = list.iter().map(host).collect();
    let mut touched = false;
    let asked: Vec<(&str, u32)> = hosts
        .iter()
        .zip(list.iter())
        .map(|(host, destination)| {
            let now = destination.get("weight").and_then(Value::as_u64).and_then(|w| u32::try_from(w).ok());
            match wanted.iter().find(|(service, _)| is_service(host, service)) {
                Some((service, weight)) => {
                    touched = true;
                    seen.push(service.clone());
                    (host.as_str(), *weight)
                }
                None => (host.as_str(), now.unwrap_or(0)),
            }
        })
        .collect();
    if !touched {
        return;
    }
    for (destination, weight) in list.iter_mut().zip(shares(&asked, cap)) {
        if let Some(destination) = destination.as_object_mut() {
            destination.insert("weight".into(), weight.into());
        }
    }
}
