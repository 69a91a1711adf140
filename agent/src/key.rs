//! `DATA_DIR/agent.key`: the key that seals the journal and the pair that secrets are sealed to.
//!
//! Made at the first start with mode 0600, independent of any token; rotating the token leaves it untouched (settled
//! facts §1.3). Losing it makes the journal unreadable, so a key file that cannot be read stops the start.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::seal::SealKeyPair;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const VERSION: u32 = 1;
const NONCE_BYTES: usize = 12;

/// Both keys.
pub(crate) struct AgentKey {
    seal: Zeroizing<[u8; 32]>,
    pub(crate) pair: SealKeyPair,
}

/// Seals what is written to this machine's disk.
pub(crate) struct Sealer(Option<LessSafeKey>);

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("key file {path} cannot be used")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is readable by others.
    #[error("key file {path} has mode {mode:o}; expected 600")]
    Open {
        /// Where it is.
        path: PathBuf,
        /// What its mode is.
        mode: u32,
    },
    /// It holds something else.
    #[error("key file {path} is not a key file of this agent: {problem}")]
    Content {
        /// Where it is.
        path: PathBuf,
        /// What is wrong; repeats nothing of the content.
        problem: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    v: u32,
    #[serde(with = "hidden")]
    seal: Zeroizing<String>,
    #[serde(with = "hidden")]
    x25519: Zeroizing<String>,
}

/// `Zeroizing` on the way from and to JSON.
mod hidden {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        text: &Zeroizing<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

impl AgentKey {
    /// Reads the key file, or makes it when there is none.
    ///
    /// **Repeat**: gives the same keys. **Errors**: an unreadable file is never replaced.
    pub(crate) fn load_or_create(path: &Path) -> Result<AgentKey, KeyError> {
        match fs::read(path) {
            Ok(bytes) => Self::read(path, &Zeroizing::new(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(source) => Err(KeyError::Io { path: path.to_owned(), source }),
        }
    }

    fn read(path: &Path, bytes: &[u8]) -> Result<AgentKey, KeyError> {
        let content = |problem| KeyError::Content { path: path.to_owned(), problem };
        let meta = fs::metadata(path).map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let file: File = serde_json::from_slice(bytes).map_err(|_| content("it cannot be parsed"))?;
        if file.v != VERSION {
            return Err(content("it was written by another version"));
        }
        let bytes = |text: &str| -> Option<[u8; 32]> {
            Zeroizing::new(BASE64.decode(text).ok()?).as_slice().try_into().ok()
        };
        let seal =
            Zeroizing::new(bytes(&file.seal).ok_or_else(|| content("the sealing key has the wrong shape"))?);
        let private =
            Zeroizing::new(bytes(&file.x25519).ok_or_else(|| content("the pair has the wrong shape"))?);
        let pair = SealKeyPair::from_bytes(*private).map_err(|_| content("the pair cannot be used"))?;
        Ok(AgentKey { seal, pair })
    }

    fn create(path: &Path) -> Result<AgentKey, KeyError> {
        let content = |problem| KeyError::Content { path: path.to_owned(), problem };
        let mut seal = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(seal.as_mut()).map_err(|_| content("no random bytes could be drawn"))?;
        let pair = SealKeyPair::generate().map_err(|_| content("no pair could be made"))?;
        let file = File {
            v: VERSION,
            seal: Zeroizing::new(BASE64.encode(*seal)),
            x25519: Zeroizing::new(BASE64.encode(pair.expose_private())),
        };
        let text =
            Zeroizing::new(serde_json::to_vec(&file).map_err(|_| content("it cannot be written as JSON"))?);
        // Written aside and renamed: a crash leaves a whole file or none.
        let fresh = path.with_extension("key.new");
        let write = || -> io::Result<()> {
            let mut out =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            out.write_all(&text)?;
            out.sync_all()?;
            fs::rename(&fresh, path)?;
            match path.parent() {
                Some(parent) => fs::File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
        Ok(AgentKey { seal, pair })
    }

    /// What seals this machine's files.
    pub(crate) fn sealer(&self) -> Sealer {
        Sealer::new(&self.seal)
    }
}

impl Sealer {
    fn new(key: &[u8; 32]) -> Sealer {
        // Fails only for a key of another length.
        Sealer(UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new))
    }

    /// Nonce, ciphertext and tag of `plain`, bound to `aad`. Empty only if the cryptographic library fails, which then
    /// does not open either.
    pub(crate) fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        if aws_lc_rs::rand::fill(&mut nonce).is_err() {
            return Vec::new();
        }
        let mut body = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        let sealed =
            self.0.as_ref().map(|key| key.seal_in_place_append_tag(nonce_used, Aad::from(aad), &mut body));
        if !matches!(sealed, Some(Ok(()))) {
            return Vec::new();
        }
        let mut sealed = Vec::with_capacity(NONCE_BYTES + body.len());
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        sealed
    }

    /// What [`Sealer::seal`] was given, or `None`: another key, another `aad`, or altered.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE_BYTES)?;
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.0.as_ref()?.open_in_place(nonce, Aad::from(aad), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_and_an_open_or_foreign_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        let first = AgentKey::load_or_create(&path).unwrap();
        let again = AgentKey::load_or_create(&path).unwrap();
        assert_eq!(first.pair.public(), again.pair.public());
        let sealed = first.sealer().seal(b"a", b"text");
        assert_eq!(again.sealer().open(b"a", &sealed).as_deref(), Some(b"text".as_slice()));
        assert_eq!(again.sealer().open(b"b", &sealed), None);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(AgentKey::load_or_create(&path), Err(KeyError::Open { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"{}").unwrap();
        assert!(matches!(AgentKey::load_or_create(&path), Err(KeyError::Content { .. })));
    }
}
