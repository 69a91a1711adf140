//! Tags of a real registry, open, behind a password, and behind a token realm.

use crate::peers::{Guard, Registry};
use crate::{PASSWORD, USER, World, anonymous, login};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use executor_api::Class;
use serde_json::json;
use sha2::{Digest, Sha256};
use sources::{list_tags, resolve_tag};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Pushes an image of one small layer under `tags`, as a docker client does. Returns the digest.
async fn push(registry: &Registry, image: &str, tags: &[&str]) -> String {
    let client = reqwest::Client::new();
    let base = format!("{}/v2/{image}", registry.url());
    for blob in [b"{}".as_slice(), b"layer"] {
        let begun = client.post(format!("{base}/blobs/uploads/")).send().await.unwrap();
        let mut to = reqwest::Url::parse(begun.headers()["location"].to_str().unwrap()).unwrap();
        to.query_pairs_mut().append_pair("digest", &digest(blob));
        let put = client.put(to).body(blob).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": digest(b"{}")},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 5, "digest": digest(b"layer")}],
    })
    .to_string();
    for tag in tags {
        let put =
            client.put(format!("{base}/manifests/{tag}")).header("content-type", kind).body(manifest.clone());
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
    digest(manifest.as_bytes())
}

async fn filled(storage: &Path) -> String {
    let registry = Registry::start(storage, &Guard::Nobody);
    push(&registry, "team/myapp", &["1.9", "1.10", "7", "latest"]).await
}

#[tokio::test]
async fn a_tag_is_resolved_and_a_missing_one_names_what_there_is() {
    let storage = tempfile::tempdir().unwrap();
    let expected = filled(storage.path()).await;
    let registry = Registry::start(storage.path(), &Guard::Nobody);
    let world = World::new();
    for url in [registry.url(), format!("{}/v2/", registry.url())] {
        let found = resolve_tag(&world.access, &anonymous(&url), "team/myapp", "7").await.unwrap();
        assert_eq!(found.digest, expected);
        assert_eq!(found.image, format!("127.0.0.1:{}/team/myapp", registry.port));
        assert_eq!(found.media_type, "application/vnd.docker.distribution.manifest.v2+json");
    }
    let connector = anonymous(&registry.url());
    let mut tags = list_tags(&world.access, &connector, "team/myapp").await.unwrap();
    tags.sort();
    assert_eq!(tags, ["1.10", "1.9", "7", "latest"]);

    let error = resolve_tag(&world.access, &connector, "team/myapp", "1.11").await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-015"));
    assert!(error.what.contains("`1.11`") && error.what.contains("nearest: `1.10`"), "{error}");
    let error = resolve_tag(&world.access, &connector, "team/other", "7").await.unwrap_err();
    assert_eq!(error.code, "SRC-015");
    assert!(error.what.contains("does not know the image"), "{error}");
    for (image, tag) in [("team/../x", "7"), ("Team/x", "7"), ("team/myapp", "a/b"), ("team/myapp", "")] {
        assert_eq!(resolve_tag(&world.access, &connector, image, tag).await.unwrap_err().code, "SRC-008");
    }
    // A digest is a reference too.
    assert_eq!(
        resolve_tag(&world.access, &connector, "team/myapp", &expected).await.unwrap().digest,
        expected
    );
}

#[tokio::test]
async fn basic_authentication() {
    let storage = tempfile::tempdir().unwrap();
    let expected = filled(storage.path()).await;
    let registry = Registry::start(storage.path(), &Guard::Basic);
    let world = World::new();
    let found = resolve_tag(&world.access, &login(&registry.url(), "pw"), "team/myapp", "7").await.unwrap();
    assert_eq!(found.digest, expected);
    for connector in [login(&registry.url(), "wrong"), anonymous(&registry.url())] {
        let error = resolve_tag(&world.access, &connector, "team/myapp", "7").await.unwrap_err();
        assert_eq!((error.class, error.code), (Class::Authentication, "SRC-004"));
    }
    let error =
        resolve_tag(&world.access, &login(&registry.url(), "pw"), "team/myapp", "8").await.unwrap_err();
    assert_eq!(error.code, "SRC-015");
}

/// A token service that signs what docker-registry verifies, for the one user there is.
struct Realm {
    url: String,
    certificate: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Realm {
    async fn start(field: &'static str, open: bool) -> Realm {
        let made = rcgen::generate_simple_self_signed(vec!["realm".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let chain = STANDARD.encode(made.cert.der());
        let signer = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &made.signing_key.serialize_der(),
        )
        .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://127.0.0.1:{}/token", listener.local_addr().unwrap().port());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                        _ => break,
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let line = request.lines().next().unwrap_or_default().to_owned();
                let right = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
                let anonymous = open && !request.to_ascii_lowercase().contains("authorization:");
                let reply = if anonymous || request.contains(&right) {
                    format!("200 OK\r\n\r\n{}", json!({field: token(&chain, &signer)}))
                } else {
                    "401 Unauthorized\r\n\r\n{}".to_owned()
                };
                log.lock().unwrap().push(line);
                let _sent = stream.write_all(format!("HTTP/1.1 {reply}").as_bytes()).await;
                let _shut = stream.shutdown().await;
            }
        });
        Realm { url, certificate, asked, task }
    }
}

impl Drop for Realm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn token(chain: &str, signer: &aws_lc_rs::signature::EcdsaKeyPair) -> String {
    use executor_api::Clock;
    let now = executor_api::SystemClock.wall() / 1000;
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [chain]});
    let claims = json!({
        "iss": "test-realm", "sub": USER, "aud": "test-registry", "jti": "1",
        "iat": now - 10, "nbf": now - 10, "exp": now + 300,
        "access": [{"type": "repository", "name": "team/myapp", "actions": ["pull"]}],
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let random = aws_lc_rs::rand::SystemRandom::new();
    let signature = signer.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn token_authentication_by_the_registry_s_realm() {
    let storage = tempfile::tempdir().unwrap();
    let expected = filled(storage.path()).await;
    for field in ["token", "access_token"] {
        let realm = Realm::start(field, false).await;
        let guard = Guard::Token { realm: &realm.url, certificate: &realm.certificate };
        let registry = Registry::start(storage.path(), &guard);
        let world = World::new();
        let found =
            resolve_tag(&world.access, &login(&registry.url(), "pw"), "team/myapp", "7").await.unwrap();
        assert_eq!(found.digest, expected);
        let asked = realm.asked.lock().unwrap().join("\n");
        assert!(
            asked.contains("service=test-registry") && asked.contains("repository%3Ateam%2Fmyapp%3Apull"),
            "{asked}"
        );
        // The token is a secret from the moment it came.
        assert_eq!(world.secrets.masked.lock().unwrap().len(), 1);
        for connector in [login(&registry.url(), "wrong"), anonymous(&registry.url())] {
            let error = resolve_tag(&world.access, &connector, "team/myapp", "7").await.unwrap_err();
            assert_eq!((error.class, error.code), (Class::Authentication, "SRC-004"));
        }
        // A token for another repository is refused by the registry itself.
        let error =
            resolve_tag(&world.access, &login(&registry.url(), "pw"), "team/other", "7").await.unwrap_err();
        assert_eq!(error.code, "SRC-004");
    }
}

#[tokio::test]
async fn a_public_image_needs_no_user() {
    let storage = tempfile::tempdir().unwrap();
    let expected = filled(storage.path()).await;
    let realm = Realm::start("token", true).await;
    let guard = Guard::Token { realm: &realm.url, certificate: &realm.certificate };
    let registry = Registry::start(storage.path(), &guard);
    let world = World::new();
    let found = resolve_tag(&world.access, &anonymous(&registry.url()), "team/myapp", "1.9").await.unwrap();
    assert_eq!(found.digest, expected);
    // One token serves the listing of tags as well.
    let error =
        resolve_tag(&world.access, &anonymous(&registry.url()), "team/myapp", "1.8").await.unwrap_err();
    assert!(error.code == "SRC-015" && error.what.contains("`1.9`"), "{error}");
    assert_eq!(realm.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn pages_of_tags_are_followed_and_something_else_is_no_registry() {
    let nginx = crate::peers::Nginx::start(
        r#"location = /v2/a/tags/list { if ($arg_last = b) { return 200 '{"tags":["c"]}'; }
             add_header Link '</v2/a/tags/list?last=b&n=2>; rel="next"'; return 200 '{"tags":["a","b"]}'; }
           location = /v2/b/tags/list { return 200 '{"tags":null}'; }
           location = /v2/c/tags/list { return 200 '<html>'; }"#,
    );
    let (world, connector) = (World::new(), anonymous(&nginx.url("")));
    assert_eq!(list_tags(&world.access, &connector, "a").await.unwrap(), ["a", "b", "c"]);
    assert!(list_tags(&world.access, &connector, "b").await.unwrap().is_empty());
    let error = list_tags(&world.access, &connector, "c").await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::BadSpec, "SRC-013"));
}
