//! `GET /api/v1/openapi.json`: what this manager answers, as an OpenAPI 3.1 document.

use super::error::ApiError;
use axum::Json;
use pipeline::yaml::parse_documents;
use serde_json::Value;

/// The document as people edit it; a test holds it against the routers.
pub const DOCUMENT: &str = include_str!("../../../docs/openapi.yaml");

/// The document as JSON.
pub(super) async fn show() -> Result<Json<Value>, ApiError> {
    let documents = parse_documents("openapi.yaml", DOCUMENT).map_err(ApiError::documents)?;
    Ok(Json(documents.first().map(pipeline::yaml::Node::to_json).unwrap_or_default()))
}
