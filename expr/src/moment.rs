//! Dates and times of the `datetime` functor. UTC only, no clock: the context says what time it is.

use crate::value::Value;
use std::fmt;

const DAY_MS: i64 = 86_400_000;
const NANOS_PER_MS: i64 = 1_000_000;

/// How a moment prints and which methods it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `datetime.currentDate()` and `currentDate`: `yyyy-MM-dd`.
    Date,
    /// `datetime.currentTime()`: `yyyy-MM-dd'T'HH:mm:ss.SSS+0000`.
    Time,
    /// `currentTime` (rule R15): RFC 3339 with `Z`.
    Rfc3339,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Epoch milliseconds; may be negative.
    pub millis: i64,
    /// Nanoseconds within the millisecond, 0..1_000_000. They matter only to `.plusNanos`.
    pub nanos: u32,
    /// How it prints.
    pub style: Style,
}

/// Units that `.plusX(n)` adds.
fn unit_ms(name: &str) -> Option<i64> {
    Some(match name {
        "plusWeeks" => 7 * DAY_MS,
        "plusDays" => DAY_MS,
        "plusHours" => 3_600_000,
        "plusMinutes" => 60_000,
        "plusSeconds" => 1_000,
        _ => return None,
    })
}

impl Moment {
    /// `millis` after the epoch, printed in `style`.
    pub fn new(millis: i64, style: Style) -> Self {
        Moment { millis, nanos: 0, style }
    }

    /// `.plusDays(n)` and its kin. `None`: this kind of moment has no such method.
    pub(crate) fn plus(&self, method: &str, n: i64) -> Option<Result<Moment, String>> {
        let date_only = self.style == Style::Date;
        if date_only && !matches!(method, "plusYears" | "plusMonths" | "plusWeeks" | "plusDays") {
            return None;
        }
        let moved = match method {
            "plusYears" => n.checked_mul(12).and_then(|months| self.plus_months(months)),
            "plusMonths" => self.plus_months(n),
            "plusNanos" => {
                let nanos = n.rem_euclid(NANOS_PER_MS) + i64::from(self.nanos);
                let millis = self.millis.checked_add(n.div_euclid(NANOS_PER_MS) + nanos / NANOS_PER_MS);
                millis.map(|millis| Moment {
                    millis,
                    nanos: u32::try_from(nanos % NANOS_PER_MS).unwrap_or(0),
                    ..*self
                })
            }
            other => {
                let unit = unit_ms(other)?;
                n.checked_mul(unit)
                    .and_then(|d| self.millis.checked_add(d))
                    .map(|millis| Moment { millis, ..*self })
            }
        };
        // Years beyond four digits would not print in the documented format.
        Some(
            moved
                .filter(|m| (0..=9999).contains(&civil(m.millis.div_euclid(DAY_MS)).0))
                .ok_or_else(|| format!("{method}({n}) leaves the years 0 to 9999")),
        )
    }

    fn plus_months(&self, n: i64) -> Option<Moment> {
        let (year, month, day) = civil(self.millis.div_euclid(DAY_MS));
        let months = year.checked_mul(12)?.checked_add(month - 1)?.checked_add(n)?;
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        if !(0..=9999).contains(&year) {
            return None;
        }
        let day = day.min(days_in_month(year, month));
        let millis = days_from_civil(year, month, day).checked_mul(DAY_MS)?;
        Some(Moment { millis: millis.checked_add(self.millis.rem_euclid(DAY_MS))?, ..*self })
    }

    /// `.dayOfWeek`, `.year`, `.month`, `.dayOfMonth`, `.hour`.
    pub(crate) fn property(&self, name: &str) -> Option<Value> {
        const NAMES: [&str; 7] =
            ["THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY"];
        let days = self.millis.div_euclid(DAY_MS);
        let (year, month, day) = civil(days);
        Some(match name {
            "dayOfWeek" => {
                let at = usize::try_from(days.rem_euclid(7)).unwrap_or(0);
                Value::text(*NAMES.get(at)?)
            }
            "year" => Value::Int(year),
            "month" => Value::Int(month),
            "dayOfMonth" => Value::Int(day),
            "hour" => Value::Int(self.millis.rem_euclid(DAY_MS) / 3_600_000),
            _ => return None,
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.millis.div_euclid(DAY_MS));
        write!(f, "{year:04}-{month:02}-{day:02}")?;
        if self.style == Style::Date {
            return Ok(());
        }
        let ms = self.millis.rem_euclid(DAY_MS);
        let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        let zone = if self.style == Style::Time { "+0000" } else { "Z" };
        write!(f, "T{h:02}:{m:02}:{s:02}.{:03}{zone}", ms % 1_000)
    }
}

/// Year, month, day of a day number from 1970-01-01 (proleptic Gregorian), by counting from 1 March so that the leap
/// day ends a year.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_goes_there_and_back_over_leap_years() {
        for days in (-200_000..200_000).step_by(97) {
            let (y, m, d) = civil(days);
            assert_eq!(days_from_civil(y, m, d), days);
            assert!((1..=12).contains(&m) && d >= 1 && d <= days_in_month(y, m));
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_849), (2024, 5, 6));
    }

    #[test]
    fn adding_months_keeps_the_day_where_the_month_has_it() {
        let at = Moment::new(days_from_civil(2024, 1, 31) * DAY_MS, Style::Date);
        assert_eq!(at.plus("plusMonths", 1).unwrap().unwrap().to_string(), "2024-02-29");
        assert_eq!(at.plus("plusYears", 1).unwrap().unwrap().to_string(), "2025-01-31");
        assert_eq!(at.plus("plusMonths", -11).unwrap().unwrap().to_string(), "2023-02-28");
        assert!(at.plus("plusHours", 1).is_none());
        assert!(at.plus("plusYears", i64::MAX).unwrap().is_err());
        let time = Moment::new(0, Style::Time);
        assert_eq!(
            time.plus("plusNanos", 2_500_000).unwrap().unwrap().to_string(),
            "1970-01-01T00:00:00.002+0000"
        );
        assert_eq!(time.plus("plusNanos", -1).unwrap().unwrap().millis, -1);
    }
}
