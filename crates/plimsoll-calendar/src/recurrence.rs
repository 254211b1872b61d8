//! The rule, and the windows that it opens.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::clock::{Window, millis, moment, shown, zone};
use crate::days::Days;
use crate::parse::{RuleError, parse};
use crate::rrule::{RRule, Until};
use crate::words::duration_text;

/// A rule that opens windows. Its text form, by `FromStr` and `Display`, is described at the head of the crate.
#[derive(Clone, Debug)]
pub struct Recurrence {
    kind: Kind,
    zone: TimeZone,
    zone_name: String,
    except: BTreeSet<Date>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Always,
    Daily { start: Time, end: Time, days: Days },
    Rule { rule: Box<RRule>, length_ms: u64 },
    Once { at_ms: u64, length_ms: u64 },
}

/// Days looked at in one call, so that a rule that never opens ends.
const MOST_DAYS: usize = 40_000;

impl Recurrence {
    pub(crate) fn new(kind: Kind, zone_name: &str, except: BTreeSet<Date>) -> Result<Recurrence, RuleError> {
        Ok(Recurrence { kind, zone: zone(zone_name)?, zone_name: zone_name.to_owned(), except })
    }

    /// True where it opens once, for ever.
    pub fn is_always(&self) -> bool {
        self.kind == Kind::Always
    }

    /// Windows that are open at or after `after_ms` and start before `before_ms`, ascending, at most `limit`. Those that touch or overlap are one where
    /// one begins before another ends. O(days in between), and O(days since its start) for a rule with COUNT.
    pub fn occurrences(&self, after_ms: u64, before_ms: u64, limit: usize) -> Vec<Window> {
        let mut found: Vec<Window> = Vec::new();
        match &self.kind {
            Kind::Always => found.push(Window { start_ms: 0, end_ms: u64::MAX }),
            Kind::Once { at_ms, length_ms } => {
                let window = Window { start_ms: *at_ms, end_ms: at_ms.saturating_add(*length_ms) };
                if window.end_ms > after_ms && window.start_ms < before_ms {
                    found.push(window);
                }
            }
            Kind::Daily { .. } | Kind::Rule { .. } => self.walk(after_ms, before_ms, limit, &mut found),
        }
        found.truncate(limit);
        found
    }

    /// Day by day, from the first whose windows may still be open.
    fn walk(&self, after_ms: u64, before_ms: u64, limit: usize, found: &mut Vec<Window>) {
        let (longest_ms, first, mut left) = match &self.kind {
            Kind::Rule { rule, length_ms } => (*length_ms, Some(rule.first_day()), rule.count),
            _ => (86_400_000, None, None),
        };
        let reach_ms = longest_ms.saturating_add(2 * 86_400_000);
        let Some(near) = shown(&self.zone, after_ms.saturating_sub(reach_ms)).map(DateTime::date) else {
            return;
        };
        // What is counted is counted from its first day on.
        let mut day = match (first, left) {
            (Some(first), Some(_)) => first,
            (Some(first), None) => first.max(near),
            (None, _) => near,
        };
        for _ in 0..MOST_DAYS {
            for window in self.windows_on(day) {
                let Some(window) = window else { continue };
                if left == Some(0) || window.start_ms >= before_ms {
                    return;
                }
                left = left.map(|left| left - 1);
                if window.end_ms <= after_ms || self.except.contains(&day) {
                    continue;
                }
                let enough = found.len() > limit;
                match found.last_mut() {
                    Some(last) if window.start_ms < last.end_ms => {
                        last.end_ms = last.end_ms.max(window.end_ms)
                    }
                    _ if enough => return,
                    _ => found.push(window),
                }
            }
            match day.tomorrow() {
                Ok(next) => day = next,
                Err(_) => return,
            }
            if self.is_past(day) {
                return;
            }
        }
    }

    /// True where nothing opens from this day on.
    fn is_past(&self, day: Date) -> bool {
        match &self.kind {
            Kind::Rule { rule, .. } => match rule.until {
                Some(Until::Day(last)) => day > last,
                Some(Until::Moment(last)) => day > self.zone.to_datetime(last).date(),
                None => false,
            },
            _ => false,
        }
    }

    /// The windows that start on a day; `None` for one that the clocks have no room for.
    fn windows_on(&self, day: Date) -> Vec<Option<Window>> {
        match &self.kind {
            Kind::Daily { start, end, days } if days.has(day.weekday()) => {
                let last = if end > start { Some(day) } else { day.tomorrow().ok() };
                let end = last.and_then(|last| self.at(last, *end));
                let window = self.at(day, *start).zip(end);
                vec![window.and_then(|(start, end)| (start < end).then(|| between(start, end)).flatten())]
            }
            Kind::Rule { rule, length_ms } => {
                let opens = |time: Time| {
                    let start = self.at(day, time)?;
                    let late = match rule.until {
                        Some(Until::Moment(last)) => start > last,
                        Some(Until::Day(last)) => day > last,
                        None => false,
                    };
                    let start_ms = millis(start).filter(|_| !late)?;
                    Some(Window { start_ms, end_ms: start_ms.saturating_add(*length_ms) })
                };
                rule.times_on(day).into_iter().map(opens).collect()
            }
            _ => Vec::new(),
        }
    }

    fn at(&self, day: Date, time: Time) -> Option<Timestamp> {
        moment(&self.zone, day.to_datetime(time))
    }
}

fn between(start: Timestamp, end: Timestamp) -> Option<Window> {
    Some(Window { start_ms: millis(start)?, end_ms: millis(end)? })
}

impl FromStr for Recurrence {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Recurrence, RuleError> {
        parse(text)
    }
}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Always => f.write_str("always")?,
            Kind::Daily { start, end, days } => {
                let clock = |time: &Time| format!("{:02}:{:02}", time.hour(), time.minute());
                write!(f, "{}-{} {}", clock(start), clock(end), self.zone_name)?;
                if *days != Days::ALL {
                    write!(f, " {days}")?;
                }
            }
            Kind::Rule { rule, length_ms } => {
                write!(f, "rrule {rule} for {}", duration_text(*length_ms))?;
                if let Some(from) = rule.from {
                    if from.time() == Time::midnight() {
                        write!(f, " from {}", from.date())?;
                    } else {
                        write!(f, " from {from}")?;
                    }
                }
                write!(f, " {}", self.zone_name)?;
            }
            Kind::Once { at_ms, length_ms } => {
                let at = i64::try_from(*at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
                write!(f, "at {} for {}", at.unwrap_or_default(), duration_text(*length_ms))?;
            }
        }
        if !self.except.is_empty() {
            let days: Vec<String> = self.except.iter().map(ToString::to_string).collect();
            write!(f, " except {}", days.join(","))?;
        }
        Ok(())
    }
}

impl PartialEq for Recurrence {
    /// Equal words: zones that happen to keep the same time are still two.
    fn eq(&self, other: &Recurrence) -> bool {
        self.kind == other.kind && self.zone_name == other.zone_name && self.except == other.except
    }
}

impl Eq for Recurrence {}
