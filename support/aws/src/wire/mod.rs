//! From documents to what a service understands, and back. Pure.

mod query;
mod xml;

use crate::operation::{Operation, Wire};
use serde_json::{Map, Value};

/// A request without its signature.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) content_type: &'static str,
    pub(crate) target: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// What a service says about a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Without a namespace before and a URL behind it. Empty when the answer names none.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// The request for `operation` with `input`, an object.
pub(crate) fn encode(operation: Operation, input: &Value) -> Encoded {
    match operation.service.wire() {
        Wire::Json { target } => {
            let body = if input.is_null() { b"{}".to_vec() } else { input.to_string().into_bytes() };
            let target = Some(format!("{target}.{}", operation.name));
            Encoded { content_type: "application/x-amz-json-1.1", target, body }
        }
        Wire::Query { version } => {
            let body = query::form(operation.name, version, input).into_bytes();
            Encoded { content_type: "application/x-www-form-urlencoded; charset=utf-8", target: None, body }
        }
    }
}

/// The document of a good answer.
///
/// **Errors**: what is strange about it.
pub(crate) fn decode(operation: Operation, body: &[u8]) -> Result<Value, String> {
    match operation.service.wire() {
        // Actions without an output answer with nothing.
        Wire::Json { .. } if body.iter().all(u8::is_ascii_whitespace) => Ok(Value::Object(Map::new())),
        Wire::Json { .. } => match serde_json::from_slice(body) {
            Ok(document @ Value::Object(_)) => Ok(document),
            Ok(_) => Err(format!("the answer to {} is no JSON object", operation.name)),
            Err(error) => Err(format!("the answer to {} is no JSON: {error}", operation.name)),
        },
        Wire::Query { .. } => xml::answer(operation.name, body),
    }
}

/// What a refusal says, whichever of the two formats it comes in: proxies and emulators mix them. `header` is
/// `x-amzn-errortype`.
pub(crate) fn refusal(body: &[u8], header: Option<&str>) -> Refusal {
    let mut found =
        serde_json::from_slice::<Value>(body).map_or_else(|_| xml::refusal(body), |document| json(&document));
    if let Some(code) = header.filter(|code| !code.is_empty()) {
        found.code = code.to_owned();
    }
    found.code = bare(&found.code).to_owned();
    found
}

fn json(document: &Value) -> Refusal {
    let first = |names: &[&str]| {
        names.iter().find_map(|name| document.get(name)?.as_str()).unwrap_or_default().to_owned()
    };
    Refusal {
        code: first(&["__type", "code", "Code"]),
        message: first(&["message", "Message", "errorMessage"]),
    }
}

/// `com.amazonaws.ecs#ClusterNotFoundException:http://…` is `ClusterNotFoundException`.
fn bare(code: &str) -> &str {
    let code = code.rsplit_once('#').map_or(code, |(_, code)| code);
    code.split_once(':').map_or(code, |(code, _)| code).trim()
}

#[cfg(test)]
mod tests;
