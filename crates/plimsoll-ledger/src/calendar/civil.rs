//! Moments in words, for the subjects of blockers: UTC, by the proleptic Gregorian calendar, integers only.

use plimsoll_types::LedgerTime;

use super::Window;

/// A moment as RFC 3339 writes it, in UTC and whole seconds.
pub fn moment(at: LedgerTime) -> String {
    let seconds = at.0 / 1_000;
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years that begin with a March: leap days come last in them.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A window as ISO 8601 writes intervals; `always` for one without end.
pub fn interval(window: Window) -> String {
    if window.end.0 == u64::MAX {
        return "always".to_owned();
    }
    format!("{}/{}", moment(window.start), moment(window.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_the_calendar_has_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_798_754_399_999, "2026-12-31T21:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(moment(LedgerTime(ms)), text);
        }
    }
}
