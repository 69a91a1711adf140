//! Host keys: known ones go out with a task, learned ones come back with its result (settled facts §2.4).

use crate::store::{Applied, Millis, Store, StoreError};
use proto::result::LearnedHostKey;
use proto::task::{ConnectorTestSpec, SshTarget, StepSpec, StepTask};

/// The host a step logs in to.
fn target(spec: &StepSpec) -> Option<&SshTarget> {
    match spec {
        StepSpec::Command(command) => command.target.as_ref(),
        StepSpec::ConnectorTest(ConnectorTestSpec::Ssh(target)) => Some(target),
        StepSpec::ConnectorTest(_)
        | StepSpec::Http(_)
        | StepSpec::Verify(_)
        | StepSpec::ShellScript(_)
        | StepSpec::Kubernetes(_)
        | StepSpec::ResolveArtifact(_)
        | StepSpec::Noop(_)
        | StepSpec::Unknown { .. } => None,
    }
}

/// `host:port`, the name under which keys are stored.
pub(crate) fn host_port(target: &SshTarget) -> String {
    format!("{}:{}", target.host, target.port)
}

/// Fills in the keys that are known for the host of `task`, so that all replicas of an agent agree.
pub(crate) async fn fill_known(store: &dyn Store, task: &mut StepTask) -> Result<(), StoreError> {
    let (StepSpec::Command(proto::task::CommandSpec { target: Some(target), .. })
    | StepSpec::ConnectorTest(ConnectorTestSpec::Ssh(target))) = &mut task.step.spec
    else {
        return Ok(());
    };
    let known = store.host_keys(Some(&host_port(target))).await?;
    for (_, key, _) in known {
        if !target.host_keys.known.contains(&key) {
            target.host_keys.known.push(key);
        }
    }
    Ok(())
}

/// Remembers the keys an agent accepted. Only the host of its own task counts: an agent cannot vouch for other hosts.
/// A key that contradicts a known one changes nothing; a person accepts it or not.
pub(crate) async fn learn(
    store: &dyn Store,
    data: &str,
    learned: &[LearnedHostKey],
    now: Millis,
) -> Result<(), StoreError> {
    if learned.is_empty() {
        return Ok(());
    }
    let Ok(task) = serde_json::from_str::<StepTask>(data) else { return Ok(()) };
    let Some(own) = target(&task.step.spec).map(host_port) else { return Ok(()) };
    for key in learned {
        if key.host != own {
            tracing::warn!(host = %key.host, task_host = %own, "learned host key of another host ignored");
            continue;
        }
        match store.learn_host_key(&own, &key.key, now).await {
            Ok(Applied::Unchanged) => {}
            Ok(Applied::Created | Applied::Changed) => {
                tracing::info!(host = %own, fingerprint = %key.fingerprint, "host key learned");
            }
            Err(StoreError::Conflict { .. }) => {
                tracing::warn!(host = %own, fingerprint = %key.fingerprint, "another host key is known; not learned");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
