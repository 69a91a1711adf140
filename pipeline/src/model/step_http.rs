//! The Http step.

use super::read::{Field, Reader};
use super::step::{Frame, Spec};
use crate::fault::Findings;
use crate::rules;
use proto::task::OutputVariable;

/// Reads the spec of an Http step.
pub(super) fn read_http(spec: &mut Reader<'_>, frame: &mut Frame, findings: &mut Findings) -> Option<Spec> {
    spec.without_effect("inputVariables", "name variables of the pipeline or the stage instead", findings);
    let url = spec.required("url", findings);
    let method = spec.required("method", findings);
    let mut headers = Vec::new();
    let path = spec.sub("headers");
    for (index, node) in spec.list("headers", findings).iter().enumerate() {
        let mut header = Reader::new(node, format!("{path}[{index}]"), findings);
        let key = header.required("key", findings);
        let value = header.required("value", findings);
        header.finish(findings);
        headers.extend(key.zip(value));
    }
    let body = spec.field("requestBody", findings).or_else(|| spec.field("body", findings));
    let assertion = spec.field("assertion", findings).filter(|field| !field.text().trim().is_empty());
    let outputs = read_outputs(spec, findings);
    let request_timeout = spec.field("timeout", findings);
    for key in ["certificate", "certificateKey"] {
        if let Some(node) = spec.node(key) {
            findings.fault(&node.at, &spec.sub(key), "client certificates are not supported yet");
        }
    }
    rules::r18_http_timeout(frame, request_timeout.as_ref(), findings);
    Some(Spec::Http { url: url?, method: method?, headers, body, assertion, outputs, request_timeout })
}

/// Reads `outputVariables`.
pub(super) fn read_outputs(spec: &mut Reader<'_>, findings: &mut Findings) -> Vec<OutputVariable> {
    let path = spec.sub("outputVariables");
    let mut outputs = Vec::new();
    for (index, node) in spec.list("outputVariables", findings).iter().enumerate() {
        let mut reader = Reader::new(node, format!("{path}[{index}]"), findings);
        let name = reader.required("name", findings);
        let secret = reader.text("type", findings).is_some_and(|kind| kind.eq_ignore_ascii_case("secret"));
        let value = reader.field("value", findings).or_else(|| name.clone());
        reader.finish(findings);
        outputs.extend(name.zip(value).map(|(name, value): (Field, Field)| OutputVariable {
            name: name.text(),
            value: value.text(),
            secret,
        }));
    }
    outputs
}
