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

/// Where a kind of route keeps its rules, and where a rule keeps its destinations; `None`: the rules are destinations.
fn shape(route: &Value) -> Option<(&'static str, Option<&'static str>)> {
    match kind(route) {
        "VirtualService" => Some(("http", Some("route"))),
        "HTTPRoute" => Some(("rules", Some("backendRefs"))),
        "TrafficSplit" => Some(("backends", None)),
        _ => None,
    }
}

/// The Service that a destination names.
fn host(destination: &Value) -> &str {
    let found = ["/destination/host", "/service", "/name"]
        .iter()
        .find_map(|path| destination.pointer(path)?.as_str());
    found.unwrap_or_default()
}

/// The patch that sets the rules of a live route, and refuses when the route changed since it was read.
fn guarded(live: &Value, list: &str, rules: Value) -> Value {
    let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    json!({"metadata": {"resourceVersion": version}, "spec": {list: rules}})
}

/// A route as it is after a patch of this module.
pub(crate) fn patched(live: &Value, patch: &Value) -> Value {
    let mut after = live.clone();
    for (key, rules) in patch.get("spec").and_then(Value::as_object).into_iter().flatten() {
        crate::variant::set(&mut after, &["spec", key], rules.clone());
    }
    after
}

/// A patch that takes every destination of these Services out of a live route; what is left of a rule makes 100 again,
/// and a rule that had no other destination goes. `None`: no rule names them, or no rule would be left.
pub(crate) fn withdraw(live: &Value, services: &[String]) -> Option<Value> {
    let (list, inner) = shape(live)?;
    let before = live.pointer(&format!("/spec/{list}"))?.as_array()?;
    let gone = |destination: &Value| services.iter().any(|service| is_service(host(destination), service));
    let without = |destinations: &[Value]| -> Vec<Value> {
        let mut left: Vec<Value> = destinations.iter().filter(|d| !gone(d)).cloned().collect();
        if left.len() < destinations.len() {
            let weight =
                |d: &Value| d.get("weight").and_then(Value::as_u64).and_then(|w| u32::try_from(w).ok());
            let hosts: Vec<String> = left.iter().map(|d| host(d).to_owned()).collect();
            let asked: Vec<(&str, u32)> =
                hosts.iter().zip(&left).map(|(host, d)| (host.as_str(), weight(d).unwrap_or(0))).collect();
            let shares = shares(&asked, None);
            for (destination, share) in left.iter_mut().zip(shares) {
                crate::variant::set(destination, &["weight"], share.into());
            }
        }
        left
    };
    let after: Vec<Value> = match inner {
        None => without(before),
        Some(inner) => before
            .iter()
            .filter_map(|rule| {
                let Some(destinations) = rule.get(inner).and_then(Value::as_array) else {
                    return Some(rule.clone());
                };
                let left = without(destinations);
                let mut rule = rule.clone();
                (!left.is_empty() || destinations.is_empty()).then(|| {
                    crate::variant::set(&mut rule, &[inner], left.into());
                    rule
                })
            })
            .collect(),
    };
    (after != *before && !after.is_empty()).then(|| guarded(live, list, after.into()))
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
    let Some((list, inner)) = shape(live) else {
        return Err(Fault::Unroutable(format!("{} has no weights that can be set", kind(live))));
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
    Ok((Some(guarded(live, list, after)), missing))
}

/// Sets the weights of one list of destinations in which a wanted host stands.
fn set_weights(
    destinations: &mut Value,
    wanted: &BTreeMap<String, u32>,
    cap: Option<&Cap>,
    seen: &mut Vec<String>,
) {
    let Some(list) = destinations.as_array_mut() else { return };
    let hosts: Vec<String> = list.iter().map(|d| host(d).to_owned()).collect();
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
                None => {
                    touched |= cap.is_some_and(|cap| is_service(host, &cap.service));
                    (host.as_str(), now.unwrap_or(0))
                }
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
