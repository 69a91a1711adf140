//! Which policies are asked, and what their answers mean together.

use super::{EvaluationError, Evaluator, Limits};
use pipeline::entities::{Catalog, CatalogEntity, EntityKind, seen_from};
use pipeline::fault::{Findings, Mode};
use pipeline::model::policy::{self, SetAction, Severity, Subject};
use pipeline::yaml::{Node, parse_documents};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::time::Instant;

/// A set with everything that is needed to ask it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// What outputs call it: its identifier, or the whole reference where two sets have the same one.
    pub set: String,
    /// Policies in order; none when the set is switched off.
    pub policies: Vec<AskedPolicy>,
}

/// A policy of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedPolicy {
    /// Identifier.
    pub policy: String,
    /// What a violation means.
    pub severity: Severity,
    /// The Rego text.
    pub rego: String,
}

/// Why sets cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No set of this exact identifier is visible.
    #[error("the policy set `{set}` does not exist; {}", known_are(known))]
    UnknownSet {
        /// As written.
        set: String,
        /// Sets that are visible.
        known: Vec<String>,
    },
    /// A set names a policy that is not there.
    #[error("the policy `{policy}` of the set `{set}` does not exist; {}", known_are(known))]
    UnknownPolicy {
        /// The set.
        set: String,
        /// As written in it.
        policy: String,
        /// Policies that are visible.
        known: Vec<String>,
    },
    /// A stored document cannot be read.
    #[error("the {kind} `{id}` cannot be read: {message}")]
    Unreadable {
        /// `policy` or `policySet`.
        kind: &'static str,
        /// Which.
        id: String,
        /// The first fault.
        message: String,
    },
}

fn known_are(known: &[String]) -> String {
    match known {
        [] => "there is none".to_owned(),
        known => format!("known are {}", known.join(", ")),
    }
}

/// The sets of these references, seen from the scope of a pipeline.
///
/// **Shape**: `account.X` and `org.X` name the scope, a bare `X` is looked up in the pipeline's own and then among those
/// without scope. Only the exact identifier counts: a gate is never guessed.
pub fn select(catalog: &dyn Catalog, scope: &str, references: &[String]) -> Result<Vec<Asked>, SelectError> {
    let mut asked: Vec<Asked> = Vec::with_capacity(references.len());
    for reference in references {
        let entity = exact(catalog, EntityKind::PolicySet, reference, scope).ok_or_else(|| {
            SelectError::UnknownSet {
                set: reference.clone(),
                known: visible(catalog, EntityKind::PolicySet, scope),
            }
        })?;
        let mut one = members(catalog, entity)?;
        if asked.iter().any(|other| other.set == one.set) {
            one.set.clone_from(reference);
        }
        asked.push(one);
    }
    Ok(asked)
}

/// The sets that judge every pipeline of a scope at an occasion.
pub fn select_for(catalog: &dyn Catalog, scope: &str, action: SetAction) -> Result<Vec<Asked>, SelectError> {
    let mut asked = Vec::new();
    for entity in catalog.entities(EntityKind::PolicySet) {
        if !scopes(scope).contains(&entity.scope.as_str()) {
            continue;
        }
        let set = read_set(entity)?;
        if set.subject == Subject::Pipeline && set.action == action && set.enabled {
            asked.push(members(catalog, entity)?);
        }
    }
    Ok(asked)
}

/// Scopes that are visible from one: none, its organisation, itself.
fn scopes(scope: &str) -> Vec<&str> {
    let org = scope.split('/').next().unwrap_or_default();
    vec!["", org, scope]
}

fn exact<'a>(
    catalog: &'a dyn Catalog,
    kind: EntityKind,
    reference: &str,
    scope: &str,
) -> Option<&'a CatalogEntity> {
    let (id, in_scopes) = seen_from(reference, scope);
    let all = catalog.entities(kind);
    in_scopes
        .into_iter()
        .rev()
        .find_map(|scope| all.iter().copied().find(|entity| entity.id == id && entity.scope == scope))
}

fn visible(catalog: &dyn Catalog, kind: EntityKind, scope: &str) -> Vec<String> {
    let mut known: Vec<String> = catalog
        .entities(kind)
        .into_iter()
        .filter(|entity| scopes(scope).contains(&entity.scope.as_str()))
        .map(|entity| entity.id.clone())
        .collect();
    known.sort();
    known.dedup();
    known.truncate(20);
    known
}

fn members(catalog: &dyn Catalog, entity: &CatalogEntity) -> Result<Asked, SelectError> {
    let set = read_set(entity)?;
    let mut policies = Vec::new();
    for member in set.policies.iter().filter(|_| set.enabled) {
        let policy =
            exact(catalog, EntityKind::Policy, &member.reference, &entity.scope).ok_or_else(|| {
                SelectError::UnknownPolicy {
                    set: set.identifier.clone(),
                    policy: member.reference.clone(),
                    known: visible(catalog, EntityKind::Policy, &entity.scope),
                }
            })?;
        let rego = read(policy, "policy", policy::read_policy)?.rego.text();
        policies.push(AskedPolicy { policy: policy.id.clone(), severity: member.severity, rego });
    }
    Ok(Asked { set: set.identifier, policies })
}

fn read_set(entity: &CatalogEntity) -> Result<policy::PolicySet, SelectError> {
    read(entity, "policySet", policy::read_policy_set)
}

fn read<T>(
    entity: &CatalogEntity,
    kind: &'static str,
    by: fn(&Node, &mut Findings) -> Option<T>,
) -> Result<T, SelectError> {
    let broken = |message: String| SelectError::Unreadable { kind, id: entity.id.clone(), message };
    let documents = parse_documents(&entity.id, &entity.yaml)
        .map_err(|faults| broken(faults.first().map(ToString::to_string).unwrap_or_default()))?;
    let root = documents.first().and_then(|document| document.get(kind));
    let root = root.ok_or_else(|| broken(format!("no root key `{kind}`")))?;
    let mut findings = Findings::new(Mode::Lenient);
    let read = by(root, &mut findings);
    match (read, findings.faults.first()) {
        (Some(read), None) => Ok(read),
        (_, fault) => Err(broken(fault.map(ToString::to_string).unwrap_or_default())),
    }
}

/// What a policy, a set or a step came to. The worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is denied.
    Pass,
    /// Denied with severity `warning`.
    Warning,
    /// Denied with severity `error`.
    Error,
}

impl Status {
    /// As outputs write it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Warning => "warning",
            Status::Error => "error",
        }
    }
}

/// What all sets together said.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The worst of the sets.
    pub status: Status,
    /// Every set in order.
    pub sets: Vec<SetVerdict>,
}

/// What one set said.
#[derive(Clone, Debug, PartialEq)]
pub struct SetVerdict {
    /// Its name.
    pub set: String,
    /// The worst of its policies.
    pub status: Status,
    /// Every policy in order.
    pub policies: Vec<PolicyVerdict>,
}

/// What one policy said.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyVerdict {
    /// Its identifier.
    pub policy: String,
    /// Outcome with its severity.
    pub status: Status,
    /// Messages of `deny`, or why the evaluation failed.
    pub messages: Vec<String>,
    /// It gave no answer, which counts as a violation.
    pub failed: Option<EvaluationError>,
}

impl Verdict {
    /// `{SET: {status, policyDetails: {POLICY: {status, denyMessages}}}}`.
    pub fn details(&self) -> Json {
        let sets = self.sets.iter().map(|set| {
            let policies = set.policies.iter().map(|policy| {
                let details = json!({ "status": policy.status.name(), "denyMessages": policy.messages });
                (policy.policy.clone(), details)
            });
            let details =
                json!({ "status": set.status.name(), "policyDetails": policies.collect::<Map<_, _>>() });
            (set.set.clone(), details)
        });
        Json::Object(sets.collect())
    }

    /// `SET/POLICY: message` of every policy with a status.
    pub fn lines(&self, status: Status) -> Vec<String> {
        let policies = self.sets.iter().flat_map(|set| set.policies.iter().map(move |policy| (set, policy)));
        policies
            .filter(|(_, policy)| policy.status == status)
            .flat_map(|(set, policy)| {
                policy.messages.iter().map(move |text| format!("{}/{}: {text}", set.set, policy.policy))
            })
            .collect()
    }

    /// Whether a policy that holds the step gave no answer.
    pub fn gave_no_answer(&self) -> bool {
        let mut policies = self.sets.iter().flat_map(|set| &set.policies);
        policies.any(|policy| policy.status == Status::Error && policy.failed.is_some())
    }
}

/// Asks every policy of the sets. `now_ms` is the time that policies see. **Blocks** for about [`Limits::time`] at most.
pub fn judge(asked: &[Asked], input: &Json, now_ms: u64, limits: &Limits) -> Verdict {
    let deadline = Instant::now() + limits.time;
    let now_ns = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    let mut sets = Vec::with_capacity(asked.len());
    for set in asked {
        let mut policies = Vec::with_capacity(set.policies.len());
        for AskedPolicy { policy, severity, rego } in &set.policies {
            let answer = Evaluator::new(rego, limits)
                .map_err(EvaluationError::Syntax)
                .and_then(|evaluator| evaluator.deny(input, now_ns, deadline));
            let (messages, failed) = match answer {
                Ok(messages) => (messages, None),
                Err(error) => (vec![format!("the evaluation failed: {error}")], Some(error)),
            };
            let status = match (messages.is_empty(), severity) {
                (true, _) => Status::Pass,
                (false, Severity::Warning) => Status::Warning,
                (false, Severity::Error) => Status::Error,
            };
            policies.push(PolicyVerdict { policy: policy.clone(), status, messages, failed });
        }
        let status = policies.iter().map(|policy| policy.status).max().unwrap_or(Status::Pass);
        sets.push(SetVerdict { set: set.set.clone(), status, policies });
    }
    let status = sets.iter().map(|set| set.status).max().unwrap_or(Status::Pass);
    Verdict { status, sets }
}
