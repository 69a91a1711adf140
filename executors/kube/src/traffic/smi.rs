//! Service Mesh Interface: TrafficSplit, and HTTPRouteGroup for rules.

use super::{Cap, Config, Matching, Names, Place, Rule, fault, metadata, shares};
use crate::variant::{Fault, set};
use serde_json::{Value, json};

pub(super) fn objects(
    config: &Config,
    names: &Names,
    cap: Option<&Cap>,
    place: Place<'_>,
) -> Result<Vec<Value>, Fault> {
    let root = match (&config.root_service, &names.stable) {
        (Some(root), _) => names.resolve(root)?,
        (None, Some(stable)) => stable.clone(),
        (None, None) => return Err(fault("trafficRouting.spec.rootService", "missing")),
    };
    let base = config.name.clone().unwrap_or_else(|| format!("{root}-traffic-split"));
    let mut splits = Vec::new();
    let mut groups = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let at = format!("trafficRouting.spec.routes[{index}]");
        // A split has one list of backends, so every further route is a split of its own.
        let name = if index == 0 { base.clone() } else { format!("{base}-{}", index + 1) };
        let backends: Vec<Value> = shares(route, names, cap)?
            .into_iter()
            .map(|(service, _, weight)| json!({"service": service, "weight": weight}))
            .collect();
        let mut split = json!({
            "apiVersion": place.api_version, "kind": "TrafficSplit", "metadata": metadata(&name, place),
            "spec": {"service": root, "backends": backends},
        });
        if !route.rules.is_empty() {
            let version = place.rules_version.ok_or_else(|| {
                Fault::Unroutable(
                    "the cluster serves no HTTPRouteGroup (specs.smi-spec.io), which rules need".into(),
                )
            })?;
            if place.api_version.ends_with("/v1alpha1") || place.api_version.ends_with("/v1alpha2") {
                let text =
                    format!("{} of the cluster has no rules; v1alpha3 or newer has", place.api_version);
                return Err(Fault::Unroutable(text));
            }
            let group = route.name.clone().unwrap_or_else(|| format!("{name}-routes"));
            let matches = route
                .rules
                .iter()
                .enumerate()
                .map(|(n, rule)| matches(rule, n, &format!("{at}.rules[{n}]")))
                .collect::<Result<Vec<_>, _>>()?;
            set(&mut split, &["spec", "matches"], json!([{"kind": "HTTPRouteGroup", "name": group}]));
            groups.push(json!({
                "apiVersion": version, "kind": "HTTPRouteGroup", "metadata": metadata(&group, place),
                "spec": {"matches": matches},
            }));
        }
        splits.push(split);
    }
    splits.extend(groups);
    Ok(splits)
}

/// SMI compares by regular expressions only.
fn expression(matching: Matching, value: &str) -> String {
    let mut quoted = String::with_capacity(value.len());
    for letter in value.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    match matching {
        Matching::Exact => format!("^{quoted}$"),
        Matching::Prefix => format!("^{quoted}.*"),
        Matching::Regex => value.to_owned(),
    }
}

fn matches(rule: &Rule, number: usize, at: &str) -> Result<Value, Fault> {
    let name = format!("rule-{}", number + 1);
    match rule {
        Rule::Text { field: "uri", matching, value } => {
            Ok(json!({"name": name, "pathRegex": expression(*matching, value), "methods": ["*"]}))
        }
        Rule::Method(method) => Ok(json!({"name": name, "pathRegex": ".*", "methods": [method]})),
        Rule::Headers(headers) => {
            // A list with one header in each item, as the definitions of SMI want it.
            let all: Vec<Value> = headers
                .iter()
                .map(|(key, matching, value)| json!({key: expression(*matching, value)}))
                .collect();
            Ok(json!({"name": name, "headers": all}))
        }
        Rule::Text { field, .. } => Err(fault(at, format!("SMI cannot match by {field}"))),
        Rule::Port(_) => Err(fault(at, "SMI cannot match by port")),
    }
}
