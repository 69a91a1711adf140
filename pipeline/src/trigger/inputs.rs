//! `inputYaml`: its expressions about the event, before it is laid over the pipeline.

use super::facts::{EventScope, TriggerFacts};
use crate::fault::Findings;
use crate::model::read::join;
use crate::yaml::{Node, Value};
use expr::{Mode, Segment, Target};

/// Puts the values of the event into the document.
///
/// Only texts that name nothing but the event are rendered. A value that could be part of an expression stays an
/// expression about the event: its text is tainted wherever it is used (DESIGN D12), which a literal could not carry.
///
/// **Errors**: a fault for every value that the event does not have.
pub(crate) fn render(
    node: &mut Node,
    facts: &TriggerFacts,
    now_ms: i64,
    path: &str,
    findings: &mut Findings,
) {
    match &mut node.value {
        Value::Null => {}
        Value::List(list) => {
            for (index, item) in list.iter_mut().enumerate() {
                render(item, facts, now_ms, &format!("{path}[{index}]"), findings);
            }
        }
        Value::Map(map) => {
            for entry in &mut map.entries {
                let path = join(path, &entry.key);
                render(&mut entry.value, facts, now_ms, &path, findings);
            }
        }
        Value::Scalar { text, plain } => {
            if !expr::scan::has_blocks(text) {
                return;
            }
            match value_of(text, facts, now_ms) {
                Some(Ok(value)) if is_inert(&value.to_string()) => {
                    *plain = !matches!(value, expr::Value::Str(_));
                    *text = value.to_string();
                }
                None | Some(Ok(_)) => {}
                Some(Err(message)) => findings.fault(&node.at, path, message),
            }
        }
    }
}

/// The text that an input has in this run, for the rules of the input that asks for it.
pub(crate) fn text_of(text: &str, facts: Option<&TriggerFacts>, now_ms: i64) -> String {
    let value =
        facts.filter(|_| expr::scan::has_blocks(text)).and_then(|facts| value_of(text, facts, now_ms));
    match value {
        Some(Ok(value)) => value.to_string(),
        _ => text.to_owned(),
    }
}

/// The value of a text that is about nothing but the event; `None` for any other.
fn value_of(text: &str, facts: &TriggerFacts, now_ms: i64) -> Option<Result<expr::Value, String>> {
    let references = expr::references(text).ok()?;
    let about_event = references.iter().all(|reference| match &reference.target {
        Target::Path(path) => {
            matches!(path.first().and_then(Segment::name), Some("trigger" | "eventPayload"))
        }
        Target::Secret(_) => false,
        Target::Functor(..) => true,
    });
    if references.is_empty() || !about_event {
        return None;
    }
    let scope = EventScope(facts);
    Some(match expr::render_value(text, &facts.context(&scope, now_ms), Mode::Throw) {
        Ok(value) if value.is_null() => Err(format!("`{text}` has no value in this event")),
        Ok(value) => Ok(value),
        Err(error) => Err(error.to_string()),
    })
}

/// Whether a text stays plain text whatever stands beside it.
fn is_inert(text: &str) -> bool {
    !text.contains(['<', '$'])
}
