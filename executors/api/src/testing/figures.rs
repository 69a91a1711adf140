//! Figures that a measurement prints for `make bench`, which holds them to bars (`tests/bench/figures.rs` reads them).

/// Whether everything is measured: `make bench` sets `variable`. An ordinary test run takes smaller numbers and wider limits.
pub fn full(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

/// Prints one figure.
#[allow(clippy::print_stdout, reason = "Standard output is where the bench looks for it.")]
pub fn figure(name: &str, value: f64) {
    println!("figure {name} {value}");
}

/// The value below or at which the `share` (0..=1) of unsorted values lies: nearest rank.
///
/// # Panics
/// Without values.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let found = sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied();
    found.unwrap_or_else(|| panic!("a percentile of nothing"))
}

/// The middle one of unsorted values; of an even number the lower of the two.
///
/// # Panics
/// Without values.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// Highest memory of this process so far, in MiB: the executor, and the little that the test itself holds.
///
/// # Panics
/// When the kernel does not say.
pub fn highest_rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_else(|| panic!("no VmHWM in /proc/self/status: {status}")) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(
            [0.0, 0.5, 0.51, 0.99, 1.0].map(|share| percentile(&values, share)),
            [1.0, 2.0, 3.0, 4.0, 4.0]
        );
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn this_process_takes_some_memory() {
        assert!(highest_rss() > 0.5);
    }
}
