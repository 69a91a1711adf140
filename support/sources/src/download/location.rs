//! From a source to a URL. Pure.

use crate::error;
use executor_api::StepError;
use proto::task::DownloadSource;
use url::Url;

/// `<serverUrl>/<repository>/<path>`. **Source**: rule R8, pipeline.md §1.6.
///
/// Each part of repository and path is escaped; `.` and `..` parts are refused, so that the URL stays below the server's.
pub(super) fn of(source: &DownloadSource) -> Result<Url, StepError> {
    let connector = &source.connector;
    let field = format!("connector `{}`, url", connector.identifier);
    let mut url = Url::parse(connector.url.trim())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| error::bad_url(&field, &connector.url, "an http or https URL"))?;
    url.set_query(None);
    url.set_fragment(None);
    let mut parts = Vec::new();
    for (field, text, required) in
        [("repository", &source.repository, false), ("artifactPath", &source.path, true)]
    {
        let before = parts.len();
        for part in text.trim().split('/').filter(|part| !part.is_empty()) {
            if matches!(part, "." | "..") || part.contains(['\\', '\0', '\n', '\r']) {
                return Err(error::bad_url(field, text, "a path without `..`, backslashes or line breaks"));
            }
            parts.push(part);
        }
        if required && (parts.len() == before || text.ends_with('/')) {
            return Err(error::bad_url(field, text, "the path of a file in the repository"));
        }
    }
    url.path_segments_mut()
        .map_err(|()| error::bad_url(&field, &connector.url, "an http or https URL"))?
        .pop_if_empty()
        .extend(parts);
    Ok(url)
}

/// The name the file takes on a target when only a directory is given.
pub(super) fn file_name(url: &Url) -> Result<String, StepError> {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let name = percent_decode(last);
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0', '\\']) {
        return Err(error::bad_url("artifactPath", last, "a path that ends in a file name"));
    }
    Ok(name)
}

/// The step's checksum in lower case, if it names one.
pub(super) fn checksum(source: &DownloadSource) -> Result<Option<String>, StepError> {
    let Some(text) = source.sha256.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let sum = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    if sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(Some(sum))
    } else {
        Err(error::bad_url("sha256", text, "64 hexadecimal digits"))
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = (byte == b'%').then(|| {
            let mut ahead = rest.clone();
            let high = char::from(ahead.next()?).to_digit(16)?;
            let low = char::from(ahead.next()?).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        if let Some(Some(decoded)) = digits {
            bytes.push(decoded);
            rest.nth(1);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::task::{HttpAuth, HttpConnector};

    fn source(url: &str, repository: &str, path: &str) -> DownloadSource {
        DownloadSource {
            connector: HttpConnector {
                identifier: "art".into(),
                url: url.into(),
                auth: HttpAuth::Anonymous,
                headers: vec![],
            },
            repository: repository.into(),
            path: path.into(),
            sha256: None,
        }
    }

    #[test]
    fn server_repository_and_path_are_joined_and_escaped() {
        let url = |url, repository, path| of(&source(url, repository, path)).unwrap().to_string();
        assert_eq!(
            url("https://a.example.com/artifactory/", "myapp-releases", "myapp-7.tar.gz"),
            "https://a.example.com/artifactory/myapp-releases/myapp-7.tar.gz"
        );
        assert_eq!(
            url("http://a:8081", "/r/", "/x//y z/é?q#f.zip"),
            "http://a:8081/r/x/y%20z/%C3%A9%3Fq%23f.zip"
        );
        assert_eq!(url("http://a/base?x=1#y", "", "f"), "http://a/base/f");
        assert_eq!(file_name(&of(&source("http://a", "r", "y z/é?#f.zip")).unwrap()).unwrap(), "é?#f.zip");
    }

    #[test]
    fn paths_that_leave_the_repository_are_refused() {
        for (url, repository, path) in [
            ("http://a", "r", "../secret"),
            ("http://a", "..", "x"),
            ("http://a", "r", "x/./y"),
            ("http://a", "r", "x\\..\\y"),
            ("http://a", "r", ""),
            ("http://a", "r", "folder/"),
            ("http://a", "r", "x\ny"),
            ("ftp://a", "r", "x"),
            ("nonsense", "r", "x"),
        ] {
            let error = of(&source(url, repository, path)).unwrap_err();
            assert_eq!(error.code, "SRC-008", "{url} {repository} {path}");
        }
        // An escaped traversal stays one escaped part.
        assert_eq!(of(&source("http://a", "r", "..%2f..%2fx")).unwrap().path(), "/r/..%252f..%252fx");
        let escaped = of(&source("http://a", "r", "%2e%2e")).map(|url| url.path().to_owned());
        assert!(escaped.is_err() || escaped.unwrap().starts_with("/r/"));
    }

    #[test]
    fn a_checksum_is_hex_of_the_right_length() {
        let sum = "AB".repeat(32);
        let with =
            |sha256: &str| DownloadSource { sha256: Some(sha256.into()), ..source("http://a", "r", "x") };
        assert_eq!(checksum(&with(&sum)).unwrap(), Some("ab".repeat(32)));
        assert_eq!(checksum(&with(&format!("sha256:{sum}"))).unwrap(), Some("ab".repeat(32)));
        assert_eq!(checksum(&with("")).unwrap(), None);
        assert_eq!(checksum(&with("xyz")).unwrap_err().code, "SRC-008");
    }
}
