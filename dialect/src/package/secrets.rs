//! The secrets of a package: opened, named, and kept out of the step. In the step stand placeholders like those of our own
//! manager ([`proto::text`]), with a token that nobody who writes a pipeline can know.

use super::fault::Fault;
use super::local;
use super::view::View;
use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::package::TaskPackage;
use proto::text::{SecretRef, Text, placeholder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a placeholder of a Harness manager begins with.
const HEAD: &str = "${secretDelegate.obtain";

/// Shorter values are left where they stand: hiding them would tear ordinary text apart. They are not masked either.
const MIN_CHARS: usize = 3;

/// The secrets of one package.
pub(super) struct Secrets<'p> {
    package: &'p TaskPackage,
    token: i64,
    /// The number that the manager's placeholders carry; one for a whole package.
    foreign_token: Option<i64>,
    values: BTreeMap<SecretRef, SecretString>,
    /// Values that the manager wrote in clear, longest first.
    clear: Option<AhoCorasick>,
    clear_values: Vec<String>,
}

/// A token that depends on what only manager and agent know of this task, so that it is the same after a restart and
/// cannot be written into a script by whoever edits the pipeline.
fn token(package: &TaskPackage) -> i64 {
    let mut hash = Sha256::new();
    for part in ["harness-cd placeholders", &package.id, &package.delegate.token, &package.logging.token] {
        hash.update(part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    for secret in &package.secrets {
        hash.update(secret.expose_secret().as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.iter_mut().zip(digest).for_each(|(slot, byte)| *slot = byte);
    i64::from_be_bytes(first)
}

impl<'p> Secrets<'p> {
    pub(super) fn new(package: &'p TaskPackage) -> Self {
        let values = package.secrets.iter().map(|secret| secret.expose_secret().to_owned());
        let clear_values: Vec<String> = values.filter(|value| value.chars().count() >= MIN_CHARS).collect();
        let clear = (!clear_values.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&clear_values))
            .and_then(Result::ok);
        let token = token(package);
        Secrets { package, token, foreign_token: None, values: BTreeMap::new(), clear, clear_values }
    }

    /// What the step's placeholders carry.
    pub(super) fn token(&self) -> i64 {
        self.token
    }

    /// Every value that the step refers to.
    pub(super) fn into_values(self) -> BTreeMap<SecretRef, SecretString> {
        self.values
    }

    fn keep(&mut self, name: &str, value: &str) -> SecretRef {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        let mut wanted =
            SecretRef(if plain && !name.is_empty() { name.to_owned() } else { "secret".to_owned() });
        let mut count = 1;
        while self.values.get(&wanted).is_some_and(|known| known.expose_secret() != value) {
            count += 1;
            wanted = SecretRef(format!("{name}-{count}"));
            if !plain {
                wanted = SecretRef(format!("secret-{count}"));
            }
        }
        self.values.insert(wanted.clone(), SecretString::from(value.to_owned()));
        wanted
    }

    /// A text of a field in which secrets may stand.
    pub(super) fn text(&mut self, path: &str, text: &str) -> Result<Text, Fault> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(HEAD) {
            let (before, found) = rest.split_at(start);
            self.hide(before, &mut out);
            let Some((call, after)) = parse(found) else {
                return Err(Fault::shape(
                    path,
                    "holds a secret placeholder that is cut off or of another form",
                ));
            };
            if *self.foreign_token.get_or_insert(call.token) != call.token {
                return Err(Fault::shape(path, "holds a secret placeholder that the manager did not write"));
            }
            let secret = self.of_package(path, call.id, call.base64)?;
            out.push_str(&placeholder(&secret, self.token));
            rest = after;
        }
        self.hide(rest, &mut out);
        Ok(Text(out))
    }

    /// A text of a field that no secret can stand in: a branch, a path, a name.
    pub(super) fn plain(&self, path: &str, text: &str) -> Result<String, Fault> {
        if text.contains(HEAD) {
            let text = format!("a secret in {path}");
            return Err(
                Fault::unsupported(text).hint("write the value itself, or a variable that is no secret")
            );
        }
        Ok(text.to_owned())
    }

    fn hide(&mut self, text: &str, out: &mut String) {
        let Some(clear) = self.clear.clone() else { return out.push_str(text) };
        let mut from = 0;
        for found in clear.find_iter(text) {
            out.push_str(text.get(from..found.start()).unwrap_or_default());
            let index = found.pattern().as_usize();
            let value = self.clear_values.get(index).cloned().unwrap_or_default();
            let secret = self.keep(&format!("clear-{index}"), &value);
            out.push_str(&placeholder(&secret, self.token));
            from = found.end();
        }
        out.push_str(text.get(from..).unwrap_or_default());
    }

    /// A secret that a placeholder names: a record of the package.
    fn of_package(&mut self, path: &str, id: &str, base64: bool) -> Result<SecretRef, Fault> {
        let missing =
            || Fault::sealed_secret(id, &format!("{path} names it, and the package does not hold it"));
        let detail = self.package.secret_details.get(id).ok_or_else(missing)?;
        let detail = View::root("secret_details", detail)?;
        let config = detail.maybe_str("configUuid")?.and_then(|id| self.package.encryption_configs.get(id));
        let value = open(&detail.object("encryptedRecord")?, config, id)?;
        if base64 {
            return Ok(self.keep(&format!("{id}.base64"), &STANDARD.encode(value.as_bytes())));
        }
        Ok(self.keep(id, &value))
    }

    /// The secret that the field `field` of a credential refers to by `reference`; `details` are the records beside it.
    pub(super) fn of_field(
        &mut self,
        details: &Details<'_>,
        field: &str,
        reference: &str,
    ) -> Result<SecretRef, Fault> {
        let found =
            details.0.iter().find(|detail| detail.maybe_str("fieldName").ok().flatten() == Some(field));
        let missing = || Fault::sealed_secret(reference, "the package does not hold it");
        let detail = found.ok_or_else(missing)?;
        let value = open(&detail.object("encryptedData")?, detail.value("encryptionConfig"), reference)?;
        Ok(self.keep(reference, &value))
    }

    /// The same for a field that may be empty.
    pub(super) fn of_maybe(
        &mut self,
        details: &Details<'_>,
        owner: &View<'_>,
        field: &str,
    ) -> Result<Option<SecretRef>, Fault> {
        owner.maybe_str(field)?.map(|reference| self.of_field(details, field, reference)).transpose()
    }

    /// The same for a field that must be there.
    pub(super) fn of_required(
        &mut self,
        details: &Details<'_>,
        owner: &View<'_>,
        field: &str,
    ) -> Result<SecretRef, Fault> {
        self.of_field(details, field, owner.str(field)?)
    }

    /// A secret as a text that stands for it.
    pub(super) fn standing_for(&self, secret: &SecretRef) -> Text {
        Text(placeholder(secret, self.token))
    }

    /// A name that is written, or kept as a secret beside it: `username` and `usernameRef`.
    pub(super) fn name_or_secret(
        &mut self,
        details: &Details<'_>,
        owner: &View<'_>,
        plain: &str,
        secret: &str,
    ) -> Result<Option<Text>, Fault> {
        if let Some(text) = owner.maybe_str(plain)? {
            return Ok(Some(self.text(&owner.at(plain), text)?));
        }
        let found = self.of_maybe(details, owner, secret)?;
        Ok(found.map(|found| self.standing_for(&found)))
    }
}

/// The encrypted records that travel beside a credential: `[{fieldName, encryptedData, encryptionConfig}]`.
pub(super) struct Details<'a>(Vec<View<'a>>);

impl<'a> Details<'a> {
    /// The records under `key` of `owner`.
    pub(super) fn of(owner: &View<'a>, key: &str) -> Result<Self, Fault> {
        Ok(Details(owner.list(key)?))
    }
}

/// Opens a record.
fn open(
    record: &View<'_>,
    config: Option<&Value>,
    fallback: &str,
) -> Result<zeroize::Zeroizing<String>, Fault> {
    let name = record.maybe_str("name")?.unwrap_or(fallback);
    let of_config = config.and_then(|config| config.get("encryptionType")?.as_str());
    let kind = record.maybe_str("encryptionType")?.or(of_config).unwrap_or("an unnamed secret manager");
    if kind != "LOCAL" {
        return Err(Fault::foreign_secret(name, kind));
    }
    let key = record.maybe_str("encryptionKey")?;
    let key = key.ok_or_else(|| Fault::sealed_secret(name, "the package holds no key for it"))?;
    let value = record.value("encryptedValue").and_then(Value::as_str).unwrap_or_default();
    local::decrypt(key, value, record.flag("base64Encoded")?)
        .map_err(|problem| Fault::sealed_secret(name, problem))
}

/// A placeholder of a Harness manager.
struct Call<'a> {
    id: &'a str,
    token: i64,
    base64: bool,
}

/// Reads `${secretDelegate.obtain("ID", N)}` or `obtainBase64` at the start of `text`; gives it and what follows.
fn parse(text: &str) -> Option<(Call<'_>, &str)> {
    let rest = text.strip_prefix(HEAD)?;
    let (base64, rest) = match rest.strip_prefix("Base64") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (id, rest) = rest.strip_prefix("(\"")?.split_once('"')?;
    let (number, rest) = rest.split_once(")}")?;
    let token = number.trim().strip_prefix(',')?.trim().parse().ok()?;
    Some((Call { id, token, base64 }, rest))
}
