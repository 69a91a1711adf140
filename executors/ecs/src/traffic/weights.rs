//! How requests are shared among target groups. Pure.

use super::fault::Fault;
use serde::{Deserialize, Serialize};

/// Largest weight of a target group.
pub(crate) const MAX_WEIGHT: u32 = 999;
/// Most target groups of one action.
pub(crate) const MAX_GROUPS: usize = 5;

/// Weights by ARN of the target group, in the order of the action. Only their ratio counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Weights(Vec<(String, u32)>);

impl Weights {
    /// These weights.
    ///
    /// **Errors**: a weight over 999, more than five groups, a group twice, or nobody who gets anything.
    pub(crate) fn new(pairs: impl IntoIterator<Item = (String, u32)>) -> Result<Weights, Fault> {
        let weights = Weights::read(pairs);
        let fault = |problem: String| Err(Fault::Weights(problem));
        for (at, (group, weight)) in weights.0.iter().enumerate() {
            if *weight > MAX_WEIGHT {
                return fault(format!("{}: {weight}; expected 0 to {MAX_WEIGHT}", short(group)));
            }
            if weights.0.iter().skip(at + 1).any(|(other, _)| other == group) {
                return fault(format!("{} is named twice", short(group)));
            }
        }
        if weights.0.len() > MAX_GROUPS {
            return fault(format!("{} target groups; expected {MAX_GROUPS} at most", weights.0.len()));
        }
        if weights.total() == 0 {
            return fault("nobody would get requests: every weight is 0".to_owned());
        }
        Ok(weights)
    }

    /// `percent` for green, the rest for blue.
    ///
    /// **Errors**: more than 100 percent, or both are one group.
    pub(crate) fn split(blue: &str, green: &str, percent: u32) -> Result<Weights, Fault> {
        match 100u32.checked_sub(percent) {
            Some(rest) => Weights::new([(blue.to_owned(), rest), (green.to_owned(), percent)]),
            None => Err(Fault::Weights(format!("{percent} percent; expected 0 to 100"))),
        }
    }

    /// Weights as AWS answers them.
    pub(super) fn read(pairs: impl IntoIterator<Item = (String, u32)>) -> Weights {
        Weights(pairs.into_iter().collect())
    }

    /// Every group with its weight.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|(group, weight)| (group.as_str(), *weight))
    }

    /// The weight of a group; 0 for one that is not named.
    pub(crate) fn of(&self, group: &str) -> u32 {
        self.iter().find(|(found, _)| *found == group).map_or(0, |(_, weight)| weight)
    }

    /// Whether a group is named, with whatever weight.
    pub(crate) fn names(&self, group: &str) -> bool {
        self.iter().any(|(found, _)| found == group)
    }

    fn total(&self) -> u32 {
        self.iter().map(|(_, weight)| weight).sum()
    }

    /// Groups that get requests.
    pub(crate) fn receiving(&self) -> Vec<&str> {
        self.iter().filter(|(_, weight)| *weight > 0).map(|(group, _)| group).collect()
    }

    /// Groups whose share is larger here than in `before`.
    pub(crate) fn raised<'a>(&'a self, before: &Weights) -> Vec<&'a str> {
        // Shares are fractions; they are compared without division.
        let larger = |group: &str| {
            u64::from(self.of(group)) * u64::from(before.total().max(1))
                > u64::from(before.of(group)) * u64::from(self.total().max(1))
        };
        self.receiving().into_iter().filter(|group| larger(group)).collect()
    }

    /// For people: `blue 90, green 10`; a group that is alone gets everything, whatever its weight.
    pub(crate) fn shown(&self) -> String {
        if let [(only, 1..)] = self.0.as_slice() {
            return short(only).to_owned();
        }
        let all: Vec<String> =
            self.iter().map(|(group, weight)| format!("{} {weight}", short(group))).collect();
        if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
    }
}

/// Name of a target group, from its ARN; anything else as it is.
pub(crate) fn short(arn: &str) -> &str {
    match arn.split_once(":targetgroup/") {
        Some((_, rest)) => rest.split('/').next().unwrap_or(arn),
        None => arn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/blue/1";
    const GREEN: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/green/2";

    #[test]
    fn percents_make_a_hundred_and_bad_weights_are_named() {
        let split = Weights::split(BLUE, GREEN, 10).unwrap();
        assert_eq!(split.shown(), "blue 90, green 10");
        assert_eq!((split.of(GREEN), split.of("other")), (10, 0));
        assert_eq!(split.receiving(), [BLUE, GREEN]);
        for (weights, words) in [
            (Weights::split(BLUE, GREEN, 101), "101 percent"),
            (Weights::split(BLUE, BLUE, 10), "twice"),
            (Weights::new([(BLUE.to_owned(), 1000)]), "1000"),
            (Weights::new([(BLUE.to_owned(), 0)]), "every weight is 0"),
            (Weights::new((0..6).map(|n| (n.to_string(), 1))), "6 target groups"),
        ] {
            let problem = weights.unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn a_share_is_what_counts() {
        let before = Weights::read([(BLUE.to_owned(), 1)]);
        let same = Weights::read([(BLUE.to_owned(), 100), (GREEN.to_owned(), 0)]);
        assert!(same.raised(&before).is_empty());
        let third = Weights::read([(BLUE.to_owned(), 2), (GREEN.to_owned(), 1)]);
        assert_eq!(third.raised(&before), [GREEN]);
        assert_eq!(before.raised(&third), [BLUE]);
        assert!(Weights::default().raised(&before).is_empty());
    }
}
