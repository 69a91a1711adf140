//! What to do when a manager cannot be reached: TLS that is not trusted or not spoken is told apart from nobody there.

use rustls::Error as Tls;
use std::error::Error;
use std::io;
use url::Url;

/// The hint for a request to `base` that got no answer.
pub(super) fn hint(base: &Url, error: &reqwest::Error) -> &'static str {
    let secure = base.scheme() == "https";
    match of(error) {
        Some(Tls::InvalidCertificate(_)) => {
            "its certificate is not trusted under this name: name the authority that signed it with --ca-file FILE or \
             DELEGATE_CA_FILE, and use a host name that the certificate holds"
        }
        // The first bytes of the answer were no TLS.
        Some(Tls::InvalidMessage(_)) if secure => {
            "it does not speak TLS: does its URL begin with http://? See --manager / DELEGATE_MANAGER_URL"
        }
        // Somebody took the connection, but did not answer in HTTP.
        _ if !secure && error.is_request() && !error.is_connect() && !error.is_timeout() => {
            "somebody listens there, but not with plain HTTP: a manager with --tls-cert has a URL with https://"
        }
        _ => "check that `delegate manager` runs there, and --manager / DELEGATE_MANAGER_URL",
    }
}

/// The error of the TLS layer within, however deep it lies.
fn of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Tls> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<Tls>() {
            return Some(tls);
        }
        // An I/O error shows the source of what it wraps, not what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_error_is_found_within_io_errors() {
        let inner = io::Error::new(io::ErrorKind::InvalidData, Tls::HandshakeNotComplete);
        let outer = io::Error::other(inner);
        assert_eq!(of(&outer), Some(&Tls::HandshakeNotComplete));
        assert_eq!(of(&io::Error::other("plain")), None);
    }
}
