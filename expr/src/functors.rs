//! The functors that need nothing but their arguments, the clock and the secret token.

use crate::error::Kind;
use crate::moment::{Moment, Style};
use crate::ops::Fault;
use crate::value::Value;
use crate::{Context, jsonpath, regexes, xml};

/// Calls `functor.method(arguments)`. `None`: there is no such functor or method here.
pub(crate) fn call(
    functor: &str,
    method: &str,
    arguments: &[Value],
    context: &Context<'_>,
) -> Option<Result<Value, Fault>> {
    let tainted = arguments.iter().any(Value::is_tainted);
    let text = |value: &Value| value.to_string();
    Some(match (functor, method, arguments) {
        ("json", "select", [path, json]) => {
            document(json).and_then(|json| jsonpath::select(&text(path), &json))
        }
        ("json", "list", [path, json]) => {
            document(json).and_then(|json| jsonpath::select(&text(path), &json)).map(|found| match found {
                Value::List(_) => found,
                Value::Null => Value::list(Vec::new()),
                one => Value::list(vec![one]),
            })
        }
        ("json", "object", [json]) => document(json),
        ("json", "format", [value]) => Ok(Value::text_marked(value.to_json().to_string(), tainted)),
        ("xml", "select", [path, source]) => xml::select(&text(path), &text(source))
            .map(|found| Value::text_marked(found, tainted))
            .map_err(|message| (Kind::Functor, message)),
        ("regex", "extract", [pattern, source]) => regexes::find(&text(pattern)).map(|regex| {
            let source = text(source);
            let found = regex.find_iter(&source).find(|found| !found.is_empty());
            Value::text_marked(found.map_or("", |found| found.as_str()), tainted)
        }),
        ("regex", "match", [pattern, source]) => {
            regexes::find(&text(pattern)).map(|regex| Value::Bool(regex.is_match(&text(source))))
        }
        ("regex", "replace", [pattern, replacement, source]) => regexes::find(&text(pattern))
            .and_then(|regex| regexes::replace_all(&regex, &text(source), &text(replacement)))
            .map(|made| Value::text_marked(made, tainted)),
        ("shell", "escape", [value]) => Ok(Value::text_marked(shell_escape(&text(value)), tainted)),
        ("shell", "quote", [value]) => Ok(Value::text_marked(shell_quote(&text(value)), tainted)),
        ("shell", "doubleQuote", [value]) => {
            Ok(Value::text_marked(shell_double_quote(&text(value)), tainted))
        }
        ("datetime", "currentDate", []) => Ok(Value::Moment(Moment::new(context.now_ms, Style::Date))),
        ("datetime", "currentTime", []) => Ok(Value::Moment(Moment::new(context.now_ms, Style::Time))),
        ("secrets", "getValue", [name]) => secret(name, context),
        _ => return None,
    })
    .map(|result| {
        // Whatever a functor objects to raises, also inside of a block (pipeline.md §3.3).
        result.map_err(|(kind, message)| match kind {
            Kind::TooLarge | Kind::TooDeep => (kind, message),
            _ => (Kind::Functor, format!("{functor}.{method}: {message}")),
        })
    })
}

/// Names without a scope: `currentTime` and `currentDate` (rule R15).
pub(crate) fn builtin(name: &str, context: &Context<'_>) -> Option<Value> {
    Some(Value::Moment(match name {
        "currentTime" => Moment::new(context.now_ms, Style::Rfc3339),
        "currentDate" => Moment::new(context.now_ms, Style::Date),
        _ => return None,
    }))
}

/// Whether a name is one of the functors, so that a static scan does not take it for a path.
pub(crate) fn is_functor(name: &str) -> bool {
    matches!(name, "json" | "xml" | "regex" | "shell" | "datetime" | "secrets" | "configFile" | "fileStore")
}

fn document(value: &Value) -> Result<Value, Fault> {
    match value {
        Value::Str(s) => match serde_json::from_str(&s.text) {
            Ok(json) => Ok(Value::from_json(&json, s.tainted)),
            Err(error) => Err((
                Kind::Functor,
                format!("the text is no JSON ({error}): {}", crate::ops::shorten(&s.text)),
            )),
        },
        Value::Null => Err((Kind::Functor, "the document has no value (null)".to_owned())),
        other => Ok(other.clone()),
    }
}

/// Text in which the shell sees no character with a meaning.
fn shell_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            // A line end cannot be escaped by a backslash: the shell would drop both.
            '\n' => out.push_str("'\n'"),
            c if c.is_ascii()
                && !c.is_ascii_alphanumeric()
                && !matches!(c, '_' | '-' | '.' | '/' | ',' | ':' | '@' | '%' | '+' | '=') =>
            {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn shell_double_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The placeholder of a secret. Its value is put in by the agent; nobody here knows it.
fn secret(name: &Value, context: &Context<'_>) -> Result<Value, Fault> {
    let name = name.to_string();
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b' '));
    if !plain {
        let message = format!(
            "`{}` is no secret's name; expected letters, digits, `_`, `-`, `.` or `/`, with `org.` or `account.` in front",
            crate::ops::shorten(&name)
        );
        return Err((Kind::Functor, message));
    }
    Ok(Value::text(format!("{}\"{name}\", {})}}", crate::PLACEHOLDER_HEAD, context.secret_token)))
}
