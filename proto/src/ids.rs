//! Ids as this wire writes them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Length of every [`Id`] in characters.
pub const ID_CHARS: usize = 22;

/// An id that our side made: 16 bytes in URL-safe base64 without padding.
///
/// **Shape**: [`ID_CHARS`] characters of `A-Z a-z 0-9 - _`. Ids that a foreign side made (`t1`, `acct1`) need not look
/// like this; the wire types hold those as plain strings. **Source**: protocol facts, common conventions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// A text is not an [`Id`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected {ID_CHARS} characters of URL-safe base64 that stand for 16 bytes")]
pub struct NotAnId(pub String);

impl Id {
    /// The id of 16 random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Id(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The id of 16 random bytes that people will type: it begins with a letter or a digit, never with `-`, which a
    /// command line would take for a flag. One bit of the bytes is given up for that.
    pub fn typeable(mut bytes: [u8; 16]) -> Self {
        // The first character stands for the upper six bits; 62 and 63 are `-` and `_`.
        if let [first, ..] = &mut bytes
            && *first >> 2 >= 62
        {
            *first &= 0x7f;
        }
        Self::from_bytes(bytes)
    }

    /// The bytes it stands for.
    pub fn to_bytes(&self) -> [u8; 16] {
        // An Id is only ever made of 16 bytes; zeroes cannot be reached.
        decode(&self.0).unwrap_or_default()
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn decode(text: &str) -> Option<[u8; 16]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        // Errors repeat at most what fits a line; a longer text is not an id in any case.
        match decode(text) {
            Some(_) => Ok(Id(text.to_owned())),
            None => Err(NotAnId(text.chars().take(2 * ID_CHARS).collect())),
        }
    }
}

impl TryFrom<String> for Id {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_survive_text(bytes: [u8; 16]) {
            let id = Id::from_bytes(bytes);
            prop_assert_eq!(id.as_str().len(), ID_CHARS);
            prop_assert_eq!(id.as_str().parse::<Id>().unwrap().to_bytes(), bytes);
        }

        #[test]
        fn ids_for_people_begin_with_a_letter_or_digit(first in 240u8.., rest: [u8; 15]) {
            let mut bytes = [first; 16];
            bytes[1..].copy_from_slice(&rest);
            prop_assert!(Id::typeable(bytes).as_str().starts_with(|c: char| c.is_ascii_alphanumeric()));
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text: String) {
            if let Ok(id) = text.parse::<Id>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in ["", "t1", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA+/"]
        {
            assert_eq!(text.parse::<Id>(), Err(NotAnId(text.to_owned())));
        }
    }
}
