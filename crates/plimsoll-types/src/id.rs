//! Identifiers: revisions, reservations, nodes, devices, and the rule for names.

use std::fmt;
use std::str::FromStr;

/// Position of a command in the ledger log. Every command has its own; they start at 1 and have no gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A reservation, named by the revision of the command that created it: unique for ever, without a generator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(pub u64);

/// A node, as a small integer given out by the ledger at first registration and never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// Incarnation of a node: the revision of its latest registration. Reports of an older incarnation are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeEpoch(pub u64);

/// A device of a node, by its position in the node's device list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub u16);

/// A name or id that is not well formed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not of the form `r-` and at least four of the alphabet's characters.
    #[error("{0:?} is not a reservation id: expected `r-` and letters or digits, as in r-7k2m")]
    Reservation(String),
    /// Not a name of `[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?`.
    #[error(
        "{0:?} is not a name: use 1 to 63 lower-case letters, digits, '-', '.' and '_', with a letter or digit at both ends"
    )]
    Name(String),
}

/// Digits and consonants (no vowels, so that no words form; no `l`, which reads as 1).
const ALPHABET: &[u8; 30] = b"0123456789bcdfghjkmnpqrstvwxyz";

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; 14];
        let mut rest = self.0;
        let mut start = digits.len();
        while rest > 0 || start > digits.len() - 4 {
            start -= 1;
            digits[start] = ALPHABET[(rest % 30) as usize];
            rest /= 30;
        }
        write!(f, "r-{}", std::str::from_utf8(&digits[start..]).expect("the alphabet is ASCII"))
    }
}

impl FromStr for ReservationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Reservation(text.to_owned());
        let digits = text.strip_prefix("r-").ok_or_else(bad)?;
        if digits.len() < 4 || (digits.len() > 4 && digits.starts_with('0')) {
            return Err(bad());
        }
        let mut value = 0u64;
        for byte in digits.bytes() {
            let digit = ALPHABET.iter().position(|&symbol| symbol == byte).ok_or_else(bad)?;
            value = value.checked_mul(30).and_then(|v| v.checked_add(digit as u64)).ok_or_else(bad)?;
        }
        Ok(ReservationId(value))
    }
}

/// Checks a name of a node, pool, class or other object: `[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?`.
pub fn check_name(name: &str) -> Result<(), IdError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    if bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|&b| inner(b)) {
        Ok(())
    } else {
        Err(IdError::Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_ids_round_trip_and_have_at_least_four_characters() {
        for value in [0, 1, 29, 30, 809_999, 810_000, u64::MAX] {
            let text = ReservationId(value).to_string();
            assert!(text.len() >= 6, "{text}");
            assert_eq!(text.parse(), Ok(ReservationId(value)), "{text}");
        }
    }

    #[test]
    fn each_reservation_id_has_one_spelling() {
        assert!("r-00001".parse::<ReservationId>().is_err());
        assert!("r-001".parse::<ReservationId>().is_err());
        assert!("r-000a".parse::<ReservationId>().is_err());
        assert!("x-0001".parse::<ReservationId>().is_err());
        assert!("r-zzzzzzzzzzzzzz".parse::<ReservationId>().is_err(), "overflow is refused");
    }

    #[test]
    fn names_have_letters_or_digits_at_both_ends() {
        for good in ["a", "node-01", "gpu_pool", "h100.rack-2", &"a".repeat(63)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "ü", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
