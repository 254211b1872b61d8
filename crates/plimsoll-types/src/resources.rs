//! Resource vectors: what a node offers, a request asks, a grant takes.

use std::collections::BTreeMap;

use crate::{Amount, AmountOverflow};

/// Name of a resource beyond cpu and memory, such as `storage/nvme` (bytes), `network/in` (bits per second) or
/// `license/foo` (pieces).
pub type ResourceName = String;

/// Amounts per resource. Absent means zero; zero entries in `other` are never kept, so equal vectors compare equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources {
    /// Compute, in thousandths of a core.
    pub cpu_millis: Amount,
    /// Memory, in bytes.
    pub memory_bytes: Amount,
    /// Everything else, by name, in the smallest unit of each.
    pub other: BTreeMap<ResourceName, Amount>,
}

impl Resources {
    /// A vector of cpu (thousandths of a core) and memory (bytes) alone.
    pub fn new(cpu_millis: u64, memory_bytes: u64) -> Resources {
        Resources {
            cpu_millis: Amount(cpu_millis),
            memory_bytes: Amount(memory_bytes),
            other: BTreeMap::new(),
        }
    }

    /// The same vector with one more named amount; zero removes the name.
    pub fn with(mut self, name: &str, amount: u64) -> Resources {
        self.set(name, Amount(amount));
        self
    }

    /// The amount of a resource by name; `cpu` and `memory` name the two fields.
    pub fn get(&self, name: &str) -> Amount {
        match name {
            "cpu" => self.cpu_millis,
            "memory" => self.memory_bytes,
            _ => self.other.get(name).copied().unwrap_or_default(),
        }
    }

    /// Sets the amount of a resource by name; zero removes it.
    pub fn set(&mut self, name: &str, amount: Amount) {
        match name {
            "cpu" => self.cpu_millis = amount,
            "memory" => self.memory_bytes = amount,
            _ if amount.is_zero() => drop(self.other.remove(name)),
            _ => drop(self.other.insert(name.to_owned(), amount)),
        }
    }

    /// Every non-zero amount with its name, in a fixed order: cpu, memory, then the others by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Amount)> {
        [("cpu", self.cpu_millis), ("memory", self.memory_bytes)]
            .into_iter()
            .chain(self.other.iter().map(|(name, amount)| (name.as_str(), *amount)))
            .filter(|(_, amount)| !amount.is_zero())
    }

    /// True where nothing is asked or offered.
    pub fn is_zero(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The sum per resource, or an error where one does not fit in 64 bits.
    pub fn checked_add(&self, other: &Resources) -> Result<Resources, AmountOverflow> {
        let mut sum = self.clone();
        sum.add_assign(other)?;
        Ok(sum)
    }

    /// Adds in place. On error `self` is unchanged.
    pub fn add_assign(&mut self, other: &Resources) -> Result<(), AmountOverflow> {
        for (name, amount) in other.iter() {
            self.get(name).checked_add(amount)?;
        }
        self.cpu_millis = self.cpu_millis.checked_add(other.cpu_millis)?;
        self.memory_bytes = self.memory_bytes.checked_add(other.memory_bytes)?;
        for (name, amount) in &other.other {
            let sum = self.get(name).checked_add(*amount)?;
            self.set(name, sum);
        }
        Ok(())
    }

    /// The difference per resource, or `None` where some resource of `other` is larger.
    pub fn checked_sub(&self, other: &Resources) -> Option<Resources> {
        let mut rest = self.clone();
        rest.sub_assign(other).then_some(rest)
    }

    /// Subtracts in place and returns true; leaves `self` unchanged and returns false where it would go below zero.
    #[must_use]
    pub fn sub_assign(&mut self, other: &Resources) -> bool {
        if !other.fits_in(self) {
            return false;
        }
        self.cpu_millis = self.cpu_millis.saturating_sub(other.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
        for (name, amount) in &other.other {
            let rest = self.get(name).saturating_sub(*amount);
            self.set(name, rest);
        }
        true
    }

    /// The difference per resource, never below zero: for what is left of a capacity that was cut.
    pub fn saturating_sub(&self, other: &Resources) -> Resources {
        let mut rest = self.clone();
        rest.saturating_sub_assign(other);
        rest
    }

    /// Subtracts in place, never below zero.
    pub fn saturating_sub_assign(&mut self, other: &Resources) {
        self.cpu_millis = self.cpu_millis.saturating_sub(other.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
        for (name, amount) in &other.other {
            let left = self.get(name).saturating_sub(*amount);
            self.set(name, left);
        }
    }

    /// The vector `count` times, or an error where one amount does not fit in 64 bits.
    pub fn checked_mul(&self, count: u64) -> Result<Resources, AmountOverflow> {
        let mut product = Resources {
            cpu_millis: self.cpu_millis.checked_mul(count)?,
            memory_bytes: self.memory_bytes.checked_mul(count)?,
            other: BTreeMap::new(),
        };
        for (name, amount) in &self.other {
            product.set(name, amount.checked_mul(count)?);
        }
        Ok(product)
    }

    /// True where every amount of `self` is at most that of `room`.
    pub fn fits_in(&self, room: &Resources) -> bool {
        self.cpu_millis <= room.cpu_millis
            && self.memory_bytes <= room.memory_bytes
            && self.other.iter().all(|(name, amount)| *amount <= room.get(name))
    }

    /// The smaller of both amounts of every resource.
    pub fn smaller_of(&self, other: &Resources) -> Resources {
        let mut smaller = self.clone();
        for (name, amount) in self.iter() {
            smaller.set(name, amount.min(other.get(name)));
        }
        smaller
    }

    /// The smaller of both amounts for every resource that `cap` names; others stay as they are.
    pub fn capped_by(&self, cap: &Resources) -> Resources {
        let mut capped = self.clone();
        for (name, limit) in cap.iter() {
            let amount = capped.get(name).min(limit);
            capped.set(name, amount);
        }
        capped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtraction_refuses_to_go_below_zero_and_changes_nothing() {
        let mut have = Resources::new(1000, 10).with("license/a", 2);
        assert!(!have.sub_assign(&Resources::new(500, 11)));
        assert_eq!(have, Resources::new(1000, 10).with("license/a", 2));
        assert!(have.sub_assign(&Resources::new(0, 0).with("license/a", 2)));
        assert_eq!(have, Resources::new(1000, 10), "a zero entry is not kept");
    }

    #[test]
    fn overflow_is_an_error_and_leaves_the_sum_unchanged() {
        let mut sum = Resources::new(u64::MAX, 1);
        assert_eq!(sum.add_assign(&Resources::new(1, 1)), Err(AmountOverflow));
        assert_eq!(sum, Resources::new(u64::MAX, 1));
    }
}
