//! The manager's key file and the sealing it does.

use super::SecretBytes;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hmac, rand};
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// First word of the key file; a later format gets another one.
const HEADER: &str = "delegate-manager-key-1";
/// First byte of everything sealed; a later format gets another one.
const SEAL_VERSION: u8 = 1;
/// AES-256.
const KEY_LEN: usize = 32;
/// A key file is one line of 66 characters; more than this is another file.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// The key could not be used, or something could not be sealed or opened with it. Page: `docs/errors/MGR-101.md`.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("MGR-101: the manager key {path} cannot be used: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database was sealed with a key, and the key file is gone.
    #[error(
        "MGR-101: the manager key {path} is missing, but the database holds values sealed with it. \
         Put the file back from its backup; a fresh key cannot open them"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is not a key file.
    #[error(
        "MGR-101: {path} is no manager key: expected one line `{HEADER} ` and 64 hex digits. \
         Put the file back from its backup"
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("MGR-101: {path} may be read by others (mode {mode:04o}). Run `chmod 600 {path}`")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is another one than the database was sealed with.
    #[error(
        "MGR-101: {path} is not the key that this database was sealed with (key {found}, database {expected}). \
         Put the right file back from its backup"
    )]
    Other {
        /// Which file.
        path: PathBuf,
        /// Key id of the file.
        found: String,
        /// Key id the database names.
        expected: String,
    },
    /// The operating system gave no random bytes.
    #[error("MGR-101: no random bytes from the operating system")]
    Random,
    /// What was stored is not what was sealed under this name.
    #[error("MGR-101: the sealed value of `{name}` is damaged or belongs to another name or key")]
    Unsealable {
        /// Name it was sealed under.
        name: String,
    },
}

/// The key that seals local secrets and delegate tokens at rest.
///
/// **Shape** of a sealed value: version byte, 12 bytes nonce, AES-256-GCM ciphertext with tag. The name under which a
/// value is stored is bound to it as associated data, so that rows cannot be exchanged.
pub struct ManagerKey {
    key: LessSafeKey,
    tokens: hmac::Key,
    id: String,
}

impl std::fmt::Debug for ManagerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ManagerKey({})", self.id)
    }
}

impl ManagerKey {
    /// Opens the key file, or makes one at the first start.
    ///
    /// `expected_id` is the [`ManagerKey::id`] that the database names, `None` on a database that has sealed nothing yet:
    /// only then a missing file is made. `own` files (in the data folder) must be 0600; a file named by
    /// `DELEGATE_MANAGER_KEY_FILE` keeps whatever mode its mount gives it.
    ///
    /// **Errors**: every variant of [`KeyError`] but `Unsealable`. **Repeat**: safe.
    pub fn open(path: &Path, own: bool, expected_id: Option<&str>) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if expected_id.is_some() {
                    return Err(KeyError::Missing { path: path.to_owned() });
                }
                if !own {
                    return Err(file(error));
                }
                return Self::create(path);
            }
            Err(error) => return Err(file(error)),
        };
        let mode = metadata.mode() & 0o7777;
        if own && mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        if metadata.len() > MAX_KEY_FILE_BYTES {
            return Err(KeyError::Malformed { path: path.to_owned() });
        }
        let text = Zeroizing::new(fs::read(path).map_err(file)?);
        let key = Self::parse(&text).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })?;
        match expected_id {
            Some(expected) if expected != key.id => {
                Err(KeyError::Other { path: path.to_owned(), found: key.id, expected: expected.to_owned() })
            }
            _ => Ok(key),
        }
    }

    /// A key from 32 bytes.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Option<Self> {
        let mut hash = Sha256::new();
        hash.update(b"delegate manager key id");
        hash.update(bytes);
        let id = hex::encode(hash.finalize().get(..8)?);
        let key = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
        // A key of its own: what tokens give away says nothing about what is sealed.
        let mut own = Sha256::new();
        own.update(b"delegate manager key for tokens");
        own.update(bytes);
        let own: Zeroizing<[u8; 32]> = Zeroizing::new(own.finalize().into());
        let tokens = hmac::Key::new(hmac::HMAC_SHA256, own.as_ref());
        Some(ManagerKey { key: LessSafeKey::new(key), tokens, id })
    }

    /// Names the key without giving it away: 16 hex digits of a hash. The database remembers it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token of `name`: 32 hex digits that nobody can tell without this key, and always the same.
    pub fn token(&self, name: &str) -> String {
        let tag = hmac::sign(&self.tokens, name.as_bytes());
        hex::encode(tag.as_ref().get(..16).unwrap_or_default())
    }

    /// Whether `given` is the token of `name`; takes the same time for every wrong one.
    pub fn is_token(&self, name: &str, given: &str) -> bool {
        constant_time::verify_slices_are_equal(self.token(name).as_bytes(), given.as_bytes()).is_ok()
    }

    /// Seals `clear` under `name`.
    pub fn seal(&self, name: &str, clear: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0_u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let mut body = clear.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut body,
            )
            .map_err(|_| KeyError::Unsealable { name: name.to_owned() })?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(SEAL_VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`ManagerKey::seal`] made under the same `name`.
    pub fn unseal(&self, name: &str, sealed: &[u8]) -> Result<SecretBytes, KeyError> {
        self.try_unseal(name, sealed).ok_or_else(|| KeyError::Unsealable { name: name.to_owned() })
    }

    fn try_unseal(&self, name: &str, sealed: &[u8]) -> Option<SecretBytes> {
        let (version, rest) = sealed.split_first()?;
        if *version != SEAL_VERSION {
            return None;
        }
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = Zeroizing::new(body.to_vec());
        let clear = self.key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut body).ok()?;
        Some(SecretBytes::new(clear.to_vec()))
    }

    fn create(path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
        rand::fill(bytes.as_mut()).map_err(|_| KeyError::Random)?;
        let mut line = Zeroizing::new(format!("{HEADER} "));
        line.push_str(&Zeroizing::new(hex::encode(bytes.as_ref())));
        line.push('\n');
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(file)?;
        out.write_all(line.as_bytes()).map_err(file)?;
        // The database names this key next; it must not be durable before the key is.
        out.sync_all().map_err(file)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(file)?;
        }
        Self::from_bytes(&bytes).ok_or(KeyError::Random)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let digits = text.trim_end().strip_prefix(HEADER)?.strip_prefix(' ')?;
        let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
        hex::decode_to_slice(digits, bytes.as_mut()).ok()?;
        Self::from_bytes(&bytes)
    }
}
