//! Whether the account may do what the step will do, asked before anything changes.

use crate::discovery::Resource;
use crate::error::Fault;
use crate::rest::Ask;
use crate::session::Session;
use bytes::Bytes;
use executor_api::{Class, StepError};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One right that a step needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    /// API group.
    pub(crate) group: String,
    /// Resource in the plural.
    pub(crate) resource: String,
    /// `None` for the whole cluster.
    pub(crate) namespace: Option<String>,
    /// Verb.
    pub(crate) verb: &'static str,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rules {
    incomplete: bool,
    resource_rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Rule {
    fn grants(&self, need: &Need) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|found| found == "*" || found == wanted);
        // A rule for single names cannot be judged here: the names of a set are not asked for one by one.
        self.resource_names.is_empty()
            && has(&self.verbs, need.verb)
            && has(&self.api_groups, &need.group)
            && has(&self.resources, &need.resource)
    }
}

/// Asks for all rights: one request for each namespace, and one for each right that is not granted by a rule of it.
///
/// **Errors**: `KUBE-025` lists every verb that is missing, with its resource and namespace.
pub(crate) async fn check_rights(session: &Session, needs: BTreeSet<Need>) -> Result<(), StepError> {
    let mut by_namespace: BTreeMap<String, Vec<Need>> = BTreeMap::new();
    for need in needs {
        let at = need.namespace.clone().unwrap_or_else(|| session.namespace.clone());
        by_namespace.entry(at).or_default().push(need);
    }
    let mut missing = Vec::new();
    for (namespace, needs) in by_namespace {
        let rules = rules(session, &namespace)
            .await
            .map_err(|f| f.step("ask for its rights", &session.api.target))?;
        for need in needs {
            // Rules of a namespace hold rules of the whole cluster too, but also those that hold only there.
            let known =
                need.namespace.is_some() && rules.resource_rules.iter().any(|rule| rule.grants(&need));
            let everything = rules.resource_rules.iter().any(|rule| {
                let all = |list: &[String]| list.iter().any(|found| found == "*");
                all(&rule.verbs) && all(&rule.api_groups) && all(&rule.resources)
            });
            if known || (everything && !rules.incomplete && need.namespace.is_some()) {
                continue;
            }
            let resource = (need.group.as_str(), need.resource.as_str());
            if !allowed(session, resource, need.namespace.as_deref(), need.verb).await.unwrap_or(true) {
                missing.push(need);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!(
        "the account of the connector lacks rights; nothing was changed. Missing: {}",
        grouped(missing)
    );
    Err(StepError::new(Class::Authorization, "KUBE-025", text)
        .target(session.api.target.clone())
        .hint("add these rules to a Role (or ClusterRole) that is bound to the account of the connector"))
}

/// Missing rights with the verbs of one resource together: `create, patch deployments.apps in shop`.
fn grouped(missing: Vec<Need>) -> String {
    let mut by_resource: BTreeMap<(Option<String>, String, String), Vec<&str>> = BTreeMap::new();
    for need in &missing {
        let key = (need.namespace.clone(), need.resource.clone(), need.group.clone());
        by_resource.entry(key).or_default().push(need.verb);
    }
    let mut texts = Vec::new();
    for ((namespace, resource, group), verbs) in by_resource {
        let dot = if group.is_empty() { "" } else { "." };
        let place = namespace.map_or_else(|| "in the whole cluster".to_owned(), |n| format!("in {n}"));
        texts.push(format!("{} {resource}{dot}{group} {place}", verbs.join(", ")));
    }
    texts.join("; ")
}

async fn rules(session: &Session, namespace: &str) -> Result<Rules, Fault> {
    #[derive(Deserialize)]
    struct Review {
        #[serde(default)]
        status: Rules,
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace}});
    let review: Review = ask(session, "selfsubjectrulesreviews", &review).await?;
    Ok(review.status)
}

async fn allowed(
    session: &Session,
    (group, resource): (&str, &str),
    namespace: Option<&str>,
    verb: &str,
) -> Result<bool, Fault> {
    let attributes =
        json!({"group": group, "resource": resource, "verb": verb, "namespace": namespace.unwrap_or("")});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes}});
    let review: Value = ask(session, "selfsubjectaccessreviews", &review).await?;
    Ok(review.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false))
}

/// Whether the account has one right. An authorizer that does not answer counts as yes: the server decides anyway.
pub(crate) async fn is_allowed(
    session: &Session,
    resource: &Resource,
    namespace: Option<&str>,
    verb: &str,
) -> bool {
    let namespace = namespace.filter(|_| resource.namespaced);
    allowed(session, (&resource.gvk.group, &resource.plural), namespace, verb).await.unwrap_or(true)
}

/// Sends a review. It stores nothing, so it needs no checkpoint.
async fn ask<T: serde::de::DeserializeOwned>(
    session: &Session,
    plural: &str,
    review: &Value,
) -> Result<T, Fault> {
    let path = format!("/apis/authorization.k8s.io/v1/{plural}");
    let body = Bytes::from(serde_json::to_vec(review).unwrap_or_default());
    session.api.ask(Ask::with(Method::POST, path, "application/json", body).repeatable()).await?.read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_verbs_of_one_resource_stand_together() {
        let need = |namespace: Option<&str>, resource: &str, group: &str, verb| Need {
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.map(Into::into),
            verb,
        };
        let text = grouped(vec![
            need(Some("shop"), "deployments", "apps", "create"),
            need(Some("shop"), "deployments", "apps", "patch"),
            need(None, "namespaces", "", "patch"),
        ]);
        assert_eq!(text, "patch namespaces in the whole cluster; create, patch deployments.apps in shop");
    }

    #[test]
    fn a_rule_grants_by_group_resource_and_verb() {
        let rule = |groups: &str, resources: &str, verbs: &str| Rule {
            verbs: vec![verbs.into()],
            api_groups: vec![groups.into()],
            resources: vec![resources.into()],
            resource_names: vec![],
        };
        let need =
            Need { group: "apps".into(), resource: "deployments".into(), namespace: None, verb: "patch" };
        assert!(rule("*", "deployments", "*").grants(&need));
        assert!(!rule("", "deployments", "*").grants(&need));
        assert!(!rule("apps", "deployments/scale", "patch").grants(&need));
    }
}
