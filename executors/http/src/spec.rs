//! From the typed spec to a request that can be sent.

use crate::error::Error;
use executor_api::{SecretSource, SpecFault};
use proto::task::HttpSpec;
use proto::text::{Text, placeholders};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use url::Url;

/// Methods of the step. Harness turns any other into HEAD without a word; here it is a fault.
const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Sent with a body for which the author names no type.
const DEFAULT_TYPE: &str = "text/plain; charset=utf-8";

/// A request with its secrets in place. It lives only while the step runs and has no `Debug`.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Headers that are not sent to another host after a redirect.
    pub(crate) confidential: BTreeSet<String>,
    pub(crate) body: Option<Vec<u8>>,
}

/// Whether the method promises to change nothing (RFC 9110 §9.2.1).
pub(crate) fn is_safe(method: &Method) -> bool {
    method.is_safe()
}

/// Whether a second try of the same request does no harm (RFC 9110 §9.2.2).
pub(crate) fn is_repeatable(method: &Method) -> bool {
    method.is_idempotent()
}

/// The method, in any case.
pub(crate) fn method(text: &str) -> Option<Method> {
    METHODS.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text.trim()))
}

/// What stands in checkpoints and logs: the URL as the author wrote it, where secrets are still placeholders.
pub(crate) fn call(method: &Method, spec: &HttpSpec) -> String {
    format!("{method} {}", spec.url.as_str().trim())
}

/// Every fault that can be seen without secrets and without I/O.
pub(crate) fn check(spec: &HttpSpec) -> Result<(), Vec<SpecFault>> {
    let mut faults = Vec::new();
    let mut fault = |field: String, problem: String| faults.push(SpecFault { field, problem });
    if method(&spec.method).is_none() {
        let known = METHODS.map(|m| m.to_string()).join(", ");
        fault("method".into(), format!("`{}` is not a method of this step; known are {known}", spec.method));
    }
    if let Err(problem) = url_of(&without_secrets(&spec.url)) {
        fault("url".into(), format!("`{}` {problem}", spec.url.as_str()));
    }
    for (index, (name, value)) in spec.headers.iter().enumerate() {
        if name.trim().parse::<HeaderName>().is_err() {
            fault(format!("headers[{index}].key"), format!("`{name}` is not a header name"));
        }
        if HeaderValue::from_str(&without_secrets(value)).is_err() {
            fault(
                format!("headers[{index}].value"),
                "holds a line break or another control character".into(),
            );
        }
    }
    if spec.timeout_ms == Some(0) {
        fault("timeout".into(), "is 0; leave it out for the step's own timeout".into());
    }
    for (index, output) in spec.output_variables.iter().enumerate() {
        if output.name.trim().is_empty() {
            fault(format!("outputVariables[{index}].name"), "is empty".into());
        }
    }
    faults.extend(crate::judge::check(spec));
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// `text` with a letter in place of every secret, so that its shape can be looked at.
fn without_secrets(text: &Text) -> String {
    let mut shape = text.as_str().to_owned();
    for placeholder in placeholders(text.as_str()).into_iter().rev() {
        shape.replace_range(placeholder.range, "s");
    }
    shape
}

/// The URL in `text`. Characters that need it are percent-encoded; what is encoded already stays.
fn url_of(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|e| format!("is not a URL: {e}"))?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(host)) if !host.is_empty() => Ok(url),
        ("http" | "https", _) => Err("names no host".into()),
        (other, _) => Err(format!("has scheme `{other}`; expected http or https")),
    }
}

/// The request with its secrets in place.
///
/// A secret may break the shape that `check` saw (a line break in a header); then the fault names the field and not the
/// value.
pub(crate) fn request(spec: &HttpSpec, secrets: &dyn SecretSource) -> Result<Request, Error> {
    check(spec).map_err(Error::Spec)?;
    let fault =
        |field: String, problem: &str| Error::Spec(vec![SpecFault { field, problem: problem.into() }]);
    let reveal = |text: &Text, field: &str| {
        secrets.reveal(text).map_err(|source| Error::Secret { field: field.to_owned(), source })
    };
    let method = method(&spec.method).ok_or_else(|| fault("method".into(), "is unknown"))?;
    let url = url_of(reveal(&spec.url, "url")?.expose_secret())
        .map_err(|_| fault("url".into(), "is not a URL once its secrets are in place"))?;
    let mut headers = HeaderMap::new();
    let mut confidential: BTreeSet<String> =
        ["authorization", "cookie", "proxy-authorization"].map(str::to_owned).into();
    for (index, (name, value)) in spec.headers.iter().enumerate() {
        let field = format!("headers[{index}].value");
        let name: HeaderName = name
            .trim()
            .parse()
            .map_err(|_| fault(format!("headers[{index}].key"), "is not a header name"))?;
        let mut header = HeaderValue::from_str(reveal(value, &field)?.expose_secret())
            .map_err(|_| fault(field, "cannot stand in a header once its secrets are in place"))?;
        header.set_sensitive(true);
        if !placeholders(value.as_str()).is_empty() {
            confidential.insert(name.as_str().to_owned());
        }
        headers.append(name, header);
    }
    let mut body = match &spec.body {
        Some(text) if !text.is_empty() => {
            Some(reveal(text, "requestBody")?.expose_secret().as_bytes().to_vec())
        }
        _ => None,
    };
    if method == Method::GET || method == Method::HEAD {
        // As Harness does; servers and proxies disagree on what such a body means.
        body = None;
    }
    if body.is_some() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(DEFAULT_TYPE));
    }
    Ok(Request { method, url, headers, confidential, body })
}

/// A URL for messages: without user, password, query and fragment, any of which may be secret.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The same for a spec whose secrets are still placeholders.
pub(crate) fn shown_spec(spec: &HttpSpec) -> String {
    let written = spec.url.as_str().trim();
    let end = written.find(['?', '#']).unwrap_or(written.len());
    written.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::text::{SecretRef, placeholder};
    use std::collections::BTreeMap;

    struct Values(BTreeMap<String, String>);

    impl SecretSource for Values {
        fn get(&self, secret: &SecretRef) -> Result<executor_api::SecretText, executor_api::SecretError> {
            match self.0.get(&secret.0) {
                Some(value) => Ok(value.clone().into()),
                None => Err(executor_api::SecretError::Missing(secret.0.clone())),
            }
        }
        fn reveal(&self, text: &Text) -> Result<executor_api::SecretText, executor_api::SecretError> {
            let mut shown = text.as_str().to_owned();
            for found in placeholders(text.as_str()).into_iter().rev() {
                shown.replace_range(found.range.clone(), self.get(&found.secret)?.expose_secret());
            }
            Ok(shown.into())
        }
        fn mask(&self, _: &executor_api::SecretText) {}
    }

    fn spec(method: &str, url: &str) -> HttpSpec {
        serde_json::from_value(serde_json::json!({"url": url, "method": method})).unwrap()
    }

    #[test]
    fn every_fault_is_named() {
        let mut spec = spec("FETCH", "ftp://x/");
        spec.headers = vec![("a b".into(), "x".into()), ("X".into(), "a\nb".into())];
        spec.timeout_ms = Some(0);
        spec.output_variables =
            vec![proto::task::OutputVariable { name: " ".into(), value: "1".into(), secret: false }];
        let fields: Vec<_> = check(&spec).unwrap_err().into_iter().map(|fault| fault.field).collect();
        let wanted =
            ["method", "url", "headers[0].key", "headers[1].value", "timeout", "outputVariables[0].name"];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn urls_without_host_and_of_other_schemes_are_faults() {
        for url in ["", "/health", "host/health", "http://", "file:///etc/passwd", "javascript:x"] {
            assert!(check(&spec("GET", url)).is_err(), "{url}");
        }
        for url in ["http://h", " https://h:8443/a b?c=<d> ", "http://[::1]:80/", "http://h/%20x"] {
            assert!(check(&spec("get", url)).is_ok(), "{url}");
        }
    }

    #[test]
    fn secrets_are_placed_and_their_headers_are_confidential() {
        let token = placeholder(&SecretRef("org.t".into()), 1);
        let mut spec = spec("Post", &format!("https://h/{token}?q={token}"));
        spec.headers = vec![("X-Key".into(), format!("k {token}").into()), ("Accept".into(), "a".into())];
        spec.body = Some(format!("{{\"t\":\"{token}\"}}").into());
        assert_eq!(check(&spec), Ok(()));
        let secrets = Values(BTreeMap::from([("org.t".to_owned(), "v/1".to_owned())]));
        let request = request(&spec, &secrets).ok().unwrap();
        assert_eq!(request.url.as_str(), "https://h/v/1?q=v/1");
        assert_eq!(request.headers["x-key"], "k v/1");
        assert_eq!(request.headers[CONTENT_TYPE], DEFAULT_TYPE);
        assert_eq!(request.body.as_deref(), Some(br#"{"t":"v/1"}"#.as_slice()));
        assert!(request.confidential.contains("x-key") && !request.confidential.contains("accept"));
        assert!(!call(&request.method, &spec).contains("v/1"));
    }

    #[test]
    fn a_secret_that_breaks_a_header_is_not_shown() {
        let mut spec = spec("GET", "https://h/");
        spec.headers = vec![("X".into(), placeholder(&SecretRef("t".into()), 1).into())];
        let secrets = Values(BTreeMap::from([("t".to_owned(), "sec\nret".to_owned())]));
        let error = request(&spec, &secrets).err().unwrap().to_string();
        assert!(
            error.contains("headers[0].value") && !error.contains("ret\n") && !error.contains("sec\n"),
            "{error}"
        );
        let error = request(&spec, &Values(BTreeMap::new())).err().unwrap().to_string();
        assert!(error.contains("secret `t` is not available"), "{error}");
    }

    #[test]
    fn messages_show_neither_query_nor_password() {
        let url = Url::parse("https://user:pw@h:8443/a?key=v#f").unwrap();
        assert_eq!(shown(&url), "https://h:8443/a");
        assert_eq!(shown_spec(&spec("GET", "https://h/a?b")), "https://h/a");
    }

    proptest::proptest! {
        /// Whatever passes the check can be made into a request, as long as its secrets fit.
        #[test]
        fn any_spec_is_checked(url in ".{0,40}", path in ".{0,20}", method in "(?i)(get|post|put|head)|.{0,5}", name in ".{0,10}", value: String, body: String) {
            for url in [url, format!("http://h/{path}")] {
                let mut spec = spec(&method, &url);
                spec.headers = vec![(name.clone(), value.as_str().into())];
                spec.body = Some(body.as_str().into());
                spec.assertion = Some(value.clone());
                let passed = check(&spec).is_ok();
                let made = request(&spec, &Values(BTreeMap::new()));
                proptest::prop_assert!(made.is_ok() == passed || !placeholders(&value).is_empty());
                let _shown = shown_spec(&spec);
            }
        }

        #[test]
        fn any_response_is_judged(status in 100_u16..600, body: String, assertion: String, output: String) {
            let mut spec = spec("GET", "http://h");
            spec.assertion = Some(assertion);
            spec.output_variables = vec![proto::task::OutputVariable { name: "o".into(), value: output, secret: true }];
            let response = crate::request::Response { status, body, cut: false, retry_after_s: None };
            let secrets = Values(BTreeMap::new());
            let outside = crate::judge::Outside { now_ms: 0, secret_token: 1, secrets: &secrets };
            let _verdict = crate::judge::judge(&spec, &response, &outside);
        }
    }
}
