use super::*;
use proptest::prelude::*;

const HIGH: Rule = rule(Direction::HigherIsWorse, Formula::Value { limit: 100.0 });
const LOW: Rule = rule(Direction::LowerIsWorse, Formula::Value { limit: 100.0 });
const UP: Rule = rule(Direction::HigherIsWorse, Formula::Deviation { percent: 20.0 });
const DOWN: Rule = rule(Direction::LowerIsWorse, Formula::Deviation { percent: 20.0 });
const TOTAL: Rule = Rule { aggregate: Aggregate::Total, ..HIGH };

const fn rule(direction: Direction, formula: Formula) -> Rule {
    Rule { direction, formula, aggregate: Aggregate::Mean }
}

fn series(values: &[f64]) -> Vec<Point> {
    values.iter().zip(0..).map(|(value, at_ms)| Point { at_ms, value: *value }).collect()
}

fn of(mean: f64, points: usize) -> Control {
    Control { mean, points, beside: None }
}

fn control(mean: f64) -> Control {
    of(mean, 10)
}

fn fails(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Fail { .. })
}

fn is_inconclusive(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Inconclusive { .. })
}

#[test]
fn the_limit_itself_is_good() {
    for rule in [HIGH, LOW] {
        assert_eq!(judge(&rule, None, &series(&[100.0; 5]), true), Verdict::Pass { value: 100.0 });
    }
    for (rule, value) in [(UP, 120.0), (DOWN, 80.0)] {
        assert_eq!(judge(&rule, Some(&control(100.0)), &series(&[value; 5]), true), Verdict::Pass { value });
    }
}

#[test]
fn rounding_does_not_fail_a_series_at_its_limit() {
    // A ninth of 100 added nine times is a little more than 100.
    assert_eq!(judge(&HIGH, None, &series(&[100.0; 9]), true), Verdict::Pass { value: 100.0 });
    assert_eq!(Control::of(&series(&[f64::MAX; 9])).mean, f64::MAX);
    assert_eq!(Control::of(&[]).mean, 0.0);
}

#[test]
fn two_violations_in_a_row_fail_at_once() {
    assert!(fails(&judge(&HIGH, None, &series(&[1.0, 101.0, 101.0]), false)));
    assert!(fails(&judge(&LOW, None, &series(&[99.0, 99.0]), false)));
    assert!(fails(&judge(&UP, Some(&control(10.0)), &series(&[12.1, 12.1]), false)));
    assert!(fails(&judge(&DOWN, Some(&control(10.0)), &series(&[7.9, 7.9]), false)));
    let Verdict::Fail { reason } = judge(&UP, Some(&control(10.0)), &series(&[13.0, 14.0]), false) else {
        panic!()
    };
    assert_eq!(reason, "2 samples in a row violate the limit: 13 (+30.0 %), 14 (+40.0 %)");
}

#[test]
fn single_spikes_are_left_to_the_mean() {
    let spikes = [1.0, 101.0, 1.0, 101.0, 1.0, 101.0];
    assert_eq!(judge(&HIGH, None, &series(&spikes), false), Verdict::Continue);
    assert_eq!(judge(&HIGH, None, &series(&spikes), true), Verdict::Pass { value: 51.0 });
    let big = [1.0, 10_000.0, 1.0, 1.0, 1.0];
    assert_eq!(judge(&HIGH, None, &series(&big), false), Verdict::Continue);
    assert!(fails(&judge(&HIGH, None, &series(&big), true)));
}

#[test]
fn too_few_samples_say_nothing() {
    assert_eq!(judge(&HIGH, None, &[], false), Verdict::Continue);
    for count in 0..MIN_POINTS {
        assert!(is_inconclusive(&judge(&HIGH, None, &series(&vec![1.0; count]), true)), "{count}");
    }
    assert!(fails(&judge(&HIGH, None, &series(&[101.0, 101.0]), true)), "violations need no minimum");
}

#[test]
fn a_deviation_needs_a_control() {
    let good = series(&[1.0; 5]);
    assert!(is_inconclusive(&judge(&UP, None, &good, false)));
    assert!(is_inconclusive(&judge(&UP, Some(&of(1.0, 4)), &good, false)));
    assert_eq!(judge(&HIGH, Some(&of(1.0, 0)), &good, true), Verdict::Pass { value: 1.0 });
}

#[test]
fn a_control_of_zero_judges_only_zeroes() {
    assert_eq!(judge(&UP, Some(&control(0.0)), &series(&[0.0; 5]), true), Verdict::Pass { value: 0.0 });
    let verdict = judge(&UP, Some(&control(0.0)), &series(&[0.0, 0.1, 0.1, 0.1, 0.0]), true);
    assert!(is_inconclusive(&verdict), "{verdict:?}");
    assert_eq!(judge(&UP, Some(&control(0.0)), &series(&[0.1; 3]), false), Verdict::Continue);
}

#[test]
fn a_negative_control_keeps_the_direction() {
    assert!(fails(&judge(&UP, Some(&control(-10.0)), &series(&[-7.0, -7.0]), false)));
    assert_eq!(judge(&UP, Some(&control(-10.0)), &series(&[-13.0; 5]), true), Verdict::Pass { value: -13.0 });
    assert!(fails(&judge(&DOWN, Some(&control(-10.0)), &series(&[-13.0, -13.0]), false)));
}

#[test]
fn a_total_over_the_limit_fails_at_once() {
    let sum = |values: &[f64], finished| judge(&TOTAL, None, &series(values), finished);
    assert_eq!(sum(&[90.0, 10.0], false), Verdict::Continue);
    assert_eq!(
        sum(&[90.0, 11.0], false),
        Verdict::Fail { reason: "the total so far is 101".into() },
        "no sample is over the limit, their sum is"
    );
    assert_eq!(sum(&[90.0, 10.0, 0.0, 0.0, 0.0], true), Verdict::Pass { value: 100.0 });
    assert!(is_inconclusive(&sum(&[1.0; 4], true)));
    assert_eq!(TOTAL.to_string(), "total <= 100");
}

#[test]
fn a_total_below_its_least_is_known_at_the_end() {
    let least = Rule { direction: Direction::LowerIsWorse, ..TOTAL };
    assert_eq!(judge(&least, None, &series(&[1.0; 5]), false), Verdict::Continue);
    assert!(fails(&judge(&least, None, &series(&[1.0; 5]), true)));
    assert_eq!(judge(&least, None, &series(&[20.0; 5]), true), Verdict::Pass { value: 100.0 });
}

#[test]
fn a_total_is_compared_with_the_control_s_total() {
    let rule = Rule { aggregate: Aggregate::Total, ..UP };
    // Ten samples of 1 before; 12 are a fifth more.
    assert_eq!(judge(&rule, Some(&control(1.0)), &series(&[12.0]), false), Verdict::Continue);
    assert!(fails(&judge(&rule, Some(&control(1.0)), &series(&[13.0]), false)));
    assert!(is_inconclusive(&judge(&rule, Some(&control(0.0)), &series(&[1.0; 5]), true)));
    assert_eq!(judge(&rule, Some(&control(0.0)), &series(&[0.0; 5]), true), Verdict::Pass { value: 0.0 });
    let blue = series(&[1.0, 1.0, 1.0, 1.0, 1.0]);
    let green = series(&[9.0, 9.0]);
    let verdict = judge(&rule, Some(&Control::beside(&blue, &green)), &green, false);
    assert_eq!(verdict, Verdict::Continue, "the control grows too");
    let green = series(&[2.0; 5]);
    assert!(fails(&judge(&rule, Some(&Control::beside(&blue, &green)), &green, true)));
}

#[test]
fn samples_are_compared_with_those_of_the_same_time() {
    let verdict = |blue: &[f64], green: &[f64], finished| {
        let (blue, green) = (series(blue), series(green));
        judge(&UP, Some(&Control::beside(&blue, &green)), &green, finished)
    };
    // Both rise together: the load is to blame, not the new version.
    assert_eq!(
        verdict(&[1.0, 5.0, 9.0, 9.0, 9.0], &[1.1, 5.5, 9.9, 9.9, 9.9], true),
        Verdict::Pass { value: 7.26 }
    );
    assert!(fails(&verdict(&[1.0, 1.0], &[2.0, 2.0], false)), "two pairs in a row");
    assert_eq!(verdict(&[1.0], &[2.0, 2.0, 2.0, 2.0, 2.0], false), Verdict::Continue);
    let few = verdict(&[1.0], &[2.0, 2.0, 2.0, 2.0, 2.0], true);
    assert!(is_inconclusive(&few), "{few:?}");
    let mut gaps = series(&[1.0; 9]);
    gaps.retain(|point| point.at_ms % 2 == 0);
    let green = series(&[1.0, 99.0, 1.0, 99.0, 1.0, 99.0, 1.0, 99.0, 1.0]);
    let control = Control::beside(&gaps, &green);
    assert_eq!(control.points, 5);
    assert_eq!(judge(&UP, Some(&control), &green, true), Verdict::Pass { value: 1.0 });
}

#[test]
fn infinities_are_bad_on_their_side_only() {
    assert!(fails(&judge(&HIGH, None, &series(&[f64::INFINITY; 2]), false)));
    assert!(fails(&judge(&LOW, None, &series(&[f64::NEG_INFINITY; 2]), false)));
    assert!(matches!(judge(&LOW, None, &series(&[f64::INFINITY; 5]), true), Verdict::Pass { .. }));
    // Both at once have no mean; what cannot be compared is not good.
    let odd = [f64::INFINITY, 1.0, f64::NEG_INFINITY, 1.0, 1.0];
    assert!(fails(&judge(&HIGH, None, &series(&odd), true)));
}

#[test]
fn absent_counts_are_zeroes_at_their_places() {
    let at = |at_ms, value| Point { at_ms, value };
    let found = with_zeroes(&[at(1010, 3.0), at(3000, 4.0)], 0, 4000, 1000);
    assert_eq!(found, [at(0, 0.0), at(1010, 3.0), at(2000, 0.0), at(3000, 4.0), at(4000, 0.0)]);
    assert_eq!(with_zeroes(&[], 5, 5, 1000), [at(5, 0.0)]);
    assert_eq!(with_zeroes(&[at(0, 1.0), at(1000, 1.0)], 0, 1500, 1000), [at(0, 1.0), at(1000, 1.0)]);
    assert!(with_zeroes(&[], 5, 4, 0).is_empty());
}

#[test]
fn numbers_are_shown_briefly() {
    for (value, text) in [
        (0.0, "0"),
        (1.0, "1"),
        (0.25, "0.25"),
        (1234.5678, "1234.5678"),
        (1e-9, "1.0000e-9"),
        (1e12, "1.0000e12"),
    ] {
        assert_eq!(number(value), text);
    }
}

fn rules() -> impl Strategy<Value = Rule> {
    (any::<bool>(), any::<bool>(), -1e6..1e6_f64).prop_map(|(up, value, limit)| Rule {
        direction: if up { Direction::HigherIsWorse } else { Direction::LowerIsWorse },
        formula: if value { Formula::Value { limit } } else { Formula::Deviation { percent: limit.abs() } },
        aggregate: Aggregate::Mean,
    })
}

proptest! {
    #[test]
    fn any_numbers_are_judged(
        rule in rules(), total: bool, mean: f64, count: usize, beside: Option<Vec<f64>>, values: Vec<f64>, finished: bool,
    ) {
        let rule = Rule { aggregate: if total { Aggregate::Total } else { Aggregate::Mean }, ..rule };
        let control = beside.map_or_else(|| of(mean, count), |b| Control::beside(&series(&b), &series(&values)));
        let verdict = judge(&rule, Some(&control), &series(&values), finished);
        prop_assert!(!finished || verdict != Verdict::Continue);
    }

    #[test]
    fn a_total_fails_exactly_when_it_is_over_the_limit(
        values in proptest::collection::vec(0.0..100.0_f64, 5..20), limit in 0.0..1000.0_f64, finished: bool,
    ) {
        let rule = Rule { aggregate: Aggregate::Total, ..rule(Direction::HigherIsWorse, Formula::Value { limit }) };
        let over = values.iter().sum::<f64>() > limit;
        prop_assert_eq!(fails(&judge(&rule, None, &series(&values), finished)), over);
    }

    #[test]
    fn good_samples_alone_pass(limit in -1e6..1e6_f64, below in proptest::collection::vec(0.0..1e6_f64, 5..40)) {
        let rule = rule(Direction::HigherIsWorse, Formula::Value { limit });
        let values: Vec<f64> = below.iter().map(|d| limit - d).collect();
        for end in 0..values.len() {
            prop_assert_eq!(judge(&rule, None, &series(&values[..end]), false), Verdict::Continue);
        }
        let passed = matches!(judge(&rule, None, &series(&values), true), Verdict::Pass { .. });
        prop_assert!(passed);
    }

    #[test]
    fn a_failure_stays_one_when_more_samples_come(rule in rules(), values in proptest::collection::vec(-1e7..1e7_f64, 0..30)) {
        let control = control(10.0);
        let mut failed = false;
        for end in 0..=values.len() {
            let verdict = judge(&rule, Some(&control), &series(&values[..end]), false);
            prop_assert!(!failed || fails(&verdict));
            failed = fails(&verdict);
        }
    }

    #[test]
    fn the_two_directions_mirror_each_other(limit in -1e6..1e6_f64, values in proptest::collection::vec(-1e6..1e6_f64, 0..20), finished: bool) {
        let up = rule(Direction::HigherIsWorse, Formula::Value { limit });
        let down = rule(Direction::LowerIsWorse, Formula::Value { limit: -limit });
        let mirrored: Vec<f64> = values.iter().map(|v| -v).collect();
        let (a, b) = (judge(&up, None, &series(&values), finished), judge(&down, None, &series(&mirrored), finished));
        prop_assert_eq!(std::mem::discriminant(&a), std::mem::discriminant(&b));
    }
}
