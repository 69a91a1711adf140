//! The spellings in which a secret may turn up. Pure.

use crate::MIN_CHARS;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Column widths at which `base64` (76), PEM writers and `openssl base64` (64) break lines.
const WRAP_COLUMNS: [usize; 2] = [76, 64];

/// Every spelling of `value` that is to be masked. Empty for a value under three characters.
///
/// **Shape**: UTF-8 texts of at least three characters, none twice.
pub(crate) fn of(value: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let whole = value.trim();
    if whole.chars().count() < MIN_CHARS {
        return found;
    }
    let mut add = |spelling: String| {
        if spelling.chars().count() >= MIN_CHARS {
            found.insert(spelling);
        }
    };
    add(whole.to_owned());
    base64_inner(whole, &mut add);
    if value.len() != whole.len() {
        base64_inner(value, &mut add);
    }
    base64_wrapped(value, &mut add);
    if whole.contains(['\n', '\r']) {
        // Logs lose carriage returns, so the whole is matched either way.
        add(whole.replace("\r\n", "\n"));
        // Every other spelling of the whole is made of those of its lines, so the lines are enough; a private key has
        // half the patterns that way.
        for line in whole.split(['\n', '\r']) {
            of_line(line.trim(), &mut add);
            base64_inner(line.trim(), &mut add);
        }
    } else {
        of_line(whole, &mut add);
    }
    found
}

/// Spellings of a value of one line, or of one line of a value.
fn of_line(text: &str, add: &mut impl FnMut(String)) {
    if text.chars().count() < MIN_CHARS {
        return;
    }
    add(text.to_owned());
    for quote in ['"', '\''] {
        if text.contains(quote) {
            add(text.replace(quote, ""));
        }
    }
    if text.contains('\'') {
        // How a shell prints a quoted word under `set -x`.
        add(text.replace('\'', r"'\''"));
    }
    json(text, add);
    percent(text, add);
}

/// JSON string bodies as the usual writers produce them.
fn json(text: &str, add: &mut impl FnMut(String)) {
    let Ok(quoted) = serde_json::to_string(text) else { return };
    let Some(body) = quoted.get(1..quoted.len().saturating_sub(1)) else { return };
    add(body.to_owned());
    if body.contains('/') {
        add(body.replace('/', r"\/"));
    }
    // Go escapes three characters for HTML.
    if body.contains(['<', '>', '&']) {
        add(body.replace('<', r"\u003c").replace('>', r"\u003e").replace('&', r"\u0026"));
    }
    // Python writes ASCII only.
    if !body.is_ascii() {
        let mut ascii = String::with_capacity(body.len() * 2);
        for c in body.chars() {
            if c.is_ascii() {
                ascii.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    if write!(ascii, "\\u{unit:04x}").is_err() {
                        return;
                    }
                }
            }
        }
        add(ascii);
    }
}

/// Percent encodings. Encoders differ in what they leave as it is, in the case of the digits, and in the space.
fn percent(text: &str, add: &mut impl FnMut(String)) {
    for kept in ["-_.~", "-_.~!*'()", "-_.*", "-_.~/"] {
        for upper in [true, false] {
            let encoded = percent_encode(text, kept, upper);
            if encoded.contains("%20") {
                add(encoded.replace("%20", "+"));
            }
            add(encoded);
        }
    }
}

fn percent_encode(text: &str, kept: &str, upper: bool) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else if upper {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

/// Base64 of `text` at each of the three positions it can have inside a longer encoded text: only the characters that
/// depend on `text` alone.
fn base64_inner(text: &str, add: &mut impl FnMut(String)) {
    if text.chars().count() < MIN_CHARS {
        return;
    }
    for shift in 0..3usize {
        let mut padded = vec![0u8; shift];
        padded.extend_from_slice(text.as_bytes());
        // The first whole character that holds bits of `text` only, and the last.
        let from = (shift * 8).div_ceil(6);
        let to = padded.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            if let Some(inner) = encoded.get(from..to) {
                add(inner.to_owned());
            }
        }
        zeroize::Zeroize::zeroize(&mut padded);
    }
}

/// The lines that command-line tools print when they encode a long value.
fn base64_wrapped(text: &str, add: &mut impl FnMut(String)) {
    for columns in WRAP_COLUMNS {
        let bytes_per_line = columns / 4 * 3;
        if text.len() > bytes_per_line {
            for piece in text.as_bytes().chunks(bytes_per_line) {
                add(STANDARD_NO_PAD.encode(piece));
            }
        }
    }
}
