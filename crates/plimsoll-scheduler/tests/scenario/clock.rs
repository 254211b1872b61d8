//! Times of day in files and reports: `08:00`, `08:00:30`, and `+1d 02:00` for the day after.

/// Midnight of the first day of every scenario, in milliseconds since the epoch: Monday, 2 November 2026, UTC.
pub(crate) const MIDNIGHT_MS: u64 = 1_793_577_600_000;

const DAY_MS: u64 = 86_400_000;

/// The moment in a file.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time of day like 08:00, 08:00:30 or +1d 02:00");
    let (days, clock) = match text.split_once("d ") {
        Some((days, clock)) => (days.trim_start_matches('+').parse::<u64>().map_err(|_| wrong())?, clock),
        None => (0, text),
    };
    let parts: Vec<u64> =
        clock.split(':').map(|part| part.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return Err(wrong()),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return Err(wrong());
    }
    Ok(MIDNIGHT_MS + days * DAY_MS + ((hours * 60 + minutes) * 60 + seconds) * 1_000)
}

/// A moment for a report, to the second, rounded up: nothing is said to happen before it does.
pub(crate) fn show(at_ms: u64) -> String {
    let seconds = at_ms.saturating_sub(MIDNIGHT_MS).div_ceil(1_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", of_day / 3_600, of_day / 60 % 60, of_day % 60);
    if days == 0 { clock } else { format!("+{days}d {clock}") }
}
