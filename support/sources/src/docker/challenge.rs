//! `WWW-Authenticate` and `Link` headers. Pure.

/// One challenge of a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one header value. **Source**: RFC 9110 §11.6.1; what does not parse is left out.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    for item in split(header) {
        // `Bearer realm="x"` begins a challenge, `service="y"` goes on with it.
        let (head, tail) = match item.split_once(char::is_whitespace) {
            Some((head, tail)) if !head.contains('=') => (Some(head), tail.trim()),
            None if !item.contains('=') => (Some(item), ""),
            _ => (None, item),
        };
        if let Some(scheme) = head {
            found.push(Challenge { scheme: scheme.to_owned(), params: Vec::new() });
        }
        if let (Some((key, value)), Some(challenge)) = (tail.split_once('='), found.last_mut()) {
            challenge.params.push((key.trim().to_owned(), unquote(value.trim())));
        }
    }
    found
}

/// Parts between commas that stand outside quotes.
fn split(header: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in header.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(header.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(header.get(from..).unwrap_or_default());
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

/// The target of `Link: <…>; rel="next"`.
pub(super) fn next_page(header: &str) -> Option<&str> {
    split(header).into_iter().find_map(|link| {
        let (target, params) = link.strip_prefix('<')?.split_once('>')?;
        let is_next = params.split(';').any(|param| {
            param.trim().split_once('=').is_some_and(|(key, value)| {
                key.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            })
        });
        is_next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_with_quotes_commas_and_several_schemes() {
        let header = r#"Bearer realm="https://auth.example.com/token",service="reg, one",scope="repository:a/b:pull,push", Basic realm="x \"y\"""#;
        let found = parse(header);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("Realm"), Some("https://auth.example.com/token"));
        assert_eq!(found[0].get("service"), Some("reg, one"));
        assert_eq!(found[0].get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(found[1].scheme, "Basic");
        assert_eq!(found[1].get("realm"), Some("x \"y\""));
        assert_eq!(parse("Negotiate")[0].scheme, "Negotiate");
        assert!(parse("").is_empty());
        assert!(parse("a=b").is_empty());
    }

    #[test]
    fn the_next_page_is_found() {
        assert_eq!(
            next_page(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(next_page(r#"</x>; rel="prev", </y>; rel=next"#), Some("/y"));
        assert_eq!(next_page("nonsense"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(header in ".{0,80}") {
            let _ = parse(&header);
            let _ = next_page(&header);
        }
    }
}
