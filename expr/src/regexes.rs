//! Regular expressions in Java's spelling on an engine that is linear in the text.

use crate::error::Kind;
use crate::ops::Fault;
use regex::{Captures, Regex, RegexBuilder};

/// Compiled size of one pattern. Larger ones are refused: `(a{1000}){1000}` would need gigabytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// A pattern that is looked for anywhere.
pub(crate) fn find(pattern: &str) -> Result<Regex, Fault> {
    compile(&translate(pattern)?, pattern)
}

/// A pattern that must match the whole text.
pub(crate) fn whole(pattern: &str) -> Result<Regex, Fault> {
    compile(&format!(r"\A(?:{})\z", translate(pattern)?), pattern)
}

fn compile(translated: &str, pattern: &str) -> Result<Regex, Fault> {
    RegexBuilder::new(translated)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| {
            let reason = match error {
                regex::Error::CompiledTooBig(_) => "is too large".to_owned(),
                other => format!("is not valid: {}", last_line(&other.to_string())),
            };
            (Kind::Regex, format!("the regular expression `{}` {reason}", crate::ops::shorten(pattern)))
        })
}

fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or("").trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Rewrites what Java and the engine spell differently: `\d`, `\w`, `\s`, `\b` are ASCII in Java, `\Q…\E` quotes, `\Z`
/// allows a final line end. Look-around, back-references and possessive forms have no linear equivalent and are refused.
fn translate(pattern: &str) -> Result<String, Fault> {
    let refuse = |what: &str| {
        let shown = crate::ops::shorten(pattern);
        Err((Kind::Regex, format!("the regular expression `{shown}` uses {what}, which is not supported")))
    };
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        if c == '\\' {
            let after = rest.get(1..).unwrap_or("");
            let Some(escaped) = after.chars().next() else {
                return Err((Kind::Regex, format!("the regular expression `{pattern}` ends in a backslash")));
            };
            used += escaped.len_utf8();
            match escaped {
                'Q' => {
                    let quoted = after.get(1..).unwrap_or("");
                    let end = quoted.find("\\E");
                    out.push_str(&regex::escape(quoted.get(..end.unwrap_or(quoted.len())).unwrap_or("")));
                    used = end.map_or(rest.len(), |end| 2 + end + 2);
                }
                'd' => out.push_str("[0-9]"),
                'D' => out.push_str("[^0-9]"),
                'w' => out.push_str("[0-9A-Za-z_]"),
                'W' => out.push_str("[^0-9A-Za-z_]"),
                's' => out.push_str(r"[ \t\n\x0B\f\r]"),
                'S' => out.push_str(r"[^ \t\n\x0B\f\r]"),
                'b' => out.push_str(r"(?-u:\b)"),
                'Z' => out.push_str(r"(?:\r?\n)?\z"),
                '1'..='9' | 'k' => return refuse("a back-reference"),
                other => {
                    out.push('\\');
                    out.push(other);
                }
            }
        } else if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|form| rest.starts_with(form)) {
            return refuse("look-around");
        } else if rest.starts_with("(?>") {
            return refuse("an atomic group");
        } else {
            out.push(c);
        }
        rest = rest.get(used..).unwrap_or("");
    }
    Ok(out)
}

/// Replaces every match; `$1` and `${name}` in `replacement` stand for groups, `\x` for `x` (Java).
pub(crate) fn replace_all(regex: &Regex, text: &str, replacement: &str) -> Result<String, Fault> {
    let mut out = String::with_capacity(text.len());
    let mut last = 0;
    for captures in regex.captures_iter(text) {
        let Some(found) = captures.get(0) else { continue };
        out.push_str(text.get(last..found.start()).unwrap_or(""));
        expand(&captures, replacement, &mut out)?;
        last = found.end();
        if out.len() > crate::MAX_TEXT {
            return Err(crate::ops::too_large());
        }
    }
    out.push_str(text.get(last..).unwrap_or(""));
    if out.len() > crate::MAX_TEXT { Err(crate::ops::too_large()) } else { Ok(out) }
}

fn expand(captures: &Captures<'_>, replacement: &str, out: &mut String) -> Result<(), Fault> {
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            '$' if chars.peek() == Some(&'{') => {
                chars.next();
                let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let group = captures.name(&name);
                out.push_str(group.map_or("", |m| m.as_str()));
            }
            '$' => {
                // The longest number that names a group, as in Java.
                let mut number = None;
                while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                    let next = number.unwrap_or(0) * 10 + digit as usize;
                    if next >= captures.len() {
                        break;
                    }
                    number = Some(next);
                    chars.next();
                }
                let Some(number) = number else {
                    let message =
                        format!("`{}` names a group that the expression does not have", replacement);
                    return Err((Kind::Regex, message));
                };
                out.push_str(captures.get(number).map_or("", |m| m.as_str()));
            }
            c => out.push(c),
        }
    }
    Ok(())
}

/// Java's `split`: empty strings at the end are dropped unless `limit` is negative; a positive limit bounds the parts;
/// an empty match at the start gives no empty first part.
pub(crate) fn split(pattern: &str, text: &str, limit: i64) -> Result<Vec<String>, Fault> {
    if text.is_empty() {
        return Ok(vec![String::new()]);
    }
    let most = usize::try_from(limit).ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
    let mut parts: Vec<String> = Vec::new();
    let mut last = 0;
    for found in find(pattern)?.find_iter(text) {
        if parts.len() + 1 >= most {
            break;
        }
        if found.end() == 0 || (found.is_empty() && found.start() >= text.len()) {
            continue;
        }
        parts.push(text.get(last..found.start()).unwrap_or("").to_owned());
        last = found.end();
    }
    parts.push(text.get(last..).unwrap_or("").to_owned());
    if limit == 0 {
        while parts.last().is_some_and(String::is_empty) {
            parts.pop();
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_follows_java() {
        for (text, pattern, limit, parts) in [
            ("a,b,c", ",", 0, vec!["a", "b", "c"]),
            ("a,b,,", ",", 0, vec!["a", "b"]),
            ("a,b,,", ",", -1, vec!["a", "b", "", ""]),
            ("a,b,c", ",", 2, vec!["a", "b,c"]),
            (",a", ",", 0, vec!["", "a"]),
            ("5.6.0", ".", 0, vec![]),
            ("abc", "", 0, vec!["a", "b", "c"]),
            ("", ",", 0, vec![""]),
        ] {
            assert_eq!(split(pattern, text, limit).unwrap(), parts, "{text} {pattern} {limit}");
        }
    }

    #[test]
    fn what_is_not_linear_or_too_large_is_refused() {
        for pattern in ["(?=a)", "(?<!a)b", r"(a)\1", "(?>a)", "(a{1000}){1000}", "(", r"a\"] {
            assert_eq!(find(pattern).unwrap_err().0, Kind::Regex, "{pattern}");
        }
        assert!(find(r"(?<name>a)").is_ok());
        assert!(whole(r"\Qa.b\E[\d-]+").unwrap().is_match("a.b1-2"));
        assert!(!whole(r"\d").unwrap().is_match("\u{0663}"));
    }

    #[test]
    fn replacements_name_groups_as_in_java() {
        let regex = find(r"(?<k>\w+)=(\w+)").unwrap();
        assert_eq!(replace_all(&regex, "a=b;c=d", r"$2=${k}\$").unwrap(), "b=a$;d=c$");
        assert!(replace_all(&regex, "a=b", "$9").is_err());
        assert!(replace_all(&regex, "a=b", "$").is_err());
    }
}
