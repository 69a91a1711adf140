//! What steps say beforehand and leave behind, in one shape.

use executor_api::Plan;
use proto::result::Output;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// A plan of these lines; none say that nothing would change.
pub(crate) fn planned(lines: &[String]) -> Plan {
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    Plan::Diff { text, hash }
}

/// Outputs by name.
pub(crate) fn outputs<'a>(all: impl IntoIterator<Item = (&'a str, Value)>) -> BTreeMap<String, Output> {
    all.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}
