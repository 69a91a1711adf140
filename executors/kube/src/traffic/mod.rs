//! Routes with weights: Gateway API HTTPRoute, Istio VirtualService, SMI TrafficSplit (facts `k8s-steps.md` §10.13).
//!
//! Pure: configuration and names in, plain manifests out. No mesh is talked to; its controller reads the objects.

mod config;
mod gateway;
mod istio;
mod smi;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use config::{Config, Matching, Provider, Route, Routing, Rule, parse};
pub(crate) use istio::manage;
pub(crate) use weights::{Cap, patched, reweight, withdraw};

use crate::variant::{Fault, RELEASE_LABEL};
use serde_json::{Value, json};

/// Real names behind the placeholders, and what is known of the Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Service behind `stable`.
    pub(crate) stable: Option<String>,
    /// Service behind `stage`.
    pub(crate) stage: Option<String>,
    /// Service behind `canary`.
    pub(crate) canary: Option<String>,
    /// First port of the stable Service, for destinations that name none.
    pub(crate) port: Option<u16>,
}

impl Names {
    /// The Service that `host` means.
    ///
    /// **Errors**: a placeholder of which nothing is known here.
    pub(crate) fn resolve(&self, host: &str) -> Result<String, Fault> {
        let known = match host {
            "stable" => &self.stable,
            "stage" => &self.stage,
            "canary" => &self.canary,
            _ => return Ok(host.to_owned()),
        };
        known.clone().ok_or_else(|| {
            Fault::Unroutable(format!("destination `{host}`: this step knows no Service of that role"))
        })
    }
}

/// Where the objects go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Name of the release.
    pub(crate) release: &'a str,
    /// Namespace of the objects.
    pub(crate) namespace: &'a str,
    /// Version of the route's API that the cluster serves: `networking.istio.io/v1`.
    pub(crate) api_version: &'a str,
    /// Version of `specs.smi-spec.io` that the cluster serves, for rules of SMI.
    pub(crate) rules_version: Option<&'a str>,
}

/// The objects that a new configuration asks for, the one with the weights first.
///
/// **Errors**: a rule that the provider cannot express, a placeholder or a port that is not known.
pub(crate) fn objects(
    config: &Config,
    names: &Names,
    cap: Option<&Cap>,
    place: Place<'_>,
) -> Result<Vec<Value>, Fault> {
    match config.provider {
        Provider::Gateway => gateway::objects(config, names, cap, place),
        Provider::Istio => istio::objects(config, names, cap, place),
        Provider::Smi => smi::objects(config, names, cap, place),
    }
}

/// Metadata of every object that routing makes. A later release whose manifest does not name the route must not prune
/// it: requests would find no way.
fn metadata(name: &str, place: Place<'_>) -> Value {
    json!({"name": name, "namespace": place.namespace, "labels": {RELEASE_LABEL: place.release},
        "annotations": {SKIP_PRUNING: "true"}})
}

/// Objects with this annotation are never pruned.
pub(crate) const SKIP_PRUNING: &str = "harness.io/skipPruning";

/// Destinations of a route with real names and weights that make 100, none above its cap.
fn shares(route: &Route, names: &Names, cap: Option<&Cap>) -> Result<Vec<(String, Option<u16>, u32)>, Fault> {
    let hosts: Vec<String> =
        route.destinations.iter().map(|d| names.resolve(&d.host)).collect::<Result<_, _>>()?;
    let asked: Vec<(&str, u32)> =
        hosts.iter().map(String::as_str).zip(route.destinations.iter().map(|d| d.weight)).collect();
    let weights = weights::shares(&asked, cap);
    Ok(hosts.into_iter().zip(&route.destinations).zip(weights).map(|((h, d), w)| (h, d.port, w)).collect())
}

fn fault(field: impl Into<String>, problem: impl Into<String>) -> Fault {
    Fault::Routing { field: field.into(), problem: problem.into() }
}
