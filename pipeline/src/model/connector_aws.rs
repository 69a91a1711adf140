//! Connectors of type `Aws`: an account and who signs requests to it (pipeline.md 4.8, rule R23).

use super::connector::ConnectorSpec;
use super::read::{Field, Reader, one_of};
use crate::fault::Findings;
use crate::rules;
use serde::{Deserialize, Serialize};

/// What a connector of type `Aws` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsConnector {
    /// Who signs.
    pub credential: AwsLogin,
    /// Region of calls that no infrastructure gives one.
    pub region: Option<Field>,
    /// Role to assume on top, and the external id that it asks for.
    pub assume_role: Option<(Field, Option<Field>)>,
    /// Endpoints by service; `""` for all of them.
    pub endpoints: Vec<(String, Field)>,
}

/// Who signs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
#[expect(
    clippy::large_enum_variant,
    reason = "Few of them live at a time; boxing would only hide the fields."
)]
pub enum AwsLogin {
    /// An access key.
    ManualConfig {
        /// Its id.
        access_key: KeyPart,
        /// The key itself.
        secret_key: KeyPart,
        /// Secret with the token of a temporary key.
        session_token: Option<Field>,
    },
    /// What the agent itself has.
    InheritFromDelegate,
    /// The web identity of the agent's service account.
    Irsa,
}

/// One half of an access key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KeyPart {
    /// As text; a key itself is always an expression that names a secret.
    Written(Field),
    /// The name of a secret.
    Secret(Field),
}

impl AwsConnector {
    /// Fields that name secrets.
    pub(crate) fn secrets(&self) -> Vec<&Field> {
        let AwsLogin::ManualConfig { access_key, secret_key, session_token } = &self.credential else {
            return Vec::new();
        };
        let named = [access_key, secret_key].into_iter().filter_map(|part| match part {
            KeyPart::Secret(field) => Some(field),
            KeyPart::Written(_) => None,
        });
        named.chain(session_token).collect()
    }

    /// Fields that may hold `<+secrets.getValue(…)>`.
    pub(crate) fn expressions(&self) -> Vec<&Field> {
        let mut fields: Vec<&Field> = match &self.credential {
            AwsLogin::ManualConfig { access_key, secret_key, .. } => [access_key, secret_key]
                .into_iter()
                .filter_map(|part| match part {
                    KeyPart::Written(field) => Some(field),
                    KeyPart::Secret(_) => None,
                })
                .collect(),
            AwsLogin::InheritFromDelegate | AwsLogin::Irsa => Vec::new(),
        };
        fields.extend(self.assume_role.iter().filter_map(|(_, external_id)| external_id.as_ref()));
        fields
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Manual,
    Inherit,
    Irsa,
}

/// Reads the spec of an `Aws` connector, and the selectors that stand in its credential.
pub(super) fn read_aws(
    spec: &mut Reader<'_>,
    findings: &mut Findings,
) -> (Option<ConnectorSpec>, Option<Field>) {
    spec.without_effect(
        "awsSdkClientBackOffStrategyOverride",
        "the agent backs off by itself: adaptively, with one budget for an account",
        findings,
    );
    let endpoints = read_endpoints(spec, findings);
    let Some(mut credential) = spec.required_map("credential", findings) else { return (None, None) };
    let kind = credential.required("type", findings);
    let mut region = credential.field("region", findings);
    let test_region = credential.field("testRegion", findings);
    let assume_role = credential.map("crossAccountAccess", findings).and_then(|mut role| {
        let arn = role.required("crossAccountRoleArn", findings);
        let external_id = role.field("externalId", findings).filter(|id| !id.text().is_empty());
        role.finish(findings);
        arn.map(|arn| (arn, external_id))
    });
    let empty = crate::yaml::Node::empty_map(credential.at());
    let path = credential.sub("spec");
    let mut inner = Reader::new(credential.node("spec").unwrap_or(&empty), path, findings);
    credential.finish(findings);
    if let Some(field) = inner.field("region", findings) {
        rules::r23_region(&field, findings);
        region = region.or(Some(field));
    }
    let selectors = inner.any("delegateSelectors");
    let kinds =
        [("ManualConfig", Kind::Manual), ("InheritFromDelegate", Kind::Inherit), ("Irsa", Kind::Irsa)];
    let kind = kind.and_then(|kind| one_of(&kind, "AWS credential", &kinds, findings));
    let login = match kind {
        Some(Kind::Manual) => read_manual(&mut inner, findings),
        Some(Kind::Inherit) => Some(AwsLogin::InheritFromDelegate),
        Some(Kind::Irsa) => Some(AwsLogin::Irsa),
        // What a credential of another kind holds is nobody's mistake twice.
        None => return (None, selectors),
    };
    inner.finish(findings);
    let region = region.or(test_region);
    let account = login.map(|credential| AwsConnector { credential, region, assume_role, endpoints });
    (account.map(|account| ConnectorSpec::Aws { account: Box::new(account) }), selectors)
}

fn read_manual(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<AwsLogin> {
    let access_key = key_part(spec, "accessKey", "accessKeyRef", findings);
    let secret_key = key_part(spec, "secretKey", "secretKeyRef", findings);
    if let Some(KeyPart::Written(field)) = &secret_key
        && !field.text().contains("<+")
    {
        let message = "a secret key in clear is refused; store it with `delegate secret set` and name it in `secretKeyRef`";
        findings.fault(&field.at, &field.path, message);
        return None;
    }
    let session_token = spec.field("sessionTokenRef", findings);
    Some(AwsLogin::ManualConfig { access_key: access_key?, secret_key: secret_key?, session_token })
}

/// `accessKey` or `accessKeyRef`; the reference wins.
fn key_part(
    spec: &mut Reader<'_>,
    key: &'static str,
    reference: &'static str,
    findings: &mut Findings,
) -> Option<KeyPart> {
    let written = spec.field(key, findings).filter(|field| !field.text().trim().is_empty());
    let named = spec.field(reference, findings).filter(|field| !field.text().trim().is_empty());
    if let Some(field) = written.as_ref().filter(|field| field.text().contains("<+")) {
        rules::r23_key(key, reference, field, findings);
    }
    let part = named.map(KeyPart::Secret).or(written.map(KeyPart::Written));
    if part.is_none() {
        findings.fault(spec.at(), &spec.sub(reference), format!("`{reference}` is missing"));
    }
    part
}

/// `endpoints` (ours): one URL for every service, or a map by service, with `default` for the rest.
fn read_endpoints(spec: &mut Reader<'_>, findings: &mut Findings) -> Vec<(String, Field)> {
    let Some(node) = spec.node("endpoints") else { return Vec::new() };
    let path = spec.sub("endpoints");
    let mut all = Vec::new();
    if node.as_str().is_some() {
        all.push((String::new(), Field::new(node, path)));
    } else if let Some(map) = node.as_map() {
        for entry in &map.entries {
            let path = format!("{path}.{}", entry.key);
            let name = entry.key.trim().to_ascii_lowercase().replace(['-', ' '], "_");
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !plain || entry.value.as_str().is_none() {
                let message =
                    "expected a URL by the name of a service such as `ecs`, or `default` for every service";
                findings.fault(&entry.at, &path, message);
                continue;
            }
            let name = if name == "default" { String::new() } else { name };
            all.push((name, Field::new(&entry.value, path)));
        }
    } else {
        findings.fault(&node.at, &path, format!("expected a URL or a map of URLs, found {}", node.kind()));
    }
    for (_, field) in &all {
        let text = field.text();
        if !text.contains("<+") && !text.starts_with("http://") && !text.starts_with("https://") {
            findings.fault(
                &field.at,
                &field.path,
                format!("`{text}` is no URL; expected http:// or https://"),
            );
        }
    }
    all
}
