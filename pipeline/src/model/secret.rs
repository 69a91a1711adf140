//! Secrets by their shape; values are set elsewhere and never stand in a document.

use super::identity;
use super::read::{Field, Reader};
use crate::fault::Findings;
use crate::yaml::Node;

/// A secret entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// Kind.
    pub spec: SecretSpec,
}

/// Kinds of secrets.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "Few of them live at a time; boxing would only hide the fields."
)]
pub enum SecretSpec {
    /// A text or file whose value is stored under the secret's own id.
    Value,
    /// How to log in over SSH.
    SshKey {
        /// Port.
        port: Option<Field>,
        /// Login name.
        user: Field,
        /// Secret with the private key.
        key: Field,
        /// Secret with its passphrase.
        passphrase: Option<Field>,
    },
    /// A kind that this version cannot use.
    Unsupported(String),
}

/// Reads a document with the root `secret`.
pub fn read_secret(root: &Node, findings: &mut Findings) -> Option<Secret> {
    let mut reader = Reader::new(root, "secret", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "description", "tags"]);
    let identity = identity(&mut reader, "secret", findings);
    let kind = reader.required("type", findings)?;
    let spec_path = reader.sub("spec");
    let empty = Node::empty_map(&root.at);
    let spec_node = reader.node("spec").unwrap_or(&empty);
    reader.finish(findings);
    let mut spec = Reader::new(spec_node, spec_path, findings);
    let read = match kind.text().as_str() {
        "SecretText" | "SecretFile" => {
            spec.known(&["secretManagerIdentifier", "valueType", "additionalMetadata"]);
            if let Some(value) = spec.field("value", findings).filter(|value| !value.text().is_empty()) {
                let message = "a value in clear is refused; set it with `delegate secret set NAME --stdin`";
                findings.fault(&value.at, &value.path, message);
            }
            if spec.text("valueType", findings).is_some_and(|kind| kind.eq_ignore_ascii_case("Reference")) {
                findings.fault(
                    spec.at(),
                    &spec.sub("valueType"),
                    "references to external secret managers are not supported yet",
                );
            }
            Some(SecretSpec::Value)
        }
        "SSHKey" => read_ssh_key(&mut spec, findings),
        other => {
            let message = format!(
                "secret type `{other}` is not supported; supported are SecretText, SecretFile, SSHKey"
            );
            findings.fault(&kind.at, &kind.path, message);
            Some(SecretSpec::Unsupported(other.to_owned()))
        }
    };
    spec.finish(findings);
    let (identifier, name) = identity?;
    Some(Secret { identifier, name: name.text(), spec: read? })
}

fn read_ssh_key(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<SecretSpec> {
    let port = spec.field("port", findings);
    let mut auth = spec.required_map("auth", findings)?;
    if let Some(kind) = auth.field("type", findings)
        && !kind.text().eq_ignore_ascii_case("SSH")
    {
        findings.fault(&kind.at, &kind.path, format!("`{}` is not supported; supported is SSH", kind.text()));
        return None;
    }
    let mut inner = auth.required_map("spec", findings)?;
    auth.finish(findings);
    let credential = inner.field("credentialType", findings);
    if let Some(kind) = credential.filter(|kind| !kind.text().eq_ignore_ascii_case("KeyReference")) {
        let message =
            format!("credential type `{}` is not supported; supported is KeyReference", kind.text());
        findings.fault(&kind.at, &kind.path, message);
        return None;
    }
    // Harness nests once more; the key may also stand right here.
    let nested = inner.map("spec", findings);
    let mut fields = match nested {
        Some(nested) => {
            inner.finish(findings);
            nested
        }
        None => inner,
    };
    let user = fields.required("userName", findings);
    let key = fields.required("key", findings);
    let passphrase =
        fields.field("encryptedPassphrase", findings).or_else(|| fields.field("passphrase", findings));
    fields.finish(findings);
    Some(SecretSpec::SshKey { port, user: user?, key: key?, passphrase })
}
