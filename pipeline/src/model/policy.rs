//! Policies and policy sets (pipeline.md 4.2). A Rego text is judged by the manager, which has the interpreter; here
//! only the shape of the documents is read.

use super::identity;
use super::read::{Field, Reader, one_of};
use crate::fault::{Findings, Place};
use crate::yaml::Node;
use serde::{Deserialize, Serialize};

/// A document with the root `policy`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// The Rego module as written.
    pub rego: Field,
}

/// A document with the root `policySet`.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySet {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// What its policies judge.
    pub subject: Subject,
    /// When they are asked without being named.
    pub action: SetAction,
    /// A set that is switched off passes everything.
    pub enabled: bool,
    /// Members, in order; never empty.
    pub policies: Vec<Member>,
}

/// What a policy set judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The payload of a Policy step.
    Custom,
    /// A pipeline.
    Pipeline,
}

/// When a policy set is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAction {
    /// By steps that name it.
    OnStep,
    /// Before every run of a pipeline.
    OnRun,
}

/// One policy of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Reference to a policy: `X`, `org.X` or `account.X`.
    pub reference: String,
    /// What a violation means.
    pub severity: Severity,
    /// Where it is written.
    pub at: Place,
}

/// What a violation of a policy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The step succeeds and shows the messages ("Warn and continue").
    Warning,
    /// The step fails ("Error and exit").
    Error,
}

/// Reads a document with the root `policy`.
pub fn read_policy(root: &Node, findings: &mut Findings) -> Option<Policy> {
    let mut reader = Reader::new(root, "policy", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "description", "tags"]);
    let identity = identity(&mut reader, "policy", findings);
    let rego = reader.required("rego", findings);
    if let Some(rego) = rego.as_ref().filter(|rego| rego.text().trim().is_empty()) {
        findings.fault(
            &rego.at,
            &rego.path,
            "the policy is empty; expected a Rego module with a rule `deny`",
        );
    }
    reader.finish(findings);
    let (identifier, name) = identity?;
    Some(Policy { identifier, name: name.text(), rego: rego? })
}

/// Reads a document with the root `policySet`.
pub fn read_policy_set(root: &Node, findings: &mut Findings) -> Option<PolicySet> {
    let mut reader = Reader::new(root, "policySet", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "description", "tags"]);
    let identity = identity(&mut reader, "policy set", findings);
    let subject = match reader.field("type", findings) {
        Some(field) => one_of(
            &field,
            "type of a policy set",
            &[("Custom", Subject::Custom), ("Pipeline", Subject::Pipeline)],
            findings,
        )?,
        None => Subject::Custom,
    };
    let written = reader.field("action", findings);
    let action = match &written {
        Some(field) => one_of(
            field,
            "action of a policy set",
            &[("onstep", SetAction::OnStep), ("onrun", SetAction::OnRun)],
            findings,
        )?,
        // A set for pipelines that nothing ever asks would be a gate that stands open.
        None if subject == Subject::Pipeline => SetAction::OnRun,
        None => SetAction::OnStep,
    };
    if let Some(field) = written.filter(|_| (subject == Subject::Custom) != (action == SetAction::OnStep)) {
        let message = "expected `onstep` for a set of type Custom, and `onrun` for one of type Pipeline";
        findings.fault(&field.at, &field.path, message);
    }
    let enabled = reader.flag("enabled", findings).unwrap_or(true);
    let path = reader.sub("policies");
    let mut policies: Vec<Member> = Vec::new();
    for (index, node) in reader.list("policies", findings).iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(member) = read_member(node, &path, findings) else { continue };
        if policies.iter().any(|other| other.reference == member.reference) {
            let message = format!("the policy `{}` stands twice in this set", member.reference);
            findings.fault(&member.at, &path, message);
        }
        policies.push(member);
    }
    if reader.node("policies").and_then(Node::as_list).is_none_or(<[Node]>::is_empty) {
        let message = "the set names no policy; it would pass everything";
        findings.fault(reader.at(), &path, message);
    }
    reader.finish(findings);
    let (identifier, name) = identity?;
    Some(PolicySet { identifier, name: name.text(), subject, action, enabled, policies })
}

fn read_member(node: &Node, path: &str, findings: &mut Findings) -> Option<Member> {
    let mut reader = Reader::new(node, path, findings);
    let reference = reader.required("identifier", findings);
    let severity = match reader.field("severity", findings) {
        Some(field) => one_of(
            &field,
            "severity",
            &[("error", Severity::Error), ("warning", Severity::Warning)],
            findings,
        )?,
        // A gate whose severity was forgotten holds.
        None => Severity::Error,
    };
    reader.finish(findings);
    let reference = reference?;
    Some(Member { reference: reference.text(), severity, at: reference.at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Mode};
    use crate::yaml::parse_documents;

    fn set(yaml: &str) -> (Option<PolicySet>, Vec<Fault>) {
        let documents = parse_documents("set.yaml", yaml).unwrap();
        let mut findings = Findings::new(Mode::Lenient);
        let read = read_policy_set(documents[0].get("policySet").unwrap(), &mut findings);
        (read, findings.faults)
    }

    #[test]
    fn a_set_without_severity_and_action_holds() {
        let (read, faults) = set("policySet:\n  identifier: s\n  policies:\n    - identifier: p\n");
        assert_eq!(faults, []);
        let read = read.unwrap();
        assert_eq!((read.subject, read.action, read.enabled), (Subject::Custom, SetAction::OnStep, true));
        assert_eq!(read.policies[0].severity, Severity::Error);
        let (read, _) =
            set("policySet: {identifier: s, type: pipeline, policies: [{identifier: p, severity: WARNING}]}");
        let read = read.unwrap();
        assert_eq!((read.action, read.policies[0].severity), (SetAction::OnRun, Severity::Warning));
    }

    #[test]
    fn faults_name_the_value_and_what_was_expected() {
        let of = |yaml: &str| set(yaml).1.first().map(ToString::to_string).unwrap_or_default();
        assert!(of("policySet: {identifier: s, policies: []}").contains("names no policy"));
        assert!(of("policySet: {identifier: s}").contains("names no policy"));
        let severity = of("policySet: {identifier: s, policies: [{identifier: p, severity: eror}]}");
        assert!(severity.contains("`eror` is not a known severity; known are error, warning"), "{severity}");
        assert!(severity.contains("did you mean `error`?"), "{severity}");
        let action = of("policySet: {identifier: s, action: onrun, policies: [{identifier: p}]}");
        assert!(action.contains("set.yaml:1:") && action.contains("expected `onstep`"), "{action}");
        let twice = of("policySet: {identifier: s, policies: [{identifier: p}, {identifier: p}]}");
        assert!(twice.contains("`p` stands twice"), "{twice}");
    }
}
