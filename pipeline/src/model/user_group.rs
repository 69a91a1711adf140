//! User groups: who may approve.

use super::read::Reader;
use crate::fault::Findings;
use crate::yaml::Node;

/// A group of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserGroup {
    /// Identifier. Approvals name groups by it and by nothing else.
    pub identifier: String,
    /// Name, for people.
    pub name: String,
    /// Emails of the members, compared exactly.
    pub users: Vec<String>,
}

/// Reads the map below `userGroup`.
///
/// The identifier must be written: groups decide who may approve, so none is guessed from a name.
pub fn read_user_group(root: &Node, findings: &mut Findings) -> Option<UserGroup> {
    let mut reader = Reader::new(root, "userGroup", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "accountIdentifier", "description", "tags"]);
    reader.known(&["notificationConfigs", "externallyManaged", "isSsoLinked", "ssoLinked"]);
    let identifier = reader.required("identifier", findings);
    let name = reader.text("name", findings);
    let path = reader.sub("users");
    let mut users: Vec<String> = Vec::new();
    for (index, node) in reader.list("users", findings).iter().enumerate() {
        let at = format!("{path}[{index}]");
        match node.as_str().map(str::trim) {
            Some("") | None => {
                findings.fault(&node.at, &at, format!("expected the email of a user, found {}", node.kind()));
            }
            Some(email) if users.iter().any(|user| user == email) => {
                findings.fault(&node.at, &at, format!("the user `{email}` stands twice in this group"));
            }
            Some(email) => users.push(email.to_owned()),
        }
    }
    reader.finish(findings);
    let identifier = identifier?;
    let id = identifier.text();
    if id.contains('.') {
        let message = format!("`{id}` holds a dot, which separates scope and group (`org.{id}`)");
        findings.fault(&identifier.at, &identifier.path, message);
        return None;
    }
    if id.trim().is_empty() || id.trim() != id || id.chars().any(char::is_control) || id.len() > 128 {
        let message = "the identifier of a group has 1 to 128 printable characters and no blank around them";
        findings.fault(&identifier.at, &identifier.path, message);
        return None;
    }
    Some(UserGroup { name: name.unwrap_or_else(|| id.clone()), identifier: id, users })
}
