//! Times: relative in tables, absolute with zone elsewhere.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The present, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// A moment with its zone; empty for none.
pub(crate) fn absolute(ms: u64, utc: bool) -> String {
    let Some(moment) =
        i64::try_from(ms).ok().filter(|ms| *ms > 0).and_then(|ms| Timestamp::from_millisecond(ms).ok())
    else {
        return String::new();
    };
    let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
    moment.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S%.3f %Z").to_string()
}

/// How long ago, short; empty for none.
pub(crate) fn ago(ms: u64, now_ms: u64) -> String {
    if ms == 0 { String::new() } else { short_duration(now_ms.saturating_sub(ms)) }
}

/// How long is left, short; empty for no end.
pub(crate) fn left(ms: u64, now_ms: u64) -> String {
    match ms {
        0 => String::new(),
        ms if ms <= now_ms => "over".to_owned(),
        ms => short_duration(ms - now_ms),
    }
}

/// A duration in its two largest units: `41d`, `2h11m`, `4m12s`, `0.2s`.
pub(crate) fn short_duration(ms: u64) -> String {
    let (s, m, h, d) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match (d, h, m, s) {
        (2.., ..) => format!("{d}d"),
        (_, 1.., ..) if m % 60 == 0 => format!("{h}h"),
        (_, 1.., ..) => format!("{h}h{}m", m % 60),
        (_, _, 1.., _) if s % 60 == 0 => format!("{m}m"),
        (_, _, 1.., _) => format!("{m}m{}s", s % 60),
        (_, _, _, 10..) => format!("{s}s"),
        _ if ms < 100 => format!("{ms}ms"),
        _ => format!("{}.{}s", s, ms % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (ms, text) in [
            (0, "0ms"),
            (12, "12ms"),
            (200, "0.2s"),
            (14_000, "14s"),
            (252_000, "4m12s"),
            (7_200_000, "2h"),
            (7_860_000, "2h11m"),
            (41 * 86_400_000, "41d"),
        ] {
            assert_eq!(short_duration(ms), text);
        }
    }

    #[test]
    fn moments_have_their_zone() {
        assert_eq!(absolute(1_700_000_000_123, true), "2023-11-14 22:13:20.123 UTC");
        assert_eq!(absolute(0, true), "");
        assert_eq!((left(5_000, 5_000).as_str(), left(0, 1).as_str(), ago(0, 1).as_str()), ("over", "", ""));
    }
}
