//! Lengths of time and moments as people write them: `8h`, `1h30m`, `2d`, `90s`; `2026-12-24T22:00:00Z`.

use crate::parse::RuleError;

const UNITS: [(char, u64); 4] = [('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1_000)];

/// A length of time in milliseconds.
///
/// # Errors
/// What is no length, or none at all.
pub fn parse_duration_ms(text: &str) -> Result<u64, RuleError> {
    let bad = || RuleError::new(text, "is not a length of time: write it as 8h, 1h30m or 2d");
    let (mut total, mut number, mut rest) = (0_u64, None::<u64>, UNITS.as_slice());
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            let more = number.unwrap_or(0).checked_mul(10).and_then(|ten| ten.checked_add(digit.into()));
            number = Some(more.ok_or_else(bad)?);
            continue;
        }
        // Each unit once, the largest first.
        let place = rest.iter().position(|(unit, _)| *unit == letter).ok_or_else(bad)?;
        let part = number.take().ok_or_else(bad)?.checked_mul(rest[place].1).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = &rest[place + 1..];
    }
    if number.is_some() || total == 0 { Err(bad()) } else { Ok(total) }
}

/// A moment as RFC 3339 writes it, in milliseconds since 1970; what is below a millisecond is left out.
///
/// # Errors
/// What is no moment, for lack of a date or of a zone too, or is before 1970.
pub fn parse_moment_ms(text: &str) -> Result<u64, RuleError> {
    let moment: jiff::Timestamp = text.parse().map_err(|_| {
        RuleError::new(text, "is not a moment: write it as 2026-12-24T22:00:00Z or with +01:00")
    })?;
    u64::try_from(moment.as_millisecond()).map_err(|_| RuleError::new(text, "is before 1970"))
}

/// A length of time in its shortest words; what is below a second is left out.
pub fn duration_text(mut length_ms: u64) -> String {
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        if length_ms >= unit_ms {
            text.push_str(&format!("{}{unit}", length_ms / unit_ms));
            length_ms %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_a_date_and_a_zone() {
        for text in ["1970-01-02T00:00:00Z", "1970-01-02T01:00:00+01:00", "1970-01-02 00:00:00.0009Z"] {
            assert_eq!(parse_moment_ms(text), Ok(86_400_000), "{text}");
        }
        for bad in ["", "22:00", "1970-01-02", "1970-01-02T00:00:00", "1969-12-31T00:00:00Z", "soon"] {
            assert!(parse_moment_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_read_and_write() {
        for (text, ms) in [("8h", 28_800_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("45s", 45_000)] {
            assert_eq!(parse_duration_ms(text), Ok(ms));
            assert_eq!(duration_text(ms), text);
        }
        for bad in ["", "8", "h", "30m1h", "0h", "99999999999999999999h", "1h1h", "-1h"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
    }
}
