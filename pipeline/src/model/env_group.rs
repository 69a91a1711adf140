//! Environment groups: several environments under one name.

use super::identity;
use super::read::Reader;
use crate::fault::Findings;
use crate::yaml::Node;

/// A group of environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentGroup {
    /// Identifier.
    pub identifier: String,
    /// Name, for people.
    pub name: String,
    /// References of its environments, in order.
    pub environments: Vec<String>,
}

/// Reads the map below `environmentGroup`.
pub fn read_environment_group(root: &Node, findings: &mut Findings) -> Option<EnvironmentGroup> {
    let mut reader = Reader::new(root, "environmentGroup", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "description", "tags", "color"]);
    let identity = identity(&mut reader, "environment group", findings);
    let path = reader.sub("envIdentifiers");
    let mut environments: Vec<String> = Vec::new();
    let list = reader.list("envIdentifiers", findings);
    for (index, node) in list.iter().enumerate() {
        let at = format!("{path}[{index}]");
        match node.as_str().map(str::trim) {
            Some("") | None => {
                let message = format!("expected the identifier of an environment, found {}", node.kind());
                findings.fault(&node.at, &at, message);
            }
            Some(one) if environments.iter().any(|other| other == one) => {
                findings.fault(&node.at, &at, format!("the environment `{one}` stands twice in this group"));
            }
            Some(one) => environments.push(one.to_owned()),
        }
    }
    if list.is_empty() {
        findings.fault(reader.at(), &path, "`envIdentifiers` lists nothing");
    }
    reader.finish(findings);
    let (identifier, name) = identity?;
    Some(EnvironmentGroup { identifier, name: name.text(), environments })
}
