//! Documents as forms of the AWS Query protocol: `Actions.member.1.Type=forward`.

use serde_json::Value;
use url::form_urlencoded::Serializer;

/// Members that are maps from text to text. Everything else that is an object is a structure: the wire writes the two
/// differently, and only the service's model tells them apart (Elastic Load Balancing v2; CloudWatch's
/// datapoints).
const MAPS: [&str; 2] = ["AuthenticationRequestExtraParams", "ExtendedStatistics"];

/// Whether the member `name` is a map.
pub(super) fn is_map(name: &str) -> bool {
    MAPS.contains(&name)
}

/// The body of a request.
pub(super) fn form(action: &str, version: &str, input: &Value) -> String {
    let mut out = Serializer::new(String::new());
    out.append_pair("Action", action).append_pair("Version", version);
    let mut pairs = Vec::new();
    if let Value::Object(members) = input {
        for (name, value) in members {
            write(name.clone(), name, value, &mut pairs);
        }
    }
    out.extend_pairs(pairs);
    out.finish()
}

/// Appends what `value` is at `path`; `name` is the last part of the path that is a member's name.
pub(super) fn write(path: String, name: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => out.push((path, flag.to_string())),
        Value::Number(number) => out.push((path, number.to_string())),
        Value::String(text) => out.push((path, text.clone())),
        // That is how the protocol says "no entries", which is something else than "not given".
        Value::Array(entries) if entries.is_empty() => out.push((path, String::new())),
        Value::Array(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                write(format!("{path}.member.{}", at + 1), "member", entry, out);
            }
        }
        Value::Object(entries) if is_map(name) => {
            for (at, (key, entry)) in entries.iter().enumerate() {
                out.push((format!("{path}.entry.{}.key", at + 1), key.clone()));
                write(format!("{path}.entry.{}.value", at + 1), "value", entry, out);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                write(format!("{path}.{name}"), name, value, out);
            }
        }
    }
}
