//! `Amount`: a checked, unsigned quantity in the smallest unit of its kind.

use std::fmt;

/// An amount in the smallest unit of its resource (millicores, bytes, bits per second, pieces).
///
/// There is deliberately no `Add` or `Sub`: quota arithmetic that wraps grants what does not exist, so every operation
/// says what happens at the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub u64);

/// The sum or product of two amounts does not fit in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("amount overflows 64 bits")]
pub struct AmountOverflow;

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// The sum, or an error where it does not fit.
    pub fn checked_add(self, other: Amount) -> Result<Amount, AmountOverflow> {
        self.0.checked_add(other.0).map(Amount).ok_or(AmountOverflow)
    }

    /// The difference, or `None` where `other` is larger.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// The difference, never below zero: for displays of what is left.
    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }

    /// The product with a count, or an error where it does not fit.
    pub fn checked_mul(self, count: u64) -> Result<Amount, AmountOverflow> {
        self.0.checked_mul(count).map(Amount).ok_or(AmountOverflow)
    }

    /// True for nothing at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
