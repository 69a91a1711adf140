//! Docker registries, API v2: tag to digest, and the list of tags.
//!
//! Written on the shared client instead of `oci-client`, because that brings a client of its own: it would not see host
//! aliases, the step's cancellation and deadline, the retry policy, nor the rule that credentials stay with their host.

mod challenge;

use crate::error;
use crate::http::{Access, Answer, Call, basic, bearer};
use bytes::Bytes;
use challenge::Challenge;
use executor_api::{SecretText, StepError};
use proto::task::{HttpAuth, HttpConnector};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Every kind of manifest and index there is; without an index in the list a registry picks one platform's manifest,
/// and the digest would not be that of the tag. **Source**: ecs-ssh-steps.md C4.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest is a few kilobytes; registries themselves refuse more than 4 MiB.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// A page of tags.
const MAX_PAGE_BYTES: u64 = 8 << 20;
/// Pages of 1000 tags: ten thousand is the most that is looked through.
const MAX_PAGES: usize = 10;

/// An image as it stands behind a tag now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// `host[:port]/path`, without tag.
    pub image: String,
    /// As asked.
    pub tag: String,
    /// `sha256:…`: what to pin.
    pub digest: String,
    /// Media type of the manifest or index.
    pub media_type: String,
}

/// Looks up the digest behind `tag`.
///
/// **Errors**: `BadSpec` SRC-015 with the nearest or newest tags when there is none; SRC-007 when the registry's digest is
/// not that of the bytes; those of [`Access::send`].
pub async fn resolve_tag(
    access: &Access,
    connector: &HttpConnector,
    image_path: &str,
    tag: &str,
) -> Result<ResolvedImage, StepError> {
    let tag = tag.trim();
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
    if tag.is_empty() || tag.len() > 200 || !tag.chars().all(valid) {
        return Err(error::bad_url("tag", tag, "letters, digits, `_`, `.` and `-`"));
    }
    let mut session = Session::open(access, connector, image_path)?;
    let url = session.url(&["manifests", tag])?;
    let accept = HeaderValue::from_static(MANIFESTS);
    let mut call = Call::get(url.clone(), &connector.identifier).header(ACCEPT, accept);
    call.method = Method::HEAD;
    let (answer, _) = session.fetch(&call, MAX_MANIFEST_BYTES).await?;
    let digest = match (answer.status, digest_of(&answer)) {
        (StatusCode::OK, Some(digest)) => (digest, answer),
        (StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {
            // Some registries know no HEAD, or send no digest with it; and a 404 explains itself in its body only.
            call.method = Method::GET;
            let (answer, body) = session.fetch(&call, MAX_MANIFEST_BYTES).await?;
            match answer.status {
                StatusCode::OK => (checked_digest(&answer, &body)?, answer),
                StatusCode::NOT_FOUND => return Err(session.no_such_tag(tag, &url).await),
                status => return Err(odd(&url, status)),
            }
        }
        (status, _) => return Err(odd(&url, status)),
    };
    let (digest, answer) = digest;
    Ok(ResolvedImage {
        image: session.image(),
        tag: tag.to_owned(),
        digest,
        media_type: answer.header(CONTENT_TYPE).unwrap_or_default().to_owned(),
    })
}

/// All tags of an image, at most ten thousand, in the registry's order.
///
/// **Errors**: `BadSpec` SRC-015 when the registry does not know the image; those of [`Access::send`].
pub async fn list_tags(
    access: &Access,
    connector: &HttpConnector,
    image_path: &str,
) -> Result<Vec<String>, StepError> {
    Session::open(access, connector, image_path)?.tags().await
}

/// Checks that the registry answers and takes the credentials. Used by the connector test.
pub(crate) async fn ping(access: &Access, connector: &HttpConnector) -> Result<(), StepError> {
    let mut session = Session::open(access, connector, "")?;
    let url = session.base.clone();
    let (answer, _) = session.fetch(&Call::get(url.clone(), &connector.identifier), MAX_PAGE_BYTES).await?;
    if answer.status == StatusCode::OK { Ok(()) } else { Err(odd(&url, answer.status)) }
}

/// Calls to one repository of one registry; keeps the authorization that worked.
struct Session<'a> {
    access: &'a Access,
    connector: &'a HttpConnector,
    /// `…/v2/`.
    base: Url,
    path: Vec<&'a str>,
    credentials: HeaderMap,
}

impl<'a> Session<'a> {
    fn open(
        access: &'a Access,
        connector: &'a HttpConnector,
        image_path: &'a str,
    ) -> Result<Self, StepError> {
        let path: Vec<&str> = image_path.trim().split('/').filter(|part| !part.is_empty()).collect();
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
        if path.iter().any(|part| !part.chars().all(valid) || part.chars().all(|c| c == '.')) {
            let expected = "lower-case letters, digits, `_`, `.`, `-` and `/`, without host and tag";
            return Err(error::bad_url("imagePath", image_path, expected));
        }
        let mut credentials = access.credentials(connector)?;
        // Sent only in answer to a challenge, which says in which form.
        credentials.remove(AUTHORIZATION);
        Ok(Session { access, connector, base: base(connector)?, path, credentials })
    }

    fn image(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        let host = self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        format!("{host}/{}", self.path.join("/"))
    }

    fn url(&self, tail: &[&str]) -> Result<Url, StepError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| error::bad_url("url", &self.connector.url, "an http or https URL"))?
            .pop_if_empty()
            .extend(self.path.iter().chain(tail));
        Ok(url)
    }

    /// Sends a call, answering the challenge of a 401 once.
    async fn fetch(&mut self, call: &Call, limit: u64) -> Result<(Answer, Bytes), StepError> {
        let call = call.clone().credentials(self.credentials.clone());
        let (answer, body) = self.access.fetch_challenged(&call, limit).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok((answer, body));
        }
        let challenges: Vec<Challenge> = answer
            .headers
            .get_all(reqwest::header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let value = self.authorization(&answer.url, &challenges).await?;
        self.credentials.insert(AUTHORIZATION, value);
        self.access.fetch(&call.credentials(self.credentials.clone()), limit).await
    }

    async fn authorization(&self, url: &Url, challenges: &[Challenge]) -> Result<HeaderValue, StepError> {
        let name = &self.connector.identifier;
        let secret = |e| error::secret(&format!("connector `{name}`"), e);
        let login = match &self.connector.auth {
            // Refused before anything was asked.
            HttpAuth::Anonymous | HttpAuth::Ssh(_) => None,
            HttpAuth::UsernamePassword { username, password } => {
                let user = self.access.secrets.reveal(username).map_err(secret)?;
                let password = self.access.secrets.get(password).map_err(secret)?;
                Some(basic(&user, &password)?)
            }
            // A token that was got elsewhere goes to the registry as it is.
            HttpAuth::Bearer { token } => return bearer(&self.access.secrets.get(token).map_err(secret)?),
        };
        let find =
            |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        if let Some(challenge) = find("bearer") {
            return self.token(url, challenge, login).await;
        }
        match login {
            Some(login) if find("basic").is_some() || challenges.is_empty() => Ok(login),
            _ => Err(error::unauthorized(url, name)),
        }
    }

    /// Gets a token from the realm that the registry names.
    async fn token(
        &self,
        url: &Url,
        challenge: &Challenge,
        login: Option<HeaderValue>,
    ) -> Result<HeaderValue, StepError> {
        #[derive(Deserialize)]
        struct Reply {
            #[serde(alias = "access_token")]
            token: Option<String>,
        }
        let mut realm = challenge.get("realm").and_then(|realm| Url::parse(realm).ok()).ok_or_else(|| {
            error::unexpected(url, "a Bearer challenge without a usable realm", "a Docker registry")
        })?;
        // A password may go to another host, that is what a realm is for, but never in the clear when the registry
        // itself is spoken to over TLS.
        if url.scheme() == "https" && realm.scheme() != "https" {
            return Err(error::redirect(url, "its login to an insecure address"));
        }
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = challenge.get("service") {
                query.append_pair("service", service);
            }
            match challenge.get("scope") {
                Some(scope) => query.append_pair("scope", scope),
                None if self.path.is_empty() => &mut query,
                None => query.append_pair("scope", &format!("repository:{}:pull", self.path.join("/"))),
            };
        }
        let mut headers = HeaderMap::new();
        if let Some(login) = login {
            headers.insert(AUTHORIZATION, login);
        }
        let call = Call::get(realm.clone(), &self.connector.identifier).credentials(headers);
        let (answer, body) = self.access.fetch(&call, MAX_PAGE_BYTES).await?;
        if answer.status != StatusCode::OK {
            return Err(odd(&realm, answer.status));
        }
        let reply: Reply = serde_json::from_slice(&body).map_err(|_| {
            error::unexpected(&realm, "the answer is no token document", "a registry's token service")
        })?;
        let Some(token) = reply.token.filter(|token| !token.is_empty()) else {
            return Err(error::unexpected(&realm, "the answer holds no token", "a registry's token service"));
        };
        let token = SecretText::from(token);
        self.access.secrets.mask(&token);
        bearer(&token)
    }

    async fn tags(&mut self) -> Result<Vec<String>, StepError> {
        #[derive(Deserialize)]
        struct Page {
            // A registry writes null for an image whose tags were all deleted.
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut url = self.url(&["tags", "list"])?;
        url.query_pairs_mut().append_pair("n", "1000");
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let (answer, body) =
                self.fetch(&Call::get(url.clone(), &self.connector.identifier), MAX_PAGE_BYTES).await?;
            match answer.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => {
                    let known = "the registry does not know the image";
                    return Err(error::tag_missing(&self.image(), "*", &url, known));
                }
                status => return Err(odd(&url, status)),
            }
            let page: Page = serde_json::from_slice(&body)
                .map_err(|_| error::unexpected(&url, "the answer is no list of tags", "a Docker registry"))?;
            all.extend(page.tags.unwrap_or_default());
            match answer
                .header(LINK)
                .and_then(challenge::next_page)
                .and_then(|next| answer.url.join(next).ok())
            {
                // A page of another host is not followed: the credentials are for this one.
                Some(next) if next.origin() == url.origin() && next != url => url = next,
                _ => break,
            }
        }
        Ok(all)
    }

    /// The error for a tag that is not there, with what is there.
    async fn no_such_tag(&mut self, tag: &str, url: &Url) -> StepError {
        let known = match self.tags().await {
            Ok(tags) => {
                let near = crate::near::nearest(tag, tags.iter().map(String::as_str), 3).join("`, `");
                let mut tags = tags;
                tags.sort_by_key(|tag| std::cmp::Reverse(natural(tag)));
                let newest: Vec<String> = tags.iter().take(3).map(|tag| format!("`{tag}`")).collect();
                match (newest.is_empty(), near.is_empty()) {
                    (true, _) => "it has no tag at all".to_owned(),
                    (_, true) => format!("highest: {}", newest.join(", ")),
                    (_, false) => format!("nearest: `{near}`; highest: {}", newest.join(", ")),
                }
            }
            Err(error) if error.code == "SRC-015" => "the registry does not know the image".to_owned(),
            Err(error) => format!("its tags could not be listed ({error})"),
        };
        error::tag_missing(&self.image(), tag, url, &known)
    }
}

/// The registry's `/v2/`, whichever way the connector writes its URL.
fn base(connector: &HttpConnector) -> Result<Url, StepError> {
    let field = format!("connector `{}`, url", connector.identifier);
    let text = connector.url.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&with_scheme)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| error::bad_url(&field, text, "an http or https URL"))?;
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v2").or_else(|| path.strip_suffix("/v1")).unwrap_or(path);
    let path = format!("{path}/v2/");
    url.set_path(&path);
    Ok(url)
}

fn odd(url: &Url, status: StatusCode) -> StepError {
    error::unexpected(url, format!("HTTP {}", status.as_u16()), "a Docker registry")
}

fn digest_of(answer: &Answer) -> Option<String> {
    let digest = answer.header(DOCKER_CONTENT_DIGEST)?.trim();
    let (algorithm, hex) = digest.split_once(':')?;
    let good = matches!((algorithm, hex.len()), ("sha256", 64) | ("sha512", 128))
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| digest.to_owned())
}

/// The digest of a manifest that was fetched whole.
fn checked_digest(answer: &Answer, body: &[u8]) -> Result<String, StepError> {
    let own = format!("sha256:{}", hex::encode(Sha256::digest(body)));
    match digest_of(answer) {
        Some(digest) if digest.starts_with("sha256:") && digest != own => {
            Err(error::checksum(&answer.url, &digest, &own, false))
        }
        Some(digest) => Ok(digest),
        None => Ok(own),
    }
}

/// Orders `1.10` behind `1.9`: digits count as numbers.
fn natural(tag: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = tag;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let text = tail.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let (word, tail) = tail.split_at(text);
        parts.push((number.parse().unwrap_or(u64::MAX * u64::from(digits > 0)), word.to_owned()));
        rest = tail;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(url: &str) -> HttpConnector {
        HttpConnector {
            identifier: "reg".into(),
            url: url.into(),
            auth: HttpAuth::Anonymous,
            headers: vec![],
        }
    }

    #[test]
    fn every_spelling_of_a_registry_ends_in_v2() {
        for url in [
            "https://r.example.com",
            "https://r.example.com/",
            "https://r.example.com/v2",
            "r.example.com/v2/",
        ] {
            assert_eq!(base(&connector(url)).unwrap().as_str(), "https://r.example.com/v2/");
        }
        assert_eq!(base(&connector("http://r:5000/team/v1/")).unwrap().as_str(), "http://r:5000/team/v2/");
        assert_eq!(base(&connector("ssh://x")).unwrap_err().code, "SRC-008");
    }

    #[test]
    fn tags_are_ordered_as_people_count() {
        let mut tags = ["1.9", "1.10", "latest", "7", "10", "v2"];
        tags.sort_by_key(|tag| natural(tag));
        let at = |tag| tags.iter().position(|t| *t == tag).unwrap();
        assert!(at("1.9") < at("1.10"));
        assert!(at("7") < at("10"));
    }
}
