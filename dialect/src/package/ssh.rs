//! Logins over SSH: to hosts and to Git repositories.

use super::Cx;
use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use proto::task::{HostKeys, SshCredential, SshTarget};

/// The port that is used when nobody says another.
const PORT: u16 = 22;

/// The login that `key` describes (`sshKeySpecDto`) to `host`, which may be `name:port`.
pub(super) fn login(
    cx: &mut Cx<'_>,
    key: &View<'_>,
    details: &Details<'_>,
    host: &str,
) -> Result<SshTarget, Fault> {
    let auth = key.object("auth")?;
    auth.word("type", &[("SSH", ())])?;
    let kind = auth.object("spec")?;
    kind.word("credentialType", &[("KeyReference", ())])?;
    let spec = kind.object("spec")?;
    let private = cx.secrets.of_required(details, &spec, "key")?;
    let passphrase = cx.secrets.of_maybe(details, &spec, "encryptedPassphrase")?;
    let (host, port) = split(host.trim());
    let of_key = key.maybe_int("port")?.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    Ok(SshTarget {
        host: host.to_owned(),
        port: port.or(of_key).unwrap_or(PORT),
        user: cx.plain(&spec, "userName")?,
        credential: SshCredential::Key { key: private, passphrase },
        host_keys: HostKeys::default(),
    })
}

/// A host of an infrastructure with its port, if it is written. An address of IPv6 has a port only in brackets.
fn split(host: &str) -> (&str, Option<u16>) {
    if let Some((name, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (name, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match host.split_once(':').map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) => (name, Some(port)),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_port_may_stand_behind_a_host() {
        for (text, host, port) in [
            ("h", "h", None),
            ("10.0.0.21:2222", "10.0.0.21", Some(2222)),
            ("h:x", "h:x", None),
            ("fe80::1", "fe80::1", None),
            ("[fe80::1]:22", "fe80::1", Some(22)),
            ("[fe80::1]", "fe80::1", None),
        ] {
            assert_eq!(split(text), (host, port));
        }
    }
}
