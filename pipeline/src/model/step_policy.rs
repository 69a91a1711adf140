//! The Policy step (pipeline.md 4.2).

use super::read::{Field, Reader};
use super::step::Spec;
use crate::fault::Findings;
use serde_json::Value as Json;

/// Reads the spec of a Policy step.
pub(super) fn read_policy(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<Spec> {
    let sets = spec.any("policySets");
    match sets.as_ref().map(|field| &field.value) {
        None => findings.fault(spec.at(), &spec.sub("policySets"), "`policySets` is missing"),
        Some(Json::Array(list)) if list.is_empty() => {
            let message = "the step names no policy set; it would pass everything";
            findings.fault(spec.at(), &spec.sub("policySets"), message);
        }
        // A single text is an input that brings the list.
        Some(Json::Array(_)) => {}
        Some(Json::String(text)) if text.contains("<+") => {}
        Some(other) => {
            let message = format!("expected a list of policy sets, found `{other}`");
            findings.fault(spec.at(), &spec.sub("policySets"), message);
        }
    }
    let kind = spec.required("type", findings);
    if let Some(kind) = kind.filter(|kind| !kind.text().eq_ignore_ascii_case("Custom")) {
        let message = format!("`{}` is not a known type of a Policy step; known is Custom", kind.text());
        findings.fault(&kind.at, &kind.path, message);
    }
    let Some(mut inner) = spec.map("policySpec", findings) else {
        findings.fault(spec.at(), &spec.sub("policySpec"), "`policySpec.payload` is missing");
        return None;
    };
    let payload = inner.any("payload");
    if payload.as_ref().is_none_or(|payload: &Field| payload.text().trim().is_empty()) {
        let message = "`payload` is missing; expected the JSON that the policies judge";
        findings.fault(inner.at(), &inner.sub("payload"), message);
    }
    inner.finish(findings);
    Some(Spec::Policy { sets: sets?, payload: payload? })
}
