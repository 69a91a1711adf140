//! Of what a task definition is made.

use crate::documents::{Kind, Reader, place_of};
use crate::error::bad_spec;
use executor_api::StepError;
use proto::task::{EcsDocument, TaskDefinition};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A registered revision and documents that are laid over it, in their order. Stands in a step's memory, so that a step
/// that goes on after a crash deploys what it began with, whatever Git says by then. Holds no clear secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Source {
    pub(crate) arn: Option<String>,
    pub(crate) documents: Vec<Value>,
    /// Where it stands, for messages.
    pub(crate) place: String,
}

impl Source {
    /// Loads the definition of a stage: `current`, which an earlier step of it registered, goes before the service's own.
    /// `overlay` is laid over either.
    ///
    /// **Errors**: `ECS-015`: there is nothing; those of [`Reader::load`].
    pub(crate) async fn load(
        reader: &Reader<'_>,
        current: Option<&str>,
        base: Option<&TaskDefinition>,
        overlay: Option<&EcsDocument>,
    ) -> Result<Source, StepError> {
        let mut source = Source::default();
        let named = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        if let Some(arn) = current.and_then(named) {
            source.place = "an earlier step of this stage".to_owned();
            source.arn = Some(arn);
        } else if let Some(base) = base {
            source.arn = base.arn.as_deref().and_then(named);
            if let Some(arn) = &source.arn {
                source.place = format!("task definition {arn}");
            }
            if let Some(document) = &base.document {
                // Over a registered revision it may leave out what that one has.
                let kind = if source.arn.is_some() { Kind::TaskDefinitionPart } else { Kind::TaskDefinition };
                source.documents.push(reader.load(kind, document).await?.value);
                source.place = place_of(document);
            }
        }
        if let Some(overlay) = overlay {
            source.documents.push(reader.load(Kind::TaskDefinitionPart, overlay).await?.value);
            source.place = place_of(overlay);
        }
        if source.arn.is_none() && source.documents.is_empty() {
            return Err(bad_spec("ECS-015", "the service of the stage has no task definition")
                .hint("give the service a `taskDefinition`: an ARN, a document, or both"));
        }
        Ok(source)
    }
}
