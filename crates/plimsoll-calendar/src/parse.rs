//! A rule's text to a [`Recurrence`].

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

use crate::clock::{millis, moment, time_of_day, zone};
use crate::days::Days;
use crate::recurrence::{Kind, Recurrence};
use crate::rrule::RRule;
use crate::words::parse_duration_ms;

/// What is wrong with a rule, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} {problem}")]
pub struct RuleError {
    /// The part of the rule that is wrong.
    pub word: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl RuleError {
    pub(crate) fn new(word: &str, problem: impl Into<String>) -> RuleError {
        RuleError { word: word.to_owned(), problem: problem.into() }
    }
}

/// Most days that a rule may except.
const MOST_EXCEPTIONS: usize = 100;
/// Longest time that one window lasts.
const MOST_MS: u64 = 366 * 86_400_000;

pub(crate) fn parse(text: &str) -> Result<Recurrence, RuleError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (first, rest) = words
        .split_first()
        .ok_or_else(|| RuleError::new("", "is no rule: write one such as 22:00-06:00 UTC or always"))?;
    match *first {
        "always" => match rest.first() {
            None => Ok(Recurrence::new(Kind::Always, "UTC", BTreeSet::new())?),
            Some(word) => Err(RuleError::new(word, "says nothing after always: leave it out")),
        },
        "at" => once(rest),
        "rrule" => rule(rest),
        times => daily(times, rest),
    }
}

/// What may follow in any order: `for`, `from`, `except`, days and one zone.
#[derive(Default)]
struct Tail<'a> {
    length_ms: Option<u64>,
    from: Option<DateTime>,
    except: BTreeSet<Date>,
    days: Option<Days>,
    zone: Option<&'a str>,
}

fn tail<'a>(words: &[&'a str], may: &[&str]) -> Result<Tail<'a>, RuleError> {
    let mut tail = Tail::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if ["for", "from", "except"].contains(word) {
            if !may.contains(word) {
                return Err(RuleError::new(word, "has no meaning in a rule of this kind: leave it out"));
            }
            let value = words.next().ok_or_else(|| RuleError::new(word, "has nothing after it"))?;
            match *word {
                "for" => tail.length_ms = Some(length(value)?),
                "from" => tail.from = Some(day_or_moment(value)?),
                _ => tail.except = exceptions(value)?,
            }
        } else if may.contains(&"days") && tail.zone.is_some() && tail.days.is_none() {
            tail.days = Some(Days::parse(word)?);
        } else if tail.zone.is_none() {
            zone(word)?;
            tail.zone = Some(word);
        } else {
            return Err(RuleError::new(word, "is one word too many"));
        }
    }
    Ok(tail)
}

fn daily(times: &str, rest: &[&str]) -> Result<Recurrence, RuleError> {
    let (start, end) = times.split_once('-').ok_or_else(|| {
        RuleError::new(times, "is not a window: write 22:00-06:00 UTC, always, rrule ... or at ...")
    })?;
    let (start, end) = (time_of_day(start)?, time_of_day(end)?);
    let tail = tail(rest, &["days", "except"])?;
    let zone =
        tail.zone.ok_or_else(|| RuleError::new(times, format!("names no time zone: write {times} UTC")))?;
    Recurrence::new(Kind::Daily { start, end, days: tail.days.unwrap_or(Days::ALL) }, zone, tail.except)
}

fn rule(rest: &[&str]) -> Result<Recurrence, RuleError> {
    let example = "rrule FREQ=WEEKLY;BYDAY=SA;BYHOUR=22 for 8h UTC";
    let (text, rest) = rest
        .split_first()
        .ok_or_else(|| RuleError::new("rrule", format!("names no rule: write {example}")))?;
    let tail = tail(rest, &["for", "from", "except"])?;
    let length_ms = tail
        .length_ms
        .ok_or_else(|| RuleError::new(text, format!("says not for how long: write {example}")))?;
    let zone =
        tail.zone.ok_or_else(|| RuleError::new(text, format!("names no time zone: write {example}")))?;
    let rule = RRule::parse(text, tail.from)?;
    Recurrence::new(Kind::Rule { rule: Box::new(rule), length_ms }, zone, tail.except)
}

fn once(rest: &[&str]) -> Result<Recurrence, RuleError> {
    let example = "at 2026-12-24T18:00:00Z for 8h";
    let (text, rest) = rest
        .split_first()
        .ok_or_else(|| RuleError::new("at", format!("names no moment: write {example}")))?;
    let tail = tail(rest, &["for"])?;
    let length_ms = tail
        .length_ms
        .ok_or_else(|| RuleError::new(text, format!("says not for how long: write {example}")))?;
    let bad = |why: &str| RuleError::new(text, format!("{why}: write {example}"));
    let at = match (text.parse::<Timestamp>(), tail.zone) {
        (Ok(at), _) => at,
        (Err(_), Some(name)) => {
            let shown: DateTime = text.parse().map_err(|_| bad("is not a moment"))?;
            moment(&zone(name)?, shown).ok_or_else(|| bad("is not a moment that the calendar counts"))?
        }
        (Err(_), None) => return Err(bad("is not a moment, or names no time zone")),
    };
    let at_ms = millis(at).ok_or_else(|| bad("is before 1970"))?;
    Recurrence::new(Kind::Once { at_ms, length_ms }, "UTC", BTreeSet::new())
}

fn length(text: &str) -> Result<u64, RuleError> {
    let length_ms = parse_duration_ms(text)?;
    if length_ms > MOST_MS { Err(RuleError::new(text, "is longer than 366d")) } else { Ok(length_ms) }
}

/// `2026-11-02` or `2026-11-02T22:00`.
fn day_or_moment(text: &str) -> Result<DateTime, RuleError> {
    let bad = || RuleError::new(text, "is not a day: write it as 2026-11-02 or 2026-11-02T22:00");
    text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(DateTime::from)).map_err(|_| bad())
}

fn exceptions(text: &str) -> Result<BTreeSet<Date>, RuleError> {
    let day = |text: &str| {
        text.parse::<Date>().map_err(|_| RuleError::new(text, "is not a day: write it as 2026-12-24"))
    };
    let days: BTreeSet<Date> = text.split(',').map(day).collect::<Result<_, _>>()?;
    if days.len() > MOST_EXCEPTIONS {
        return Err(RuleError::new(
            "except",
            format!("names {} days, {MOST_EXCEPTIONS} are taken", days.len()),
        ));
    }
    Ok(days)
}
