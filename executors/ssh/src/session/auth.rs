//! Logging in with a key.

use super::dial::Client;
use crate::error::Error;
use executor_api::SecretSource;
use proto::task::{SshCredential, SshTarget};
use russh::client::{AuthResult, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use secrecy::ExposeSecret;
use std::sync::Arc;

/// The private key of `target`, decoded.
///
/// **Errors**: a missing secret, a key that cannot be read. The text names the secret, never its value.
pub(crate) fn login_key(target: &SshTarget, secrets: &dyn SecretSource) -> Result<PrivateKey, Error> {
    let SshCredential::Key { key, passphrase } = &target.credential;
    let text = secrets.get(key)?;
    let phrase = passphrase.as_ref().map(|p| secrets.get(p)).transpose()?;
    let bad = |why: &str| Error::BadKey { secret: key.0.clone(), why: why.to_owned() };
    let text = text.expose_secret().trim_start_matches('\u{feff}');
    if text.trim_start().starts_with("PuTTY-User-Key-File") {
        return Err(bad("it is a PuTTY key (.ppk); export it as an OpenSSH key with puttygen"));
    }
    if text.trim_start().starts_with("ssh-") || text.trim_start().starts_with("ecdsa-") {
        return Err(bad("it is a public key; the private one is needed"));
    }
    if !text.contains("-----BEGIN ") {
        return Err(bad("it holds no private key in OpenSSH, PEM or PKCS#8 form"));
    }
    // A PEM without its last newline, or with CRLF, is common in pasted secrets.
    let text = zeroize::Zeroizing::new(format!("{}\n", text.trim().replace('\r', "")));
    let phrase = phrase.as_ref().map(|p| p.expose_secret());
    russh::keys::decode_secret_key(&text, phrase).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => bad("it is encrypted and no passphrase is given"),
        _ if phrase.is_some() => bad("it is damaged, or the passphrase is wrong"),
        russh::keys::Error::UnsupportedKeyType { key_type_string, .. } => {
            bad(&format!("keys of type {key_type_string} are not supported"))
        }
        _ => bad("it is damaged or of an unsupported kind"),
    })
}

/// Authenticates; one try with the one configured key.
///
/// **Errors**: `Refused` (never tried again), `Lost`.
pub(super) async fn authenticate(
    handle: &mut Handle<Client>,
    target: &SshTarget,
    host: &str,
    key: &Arc<PrivateKey>,
) -> Result<(), Error> {
    let lost = |why: String| Error::Lost { host: host.to_owned(), why };
    let hash = match key.algorithm() {
        Algorithm::Rsa { .. } => match handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Some(hash),
            // SHA-1 signatures are never offered.
            Ok(_) => Some(HashAlg::Sha256),
            Err(error) => return Err(lost(error.to_string())),
        },
        _ => None,
    };
    let attempt = PrivateKeyWithHashAlg::new(key.clone(), hash);
    let result =
        handle.authenticate_publickey(target.user.clone(), attempt).await.map_err(|e| lost(e.to_string()))?;
    match result {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { remaining_methods, .. } => {
            if remaining_methods.is_empty() && handle.is_closed() {
                return Err(lost("it closed the connection during authentication".into()));
            }
            let methods: Vec<String> = remaining_methods.iter().map(|m| <&str>::from(m).to_owned()).collect();
            Err(Error::Refused {
                user: target.user.clone(),
                host: host.to_owned(),
                algorithm: key.algorithm().to_string(),
                fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                methods: methods.join(", "),
            })
        }
    }
}
