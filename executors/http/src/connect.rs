//! HTTP clients: certificate authorities, host aliases (D17), and the guard before metadata endpoints.

use crate::config::{Config, ConfigError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, ClientBuilder, redirect};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// A metadata endpoint stood behind a name or in a URL.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} is a metadata endpoint")]
pub(crate) struct Guarded(pub(crate) IpAddr);

/// Whether `address` is where a cloud hands out credentials of the machine or the pod.
///
/// **Source**: the link-local range covers AWS, Azure and Google (169.254.169.254), ECS (169.254.170.2) and EKS
/// (169.254.170.23); then the IPv6 forms of AWS and Google, Azure's wire server and Alibaba's endpoint.
pub(crate) fn is_metadata(address: IpAddr) -> bool {
    const OTHERS_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
    const OTHERS_V6: [Ipv6Addr; 3] = [
        Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
        Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0023),
        Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
    ];
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || OTHERS_V4.contains(&v4),
        IpAddr::V6(v6) => OTHERS_V6.contains(&v6),
    }
}

/// Makes clients.
pub(crate) struct Connector {
    certificates: Vec<Certificate>,
    config: Config,
    /// For hosts without an alias; keeps connections between attempts.
    plain: Client,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let certificates = match config.ca_pem.as_slice() {
            [] => Vec::new(),
            pem => Certificate::from_pem_bundle(pem).map_err(ConfigError::Ca)?,
        };
        let resolver = Arc::new(GuardedResolver { allow_metadata: config.allow_metadata });
        let plain = build(&config, &certificates, |builder| builder.dns_resolver(resolver.clone()))
            .map_err(ConfigError::Client)?;
        Ok(Connector { certificates, config, plain })
    }

    /// The client for hosts without an alias.
    pub(crate) fn plain(&self) -> &Client {
        &self.plain
    }

    /// A client that connects to `addresses` for `host`. HTTP/1.1 only, because the port of the alias would show in
    /// the authority of HTTP/2.
    pub(crate) fn aliased(&self, host: &str, addresses: &[SocketAddr]) -> Result<Client, reqwest::Error> {
        build(&self.config, &self.certificates, |builder| {
            builder.resolve_to_addrs(host, addresses).http1_only()
        })
    }
}

fn build(
    config: &Config,
    certificates: &[Certificate],
    more: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, reqwest::Error> {
    let base = || {
        more(Client::builder())
            .user_agent(concat!("delegate/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A proxy of the environment would resolve names itself, past the guard and the aliases.
            .no_proxy()
            .connect_timeout(config.connect_timeout)
    };
    // A small image may hold no CA at all. Plain HTTP works there, and HTTPS fails as not trusted when it is used.
    base()
        .tls_certs_merge(certificates.to_vec())
        .build()
        .or_else(|_| base().tls_certs_only(certificates.to_vec()).build())
}

/// The system's resolver, without metadata endpoints: a name that a pipeline author owns may point there.
struct GuardedResolver {
    allow_metadata: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_metadata = self.allow_metadata;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !allow_metadata && let Some(bad) = found.iter().find(|address| is_metadata(address.ip())) {
                return Err(Guarded(bad.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_endpoints_are_known_in_every_notation() {
        for text in [
            "169.254.169.254",
            "169.254.170.2",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "168.63.129.16",
            "100.100.100.200",
        ] {
            assert!(is_metadata(text.parse().unwrap()), "{text}");
        }
        for text in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "100.100.100.201"] {
            assert!(!is_metadata(text.parse().unwrap()), "{text}");
        }
    }

    /// Resolves every name as an attacker's DNS server would.
    struct Attacker;

    impl Resolve for Attacker {
        fn resolve(&self, _: Name) -> Resolving {
            GuardedResolver { allow_metadata: false }.resolve("169.254.169.254".parse().unwrap())
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_metadata_is_refused_and_known_for_what_it_is() {
        let client =
            build(&Config::default(), &[], |builder| builder.dns_resolver(Arc::new(Attacker))).unwrap();
        let error = client.get("http://innocent.test/").send().await.unwrap_err();
        let error = crate::error::of_reqwest(error, "http://innocent.test/", false);
        assert!(matches!(error, crate::Error::Metadata { .. }), "{error}");
        let open = GuardedResolver { allow_metadata: true }.resolve("169.254.169.254".parse().unwrap());
        assert_eq!(open.await.ok().unwrap().count(), 1);
    }

    #[test]
    fn a_broken_ca_file_stops_the_start() {
        let config = Config {
            ca_pem: b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----".to_vec(),
            ..Config::default()
        };
        assert!(matches!(Connector::new(config), Err(ConfigError::Ca(_) | ConfigError::Client(_))));
    }
}
