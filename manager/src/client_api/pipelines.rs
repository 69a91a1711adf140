//! `POST /pipelines/validate`: every fault and every applied rule of a document, with the stored entities in view.

use super::body::JsonBody;
use super::{Answer, Api};
use axum::Json;
use axum::extract::State;
use pipeline::fault::Mode;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
pub(super) struct Validate {
    source: String,
    yaml: String,
    #[serde(default)]
    mode: Mode,
}

pub(super) async fn validate(
    State(api): State<Api>,
    JsonBody(document): JsonBody<Validate>,
) -> Answer<Json<Value>> {
    let catalog = crate::entities::catalog(&api.app).await?;
    let (faults, notices) =
        crate::preflight::validate(&document.source, &document.yaml, &catalog, document.mode);
    Ok(Json(json!({ "faults": faults, "notices": notices })))
}
