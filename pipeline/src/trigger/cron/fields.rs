//! The fields of a cron expression, and the next time that fits them.

use super::Dialect;
use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use std::collections::BTreeSet;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// What an expression allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    seconds: BTreeSet<i8>,
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    months: BTreeSet<i8>,
    /// `None`: any year.
    years: Option<BTreeSet<i16>>,
    days: Days,
    /// The hour was left open: the expression means intervals, not times of a day.
    pub(super) every_hour: bool,
}

/// Which days of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Days {
    by_month: Vec<MonthDay>,
    by_week: Vec<WeekDay>,
    /// Both are restricted, and either is enough (UNIX). With one of them open only the other counts.
    month_open: bool,
    week_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MonthDay {
    Day(i8),
    /// `L`, `L-3`: the last day of the month, or so many days before it.
    Last(i8),
    /// `15W`: the working day nearest to it, in the same month.
    Working(i8),
    /// `LW`: the last working day.
    LastWorking,
}

/// Weekdays count from Sunday, 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WeekDay {
    Day(i8),
    /// `6L`: the last one of the month.
    Last(i8),
    /// `6#3`: the third one of the month.
    Nth(i8, i8),
}

impl Fields {
    pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let (second, rest, year) = match (dialect, parts.as_slice()) {
            (Dialect::Unix, rest @ [_, _, _, _, _]) => ("0", rest, None),
            (Dialect::Quartz, [second, rest @ ..]) if rest.len() == 5 => (*second, rest, None),
            (Dialect::Quartz, [second, rest @ .., year]) if rest.len() == 5 => (*second, rest, Some(*year)),
            (Dialect::Unix, _) => {
                return Err(format!(
                    "`{text}` has {} fields; type UNIX has 5: minute hour day month weekday",
                    parts.len()
                ));
            }
            (Dialect::Quartz, _) => {
                return Err(format!(
                    "`{text}` has {} fields; type QUARTZ has 6 or 7: second minute hour day month weekday [year]",
                    parts.len()
                ));
            }
        };
        let [minute, hour, day, month, weekday] = rest else {
            return Err(format!("`{text}` is not a cron expression"));
        };
        let by_month = month_days(day)?;
        let by_week = week_days(weekday, dialect)?;
        let (month_open, week_open) = (by_month.is_none(), by_week.is_none());
        if dialect == Dialect::Quartz && !month_open && !week_open {
            return Err(format!(
                "in `{text}` day and weekday are both set; type QUARTZ wants `?` for one of them"
            ));
        }
        Ok(Fields {
            seconds: numbers("second", second, 0, 59, &[])?,
            minutes: numbers("minute", minute, 0, 59, &[])?,
            hours: numbers("hour", hour, 0, 23, &[])?,
            months: numbers("month", month, 1, 12, &MONTHS)?,
            years: match year {
                None | Some("*") => None,
                Some(year) => Some(numbers16("year", year, 1970, 2199, &[], 0)?),
            },
            days: Days {
                by_month: by_month.unwrap_or_default(),
                by_week: by_week.unwrap_or_default(),
                month_open,
                week_open,
            },
            every_hour: hour.starts_with('*'),
        })
    }

    /// The first fitting time at or after `from`, in years up to `last_year`.
    pub(super) fn next_from(&self, from: DateTime, last_year: i16) -> Option<DateTime> {
        let mut date = from.date();
        let mut first = true;
        while date.year() <= last_year {
            if let Some(years) = &self.years
                && !years.contains(&date.year())
            {
                let next = years.range(date.year()..).next().copied().filter(|next| *next <= last_year)?;
                date = Date::new(next, 1, 1).ok()?;
                first = false;
                continue;
            }
            if !self.months.contains(&date.month()) {
                date = date.first_of_month().checked_add(1.month()).ok()?;
                first = false;
                continue;
            }
            if self.days.fit(date) {
                let time = if first { self.time_from(from) } else { self.first_time() };
                if let Some((hour, minute, second)) = time {
                    return DateTime::new(date.year(), date.month(), date.day(), hour, minute, second, 0)
                        .ok();
                }
            }
            date = date.tomorrow().ok()?;
            first = false;
        }
        None
    }

    fn first_time(&self) -> Option<(i8, i8, i8)> {
        Some((*self.hours.first()?, *self.minutes.first()?, *self.seconds.first()?))
    }

    /// The first fitting time of the day at or after the time of `from`.
    fn time_from(&self, from: DateTime) -> Option<(i8, i8, i8)> {
        let (minute, second) = (*self.minutes.first()?, *self.seconds.first()?);
        for hour in self.hours.range(from.hour()..).copied() {
            if hour > from.hour() {
                return Some((hour, minute, second));
            }
            for minute in self.minutes.range(from.minute()..).copied() {
                if minute > from.minute() {
                    return Some((hour, minute, second));
                }
                if let Some(second) = self.seconds.range(from.second()..).next() {
                    return Some((hour, minute, *second));
                }
            }
        }
        None
    }
}

impl Days {
    fn fit(&self, date: Date) -> bool {
        let month = || self.by_month.iter().any(|day| day.fits(date));
        let week = || self.by_week.iter().any(|day| day.fits(date));
        match (self.month_open, self.week_open) {
            (true, true) => true,
            (false, true) => month(),
            (true, false) => week(),
            (false, false) => month() || week(),
        }
    }
}

impl MonthDay {
    fn fits(self, date: Date) -> bool {
        let length = date.days_in_month();
        match self {
            MonthDay::Day(day) => date.day() == day,
            MonthDay::Last(before) => date.day() == length - before,
            MonthDay::Working(day) => working(date, day.min(length)) == Some(date.day()),
            MonthDay::LastWorking => {
                let last = weekday(date.last_of_month());
                let back = match last {
                    0 => 2,
                    6 => 1,
                    _ => 0,
                };
                date.day() == length - back
            }
        }
    }
}

/// The working day of the month of `date` that is nearest to its day `day`.
fn working(date: Date, day: i8) -> Option<i8> {
    let target = Date::new(date.year(), date.month(), day).ok()?;
    let length = date.days_in_month();
    Some(match weekday(target) {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == length => day - 2,
        0 => day + 1,
        _ => day,
    })
}

impl WeekDay {
    fn fits(self, date: Date) -> bool {
        let today = weekday(date);
        match self {
            WeekDay::Day(day) => today == day,
            WeekDay::Last(day) => today == day && date.day() > date.days_in_month() - 7,
            WeekDay::Nth(day, nth) => today == day && (date.day() - 1) / 7 + 1 == nth,
        }
    }
}

/// Sunday is 0.
fn weekday(date: Date) -> i8 {
    date.weekday().to_sunday_zero_offset()
}

/// `None`: every day.
fn month_days(text: &str) -> Result<Option<Vec<MonthDay>>, String> {
    if matches!(text, "*" | "?") {
        return Ok(None);
    }
    let mut days = Vec::new();
    for part in text.split(',') {
        let upper = part.to_ascii_uppercase();
        let number = |text: &str| one("day", text, 1, 31, &[], 0).and_then(|n| small("day", n));
        if upper == "L" {
            days.push(MonthDay::Last(0));
        } else if upper == "LW" || upper == "WL" {
            days.push(MonthDay::LastWorking);
        } else if let Some(before) = upper.strip_prefix("L-") {
            days.push(MonthDay::Last(one("day", before, 0, 30, &[], 0).and_then(|n| small("day", n))?));
        } else if let Some(day) = upper.strip_suffix('W') {
            days.push(MonthDay::Working(number(day)?));
        } else {
            let set = numbers("day", part, 1, 31, &[])?;
            days.extend(set.into_iter().map(MonthDay::Day));
        }
    }
    Ok(Some(days))
}

/// `None`: every day. Numbers become those from Sunday, 0.
fn week_days(text: &str, dialect: Dialect) -> Result<Option<Vec<WeekDay>>, String> {
    if matches!(text, "*" | "?") {
        return Ok(None);
    }
    let (low, high, base) = match dialect {
        Dialect::Unix => (0, 7, 0),
        Dialect::Quartz => (1, 7, 1),
    };
    let plain = |number: i16| small("weekday", (number - base) % 7);
    let mut days = Vec::new();
    for part in text.split(',') {
        let upper = part.to_ascii_uppercase();
        if upper == "L" {
            days.push(WeekDay::Day(6));
        } else if let Some((day, nth)) = upper.split_once('#') {
            let nth = one("weekday", nth, 1, 5, &[], 0).and_then(|n| small("weekday", n))?;
            days.push(WeekDay::Nth(plain(one("weekday", day, low, high, &WEEKDAYS, base)?)?, nth));
        } else if let Some(day) = upper.strip_suffix('L') {
            days.push(WeekDay::Last(plain(one("weekday", day, low, high, &WEEKDAYS, base)?)?));
        } else {
            for number in numbers16("weekday", part, low, high, &WEEKDAYS, base)? {
                days.push(WeekDay::Day(plain(number)?));
            }
        }
    }
    Ok(Some(days))
}

fn numbers(what: &str, text: &str, low: i16, high: i16, names: &[&str]) -> Result<BTreeSet<i8>, String> {
    numbers16(what, text, low, high, names, low)?.into_iter().map(|number| small(what, number)).collect()
}

/// Lists, ranges and steps. `base` is the number of the first name.
fn numbers16(
    what: &str,
    text: &str,
    low: i16,
    high: i16,
    names: &[&str],
    base: i16,
) -> Result<BTreeSet<i16>, String> {
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let number = step.parse::<i16>().ok().filter(|step| *step > 0);
                let number = number.ok_or_else(|| {
                    format!("`{step}` in the {what} field `{text}` is not a step; expected a number from 1")
                })?;
                (range, Some(number))
            }
        };
        let (from, to) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (low, high),
            Some((from, to)) => {
                (one(what, from, low, high, names, base)?, one(what, to, low, high, names, base)?)
            }
            None => {
                let from = one(what, range, low, high, names, base)?;
                // `5/15` goes on from 5 to the end.
                (from, if step.is_some() { high } else { from })
            }
        };
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(1);
        if from > to {
            // A range over the end of the week or the day, as Quartz reads it. The UNIX dialect calls Sunday 0 and 7; it
            // is one day of the round.
            let last = if (low, high) == (0, 7) { 6 } else { high };
            all.extend((from..=last).chain(low..=to).step_by(step));
        } else {
            all.extend((from..=to).step_by(step));
        }
    }
    Ok(all)
}

/// One number or name.
fn one(what: &str, text: &str, low: i16, high: i16, names: &[&str], base: i16) -> Result<i16, String> {
    let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
    let number = match named {
        Some(at) => i16::try_from(at).ok().map(|at| at + base),
        None => text.parse::<i16>().ok(),
    };
    number.filter(|number| (low..=high).contains(number)).ok_or_else(|| {
        let or_names = match (names.first(), names.last()) {
            (Some(first), Some(last)) => format!(" or {first}–{last}"),
            _ => String::new(),
        };
        format!("`{text}` is not a {what}; expected {low}–{high}{or_names}")
    })
}

fn small(what: &str, number: i16) -> Result<i8, String> {
    i8::try_from(number).map_err(|_| format!("`{number}` is not a {what}"))
}
