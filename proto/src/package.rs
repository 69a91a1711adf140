//! The JSON acquire reply: `DelegateTaskPackageV2`. **Source**: protocol facts §4.4; ADR 0002 for `delegateExt`.

use crate::tolerance;
use secrecy::SecretString;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// A task as it is handed out.
///
/// **Shape**: `data` is kept as the bytes that arrived, because a signature covers those bytes. `Debug` shows neither
/// data nor anything secret. Unknown fields are ignored; `null` is the default of every field.
#[derive(Clone, Serialize, Deserialize)]
pub struct TaskPackage {
    /// Id of the task; echoed in the response.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub id: String,
    /// Harness task family.
    #[serde(rename = "type", default, deserialize_with = "tolerance::null_default")]
    pub task_type: String,
    /// The document of the task; `null` when there is none.
    #[serde(default = "null")]
    pub data: Box<RawValue>,
    /// Changes nothing for the agent, except that only asynchronous tasks can be aborted.
    #[serde(rename = "async", default, deserialize_with = "tolerance::null_default")]
    pub is_async: bool,
    /// Milliseconds. Always an integer on the wire: dlite drops the task otherwise.
    #[serde(default, deserialize_with = "tolerance::integer")]
    pub timeout: i64,
    /// Where logs go.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub logging: Logging,
    /// To whom the task was given. Without an `instance_id` the reply is a question for capabilities, not an assignment.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub delegate: Assignee,
    /// Base of the log keys; wins over the abstractions when it is not empty.
    #[serde(rename = "baseLogKey", default, skip_serializing_if = "Option::is_none")]
    pub base_log_key: Option<String>,
    /// The base stream is not to be opened.
    #[serde(
        rename = "shouldSkipOpenStream",
        default,
        deserialize_with = "tolerance::null_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub skip_open_stream: bool,
    /// Clients of secret providers by id. May hold credentials.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub encryption_configs: BTreeMap<String, Value>,
    /// Encrypted secrets by id.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub secret_details: BTreeMap<String, Value>,
    /// Clear values to mask. Read from a foreign manager; never written by ours (DESIGN D11).
    #[serde(default, deserialize_with = "tolerance::null_default", serialize_with = "no_secrets")]
    pub secrets: Vec<SecretString>,
    /// What the agent is to prove first.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub capabilities: Vec<Value>,
    /// The answer goes to the runner endpoint in the runner's shape.
    #[serde(rename = "runnerResponse", default, deserialize_with = "tolerance::null_default")]
    pub runner_response: bool,
    /// Ours.
    #[serde(
        rename = "delegateExt",
        default,
        deserialize_with = "tolerance::null_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub ext: Option<PackageExt>,
}

/// What our manager adds.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PackageExt {
    /// Number of this acquisition; only grows for a task.
    pub fence: u64,
    /// Secrets by reference, each sealed to the agent's public key ([`crate::seal`]).
    pub sealed_secrets: BTreeMap<String, String>,
    /// Checkpoints stored for the task, oldest first, as the agent sent them.
    pub checkpoints: Vec<Value>,
    /// Hash of the plan that a person approved; `run` compares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// Signature over the bytes of `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Which key signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// Where logs of a task go.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// Token of the log service. A credential: not in `Debug`.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub token: String,
    /// Ordered pairs that make up the log key ([`crate::logs::base_key`]).
    #[serde(deserialize_with = "tolerance::null_default")]
    pub abstractions: Abstractions,
}

/// The ordered map of log abstractions. Written in its order; a repeated key keeps its first place and last value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abstractions(pub Vec<(String, String)>);

/// To whom a task was given.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignee {
    /// The delegate.
    pub id: Option<String>,
    /// The process of it. An agent starts nothing unless this is its own.
    pub instance_id: Option<String>,
    /// Callback token. A credential: not in `Debug`.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub token: String,
}

/// A package cannot be read. Repeats nothing of its content.
#[derive(Debug, thiserror::Error)]
#[error("the acquire reply is not a task package (line {line}, column {column})")]
pub struct NotAPackage {
    /// Where, from 1.
    pub line: usize,
    /// Where, from 1.
    pub column: usize,
}

impl TaskPackage {
    /// A package that carries `data`.
    ///
    /// **Errors**: `data` cannot be written as JSON.
    pub fn new(id: &str, task_type: &str, data: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(TaskPackage {
            id: id.to_owned(),
            task_type: task_type.to_owned(),
            data: serde_json::value::to_raw_value(data)?,
            is_async: true,
            timeout: 0,
            logging: Logging::default(),
            delegate: Assignee::default(),
            base_log_key: None,
            skip_open_stream: false,
            encryption_configs: BTreeMap::new(),
            secret_details: BTreeMap::new(),
            secrets: vec![],
            capabilities: vec![],
            runner_response: false,
            ext: None,
        })
    }

    /// Reads an acquire reply.
    pub fn decode(body: &[u8]) -> Result<Self, NotAPackage> {
        serde_json::from_slice(body).map_err(|e| NotAPackage { line: e.line(), column: e.column() })
    }

    /// Whether the task was given to the instance `own`. Anything else must not be started.
    pub fn is_assigned_to(&self, own: &str) -> bool {
        self.delegate.instance_id.as_deref() == Some(own)
    }

    /// The fence of this acquisition; 0 from a foreign manager.
    pub fn fence(&self) -> u64 {
        self.ext.as_ref().map_or(0, |ext| ext.fence)
    }

    /// Base of the log keys of this task.
    pub fn log_base(&self) -> String {
        match &self.base_log_key {
            Some(base) if !base.is_empty() => base.clone(),
            _ => crate::logs::base_key(&self.logging.abstractions.0),
        }
    }
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

fn no_secrets<S: Serializer>(_: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(std::iter::empty::<&str>())
}

impl Serialize for Abstractions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Abstractions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Abstractions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Abstractions, A::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    let value = match value {
                        Value::String(text) => text,
                        Value::Null => continue,
                        other => other.to_string(),
                    };
                    match pairs.iter_mut().find(|(known, _)| *known == key) {
                        Some(pair) => pair.1 = value,
                        None => pairs.push((key, value)),
                    }
                }
                Ok(Abstractions(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl fmt::Debug for TaskPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPackage")
            .field("id", &self.id)
            .field("type", &self.task_type)
            .field("data_bytes", &self.data.get().len())
            .field("timeout", &self.timeout)
            .field("delegate", &self.delegate)
            .field("ext", &self.ext)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PackageExt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageExt")
            .field("fence", &self.fence)
            .field("secrets", &self.sealed_secrets.keys().collect::<Vec<_>>())
            .field("checkpoints", &self.checkpoints.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").field("abstractions", &self.abstractions).finish_non_exhaustive()
    }
}

impl fmt::Debug for Assignee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignee")
            .field("id", &self.id)
            .field("instance_id", &self.instance_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    const FULL: &str = r#"{"id":"t1","type":"DLITE_CI_VM_EXECUTE_TASK_V2","data":{"b": 1,  "a":{"@class":"x"}},"async":true,
        "timeout":600000,"logging":{"token":"opaque","abstractions":{"accountId":"a","zeta":"1","alpha":"2","runSequence":7}},
        "delegate":{"id":"d1","instance_id":"i1","token":"callback"},"encryption_configs":{"c":{"k":"clear-key"}},
        "secret_details":{"s":{"configUuid":"c"}},"secrets":["hunter2"],"capabilities":[{"capabilityType":"HTTP"}],
        "runnerResponse":false,"somethingNew":[1]}"#;

    #[test]
    fn a_package_is_read_with_its_order_and_its_bytes() {
        let package = TaskPackage::decode(FULL.as_bytes()).unwrap();
        assert_eq!(package.data.get(), r#"{"b": 1,  "a":{"@class":"x"}}"#);
        let keys: Vec<_> = package.logging.abstractions.0.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["accountId", "zeta", "alpha", "runSequence"]);
        assert_eq!(package.log_base(), "accountId:a/zeta:1/alpha:2/runSequence:7");
        assert!(package.is_assigned_to("i1") && !package.is_assigned_to("i2"));
        assert_eq!(package.secrets[0].expose_secret(), "hunter2");
        assert_eq!(package.fence(), 0);
    }

    #[test]
    fn nothing_secret_is_shown_or_written() {
        let package = TaskPackage::decode(FULL.as_bytes()).unwrap();
        let shown = format!("{package:?} {:?}", package.logging);
        for secret in ["hunter2", "opaque", "callback", "clear-key", "@class"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        let written = serde_json::to_string(&package).unwrap();
        assert!(!written.contains("hunter2") && written.contains(r#""secrets":[]"#));
        assert!(written.contains(r#""data":{"b": 1,  "a":{"@class":"x"}}"#));
    }

    #[test]
    fn nulls_and_absent_fields_are_defaults() {
        let package = TaskPackage::decode(
            br#"{"id":null,"type":"X","timeout":"5","delegate":{"id":null,"instance_id":null},"logging":null,"data":null}"#,
        )
        .unwrap();
        assert_eq!((package.data.get(), package.timeout), ("null", 5));
        assert!(!package.is_assigned_to(""));
        assert_eq!(TaskPackage::decode(b"{}").unwrap().data.get(), "null");
    }

    #[test]
    fn an_error_names_the_place_and_no_content() {
        let error = TaskPackage::decode(br#"{"id":"t1","timeout":"hunter2"}"#).unwrap_err().to_string();
        assert!(error.contains("column") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_base_key_of_the_package_wins() {
        let mut package = TaskPackage::decode(FULL.as_bytes()).unwrap();
        package.base_log_key = Some("base".into());
        assert_eq!(package.log_base(), "base");
        package.base_log_key = Some(String::new());
        assert!(package.log_base().starts_with("accountId:a"));
    }

    #[test]
    fn our_part_survives() {
        let mut package = TaskPackage::new("t", "DELEGATE_NOOP_TASK", &serde_json::json!({"v": 1})).unwrap();
        package.ext = Some(PackageExt {
            fence: 3,
            sealed_secrets: BTreeMap::from([("org.pw".to_owned(), "AAAA".to_owned())]),
            checkpoints: vec![serde_json::json!({"intent": "x"})],
            plan_hash: Some("h".into()),
            signature: None,
            key_id: None,
        });
        let again = TaskPackage::decode(&serde_json::to_vec(&package).unwrap()).unwrap();
        assert_eq!(again.ext, package.ext);
        assert_eq!(again.fence(), 3);
        assert_eq!(again.data.get(), package.data.get());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _unused = TaskPackage::decode(&bytes);
        }

        #[test]
        fn any_json_is_answered(value in crate::tests::any_json()) {
            let _unused = TaskPackage::decode(value.to_string().as_bytes());
            if let Ok(package) = TaskPackage::decode(serde_json::json!({"data": value}).to_string().as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(package.data.get()).unwrap(), value);
            }
        }

        #[test]
        fn abstractions_keep_their_order(pairs in proptest::collection::vec(("[a-z]{1,6}", ".*"), 0..8)) {
            let mut unique: Vec<(String, String)> = vec![];
            for (key, value) in pairs {
                if unique.iter().all(|(known, _)| *known != key) {
                    unique.push((key, value));
                }
            }
            let pairs = Abstractions(unique);
            let text = serde_json::to_string(&pairs).unwrap();
            prop_assert_eq!(serde_json::from_str::<Abstractions>(&text).unwrap(), pairs);
        }
    }
}
