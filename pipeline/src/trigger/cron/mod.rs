//! Schedules: a cron expression in a time zone.
//!
//! **Changes of the clock.** A schedule whose hour is `*` (or `*/n`) means intervals: it fires whenever the wall clock
//! reads a fitting time, so in both passes of an hour that comes twice. A schedule with hours of its own means times of
//! a day: one that the clock skips fires once, when the clock jumps; one that comes twice fires the first time only.
//!
//! Zone data is compiled in, so every machine and every test knows the same rules.

mod fields;
#[cfg(test)]
mod tests;

use fields::Fields;
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// How far a schedule is followed before it counts as one that never fires.
const HORIZON_YEARS: i16 = 100;

/// How an expression is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `minute hour day month weekday`; weekdays 0–7, Sunday is 0 and 7; a restricted day and weekday are alternatives.
    Unix,
    /// `second minute hour day month weekday [year]`; weekdays 1–7, Sunday is 1; one of day and weekday is `?`.
    Quartz,
}

/// Why a schedule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    /// What is wrong and what was expected.
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
    /// The zone is meant, not the expression.
    pub zone: bool,
}

impl CronError {
    fn expression(message: impl Into<String>) -> Self {
        CronError { message: message.into(), suggestion: None, zone: false }
    }
}

/// A schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    expression: String,
    zone_name: String,
    fields: Fields,
    zone: TimeZone,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        // The dialects differ in the number of fields only where they differ in meaning, so the fields decide.
        (&self.fields, &self.zone_name) == (&other.fields, &other.zone_name)
    }
}

impl Schedule {
    /// Reads an expression and an IANA name of a zone such as `Europe/Berlin`.
    ///
    /// **Errors**: which field is wrong and what it may hold; an unknown zone with the nearest known one; an expression
    /// that never fires.
    pub fn new(expression: &str, dialect: Dialect, zone: &str) -> Result<Self, CronError> {
        let fields = Fields::parse(expression, dialect).map_err(CronError::expression)?;
        let zones = TimeZoneDatabase::bundled();
        let Ok(found) = zones.get(zone.trim()) else {
            let known: Vec<String> = zones.available().map(|name| name.to_string()).collect();
            let near = crate::fault::did_you_mean(zone, known.iter().map(String::as_str));
            let message = format!("`{zone}` is not a known time zone; expected an IANA name");
            return Err(CronError {
                message,
                suggestion: near.or_else(|| Some("for example Europe/Berlin or UTC".to_owned())),
                zone: true,
            });
        };
        let schedule = Schedule {
            expression: expression.trim().to_owned(),
            zone_name: zone.trim().to_owned(),
            fields,
            zone: found,
        };
        // Any start will do: what fires at all fires again within the horizon.
        if schedule.next_after(0).is_none() && schedule.next_after(1_700_000_000_000).is_none() {
            return Err(CronError::expression(format!("`{expression}` names a time that never comes")));
        }
        Ok(schedule)
    }

    /// The expression as written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone as written.
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// The first time after `after`; both are epoch milliseconds. `None`: never again.
    ///
    /// Pure: the same expression, zone and time always give the same answer.
    pub fn next_after(&self, after: u64) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(after).ok()?).ok()?;
        // Fires at whole seconds only: the first candidate is the next one.
        let mut from = Timestamp::from_second(after.as_second() + 1).ok()?;
        let last_year = self.zone.to_datetime(after).year().saturating_add(HORIZON_YEARS);
        loop {
            // One stretch of constant offset at a time.
            let offset = self.zone.to_offset(from);
            let change = self.zone.following(from).next();
            let civil = self.fields.next_from(offset.to_datetime(from), last_year);
            let at = civil.and_then(|civil| offset.to_timestamp(civil).ok());
            let end = change.as_ref().map(|change| change.timestamp());
            if let Some(at) = at
                && end.is_none_or(|end| at < end)
            {
                if self.comes_again(at) {
                    from = Timestamp::from_second(at.as_second() + 1).ok()?;
                    continue;
                }
                return u64::try_from(at.as_millisecond()).ok();
            }
            let (change, end) = (change?, end?);
            if offset.to_datetime(end).year() > last_year {
                return None;
            }
            // A jump forward: a time of day within it fires at the jump.
            let (before, behind) = (offset.to_datetime(end), change.offset().to_datetime(end));
            if !self.fields.every_hour
                && behind > before
                && civil.is_some_and(|civil| before <= civil && civil < behind)
            {
                return u64::try_from(end.as_millisecond()).ok();
            }
            from = end;
        }
    }

    /// The newest time after `after` and not after `until`, and how many there are (counted up to `limit`).
    pub fn newest_between(&self, after: u64, until: u64, limit: usize) -> Option<(u64, usize)> {
        let mut found = None;
        let mut at = after;
        for count in 1.. {
            match self.next_after(at) {
                Some(next) if next <= until => {
                    at = next;
                    found = Some((next, count));
                    if count >= limit {
                        break;
                    }
                }
                _ => break,
            }
        }
        found
    }

    /// Whether this wall-clock time was read before, an offset ago, and the schedule means times of a day.
    fn comes_again(&self, at: Timestamp) -> bool {
        if self.fields.every_hour {
            return false;
        }
        let civil = self.zone.to_datetime(at);
        let earliest = self.zone.to_ambiguous_timestamp(civil).earlier();
        earliest.is_ok_and(|earliest| earliest < at)
    }
}
