//! Checks of connectors.

use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use super::{Cx, cluster as clusters, step, store};
use proto::task::{ConnectorTestSpec, StepSpec, StepTask};

/// VALIDATE_KUBERNETES_CONFIG.
pub(super) fn cluster(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    let details = Details::of(data, "encryptionDetails")?;
    let cluster = clusters::read(cx, &data.object("kubernetesClusterConfig")?, &details)?;
    Ok(step(cx, StepSpec::ConnectorTest(ConnectorTestSpec::Kubernetes(cluster))))
}

/// NG_GIT_COMMAND, of which only the check is one of an agent's.
pub(super) fn git(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    data.word("gitCommandType", &[("VALIDATE", ())])?;
    let details = Details::of(data, "encryptionDetails")?;
    let key = data.maybe("sshKeySpecDTO")?;
    let config = data.object("gitConfig")?;
    let connector = store::repository(cx, &config, key.as_ref(), &details, "Git connector")?;
    Ok(step(cx, StepSpec::ConnectorTest(ConnectorTestSpec::Git(connector))))
}

/// NG_AWS_TASK, of which only the check is one of an agent's.
pub(super) fn aws(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    data.word("awsTaskType", &[("VALIDATE", ())])?;
    let details = Details::of(data, "encryptionDetails")?;
    let region = data.maybe_str("region")?;
    let account = super::aws::account(cx, &data.object("awsConnector")?, &details, region)?;
    Ok(step(cx, StepSpec::ConnectorTest(ConnectorTestSpec::Aws(account))))
}
