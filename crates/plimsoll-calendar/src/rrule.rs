//! The part of RFC 5545's recurrence rules that is taken: FREQ DAILY, WEEKLY and MONTHLY with INTERVAL, COUNT, UNTIL, BYDAY, BYHOUR, BYMINUTE. Weeks begin on Monday.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time, Weekday, date};

use crate::clock::days_between;
use crate::parse::RuleError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RRule {
    freq: Freq,
    interval: i64,
    pub(crate) count: Option<u32>,
    pub(crate) until: Option<Until>,
    /// Ordinal (0 for every) and day.
    by_day: Vec<(i8, Weekday)>,
    by_hour: Vec<i8>,
    by_minute: Vec<i8>,
    /// What the rule is counted from; the epoch's first day where it names none.
    pub(crate) from: Option<DateTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freq {
    Daily,
    Weekly,
    Monthly,
}

/// The last moment or day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Moment(Timestamp),
    Day(Date),
}

const DAYS: [(&str, Weekday); 7] = [
    ("MO", Weekday::Monday),
    ("TU", Weekday::Tuesday),
    ("WE", Weekday::Wednesday),
    ("TH", Weekday::Thursday),
    ("FR", Weekday::Friday),
    ("SA", Weekday::Saturday),
    ("SU", Weekday::Sunday),
];
const EPOCH: Date = date(1970, 1, 1);

impl RRule {
    pub(crate) fn parse(text: &str, from: Option<DateTime>) -> Result<RRule, RuleError> {
        let mut freq = None;
        let mut rule = RRule {
            freq: Freq::Daily,
            interval: 1,
            count: None,
            until: None,
            by_day: Vec::new(),
            by_hour: Vec::new(),
            by_minute: Vec::new(),
            from,
        };
        let text = text.strip_prefix("RRULE:").unwrap_or(text);
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (key, value) =
                part.split_once('=').ok_or_else(|| RuleError::new(part, "has no value: write KEY=VALUE"))?;
            match key.to_ascii_uppercase().as_str() {
                "FREQ" => freq = Some(frequency(value)?),
                "INTERVAL" => rule.interval = number(part, value, 1, 1_000)?,
                "COUNT" => rule.count = Some(number(part, value, 1, 10_000)?),
                "UNTIL" => rule.until = Some(until(value)?),
                "BYDAY" => rule.by_day = list(value, |day| by_day(part, day))?,
                "BYHOUR" => rule.by_hour = sorted(list(value, |hour| number(part, hour, 0, 23))?),
                "BYMINUTE" => rule.by_minute = sorted(list(value, |minute| number(part, minute, 0, 59))?),
                "WKST" if value.eq_ignore_ascii_case("MO") => {}
                _ => {
                    let taken = "FREQ, INTERVAL, COUNT, UNTIL, BYDAY, BYHOUR and BYMINUTE are";
                    return Err(RuleError::new(part, format!("is not taken: {taken}")));
                }
            }
        }
        rule.freq = freq.ok_or_else(|| {
            RuleError::new(text, "names no frequency: begin with FREQ=DAILY, WEEKLY or MONTHLY")
        })?;
        rule.check(text)?;
        Ok(rule)
    }

    fn check(&self, text: &str) -> Result<(), RuleError> {
        if self.freq != Freq::Monthly && self.by_day.iter().any(|(nth, _)| *nth != 0) {
            return Err(RuleError::new(text, "counts days such as 1MO, which only FREQ=MONTHLY does"));
        }
        if self.count.is_some() && self.until.is_some() {
            return Err(RuleError::new(text, "has both COUNT and UNTIL: leave one out"));
        }
        let counted = self.interval > 1 || self.count.is_some();
        let needs_day = self.freq != Freq::Daily && self.by_day.is_empty();
        if self.from.is_none() && (counted || needs_day) {
            return Err(RuleError::new(text, "is counted from a day: add from 2026-11-02"));
        }
        Ok(())
    }

    /// The first day on which it can open.
    pub(crate) fn first_day(&self) -> Date {
        self.from.map_or(EPOCH, DateTime::date)
    }

    /// The times of a day at which it opens, ascending; none on days that it leaves out.
    pub(crate) fn times_on(&self, day: Date) -> Vec<Time> {
        if day < self.first_day() || !self.opens_on(day) {
            return Vec::new();
        }
        let from = self.from.map_or(Time::midnight(), DateTime::time);
        let or_own = |given: &[i8], own: i8| if given.is_empty() { vec![own] } else { given.to_vec() };
        let mut times = Vec::new();
        for hour in or_own(&self.by_hour, from.hour()) {
            for minute in or_own(&self.by_minute, from.minute()) {
                if let Ok(time) = Time::new(hour, minute, from.second(), 0) {
                    let before = self.from.is_some_and(|from| day.to_datetime(time) < from);
                    times.extend((!before).then_some(time));
                }
            }
        }
        times
    }

    fn opens_on(&self, day: Date) -> bool {
        let first = self.first_day();
        let of_week = || {
            if self.by_day.is_empty() {
                self.freq == Freq::Daily || day.weekday() == first.weekday()
            } else {
                self.by_day.iter().any(|(_, wanted)| *wanted == day.weekday())
            }
        };
        let apart = match self.freq {
            Freq::Daily => days_between(first, day),
            Freq::Weekly => (days_between(monday(first), day)).div_euclid(7),
            Freq::Monthly => {
                i64::from(day.year() - first.year()) * 12 + i64::from(day.month()) - i64::from(first.month())
            }
        };
        if apart.rem_euclid(self.interval) != 0 {
            return false;
        }
        match self.freq {
            Freq::Daily | Freq::Weekly => of_week(),
            Freq::Monthly if self.by_day.is_empty() => day.day() == first.day(),
            Freq::Monthly => self.by_day.iter().any(|(nth, wanted)| {
                let from_start = (day.day() - 1) / 7 + 1;
                let from_end = -((day.days_in_month() - day.day()) / 7 + 1);
                *wanted == day.weekday() && (*nth == 0 || *nth == from_start || *nth == from_end)
            }),
        }
    }
}

fn monday(day: Date) -> Date {
    let back = i64::from(day.weekday().to_monday_zero_offset());
    day.checked_sub(jiff::Span::new().days(back)).unwrap_or(day)
}

fn frequency(value: &str) -> Result<Freq, RuleError> {
    match value.to_ascii_uppercase().as_str() {
        "DAILY" => Ok(Freq::Daily),
        "WEEKLY" => Ok(Freq::Weekly),
        "MONTHLY" => Ok(Freq::Monthly),
        _ => Err(RuleError::new(value, "is not taken: write FREQ=DAILY, WEEKLY or MONTHLY")),
    }
}

fn number<N: TryFrom<i64>>(part: &str, value: &str, least: i64, most: i64) -> Result<N, RuleError> {
    let bad = || RuleError::new(part, format!("is not a number from {least} to {most}"));
    let number = value.parse::<i64>().map_err(|_| bad())?;
    let number = if (least..=most).contains(&number) { number } else { return Err(bad()) };
    N::try_from(number).map_err(|_| bad())
}

fn list<T>(value: &str, read: impl Fn(&str) -> Result<T, RuleError>) -> Result<Vec<T>, RuleError> {
    value.split(',').map(read).collect()
}

fn sorted(mut numbers: Vec<i8>) -> Vec<i8> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn by_day(part: &str, text: &str) -> Result<(i8, Weekday), RuleError> {
    let bad = || RuleError::new(part, "names days as MO, TU, WE, TH, FR, SA, SU, 1MO or -1FR");
    let upper = text.to_ascii_uppercase();
    let split = upper.len().checked_sub(2).filter(|at| upper.is_char_boundary(*at)).ok_or_else(bad)?;
    let (nth, name) = upper.split_at(split);
    let (_, day) = DAYS.iter().find(|(known, _)| *known == name).ok_or_else(bad)?;
    let nth = if nth.is_empty() { 0 } else { nth.parse::<i8>().map_err(|_| bad())? };
    if nth.abs() > 5 || (nth == 0 && split > 0) { Err(bad()) } else { Ok((nth, *day)) }
}

/// `20261231`, `2026-12-31`, `20261231T235900Z` or `2026-12-31T23:59:00Z`.
fn until(value: &str) -> Result<Until, RuleError> {
    if let Ok(moment) = value.parse::<Timestamp>() {
        return Ok(Until::Moment(moment));
    }
    let bad = |_| RuleError::new(value, "is not an end: write UNTIL=20261231 or UNTIL=20261231T235900Z");
    value.parse::<Date>().map(Until::Day).map_err(bad)
}

impl fmt::Display for RRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.freq {
            Freq::Daily => "FREQ=DAILY",
            Freq::Weekly => "FREQ=WEEKLY",
            Freq::Monthly => "FREQ=MONTHLY",
        })?;
        if self.interval > 1 {
            write!(f, ";INTERVAL={}", self.interval)?;
        }
        if let Some(count) = self.count {
            write!(f, ";COUNT={count}")?;
        }
        match self.until {
            None => {}
            Some(Until::Moment(moment)) => write!(f, ";UNTIL={}", moment.strftime("%Y%m%dT%H%M%SZ"))?,
            Some(Until::Day(day)) => write!(f, ";UNTIL={}", day.strftime("%Y%m%d"))?,
        }
        let days = self.by_day.iter().map(|(nth, wanted)| {
            let name = DAYS.iter().find(|(_, day)| day == wanted).map_or("", |(name, _)| name);
            if *nth == 0 { name.to_owned() } else { format!("{nth}{name}") }
        });
        let lists = [
            ("BYDAY", days.collect::<Vec<_>>()),
            ("BYHOUR", self.by_hour.iter().map(ToString::to_string).collect()),
            ("BYMINUTE", self.by_minute.iter().map(ToString::to_string).collect()),
        ];
        for (key, values) in lists.iter().filter(|(_, values)| !values.is_empty()) {
            write!(f, ";{key}={}", values.join(","))?;
        }
        Ok(())
    }
}
