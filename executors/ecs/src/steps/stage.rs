//! What the stage's own definitions say.

use crate::EcsExecutor;
use crate::documents::{Kind, Loaded, Reader};
use crate::error::bad_spec;
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

/// The error of a step that needs the definition, in a stage that has none.
pub(crate) fn no_service() -> StepError {
    bad_spec("ECS-015", "the service of the stage has no service definition").hint(
        "give the service a `serviceDefinition` in the form of CreateService, or a manifest of type EcsServiceDefinition",
    )
}

/// The name of the service that a definition describes.
pub(crate) fn name(definition: Option<&Loaded>) -> Option<&str> {
    let name = definition?.value.get("serviceName").and_then(Value::as_str)?.trim();
    (!name.is_empty()).then_some(name)
}
