//! AWS accounts.

use super::Cx;
use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use proto::task::{AssumeRole, AwsAccount, AwsCredential};
use std::collections::BTreeMap;

/// Used for the check of a connector that names no region.
const REGION: &str = "us-east-1";

#[derive(Clone, Copy)]
enum Kind {
    Manual,
    Inherited,
    Irsa,
}

const KINDS: [(&str, Kind); 3] =
    [("ManualConfig", Kind::Manual), ("InheritFromDelegate", Kind::Inherited), ("Irsa", Kind::Irsa)];

/// A connector `Aws` (`awsConnectorDTO`); `region` is that of the infrastructure.
pub(super) fn account(
    cx: &mut Cx<'_>,
    config: &View<'_>,
    details: &Details<'_>,
    region: Option<&str>,
) -> Result<AwsAccount, Fault> {
    let credential = config.object("credential")?;
    let of_connector = credential.maybe_str("region")?;
    let assume_role = match credential.maybe("crossAccountAccess")? {
        Some(access) => Some(AssumeRole {
            role_arn: cx.plain(&access, "crossAccountRoleArn")?,
            external_id: cx.maybe_text(&access, "externalId")?,
        }),
        None => None,
    };
    let credential = match credential.word("type", &KINDS)? {
        Kind::Inherited => AwsCredential::InheritFromDelegate,
        Kind::Irsa => AwsCredential::Irsa,
        Kind::Manual => {
            let spec = credential.object("spec")?;
            let access_key = cx.secrets.name_or_secret(details, &spec, "accessKey", "accessKeyRef")?;
            let missing =
                || Fault::shape(&spec.at("accessKey"), "is missing; expected the id of an access key");
            let secret_key = cx.secrets.of_required(details, &spec, "secretKeyRef")?;
            AwsCredential::ManualConfig {
                access_key: access_key.ok_or_else(missing)?,
                secret_key: cx.secrets.standing_for(&secret_key),
                session_token: cx.secrets.of_maybe(details, &spec, "sessionTokenRef")?,
            }
        }
    };
    Ok(AwsAccount {
        connector: "AWS connector".to_owned(),
        region: region.or(of_connector).unwrap_or(REGION).to_owned(),
        credential,
        assume_role,
        endpoints: BTreeMap::new(),
    })
}
