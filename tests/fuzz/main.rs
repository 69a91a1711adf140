//! Fuzz targets on stable Rust: the scanner and evaluator of expressions, the YAML model, the wire decoders, Harness' packages.
//!
//! `make test` gives each target a few thousand inputs; `make fuzz` as many as fit into `FUZZ_SECONDS` (default 60 a
//! target). The inputs are valid samples cut, joined, repeated and salted with single bytes, since plain noise never
//! gets past a first check. A failing input is printed with the seed that makes it again (`BOLERO_RANDOM_SEED`).

mod documents;
mod expressions;
mod harness;
mod wire;

use std::time::Duration;

/// One input: pieces of samples, and noise between them.
pub(crate) type Recipe = Vec<(u16, u8, u8)>;

/// Puts an input together: each step takes a sample or a piece of one, repeats it, or adds a byte of noise.
pub(crate) fn cook(recipe: &Recipe, samples: &[&str]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for (which, how, byte) in recipe {
        let sample = samples.get(usize::from(*which) % samples.len()).copied().unwrap_or_default().as_bytes();
        match how % 8 {
            0..=2 => out.extend_from_slice(sample),
            3 => out.extend(sample.iter().take(usize::from(*byte))),
            4 => out.extend(sample.iter().skip(usize::from(*byte))),
            5 => (0..=byte % 32).for_each(|_| out.extend_from_slice(sample)),
            6 => out.push(*byte),
            _ => {
                let at = usize::from(*which) % (out.len() + 1);
                out.insert(at, *byte);
            }
        }
        // Bounds are tested by tests of their own; here many small inputs find more than a few large ones.
        if out.len() > 16 << 10 {
            break;
        }
    }
    out
}

/// Gives a target its inputs.
pub(crate) fn fuzz(target: impl Fn(&Recipe) + std::panic::RefUnwindSafe) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let target = move |recipe: &Recipe| target(recipe);
    let check = bolero::check!().with_type::<Recipe>();
    match seconds {
        Some(seconds) => {
            check.with_iterations(usize::MAX).with_test_time(Duration::from_secs(seconds)).for_each(target);
        }
        None => check.with_iterations(3_000).for_each(target),
    }
}
