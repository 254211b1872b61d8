//! Windows of rules, worked out by hand, and against a plain walk over every minute.

use plimsoll_calendar::{Recurrence, Window, next_time_of_day};
use proptest::prelude::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn at(text: &str) -> u64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond().try_into().unwrap()
}

/// Windows of a rule as text, from a moment on.
fn windows(rule: &str, after: &str, limit: usize) -> Vec<(String, String)> {
    let rule: Recurrence = rule.parse().unwrap();
    let text = |ms: u64| jiff::Timestamp::from_millisecond(ms.try_into().unwrap()).unwrap().to_string();
    let found = rule.occurrences(at(after), at(after) + 400 * DAY_MS, limit);
    found.into_iter().map(|window| (text(window.start_ms), text(window.end_ms))).collect()
}

fn first(rule: &str, after: &str) -> (String, String) {
    windows(rule, after, 1).remove(0)
}

#[test]
fn a_window_over_midnight_is_as_long_as_the_clocks_make_it() {
    // The night in which Berlin's clocks go forward, the one in which they go back, and one between.
    for (after, start, end) in [
        ("2026-03-28T12:00:00Z", "2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z"),
        ("2026-10-24T12:00:00Z", "2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z"),
        ("2026-07-01T12:00:00Z", "2026-07-01T20:00:00Z", "2026-07-02T04:00:00Z"),
    ] {
        assert_eq!(first("22:00-06:00 Europe/Berlin", after), (start.to_owned(), end.to_owned()));
    }
}

#[test]
fn a_time_that_is_skipped_is_the_end_of_the_gap_and_one_shown_twice_is_the_first() {
    for (rule, after, start) in [
        // 2:30 does not exist: clocks go from 2:00 to 3:00, which is 1:00 UTC.
        ("02:30-05:00 Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        ("02:30-05:00 America/New_York", "2026-03-07T12:00:00Z", "2026-03-08T07:00:00Z"),
        // Lord Howe moves by half an hour: 2:00 to 2:30.
        ("02:10-05:00 Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z"),
        // Shown twice.
        ("02:30-05:00 Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
        ("01:30-05:00 America/New_York", "2026-10-31T12:00:00Z", "2026-11-01T05:30:00Z"),
        ("01:45-05:00 Australia/Lord_Howe", "2026-04-04T12:00:00Z", "2026-04-04T14:45:00Z"),
    ] {
        assert_eq!(first(rule, after).0, start, "{rule}");
    }
    // A window that lies in the gap altogether does not open; the next day it does.
    assert_eq!(first("02:10-02:50 Europe/Berlin", "2026-03-28T12:00:00Z").0, "2026-03-30T00:10:00Z");
}

#[test]
fn a_rule_lasts_so_long_whatever_the_clocks_do() {
    let rule = "rrule FREQ=DAILY;BYHOUR=22 for 8h Europe/Berlin";
    assert_eq!(
        first(rule, "2026-03-28T12:00:00Z"),
        ("2026-03-28T21:00:00Z".to_owned(), "2026-03-29T05:00:00Z".to_owned())
    );
}

#[test]
fn days_of_the_week_and_of_the_month_are_those_of_the_zone() {
    // Friday evening in Auckland is Friday morning in UTC.
    assert_eq!(first("20:00-21:00 Pacific/Auckland fri", "2026-11-21T00:00:00Z").0, "2026-11-27T07:00:00Z");
    let starts = |rule: &str, limit| -> Vec<String> {
        windows(rule, "2026-11-21T00:00:00Z", limit).into_iter().map(|(start, _)| start).collect()
    };
    assert_eq!(
        starts("rrule FREQ=MONTHLY;BYDAY=1MO,-1FR;BYHOUR=18 for 2h UTC", 3),
        ["2026-11-27T18:00:00Z", "2026-12-07T18:00:00Z", "2026-12-25T18:00:00Z"]
    );
    assert_eq!(
        starts("rrule FREQ=WEEKLY;INTERVAL=2;BYDAY=SA,SU for 1h from 2026-11-21 UTC", 4),
        ["2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", "2026-12-05T00:00:00Z", "2026-12-06T00:00:00Z"]
    );
    assert_eq!(
        starts("rrule FREQ=DAILY;BYHOUR=6,18;BYMINUTE=30;COUNT=3 for 10m from 2026-11-21 UTC", 9),
        ["2026-11-21T06:30:00Z", "2026-11-21T18:30:00Z", "2026-11-22T06:30:00Z"]
    );
    assert_eq!(
        starts("rrule FREQ=MONTHLY;UNTIL=20270131 for 1h from 2026-10-31T08:00 UTC", 9),
        ["2026-12-31T08:00:00Z", "2027-01-31T08:00:00Z"],
        "months without a 31st are left out"
    );
}

#[test]
fn excepted_days_do_not_open_and_count() {
    let found = windows(
        "rrule FREQ=DAILY;COUNT=3 for 1h from 2026-12-23 UTC except 2026-12-24",
        "2026-12-01T00:00:00Z",
        9,
    );
    let starts: Vec<&str> = found.iter().map(|(start, _)| start.as_str()).collect();
    assert_eq!(starts, ["2026-12-23T00:00:00Z", "2026-12-25T00:00:00Z"]);
    assert_eq!(first("22:00-06:00 UTC except 2026-12-24", "2026-12-24T12:00:00Z").0, "2026-12-25T22:00:00Z");
}

#[test]
fn a_window_that_is_open_is_among_them_and_overlaps_are_one() {
    assert_eq!(first("22:00-06:00 UTC", "2026-11-21T03:00:00Z").0, "2026-11-20T22:00:00Z");
    let found = windows(
        "rrule FREQ=DAILY;BYHOUR=0,12;COUNT=4 for 13h from 2026-11-21 UTC",
        "2026-11-21T00:00:00Z",
        9,
    );
    assert_eq!(found, [("2026-11-21T00:00:00Z".to_owned(), "2026-11-23T01:00:00Z".to_owned())]);
    assert_eq!(windows("00:00-24:00 UTC", "2026-11-21T00:00:00Z", 2).len(), 2, "one a day, end to end");
    let always: Recurrence = "always".parse().unwrap();
    assert_eq!(always.occurrences(5, 6, 9), [Window { start_ms: 0, end_ms: u64::MAX }]);
}

#[test]
fn the_next_time_of_day_is_today_or_tomorrow() {
    let now = at("2026-11-21T21:30:00Z");
    assert_eq!(next_time_of_day("22:00", "UTC", now), Ok(at("2026-11-21T22:00:00Z")));
    assert_eq!(next_time_of_day("22:00", "Europe/Berlin", now), Ok(at("2026-11-22T21:00:00Z")));
    assert!(next_time_of_day("25:00", "UTC", now).unwrap_err().to_string().contains("write it as 22:00"));
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    for (rule, word, hint) in [
        ("", "", "22:00-06:00 UTC"),
        ("22:00-25:00 UTC", "25:00", "write it as 22:00"),
        ("22:00-06:00", "22:00-06:00", "22:00-06:00 UTC"),
        ("22:00-06:00 Berlin", "Berlin", "Europe/Berlin"),
        ("22:00-06:00 UTC weekdays", "weekdays", "mon-fri"),
        ("22:00-06:00 UTC except tomorrow", "tomorrow", "2026-12-24"),
        ("rrule FREQ=YEARLY for 8h UTC", "YEARLY", "MONTHLY"),
        ("rrule FREQ=DAILY;BYSETPOS=1 for 8h UTC", "BYSETPOS=1", "BYHOUR"),
        ("rrule FREQ=WEEKLY;BYDAY=1MO for 8h UTC", "FREQ=WEEKLY;BYDAY=1MO", "MONTHLY"),
        ("rrule FREQ=DAILY;COUNT=3 for 8h UTC", "FREQ=DAILY;COUNT=3", "from 2026-11-02"),
        ("rrule FREQ=DAILY UTC", "FREQ=DAILY", "for 8h"),
        ("at noon for 8h", "noon", "2026-12-24T18:00:00Z"),
        ("always on", "on", "leave it out"),
    ] {
        let error = rule.parse::<Recurrence>().unwrap_err();
        assert_eq!(error.word, word, "{rule}");
        assert!(error.problem.contains(hint), "{rule}: {error}");
    }
}

fn rule() -> impl Strategy<Value = String> {
    let zone = || {
        prop_oneof![
            Just("UTC"),
            Just("Europe/Berlin"),
            Just("America/New_York"),
            Just("Australia/Lord_Howe"),
            Just("Asia/Kathmandu"),
        ]
    };
    let time =
        || (0u8..24, prop_oneof![Just(0u8), Just(30), Just(45)]).prop_map(|(h, m)| format!("{h:02}:{m:02}"));
    let days = prop_oneof![Just(""), Just(" mon-fri"), Just(" sat,sun"), Just(" wed")];
    let daily = (time(), time(), zone(), days)
        .prop_map(|(start, end, zone, days)| format!("{start}-{end} {zone}{days}"));
    let freq = prop_oneof![
        Just("FREQ=DAILY"),
        Just("FREQ=DAILY;INTERVAL=3"),
        Just("FREQ=WEEKLY;BYDAY=MO,TH"),
        Just("FREQ=WEEKLY;INTERVAL=2"),
        Just("FREQ=MONTHLY;BYDAY=2TU,-1SU"),
        Just("FREQ=MONTHLY"),
        Just("FREQ=DAILY;COUNT=40"),
        Just("FREQ=DAILY;UNTIL=20270301"),
    ];
    let rrule = (freq, 0u8..24, 1u8..30, zone()).prop_map(|(freq, hour, hours, zone)| {
        format!("rrule {freq};BYHOUR={hour} for {hours}h from 2026-02-11 {zone}")
    });
    prop_oneof![daily, rrule]
}

proptest! {
    #[test]
    fn a_rule_reads_back_as_it_is_written(rule in rule()) {
        let read: Recurrence = rule.parse().unwrap();
        prop_assert_eq!(read.to_string().parse::<Recurrence>(), Ok(read));
    }

    #[test]
    fn windows_are_in_order_apart_and_the_same_whichever_way_they_are_asked_for(rule in rule(), day in 0u64..500, hours in 1u64..400) {
        let read: Recurrence = rule.parse().unwrap();
        let after = at("2026-01-01T00:00:00Z") + day * DAY_MS + hours * 1_700_000;
        let all = read.occurrences(after, after + 60 * DAY_MS, 1_000);
        for window in &all {
            prop_assert!(window.start_ms < window.end_ms && window.end_ms > after);
        }
        for pair in all.windows(2) {
            prop_assert!(pair[0].end_ms <= pair[1].start_ms);
        }
        // Asked in two halves, the second half has the same windows, unless one was joined across the cut.
        let cut = after + 20 * DAY_MS;
        let late: Vec<_> = all.iter().filter(|window| window.start_ms >= cut).collect();
        let again = read.occurrences(cut, after + 60 * DAY_MS, 1_000);
        let again: Vec<_> = again.iter().filter(|window| window.start_ms >= cut).collect();
        prop_assert_eq!(late, again);
    }

    #[test]
    fn a_daily_window_is_open_when_the_clocks_say_so(start in 0u16..1440, end in 0u16..1440, day in 0u64..800, minute in 0u64..1440) {
        prop_assume!(start != end);
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let read: Recurrence = format!("{}-{} Europe/Berlin", clock(start), clock(end)).parse().unwrap();
        let now = at("2026-01-01T00:00:00Z") + day * DAY_MS + minute * 60_000;
        let zone = jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap();
        let shown = zone.to_datetime(jiff::Timestamp::from_millisecond(now as i64).unwrap());
        // In the nights of a change the clocks alone do not say.
        let month_end = [3, 10].contains(&shown.month()) && shown.day() > 23 && shown.hour() < 5;
        prop_assume!(!month_end);
        let minutes = shown.hour() as u16 * 60 + shown.minute() as u16;
        let inside = if start < end { start <= minutes && minutes < end } else { minutes >= start || minutes < end };
        let open = read.occurrences(now, now + 1, 1).first().is_some_and(|window| window.start_ms <= now);
        prop_assert_eq!(open, inside);
    }
}
