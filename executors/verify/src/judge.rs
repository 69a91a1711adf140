//! The judgement: pure, the same for every provider. **Source**: settled facts §3.2, ecs-ssh-steps facts C3.

use std::collections::{BTreeMap, BTreeSet};
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

/// How the samples of a window become a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Each sample is compared, and their mean at the end.
    #[default]
    Mean,
    /// Only their sum is compared: counts of what happened since the sample before.
    Total,
}

/// How a series is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Which side is bad.
    pub direction: Direction,
    /// What is compared.
    pub formula: Formula,
    /// Of which number.
    pub aggregate: Aggregate,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match self.aggregate {
            Aggregate::Mean => "value",
            Aggregate::Total => "total",
        };
        match (self.formula, self.direction) {
            (Formula::Value { limit }, Direction::HigherIsWorse) => write!(f, "{value} <= {limit}"),
            (Formula::Value { limit }, Direction::LowerIsWorse) => write!(f, "{value} >= {limit}"),
            (Formula::Deviation { percent }, Direction::HigherIsWorse) => {
                write!(f, "({value} - control) / |control| * 100 <= {percent}")
            }
            (Formula::Deviation { percent }, Direction::LowerIsWorse) => {
                write!(f, "({value} - control) / |control| * 100 >= -{percent}")
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
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Mean of its samples.
    pub mean: f64,
    /// How many there were.
    pub points: usize,
    /// Its samples by time, when each is compared with the one of the same time. It still grows then.
    beside: Option<BTreeMap<i64, f64>>,
}

impl Control {
    /// The control of these samples, which were over before the judged ones began.
    pub fn of(points: &[Point]) -> Self {
        Control { mean: mean(points), points: points.len(), beside: None }
    }

    /// The control that was sampled at the same times as what is judged: those of its samples that have a partner.
    pub fn beside(control: &[Point], judged: &[Point]) -> Self {
        let times: BTreeSet<i64> = judged.iter().map(|point| point.at_ms).collect();
        let pairs: Vec<Point> = control.iter().copied().filter(|p| times.contains(&p.at_ms)).collect();
        let beside = pairs.iter().map(|point| (point.at_ms, point.value)).collect();
        Control { mean: mean(&pairs), points: pairs.len(), beside: Some(beside) }
    }

    /// Whether further samples come.
    fn grows(&self) -> bool {
        self.beside.is_some()
    }

    /// What a sample of this time is compared with.
    pub fn at(&self, at_ms: i64) -> Option<f64> {
        match &self.beside {
            None => Some(self.mean),
            Some(beside) => beside.get(&at_ms).copied(),
        }
    }

    /// Sum of its samples.
    pub fn total(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "A window has a few thousand samples.")]
        let points = self.points as f64;
        self.mean * points
    }
}

/// What the samples so far say.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing yet.
    Continue,
    /// The window is over and the number is good.
    Pass {
        /// Mean or total of the samples.
        value: f64,
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
    let control = match (rule.formula, control) {
        (Formula::Value { .. }, _) => None,
        (Formula::Deviation { .. }, None) => return inconclusive("there is no control to compare with"),
        (Formula::Deviation { .. }, Some(control)) => {
            if control.points < MIN_POINTS && (finished || !control.grows()) {
                let (found, when) = (control.points, if control.grows() { " at the same times" } else { "" });
                return inconclusive(format!(
                    "the control has {found} of at least {MIN_POINTS} samples{when}"
                ));
            }
            Some(control)
        }
    };
    match rule.aggregate {
        Aggregate::Mean => by_samples(rule, control, points, finished),
        Aggregate::Total => by_total(rule, control, points, finished),
    }
}

fn by_samples(rule: &Rule, control: Option<&Control>, points: &[Point], finished: bool) -> Verdict {
    // A sample without a partner cannot be compared.
    let comparable = |point: &&Point| control.is_none_or(|control| control.at(point.at_ms).is_some());
    let points: Vec<Point> = points.iter().filter(comparable).copied().collect();
    let measure =
        |point: &Point| rule.measure(control.and_then(|control| control.at(point.at_ms)), point.value);
    let measured: Vec<Option<f64>> = points.iter().map(measure).collect();
    if let Some(reason) = run_of_violations(rule, &points, &measured) {
        return Verdict::Fail { reason };
    }
    if !finished {
        return Verdict::Continue;
    }
    if let Some(verdict) = too_few(&points) {
        return verdict;
    }
    let mean = mean(&points);
    match rule.measure(control.map(|control| control.mean), mean) {
        Some(measure) if rule.violated(measure) => Verdict::Fail {
            reason: format!("the mean of {} samples is {}", points.len(), rule.shown(mean, measure)),
        },
        Some(_) => Verdict::Pass { value: mean },
        None => inconclusive("the control's mean is 0, and a percentage of 0 says nothing"),
    }
}

fn by_total(rule: &Rule, control: Option<&Control>, points: &[Point], finished: bool) -> Verdict {
    let total = total(points);
    let measure = rule.measure(control.map(Control::total), total);
    let violated = measure.filter(|measure| rule.violated(*measure));
    // A count only grows: what is beyond its limit stays there. Nothing is certain yet against a control that grows too.
    let certain = rule.direction == Direction::HigherIsWorse && !control.is_some_and(Control::grows);
    if let Some(measure) = violated.filter(|_| certain) {
        let shown = rule.shown(total, measure);
        return Verdict::Fail { reason: format!("the total so far is {shown}") };
    }
    if !finished {
        return Verdict::Continue;
    }
    if let Some(verdict) = too_few(points) {
        return verdict;
    }
    match (measure, violated) {
        (Some(measure), Some(_)) => Verdict::Fail {
            reason: format!("the total of {} samples is {}", points.len(), rule.shown(total, measure)),
        },
        (Some(_), None) => Verdict::Pass { value: total },
        (None, _) => inconclusive("the control's total is 0, and a percentage of 0 says nothing"),
    }
}

fn too_few(points: &[Point]) -> Option<Verdict> {
    let found = points.len();
    (found < MIN_POINTS)
        .then(|| inconclusive(format!("the window has {found} of at least {MIN_POINTS} samples")))
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
    /// The number that is compared with the limit: `value` itself, or how far it lies from `control`. `None`: there is
    /// none, because the control is 0 or missing.
    pub fn measure(&self, control: Option<f64>, value: f64) -> Option<f64> {
        match self.formula {
            Formula::Value { .. } => Some(value),
            Formula::Deviation { .. } => match control {
                Some(control) if control != 0.0 => Some((value - control) / control.abs() * 100.0),
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

/// The sum of the samples.
pub fn total(points: &[Point]) -> f64 {
    points.iter().map(|point| point.value).sum()
}

fn inconclusive(reason: impl Into<String>) -> Verdict {
    Verdict::Inconclusive { reason: reason.into() }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
