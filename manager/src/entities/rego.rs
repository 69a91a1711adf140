//! Policies are read when they are applied: a gate that cannot be asked is refused at once, with its place.

use super::Document;
use crate::policy::{Dialect, Judges};
use pipeline::fault::{Fault, Findings, Mode, Notice, Place};
use pipeline::model::Field;
use pipeline::model::policy::read_policy;
use pipeline::yaml::parse_documents;

/// A policy that stands in a file.
pub(super) struct Written {
    text: String,
    rego: Field,
}

/// The policies of the documents. Those that cannot be read have faults of their own.
pub(super) fn written(documents: &[Document]) -> Vec<Written> {
    let mut found = Vec::new();
    for document in documents.iter().filter(|document| document.yaml.contains("policy")) {
        let roots = parse_documents(&document.source, &document.yaml).unwrap_or_default();
        for root in roots.iter().filter_map(|root| root.get("policy")) {
            let read = read_policy(root, &mut Findings::new(Mode::Lenient));
            found.extend(read.map(|read| Written { text: document.yaml.clone(), rego: read.rego }));
        }
    }
    found
}

/// Reads every Rego text: its first fault, or a remark about an older dialect.
pub(super) async fn read(judges: &Judges, written: Vec<Written>) -> (Vec<Fault>, Vec<Notice>) {
    let mut findings = Findings::new(Mode::Lenient);
    for Written { text, rego } in written {
        match judges.check(rego.text()).await {
            Ok(Ok(Dialect::V1)) => {}
            Ok(Ok(Dialect::V0)) => {
                let remark =
                    "the policy is read as Rego v0; `import rego.v1` or the syntax of OPA 1.0 makes it v1";
                findings.remark("policy.rego-v0", &rego.at, &rego.path, remark);
            }
            Ok(Err(fault)) => findings.push(match place_of(&text, &rego, fault.line, fault.column) {
                Some(place) => Fault::at(&place, &rego.path, fault.message),
                None => Fault::at(&rego.at, &rego.path, format!("in the Rego text, {fault}")),
            }),
            Err(error) => findings.fault(&rego.at, &rego.path, format!("the policy cannot be read: {error}")),
        }
    }
    (findings.faults, findings.notices)
}

/// The place in the file of a place in a block text. `None` for a text that is written in another way, in one line or
/// with folded lines: its lines are not those of the file.
fn place_of(text: &str, rego: &Field, line: u32, column: u32) -> Option<Place> {
    let lines: Vec<&str> = text.lines().collect();
    let body = rego.text();
    let body: Vec<&str> = body.lines().collect();
    let key = (rego.at.line as usize).saturating_sub(1);
    let wanted = (line as usize).saturating_sub(1);
    // A block begins on the line behind its key; the place of the value may be either of the two.
    let begin = (key..=key + 2).find(|begin| {
        let same = |index: usize| {
            let (Some(ours), Some(theirs)) = (body.get(index), lines.get(begin + index)) else {
                return false;
            };
            theirs.trim_end().ends_with(ours.trim_end())
                && theirs.trim_start().starts_with(ours.trim_start().trim_end())
        };
        body.len() > 1 && (0..body.len()).all(same)
    })?;
    let (ours, theirs) = (body.get(wanted)?, lines.get(begin + wanted)?);
    let indent = theirs.chars().count().saturating_sub(ours.chars().count());
    Some(Place {
        source: rego.at.source.clone(),
        line: u32::try_from(begin + wanted + 1).unwrap_or(u32::MAX),
        column: u32::try_from(indent).unwrap_or(u32::MAX).saturating_add(column),
    })
}
