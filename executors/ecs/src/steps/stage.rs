//! What the stage's own definitions say.

use crate::EcsExecutor;
use crate::documents::{Kind, Loaded, Reader};
use executor_api::{StepContext, StepError, UnitLog};
use proto::task::EcsSpec;
use serde_json::Value;

/// The service definition of the stage, when there is one.
///
/// **Errors**: those of loading it. **Repeat**: safe.
pub(crate) async fn service(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<Option<Loaded>, StepError> {
    match &spec.definitions.service {
        Some(document) => Reader { executor, spec, cx, log }.load(Kind::Service, document).await.map(Some),
        None => Ok(None),
    }
}

/// The name of the service that a definition describes.
pub(crate) fn name(definition: Option<&Loaded>) -> Option<&str> {
    let name = definition?.value.get("serviceName").and_then(Value::as_str)?.trim();
    (!name.is_empty()).then_some(name)
}
