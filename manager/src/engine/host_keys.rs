//! Host keys: known ones go out with a task, learned ones come back with its result (settled facts §2.4).

use crate::store::{Applied, Millis, Store, StoreError};
use proto::result::LearnedHostKey;
use proto::task::{SshTarget, StepTask};

/// `host:port`, the name under which keys are stored.
pub(crate) fn host_port(target: &SshTarget) -> String {
    format!("{}:{}", target.host, target.port)
}

/// Fills in the keys that are known for the hosts of `task`, so that all replicas of an agent agree.
pub(crate) async fn fill_known(store: &dyn Store, task: &mut StepTask) -> Result<(), StoreError> {
    for login in task.logins_mut() {
        for (_, key, _) in store.host_keys(Some(&host_port(login))).await? {
            if !login.host_keys.known.contains(&key) {
                login.host_keys.known.push(key);
            }
        }
    }
    Ok(())
}

/// Remembers the keys an agent accepted. Only the hosts of its own task count: an agent cannot vouch for other hosts.
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
    let Ok(mut task) = serde_json::from_str::<StepTask>(data) else { return Ok(()) };
    let own: Vec<String> = task.logins_mut().into_iter().map(|login| host_port(login)).collect();
    for key in learned {
        let host = &key.host;
        if !own.contains(host) {
            tracing::warn!(%host, task_hosts = ?own, "learned host key of another host ignored");
            continue;
        }
        match store.learn_host_key(host, &key.key, now).await {
            Ok(Applied::Unchanged) => {}
            Ok(Applied::Created | Applied::Changed) => {
                tracing::info!(%host, fingerprint = %key.fingerprint, "host key learned");
            }
            Err(StoreError::Conflict { .. }) => {
                tracing::warn!(%host, fingerprint = %key.fingerprint, "another host key is known; not learned");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
