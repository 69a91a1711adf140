//! Medians, percentiles, the one form in which a figure is printed, and figures that a test of a crate prints.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// The p-th percentile (0..=100) of unsorted values, nearest rank.
pub(crate) fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let rank = (p / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(last)).copied().unwrap_or(f64::NAN)
}

/// Prints `name  value unit  [bar …] met/missed`.
pub(crate) fn judged(name: &str, value: f64, unit: &str, bar: f64, higher_is_better: bool) {
    let met = if higher_is_better { value >= bar } else { value <= bar };
    let sign = if higher_is_better { ">=" } else { "<=" };
    println!(
        "{name:<58} {value:>10.3} {unit:<7} bar {sign} {bar:<8.3} {}",
        if met { "met" } else { "MISSED" }
    );
}

/// Prints a figure that is not held to a bar.
pub(crate) fn plain(name: &str, value: f64, unit: &str) {
    println!("{name:<58} {value:>10.3} {unit}");
}

/// Prints median, lowest and highest of one measure over the rounds.
pub(crate) fn spread(name: &str, values: &[f64], unit: &str) {
    println!(
        "{name:<58} {:>10.3} {unit} [{:.3} .. {:.3}]",
        percentile(values, 50.0),
        percentile(values, 0.0),
        percentile(values, 100.0)
    );
}

/// The time of one durable write of 4 KiB on the file system of `dir`, in milliseconds, `rounds` times.
pub(crate) fn fsync_ms(dir: &std::path::Path, rounds: usize) -> anyhow::Result<Vec<f64>> {
    use std::io::Write;
    let path = dir.join("fsync-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = std::time::Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

/// Runs one test of a package, by its target and name, with the variable `full` set, and reads the lines
/// `figure NAME VALUE` of its output.
pub(crate) fn of_test(
    package: &str,
    target: &str,
    test: &str,
    full: &str,
) -> anyhow::Result<BTreeMap<String, f64>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked", "--quiet", "--package", package, "--test", target]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.args(["--", test, "--exact", "--nocapture"]).env(full, "1").stderr(Stdio::inherit());
    let output = command.output().context("cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "the measurement {test} ended {}:\n{said}", output.status);
    let figure = |line: &str| {
        let (name, value) = line.strip_prefix("figure ")?.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    Ok(said.lines().filter_map(figure).collect())
}
