//! How deep a Rego text nests, before the interpreter reads it. Its parser goes down the stack for every level and reads
//! the inside of a bracket more than once: a stack that ends takes the whole manager with it, and a dozen more brackets
//! take a thousand times as long.

use super::SyntaxFault;

/// Brackets inside brackets. People stay below ten.
const MAX_DEPTH: u32 = 16;
/// Arithmetic and set signs. All of them may belong to one expression, which is one level of the stack for each.
const MAX_SIGNS: u32 = 8000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Code,
    Text,
    Raw,
}

/// **Errors**: the place where the text becomes too deep.
pub(super) fn check(rego: &str) -> Result<(), SyntaxFault> {
    let (mut depth, mut signs) = (0u32, 0u32);
    let mut inside = Inside::Code;
    let mut escaped = false;
    for (line, text) in (1u32..).zip(rego.lines()) {
        for (column, c) in (1u32..).zip(text.chars()) {
            match (inside, c) {
                (Inside::Raw, '`') => inside = Inside::Code,
                (Inside::Text, _) if escaped => escaped = false,
                (Inside::Text, '\\') => escaped = true,
                (Inside::Text, '"') => inside = Inside::Code,
                (Inside::Raw | Inside::Text, _) => {}
                (Inside::Code, '#') => break,
                (Inside::Code, '`') => inside = Inside::Raw,
                (Inside::Code, '"') => inside = Inside::Text,
                (Inside::Code, '[' | '{' | '(') => depth += 1,
                (Inside::Code, ']' | '}' | ')') => depth = depth.saturating_sub(1),
                (Inside::Code, '+' | '-' | '*' | '/' | '%' | '|' | '&') => signs += 1,
                (Inside::Code, _) => {}
            }
            let message = match () {
                () if depth > MAX_DEPTH => format!("more than {MAX_DEPTH} brackets inside each other"),
                () if signs > MAX_SIGNS => format!("the policy has more than {MAX_SIGNS} signs such as `+`"),
                () => continue,
            };
            return Err(SyntaxFault { line, column, message });
        }
        // Only a raw text goes on behind the end of its line.
        if inside == Inside::Text {
            inside = Inside::Code;
            escaped = false;
        }
    }
    Ok(())
}
