//! Which kinds the server serves, and where.

use crate::error::Fault;
use crate::objects::{Gvk, Object, Reference};
use crate::rest::{Api, Ask, encode};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// The aggregated form: two requests for everything. Servers that do not know it answer in the older form.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// One kind as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) gvk: Gvk,
    /// Its name in paths: `deployments`.
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
    /// `scale`, `status`.
    pub(crate) subresources: Vec<String>,
}

impl Resource {
    /// Path of the collection, in `namespace` if the kind lies in one.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.gvk.group.is_empty() { "/api/" } else { "/apis/" };
        let version = self.gvk.api_version();
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}{version}/namespaces/{}/{}", encode(namespace), self.plural),
            None => format!("{root}{version}/{}", self.plural),
        }
    }

    /// Path of one object.
    pub(crate) fn path(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), encode(name))
    }

    /// `deployments.apps`.
    pub(crate) fn full_name(&self) -> String {
        if self.gvk.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.gvk.group)
        }
    }
}

/// Every kind that the server serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovery {
    resources: Vec<Resource>,
    by_gvk: HashMap<Gvk, usize>,
    /// Groups whose server did not answer.
    pub(crate) stale: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
    /// The older form of `/apis`.
    #[serde(default)]
    groups: Vec<Value>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<Served>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    resource: String,
    #[serde(default)]
    response_kind: Option<Kind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    subresources: Vec<Sub>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    kind: String,
}

#[derive(Deserialize)]
struct Sub {
    subresource: String,
}

impl Discovery {
    /// Asks the server.
    pub(crate) async fn load(api: &Api) -> Result<Discovery, Fault> {
        let ask = |path: &str| Ask { accept: AGGREGATED, ..Ask::get(path) };
        let (core, groups) = futures::future::try_join(api.ask(ask("/api")), api.ask(ask("/apis"))).await?;
        let (core, groups): (List, List) = (core.read()?, groups.read()?);
        let mut found = Discovery::default();
        if core.kind == "APIGroupDiscoveryList" {
            [core, groups].into_iter().flat_map(|list| list.items).for_each(|group| found.group(group));
        } else {
            found.older(api, &groups.groups).await?;
        }
        Ok(found)
    }

    fn group(&mut self, group: Group) {
        for version in group.versions {
            if version.freshness == "Stale" {
                self.stale.push(format!("{}/{}", group.metadata.name, version.version));
            }
            for served in version.resources {
                let Some(kind) = served.response_kind else { continue };
                // An empty group or version of the kind means that of the list.
                let pick = |own: String, outer: &str| if own.is_empty() { outer.to_owned() } else { own };
                let gvk = Gvk {
                    group: pick(kind.group, &group.metadata.name),
                    version: pick(kind.version, &version.version),
                    kind: kind.kind,
                };
                self.add(Resource {
                    gvk,
                    plural: served.resource,
                    namespaced: served.scope == "Namespaced",
                    verbs: served.verbs,
                    subresources: served.subresources.into_iter().map(|sub| sub.subresource).collect(),
                });
            }
        }
    }

    fn add(&mut self, resource: Resource) {
        self.by_gvk.entry(resource.gvk.clone()).or_insert(self.resources.len());
        self.resources.push(resource);
    }

    /// One request for each group and version, for servers before 1.30.
    async fn older(&mut self, api: &Api, groups: &[Value]) -> Result<(), Fault> {
        let mut versions = vec!["v1".to_owned()];
        for group in groups {
            let listed = group.get("versions").and_then(Value::as_array).into_iter().flatten();
            versions.extend(listed.filter_map(|v| v.get("groupVersion")?.as_str().map(str::to_owned)));
        }
        for version in versions {
            let path =
                if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
            let list: Value = match api.get(&path).await {
                Ok(list) => list,
                Err(fault) if fault.code() == Some(503) => {
                    self.stale.push(version);
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            let listed = list.get("resources").and_then(Value::as_array).into_iter().flatten();
            for served in listed {
                let text = |key: &str| served.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let name = text("name");
                if let Some((plural, sub)) = name.split_once('/') {
                    if let Some(of) = self.resources.iter_mut().rev().find(|r| r.plural == plural) {
                        of.subresources.push(sub.to_owned());
                    }
                    continue;
                }
                let verbs = served.get("verbs").and_then(Value::as_array).into_iter().flatten();
                self.add(Resource {
                    gvk: Gvk::new(&version, &text("kind")),
                    plural: name,
                    namespaced: served.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
                    verbs: verbs.filter_map(|verb| verb.as_str().map(str::to_owned)).collect(),
                    subresources: Vec::new(),
                });
            }
        }
        Ok(())
    }

    /// How an object's kind is served.
    pub(crate) fn of(&self, object: &Object) -> Option<&Resource> {
        self.of_gvk(&object.gvk())
    }

    /// How a kind is served.
    pub(crate) fn of_gvk(&self, gvk: &Gvk) -> Option<&Resource> {
        self.by_gvk.get(gvk).and_then(|at| self.resources.get(*at))
    }

    /// How the kind of a reference is served, in the version that the server prefers.
    pub(crate) fn of_reference(&self, reference: &Reference) -> Option<&Resource> {
        self.resources.iter().find(|r| r.gvk.kind == reference.kind && r.gvk.group == reference.group)
    }

    /// The resource that a bare kind name means: that of the core group, else of the first group of Kubernetes itself,
    /// else of any group. Case does not matter, nor whether it is written in the plural.
    pub(crate) fn of_kind(&self, kind: &str) -> Option<&Resource> {
        let (kind, group) = match kind.split_once('.') {
            Some((kind, group)) => (kind, Some(group)),
            None => (kind, None),
        };
        let fits = |r: &&Resource| {
            (r.gvk.kind.eq_ignore_ascii_case(kind) || r.plural.eq_ignore_ascii_case(kind))
                && group.is_none_or(|group| r.gvk.group == group)
        };
        let ours = |group: &str| group.is_empty() || !group.contains('.') || group.ends_with(".k8s.io");
        let mut found: Vec<&Resource> = self.resources.iter().filter(fits).collect();
        found.sort_by_key(|r| (!r.gvk.group.is_empty(), !ours(&r.gvk.group)));
        found.first().copied()
    }

    /// Served versions of a group's kind, for messages.
    pub(crate) fn versions_of(&self, group: &str, kind: &str) -> Vec<String> {
        let fits = self.resources.iter().filter(|r| r.gvk.kind == kind && r.gvk.group == group);
        fits.map(|r| r.gvk.api_version()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_found_by_version_and_by_bare_name() {
        let list: List = serde_json::from_value(json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [
                {"resource": "services", "responseKind": {"group": "", "version": "", "kind": "Service"},
                 "scope": "Namespaced", "verbs": ["get"], "subresources": [{"subresource": "status"}]},
                {"resource": "namespaces", "responseKind": {"group": "", "version": "v1", "kind": "Namespace"},
                 "scope": "Cluster"}]}]},
            {"metadata": {"name": "serving.knative.dev"}, "versions": [{"version": "v1", "resources": [
                {"resource": "services", "responseKind": {"group": "serving.knative.dev", "version": "v1",
                 "kind": "Service"}, "scope": "Namespaced"}]}, {"version": "v0", "freshness": "Stale"}]}]}))
        .unwrap();
        let mut discovery = Discovery::default();
        list.items.into_iter().for_each(|group| discovery.group(group));
        let service = discovery.of_kind("service").unwrap();
        assert_eq!(service.path(Some("n"), "a"), "/api/v1/namespaces/n/services/a");
        assert_eq!(service.subresources, ["status"]);
        let knative = discovery.of_kind("services.serving.knative.dev").unwrap();
        assert_eq!(knative.collection(Some("n")), "/apis/serving.knative.dev/v1/namespaces/n/services");
        assert_eq!(discovery.of_kind("Namespace").unwrap().path(Some("n"), "a"), "/api/v1/namespaces/a");
        assert_eq!(discovery.stale, ["serving.knative.dev/v0"]);
        assert!(discovery.of_kind("Nothing").is_none());
    }
}
