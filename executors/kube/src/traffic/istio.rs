//! Istio: VirtualService, and the objects that a manifest hands over with `harness.io/managed`.

use super::{Cap, Config, Matching, Names, Place, Rule, metadata, shares};
use crate::canary::{MANAGED, STABLE, SUFFIX, TRACK};
use crate::variant::{Fault, annotated, group, kind, set};
use serde_json::{Map, Value, json};

/// What the object is called when neither a name nor a stable Service is known.
const FALLBACK: &str = "harness-traffic-routing-virtual-service";

pub(super) fn objects(
    config: &Config,
    names: &Names,
    cap: Option<&Cap>,
    place: Place<'_>,
) -> Result<Vec<Value>, Fault> {
    let name = match (&config.name, &names.stable) {
        (Some(name), _) => name.clone(),
        (None, Some(stable)) => format!("{stable}-virtual-service"),
        (None, None) => FALLBACK.to_owned(),
    };
    let hosts = match (config.hosts.is_empty(), &names.stable) {
        (false, _) => config.hosts.clone(),
        (true, Some(stable)) => vec![stable.clone()],
        (true, None) => return Err(super::fault("trafficRouting.spec.hosts", "at least one is needed here")),
    };
    let mut http = Vec::new();
    for route in &config.routes {
        let mut entry = Map::new();
        if let Some(name) = &route.name {
            entry.insert("name".into(), name.clone().into());
        }
        if !route.rules.is_empty() {
            entry.insert("match".into(), route.rules.iter().map(matches).collect());
        }
        let destinations = shares(route, names, cap)?.into_iter().map(|(host, port, weight)| match port {
            Some(port) => json!({"destination": {"host": host, "port": {"number": port}}, "weight": weight}),
            None => json!({"destination": {"host": host}, "weight": weight}),
        });
        entry.insert("route".into(), destinations.collect());
        http.push(Value::Object(entry));
    }
    let mut spec = json!({"hosts": hosts, "http": http});
    if !config.gateways.is_empty() {
        set(&mut spec, &["gateways"], config.gateways.clone().into());
    }
    Ok(vec![json!({
        "apiVersion": place.api_version, "kind": "VirtualService", "metadata": metadata(&name, place), "spec": spec,
    })])
}

fn compare(matching: Matching, value: &str) -> Value {
    match matching {
        Matching::Exact => json!({"exact": value}),
        Matching::Prefix => json!({"prefix": value}),
        Matching::Regex => json!({"regex": value}),
    }
}

fn matches(rule: &Rule) -> Value {
    match rule {
        Rule::Text { field, matching, value } => json!({*field: compare(*matching, value)}),
        Rule::Method(method) => json!({"method": {"exact": method}}),
        Rule::Port(port) => json!({"port": port}),
        Rule::Headers(headers) => {
            let all: Map<String, Value> = headers
                .iter()
                .map(|(key, matching, value)| (key.clone(), compare(*matching, value)))
                .collect();
            json!({"headers": all})
        }
    }
}

/// Gives the managed objects of a manifest their subsets and their weights: a DestinationRule one subset per track, a
/// VirtualService everything to stable and nothing to the canary. Returns how many were edited.
///
/// Only when the stable pods carry the track label: a subset without pods answers every request with an error.
pub(crate) fn manage(documents: &mut [Value]) -> usize {
    let managed = |d: &&mut Value| group(d) == "networking.istio.io" && annotated(d, MANAGED);
    let mut edited = 0;
    for document in documents.iter_mut().filter(managed) {
        match kind(document) {
            "DestinationRule" => {
                let subset = |track: &str| json!({"name": track, "labels": {TRACK: track}});
                set(document, &["spec", "subsets"], json!([subset(SUFFIX), subset(STABLE)]));
                edited += 1;
            }
            "VirtualService" => {
                let routes = document.pointer_mut("/spec/http").and_then(Value::as_array_mut);
                for entry in routes.into_iter().flatten() {
                    let host = entry.pointer("/route/0/destination").cloned();
                    let Some(host) = host.filter(Value::is_object) else { continue };
                    let to = |track: &str, weight: u32| {
                        let mut destination = host.clone();
                        set(&mut destination, &["subset"], track.into());
                        json!({"destination": destination, "weight": weight})
                    };
                    set(entry, &["route"], json!([to(STABLE, 100), to(SUFFIX, 0)]));
                }
                edited += 1;
            }
            _ => {}
        }
    }
    edited
}
