//! The judgement: pure, the same for every provider. **Source**: settled facts §3.2, ecs-ssh-steps facts C3.

use std::fmt;

/// Samples that a judgement needs at the end; fewer say nothing.
pub const MIN_POINTS: usize = 5;

/// Violating samples in a row that fail at once.
pub const CONSECUTIVE: usize = 2;

/// Which side is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Errors, latency, load.
    HigherIsWorse,
    /// Traffic, success.
    LowerIsWorse,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::HigherIsWorse => "higher is worse",
            Direction::LowerIsWorse => "lower is worse",
        })
    }
}

/// What is compared with the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Formula {
    /// The value itself.
    Value {
        /// The limit; it is still good.
        limit: f64,
    },
    /// How far the value lies from the control's mean, in percent of it.
    Deviation {
        /// The limit in percent; it is still good.
        percent: f64,
    },
}

/// How a series is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Which side is bad.
    pub direction: Direction,
    /// What is compared.
    pub formula: Formula,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.formula, self.direction) {
            (Formula::Value { limit }, Direction::HigherIsWorse) => write!(f, "value <= {limit}"),
            (Formula::Value { limit }, Direction::LowerIsWorse) => write!(f, "value >= {limit}"),
            (Formula::Deviation { percent }, Direction::HigherIsWorse) => {
                write!(f, "(value - control) / |control| * 100 <= {percent}")
            }
            (Formula::Deviation { percent }, Direction::LowerIsWorse) => {
                write!(f, "(value - control) / |control| * 100 >= -{percent}")
            }
        }
    }
}

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Epoch milliseconds.
    pub at_ms: i64,
    /// Never NaN: what a provider calls NaN is a missing sample.
    pub value: f64,
}

/// What the samples are compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Control {
    /// Mean of its samples.
    pub mean: f64,
    /// How many there were.
    pub points: usize,
}

impl Control {
    /// The control of these samples.
    pub fn of(points: &[Point]) -> Self {
        Control { mean: mean(points), points: points.len() }
    }
}

/// What the samples so far say.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing yet.
    Continue,
    /// The window is over and the mean is good.
    Pass {
        /// Mean of the samples.
        mean: f64,
    },
    /// The limit is violated.
    Fail {
        /// Which samples, or the mean.
        reason: String,
    },
    /// There is not enough to judge by.
    Inconclusive {
        /// What is missing.
        reason: String,
    },
}

/// Judges `points`, which are in the order of time. `finished`: the window is over, no further samples come.
pub fn judge(rule: &Rule, control: Option<&Control>, points: &[Point], finished: bool) -> Verdict {
    if let Formula::Deviation { .. } = rule.formula {
        match control {
            None => return inconclusive("there is no control to compare with"),
            Some(control) if control.points < MIN_POINTS => {
                let found = control.points;
                return inconclusive(format!(
                    "the control window has {found} of at least {MIN_POINTS} samples"
                ));
            }
            Some(_) => {}
        }
    }
    let measured: Vec<Option<f64>> = points.iter().map(|point| rule.measure(control, point.value)).collect();
    if let Some(reason) = run_of_violations(rule, points, &measured) {
        return Verdict::Fail { reason };
    }
    if !finished {
        return Verdict::Continue;
    }
    if points.len() < MIN_POINTS {
        let found = points.len();
        return inconclusive(format!("the window has {found} of at least {MIN_POINTS} samples"));
    }
    if measured.iter().any(Option::is_none) {
        return inconclusive("the control's mean is 0, and a percentage of 0 says nothing");
    }
    let mean = mean(points);
    match rule.measure(control, mean) {
        Some(measure) if rule.violated(measure) => Verdict::Fail {
            reason: format!("the mean of {} samples is {}", points.len(), rule.shown(mean, measure)),
        },
        Some(_) => Verdict::Pass { mean },
        None => inconclusive("the control's mean is 0, and a percentage of 0 says nothing"),
    }
}

/// `points` with a zero wherever a sample is missing between `start_ms` and `upto_ms`: for counts that a provider leaves
/// out when they are zero. A sample belongs to the place it is nearest to.
pub fn with_zeroes(points: &[Point], start_ms: i64, upto_ms: i64, step_ms: i64) -> Vec<Point> {
    let step_ms = step_ms.max(1);
    let mut all = Vec::new();
    let mut left = points.iter().peekable();
    let mut at_ms = start_ms;
    while at_ms <= upto_ms {
        match left.next_if(|point| point.at_ms < at_ms.saturating_add(step_ms / 2 + 1)) {
            Some(point) => all.push(*point),
            None => all.push(Point { at_ms, value: 0.0 }),
        }
        at_ms = at_ms.saturating_add(step_ms);
    }
    all.extend(left);
    all
}

/// The first run of violating samples that is long enough, in words.
fn run_of_violations(rule: &Rule, points: &[Point], measured: &[Option<f64>]) -> Option<String> {
    let mut run: Vec<String> = Vec::with_capacity(CONSECUTIVE);
    for (point, measure) in points.iter().zip(measured) {
        match measure {
            Some(measure) if rule.violated(*measure) => run.push(rule.shown(point.value, *measure)),
            _ => run.clear(),
        }
        if run.len() == CONSECUTIVE {
            return Some(format!("{CONSECUTIVE} samples in a row violate the limit: {}", run.join(", ")));
        }
    }
    None
}

impl Rule {
    /// The number that is compared with the limit. `None`: there is none, because the control is 0.
    pub fn measure(&self, control: Option<&Control>, value: f64) -> Option<f64> {
        match self.formula {
            Formula::Value { .. } => Some(value),
            Formula::Deviation { .. } => match control.map(|control| control.mean) {
                Some(mean) if mean != 0.0 => Some((value - mean) / mean.abs() * 100.0),
                Some(_) if value == 0.0 => Some(0.0),
                _ => None,
            },
        }
    }

    /// Whether a measure is beyond the limit. A measure that is not a number (infinity minus infinity) is.
    pub fn violated(&self, measure: f64) -> bool {
        let good = match (self.formula, self.direction) {
            (Formula::Value { limit }, Direction::HigherIsWorse) => measure <= limit,
            (Formula::Value { limit }, Direction::LowerIsWorse) => measure >= limit,
            (Formula::Deviation { percent }, Direction::HigherIsWorse) => measure <= percent,
            (Formula::Deviation { percent }, Direction::LowerIsWorse) => measure >= -percent,
        };
        !good
    }

    /// A value with its deviation, for people.
    pub fn shown(&self, value: f64, measure: f64) -> String {
        match self.formula {
            Formula::Value { .. } => number(value),
            Formula::Deviation { .. } => format!("{} ({measure:+.1} %)", number(value)),
        }
    }
}

/// A number in at most six significant digits or so: enough to see what happened.
pub fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e9).contains(&value.abs()) {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.4e}")
    }
}

/// The mean; 0 of nothing. It never lies outside of its samples: a series that stands at its limit must not fail for a
/// rounding error.
fn mean(points: &[Point]) -> f64 {
    let values = || points.iter().map(|point| point.value);
    #[expect(clippy::cast_precision_loss, reason = "A window has a few thousand samples.")]
    let count = points.len().max(1) as f64;
    let sum: f64 = values().sum();
    // A sum of large values may overflow where their mean does not.
    let mean = if sum.is_finite() { sum / count } else { values().map(|value| value / count).sum() };
    if points.is_empty() || mean.is_nan() {
        return mean;
    }
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    mean.max(low).min(high)
}

fn inconclusive(reason: impl Into<String>) -> Verdict {
    Verdict::Inconclusive { reason: reason.into() }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
