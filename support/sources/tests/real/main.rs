//! Against real peers: nginx, docker-registry, `git http-backend`, each started here, and a proxy that cuts connections.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that cannot go on is to panic.")]

mod docker;
mod download;
mod git;
mod http;
mod peers;
mod probe;
mod proxy;

use executor_api::{Cancel, Clock, HostAliases, SecretError, SecretSource, SecretText, SystemClock};
use proto::task::{HttpAuth, HttpConnector};
use proto::text::{SecretRef, Text};
use sources::{Access, Backoff, Client, ClientOptions};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const USER: &str = "reader";
pub(crate) const PASSWORD: &str = "pull-me-1";

/// Secrets of a test: `pw` is the right password, `wrong` is not; everything else is missing.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) masked: Mutex<Vec<String>>,
}

impl SecretSource for Secrets {
    fn get(&self, secret: &SecretRef) -> Result<SecretText, SecretError> {
        match secret.0.as_str() {
            "pw" => Ok(PASSWORD.into()),
            "wrong" => Ok("nonsense".into()),
            name => Err(SecretError::Missing(name.to_owned())),
        }
    }
    fn reveal(&self, text: &Text) -> Result<SecretText, SecretError> {
        Ok(text.as_str().into())
    }
    fn mask(&self, value: &SecretText) {
        use secrecy::ExposeSecret;
        self.masked.lock().unwrap().push(value.expose_secret().to_owned());
    }
}

/// One test's access, with what it told.
pub(crate) struct World {
    pub(crate) access: Access,
    pub(crate) secrets: Arc<Secrets>,
    notices: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) aliases: Vec<(String, String)>,
    pub(crate) ca_pem: Option<Vec<u8>>,
    pub(crate) limit: Option<Duration>,
    pub(crate) cancel: Option<Cancel>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> World {
        let notices: Arc<Mutex<Vec<String>>> = Arc::default();
        let secrets: Arc<Secrets> = Arc::default();
        let clock = Arc::new(SystemClock);
        let deadline = clock.mono() + setup.limit.unwrap_or(Duration::from_secs(60));
        let lines = Arc::clone(&notices);
        let client = Client::new(ClientOptions { ca_pem: setup.ca_pem, ..ClientOptions::default() }).unwrap();
        let access = Access::without_step(
            client,
            Arc::clone(&secrets) as Arc<dyn SecretSource>,
            clock,
            setup.cancel.unwrap_or_else(Cancel::never),
            deadline,
            Arc::new(HostAliases::new(setup.aliases)),
            Arc::new(move |line| lines.lock().unwrap().push(line.to_owned())),
        )
        .backoff(Backoff {
            attempts: 4,
            min: Duration::from_millis(5),
            max: Duration::from_millis(50),
        });
        World { access, secrets, notices }
    }

    pub(crate) fn notices(&self) -> String {
        self.notices.lock().unwrap().join("\n")
    }
}

pub(crate) fn anonymous(url: &str) -> HttpConnector {
    HttpConnector { identifier: "peer".into(), url: url.into(), auth: HttpAuth::Anonymous, headers: vec![] }
}

pub(crate) fn login(url: &str, secret: &str) -> HttpConnector {
    let auth = HttpAuth::UsernamePassword { username: USER.into(), password: SecretRef(secret.into()) };
    HttpConnector { auth, ..anonymous(url) }
}
