//! The documents of a stage's service, loaded.

use super::stage;
use crate::documents::{Kind, Loaded, Reader};
use crate::scaling::Wanted;
use crate::service;
use crate::service::check;
use crate::task_definition::Source;
use executor_api::{Level, StepError};
use proto::task::EcsDocument;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a step deploys. Stands in its memory, so that a step that goes on after a crash deploys what it began with. Holds
/// placeholders of secrets, no clear ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Fetched {
    /// Name of the service.
    pub(crate) name: String,
    /// Input of CreateService.
    pub(crate) service: Value,
    /// Where it stands, for messages.
    pub(crate) place: String,
    pub(crate) definition: Source,
    /// Documents of scalable targets and policies, with where each stands.
    pub(crate) targets: Vec<(Value, String)>,
    pub(crate) policies: Vec<(Value, String)>,
}

impl Fetched {
    /// Loads everything that the service of the stage says.
    ///
    /// **Errors**: `ECS-015`: there is no service definition, or it names no service; `ECS-022`: scaling documents that
    /// contradict each other; those of [`Reader::load`].
    pub(crate) async fn load(reader: &Reader<'_>) -> Result<Fetched, StepError> {
        let spec = reader.spec;
        let document = spec.definitions.service.as_ref().ok_or_else(stage::no_service)?;
        let Loaded { value: service, place, .. } = reader.load(Kind::Service, document).await?;
        let name = check::name(&service, &place)?.to_owned();
        let current = spec.current_task_definition.as_deref();
        let definition = Source::load(reader, current, spec.definitions.task.as_ref(), None).await?;
        let targets = all(reader, Kind::ScalableTarget, &spec.definitions.scalable_targets).await?;
        let policies = all(reader, Kind::ScalingPolicy, &spec.definitions.scaling_policies).await?;
        let fetched = Fetched { name, service, place, definition, targets, policies };
        fetched.scaling()?;
        let text = format!(
            "service {} from {}; task definition from {}",
            fetched.name, fetched.place, fetched.definition.place
        );
        reader.log.line(Level::Info, &text).await.map_err(crate::error::log_closed)?;
        Ok(fetched)
    }

    /// Loads the scaling documents alone, for a step that deploys nothing.
    ///
    /// **Errors**: as [`Fetched::load`].
    pub(crate) async fn of_scaling(reader: &Reader<'_>) -> Result<Fetched, StepError> {
        let targets = all(reader, Kind::ScalableTarget, &reader.spec.definitions.scalable_targets).await?;
        let policies = all(reader, Kind::ScalingPolicy, &reader.spec.definitions.scaling_policies).await?;
        let fetched = Fetched { targets, policies, ..Fetched::default() };
        fetched.scaling()?;
        Ok(fetched)
    }

    /// What the scaling documents ask for.
    ///
    /// **Errors**: `ECS-022`.
    pub(crate) fn scaling(&self) -> Result<Wanted, StepError> {
        Wanted::of(&self.targets, &self.policies)
    }

    /// Count that the service definition names.
    pub(crate) fn count(&self) -> Option<u32> {
        service::written_count(&self.service)
    }
}

async fn all(
    reader: &Reader<'_>,
    kind: Kind,
    documents: &[EcsDocument],
) -> Result<Vec<(Value, String)>, StepError> {
    let mut loaded = Vec::new();
    for document in documents {
        let found = reader.load_all(kind, document).await?;
        loaded.extend(found.into_iter().map(|loaded| (loaded.value, loaded.place)));
    }
    Ok(loaded)
}
