//! What a Policy step asks of the manager.

use super::build::{Builder, bad_field, field_value};
use crate::machine::ManagerWork;
use crate::model::{Field, as_text};
use proto::failure::{Failure, FailureKind};
use serde_json::Value as Json;

/// Longest part of a payload that is repeated to its author.
const SHOWN: usize = 200;

/// Resolves the step: an expression that leads nowhere fails it, since a policy that judges `null` may pass.
pub(super) fn work(
    builder: &Builder<'_>,
    sets: &Field,
    payload: &Field,
    at: u64,
) -> Result<ManagerWork, Box<Failure>> {
    let value = field_value(sets, &builder.context()).map_err(|error| bad_field(sets, error))?;
    let Json::Array(list) = value else {
        return Err(bad_field(sets, format!("expected a list of policy sets, found {value}")));
    };
    let sets = list
        .iter()
        .map(|item| match as_text(item) {
            Json::String(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            other => Err(bad_field(sets, format!("a policy set must be a text, found {other}"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let text = builder.strict(payload)?;
    let payload = serde_json::from_str(&text).map_err(|error| {
        let near = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default().trim();
        let near: String = near.chars().take(SHOWN).collect();
        let message = format!(
            "`{}` is no JSON once its expressions are filled in: {error}, near `{near}`",
            payload.path
        );
        Box::new(
            Failure::new(FailureKind::PolicyEvaluationFailure, "POL-004", message)
                .hint("a value with quotes or line breaks in it breaks the JSON around it"),
        )
    })?;
    Ok(ManagerWork::Policy { sets, entity: "Custom".to_owned(), payload, at })
}
