//! Packages and results without their secrets, for a folder of recordings. What is left decodes like the package that came: each
//! secret is replaced by a text that stands for it, and records of encrypted secrets open to that text.

use crate::package::local;
use aho_corasick::{AhoCorasick, MatchKind};
use proto::package::{Logging, TaskPackage};
use proto::result::StepResult;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

/// What stands in the place of a secret that nothing refers to by its value.
const REMOVED: &str = "removed";

/// The key of records in recordings. It is no secret: what it opens are stand-ins.
const KEY: &str = "recorded";

/// Shorter values are left where they stand, as in [`crate::decode`].
const MIN_CHARS: usize = 3;

/// Keys whose texts are secrets wherever they stand, in small letters. A key that ends with `ref` names one and is kept.
const SECRET_KEYS: [&str; 9] = [
    "password",
    "passphrase",
    "token",
    "secretkey",
    "privatekey",
    "decryptedvalue",
    "sshkey",
    "sshpassword",
    "apikey",
];

/// Keys of a secret manager's configuration that are kept: they name it.
const KEPT: [&str; 5] = ["uuid", "name", "accountId", "encryptionType", "default"];

/// Secrets with what stands for each.
struct StandIns {
    /// Few, so looking through them costs nothing.
    texts: Vec<(Zeroizing<String>, String)>,
}

impl StandIns {
    fn of(&mut self, value: &str) -> String {
        if let Some((_, text)) = self.texts.iter().find(|(known, _)| known.as_str() == value) {
            return text.clone();
        }
        let text = format!("removed-secret-{}", self.texts.len() + 1);
        self.texts.push((Zeroizing::new(value.to_owned()), text.clone()));
        text
    }

    /// Every value in a text, the longest first.
    fn hider(&self) -> Hider {
        let all = self.texts.iter().filter(|(value, _)| value.chars().count() >= MIN_CHARS);
        let (values, texts): (Vec<&str>, Vec<String>) =
            all.map(|(value, text)| (value.as_str(), text.clone())).unzip();
        let found = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&values);
        Hider { found: found.ok().filter(|_| !values.is_empty()), texts }
    }
}

struct Hider {
    found: Option<AhoCorasick>,
    texts: Vec<String>,
}

impl Hider {
    fn text(&self, text: &str) -> String {
        self.found.as_ref().map_or_else(|| text.to_owned(), |found| found.replace_all(text, &self.texts))
    }
}

/// The package as JSON without its secrets and tokens. Unknown keys of the envelope are left out.
///
/// **Errors**: `None` when it cannot be written, or its data is no JSON: then nothing of it may be kept.
pub fn recorded_package(package: &TaskPackage) -> Option<Vec<u8>> {
    let mut data: Value = serde_json::from_str(package.data.get()).ok()?;
    let mut stand_ins = StandIns { texts: Vec::new() };
    let secrets: Vec<String> =
        package.secrets.iter().map(|secret| stand_ins.of(secret.expose_secret())).collect();
    let mut details = package.secret_details.clone();
    let mut capabilities = Value::from(package.capabilities.clone());
    for value in details.values_mut().chain([&mut data, &mut capabilities]) {
        reseal(value, &mut stand_ins);
    }
    let hider = stand_ins.hider();
    for value in details.values_mut().chain([&mut data, &mut capabilities]) {
        clean(value, &hider);
    }
    let configs: Map<String, Value> =
        package.encryption_configs.iter().map(|(id, config)| (id.clone(), named(config))).collect();
    let log = Logging { token: REMOVED.to_owned(), abstractions: package.logging.abstractions.clone() };
    // Written by hand, because the order of the abstractions makes the log key.
    let parts = [
        ("id", json!(package.id)),
        ("type", json!(package.task_type)),
        ("async", json!(package.is_async)),
        ("timeout", json!(package.timeout)),
        (
            "delegate",
            json!({"id": package.delegate.id, "instance_id": package.delegate.instance_id, "token": REMOVED}),
        ),
        ("baseLogKey", json!(package.base_log_key)),
        ("shouldSkipOpenStream", json!(package.skip_open_stream)),
        ("encryption_configs", Value::Object(configs)),
        ("secret_details", json!(details)),
        ("secrets", json!(secrets)),
        ("capabilities", capabilities),
        ("data", data),
    ];
    let mut text = format!("{{\n  \"logging\": {}", serde_json::to_string(&log).ok()?);
    for (key, value) in parts {
        text.push_str(&format!(",\n  \"{key}\": {}", serde_json::to_string(&value).ok()?));
    }
    text.push_str("\n}\n");
    Some(text.into_bytes())
}

/// Replaces records of encrypted secrets by such that open to their stand-in.
fn reseal(value: &mut Value, stand_ins: &mut StandIns) {
    match value {
        Value::Object(map) if map.contains_key("encryptedValue") => {
            let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
            let file = map.get("base64Encoded").and_then(Value::as_bool).unwrap_or(false);
            let opened = local::decrypt(text("encryptionKey"), text("encryptedValue"), file).ok();
            // What does not open is made such that it does not open here either.
            let sealed = opened.and_then(|clear| local::stand_in(KEY, &stand_ins.of(&clear), file));
            let kept = ["uuid", "name", "path", "kmsId", "encryptionType", "base64Encoded"];
            map.retain(|key, _| kept.contains(&key.as_str()));
            map.insert("encryptionKey".to_owned(), json!(KEY));
            map.insert("encryptedValue".to_owned(), json!(sealed.as_deref().unwrap_or(REMOVED)));
        }
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match key.as_str() {
                    "encryptionConfig" => *inner = named(inner),
                    _ => reseal(inner, stand_ins),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| reseal(inner, stand_ins)),
        _ => {}
    }
}

/// What names a secret manager, without what opens it.
fn named(config: &Value) -> Value {
    let Some(map) = config.as_object() else { return Value::Null };
    map.iter().filter(|(key, _)| KEPT.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Hides values, and texts under keys that mean a secret.
fn clean(value: &mut Value, hider: &Hider) {
    match value {
        Value::String(text) => *text = hider.text(text),
        Value::Array(list) => list.iter_mut().for_each(|inner| clean(inner, hider)),
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                let name = key.to_lowercase();
                match inner {
                    Value::String(text) if SECRET_KEYS.iter().any(|secret| name.ends_with(secret)) => {
                        *text = REMOVED.to_owned();
                    }
                    // A record that stands for itself.
                    Value::String(_) if name == "encryptedvalue" => {}
                    other => clean(other, hider),
                }
            }
        }
        _ => {}
    }
}

/// The result without the values of secret outputs and without undo data, for an answer that is kept.
pub fn recorded_result(result: &StepResult) -> StepResult {
    let mut kept = result.clone();
    kept.undo = None;
    for output in kept.outputs.values_mut().filter(|output| output.secret) {
        output.value = json!(REMOVED);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Vec<Value> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/kryo/requests.json");
        let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        all["packages"].as_array().unwrap().clone()
    }

    #[test]
    fn a_recording_holds_no_secret_and_decodes_like_the_package() {
        for mut one in packages() {
            one["logging"]["token"] = json!("log-token-7");
            one["delegate"]["token"] = json!("callback-7");
            one["encryption_configs"] =
                json!({"acct1": {"uuid": "acct1", "encryptionType": "LOCAL", "authToken": "vault-7"}});
            let package = TaskPackage::decode(one.to_string().as_bytes()).unwrap();
            let kept = recorded_package(&package).unwrap();
            let text = String::from_utf8(kept.clone()).unwrap();
            for secret in ["s3cr3t-value", "log-token-7", "callback-7", "vault-7", "w3Zk0Y1oRUu0cJm2mS1xAg"] {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
            let again = TaskPackage::decode(&kept).unwrap();
            assert_eq!(again.log_base(), package.log_base());
            let kind = |package: &TaskPackage| match crate::decode(package) {
                Ok(decoded) => {
                    (decoded.request, decoded.secrets.keys().cloned().collect::<Vec<_>>(), String::new())
                }
                Err(refused) => (refused.request, Vec::new(), refused.failure.message),
            };
            assert_eq!(kind(&again), kind(&package), "{text}");
        }
    }
}
