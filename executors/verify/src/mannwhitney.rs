//! Two groups of samples compared by Mann–Whitney, as Kayenta's default judge does. Pure.
//!
//! **Source**: ecs-ssh-steps facts C3.4; its vectors are the tests. The interval is that of the sorted differences, which
//! needs no search for roots.

use crate::judge::Direction;
use proto::task::Sensitivity;

/// Fewer samples on a side are compared by their distance in standard deviations.
pub const MIN_SAMPLES: usize = 8;
/// Fewer samples than this on a side say nothing.
pub const LEAST_SAMPLES: usize = 3;
/// Part of the estimate by which the interval must be clear of zero.
const TOLERANCE: f64 = 0.25;

/// How a comparison is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// The quantile of the normal distribution at the confidence, two-sided.
    pub quantile: f64,
    /// Ratio of the means from which on a rise counts; its inverse for a fall.
    pub allowed_ratio: f64,
    /// Distance in standard deviations from which on few samples differ.
    pub deviations: f64,
}

impl Measure {
    /// The measure of a sensitivity (ours; facts C3.4).
    pub fn of(sensitivity: Sensitivity) -> Measure {
        match sensitivity {
            // Confidence 0.95, 0.98, 0.99.
            Sensitivity::High => Measure { quantile: 1.959_964, allowed_ratio: 1.10, deviations: 1.0 },
            Sensitivity::Medium => Measure { quantile: 2.326_348, allowed_ratio: 1.25, deviations: 2.0 },
            Sensitivity::Low => Measure { quantile: 2.575_829, allowed_ratio: 1.50, deviations: 3.0 },
        }
    }
}

/// What a comparison says of the test's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Clearly above the control.
    High,
    /// Clearly below it.
    Low,
    /// Not clearly different.
    Same,
    /// Too few samples to say.
    NoData,
}

/// A comparison with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// What it says.
    pub side: Side,
    /// Lower end of the interval of the difference.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// The difference (Hodges–Lehmann).
    pub estimate: f64,
    /// Mean of the test over mean of the control; NaN when one of them is 0.
    pub ratio: f64,
}

impl Comparison {
    fn plain(side: Side, ratio: f64) -> Comparison {
        Comparison { side, lower: 0.0, upper: 0.0, estimate: 0.0, ratio }
    }

    /// Whether the difference lies on the bad side.
    pub fn is_worse(&self, direction: Direction) -> bool {
        matches!(
            (self.side, direction),
            (Side::High, Direction::HigherIsWorse) | (Side::Low, Direction::LowerIsWorse)
        )
    }
}

/// Compares `test` with `control`. NaN samples are left out.
pub fn compare(test: &[f64], control: &[f64], measure: &Measure) -> Comparison {
    let (x, y) = (sorted(test), sorted(control));
    let ratio = ratio(&x, &y);
    if x.len() < LEAST_SAMPLES || y.len() < LEAST_SAMPLES {
        return Comparison::plain(Side::NoData, ratio);
    }
    if x == y || (x.first() == x.last() && y.first() == y.last() && x.first() == y.first()) {
        return Comparison::plain(Side::Same, ratio);
    }
    let (lower, upper, estimate) = interval(&x, &y, measure.quantile);
    let found = |side| Comparison { side, lower, upper, estimate, ratio };
    if x.len() < MIN_SAMPLES || y.len() < MIN_SAMPLES {
        return found(by_deviation(&x, &y, measure.deviations));
    }
    let bound = TOLERANCE * estimate.abs();
    if lower > bound && (ratio.is_nan() || ratio >= measure.allowed_ratio) {
        found(Side::High)
    } else if upper < -bound && (ratio.is_nan() || ratio <= 1.0 / measure.allowed_ratio) {
        found(Side::Low)
    } else {
        found(Side::Same)
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values
}

#[expect(clippy::cast_precision_loss, reason = "A window has a few thousand samples.")]
fn count(values: &[f64]) -> f64 {
    values.len() as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / count(values).max(1.0)
}

fn ratio(x: &[f64], y: &[f64]) -> f64 {
    let (x, y) = (mean(x), mean(y));
    if x == 0.0 || y == 0.0 { f64::NAN } else { x / y }
}

/// The interval and the median of all differences.
fn interval(x: &[f64], y: &[f64], quantile: f64) -> (f64, f64, f64) {
    let mut differences: Vec<f64> = x.iter().flat_map(|x| y.iter().map(move |y| x - y)).collect();
    differences.sort_by(f64::total_cmp);
    let (m, n) = (count(x), count(y));
    let sigma = (m * n * (m + n + 1.0) / 12.0).sqrt();
    let k = (m * n / 2.0 - 0.5 - quantile * sigma).floor().max(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "A small number of at least 0."
    )]
    let k = k as usize;
    let last = differences.len().saturating_sub(1);
    let at = |index: usize| differences.get(index.min(last)).copied().unwrap_or(0.0);
    let middle = last / 2;
    let median =
        if differences.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle), at(middle + 1)) };
    (at(k), at(last.saturating_sub(k)), median)
}

/// Too few samples for ranks: the distance of the means in standard deviations of the control.
fn by_deviation(x: &[f64], y: &[f64], limit: f64) -> Side {
    let (of_x, of_y) = (mean(x), mean(y));
    let variance = y.iter().map(|v| (v - of_y).powi(2)).sum::<f64>() / (count(y) - 1.0).max(1.0);
    let unit = variance.sqrt().max(0.05 * of_y.abs()).max(f64::EPSILON);
    let distance = (of_x - of_y) / unit;
    if distance > limit {
        Side::High
    } else if distance < -limit {
        Side::Low
    } else {
        Side::Same
    }
}

/// The statistic of the shifted samples, with the corrections for ties and continuity: what the interval inverts.
pub fn z(x: &[f64], y: &[f64], shift: f64) -> f64 {
    let mut all: Vec<(f64, bool)> = x.iter().map(|v| (v - shift, true)).collect();
    all.extend(y.iter().map(|v| (*v, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (m, n) = (count(x), count(y));
    let (mut ranks, mut ties, mut below) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        #[expect(clippy::cast_precision_loss, reason = "A window has a few thousand samples.")]
        let (size, ours) = (group.len() as f64, group.iter().filter(|(_, ours)| *ours).count() as f64);
        ranks += ours * (below + (size + 1.0) / 2.0);
        ties += size.powi(3) - size;
        below += size;
    }
    let d = ranks - m * (m + 1.0) / 2.0 - m * n / 2.0;
    let correction = if d == 0.0 { 0.0 } else { 0.5 * d.signum() };
    let variance = m * n / 12.0 * ((m + n + 1.0) - ties / ((m + n) * (m + n - 1.0)));
    (d - correction) / variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const X2: [f64; 10] = [5., 7., 6., 8., 9., 5., 7., 8., 6., 7.];
    const Y2: [f64; 10] = [5., 6., 7., 5., 6., 8., 7., 6., 5., 7.];
    const X3: [f64; 10] = [120., 131., 118., 140., 126., 133., 129., 138., 124., 135.];
    const Y3: [f64; 10] = [100., 104., 98., 103., 101., 99., 105., 102., 97., 106.];

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 5e-5, "{found} is not {wanted}");
    }

    #[test]
    fn the_vectors_of_the_facts() {
        // Without a limit on the ratio, as the vectors are.
        let measure = Measure { allowed_ratio: 1.0, ..Measure::of(Sensitivity::Medium) };
        let x: Vec<f64> = (10..18).map(f64::from).collect();
        let y: Vec<f64> = (1..9).map(f64::from).collect();
        let first = compare(&x, &y, &measure);
        assert_eq!((first.lower, first.upper, first.estimate, first.side), (5.0, 13.0, 9.0, Side::High));
        near(first.ratio, 3.0);
        let second = compare(&X2, &Y2, &measure);
        assert_eq!((second.lower, second.upper, second.estimate, second.side), (-1.0, 2.0, 1.0, Side::Same));
        near(second.ratio, 1.0968);
        near(z(&X2, &Y2, 0.0), 1.0133);
        let third = compare(&X3, &Y3, &measure);
        assert_eq!((third.lower, third.upper, third.estimate, third.side), (20.0, 35.0, 28.0, Side::High));
        near(third.ratio, 1.2749);
        near(z(&X3, &Y3, 0.0), 3.7418);
    }

    #[test]
    fn the_sensitivity_says_how_much_worse_is_too_much() {
        // A ratio of 1.2749.
        for (sensitivity, side) in [
            (Sensitivity::High, Side::High),
            (Sensitivity::Medium, Side::High),
            (Sensitivity::Low, Side::Same),
        ] {
            assert_eq!(compare(&X3, &Y3, &Measure::of(sensitivity)).side, side, "{sensitivity:?}");
        }
        assert_eq!(compare(&Y3, &X3, &Measure::of(Sensitivity::High)).side, Side::Low);
    }

    #[test]
    fn constants_few_samples_and_none() {
        let measure = Measure::of(Sensitivity::Medium);
        let side = |x: &[f64], y: &[f64]| compare(x, y, &measure).side;
        assert_eq!(side(&[2.0; 9], &[2.0; 12]), Side::Same);
        assert_eq!(side(&[4.0; 9], &[2.0; 12]), Side::High);
        assert_eq!(side(&[4.0; 4], &[2.0; 4]), Side::High);
        assert_eq!(side(&[2.05; 4], &[2.0; 4]), Side::Same);
        assert_eq!(side(&[4.0; 2], &[2.0; 12]), Side::NoData);
        assert_eq!(side(&[], &[2.0; 12]), Side::NoData);
        assert_eq!(side(&[f64::NAN; 9], &[2.0; 12]), Side::NoData);
        // Errors where there were none: no ratio can be made, the interval decides.
        assert_eq!(side(&[3.0; 9], &[0.0; 12]), Side::High);
        let high = compare(&[4.0; 9], &[2.0; 12], &measure);
        assert!(high.is_worse(Direction::HigherIsWorse) && !high.is_worse(Direction::LowerIsWorse));
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_estimate_and_turns_with_the_sides(
            x in proptest::collection::vec(-1e6..1e6f64, 8..40),
            y in proptest::collection::vec(-1e6..1e6f64, 8..40),
        ) {
            let measure = Measure::of(Sensitivity::Medium);
            let one = compare(&x, &y, &measure);
            prop_assert!(one.lower <= one.estimate && one.estimate <= one.upper, "{one:?}");
            let other = compare(&y, &x, &measure);
            prop_assert!((one.lower + other.upper).abs() < 1e-6 && (one.upper + other.lower).abs() < 1e-6);
            // The interval is where the statistic is not significant.
            prop_assert!(z(&x, &y, one.lower - 1e-3) > z(&x, &y, one.upper + 1e-3));
        }
    }
}
