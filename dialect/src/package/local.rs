//! Secrets of Harness' built-in manager. When a package is made, the manager encrypts each of them with a key of its own and
//! sends that key along. **Source**: facts `kryo-dialect.md` §6.

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes in front of the ciphertext that have no effect.
const SALT: usize = 32;

/// The one initialisation vector.
const IV: [u8; 16] = *b"EncryptionIV0*d&";

/// Opens a value. The text is Latin-1, or what the file was if it is one.
///
/// **Errors**: what is wrong with it; never a part of it.
pub(crate) fn decrypt(
    encryption_key: &str,
    encrypted: &str,
    file: bool,
) -> Result<Zeroizing<String>, &'static str> {
    let key = derived(encryption_key);
    let bytes: Option<Vec<u8>> = encrypted.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let bytes = Zeroizing::new(bytes.ok_or("its value holds characters that are no bytes")?);
    let sealed = bytes.get(SALT..).filter(|rest| !rest.is_empty() && rest.len() % 16 == 0);
    let sealed = sealed.ok_or("its value is cut off")?;
    let key = UnboundCipherKey::new(&AES_256, key.get(..32).unwrap_or_default());
    let key = key.and_then(PaddedBlockDecryptingKey::cbc_pkcs7).map_err(|_| "its key is none")?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let context = DecryptionContext::Iv128(FixedLength::from(&IV));
    let clear = key.decrypt(&mut buffer, context).map_err(|_| "its key does not fit")?;
    let latin = |bytes: &[u8]| Zeroizing::new(bytes.iter().copied().map(char::from).collect::<String>());
    if !file {
        return Ok(latin(clear));
    }
    let content: Vec<u8> = clear.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let content = Zeroizing::new(STANDARD.decode(content).map_err(|_| "it is no file in base64")?);
    Ok(match std::str::from_utf8(&content) {
        Ok(text) => Zeroizing::new(text.to_owned()),
        Err(_) => latin(&content),
    })
}

fn derived(encryption_key: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(STANDARD.encode(Sha256::digest(encryption_key.as_bytes())).into_bytes())
}

/// A record that opens to `text`, for recordings: there is nothing secret in one. `None`: the library refuses.
pub(crate) fn stand_in(encryption_key: &str, text: &str, file: bool) -> Option<String> {
    let mut buffer = if file { STANDARD.encode(text).into_bytes() } else { text.as_bytes().to_vec() };
    let key = derived(encryption_key);
    let key = UnboundCipherKey::new(&AES_256, key.get(..32)?).ok()?;
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?;
    key.less_safe_encrypt(&mut buffer, EncryptionContext::Iv128(FixedLength::from(&IV))).ok()?;
    Some(std::iter::repeat_n(0, SALT).chain(buffer).map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the facts: made with an AES that is not ours.
    fn value() -> String {
        let mut bytes: Vec<u8> = (0..32).collect();
        bytes.extend(hex::decode("b6edafe198aa84ef467d0cb8509c6a26").unwrap());
        bytes.into_iter().map(char::from).collect()
    }

    #[test]
    fn the_vector_opens() {
        assert_eq!(hex::encode(IV), "456e6372797074696f6e4956302a6426");
        assert_eq!(decrypt("w3Zk0Y1oRUu0cJm2mS1xAg", &value(), false).unwrap().as_str(), "s3cr3t-value");
    }

    #[test]
    fn a_stand_in_opens_to_its_text() {
        for file in [false, true] {
            let value = stand_in("k", "removed-secret-1", file).unwrap();
            assert_eq!(decrypt("k", &value, file).unwrap().as_str(), "removed-secret-1");
        }
    }

    #[test]
    fn what_does_not_open_says_why() {
        let wrong = |key: &str, value: &str, file| decrypt(key, value, file).unwrap_err();
        assert_eq!(wrong("other", &value(), false), "its key does not fit");
        assert_eq!(wrong("", "", false), "its value is cut off");
        assert_eq!(wrong("w3Zk0Y1oRUu0cJm2mS1xAg", &value()[..40], false), "its value is cut off");
        assert_eq!(
            wrong("w3Zk0Y1oRUu0cJm2mS1xAg", &format!("{}世", value()), false),
            "its value holds characters that are no bytes"
        );
        assert_eq!(wrong("w3Zk0Y1oRUu0cJm2mS1xAg", &value(), true), "it is no file in base64");
    }
}
