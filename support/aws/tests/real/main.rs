//! Against real peers: moto and haproxy, each started here, and small servers of our own where no peer exists: the instance's
//! metadata service, the container's credentials, and whatever a test wants to break.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that cannot go on is to panic.")]

mod calls;
mod faults;
mod identity;
mod network;
mod peers;

use aws::{Client, Settings};
use executor_api::testing::World;
use proto::task::{AwsAccount, AwsCredential, Step, StepTask};
use proto::text::SecretRef;
use serde_json::json;
use std::collections::BTreeMap;

pub(crate) const REGION: &str = "us-east-1";
pub(crate) const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub(crate) const SECRET: &str = "planted/secret+key-that-nobody-may-see";

/// A world whose secret `key` is [`SECRET`].
pub(crate) fn world() -> World {
    let step: Step = serde_json::from_value(
        json!({"type": "Noop", "identifier": "s", "name": "s", "spec": {"line": "x"}}),
    )
    .unwrap();
    World::new("task-1", StepTask::of(step), [("key".to_owned(), SECRET.to_owned())])
}

/// An account that takes its credentials from the agent, with every service but STS at `url`.
pub(crate) fn inheriting(url: &str) -> AwsAccount {
    AwsAccount { credential: AwsCredential::InheritFromDelegate, ..account(url) }
}

/// Variables of an agent.
pub(crate) fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// An account whose keys stand in the connector, with every service at `url`.
pub(crate) fn account(url: &str) -> AwsAccount {
    AwsAccount {
        connector: "prod".into(),
        region: REGION.into(),
        credential: AwsCredential::ManualConfig {
            access_key: KEY.into(),
            secret_key: proto::text::placeholder(&SecretRef("key".into()), 0).into(),
            session_token: None,
        },
        assume_role: None,
        endpoints: BTreeMap::from([(String::new(), url.to_owned())]),
    }
}

pub(crate) fn client(settings: Settings) -> Client {
    Client::new(settings).unwrap()
}
