//! The envelope of the manager's replies, and the codes of its refusals. **Source**: protocol facts §1.5.

use crate::tolerance;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Every reply of the manager but a few: `{"metaData":{},"resource":…,"responseMessages":[]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrapped<T> {
    /// Always empty.
    #[serde(default)]
    pub meta_data: Map<String, Value>,
    /// The answer; `null` in errors.
    #[serde(default = "Option::default")]
    pub resource: Option<T>,
    /// What went wrong.
    #[serde(default, deserialize_with = "tolerance::null_default")]
    pub response_messages: Vec<ResponseMessage>,
}

impl<T> Wrapped<T> {
    /// A reply with an answer.
    pub fn ok(resource: T) -> Self {
        Wrapped { meta_data: Map::new(), resource: Some(resource), response_messages: vec![] }
    }

    /// A refusal. Goes out with [`ErrorCode::http_status`] and the header [`ERROR_HEADER`].
    pub fn error(code: ErrorCode, message: impl Into<String>) -> Self {
        Wrapped {
            meta_data: Map::new(),
            resource: None,
            response_messages: vec![ResponseMessage {
                code: code.as_str().to_owned(),
                level: "ERROR".to_owned(),
                message: message.into(),
                exception: None,
                failure_types: vec![],
            }],
        }
    }

    /// The first code that this side knows.
    pub fn error_code(&self) -> Option<ErrorCode> {
        self.response_messages.iter().find_map(|message| ErrorCode::parse(&message.code))
    }
}

/// Header that repeats the code of an error reply.
pub const ERROR_HEADER: &str = "X-Harness-Error";

/// One message of an error reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResponseMessage {
    /// See [`ErrorCode`]; foreign managers know hundreds more.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub code: String,
    /// `ERROR`, `WARN`, `INFO`.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub level: String,
    /// For people.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub message: String,
    /// Java's exception; always `null` from us.
    pub exception: Option<Value>,
    /// Harness failure types.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub failure_types: Vec<Value>,
}

/// Codes of refusals that clients react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// No key of the account opens the bearer. The Java delegate destroys itself.
    InvalidToken,
    /// The key that opens it was revoked. Clients freeze.
    RevokedToken,
    /// The bearer's life is over: usually a wrong clock. Clients freeze.
    ExpiredToken,
    /// Client certificate and account do not fit.
    InvalidMtlsAuthority,
    /// Another connection of the same delegate.
    DuplicateDelegate,
    /// The request itself is wrong.
    InvalidRequest,
    /// Anything else.
    GeneralError,
}

impl ErrorCode {
    const ALL: [ErrorCode; 7] = [
        ErrorCode::InvalidToken,
        ErrorCode::RevokedToken,
        ErrorCode::ExpiredToken,
        ErrorCode::InvalidMtlsAuthority,
        ErrorCode::DuplicateDelegate,
        ErrorCode::InvalidRequest,
        ErrorCode::GeneralError,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidToken => "INVALID_TOKEN",
            ErrorCode::RevokedToken => "REVOKED_TOKEN",
            ErrorCode::ExpiredToken => "EXPIRED_TOKEN",
            ErrorCode::InvalidMtlsAuthority => "INVALID_AGENT_MTLS_AUTHORITY",
            ErrorCode::DuplicateDelegate => "DUPLICATE_DELEGATE_EXCEPTION",
            ErrorCode::InvalidRequest => "INVALID_REQUEST",
            ErrorCode::GeneralError => "GENERAL_ERROR",
        }
    }

    /// Status of the reply that carries it.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorCode::InvalidToken
            | ErrorCode::RevokedToken
            | ErrorCode::ExpiredToken
            | ErrorCode::InvalidMtlsAuthority => 401,
            ErrorCode::DuplicateDelegate | ErrorCode::InvalidRequest => 400,
            ErrorCode::GeneralError => 500,
        }
    }

    /// The code of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_their_code() {
        for code in ErrorCode::ALL {
            let text = serde_json::to_string(&Wrapped::<()>::error(code, "no")).unwrap();
            let again: Wrapped<Value> = serde_json::from_str(&text).unwrap();
            assert_eq!(again.error_code(), Some(code));
            assert!(again.resource.is_none() && code.http_status() >= 400);
        }
        let text = serde_json::to_string(&Wrapped::<()>::error(ErrorCode::RevokedToken, "m")).unwrap();
        assert!(text.contains(r#""responseMessages":[{"code":"REVOKED_TOKEN","level":"ERROR","message":"m","exception":null,"failureTypes":[]}]"#));
        assert_eq!(Wrapped::<()>::error(ErrorCode::ExpiredToken, "").response_messages.len(), 1);
    }
}
