//! A release as a Secret, and back.

use super::{Ours, Release, Status};
use crate::objects::{Object, parse_text, to_yaml};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::io::{Read as _, Write as _};

/// Type of the Secret.
pub(super) const TYPE: &str = "harness.io/release/v2";
/// Our own key in its data.
const OURS: &str = "delegate";
/// Longest manifests that are unpacked: a small Secret could hold a very long text.
const MAX_UNPACKED: u64 = 256 * 1024 * 1024;
/// What one Secret may hold; the API server refuses more than 1 MiB.
pub(super) const MAX_DATA: usize = 1_000_000;

const COLOR: &str = "color";
const ENVIRONMENT: &str = "harness.io/bg-environment";
const HASH: &str = "harness.io/manifest-hash";

/// Name of the Secret of a release.
pub(super) fn name(release: &str, number: u64) -> String {
    format!("harness.release.{release}.{number}")
}

/// The Secret of `release`.
///
/// **Errors**: its packed size when that is more than a Secret holds.
pub(super) fn to_secret(release: &Release, name_of: &str, namespace: &str) -> Result<Value, usize> {
    let mut text = String::new();
    for object in &release.objects {
        text.push_str("---\n");
        text.push_str(&to_yaml(&object.value));
    }
    let packed = pack(text.as_bytes());
    let ours = pack(&serde_json::to_vec(&release.ours).unwrap_or_default());
    if packed.len() + ours.len() > MAX_DATA {
        return Err(packed.len() + ours.len());
    }
    let mut labels: Map<String, Value> =
        release.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let mut label = |key: &str, value: String| labels.insert(key.to_owned(), Value::from(value));
    label("release", name_of.to_owned());
    label("release-number", release.number.to_string());
    label("owner", "harness".to_owned());
    label("status", release.status.as_str().to_owned());
    label("harness.io/pruning-enabled", "true".to_owned());
    for (key, value) in
        [(COLOR, &release.color), (ENVIRONMENT, &release.environment), (HASH, &release.manifest_hash)]
    {
        if let Some(value) = value {
            label(key, value.clone());
        }
    }
    let annotations: Map<String, Value> =
        release.annotations.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let mut metadata = json!({"name": name(name_of, release.number), "namespace": namespace, "labels": labels,
        "annotations": annotations});
    if !release.version.is_empty()
        && let Value::Object(metadata) = &mut metadata
    {
        metadata.insert("resourceVersion".to_owned(), Value::from(release.version.as_str()));
    }
    Ok(json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": metadata,
        "data": {"release": STANDARD.encode(packed), OURS: STANDARD.encode(ours)}}))
}

/// The release in a Secret.
///
/// **Errors**: what cannot be read.
pub(super) fn from_secret(secret: &Value) -> Result<Release, String> {
    let mut labels = pairs(secret, "/metadata/labels");
    let number = take(&mut labels, "release-number")
        .and_then(|number| number.parse().ok())
        .ok_or("its label release-number is no number")?;
    let status = match take(&mut labels, "status").as_deref() {
        Some("Succeeded") => Status::Succeeded,
        Some("Failed") => Status::Failed,
        _ => Status::InProgress,
    };
    let (color, environment, manifest_hash) =
        (take(&mut labels, COLOR), take(&mut labels, ENVIRONMENT), take(&mut labels, HASH));
    for key in ["release", "owner", "harness.io/pruning-enabled"] {
        let _ours = take(&mut labels, key);
    }
    let field = |key: &str| secret.pointer(&format!("/data/{key}")).and_then(Value::as_str);
    let objects = match field("release") {
        Some(packed) => objects(&unpack(packed)?)?,
        None => Vec::new(),
    };
    let ours = match field(OURS) {
        Some(packed) => {
            serde_json::from_slice::<Ours>(&unpack(packed)?).map_err(|error| error.to_string())?
        }
        None => Ours::default(),
    };
    let version = secret.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    Ok(Release {
        number,
        status,
        color,
        environment,
        manifest_hash,
        objects,
        ours,
        version: version.to_owned(),
        uid: secret.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
        labels,
        annotations: pairs(secret, "/metadata/annotations"),
    })
}

fn objects(text: &[u8]) -> Result<Vec<Object>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    parse_text("release", text).map_err(|faults| faults.first().map(ToString::to_string).unwrap_or_default())
}

fn pairs(secret: &Value, path: &str) -> Vec<(String, String)> {
    let pairs = secret.pointer(path).and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn take(pairs: &mut Vec<(String, String)>, key: &str) -> Option<String> {
    let at = pairs.iter().position(|(found, _)| found == key)?;
    Some(pairs.swap_remove(at).1)
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    // A Vec takes everything.
    let _never_fails = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn unpack(text: &str) -> Result<Vec<u8>, String> {
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    gunzip(&bytes)
}

/// Unpacks gzip within bounds.
pub(super) fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut found = Vec::new();
    let mut reader = GzDecoder::new(bytes).take(MAX_UNPACKED + 1);
    reader.read_to_end(&mut found).map_err(|error| error.to_string())?;
    if found.len() as u64 > MAX_UNPACKED {
        return Err(format!("it unpacks to more than {MAX_UNPACKED} bytes"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v\nw"}});
        let mut release = Release::new(3, vec![Object::new(object, "release").unwrap()], Ours::default());
        release.color = Some("blue".into());
        release.ours.task = "t1".into();
        release.annotations = vec![("harness.io/service".into(), "s".into())];
        release.labels = vec![("team".into(), "x".into())];
        release
    }

    #[test]
    fn a_release_is_read_back_as_it_was_stored() {
        let mut wanted = release();
        let mut secret = to_secret(&wanted, "web", "shop").unwrap();
        assert_eq!(secret["metadata"]["name"], "harness.release.web.3");
        assert_eq!(secret["metadata"]["labels"]["status"], "InProgress");
        secret["metadata"]["resourceVersion"] = json!("9");
        wanted.version = "9".into();
        assert_eq!(from_secret(&secret).unwrap(), wanted);
    }

    #[test]
    fn one_of_harness_own_delegate_is_read_too() {
        let yaml = "---\nkind: ConfigMap\napiVersion: v1\nmetadata:\n  name: x\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: y\n";
        let secret = json!({"metadata": {"resourceVersion": "1", "labels": {"release": "r", "release-number": "7",
            "owner": "harness", "status": "Succeeded"}}, "data": {"release": STANDARD.encode(pack(yaml.as_bytes()))}});
        let found = from_secret(&secret).unwrap();
        assert_eq!((found.number, found.status, found.objects.len()), (7, Status::Succeeded, 2));
        assert_eq!(found.items()[1].reference.to_string(), "Service/y");
    }

    #[test]
    fn what_is_broken_or_too_long_is_said() {
        let mut secret = to_secret(&release(), "web", "shop").unwrap();
        secret["data"]["release"] = json!("bm90IGd6aXA=");
        assert!(from_secret(&secret).is_err());
        let mut long = release();
        use sha2::Digest as _;
        let noise: String =
            (0..40_000u32).map(|n| hex::encode(sha2::Sha256::digest(n.to_le_bytes()))).collect();
        long.objects[0].set(&["data", "k"], Value::from(noise));
        assert!(to_secret(&long, "web", "shop").is_err());
    }
}
