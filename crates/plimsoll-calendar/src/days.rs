//! Days of the week, as people list them.

use std::fmt;

use jiff::civil::Weekday;

use crate::parse::RuleError;

/// Some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Days(u8);

/// Short names, Monday first.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Days {
    pub(crate) const ALL: Days = Days(0x7f);

    pub(crate) fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }

    /// `mon-fri`, `sat,sun`, `fri-mon,wed`.
    pub(crate) fn parse(text: &str) -> Result<Days, RuleError> {
        let mut bits = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (place(first)?, place(last)?);
            let mut day = first;
            loop {
                bits |= 1 << day;
                if day == last {
                    break;
                }
                day = (day + 1) % 7;
            }
        }
        Ok(Days(bits))
    }
}

fn place(name: &str) -> Result<usize, RuleError> {
    let short = name.trim().to_lowercase();
    let found = NAMES.iter().position(|known| {
        short == *known || (short.len() > 3 && short.ends_with("day") && short.starts_with(known))
    });
    found.ok_or_else(|| {
        RuleError::new(
            name,
            "is not a day: write mon, tue, wed, thu, fri, sat, sun or a range such as mon-fri",
        )
    })
}

impl fmt::Display for Days {
    /// Runs of three and more as ranges.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_in = |day: usize| self.0 & (1 << day) != 0;
        let (mut day, mut first) = (0, true);
        while day < 7 {
            if !is_in(day) {
                day += 1;
                continue;
            }
            let mut last = day;
            while last < 6 && is_in(last + 1) {
                last += 1;
            }
            if !first {
                f.write_str(",")?;
            }
            first = false;
            if last >= day + 2 {
                write!(f, "{}-{}", NAMES[day], NAMES[last])?;
                day = last + 1;
            } else {
                f.write_str(NAMES[day])?;
                day += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_of_days_read_and_write() {
        for (text, canonical) in [
            ("mon-fri", "mon-fri"),
            ("Saturday,sun", "sat,sun"),
            ("fri-mon", "mon,fri-sun"),
            ("wed", "wed"),
            ("mon-sun", "mon-sun"),
        ] {
            assert_eq!(Days::parse(text).unwrap().to_string(), canonical);
        }
        assert!(Days::parse("mo").unwrap_err().to_string().contains("\"mo\" is not a day"));
    }
}
