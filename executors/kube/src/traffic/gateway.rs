//! Gateway API: HTTPRoute with weights on its backends.

use super::{Cap, Config, Matching, Names, Place, Rule, fault, metadata, shares};
use crate::variant::Fault;
use serde_json::{Map, Value, json};

pub(super) fn objects(
    config: &Config,
    names: &Names,
    cap: Option<&Cap>,
    place: Place<'_>,
) -> Result<Vec<Value>, Fault> {
    let root = config.root_service.as_ref().or(names.stable.as_ref());
    let name = match (&config.name, root) {
        (Some(name), _) => name.clone(),
        (None, Some(root)) => format!("{root}-route"),
        (None, None) => "harness-traffic-routing-route".to_owned(),
    };
    let parents: Vec<Value> = if config.gateways.is_empty() {
        // Inside a mesh the route belongs to the Service whose callers it concerns.
        let root =
            root.ok_or_else(|| fault("trafficRouting.spec.gateways", "a gateway or rootService is needed"))?;
        vec![json!({"group": "", "kind": "Service", "name": names.resolve(root)?})]
    } else {
        let parent = |gateway: &String| match gateway.split_once('/') {
            Some((namespace, name)) => json!({"namespace": namespace, "name": name}),
            None => json!({"name": gateway}),
        };
        config.gateways.iter().map(parent).collect()
    };
    let mut rules = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let at = format!("trafficRouting.spec.routes[{index}]");
        let mut entry = Map::new();
        if !route.rules.is_empty() {
            let all =
                route.rules.iter().enumerate().map(|(n, rule)| matches(rule, &format!("{at}.rules[{n}]")));
            entry.insert("matches".into(), all.collect::<Result<Vec<_>, _>>()?.into());
        }
        let mut backends = Vec::new();
        for (place, (host, port, weight)) in shares(route, names, cap)?.into_iter().enumerate() {
            let missing =
                || fault(format!("{at}.destinations[{place}].port"), "missing, and the Service names none");
            let port = port.or(names.port).ok_or_else(missing)?;
            backends.push(json!({"name": host, "port": port, "weight": weight}));
        }
        entry.insert("backendRefs".into(), backends.into());
        rules.push(Value::Object(entry));
    }
    let mut spec = Map::new();
    spec.insert("parentRefs".into(), parents.into());
    if !config.hosts.is_empty() {
        spec.insert("hostnames".into(), config.hosts.clone().into());
    }
    spec.insert("rules".into(), rules.into());
    Ok(vec![json!({
        "apiVersion": place.api_version, "kind": "HTTPRoute", "metadata": metadata(&name, place), "spec": spec,
    })])
}

fn matches(rule: &Rule, at: &str) -> Result<Value, Fault> {
    match rule {
        Rule::Text { field: "uri", matching, value } => {
            let kind = match matching {
                Matching::Exact => "Exact",
                Matching::Prefix => "PathPrefix",
                Matching::Regex => "RegularExpression",
            };
            Ok(json!({"path": {"type": kind, "value": value}}))
        }
        Rule::Method(method) => Ok(json!({"method": method})),
        Rule::Headers(headers) => {
            let mut all = Vec::new();
            for (name, matching, value) in headers {
                let kind = match matching {
                    Matching::Exact => "Exact",
                    Matching::Regex => "RegularExpression",
                    Matching::Prefix => {
                        return Err(fault(
                            at,
                            "the Gateway API matches headers exactly or by regex, not by prefix",
                        ));
                    }
                };
                all.push(json!({"type": kind, "name": name, "value": value}));
            }
            Ok(json!({"headers": all}))
        }
        Rule::Text { field, .. } => {
            Err(fault(at, format!("the Gateway API cannot match by {field}; use hosts")))
        }
        Rule::Port(_) => {
            Err(fault(at, "the Gateway API cannot match by port; use a listener of the gateway"))
        }
    }
}
