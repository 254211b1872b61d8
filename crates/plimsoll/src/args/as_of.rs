//! Moments of the past: a revision, or a time.

use std::str::FromStr;

use jiff::Timestamp;
use plimsoll_types::quantity::parse_duration_ms;

use crate::output::now_ms;

/// What `--as-of` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// A revision.
    Revision(u64),
    /// A time, in milliseconds since the Unix epoch.
    TimeMs(u64),
}

impl AsOf {
    /// Revision and time as the API has them; 0 for what is not given.
    pub(crate) fn fields(moment: Option<AsOf>) -> (u64, u64) {
        match moment {
            None => (0, 0),
            Some(AsOf::Revision(revision)) => (revision, 0),
            Some(AsOf::TimeMs(ms)) => (0, ms),
        }
    }
}

impl FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<AsOf, String> {
        let expected =
            || format!("{text:?} is no moment: 1042 (a revision), 10m (ago) or 2026-11-21T22:00:00Z");
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let revision = text.parse::<u64>().ok().filter(|revision| *revision > 0);
            return revision.map(AsOf::Revision).ok_or_else(expected);
        }
        if let Ok(ago_ms) = parse_duration_ms(text) {
            return Ok(AsOf::TimeMs(now_ms().saturating_sub(ago_ms).max(1)));
        }
        let moment = text.parse::<Timestamp>().map_err(|_| expected())?;
        u64::try_from(moment.as_millisecond())
            .ok()
            .filter(|ms| *ms > 0)
            .map(AsOf::TimeMs)
            .ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_revision_a_time_ago_or_a_timestamp() {
        assert_eq!("1042".parse(), Ok(AsOf::Revision(1042)));
        assert_eq!("2026-11-21T22:00:00Z".parse(), Ok(AsOf::TimeMs(1_795_298_400_000)));
        let ago: AsOf = "10m".parse().expect("ten minutes");
        assert!(matches!(ago, AsOf::TimeMs(ms) if now_ms() - ms >= 600_000));
        assert!("0".parse::<AsOf>().is_err() && "yesterday".parse::<AsOf>().is_err());
    }
}
