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
    spellings(value, whole, &mut found);
    if whole.contains(['\n', '\r']) {
        for line in whole.split(['\n', '\r']) {
            spellings(line, line.trim(), &mut found);
        }
    }
    found
}

/// Spellings of one value or one line of it. `raw` still has its white space at both ends, which encoders see too.
fn spellings(raw: &str, text: &str, found: &mut BTreeSet<String>) {
    if text.chars().count() < MIN_CHARS {
        return;
    }
    let mut add = |spelling: String| {
        if spelling.chars().count() >= MIN_CHARS {
            found.insert(spelling);
        }
    };
    add(text.to_owned());
    // A log is cut into lines without their carriage returns; a value with them is matched either way.
    if text.contains("\r\n") {
        add(text.replace("\r\n", "\n"));
    }
    for quote in ['"', '\''] {
        if text.contains(quote) {
            add(text.replace(quote, ""));
        }
    }
    if text.contains('\'') {
        // How a shell prints a quoted word under `set -x`.
        add(text.replace('\'', r"'\''"));
    }
    json(text, &mut add);
    percent(text, &mut add);
    base64_inner(text, &mut add);
    if raw.len() != text.len() {
        base64_inner(raw, &mut add);
    }
    base64_wrapped(raw, &mut add);
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
