//! One condition of a trigger: key, operator, value.

use super::facts::{EventScope, TriggerFacts};
use crate::fault::{Fault, Findings};
use crate::model::read::{Reader, one_of, whole_match};
use crate::rules;
use crate::yaml::Node;
use expr::Mode;

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "The names are those of the documents.")]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    StartsWith,
    EndsWith,
    Contains,
    DoesNotContain,
    Regex,
    NotNull,
    IsNull,
}

const OPERATORS: [(&str, Operator); 11] = [
    ("Equals", Operator::Equals),
    ("NotEquals", Operator::NotEquals),
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("StartsWith", Operator::StartsWith),
    ("EndsWith", Operator::EndsWith),
    ("Contains", Operator::Contains),
    ("DoesNotContain", Operator::DoesNotContain),
    ("Regex", Operator::Regex),
    ("NotNull", Operator::NotNull),
    ("IsNull", Operator::IsNull),
];

/// A condition about the body or a header of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at.
    pub key: Key,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub value: String,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A key of the body (rule R21).
    Payload(String),
    /// A header.
    Header(String),
    /// A text with expressions.
    Expression(String),
}

impl Key {
    /// As it was written.
    pub fn written(&self) -> &str {
        let (Key::Payload(text) | Key::Header(text) | Key::Expression(text)) = self;
        text
    }
}

impl Condition {
    /// Why the event does not meet it; `None` when it does.
    pub(super) fn refuses(&self, facts: &TriggerFacts, now_ms: i64) -> Option<String> {
        let found = match &self.key {
            Key::Payload(key) => facts.payload_text(key),
            Key::Header(name) => facts.header_text(name),
            Key::Expression(text) => {
                let scope = EventScope(facts);
                match expr::render_value(text, &facts.context(&scope, now_ms), Mode::Null) {
                    Ok(value) if value.is_null() => None,
                    Ok(value) => Some(value.to_string()),
                    Err(error) => return Some(format!("`{text}`: {error}")),
                }
            }
        };
        let input = found.as_deref().unwrap_or_default();
        if self.holds(input) {
            return None;
        }
        let shown = match found {
            None => "nothing".to_owned(),
            Some(text) => format!("`{}`", shorten(&text)),
        };
        let value = match self.operator {
            Operator::NotNull | Operator::IsNull => String::new(),
            _ => format!(" `{}`", self.value),
        };
        Some(format!("`{}` {:?}{value} does not hold: found {shown}", self.key.written(), self.operator))
    }

    fn holds(&self, input: &str) -> bool {
        let value = self.value.as_str();
        let both_blank = value.trim().is_empty() && input.trim().is_empty();
        match self.operator {
            Operator::Equals => both_blank || input == value,
            Operator::NotEquals => !both_blank && input != value,
            Operator::NotNull => !input.trim().is_empty(),
            Operator::IsNull => input.trim().is_empty(),
            // A condition that compares with nothing asks for nothing.
            _ if value.trim().is_empty() => true,
            Operator::In => is_in(input, value),
            Operator::NotIn => !is_in(input, value),
            Operator::StartsWith => input.starts_with(value),
            Operator::EndsWith => input.ends_with(value),
            Operator::Contains => input.contains(value),
            Operator::DoesNotContain => !input.contains(value),
            Operator::Regex => pattern(value).is_ok_and(|regex| regex.is_match(input)),
        }
    }
}

/// A literal hit, else each item as a pattern for the whole input.
fn is_in(input: &str, list: &str) -> bool {
    let items = split_csv(list);
    items.iter().any(|item| item == input)
        || items.iter().any(|item| pattern(item).is_ok_and(|regex| regex.is_match(input)))
}

/// Matches a whole text; a dot also stands for a line end.
fn pattern(text: &str) -> Result<regex::Regex, regex::Error> {
    whole_match(text).dot_matches_new_line(true).build()
}

/// Items between commas, trimmed; one in double quotes keeps its commas and blanks, `""` in it is one quote.
fn split_csv(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut quoted = false;
    let mut was_quoted = false;
    let mut chars = text.chars().peekable();
    let mut finish = |item: &mut String, was_quoted: &mut bool| {
        let done = std::mem::take(item);
        items.push(if std::mem::take(was_quoted) { done } else { done.trim().to_owned() });
    };
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                item.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if item.trim().is_empty() && !was_quoted => {
                item.clear();
                quoted = true;
                was_quoted = true;
            }
            ',' if !quoted => finish(&mut item, &mut was_quoted),
            // Blanks behind a closing quote belong to nothing.
            c if was_quoted && !quoted && c.is_whitespace() => {}
            c => item.push(c),
        }
    }
    finish(&mut item, &mut was_quoted);
    items
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Where a condition stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Payload,
    Header,
}

/// Reads a list of conditions.
pub(super) fn read_conditions(
    list: &[Node],
    path: &str,
    about: About,
    findings: &mut Findings,
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let mut reader = Reader::new(node, format!("{path}[{index}]"), findings);
        let key = reader.required("key", findings);
        let operator = reader.required("operator", findings);
        let value = reader.field("value", findings);
        reader.finish(findings);
        let (Some(key), Some(written)) = (key, operator) else { continue };
        let Some(operator) = one_of(&written, "operator", &OPERATORS, findings) else { continue };
        let text = key.text();
        let value = value.map_or_else(|| (String::new(), written.clone()), |field| (field.text(), field));
        match operator {
            Operator::NotNull | Operator::IsNull => rules::r20_operator(&written, findings),
            Operator::Regex => {
                if let Err(error) = pattern(&value.0) {
                    let message = format!("`{}` is not a regular expression that can be used", value.0);
                    let why = error.to_string().lines().last().unwrap_or_default().to_owned();
                    findings.push(Fault::at(&value.1.at, &value.1.path, message).suggest(Some(why)));
                }
            }
            _ => {}
        }
        let key = if expr::scan::has_blocks(&text) {
            if let Err(error) = expr::references(&text) {
                findings.fault(&key.at, &key.path, error.to_string());
            }
            Key::Expression(text)
        } else if about == About::Header {
            Key::Header(text)
        } else {
            if matches!(text.as_str(), "sourceBranch" | "targetBranch" | "changedFiles") {
                let message = format!("`{text}` is known of Git events only, which are not supported yet");
                findings.fault(&key.at, &key.path, message);
            }
            rules::r21_payload_key(&key, findings);
            Key::Payload(text)
        };
        conditions.push(Condition { key, operator, value: value.0 });
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(operator: Operator, value: &str) -> Condition {
        Condition { key: Key::Payload("k".to_owned()), operator, value: value.to_owned() }
    }

    #[test]
    fn operators_by_their_table() {
        use Operator::*;
        for (operator, value, input, holds) in [
            (Equals, "a", "a", true),
            (Equals, "a", "A", false),
            (Equals, "", "", true),
            (Equals, " ", "", true),
            (Equals, "", "x", false),
            (NotEquals, "a", "b", true),
            (NotEquals, "a", "a", false),
            (NotEquals, "", "", false),
            (In, "a, b", "b", true),
            (In, "a,b", "c", false),
            (In, r#""a,b", c"#, "a,b", true),
            (In, r#""a,b", c"#, "a", false),
            (In, r#""say ""hi""",c"#, r#"say "hi""#, true),
            (In, "rel-.*,main", "rel-7", true),
            (In, "rel-.*", "x-rel-7", false),
            (In, "(", "(", true),
            (NotIn, "a,b", "c", true),
            (NotIn, "a,b", "a", false),
            (NotIn, "", "a", true),
            (StartsWith, "ab", "abc", true),
            (StartsWith, "ab", "ba", false),
            (StartsWith, "", "ba", true),
            (EndsWith, "bc", "abc", true),
            (EndsWith, "bc", "bcd", false),
            (Contains, "b", "abc", true),
            (Contains, "x", "abc", false),
            (DoesNotContain, "x", "abc", true),
            (DoesNotContain, "b", "abc", false),
            (Regex, "v[0-9.]+", "v2.3.1", true),
            (Regex, "v[0-9.]+", "v2.3.1-rc", false),
            (Regex, "a.b", "a\nb", true),
            (NotNull, "", "x", true),
            (NotNull, "ignored", "", false),
            (NotNull, "", "  ", false),
            (IsNull, "ignored", "", true),
            (IsNull, "", "x", false),
        ] {
            assert_eq!(condition(operator, value).holds(input), holds, "{input:?} {operator:?} {value:?}");
        }
    }
}
