//! The way to AWS: TLS with the agent's authorities, host aliases, a proxy.

use crate::peers::{Haproxy, Reply, Tap, shared, shared_url};
use crate::{account, world};
use aws::{Client, Proxy, Service, Settings, SetupError};
use executor_api::HostAliases;
use proto::task::AwsAccount;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "ecs.us-east-1.amazonaws.com";

/// An authority and a server certificate of it for `name`: PEM of the authority, file with certificate and key.
fn certificate(dir: &Path, name: &str) -> (Vec<u8>, PathBuf) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let file = dir.join(format!("{name}.pem"));
    std::fs::write(&file, format!("{}{}", certificate.pem(), key.serialize_pem())).unwrap();
    (ca.pem().into_bytes(), file)
}

/// AWS' own endpoints.
fn real() -> AwsAccount {
    AwsAccount { endpoints: BTreeMap::new(), ..account("") }
}

fn settings(ca_pem: Option<Vec<u8>>) -> Settings {
    Settings { ca_pem, patience: Duration::ZERO, ..Settings::default() }
}

async fn list(client: &Client, alias: Option<u16>) -> (Result<(), (&'static str, String)>, Vec<String>) {
    let mut world = world();
    if let Some(port) = alias {
        world.aliases = Arc::new(HostAliases::new([(NAME.to_owned(), format!("127.0.0.1:{port}"))]));
    }
    let session = client.session(&real(), &world.context().1).await.unwrap();
    let answer = session.read(Service::Ecs.op("ListClusters"), json!({})).await;
    let answer = answer.map(drop).map_err(|fault| {
        let error = fault.step("list", &session);
        (error.code, error.what)
    });
    (answer, session.notes())
}

#[tokio::test]
async fn an_alias_leads_elsewhere_while_the_certificate_is_checked_against_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, pem) = certificate(dir.path(), NAME);
    let haproxy = Haproxy::start(dir.path(), &[], Some(&pem), shared()).await;
    let (answer, notes) = list(&Client::new(settings(Some(ca.clone()))).unwrap(), Some(haproxy.port)).await;
    answer.unwrap();
    assert_eq!(notes, [format!("host alias: {NAME}:443 -> 127.0.0.1:{}", haproxy.port)]);
    let (answer, _) = list(&Client::new(settings(None)).unwrap(), Some(haproxy.port)).await;
    assert_eq!(answer.unwrap_err().0, "AWS-008");
    let (other_ca, other) = certificate(dir.path(), "other.example.com");
    let haproxy = Haproxy::start(dir.path(), &[], Some(&other), shared()).await;
    let (answer, _) = list(&Client::new(settings(Some(other_ca))).unwrap(), Some(haproxy.port)).await;
    let (code, what) = answer.unwrap_err();
    assert!(code == "AWS-008" && what.contains("TLS"), "{what}");
}

#[tokio::test]
async fn a_proxy_is_used_for_aws_and_never_for_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, pem) = certificate(dir.path(), NAME);
    let haproxy = Haproxy::start(dir.path(), &[], Some(&pem), shared()).await;
    let to = haproxy.port;
    let proxy = Tap::start(move |_, _| Reply::Tunnel(to)).await;
    let login = Some(("user".to_owned(), "proxy-password".into()));
    let through = Proxy { url: proxy.url(), login, no_proxy: String::new() };
    let client = Client::new(Settings { proxy: Some(through), ..settings(Some(ca)) }).unwrap();
    list(&client, None).await.0.unwrap();
    let asked = proxy.seen();
    assert_eq!((asked.len(), asked[0].line()), (1, format!("CONNECT {NAME}:443 HTTP/1.1").as_str()));
    assert_eq!(asked[0].header("proxy-authorization"), Some("Basic dXNlcjpwcm94eS1wYXNzd29yZA=="));
    let world = world();
    let session = client.session(&account(&shared_url()), &world.context().1).await.unwrap();
    session.read(Service::Ecs.op("ListClusters"), json!({})).await.unwrap();
    assert_eq!(proxy.seen().len(), 1);
    assert!(!format!("{client:?}").contains("proxy-password"));
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let bad = settings(Some(b"-----BEGIN NOTHING-----".to_vec()));
    assert!(matches!(Client::new(bad), Err(SetupError::Certificates)));
    let proxy = Some(Proxy { url: "::".into(), login: None, no_proxy: String::new() });
    assert!(matches!(Client::new(Settings { proxy, ..settings(None) }), Err(SetupError::Proxy(_))));
}
