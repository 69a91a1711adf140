//! Runtime inputs: what the suffixes of `<+input>` allow (pipeline.md 2.8), and where they stand in a step.

use super::read::{is_input, join, whole_match};
use super::step::Spec;
use super::{Variable, VariableKind};
use crate::fault::{Place, did_you_mean};
use serde_json::Value as Json;

/// Every suffix.
const SUFFIXES: [&str; 6] =
    ["default", "allowedValues", "selectOneFrom", "selectManyFrom", "regex", "executionInput"];

/// What a runtime input allows.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rules {
    /// Used when nothing is given.
    pub(crate) default: Option<String>,
    /// One of these, as written.
    allowed: Option<Vec<String>>,
    /// Several of them, separated by commas.
    pub(crate) many: bool,
    /// Must match as a whole.
    pub(crate) regex: Option<String>,
    /// It is asked for when its step is reached, not when the run starts.
    pub(crate) execution: bool,
    /// A suffix that is none, or is not closed.
    unknown: Option<String>,
}

/// Whether a text is a runtime input that is asked for when its step is reached.
pub(crate) fn is_execution_input(text: &str) -> bool {
    is_input(text) && Rules::of(text).execution
}

impl Rules {
    /// Reads the suffixes, in any order.
    pub(crate) fn of(text: &str) -> Self {
        let mut rules = Rules::default();
        let Some(mut rest) = text.strip_prefix("<+input>") else { return rules };
        while let Some(after) = rest.strip_prefix('.') {
            let Some((name, (body, next))) = after
                .find('(')
                .and_then(|open| after.split_at_checked(open))
                .and_then(|(name, tail)| Some((name, argument(tail)?)))
            else {
                break;
            };
            match name {
                "default" => rules.default = Some(unquoted(body)),
                "allowedValues" | "selectOneFrom" => rules.allowed = Some(split_values(body)),
                "selectManyFrom" => {
                    rules.allowed = Some(split_values(body));
                    rules.many = true;
                }
                "regex" => rules.regex = Some(body.to_owned()),
                "executionInput" => rules.execution = true,
                other => rules.unknown = Some(other.to_owned()),
            }
            rest = next;
        }
        if !rest.trim().is_empty() && rules.unknown.is_none() {
            rules.unknown = Some(rest.trim_start_matches('.').to_owned());
        }
        rules
    }

    /// What is wrong with the rules themselves: message and suggestion.
    pub(crate) fn faults(&self, variables: &[Variable]) -> Vec<(String, Option<String>)> {
        let mut faults = Vec::new();
        if let Some(unknown) = &self.unknown {
            let name = unknown.split('(').next().unwrap_or_default();
            let message =
                format!("`{unknown}` is not a suffix of `<+input>`; known are {}", SUFFIXES.join(", "));
            faults.push((message, did_you_mean(name, SUFFIXES)));
        }
        if let Some(pattern) = &self.regex
            && whole_match(pattern).build().is_err()
        {
            faults.push((format!("`{pattern}` is not a regular expression that can be used"), None));
        } else if let Some(default) = &self.default
            && let Err(message) = self.permit(default, variables)
        {
            // A default that is an expression is judged when it has a value.
            if !default.contains("<+") {
                faults.push((format!("the default does not meet the rules of its input: {message}"), None));
            }
        }
        faults
    }

    /// Whether a given value meets the rules.
    pub(crate) fn permit(&self, given: &str, variables: &[Variable]) -> Result<(), String> {
        let scope = Variables(variables);
        let allowed = self.allowed_in(&expr::Context { scope: &scope, now_ms: 0, secret_token: 0 })?;
        permitted(given, allowed.as_deref(), self.many, self.regex.as_deref())
    }

    /// The allowed values with their expressions resolved.
    pub(crate) fn allowed_in(&self, context: &expr::Context<'_>) -> Result<Option<Vec<String>>, String> {
        self.allowed.as_ref().map(|allowed| resolved(allowed, context)).transpose()
    }
}

/// Whether a value is one of the allowed ones (or, with `many`, several of them) and matches.
pub(crate) fn permitted(
    given: &str,
    allowed: Option<&[String]>,
    many: bool,
    regex: Option<&str>,
) -> Result<(), String> {
    if let Some(allowed) = allowed {
        let parts = if many { split_values(given) } else { vec![given.to_owned()] };
        if let Some(part) = parts.iter().find(|part| !allowed.iter().any(|one| equal(one, part))) {
            return Err(format!("`{part}` is not allowed; allowed are {}", allowed.join(", ")));
        }
    }
    if let Some(pattern) = regex {
        match whole_match(pattern).build() {
            Ok(regex) if regex.is_match(given) => {}
            Ok(_) => return Err(format!("`{given}` does not match `{pattern}`")),
            Err(_) => return Err(format!("`{pattern}` is not a regular expression that can be used")),
        }
    }
    Ok(())
}

/// Texts are compared after trimming, numbers by value.
fn equal(allowed: &str, given: &str) -> bool {
    let (allowed, given) = (allowed.trim(), given.trim());
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    allowed == given || matches!((number(allowed), number(given)), (Some(a), Some(b)) if a == b)
}

/// The allowed values with their expressions resolved; `jexl(…)` may give a list.
fn resolved(allowed: &[String], context: &expr::Context<'_>) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    for one in allowed {
        let block = match one.strip_prefix("jexl(").and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) => format!("<+{inner}>"),
            None if one.contains("<+") => one.clone(),
            None => {
                values.push(one.clone());
                continue;
            }
        };
        let value = expr::render_value(&block, context, expr::Mode::Throw)
            .map_err(|error| format!("the allowed value `{one}` cannot be resolved: {error}"))?;
        match value.to_json() {
            Json::Array(list) => values.extend(list.iter().map(plain)),
            other => values.push(plain(&other)),
        }
    }
    Ok(values)
}

fn plain(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `pipeline.variables.X`: all that is known before the inputs are.
struct Variables<'a>(&'a [Variable]);

impl expr::Scope for Variables<'_> {
    fn lookup(&self, path: &[expr::Segment]) -> expr::Lookup {
        let names: Vec<&str> = path.iter().filter_map(expr::Segment::name).collect();
        let ["pipeline", "variables", name, ..] = names.as_slice() else { return expr::Lookup::Undefined };
        let hit =
            self.0.iter().find(|variable| variable.name == *name && variable.kind != VariableKind::Secret);
        match hit.map(|variable| &variable.value.value) {
            Some(value) if !value.is_null() => {
                expr::Lookup::Found { value: expr::Value::from_json(value, false), used: 3 }
            }
            _ => expr::Lookup::Missing,
        }
    }

    fn call(&self, _: &str, _: &str, _: &[expr::Value]) -> Option<Result<expr::Value, String>> {
        None
    }
}

/// The text between `(` and its closing `)`. Parentheses inside of `\'…\'` and escaped ones do not count.
fn argument(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\'' if escaped => quoted = !quoted,
            _ if escaped => {}
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some((text.get(1..at)?, text.get(at + 1..)?));
                }
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn unquoted(text: &str) -> String {
    let inner = text.trim().strip_prefix("\\'").and_then(|rest| rest.strip_suffix("\\'"));
    inner.unwrap_or(text).to_owned()
}

/// Splits at commas; `\'a,b\'` keeps its own, and so do parentheses.
fn split_values(text: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    let mut depth = 0usize;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\\'") {
            quoted = !quoted;
            rest = after;
            continue;
        }
        match c {
            ',' if !quoted && depth == 0 => {
                values.push(std::mem::take(&mut current).trim().to_owned());
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        current.push(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    values.push(current.trim().to_owned());
    values
}

/// Calls `visit` for every text in the fields of a step's spec, as it is stored: with its path, the place of its field
/// if it is the whole field, and the value to read or replace.
pub(crate) fn each_input(spec: &mut Json, visit: &mut dyn FnMut(&str, Option<&Place>, &mut Json)) {
    match spec {
        Json::Object(map) => {
            let place = map.get("at").and_then(|at| serde_json::from_value::<Place>(at.clone()).ok());
            let path = map.get("path").and_then(Json::as_str).map(str::to_owned);
            match (place, path, map.get_mut("value")) {
                (Some(at), Some(path), Some(value)) => inside(value, &path, Some(&at), visit),
                _ => map.values_mut().for_each(|value| each_input(value, visit)),
            }
        }
        Json::Array(list) => list.iter_mut().for_each(|item| each_input(item, visit)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn inside(
    value: &mut Json,
    path: &str,
    at: Option<&Place>,
    visit: &mut dyn FnMut(&str, Option<&Place>, &mut Json),
) {
    match value {
        Json::Array(list) => {
            for (index, item) in list.iter_mut().enumerate() {
                inside(item, &format!("{path}[{index}]"), None, visit);
            }
        }
        Json::Object(map) => {
            for (key, item) in map {
                inside(item, &join(path, key), None, visit);
            }
        }
        Json::String(_) => visit(path, at, value),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// Puts values in the places of what was asked for, by path. **Errors**: the spec cannot hold them, which is our fault.
pub(crate) fn filled(spec: &Spec, values: &dyn Fn(&str) -> Option<Json>) -> Result<Spec, serde_json::Error> {
    let mut document = serde_json::to_value(spec)?;
    each_input(&mut document, &mut |path, _, value| {
        if let Some(given) = value.as_str().filter(|text| is_execution_input(text)).and_then(|_| values(path))
        {
            *value = given;
        }
    });
    serde_json::from_value(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_read_in_any_order() {
        let rules = Rules::of("<+input>.default(b).allowedValues(a,b,\\'c,d\\')");
        assert_eq!(rules.default.as_deref(), Some("b"));
        assert_eq!(rules.allowed.unwrap(), ["a", "b", "c,d"]);
        assert_eq!(Rules::of("<+input>.regex(^(a|b)$)").regex.as_deref(), Some("^(a|b)$"));
        assert_eq!(Rules::of("<+input>.regex(a\\)b).default(\\'x,(\\')").default.as_deref(), Some("x,("));
        assert_eq!(Rules::of("plain"), Rules::default());
    }

    #[test]
    fn values_are_compared_as_people_mean_them() {
        let permit = |text: &str, given: &str| Rules::of(text).permit(given, &[]).is_ok();
        assert!(permit("<+input>.allowedValues(1, 2.50)", "2.5"));
        assert!(permit("<+input>.selectOneFrom( a , b )", " b"));
        assert!(!permit("<+input>.selectOneFrom(a,b)", "a,b"));
        assert!(permit("<+input>.selectManyFrom(a,b,c)", "c, a"));
        assert!(!permit("<+input>.selectManyFrom(a,b,c)", "c,d"));
        assert!(permit("<+input>.selectManyFrom(\\'a,b\\',c)", "\\'a,b\\',c"));
        assert!(!permit("<+input>.regex(v\\d+)", "v1x"), "the whole text must match");
    }
}
