use super::*;

fn schedule(expression: &str, dialect: Dialect, zone: &str) -> Schedule {
    Schedule::new(expression, dialect, zone).unwrap_or_else(|error| panic!("{expression}: {error:?}"))
}

fn ms(text: &str) -> u64 {
    u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
}

fn utc(at: Option<u64>) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| Timestamp::from_millisecond(i64::try_from(at).unwrap()).unwrap().to_string(),
    )
}

fn following(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
    let mut at = ms(from);
    (0..count)
        .map(|_| {
            let next = schedule.next_after(at);
            at = next.unwrap();
            utc(next)
        })
        .collect()
}

#[test]
fn the_next_time_of_common_expressions() {
    use Dialect::{Quartz, Unix};
    for (expression, dialect, from, next) in [
        ("0 2 * * *", Unix, "2026-03-01T00:00:00Z", "2026-03-01T02:00:00Z"),
        // The time itself is not after itself.
        ("0 2 * * *", Unix, "2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z"),
        ("0 2 * * *", Unix, "2026-03-01T01:59:59.999Z", "2026-03-01T02:00:00Z"),
        ("*/15 * * * *", Unix, "2026-03-01T00:14:59Z", "2026-03-01T00:15:00Z"),
        ("5/20 * * * *", Unix, "2026-03-01T00:06:00Z", "2026-03-01T00:25:00Z"),
        ("0 9-17/4 * * MON-FRI", Unix, "2026-03-06T14:00:00Z", "2026-03-06T17:00:00Z"),
        ("0 9 * * 1-5", Unix, "2026-03-06T10:00:00Z", "2026-03-09T09:00:00Z"),
        ("0 0 * * 7", Unix, "2026-03-02T00:00:00Z", "2026-03-08T00:00:00Z"),
        ("0 0 * * 0", Unix, "2026-03-02T00:00:00Z", "2026-03-08T00:00:00Z"),
        // A restricted day and weekday are alternatives.
        ("0 0 13 * FRI", Unix, "2026-03-01T00:00:00Z", "2026-03-06T00:00:00Z"),
        ("0 0 29 2 *", Unix, "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 0 1 jan *", Unix, "2026-03-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("30 0 12 * * ?", Quartz, "2026-03-01T12:00:29Z", "2026-03-01T12:00:30Z"),
        // Quartz counts weekdays from Sunday, 1.
        ("0 0 12 ? * 2", Quartz, "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z"),
        ("0 0 12 ? * SUN", Quartz, "2026-03-02T12:00:00Z", "2026-03-08T12:00:00Z"),
        ("0 0 12 L * ?", Quartz, "2026-02-10T00:00:00Z", "2026-02-28T12:00:00Z"),
        ("0 0 12 L-2 * ?", Quartz, "2026-02-10T00:00:00Z", "2026-02-26T12:00:00Z"),
        ("0 0 12 LW * ?", Quartz, "2026-02-10T00:00:00Z", "2026-02-27T12:00:00Z"),
        ("0 0 12 1W * ?", Quartz, "2026-07-31T13:00:00Z", "2026-08-03T12:00:00Z"),
        ("0 0 12 ? * 6#3", Quartz, "2026-03-01T00:00:00Z", "2026-03-20T12:00:00Z"),
        ("0 0 12 ? * 6L", Quartz, "2026-03-01T00:00:00Z", "2026-03-27T12:00:00Z"),
        ("0 0 12 1 1 ? 2030", Quartz, "2026-03-01T00:00:00Z", "2030-01-01T12:00:00Z"),
        ("0 0 12 ? * FRI-MON", Quartz, "2026-03-03T00:00:00Z", "2026-03-06T12:00:00Z"),
        // Thursday, Saturday, Monday: Sunday is one day, although it is 0 and 7.
        ("0 0 * * THU-MON/2", Unix, "2026-03-07T00:00:01Z", "2026-03-09T00:00:00Z"),
    ] {
        assert_eq!(
            utc(schedule(expression, dialect, "UTC").next_after(ms(from))),
            next,
            "{expression} from {from}"
        );
    }
    let once = schedule("0 0 12 1 1 ? 2030", Quartz, "UTC");
    assert_eq!(once.next_after(ms("2030-01-01T12:00:00Z")), None);
}

#[test]
fn a_time_that_the_clock_skips_fires_once_at_the_jump() {
    // Berlin, 29 March 2026: 02:00 becomes 03:00, at 01:00 UTC.
    let daily = schedule("30 2 * * *", Dialect::Unix, "Europe/Berlin");
    assert_eq!(
        following(&daily, "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    // Several skipped times are one, and a time at the jump itself is not doubled.
    let often = schedule("0,15,30 2,3 * * *", Dialect::Unix, "Europe/Berlin");
    assert_eq!(
        following(&often, "2026-03-29T00:00:00Z", 4),
        ["2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:00:00Z"]
    );
    // Intervals go on as the clock reads.
    let hourly = schedule("30 * * * *", Dialect::Unix, "Europe/Berlin");
    assert_eq!(
        following(&hourly, "2026-03-29T00:00:00Z", 3),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"]
    );
}

#[test]
fn a_time_that_comes_twice_fires_the_first_time_only() {
    // Berlin, 25 October 2026: 03:00 becomes 02:00, at 01:00 UTC.
    let daily = schedule("30 2 * * *", Dialect::Unix, "Europe/Berlin");
    assert_eq!(
        following(&daily, "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    // Started between the two passes, it does not fire in the second.
    assert_eq!(utc(daily.next_after(ms("2026-10-25T00:45:00Z"))), "2026-10-26T01:30:00Z");
    let hourly = schedule("30 * * * *", Dialect::Unix, "Europe/Berlin");
    assert_eq!(
        following(&hourly, "2026-10-25T00:00:00Z", 3),
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
    );
    // Another hemisphere and a half-hour change: Lord Howe goes back by 30 minutes at 02:00 on 5 April 2026.
    let howe = schedule("45 1 * * *", Dialect::Unix, "Australia/Lord_Howe");
    assert_eq!(following(&howe, "2026-04-03T20:00:00Z", 2), ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
}

#[test]
fn missed_times_are_counted_and_the_newest_is_known() {
    let hourly = schedule("0 * * * *", Dialect::Unix, "UTC");
    let newest = hourly.newest_between(ms("2026-03-01T00:00:00Z"), ms("2026-03-01T05:30:00Z"), 100);
    assert_eq!(newest, Some((ms("2026-03-01T05:00:00Z"), 5)));
    assert_eq!(hourly.newest_between(ms("2026-03-01T00:00:00Z"), ms("2026-03-01T00:59:59Z"), 100), None);
}

#[test]
fn faults_name_the_field() {
    for (expression, dialect, zone, part) in [
        ("0 2 * *", Dialect::Unix, "UTC", "has 4 fields; type UNIX has 5"),
        ("0 2 * * *", Dialect::Quartz, "UTC", "has 5 fields; type QUARTZ has 6 or 7"),
        ("60 2 * * *", Dialect::Unix, "UTC", "`60` is not a minute; expected 0–59"),
        ("0 2 * FOO *", Dialect::Unix, "UTC", "`FOO` is not a month; expected 1–12 or JAN–DEC"),
        ("0/0 2 * * *", Dialect::Unix, "UTC", "`0` in the minute field"),
        ("0 0 12 1 * 2", Dialect::Quartz, "UTC", "both set"),
        ("0 0 31 2 *", Dialect::Unix, "UTC", "never comes"),
        ("0 0 * * *", Dialect::Unix, "Europe/Berln", "not a known time zone"),
    ] {
        let error = Schedule::new(expression, dialect, zone).unwrap_err();
        assert!(error.message.contains(part), "{expression}: {error:?}");
    }
    let error = Schedule::new("0 0 * * *", Dialect::Unix, "Europe/Berln").unwrap_err();
    assert_eq!(error.suggestion.as_deref(), Some("did you mean `Europe/Berlin`?"));
    assert!(error.zone);
}

proptest::proptest! {
    #[test]
    fn no_text_panics_and_the_next_time_is_later(text in "[0-9*/,LW#?A-Z -]{0,24}", from in 0_u64..4_000_000_000_000) {
        for dialect in [Dialect::Unix, Dialect::Quartz] {
            if let Ok(schedule) = Schedule::new(&text, dialect, "America/New_York")
                && let Some(next) = schedule.next_after(from)
            {
                proptest::prop_assert!(next > from);
            }
        }
    }
}
