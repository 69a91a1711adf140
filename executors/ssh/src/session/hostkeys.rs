//! Is this the host it claims to be?

use crate::error::Error;
use proto::result::LearnedHostKey;
use proto::task::{HostKeyMode, HostKeys};
use russh::keys::{HashAlg, PublicKey};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The agent's own memory of host keys. The manager's list goes before it.
pub trait KnownHosts: Send + Sync {
    /// The keys of `host:port`, as OpenSSH lines (`ssh-ed25519 AAAA…`).
    fn known(&self, host: &str) -> Vec<String>;

    /// Remembers a key; returns once it is durable.
    ///
    /// **Repeat**: safe.
    fn learn(&self, host: &str, key: &str) -> io::Result<()>;
}

/// A file in OpenSSH's `known_hosts` form, or only memory when it has no path. Written as a whole: temporary file, sync,
/// rename.
#[derive(Debug)]
pub struct KnownHostsFile {
    path: Option<PathBuf>,
    keys: Mutex<BTreeMap<String, Vec<String>>>,
}

impl KnownHostsFile {
    /// Only in memory.
    pub fn in_memory() -> Self {
        KnownHostsFile { path: None, keys: Mutex::default() }
    }

    /// Reads `path`; a missing file is empty.
    ///
    /// **Errors**: an unreadable file. A line that is no host key is refused too: an unreadable list is not an empty
    /// one.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, key)) =
                line.split_once(' ').filter(|(_, key)| PublicKey::from_openssh(key).is_ok())
            else {
                let what = format!("{}:{}: not a host key line", path.display(), number + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            };
            let name = match name.strip_prefix('[').and_then(|n| n.split_once("]:")) {
                Some((host, port)) => format!("{host}:{port}"),
                None => format!("{name}:22"),
            };
            keys.entry(name).or_default().push(key.to_owned());
        }
        Ok(KnownHostsFile { path: Some(path), keys: Mutex::new(keys) })
    }
}

impl KnownHosts for KnownHostsFile {
    fn known(&self, host: &str) -> Vec<String> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned().unwrap_or_default()
    }

    fn learn(&self, host: &str, key: &str) -> io::Result<()> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // A list of the manager that differs has replaced whatever was learned here.
        keys.insert(host.to_owned(), vec![key.to_owned()]);
        let Some(path) = &self.path else { return Ok(()) };
        let mut text = String::from("# Host keys that this agent has learned.\n");
        for (name, list) in keys.iter() {
            let name = match name.rsplit_once(':') {
                Some((host, port)) => format!("[{host}]:{port}"),
                None => name.clone(),
            };
            for key in list {
                text.push_str(&format!("{name} {key}\n"));
            }
        }
        crate::leftovers::write_whole(path, text.as_bytes())
    }
}

/// What was found out about a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// To be sent to the manager: accepted by `accept-new`, and the manager does not know it yet.
    pub(crate) learned: Option<LearnedHostKey>,
    /// Nothing was checked (`off`).
    pub(crate) unchecked: bool,
    /// `SHA256:…` of the key.
    pub(crate) fingerprint: String,
}

/// Judges the key that a host presents.
pub(crate) struct Judge {
    host: String,
    mode: HostKeyMode,
    from_manager: Vec<String>,
    from_agent: Vec<String>,
}

impl Judge {
    /// `host` is `host:port` as the infrastructure writes it, never an alias.
    pub(crate) fn new(host: String, keys: &HostKeys, store: &dyn KnownHosts) -> Self {
        let from_agent = store.known(&host);
        Judge { host, mode: keys.mode, from_manager: keys.known.clone(), from_agent }
    }

    /// `host:port` as the infrastructure writes it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What the host is known by. The manager's list decides; the agent's own only stands in for an empty one.
    fn known(&self) -> &[String] {
        if self.from_manager.is_empty() { &self.from_agent } else { &self.from_manager }
    }

    /// Algorithms of known keys: they are asked for first, so that the host shows a key that can be compared.
    pub(crate) fn algorithms(&self) -> Vec<russh::keys::Algorithm> {
        self.known().iter().filter_map(|k| PublicKey::from_openssh(k).ok()).map(|k| k.algorithm()).collect()
    }

    /// The verdict on `key`.
    pub(crate) fn judge(&self, key: &PublicKey) -> Result<Verdict, Error> {
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let mut verdict = Verdict { fingerprint: fingerprint.clone(), ..Verdict::default() };
        if self.mode == HostKeyMode::Off {
            verdict.unchecked = true;
            return Ok(verdict);
        }
        let fits = |known: &String| match PublicKey::from_openssh(known.trim()) {
            Ok(known) => known.key_data() == key.key_data(),
            Err(_) => known.trim() == fingerprint,
        };
        let known = self.known();
        if !known.is_empty() && !known.iter().any(fits) {
            let expected: Vec<String> = known
                .iter()
                .map(|k| {
                    PublicKey::from_openssh(k.trim())
                        .map_or_else(|_| k.clone(), |k| k.fingerprint(HashAlg::Sha256).to_string())
                })
                .collect();
            return Err(Error::ChangedHostKey {
                host: self.host.clone(),
                expected: expected.join(" or "),
                presented: fingerprint,
            });
        }
        if known.is_empty() && self.mode == HostKeyMode::Strict {
            return Err(Error::UnknownHostKey {
                host: self.host.clone(),
                algorithm: key.algorithm().to_string(),
                fingerprint,
            });
        }
        if self.from_manager.is_empty() {
            verdict.learned =
                Some(LearnedHostKey { host: self.host.clone(), key: openssh(key), fingerprint });
        }
        Ok(verdict)
    }

    /// Whether the agent's own store has to be told of `key`.
    pub(crate) fn is_news(&self, key: &PublicKey) -> bool {
        self.mode != HostKeyMode::Off && !self.from_agent.contains(&openssh(key))
    }
}

/// `ssh-ed25519 AAAA…` without a comment.
pub(crate) fn openssh(key: &PublicKey) -> String {
    let bare = PublicKey::new(key.key_data().clone(), "");
    bare.to_openssh().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILagOJFgwaMNhBWQINinKOXmqS4Gh5NgxgriXwdOoINJ";

    fn keys(mode: HostKeyMode, known: &[&str]) -> HostKeys {
        HostKeys { mode, known: known.iter().map(|k| (*k).to_owned()).collect() }
    }

    fn judge(mode: HostKeyMode, manager: &[&str], agent: &[&str]) -> Result<Verdict, Error> {
        let store = KnownHostsFile::in_memory();
        for key in agent {
            store.learn("web:22", key).unwrap();
        }
        Judge::new("web:22".into(), &keys(mode, manager), &store)
            .judge(&PublicKey::from_openssh(ONE).unwrap())
    }

    #[test]
    fn an_unknown_key_is_learned_refused_or_ignored_by_mode() {
        let learned = judge(HostKeyMode::AcceptNew, &[], &[]).unwrap().learned.unwrap();
        assert_eq!((learned.host.as_str(), learned.key.as_str()), ("web:22", ONE));
        assert!(matches!(judge(HostKeyMode::Strict, &[], &[]), Err(Error::UnknownHostKey { .. })));
        assert!(judge(HostKeyMode::Off, &[TWO], &[]).unwrap().unchecked);
    }

    #[test]
    fn a_changed_key_fails_and_the_managers_list_decides() {
        assert!(matches!(judge(HostKeyMode::AcceptNew, &[TWO], &[]), Err(Error::ChangedHostKey { .. })));
        assert!(matches!(judge(HostKeyMode::AcceptNew, &[], &[TWO]), Err(Error::ChangedHostKey { .. })));
        let accepted = judge(HostKeyMode::Strict, &[ONE], &[TWO]).unwrap();
        assert_eq!(accepted.learned, None);
        let by_fingerprint = accepted.fingerprint;
        assert!(judge(HostKeyMode::Strict, &[&by_fingerprint], &[]).is_ok());
    }

    #[test]
    fn the_file_keeps_what_was_learned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        KnownHostsFile::open(path.clone()).unwrap().learn("web:2222", ONE).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("[web]:2222 {ONE}\n")), "{text}");
        assert_eq!(KnownHostsFile::open(path.clone()).unwrap().known("web:2222"), [ONE]);
        std::fs::write(&path, "rubbish\n").unwrap();
        assert!(KnownHostsFile::open(path).is_err());
    }
}
