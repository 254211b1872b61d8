//! Days and months of the UTC calendar, from ledger time alone.

use plimsoll_types::LedgerTime;

/// Milliseconds of a day; the calendar has no leap seconds, as Unix time has none.
pub(super) const DAY_MS: u64 = 86_400_000;

/// Days since 1970-01-01.
pub(super) fn day(at: LedgerTime) -> u64 {
    at.0 / DAY_MS
}

/// Months since the year 0.
pub(super) fn month(at: LedgerTime) -> u64 {
    let (year, month, _) = civil(day(at));
    year * 12 + (month - 1)
}

/// First moment of a month.
pub(super) fn month_start(month: u64) -> LedgerTime {
    LedgerTime(days_of(month / 12, month % 12 + 1).saturating_mul(DAY_MS))
}

/// The day, as `2026-11-22`.
pub fn date_of(at: LedgerTime) -> String {
    let (year, month, day) = civil(day(at));
    format!("{year:04}-{month:02}-{day:02}")
}

/// The month, as `2026-11`.
pub fn month_of(at: LedgerTime) -> String {
    let (year, month, _) = civil(day(at));
    format!("{year:04}-{month:02}")
}

/// Year, month and day of a day since 1970-01-01: years begin in March here, so that the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days since 1970-01-01 of the first of a month.
fn days_of(year: u64, month: u64) -> u64 {
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let (era, year_of_era) = (year / 400, year % 400);
    let of_year = (153 * from_march + 2) / 5;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_have_their_dates() {
        let known = [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_709_164_800_000, "2024-02-29"),
            (1_795_305_600_000, "2026-11-22"),
            (4_107_542_400_000, "2100-03-01"),
        ];
        for (ms, date) in known {
            assert_eq!(date_of(LedgerTime(ms)), date);
            assert_eq!(month_of(LedgerTime(ms)), date[..7]);
        }
    }

    #[test]
    fn every_month_begins_where_the_one_before_ends() {
        let mut at = LedgerTime(0);
        for _ in 0..12 * 300 {
            let next = month_start(month(at) + 1);
            let days = (next.0 - at.0) / DAY_MS;
            assert!((28..=31).contains(&days), "{}", date_of(at));
            assert_eq!(month(LedgerTime(next.0 - 1)), month(at));
            assert_eq!(month(next), month(at) + 1);
            assert!(date_of(next).ends_with("-01"));
            at = next;
        }
    }
}
