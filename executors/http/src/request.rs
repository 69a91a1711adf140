//! One exchange: redirects, retries, limits.

use crate::config::Config;
use crate::connect::{Connector, is_metadata};
use crate::error::{Error, of_reqwest};
use crate::recover;
use crate::spec::{self, Request};
use executor_api::{Level, StepContext, TransportProbe, UnitLog};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use url::{Host, Url};

/// What the judgement of a step rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// UTF-8; other bytes are replaced.
    pub(crate) body: String,
    /// There was more than was read.
    pub(crate) cut: bool,
    #[serde(default)]
    pub(crate) retry_after_s: Option<u64>,
}

/// Everything one exchange needs.
pub(crate) struct Exchange<'a> {
    pub(crate) connector: &'a Connector,
    pub(crate) config: &'a Config,
    pub(crate) probe: &'a dyn TransportProbe,
    pub(crate) cx: &'a StepContext,
    pub(crate) log: &'a dyn UnitLog,
    /// Set while a request that changes something is under way; the caller reads it when it cuts the exchange off.
    pub(crate) under_way: &'a AtomicBool,
}

/// Where a hop is sent.
struct Route {
    client: Client,
    url: Url,
    host: Option<HeaderValue>,
}

/// One answer, before it is known whether it is the last.
struct Answer {
    status: StatusCode,
    location: Option<String>,
    response: Response,
}

impl Exchange<'_> {
    /// Sends `request`, follows redirects, and reads the answer. `call` stands for it in checkpoints.
    pub(crate) async fn run(&self, mut request: Request, call: &str) -> Result<Response, Error> {
        let mut call = call.to_owned();
        for hop in 0.. {
            let answer = self.hop(&request, &call).await?;
            let target = spec::shown(&request.url);
            let Some(location) = answer.location.filter(|_| is_redirect(answer.status)) else {
                if !spec::is_safe(&request.method) {
                    self.record_answer(&call, &answer.response).await?;
                }
                return Ok(answer.response);
            };
            if hop >= self.config.max_redirects {
                let problem = format!("it is the {}th in a row", hop + 1);
                return Err(Error::Redirect { target, problem });
            }
            request = follow(request, &location, answer.status)?;
            let shown = spec::shown(&request.url);
            self.line(Level::Info, &format!("redirected by HTTP {} to {shown}", answer.status.as_u16()))
                .await?;
            call = format!("{} {shown}", request.method);
        }
        // `hop` counts to the end of usize; the limit on redirects ends the loop long before.
        Err(Error::Redirect { target: spec::shown(&request.url), problem: "there is no end to it".into() })
    }

    /// The answer is durable, so that a crash after this point does not lose it. Failing to write it must not undo
    /// what was done: the step goes on with the answer it has.
    async fn record_answer(&self, call: &str, response: &Response) -> Result<(), Error> {
        if let Err(error) = self.cx.checkpoints.record(recover::answered(call, response)).await {
            self.line(Level::Warn, &format!("the answer could not be recorded: {error}")).await?;
        }
        Ok(())
    }

    /// One request with its retries.
    async fn hop(&self, request: &Request, call: &str) -> Result<Answer, Error> {
        let changes = !spec::is_safe(&request.method);
        let repeatable = spec::is_repeatable(&request.method);
        let route = self.route(&request.url).await?;
        if changes {
            let target = spec::shown(&request.url);
            let mark = recover::sent(call, repeatable);
            self.cx.checkpoints.record(mark).await.map_err(|source| Error::Checkpoint { target, source })?;
            self.probe.before(&self.cx.task_id, call).await;
            self.under_way.store(true, Ordering::Release);
        }
        let mut pauses = self.config.retry_pauses.iter();
        let result = loop {
            let error = match self.once(request, &route).await {
                Ok(answer) => break Ok(answer),
                Err(error) => error,
            };
            match pauses.next() {
                Some(pause) if error.may_retry(repeatable) => {
                    self.line(Level::Warn, &format!("{error}; trying again in {} ms", pause.as_millis()))
                        .await?;
                    self.cx.clock.sleep(*pause).await;
                }
                _ => break Err(error),
            }
        };
        if changes {
            self.under_way.store(false, Ordering::Release);
            self.probe.after(&self.cx.task_id, call).await;
        }
        result
    }

    async fn once(&self, request: &Request, route: &Route) -> Result<Answer, Error> {
        let target = spec::shown(&request.url);
        let changes = !spec::is_safe(&request.method);
        let mut builder =
            route.client.request(request.method.clone(), route.url.clone()).headers(request.headers.clone());
        if let Some(host) = &route.host {
            builder = builder.header(HOST, host.clone());
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let mut answer = builder.send().await.map_err(|e| of_reqwest(e, &target, changes))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        let mut cut = false;
        // A redirect's body is of no use, and a server may send it for ever.
        while !is_redirect(status) || !headers.contains_key(LOCATION) {
            let Some(chunk) = answer.chunk().await.map_err(|e| of_reqwest(e, &target, changes))? else {
                break;
            };
            let room = self.config.max_body_bytes.saturating_sub(body.len());
            body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
            if chunk.len() > room {
                cut = true;
                break;
            }
        }
        Ok(Answer {
            status,
            location: headers
                .get(LOCATION)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            response: Response {
                status: status.as_u16(),
                body: text_of(body, cut),
                cut,
                retry_after_s: headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok()),
            },
        })
    }

    /// Where to send a request for `url`: through an alias, or straight and guarded.
    async fn route(&self, url: &Url) -> Result<Route, Error> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(Error::Redirect { target: spec::shown(url), problem: "it names no host".into() });
        };
        let name = host.trim_start_matches('[').trim_end_matches(']');
        if let Some((to, to_port)) = self.cx.aliases.lookup(name, port) {
            return self.aliased(url, name, port, &to, to_port).await;
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        match literal {
            Some(address) if !self.config.allow_metadata && is_metadata(address) => {
                Err(Error::Metadata { target: spec::shown(url), address: address.to_string() })
            }
            _ => Ok(Route { client: self.connector.plain().clone(), url: url.clone(), host: None }),
        }
    }

    /// Host header, SNI and certificate stay those of the name; only the connection goes elsewhere.
    async fn aliased(
        &self,
        url: &Url,
        name: &str,
        port: u16,
        to: &str,
        to_port: u16,
    ) -> Result<Route, Error> {
        self.line(Level::Info, &format!("host alias: {name}:{port} is reached at {to}:{to_port}")).await?;
        let target = || spec::shown(url);
        let bad = |problem: String| {
            Error::Spec(vec![executor_api::SpecFault { field: "host_aliases".into(), problem }])
        };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((to, to_port))
            .await
            .map_err(|e| {
                bad(format!("the alias of {name}:{port} leads to `{to}`, which has no address: {e}"))
            })?
            .collect();
        let mut routed = url.clone();
        if routed.set_port(Some(to_port)).is_err() {
            return Err(bad(format!("the alias of {name}:{port} cannot be applied to {}", target())));
        }
        if !matches!(url.host(), Some(Host::Domain(_))) {
            // A literal address is not looked up, so that the override of the resolver would not be asked.
            let Some(first) = addresses.first().filter(|_| url.scheme() == "http") else {
                return Err(bad(format!("an alias for the address {name} works with http only; use a name")));
            };
            if routed.set_ip_host(first.ip()).is_err() {
                return Err(bad(format!("the alias of {name}:{port} cannot be applied to {}", target())));
            }
        }
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let client = self.connector.aliased(name, &addresses).map_err(|e| of_reqwest(e, &target(), false))?;
        Ok(Route { client, url: routed, host: HeaderValue::from_str(&authority).ok() })
    }

    async fn line(&self, level: Level, text: &str) -> Result<(), Error> {
        Ok(self.log.line(level, text).await?)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The request after a redirect (RFC 9110 §15.4): 303, and 301 or 302 after POST, become GET; 307 and 308 keep method
/// and body. Confidential headers stay with their host, and nothing goes from TLS to clear text.
fn follow(mut request: Request, location: &str, status: StatusCode) -> Result<Request, Error> {
    let refused = |problem: String| Error::Redirect { target: spec::shown(&request.url), problem };
    let mut next = request.url.join(location).map_err(|_| refused("its Location is not a URL".into()))?;
    if !matches!(next.scheme(), "http" | "https") || next.host_str().is_none_or(str::is_empty) {
        return Err(refused(format!("it leads to scheme `{}`", next.scheme())));
    }
    if request.url.scheme() == "https" && next.scheme() == "http" {
        return Err(refused(format!("it leads from TLS to clear text at {}", spec::shown(&next))));
    }
    if next.fragment().is_none() {
        next.set_fragment(request.url.fragment());
    }
    let to_get = match status.as_u16() {
        303 => request.method != Method::HEAD,
        301 | 302 => request.method == Method::POST,
        _ => false,
    };
    if to_get {
        request.method = Method::GET;
        request.body = None;
        request.headers.remove(CONTENT_TYPE);
        request.headers.remove(CONTENT_LENGTH);
    }
    if origin(&request.url) != origin(&next) {
        let kept: HeaderMap = request
            .headers
            .iter()
            .filter(|(name, _)| !request.confidential.contains(name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        request.headers = kept;
        request.headers.remove(HOST);
        // A body may hold secrets too; it stays with the host it was written for.
        if request.body.is_some() {
            return Err(Error::Redirect {
                target: spec::shown(&request.url),
                problem: format!("it would send the request body to another host, {}", spec::shown(&next)),
            });
        }
    }
    request.url = next;
    Ok(request)
}

fn origin(url: &Url) -> (String, String, Option<u16>) {
    (url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default())
}

/// UTF-8 text of a body. The end of a cut one may lie inside a character, which is left out.
fn text_of(mut bytes: Vec<u8>, cut: bool) -> String {
    if cut
        && let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// The shorter of the two limits of a request, and whether it is the request's own.
pub(crate) fn limit_of(timeout_ms: Option<u64>, step: Duration) -> Duration {
    timeout_ms.map_or(step, |own| Duration::from_millis(own).min(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, url: &str) -> Request {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", "a"), ("x-key", "k"), ("accept", "x"), ("content-type", "t")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let body = (method == Method::POST).then(|| b"b".to_vec());
        let confidential = ["authorization", "x-key"].map(str::to_owned).into();
        Request { method, url: url.parse().unwrap(), headers, confidential, body }
    }

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn post_becomes_get_where_the_status_says_so() {
        for (code, method, body) in [
            (301, Method::GET, false),
            (302, Method::GET, false),
            (303, Method::GET, false),
            (307, Method::POST, true),
            (308, Method::POST, true),
        ] {
            let next = follow(request(Method::POST, "http://h/a"), "b?c", status(code)).ok().unwrap();
            assert_eq!((next.method, next.body.is_some()), (method, body), "{code}");
            assert_eq!(next.url.as_str(), "http://h/b?c");
            assert!(next.headers.contains_key("authorization"));
        }
        assert_eq!(
            follow(request(Method::PUT, "http://h/"), "/b", status(302)).ok().unwrap().method,
            Method::PUT
        );
        assert_eq!(
            follow(request(Method::HEAD, "http://h/"), "/b", status(303)).ok().unwrap().method,
            Method::HEAD
        );
    }

    #[test]
    fn confidential_headers_and_bodies_stay_with_their_host() {
        for location in ["http://other/", "http://h:81/", "//other/"] {
            let next = follow(request(Method::GET, "http://h/"), location, status(302)).ok().unwrap();
            let names: Vec<_> = next.headers.keys().map(|name| name.as_str().to_owned()).collect();
            assert_eq!(names, ["accept", "content-type"], "{location}");
            assert!(follow(request(Method::POST, "http://h/"), location, status(307)).is_err());
        }
    }

    #[test]
    fn clear_text_and_odd_schemes_are_refused() {
        for location in ["http://h/", "file:///etc/passwd", "https://", "data:x"] {
            assert!(follow(request(Method::GET, "https://h/"), location, status(302)).is_err(), "{location}");
        }
    }

    #[test]
    fn bodies_become_text() {
        assert_eq!(text_of("aé".as_bytes()[..2].to_vec(), true), "a");
        assert_eq!(text_of("aé".as_bytes()[..2].to_vec(), false), "a\u{fffd}");
        assert_eq!(text_of(vec![0xff, b'a'], true), "\u{fffd}a");
        assert_eq!(limit_of(Some(5), Duration::from_secs(1)), Duration::from_millis(5));
        assert_eq!(limit_of(Some(5000), Duration::from_secs(1)), Duration::from_secs(1));
    }
}
