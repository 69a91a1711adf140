//! Request bodies: bounded, and refused in the shape of this API.

use super::error::ApiError;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use futures::StreamExt;
use serde::de::DeserializeOwned;

/// Largest body with documents. A pipeline with hundreds of steps has a few hundred KiB.
pub(crate) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// How much of a body that is too large is read and thrown away, so that the client gets to read the refusal instead of
/// a broken connection.
const MAX_DRAIN_BYTES: usize = 64 * 1024 * 1024;

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read(request, MAX_BODY_BYTES).await?;
        // An empty body reads as an empty object: every field may have its default.
        let text = if body.is_empty() { b"{}".as_slice() } else { &body };
        serde_json::from_slice(text).map(JsonBody).map_err(|error| {
            ApiError::request(format!("the body is not the JSON that is expected here: {error}"))
        })
    }
}

/// Reads a body of at most `limit` bytes. Memory stays within the limit whatever is sent.
pub(crate) async fn read(request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    let mut kept = Vec::with_capacity(announced.unwrap_or(0).min(limit));
    let mut seen = 0_usize;
    let mut chunks = Body::into_data_stream(request.into_body());
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::request(format!("the body could not be read: {error}")))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= limit {
            kept.extend_from_slice(&chunk);
        } else {
            kept = Vec::new();
            if seen > MAX_DRAIN_BYTES {
                break;
            }
        }
    }
    if seen > limit { Err(ApiError::too_large(limit)) } else { Ok(kept) }
}
