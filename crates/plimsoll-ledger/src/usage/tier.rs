//! Tiers: quotas of a group of which exactly one is about each user (`docs/semantics.md` 5.3).
//!
//! Invariant: `TierIndex` has each quota with a tier under each name and pattern of its users, and no other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use plimsoll_mutants::mutant;

use super::{QuotaPolicy, matches_pattern};

/// First ledger version that knows tiers.
pub(crate) const TIERS_SINCE_VERSION: u32 = 14;

/// Whom a quota is about, where each user is in one tier of several. From ledger version 14 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// Tiers of which a user is in one; empty for the group that has no name.
    pub group: String,
    /// Of those that name a user, the one of the highest rank is the user's; of two alike the first by name.
    pub rank: u32,
    /// Users by name or pattern; `*` stands for anything.
    pub users: Vec<String>,
}

/// Where a quota stands in its group: the first is the one.
type Place = (Reverse<u32>, String);

/// Which tier of each group a user is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TierIndex {
    groups: BTreeMap<String, Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    by_user: BTreeMap<String, BTreeSet<Place>>,
    by_pattern: BTreeSet<(Place, String)>,
}

impl TierIndex {
    pub(crate) fn put(&mut self, quota: &QuotaPolicy, tier: &Tier) {
        let group = self.groups.entry(tier.group.clone()).or_default();
        let place = (Reverse(tier.rank), quota.name.clone());
        for user in &tier.users {
            if user.contains('*') {
                group.by_pattern.insert((place.clone(), user.clone()));
            } else {
                group.by_user.entry(user.clone()).or_default().insert(place.clone());
            }
        }
    }

    pub(crate) fn remove(&mut self, quota: &QuotaPolicy, tier: &Tier) {
        let Some(group) = self.groups.get_mut(&tier.group) else { return };
        group.by_pattern.retain(|((_, name), _)| *name != quota.name);
        group.by_user.retain(|_, places| {
            places.retain(|(_, name)| *name != quota.name);
            !places.is_empty()
        });
        if group.by_pattern.is_empty() && group.by_user.is_empty() {
            self.groups.remove(&tier.group);
        }
    }

    /// The quotas of the tiers that a user is in, one of each group. O(log users + patterns).
    pub(crate) fn of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a str> {
        self.groups.values().filter_map(move |group| {
            let by_user = group.by_user.get(user).and_then(BTreeSet::first);
            let by_pattern = group.by_pattern.iter().find(|(_, pattern)| matches_pattern(pattern, user));
            let both = by_user.into_iter().chain(by_pattern.map(|(place, _)| place));
            let first = if mutant!("lowest-tier") { both.max() } else { both.min() };
            first.map(|(_, name)| name.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(name: &str, group: &str, rank: u32, users: &[&str]) -> QuotaPolicy {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        let tier = Some(Tier { group: group.into(), rank, users });
        QuotaPolicy { name: name.into(), tier, ..QuotaPolicy::default() }
    }

    #[test]
    fn a_user_is_in_the_highest_tier_that_names_him_and_in_one_of_each_group() {
        let all = [
            quota("default", "", 0, &["*"]),
            quota("premium", "", 2, &["ada", "research-*"]),
            quota("plus", "", 1, &["ada", "grace"]),
            quota("also", "", 2, &["ada"]),
            quota("stored", "storage", 0, &["*"]),
        ];
        let mut index = TierIndex::default();
        for quota in &all {
            index.put(quota, quota.tier.as_ref().expect("it has one"));
        }
        let of = |index: &TierIndex, user: &str| index.of(user).collect::<Vec<_>>().join(" ");
        assert_eq!(of(&index, "ada"), "also stored");
        assert_eq!(of(&index, "research-vision"), "premium stored");
        assert_eq!(of(&index, "grace"), "plus stored");
        assert_eq!(of(&index, "anyone"), "default stored");
        for quota in &all[1..] {
            index.remove(quota, quota.tier.as_ref().expect("it has one"));
        }
        assert_eq!(of(&index, "ada"), "default");
        index.remove(&all[0], all[0].tier.as_ref().expect("it has one"));
        assert_eq!(index, TierIndex::default());
    }
}
