//! Which samples of CloudWatch make up a window. A sample is stamped with the beginning of its period, and periods lie at
//! whole multiples of their length.

use crate::judge::MIN_POINTS;
use std::time::Duration;

/// Periods that CloudWatch takes below a minute; data in them is kept for three hours.
const HIGH_RESOLUTION: [u64; 5] = [1, 5, 10, 20, 30];
const MINUTE: u64 = 60;

/// The smallest period that is not shorter than `step`, a minute at most. `standard`: the metric has no samples closer than
/// a minute.
pub(crate) fn period(step: Duration, standard: bool) -> Duration {
    let fine = HIGH_RESOLUTION.into_iter().map(Duration::from_secs).find(|period| *period >= step);
    fine.filter(|_| !standard).unwrap_or(Duration::from_secs(MINUTE))
}

/// The periods that are judged, from the first to before the last, epoch milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Periods {
    /// Beginning of the first.
    pub(crate) from: i64,
    /// End of the last.
    pub(crate) until: i64,
    /// The first one began this long before the window did.
    pub(crate) early: i64,
}

/// The periods that lie within the window. When these are too few to judge by, the one in which the window begins counts as
/// well.
pub(crate) fn periods(start: i64, span: i64, period: i64) -> Periods {
    let period = period.max(1);
    let floor = |at: i64| at.div_euclid(period).saturating_mul(period);
    let until = floor(start.saturating_add(span));
    let down = floor(start);
    let up = if down == start { start } else { down.saturating_add(period) };
    let enough = period.saturating_mul(i64::try_from(MIN_POINTS).unwrap_or(i64::MAX));
    let from = if until.saturating_sub(up) >= enough { up } else { down };
    Periods { from, until: until.max(from), early: start.saturating_sub(from).max(0) }
}

impl Periods {
    /// How many samples there are at most.
    pub(crate) fn count(&self, period: i64) -> usize {
        let count = self.until.saturating_sub(self.from) / period.max(1);
        usize::try_from(count).unwrap_or(0)
    }

    /// As many periods that end with the one before `end`.
    pub(crate) fn before(&self, end: i64, period: i64) -> Periods {
        let until = end.div_euclid(period.max(1)).saturating_mul(period.max(1));
        Periods { from: until.saturating_sub(self.until.saturating_sub(self.from)), until, early: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn periods_are_those_that_cloudwatch_takes() {
        for (step_ms, standard, wanted) in [
            (500, false, 1),
            (1000, false, 1),
            (3000, false, 5),
            (10_000, false, 10),
            (12_000, false, 20),
            (30_000, false, 30),
            (31_000, false, 60),
            (60_000, false, 60),
            (500, true, 60),
        ] {
            assert_eq!(period(Duration::from_millis(step_ms), standard).as_secs(), wanted, "{step_ms}");
        }
    }

    #[test]
    fn five_minutes_hold_five_samples_whenever_they_begin() {
        let minute = 60_000;
        assert_eq!(
            periods(minute, 5 * minute, minute),
            Periods { from: minute, until: 6 * minute, early: 0 }
        );
        let odd = periods(90_000, 5 * minute, minute);
        assert_eq!(odd, Periods { from: minute, until: 6 * minute, early: 30_000 });
        // Ten minutes can do without the one in which they begin.
        assert_eq!(periods(90_000, 10 * minute, minute), Periods { from: 120_000, until: 660_000, early: 0 });
        assert_eq!(odd.before(100_000, minute), Periods { from: -240_000, until: minute, early: 0 });
    }

    proptest! {
        #[test]
        fn whole_periods_within_the_window(start in 0..1_000_000_i64, count in 5..20_i64, period in 1..100_i64) {
            let span = count * period;
            let found = periods(start, span, period);
            prop_assert!(found.from % period == 0 && found.until % period == 0);
            prop_assert!(found.until <= start + span);
            prop_assert!(found.early < period);
            prop_assert!(found.count(period) >= MIN_POINTS);
            prop_assert_eq!(found.before(start, period).count(period), found.count(period));
        }
    }
}
