//! Delegate tokens and the bearer minted from them.
//!
//! A delegate token is an AES-128 key; it never travels. What travels is a short-lived JWE (compact, `dir`, `A128GCM`)
//! that only a holder of the key can make. **Source**: protocol facts §1.1–1.4.

use crate::limits::MAX_BEARER_BYTES;
use crate::tolerance;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes128Gcm, KeyInit};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Word before the bearer in the `Authorization` header.
pub const AUTH_SCHEME: &str = "Delegate";

/// Header that carries [`DelegateToken::hash`].
pub const TOKEN_HASH_HEADER: &str = "delegateTokenHash";

/// The protected header that we write. Key order is part of the check vector.
const HEADER: &str = r#"{"alg":"dir","enc":"A128GCM","typ":"JWT"}"#;

const TAG_BYTES: usize = 16;

/// A delegate token: 16 bytes, written as 32 hex characters.
///
/// The text is kept beside the bytes, because [`DelegateToken::hash`] is defined over the text and `AB` and `ab` are
/// the same key with different hashes. Zeroed on drop; `Debug` shows nothing of it; comparison takes the same time for
/// every input.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DelegateToken {
    key: [u8; 16],
    text: String,
}

/// What a bearer says.
///
/// **Units**: seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Account id.
    pub sub: String,
    /// Who made it: a host name or `issuer`.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub iss: String,
    /// For whom.
    #[serde(default)]
    pub aud: Audience,
    /// End of life. A bearer without one is refused.
    #[serde(deserialize_with = "tolerance::integer")]
    pub exp: i64,
    /// When it was made.
    #[serde(default, deserialize_with = "tolerance::integer")]
    pub iat: i64,
    /// Start of life; not checked by Harness, kept for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Unique id.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub jti: String,
}

/// `aud` is one string (Java) or a list (Go); both forms are kept as they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "The forms say it.")]
pub enum Audience {
    One(String),
    Many(Vec<String>),
    None,
}

impl Default for Audience {
    fn default() -> Self {
        Audience::Many(vec![])
    }
}

/// Why a token or a bearer was not taken. Repeats nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The delegate token has the wrong shape.
    #[error(
        "a delegate token is 32 hex characters, or those in base64; found {found} characters of another kind"
    )]
    Shape {
        /// How many characters were there.
        found: usize,
    },
    /// Not a compact JWE.
    #[error("the bearer is not a compact JWE: {0}")]
    Malformed(&'static str),
    /// Another algorithm than `dir` with `A128GCM`.
    #[error("the bearer uses another algorithm than `dir` with `A128GCM`")]
    Algorithm,
    /// The key does not fit, or the bearer was altered.
    #[error("the bearer cannot be decrypted with this token")]
    Decrypt,
    /// It decrypts, but what it says cannot be read.
    #[error("the claims of the bearer cannot be read")]
    Claims,
}

impl Claims {
    /// Whether the bearer's life is over. `exp` itself is the first second of the end.
    pub fn expired_at(&self, now_secs: i64) -> bool {
        self.exp <= now_secs
    }
}

impl DelegateToken {
    /// The token of 16 random bytes.
    pub fn from_bytes(key: [u8; 16]) -> Self {
        DelegateToken { key, text: hex::encode(key) }
    }

    /// Takes a token as users paste it: 32 hex characters, or the base64 of those, with blanks around.
    ///
    /// **Errors**: [`TokenError::Shape`].
    pub fn normalise(written: &str) -> Result<Self, TokenError> {
        let written = written.trim();
        if let Some(mut decoded) =
            STANDARD.decode(written).ok().or_else(|| STANDARD_NO_PAD.decode(written).ok())
        {
            let token = std::str::from_utf8(&decoded).ok().and_then(|text| Self::from_hex(text.trim()));
            decoded.zeroize();
            if let Some(token) = token {
                return Ok(token);
            }
        }
        Self::from_hex(written).ok_or(TokenError::Shape { found: written.chars().count() })
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0; 16];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(DelegateToken { key, text: text.to_owned() })
    }

    /// The 32 hex characters. Only for handing a token out once; never log it.
    pub fn expose_hex(&self) -> &str {
        &self.text
    }

    /// The key bytes.
    pub fn expose_bytes(&self) -> &[u8; 16] {
        &self.key
    }

    /// `delegateTokenHash`: SHA-256 over the hex text as a Java `BigInteger` prints it, without leading zero nibbles.
    pub fn hash(&self) -> String {
        let padded = self.padded_hash();
        let short = padded.trim_start_matches('0');
        if short.is_empty() { "0".to_owned() } else { short.to_owned() }
    }

    /// The same hash with its leading zeroes: 64 characters. This is what a manager stores and looks up by.
    pub fn padded_hash(&self) -> String {
        hex::encode(Sha256::digest(self.text.as_bytes()))
    }

    /// Makes a bearer.
    ///
    /// `iv` must never repeat under one token: draw it at random for each call. **Errors**: [`TokenError::Claims`] if
    /// the claims cannot be written, which needs more memory than there is.
    pub fn mint(&self, claims: &Claims, iv: [u8; 12]) -> Result<String, TokenError> {
        let header = URL_SAFE_NO_PAD.encode(HEADER);
        let mut plain = serde_json::to_vec(claims).map_err(|_| TokenError::Claims)?;
        let sealed = Aes128Gcm::new(&self.key.into())
            .encrypt(&iv.into(), Payload { msg: &plain, aad: header.as_bytes() })
            .map_err(|_| TokenError::Claims)?;
        plain.zeroize();
        let (body, tag) =
            sealed.split_at_checked(sealed.len().saturating_sub(TAG_BYTES)).ok_or(TokenError::Claims)?;
        Ok(format!(
            "{header}..{}.{}.{}",
            URL_SAFE_NO_PAD.encode(iv),
            URL_SAFE_NO_PAD.encode(body),
            URL_SAFE_NO_PAD.encode(tag)
        ))
    }

    /// Opens a bearer. Says nothing about its age: ask [`Claims::expired_at`], so that "expired" can be told from
    /// "unknown".
    ///
    /// **Errors**: every variant but `Shape`.
    pub fn open(&self, bearer: &str) -> Result<Claims, TokenError> {
        if bearer.len() > MAX_BEARER_BYTES {
            return Err(TokenError::Malformed("it is too long"));
        }
        let mut parts = bearer.split('.');
        let (Some(header), Some(key), Some(iv), Some(body), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed("it does not have five parts"));
        };
        if !key.is_empty() {
            return Err(TokenError::Algorithm);
        }
        check_header(&decode(header)?)?;
        let iv: [u8; 12] =
            decode(iv)?.try_into().map_err(|_| TokenError::Malformed("its IV is not 12 bytes"))?;
        let tag: [u8; TAG_BYTES] =
            decode(tag)?.try_into().map_err(|_| TokenError::Malformed("its tag is not 16 bytes"))?;
        let mut sealed = decode(body)?;
        sealed.extend_from_slice(&tag);
        let plain = Aes128Gcm::new(&self.key.into())
            .decrypt(&iv.into(), Payload { msg: &sealed, aad: header.as_bytes() })
            .map_err(|_| TokenError::Decrypt)?;
        serde_json::from_slice(&plain).map_err(|_| TokenError::Claims)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part is not base64url"))
}

fn check_header(bytes: &[u8]) -> Result<(), TokenError> {
    /// `zip` and `crit` change how a JWE is to be read (RFC 7516 §4.1); we implement neither.
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        enc: String,
        zip: Option<serde_json::Value>,
        crit: Option<serde_json::Value>,
    }
    let header: Header =
        serde_json::from_slice(bytes).map_err(|_| TokenError::Malformed("its header is not a JWE header"))?;
    if header.alg == "dir" && header.enc == "A128GCM" && header.zip.is_none() && header.crit.is_none() {
        Ok(())
    } else {
        Err(TokenError::Algorithm)
    }
}

/// The bearer in the value of an `Authorization` header, or `None` if another scheme stands there.
pub fn bearer_of(header: &str) -> Option<&str> {
    let (scheme, bearer) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(AUTH_SCHEME).then(|| bearer.trim())
}

/// A `delegateTokenHash` as a client sent it, left-padded to 64 characters in lower case; `None` if it is no hash.
pub fn pad_hash(sent: &str) -> Option<String> {
    let sent = sent.trim();
    let is_hash = !sent.is_empty() && sent.len() <= 64 && sent.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then(|| format!("{:0>64}", sent.to_ascii_lowercase()))
}

impl PartialEq for DelegateToken {
    fn eq(&self, other: &Self) -> bool {
        // Every byte is looked at, so that the time says nothing about where two tokens differ.
        self.key.iter().zip(&other.key).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

impl Eq for DelegateToken {}

impl fmt::Debug for DelegateToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DelegateToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "00112233445566778899aabbccddeeff";
    const VECTOR: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIiwidHlwIjoiSldUIn0..AAECAwQFBgcICQoL.UPdEscy1tUL-W0rrIa9tz2Rs_mhOk4f-_Cu_PMMnpElD7fBuSioohRbE7puxdPe90xLhwdnut4bBKBXeD89wLOLb7rBlV0H38VubV2sVbZtHo13RVgnzADtxEcKK2BI.c0hiJcHFcX1WXQUfBMUp4g";

    fn token() -> DelegateToken {
        DelegateToken::normalise(TOKEN).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            sub: "acct1".into(),
            iss: "issuer".into(),
            aud: Audience::Many(vec!["audience".into()]),
            exp: 4_102_444_800,
            iat: 1_700_000_000,
            nbf: None,
            jti: "t-1".into(),
        }
    }

    #[test]
    fn the_check_vector_is_met_both_ways() {
        let iv = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(token().mint(&claims(), iv).unwrap(), VECTOR);
        assert_eq!(token().open(VECTOR).unwrap(), claims());
    }

    #[test]
    fn hashes_meet_their_vectors() {
        assert_eq!(token().hash(), "5947d7c33d783f94b3b4c1a96ebc8991ed28f1b069b71e03376cba8caa98a720");
        let odd = DelegateToken::normalise("00000000000000000000000000000188").unwrap();
        assert_eq!(odd.hash(), "18cf5969e16ecfbda67f7dea3c1d8d9533a3f46b8a2461ae8ef84d02ca63e5");
        assert_eq!(odd.padded_hash().len(), 64);
        assert_eq!(pad_hash(&odd.hash()), Some(odd.padded_hash()));
        assert_eq!(pad_hash("xyz"), None);
        assert_eq!(pad_hash(""), None);
        assert_eq!(pad_hash(&"a".repeat(65)), None);
    }

    #[test]
    fn base64_of_the_hex_text_is_the_same_token() {
        for written in [STANDARD.encode(TOKEN), STANDARD.encode(format!("{TOKEN}\n")), format!(" {TOKEN}\n")]
        {
            assert_eq!(DelegateToken::normalise(&written).unwrap(), token(), "{written}");
        }
    }

    #[test]
    fn upper_case_is_the_same_key_with_another_hash() {
        let upper = DelegateToken::normalise(&TOKEN.to_ascii_uppercase()).unwrap();
        assert_eq!(upper, token());
        assert_ne!(upper.hash(), token().hash());
    }

    #[test]
    fn other_shapes_are_refused_without_repeating_them() {
        for written in ["", "hunter2hunter2", &TOKEN[1..], &format!("{TOKEN}0")] {
            let error = DelegateToken::normalise(written).unwrap_err().to_string();
            assert!(written.is_empty() || !error.contains(written), "{error}");
        }
    }

    #[test]
    fn debug_hides_the_token() {
        assert!(!format!("{:?}", token()).contains("0011"));
    }

    #[test]
    fn java_bearers_open() {
        // The Java client writes the header the other way round, one audience and `nbf`.
        let header = URL_SAFE_NO_PAD.encode(r#"{"enc":"A128GCM","alg":"dir"}"#);
        let plain = br#"{"sub":"acct1","aud":"https://h:443","exp":1700001800,"iat":1700000000,"nbf":1700000000,"iss":"host","jti":"j"}"#;
        let sealed = Aes128Gcm::new(&(*token().expose_bytes()).into())
            .encrypt(&[9; 12].into(), Payload { msg: plain, aad: header.as_bytes() })
            .unwrap();
        let (body, tag) = sealed.split_at(sealed.len() - 16);
        let bearer = [header, String::new()]
            .into_iter()
            .chain([&[9; 12][..], body, tag].map(|part| URL_SAFE_NO_PAD.encode(part)))
            .collect::<Vec<_>>()
            .join(".");
        let opened = token().open(&bearer).unwrap();
        assert_eq!(opened.aud, Audience::One("https://h:443".into()));
        assert_eq!(opened.nbf, Some(1_700_000_000));
        assert!(!opened.expired_at(1_700_001_799));
        assert!(opened.expired_at(1_700_001_800));
    }

    #[test]
    fn each_fault_has_its_error() {
        let other = DelegateToken::from_bytes([7; 16]);
        assert_eq!(other.open(VECTOR), Err(TokenError::Decrypt));
        assert!(matches!(token().open("a.b.c"), Err(TokenError::Malformed(_))));
        assert!(matches!(token().open(&"a".repeat(MAX_BEARER_BYTES + 1)), Err(TokenError::Malformed(_))));
        let foreign = URL_SAFE_NO_PAD.encode(r#"{"alg":"RSA-OAEP","enc":"A128GCM"}"#);
        let swapped = format!("{foreign}{}", &VECTOR[VECTOR.find('.').unwrap()..]);
        assert_eq!(token().open(&swapped), Err(TokenError::Algorithm));
        let with_key = VECTOR.replacen("..", ".AAAA.", 1);
        assert_eq!(token().open(&with_key), Err(TokenError::Algorithm));
        let zipped = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A128GCM","zip":"DEF"}"#);
        assert_eq!(
            token().open(&format!("{zipped}{}", &VECTOR[VECTOR.find('.').unwrap()..])),
            Err(TokenError::Algorithm)
        );
    }

    #[test]
    fn the_bearer_stands_behind_its_scheme() {
        assert_eq!(bearer_of("Delegate abc"), Some("abc"));
        assert_eq!(bearer_of("delegate  abc "), Some("abc"));
        assert_eq!(bearer_of("Bearer abc"), None);
        assert_eq!(bearer_of("Delegate"), None);
    }

    proptest! {
        #[test]
        fn what_is_minted_opens(key: [u8; 16], iv: [u8; 12], sub: String, exp in 0_i64..9_000_000_000, one: bool) {
            let token = DelegateToken::from_bytes(key);
            let aud = if one { Audience::One(sub.clone()) } else { Audience::Many(vec![sub.clone()]) };
            let claims = Claims { sub, aud, exp, ..claims() };
            prop_assert_eq!(token.open(&token.mint(&claims, iv).unwrap()).unwrap(), claims);
        }

        #[test]
        fn one_flipped_character_never_opens(at in 0..VECTOR.len(), to in "[A-Za-z0-9_.-]") {
            let mut altered = VECTOR.to_owned();
            altered.replace_range(at..=at, &to);
            prop_assume!(altered != VECTOR);
            prop_assert!(token().open(&altered).is_err());
        }

        #[test]
        fn any_text_is_answered(text in ".{0,300}") {
            prop_assert!(token().open(&text).is_err());
            if let Ok(token) = DelegateToken::normalise(&text) {
                prop_assert_eq!(token.expose_hex().len(), 32);
            }
            let _unused = bearer_of(&text);
        }
    }
}
