//! Quantities inside expressions: what was written, and what it is in a unit.

use plimsoll_types::quantity::{
    parse_bits_per_second, parse_bytes, parse_count, parse_cpu_millis, parse_duration_ms,
};

use crate::names::Unit;

/// Ends of quantities as people write them, for the right spelling of wrong ones.
const SUFFIXES: [&str; 21] = [
    "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "k", "M", "G", "T", "P", "m", "ms", "s", "h", "d", "bps", "kbps",
    "Mbps", "Gbps", "Tbps",
];

/// A quantity with a suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    /// As it is written.
    pub(crate) text: String,
}

impl Literal {
    /// A quantity, if it is one in any unit.
    ///
    /// # Errors
    /// With what would be right.
    pub(crate) fn read(text: &str) -> Result<Literal, String> {
        let literal = Literal { text: text.to_owned() };
        let units = [Unit::Cores, Unit::Bytes, Unit::BitsPerSecond, Unit::Seconds, Unit::Ratio];
        if units.iter().any(|unit| literal.value_in(*unit).is_some()) {
            return Ok(literal);
        }
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let meant = SUFFIXES.iter().find(|known| known.eq_ignore_ascii_case(suffix));
        let meant = meant.or_else(|| {
            // 1GB, 4GiB: a size with the word for byte at its end.
            let size = suffix.strip_suffix(['B', 'b']).filter(|size| !size.is_empty())?;
            SUFFIXES[..11].iter().find(|known| known.eq_ignore_ascii_case(size))
        });
        Err(match meant {
            Some(suffix) => format!("did you mean `{number}{suffix}`?"),
            None => "quantities are written 500m, 0.5, 4Gi, 100Mbps, 90% or 2h".to_owned(),
        })
    }

    /// Its value in a unit; `None` where it is no quantity of that unit.
    pub(crate) fn value_in(&self, unit: Unit) -> Option<f64> {
        let text = self.text.as_str();
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.parse().ok()?;
            return match unit {
                Unit::Percent => Some(percent),
                Unit::Ratio => Some(percent / 100.0),
                _ => None,
            };
        }
        match unit {
            Unit::Cores => parse_cpu_millis(text).ok().map(|milli| milli as f64 / 1_000.0),
            Unit::Bytes => parse_bytes(text).ok().map(|bytes| bytes as f64),
            Unit::BitsPerSecond => parse_bits_per_second(text).ok().map(|bits| bits as f64),
            Unit::Seconds => parse_duration_ms(text).ok().map(|ms| ms as f64 / 1_000.0),
            Unit::Plain if text.ends_with('m') => {
                parse_cpu_millis(text).ok().map(|milli| milli as f64 / 1_000.0)
            }
            Unit::Plain => parse_count(text).ok().map(|count| count as f64),
            Unit::Ratio | Unit::Percent => None,
        }
    }

    /// The unit that it is in where nothing else says one.
    pub(crate) fn natural(&self) -> Unit {
        let text = self.text.as_str();
        if text.ends_with('%') {
            Unit::Ratio
        } else if text.ends_with("bps") {
            Unit::BitsPerSecond
        } else if text.ends_with('i') {
            Unit::Bytes
        } else if self.value_in(Unit::Plain).is_some() {
            Unit::Plain
        } else {
            Unit::Seconds
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_in_its_unit() {
        for (text, unit, value) in [
            ("500m", Unit::Cores, 0.5),
            ("5m", Unit::Seconds, 300.0),
            ("4Gi", Unit::Bytes, 4_294_967_296.0),
            ("1Ti", Unit::Bytes, 1_099_511_627_776.0),
            ("100Mbps", Unit::BitsPerSecond, 1e8),
            ("90%", Unit::Ratio, 0.9),
            ("90%", Unit::Percent, 90.0),
            ("2h", Unit::Seconds, 7_200.0),
            ("1h30m", Unit::Seconds, 5_400.0),
            ("10k", Unit::Plain, 10_000.0),
        ] {
            let literal = Literal::read(text).unwrap();
            assert_eq!(literal.value_in(unit), Some(value), "{text} in {unit:?}");
        }
        assert_eq!(Literal::read("4Gi").unwrap().value_in(Unit::Seconds), None);
        assert_eq!(Literal::read("2h").unwrap().natural(), Unit::Seconds);
    }

    #[test]
    fn a_wrong_suffix_is_told_with_the_right_one() {
        for (text, help) in [
            ("1gi", "did you mean `1Gi`?"),
            ("4GB", "did you mean `4G`?"),
            ("4GiB", "did you mean `4Gi`?"),
            ("2H", "did you mean `2h`?"),
            ("10K", "did you mean `10k`?"),
            ("7parsecs", "quantities are written 500m, 0.5, 4Gi, 100Mbps, 90% or 2h"),
        ] {
            assert_eq!(Literal::read(text).unwrap_err(), help, "{text}");
        }
    }
}
