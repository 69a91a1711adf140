//! Reading output variables back.

use crate::command::Job;
use crate::error::Error;
use crate::holder;
use crate::memory::Memory;
use crate::session::Use;
use crate::spec::CLEANUP;
use executor_api::Level;
use proto::result::Output;
use proto::task::{CommandSpec, OutputVariable, UnitKind};
use secrecy::SecretString;
use std::collections::BTreeMap;

/// Values of all output variables of a unit together; longer ones are left out with a notice.
const MAX_OUTPUTS: usize = 512 << 10;

impl Job<'_> {
    pub(crate) async fn outputs(
        &self,
        spec: &CommandSpec,
        memory: &Memory,
    ) -> Result<BTreeMap<String, Output>, Error> {
        let mut outputs = BTreeMap::new();
        for unit in &spec.units {
            if let Some(end) = memory.done.get(&unit.identifier) {
                outputs.extend(end.outputs.iter().map(|(k, v)| (k.clone(), Output::from(v.clone()))));
            }
        }
        let keys: Vec<String> = spec
            .units
            .iter()
            .filter(|u| matches!(u.kind, UnitKind::Script { .. }))
            .map(|u| self.key(u))
            .collect();
        if spec.output_variables.is_empty() || keys.is_empty() {
            return Ok(outputs);
        }
        let log = self.cx.logs.unit(CLEANUP);
        let session = self.session(log.as_ref()).await?;
        let nonce = holder::random_word();
        let exec = session.exec(Use::Short, holder::fetch(&nonce, &keys)).await?;
        let raw = exec.collect(keys.len() * 610_000).await?;
        let (found, cut) = variables(&raw, &keys);
        if cut {
            self.notice(format!("output variables over {} KiB were left out", MAX_OUTPUTS >> 10));
        }
        for OutputVariable { name, value, secret } in &spec.output_variables {
            match found.get(value) {
                Some(text) => {
                    if *secret {
                        self.cx.secrets.mask(&SecretString::from(text.clone()));
                    }
                    let output = Output { value: serde_json::Value::String(text.clone()), secret: *secret };
                    outputs.insert(format!("outputVariables.{name}"), output);
                }
                None => {
                    let text = format!("output variable {name}: the script has not set {value}");
                    log.line(Level::Warn, &text).await?;
                    self.notice(text);
                }
            }
        }
        Ok(outputs)
    }
}

/// Splits what the collectors left into variables; a later unit's value wins. The second value says whether something
/// was too long.
fn variables(raw: &[u8], keys: &[String]) -> (BTreeMap<String, String>, bool) {
    let mut found = BTreeMap::new();
    let mut cut = false;
    let body = match raw.iter().position(|b| *b == b'\n') {
        Some(line) => raw.get(line + 1..).unwrap_or_default(),
        None => return (found, false),
    };
    let mut fields = body.split(|b| *b == 0).map(|f| String::from_utf8_lossy(f).into_owned()).peekable();
    let mut room = 0usize;
    while let Some(field) = fields.next() {
        if field.starts_with('\u{1}') {
            break;
        }
        if keys.contains(&field) {
            room = MAX_OUTPUTS;
            continue;
        }
        if field.is_empty() {
            continue;
        }
        let Some(value) = fields.next() else { break };
        match room.checked_sub(value.len()) {
            Some(left) => {
                room = left;
                // A later unit's value wins, unless it is empty.
                if !value.is_empty() || !found.contains_key(&field) {
                    found.insert(field, value);
                }
            }
            None => cut = true,
        }
    }
    (found, cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_value_wins_unless_it_is_empty_and_long_ones_are_left_out() {
        let long = "x".repeat(MAX_OUTPUTS + 1);
        let keys = ["u-1".to_owned(), "u-2".to_owned()];
        let raw =
            format!("\u{1}n vars\nu-1\0A\0one\0B\0two\nlines\0\0u-2\0A\0\0B\0three\0L\0{long}\0\0\u{1}end");
        let (found, cut) = variables(raw.as_bytes(), &keys);
        assert!(cut);
        assert_eq!(found.len(), 2);
        assert_eq!((found["A"].as_str(), found["B"].as_str()), ("one", "three"));
    }
}
