//! Sealing secrets to one agent: HPKE (RFC 9180), base mode, X25519 / HKDF-SHA256 / AES-128-GCM, one message per
//! encapsulation (ADR 0002).
//!
//! The reference of the secret is the associated data, so that a sealed value cannot be moved under another name. The
//! wire form is the base64 of the encapsulated key (32 bytes) followed by the ciphertext.

use crate::limits::MAX_SECRET_BYTES;
use aws_lc_rs::agreement;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use std::fmt;
use zeroize::Zeroizing;

/// Application info of the key schedule: binds sealed values to this use and version.
pub const INFO: &[u8] = b"delegate secret v1";

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// The key pair of an agent. `Debug` shows only the public half; the private half is zeroed on drop.
pub struct SealKeyPair {
    public: String,
    private: Zeroizing<[u8; KEY_BYTES]>,
}

/// Why sealing or opening failed. Repeats nothing of the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The public key is not the base64 of 32 bytes, or not a usable point.
    #[error("the public key is not the base64 of an X25519 key")]
    PublicKey,
    /// The private key cannot be used.
    #[error("the private key is not an X25519 key")]
    PrivateKey,
    /// The plaintext is larger than a secret may be.
    #[error("a secret of {bytes} bytes is larger than {MAX_SECRET_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The sealed value is not the base64 of an encapsulated key and a ciphertext.
    #[error("the sealed value is malformed")]
    Malformed,
    /// Sealed to another key, under another name, or altered.
    #[error("the sealed value does not open with this key under this name")]
    Open,
    /// The cryptographic library failed.
    #[error("the cryptographic library could not {0}")]
    Library(&'static str),
}

impl SealKeyPair {
    /// A new pair; the library draws the randomness.
    pub fn generate() -> Result<Self, SealError> {
        let (_, private) = SUITE.generate_key_pair().map_err(|_| SealError::Library("generate a key"))?;
        let private = private.secret_bytes().try_into().map_err(|_| SealError::Library("generate a key"))?;
        Self::from_bytes(private)
    }

    /// The pair of a stored private key.
    pub fn from_bytes(private: [u8; KEY_BYTES]) -> Result<Self, SealError> {
        let private = Zeroizing::new(private);
        let key = agreement::PrivateKey::from_private_key(&agreement::X25519, private.as_slice())
            .map_err(|_| SealError::PrivateKey)?;
        let public = key.compute_public_key().map_err(|_| SealError::PrivateKey)?;
        Ok(SealKeyPair { public: STANDARD.encode(public.as_ref()), private })
    }

    /// The public key in base64, as `delegateExt.publicKey` carries it.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The private key, for the agent's key file.
    pub fn expose_private(&self) -> &[u8; KEY_BYTES] {
        &self.private
    }
}

impl fmt::Debug for SealKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Seals `plaintext` to the holder of `public_b64` under the name `aad`.
///
/// **Repeat**: each call gives another text for the same input.
pub fn seal(public_b64: &str, aad: &str, plaintext: &[u8]) -> Result<String, SealError> {
    if plaintext.len() > MAX_SECRET_BYTES {
        return Err(SealError::TooLarge { bytes: plaintext.len() });
    }
    let public = STANDARD.decode(public_b64.trim()).map_err(|_| SealError::PublicKey)?;
    if public.len() != KEY_BYTES {
        return Err(SealError::PublicKey);
    }
    let (key, ciphertext) = SUITE
        .seal(INFO, aad.as_bytes(), plaintext, &HpkePublicKey(public))
        .map_err(|_| SealError::PublicKey)?;
    let mut wire = key.0;
    wire.extend_from_slice(&ciphertext);
    Ok(STANDARD.encode(wire))
}

/// Opens what [`seal`] made.
pub fn open(pair: &SealKeyPair, aad: &str, sealed_b64: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
    // Base64 grows by a third; what is longer cannot be ours and is not worth decoding.
    if sealed_b64.len() > MAX_SECRET_BYTES * 2 {
        return Err(SealError::Malformed);
    }
    let wire = STANDARD.decode(sealed_b64.trim()).map_err(|_| SealError::Malformed)?;
    let (key, ciphertext) = wire.split_at_checked(KEY_BYTES).ok_or(SealError::Malformed)?;
    if ciphertext.len() < TAG_BYTES {
        return Err(SealError::Malformed);
    }
    let private = HpkePrivateKey::from(pair.private.to_vec());
    SUITE
        .open(&EncapsulatedSecret(key.to_vec()), INFO, aad.as_bytes(), ciphertext, &private)
        .map(Zeroizing::new)
        .map_err(|_| SealError::Open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_sealed_opens_only_with_its_key_and_name() {
        let pair = SealKeyPair::generate().unwrap();
        let sealed = seal(pair.public(), "org.db_pw", b"s3cret").unwrap();
        assert_eq!(open(&pair, "org.db_pw", &sealed).unwrap().as_slice(), b"s3cret");
        assert_eq!(open(&pair, "db_pw", &sealed).unwrap_err(), SealError::Open);
        let other = SealKeyPair::generate().unwrap();
        assert_eq!(open(&other, "org.db_pw", &sealed).unwrap_err(), SealError::Open);
        assert_ne!(sealed, seal(pair.public(), "org.db_pw", b"s3cret").unwrap());
    }

    #[test]
    fn a_stored_key_gives_the_same_pair() {
        let pair = SealKeyPair::generate().unwrap();
        let again = SealKeyPair::from_bytes(*pair.expose_private()).unwrap();
        assert_eq!(again.public(), pair.public());
        let sealed = seal(pair.public(), "a", b"").unwrap();
        assert!(open(&again, "a", &sealed).unwrap().is_empty());
    }

    #[test]
    fn the_public_key_is_that_of_rfc_7748() {
        // RFC 7748 §6.1, Alice.
        let private =
            hex::decode("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a").unwrap();
        let public = hex::decode("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a").unwrap();
        let pair = SealKeyPair::from_bytes(private.try_into().unwrap()).unwrap();
        assert_eq!(pair.public(), STANDARD.encode(public));
    }

    #[test]
    fn debug_hides_the_private_half() {
        let pair = SealKeyPair::from_bytes([0x42; 32]).unwrap();
        let shown = format!("{pair:?}");
        assert!(
            shown.contains(pair.public()) && !shown.contains("4242") && !shown.contains("66, 66"),
            "{shown}"
        );
    }

    #[test]
    fn faults_are_told_apart() {
        let pair = SealKeyPair::generate().unwrap();
        assert_eq!(seal("AAAA", "a", b"x").unwrap_err(), SealError::PublicKey);
        assert_eq!(seal("%", "a", b"x").unwrap_err(), SealError::PublicKey);
        assert!(matches!(
            seal(pair.public(), "a", &vec![0; MAX_SECRET_BYTES + 1]),
            Err(SealError::TooLarge { .. })
        ));
        assert_eq!(open(&pair, "a", "AAAA").unwrap_err(), SealError::Malformed);
        assert_eq!(open(&pair, "a", &STANDARD.encode([1; 48])).unwrap_err(), SealError::Open);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_and_names_survive(bytes: Vec<u8>, name: String) {
            let pair = SealKeyPair::generate().unwrap();
            let sealed = seal(pair.public(), &name, &bytes).unwrap();
            let opened = open(&pair, &name, &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), bytes.as_slice());
        }

        #[test]
        fn any_text_is_answered(text: String, bytes: Vec<u8>) {
            let pair = SealKeyPair::generate().unwrap();
            prop_assert!(open(&pair, "a", &text).is_err());
            prop_assert!(open(&pair, "a", &STANDARD.encode(bytes)).is_err());
            prop_assert!(seal(&text, "a", b"x").is_err());
        }
    }
}
