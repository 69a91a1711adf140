//! What serving a Harness manager needs beside decoding and encoding: proving capabilities, and recordings.

mod prove;
mod record;

pub(crate) use prove::Prover;
pub(crate) use record::Recorder;

use crate::config::{Config, ForeignTasks};
use proto::limits::MAX_PACKAGE_BODY_BYTES;
use proto::package::TaskPackage;

/// What an agent would do with a recorded package, without doing it: [`::dialect::explain`].
///
/// **Errors**: what is wrong with the bytes. They are no package, or more than a manager may send.
pub fn explain_package(bytes: &[u8]) -> Result<serde_json::Value, String> {
    if bytes.len() > MAX_PACKAGE_BODY_BYTES {
        return Err(format!(
            "has {} bytes; an agent takes packages up to {MAX_PACKAGE_BODY_BYTES}",
            bytes.len()
        ));
    }
    let package = TaskPackage::decode(bytes).map_err(|error| error.to_string())?;
    if package.task_type.is_empty() {
        return Err("is no task package: `type` is missing".to_owned());
    }
    Ok(::dialect::explain(&package))
}

/// Says at the start what is offered to a Harness manager and how far it is proven.
pub(crate) fn announce(config: &Config) {
    if config.foreign_task_types != ForeignTasks::HarnessCd {
        return;
    }
    let types = crate::dialect::foreign_task_types(config).join(", ");
    let proof = ::dialect::PROOF;
    tracing::warn!(
        "foreign_task_types = harness-cd: a manager without our extensions is offered {types}; {proof} (docs/harness.md)"
    );
}
