//! One HTTP client for everything: the agent's authorities, host aliases (D17) and proxy.

use crate::endpoint::alias_line;
use crate::fault::Fault;
use crate::settings::{Proxy, Settings, SetupError};
use bytes::Bytes;
use executor_api::HostAliases;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// Largest answer that is read; lists come in pages far below it.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// An endpoint that does not answer a SYN in so long is down or filtered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is closed before a server or firewall may do so: a change on one that is being closed cannot be told
/// from one that was carried out.
const IDLE: Duration = Duration::from_secs(15);
/// Clients that connect elsewhere than their URL says; their number is bounded by the aliases in use.
const MAX_ROUTED: usize = 64;
/// Never behind a proxy: this machine, and the link-local addresses that hand out credentials.
const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,fd00:ec2::/32";

/// Connections of an agent.
#[derive(Debug)]
pub(crate) struct Transport {
    ca_pem: Option<Vec<u8>>,
    direct: reqwest::Client,
    /// By `host addresses`.
    routed: Mutex<BTreeMap<String, reqwest::Client>>,
}

/// One request, signed.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Transport {
    /// Reads the machine's authorities.
    pub(crate) fn new(settings: &Settings) -> Result<Transport, SetupError> {
        let proxy = settings.proxy.as_ref().map(through).transpose()?;
        let direct = trusting(settings.ca_pem.as_deref(), || {
            let builder = base();
            match proxy.clone() {
                Some(proxy) => builder.proxy(proxy),
                None => builder,
            }
        })?;
        Ok(Transport { ca_pem: settings.ca_pem.clone(), direct, routed: Mutex::default() })
    }

    /// Sends one request and reads its answer. `notice` is told of an alias that is used.
    ///
    /// **Cancel**: the connection is dropped; what the server made of the request is not known then.
    pub(crate) async fn exchange(
        &self,
        request: Request,
        aliases: &HostAliases,
        notice: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Answer, Fault> {
        let (client, url, host) = self.route(&request.url, aliases, notice).await?;
        let mut sent = client.request(request.method, url).headers(request.headers).body(request.body);
        if let Some(host) = host {
            sent = sent.header(HOST, host);
        }
        let mut response = sent.send().await.map_err(lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(lost)? {
            if body.len() + part.len() > MAX_ANSWER {
                return Err(Fault::Strange(format!("an answer of more than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&part);
        }
        Ok(Answer { status, headers, body: body.into() })
    }

    /// The client, URL and `Host` header to use: with an alias TCP goes there, while TLS and the header keep the name.
    async fn route(
        &self,
        url: &Url,
        aliases: &HostAliases,
        notice: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(reqwest::Client, Url, Option<HeaderValue>), Fault> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let Some((to_host, to_port)) = aliases.lookup(bare, port) else {
            return Ok((self.direct.clone(), url.clone(), None));
        };
        notice(alias_line(bare, port, &to_host, to_port));
        let problem = |what: &str| {
            Fault::Endpoint(format!("host_aliases: {bare}:{port} -> {to_host}:{to_port}: {what}"))
        };
        // A port in the URL always wins over the resolver's, so the alias' port goes into the URL.
        let mut routed = url.clone();
        routed.set_port(Some(to_port)).map_err(|()| problem("no http or https URL"))?;
        let name = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let name = HeaderValue::from_str(&name).map_err(|_| problem("no host name"))?;
        if bare.parse::<IpAddr>().is_ok() {
            // Addresses are never resolved. Without TLS the name stands in the header alone, so the URL may change.
            if url.scheme() != "http" || routed.set_host(Some(&to_host)).is_err() {
                return Err(problem("over TLS an address cannot be aliased, only a name"));
            }
            return Ok((self.direct.clone(), routed, Some(name)));
        }
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((to_host.as_str(), to_port))
            .await
            .map_err(|error| Fault::Connection {
                cause: error.to_string(),
                reached: false,
                source: Some(error.into()),
            })?
            .collect();
        let client = self.routed(bare, &addresses).map_err(|error| problem(&error.to_string()))?;
        Ok((client, routed, Some(name)))
    }

    fn routed(&self, host: &str, addresses: &[SocketAddr]) -> Result<reqwest::Client, SetupError> {
        let key = format!("{host} {addresses:?}");
        let mut routed = self.routed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = routed.get(&key) {
            return Ok(client.clone());
        }
        let client = trusting(self.ca_pem.as_deref(), || base().resolve_to_addrs(host, addresses))?;
        if routed.len() >= MAX_ROUTED {
            routed.clear();
        }
        routed.insert(key, client.clone());
        Ok(client)
    }
}

fn base() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("delegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        // A signature is for one host.
        .redirect(reqwest::redirect::Policy::none())
        // HTTP/1.1 takes the name from the `Host` header, which an alias needs; AWS speaks it everywhere.
        .http1_only()
        .no_proxy()
}

fn through(proxy: &Proxy) -> Result<reqwest::Proxy, SetupError> {
    let made = reqwest::Proxy::all(&proxy.url).map_err(|_| SetupError::Proxy(proxy.url.clone()))?;
    let made = made.no_proxy(reqwest::NoProxy::from_string(&format!("{DIRECT},{}", proxy.no_proxy)));
    Ok(match &proxy.login {
        Some((user, password)) => made.basic_auth(user, password.expose_secret()),
        None => made,
    })
}

/// A client that trusts the machine's authorities and those of a PEM bundle.
fn trusting(
    ca_pem: Option<&[u8]>,
    base: impl Fn() -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, SetupError> {
    let Some(pem) = ca_pem else { return base().build().map_err(SetupError::Build) };
    let extra = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| SetupError::Certificates)?;
    if extra.is_empty() {
        return Err(SetupError::Certificates);
    }
    // A machine without any authority of its own (a minimal image) still works with the extra ones.
    base()
        .tls_certs_merge(extra.clone())
        .build()
        .or_else(|_| base().tls_certs_only(extra).build())
        .map_err(SetupError::Build)
}

fn lost(error: reqwest::Error) -> Fault {
    let error = error.without_url();
    if let Some(fault) = tls_fault(&error) {
        return Fault::Tls(fault.to_string());
    }
    let mut cause = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        cause = inner.to_string();
        next = inner.source();
    }
    Fault::Connection { cause, reached: !error.is_connect(), source: Some(error.into()) }
}

/// The TLS fault in a chain of errors, if that is what it ends in.
fn tls_fault<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<rustls::Error>() {
            return Some(fault);
        }
        if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(fault) = tls_fault(inner)
        {
            return Some(fault);
        }
        next = error.source();
    }
    None
}
