//! Templates of a generator: text with placeholders such as `{{SERVICE_NAME}}`, rendered before it is YAML.
//!
//! A placeholder is two braces, a name of capitals, digits and underscores, two braces; blanks beside the name are
//! allowed. Anything else in double braces (`{{ .State }}` of a Go template, `{{ item }}`) is text and stays. Lines
//! whose first character is `#` are comments: a placeholder there explains the template and need not be given.

use crate::fault::{Fault, Place, did_you_mean};
use std::collections::BTreeMap;

/// A placeholder and where it stands.
struct Placeholder<'t> {
    name: &'t str,
    at: Place,
    /// Byte range of the whole mark in its line.
    range: std::ops::Range<usize>,
}

/// Renders a template: each placeholder is replaced by its value, comments included.
///
/// A value is text: it is put in as it stands and never searched for placeholders again.
///
/// **Errors**: every placeholder without a value, once per name at its first place outside of comments; every value
/// that no placeholder asks for, since that is a slip of the pen.
pub fn render(source: &str, text: &str, values: &BTreeMap<String, String>) -> Result<String, Vec<Fault>> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut asked: Vec<&str> = Vec::new();
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let mut from = 0;
        for placeholder in placeholders(source, index, line) {
            out.push_str(line.get(from..placeholder.range.start).unwrap_or_default());
            from = placeholder.range.end;
            let first = !asked.contains(&placeholder.name);
            if first && (values.contains_key(placeholder.name) || !is_comment(line)) {
                asked.push(placeholder.name);
            }
            match values.get(placeholder.name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str(line.get(placeholder.range.clone()).unwrap_or_default());
                    if first && !is_comment(line) {
                        let name = placeholder.name;
                        let message = format!("the placeholder `{{{{{name}}}}}` has no value");
                        let given = did_you_mean(name, values.keys().map(String::as_str));
                        let hint = given.unwrap_or_else(|| format!("give it one: --set {name}=VALUE"));
                        faults.push(Fault::at(&placeholder.at, "", message).suggest(Some(hint)));
                    }
                }
            }
        }
        out.push_str(line.get(from..).unwrap_or_default());
    }
    for name in values.keys().filter(|name| !asked.contains(&name.as_str())) {
        let message = format!("the template has no placeholder `{{{{{name}}}}}`");
        let known = did_you_mean(name, asked.iter().copied());
        faults.push(Fault::at(&Place::start(source), "", message).suggest(known));
    }
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

/// The first placeholder outside of a comment, as the fault of a text that should be YAML by now.
pub(crate) fn unrendered(source: &str, text: &str) -> Option<Fault> {
    let found = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !is_comment(line))
        .find_map(|(index, line)| placeholders(source, index, line).next())?;
    let name = found.name;
    let message = format!("`{{{{{name}}}}}` is an unrendered placeholder of a template");
    let hint = format!("render the template first: delegate pipeline render {source} --set {name}=VALUE");
    Some(Fault::at(&found.at, "", message).suggest(Some(hint)))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The placeholders of a line, in order.
fn placeholders<'t>(source: &'t str, index: usize, line: &'t str) -> impl Iterator<Item = Placeholder<'t>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        while let Some(at) = line.get(from..).and_then(|rest| rest.find("{{")) {
            let open = from + at;
            // One further, not two: the mark may begin with the second brace of three.
            from = open + 1;
            let rest = line.get(open + 2..)?;
            let close = rest.find("}}")?;
            let name = rest.get(..close).unwrap_or_default().trim_matches(' ');
            let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
            if is_name {
                let column = line.get(..open).map_or(0, |before| before.chars().count());
                let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
                let place = Place { source: source.into(), line: count(index), column: count(column) };
                let end = open + 2 + close + 2;
                from = end;
                return Some(Placeholder { name, at: place, range: open..end });
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_placeholder_is_replaced_and_other_braces_stay() {
        let text = "# {{SERVICE_NAME}}\nname: \"{{SERVICE_NAME}}-cd\"\r\nrun: docker inspect -f '{{.State}}' {{ TEAM }}{{TEAM}}\n";
        let done = render("t.yaml", text, &values(&[("SERVICE_NAME", "pay"), ("TEAM", "a{{TEAM}}")]));
        assert_eq!(
            done.unwrap(),
            "# pay\nname: \"pay-cd\"\r\nrun: docker inspect -f '{{.State}}' a{{TEAM}}a{{TEAM}}\n"
        );
    }

    #[test]
    fn missing_and_superfluous_values_are_told_at_once() {
        let text = "# {{ONLY_A_COMMENT}}\na: {{SERVICE_NAME}}\nb: {{SERVICE_NAME}} é{{TEAM}}\n";
        let faults = render("t.yaml", text, &values(&[("SERVICE_NAM", "x"), ("ZONE", "y")])).unwrap_err();
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "t.yaml:2:4: the placeholder `{{SERVICE_NAME}}` has no value (did you mean `SERVICE_NAM`?)",
                "t.yaml:3:22: the placeholder `{{TEAM}}` has no value (give it one: --set TEAM=VALUE)",
                "t.yaml:1:1: the template has no placeholder `{{SERVICE_NAM}}` (did you mean `SERVICE_NAME`?)",
                "t.yaml:1:1: the template has no placeholder `{{ZONE}}`",
            ]
        );
    }

    #[test]
    fn unclosed_braces_are_text() {
        let text = "a: {{TEAM\nb: {{{{TEAM}}\nc: {{}}{{{TEAM}}}\n";
        assert_eq!(render("t", text, &values(&[("TEAM", "x")])).unwrap(), "a: {{TEAM\nb: {{x\nc: {{}}{x}\n");
    }
}
