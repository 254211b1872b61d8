//! From clocks on the wall to moments: gaps and repeated hours are decided here and nowhere else.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};

use crate::parse::RuleError;

/// From when until when something is open, in milliseconds since the epoch. The end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First moment.
    pub start_ms: u64,
    /// First moment after it; the largest number where there is no end.
    pub end_ms: u64,
}

/// The zone of this name, from the database in the build.
pub(crate) fn zone(name: &str) -> Result<TimeZone, RuleError> {
    if name.eq_ignore_ascii_case("utc") || name == "Z" {
        return Ok(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|_| RuleError::new(name, "is not a time zone: write one such as UTC or Europe/Berlin"))
}

/// The moment at which the clocks of a zone show this: the first where they show it twice, the end of the gap where never. `None` outside of the
/// years that are counted.
pub(crate) fn moment(zone: &TimeZone, shown: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    if let AmbiguousOffset::Gap { .. } = ambiguous.offset() {
        // With the offset before the gap the moment lies behind it; the change of offset that came last is the gap's end.
        let behind = ambiguous.compatible().ok()?;
        let after = behind.checked_add(1.nanosecond()).ok()?;
        return zone.preceding(after).next().map(|transition| transition.timestamp());
    }
    ambiguous.earlier().ok()
}

/// What the clocks of a zone show at a moment.
pub(crate) fn shown(zone: &TimeZone, at_ms: u64) -> Option<DateTime> {
    let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
    Some(zone.to_datetime(at))
}

/// Milliseconds since the epoch; `None` before it.
pub(crate) fn millis(at: Timestamp) -> Option<u64> {
    u64::try_from(at.as_millisecond()).ok()
}

pub(crate) fn days_between(from: Date, to: Date) -> i64 {
    to.duration_since(from).as_hours() / 24
}

/// The next moment at or after `now_ms` at which the clocks of a zone show `time`, such as `22:00`.
///
/// # Errors
/// What is no time of day, or no zone.
pub fn next_time_of_day(time: &str, zone_name: &str, now_ms: u64) -> Result<u64, RuleError> {
    let (zone, time) = (zone(zone_name)?, time_of_day(time)?);
    let out_of_range = || RuleError::new("now", "is not a moment that the calendar counts");
    let mut day = shown(&zone, now_ms).ok_or_else(out_of_range)?.date();
    for _ in 0..3 {
        if let Some(at) = moment(&zone, day.to_datetime(time)).and_then(millis).filter(|at| *at >= now_ms) {
            return Ok(at);
        }
        day = day.tomorrow().map_err(|_| out_of_range())?;
    }
    Err(out_of_range())
}

/// `HH:MM`; `24:00` is the midnight that ends a day.
pub(crate) fn time_of_day(text: &str) -> Result<Time, RuleError> {
    let bad = || RuleError::new(text, "is not a time of day: write it as 22:00");
    let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
    let part = |text: &str| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<i8>().map_err(|_| bad()) } else { Err(bad()) }
    };
    let (hour, minute) = (part(hour)?, part(minute)?);
    if (hour, minute) == (24, 0) {
        return Ok(Time::midnight());
    }
    Time::new(hour, minute, 0, 0).map_err(|_| bad())
}
