//! `GET /hostkeys`, `PUT` and `DELETE /hostkeys/{host}`: which SSH host keys are known (settled facts §2.4).

use super::body::JsonBody;
use super::{Answer, Api, error::ApiError};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
pub(super) struct Accept {
    key: String,
}

pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Value>> {
    let keys = api.app.store.host_keys(None).await?;
    Ok(Json(
        keys.into_iter()
            .map(|(host, key, since)| {
                json!({ "host": host, "fingerprint": fingerprint(&key), "key": key, "since": since })
            })
            .collect(),
    ))
}

pub(super) async fn accept(
    State(api): State<Api>,
    Path(host): Path<String>,
    JsonBody(body): JsonBody<Accept>,
) -> Answer<StatusCode> {
    let host = host_port(&host)?;
    let key = body.key.trim();
    if fingerprint(key).is_none() {
        return Err(ApiError::request(
            "`key` is neither `SHA256:` with 43 characters of base64 nor an OpenSSH public key (`ssh-ed25519 AAAA…`)",
        )
        .hint("`ssh-keyscan HOST | ssh-keygen -lf -` prints the fingerprint; compare it on the host itself"));
    }
    // A comment behind the key is of no use and would make equal keys differ.
    let key = key.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ");
    api.app.store.accept_host_key(&host, &key, api.app.clock.wall()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn forget(State(api): State<Api>, Path(host): Path<String>) -> Answer<StatusCode> {
    let host = host_port(&host)?;
    if api.app.store.host_keys(Some(&host)).await?.is_empty() {
        return Err(ApiError::not_found(format!("no host key of {host} is known")));
    }
    api.app.store.forget_host_key(&host).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `host` or `host:port`; port 22 when none is given. An IPv6 address stands in brackets.
fn host_port(text: &str) -> Answer<String> {
    let text = text.trim();
    let wrong = || ApiError::request(format!("`{text}` is not HOST or HOST:PORT"));
    if text.is_empty() || text.len() > 300 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong());
    }
    let after_bracket = text.rfind(']').map_or(0, |at| at + 1);
    match text.get(after_bracket..).and_then(|rest| rest.rsplit_once(':')) {
        Some((_, port)) => {
            port.parse::<u16>().map_err(|_| wrong())?;
            Ok(text.to_owned())
        }
        None => Ok(format!("{text}:22")),
    }
}

/// The `SHA256:…` form of an OpenSSH key or of a fingerprint; `None` if it is neither.
fn fingerprint(key: &str) -> Option<String> {
    if let Some(hash) = key.strip_prefix("SHA256:") {
        let bytes = STANDARD_NO_PAD.decode(hash.trim_end_matches('=')).ok()?;
        return (bytes.len() == 32).then(|| format!("SHA256:{}", STANDARD_NO_PAD.encode(bytes)));
    }
    let mut words = key.split_ascii_whitespace();
    let (kind, blob) = (words.next()?, words.next()?);
    let blob = STANDARD.decode(blob).ok()?;
    // The blob begins with its own kind: a length and a name.
    let length = u32::from_be_bytes(blob.get(..4)?.try_into().ok()?);
    let name = blob.get(4..4 + usize::try_from(length).ok()?)?;
    (name == kind.as_bytes()).then(|| format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&blob))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_fingerprints_are_told_from_other_text() {
        // `ssh-keygen -lf` prints this fingerprint for this key.
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github";
        let print = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
        assert_eq!(fingerprint(key).as_deref(), Some(print));
        assert_eq!(fingerprint(print).as_deref(), Some(print));
        for wrong in [
            "",
            "SHA256:abc",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkV",
            "MD5:00:11",
            "ssh-ed25519",
            "ssh-ed25519 ////",
        ] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_missing_port_is_22() {
        assert_eq!(host_port("h.example").unwrap(), "h.example:22");
        assert_eq!(host_port("h.example:2222").unwrap(), "h.example:2222");
        assert_eq!(host_port("[::1]").unwrap(), "[::1]:22");
        assert_eq!(host_port("[::1]:2222").unwrap(), "[::1]:2222");
        assert!(host_port("h:x").is_err());
        assert!(host_port(" ").is_err());
    }
}
