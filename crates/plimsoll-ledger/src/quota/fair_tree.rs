//! Order between accounts that share a tree: Slurm's Fair Tree.
//!
//! Level fairness `LF = S / U`, with S an account's part of its siblings' weights and U its part of their use. The tree is walked depth first
//! from the highest LF on; users come out in order, and a user's factor is rank / number of users. Equal siblings are merged: what is below them
//! is ranked as if they were one, so that ties share a rank.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// An account: a user where nothing is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The account above it; empty for the top.
    pub parent: String,
    /// Its weight among its siblings.
    pub weight: u64,
    /// Its own decayed use; that of what is below it is added.
    pub used: u128,
}

/// Users from the one to serve first, each with its factor in millionths: the first has 1,000,000. O(n log n) without ties.
pub fn fair_tree_order(accounts: &BTreeMap<String, Account>) -> Vec<(String, u32)> {
    let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, account) in accounts {
        below.entry(&account.parent).or_default().push(name);
    }
    let mut used: BTreeMap<&str, u128> = BTreeMap::new();
    sum_up("", &below, accounts, &mut used);
    let tree = Tree { accounts, below, used };
    let mut groups = Vec::new();
    tree.walk(vec![""], &mut groups);
    let users: usize = groups.iter().map(Vec::len).sum();
    let mut ordered = Vec::with_capacity(users);
    let mut rank = users;
    for group in groups {
        let factor = u32::try_from(rank as u128 * 1_000_000 / users.max(1) as u128).unwrap_or(u32::MAX);
        rank -= group.len();
        ordered.extend(group.into_iter().map(|name| (name.to_owned(), factor)));
    }
    ordered
}

struct Tree<'a> {
    accounts: &'a BTreeMap<String, Account>,
    below: BTreeMap<&'a str, Vec<&'a str>>,
    used: BTreeMap<&'a str, u128>,
}

/// Level fairness as a fraction: weight part over use part. Never used: first of all; no weight: last.
#[derive(Clone, Copy)]
struct Level {
    weight: u128,
    weights: u128,
    used: u128,
    uses: u128,
}

impl<'a> Tree<'a> {
    /// Walks what is below `parents`, which are equal, from the fairest on. Each group it hands out shares one rank.
    fn walk(&self, parents: Vec<&str>, groups: &mut Vec<Vec<&'a str>>) {
        let mut children: Vec<(&'a str, Level)> = Vec::new();
        for parent in parents {
            let siblings = self.below.get(parent).map(Vec::as_slice).unwrap_or_default();
            let weight = |name: &str| self.accounts.get(name).map_or(0, |account| u128::from(account.weight));
            let weights = siblings.iter().map(|name| weight(name)).sum();
            let uses = siblings.iter().map(|name| self.used(name)).fold(0, u128::saturating_add);
            children.extend(
                siblings.iter().map(|name| {
                    (*name, Level { weight: weight(name), weights, used: self.used(name), uses })
                }),
            );
        }
        children.sort_by(|(a, one), (b, other)| other.compare(one).then_with(|| a.cmp(b)));
        for equal in children.chunk_by(|(_, one), (_, other)| one.compare(other) == Ordering::Equal) {
            let (inner, users): (Vec<&str>, Vec<&str>) =
                equal.iter().map(|(name, _)| *name).partition(|name| self.below.contains_key(name));
            if !users.is_empty() {
                groups.push(users);
            }
            if !inner.is_empty() {
                self.walk(inner, groups);
            }
        }
    }

    fn used(&self, name: &str) -> u128 {
        self.used.get(name).copied().unwrap_or_default()
    }
}

impl Level {
    fn compare(&self, other: &Level) -> Ordering {
        self.value().cmp(&other.value())
    }

    /// S / U in billionths, with both ends taken care of: (class, value).
    fn value(&self) -> (u8, u128) {
        if self.weight == 0 {
            return (0, 0);
        }
        if self.used == 0 {
            return (2, 0);
        }
        let scale = |part: u128, whole: u128| mul_div(part, 1_000_000_000, whole.max(1));
        (1, scale(self.weight, self.weights) * 1_000_000_000 / scale(self.used, self.uses).max(1))
    }
}

/// `part x by / whole` for any size, exact to the bits that matter: both are shifted down together where the product does not fit.
fn mul_div(part: u128, by: u128, whole: u128) -> u128 {
    let shift = (128 - part.leading_zeros()).saturating_sub(90);
    (part >> shift) * by / (whole >> shift).max(1)
}

fn sum_up<'a>(
    name: &'a str,
    below: &BTreeMap<&'a str, Vec<&'a str>>,
    accounts: &BTreeMap<String, Account>,
    used: &mut BTreeMap<&'a str, u128>,
) -> u128 {
    let mut sum = accounts.get(name).map_or(0, |account| account.used);
    for child in below.get(name).into_iter().flatten() {
        sum = sum.saturating_add(sum_up(child, below, accounts, used));
    }
    used.insert(name, sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(accounts: &[(&str, &str, u64, u128)]) -> Vec<(String, u32)> {
        let account = |(name, parent, weight, used): &(&str, &str, u64, u128)| {
            ((*name).to_owned(), Account { parent: (*parent).to_owned(), weight: *weight, used: *used })
        };
        fair_tree_order(&accounts.iter().map(account).collect())
    }

    fn names(order: &[(String, u32)]) -> Vec<&str> {
        order.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn an_account_that_had_less_goes_first_with_all_its_users() {
        let order = tree(&[
            ("a", "", 1, 0),
            ("b", "", 1, 0),
            ("a1", "a", 1, 70),
            ("a2", "a", 1, 10),
            ("b1", "b", 1, 30),
            ("b2", "b", 1, 20),
        ]);
        assert_eq!(names(&order), ["b2", "b1", "a2", "a1"], "b had 50 and a 80, whoever in it did");
        assert_eq!(
            order.iter().map(|(_, factor)| *factor).collect::<Vec<_>>(),
            [1_000_000, 750_000, 500_000, 250_000]
        );
    }

    #[test]
    fn weights_count() {
        assert_eq!(names(&tree(&[("a", "", 4, 60), ("b", "", 1, 20)])), ["a", "b"]);
        assert_eq!(names(&tree(&[("a", "", 2, 60), ("b", "", 1, 20)])), ["b", "a"]);
        assert_eq!(names(&tree(&[("a", "", 0, 0), ("b", "", 1, 20)])), ["b", "a"], "no weight: last");
    }

    #[test]
    fn equals_share_a_rank_and_their_users_are_ranked_together() {
        let order = tree(&[("a", "", 1, 50), ("b", "", 1, 50), ("c", "", 1, 900)]);
        assert_eq!(order, [("a".into(), 1_000_000), ("b".into(), 1_000_000), ("c".into(), 333_333)]);
        let merged = tree(&[
            ("a", "", 1, 0),
            ("b", "", 1, 0),
            ("a1", "a", 1, 90),
            ("a2", "a", 1, 10),
            ("b1", "b", 1, 60),
            ("b2", "b", 1, 40),
        ]);
        assert_eq!(names(&merged), ["a2", "b2", "b1", "a1"]);
    }

    #[test]
    fn numbers_of_any_size_keep_their_order() {
        let order =
            tree(&[("a", "", u64::MAX, u128::MAX / 4), ("b", "", u64::MAX, u128::MAX / 8), ("c", "", 1, 1)]);
        assert_eq!(names(&order), ["b", "a", "c"]);
    }

    #[test]
    fn nobody_is_nobody() {
        assert!(tree(&[]).is_empty());
    }
}
