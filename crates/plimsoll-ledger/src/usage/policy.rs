//! The quota as people put it: whom it is about, limits of its meters, rates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_types::{Labels, Revision};

use super::tier::TierIndex;
use super::{Measure, Meter, Rate, Tier};

/// Limits, budgets and rates for some, or for everyone. From ledger version 4 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaPolicy {
    /// Unique name.
    pub name: String,
    /// Labels of the quota itself.
    pub labels: Labels,
    /// About requests of this queue and of those below it; empty for requests of any queue, or none.
    pub queue: String,
    /// About users whose name matches this; `*` stands for anything. Empty for every user.
    pub tenant: String,
    /// About the users of one tier of several, and no others; `None` where queue and tenant say whom. From ledger version 14 on.
    pub tier: Option<Tier>,
    /// Most of each meter.
    pub limits: BTreeMap<Meter, u64>,
    /// Requests wait for a budget that is used up, where they can wait at all. Otherwise they are refused at once.
    pub queue_when_exhausted: bool,
    /// What money is counted in; empty where nobody says.
    pub currency: String,
    /// Rates, by name. That of the name `requests` bounds how fast each user may submit requests.
    pub rates: BTreeMap<String, Rate>,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// Name of the rate that submissions take from.
pub(crate) const REQUESTS: &str = "requests";

impl QuotaPolicy {
    /// True where it is about this user, its queue aside.
    pub fn is_about_user(&self, user: &str) -> bool {
        self.tenant.is_empty() || matches_pattern(&self.tenant, user)
    }

    /// True where it has any limit in money.
    pub fn counts_money(&self) -> bool {
        self.limits.keys().any(|meter| meter.measure == Measure::Cost)
    }
}

/// True where `text` is what `pattern` says; `*` stands for anything, also for nothing.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Which quotas to look at for a request, without looking at all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuotaIndex {
    by_queue: BTreeMap<String, BTreeSet<String>>,
    by_tenant: BTreeMap<String, BTreeSet<String>>,
    /// About everyone, or by a pattern.
    wide: BTreeSet<String>,
    tiers: TierIndex,
}

impl QuotaIndex {
    pub(crate) fn put(&mut self, quota: &Arc<QuotaPolicy>) {
        match &quota.tier {
            Some(tier) => self.tiers.put(quota, tier),
            None => drop(self.set_of(quota).insert(quota.name.clone())),
        }
    }

    pub(crate) fn remove(&mut self, quota: &Arc<QuotaPolicy>) {
        match &quota.tier {
            Some(tier) => self.tiers.remove(quota, tier),
            None => drop(self.set_of(quota).remove(&quota.name)),
        }
        self.by_queue.retain(|_, names| !names.is_empty());
        self.by_tenant.retain(|_, names| !names.is_empty());
    }

    /// Names of the quotas that may be about a user with a request in one of these queues.
    pub(crate) fn near<'a>(
        &'a self,
        user: &'a str,
        queues: impl Iterator<Item = &'a str>,
    ) -> impl Iterator<Item = &'a str> {
        let queued: Vec<&BTreeSet<String>> = queues.filter_map(|queue| self.by_queue.get(queue)).collect();
        let own = self.by_tenant.get(user).into_iter();
        queued
            .into_iter()
            .chain(own)
            .flatten()
            .chain(&self.wide)
            .map(String::as_str)
            .chain(self.tiers.of(user))
    }

    fn set_of(&mut self, quota: &QuotaPolicy) -> &mut BTreeSet<String> {
        if !quota.queue.is_empty() {
            self.by_queue.entry(quota.queue.clone()).or_default()
        } else if !quota.tenant.is_empty() && !quota.tenant.contains('*') {
            self.by_tenant.entry(quota.tenant.clone()).or_default()
        } else {
            &mut self.wide
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, text, matches) in [
            ("ada", "ada", true),
            ("ada", "adam", false),
            ("*", "", true),
            ("ada*", "adam", true),
            ("*-team", "vision-team", true),
            ("*-team", "vision-teams", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("team/*", "team/ada", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), matches, "{pattern} {text}");
        }
    }
}
