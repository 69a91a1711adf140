//! The HTTP client of an agent.

use crate::error;
use crate::git::Tunnel;
use executor_api::{HostAliases, StepError};
use reqwest::header::HeaderValue;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use url::Url;

/// How the client is made.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Certificates in PEM form that are trusted beside those of the machine.
    pub ca_pem: Option<Vec<u8>>,
    /// Limit of one connection attempt, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence of a server within one answer.
    pub read_timeout: Duration,
    /// What the client calls itself.
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            ca_pem: None,
            // A server that does not answer a SYN in ten seconds is down or filtered.
            connect_timeout: Duration::from_secs(10),
            // Registries may think for a while before the first byte, never between two.
            read_timeout: Duration::from_secs(60),
            user_agent: concat!("delegate/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The extra certificates are not PEM, or hold none.
    #[error("the extra certificate authorities are not usable PEM certificates")]
    Certificates,
    /// The TLS set-up failed; usually the machine has no certificate authorities at all.
    #[error("the HTTP client could not be made; are certificate authorities installed?")]
    Build(#[source] reqwest::Error),
}

/// Clients that connect elsewhere than their URL says; their number is bounded by the aliases in use.
const MAX_ROUTED: usize = 64;

/// An HTTP client with verified TLS, no automatic redirects, no proxies from the environment. Cheap to clone; its
/// connections are shared by all tasks, its credentials are not.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    direct: reqwest::Client,
    /// By `host address`.
    routed: Mutex<BTreeMap<String, reqwest::Client>>,
    /// Downloads under way, by key: a second one of the same file waits and then finds it cached.
    downloads: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Files brought into a cache.
    transferred: AtomicU64,
    /// The way to repositories over SSH, once somebody gave one.
    tunnel: OnceLock<Arc<dyn Tunnel>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// Where a request goes.
pub(crate) struct Route {
    pub(crate) client: reqwest::Client,
    pub(crate) url: Url,
    /// Set when the URL had to be changed: what the server is told it was.
    pub(crate) host: Option<HeaderValue>,
    /// For the log: `name:port -> address:port`.
    pub(crate) notice: Option<String>,
}

impl Client {
    /// A client. No I/O beside reading the machine's certificate authorities.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let direct = build(&options, None)?;
        Ok(Client {
            inner: Arc::new(Inner {
                options,
                direct,
                routed: Mutex::default(),
                downloads: Mutex::default(),
                transferred: AtomicU64::new(0),
                tunnel: OnceLock::new(),
            }),
        })
    }

    /// Gives this client, and every clone of it, the way to repositories over SSH. The first one stays.
    pub fn set_tunnel(&self, tunnel: Arc<dyn Tunnel>) {
        let _the_first_stays = self.inner.tunnel.set(tunnel);
    }

    pub(crate) fn tunnel(&self) -> Option<&Arc<dyn Tunnel>> {
        self.inner.tunnel.get()
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// How many files this client has brought into a cache: whoever keeps the cache small sees that it grew.
    pub fn transferred(&self) -> u64 {
        self.inner.transferred.load(Ordering::Relaxed)
    }

    pub(crate) fn count_transfer(&self) {
        self.inner.transferred.fetch_add(1, Ordering::Relaxed);
    }

    /// The lock of one download.
    pub(crate) fn download_lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut downloads = self.inner.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        downloads.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(downloads.entry(key.to_owned()).or_default())
    }

    /// Applies the host aliases: TCP goes to the alias, while TLS and the `Host` header keep the name.
    pub(crate) async fn route(&self, url: &Url, aliases: &HostAliases) -> Result<Route, StepError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let Some((to_host, to_port)) = aliases.lookup(bare, port) else {
            return Ok(Route {
                client: self.inner.direct.clone(),
                url: url.clone(),
                host: None,
                notice: None,
            });
        };
        let notice = Some(format!("host alias: {bare}:{port} -> {to_host}:{to_port}"));
        let problem =
            |expected: &str| error::bad_url("host_aliases", &format!("{to_host}:{to_port}"), expected);
        // A port in the URL always wins over the resolver's, so the alias' port goes into the URL.
        let mut routed = url.clone();
        routed.set_port(Some(to_port)).map_err(|()| problem("an http or https URL"))?;
        let name = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let host_header = Some(HeaderValue::from_str(&name).map_err(|_| problem("a host name"))?);
        if bare.parse::<IpAddr>().is_ok() {
            // Addresses are never resolved. Without TLS the name stands in the header alone, so the URL may change.
            if url.scheme() != "http" {
                return Err(problem("an alias of a name; over TLS an address cannot be aliased"));
            }
            routed.set_host(Some(&to_host)).map_err(|_| problem("a host"))?;
            return Ok(Route { client: self.inner.direct.clone(), url: routed, host: host_header, notice });
        }
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((to_host.as_str(), to_port))
            .await
            .map_err(|_| problem("an address, or a name that resolves"))?
            .collect();
        let client = self.routed(bare, &addresses)?;
        Ok(Route { client, url: routed, host: host_header, notice })
    }

    fn routed(&self, host: &str, addresses: &[SocketAddr]) -> Result<reqwest::Client, StepError> {
        let key = format!("{host} {addresses:?}");
        let mut routed = self.inner.routed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = routed.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&self.inner.options, Some((host, addresses)))
            .map_err(|_| error::bad_url("host_aliases", host, "a name a client can be made for"))?;
        if routed.len() >= MAX_ROUTED {
            routed.clear();
        }
        routed.insert(key, client.clone());
        Ok(client)
    }
}

fn build(
    options: &ClientOptions,
    route: Option<(&str, &[SocketAddr])>,
) -> Result<reqwest::Client, ClientError> {
    let base = || {
        let mut builder = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            // Followed by hand: credentials must not follow to another host.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some((host, addresses)) = route {
            // HTTP/1.1 takes the name from the `Host` header; HTTP/2 would show the changed port.
            builder = builder.resolve_to_addrs(host, addresses).http1_only();
        }
        builder
    };
    trusting(options.ca_pem.as_deref(), base)
}

/// A client that trusts the machine's authorities and those of a PEM bundle; `base` begins it, with everything else set.
///
/// **Errors**: the bundle holds no certificates, or the TLS library refuses.
pub fn trusting(
    ca_pem: Option<&[u8]>,
    base: impl Fn() -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, ClientError> {
    let Some(pem) = ca_pem else { return base().build().map_err(ClientError::Build) };
    let extra = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| ClientError::Certificates)?;
    if extra.is_empty() {
        return Err(ClientError::Certificates);
    }
    // A machine without any authority of its own (a minimal image) still works with the extra ones.
    base()
        .tls_certs_merge(extra.clone())
        .build()
        .or_else(|_| base().tls_certs_only(extra).build())
        .map_err(ClientError::Build)
}
