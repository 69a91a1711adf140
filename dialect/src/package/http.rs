//! HTTP_TASK_NG. Its assertion is evaluated by the manager, so every status is a success here.

use super::fault::Fault;
use super::view::View;
use super::{Cx, step};
use crate::request::Kind;
use proto::task::{HttpSpec, StepSpec, StepTask};
use serde_json::Value;

pub(super) fn read(cx: &mut Cx<'_>, data: &View<'_>) -> Result<StepTask, Fault> {
    cx.request.kind = Kind::Http {
        method: data.maybe_str("method")?.unwrap_or("GET").to_owned(),
        // Told back as it came; a placeholder in it stays one.
        url: data.maybe_str("url")?.unwrap_or_default().to_owned(),
        bytes: data.flag("supportNonTextResponse")?,
    };
    if let Some(certificate) = data.maybe("certificateNG")?
        && (certificate.has("certificate") || certificate.has("certificateKey"))
    {
        return Err(Fault::unsupported("a client certificate of an Http step"));
    }
    if data.flag("useProxy")? {
        cx.notices.push("useProxy has no effect: the agent's own proxy settings apply".to_owned());
    }
    let url = cx.secrets.text(&data.at("url"), data.str("url")?)?;
    let mut headers = Vec::new();
    for header in data.list("requestHeader")? {
        let value = header.value("value").and_then(Value::as_str).unwrap_or_default();
        headers.push((cx.plain(&header, "key")?, cx.secrets.text(&header.at("value"), value)?));
    }
    let timeout = data.maybe_int("socketTimeoutMillis")?.and_then(|limit| u64::try_from(limit).ok());
    let spec = HttpSpec {
        url,
        method: data.maybe_str("method")?.unwrap_or("GET").trim().to_owned(),
        headers,
        body: cx.maybe_text(data, "body")?,
        assertion: None,
        output_variables: Vec::new(),
        timeout_ms: timeout.filter(|limit| *limit > 0),
        context: Value::Null,
        any_status: true,
    };
    Ok(step(cx, StepSpec::Http(spec)))
}
