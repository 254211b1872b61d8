//! The invariants of `docs/architecture.md`, one file each. They are recomputed here from rows, events and answers, by
//! other code than the ledger's own.

mod i01_conservation;
mod i02_devices;
mod i03_derived;
mod i04_budgets;
mod i04_quota;
mod i04_rates;
mod i05_tokens;
mod i06_life;
mod i07_gangs;
mod i08_release;
mod i09_acknowledged;
mod i10_once;
mod i11_preemption;
mod i11_victims;
mod i12_replicas;
mod i13_determinism;
mod i14_time;
mod i15_order;
mod i20_scaling;
mod i21_arithmetic;
mod i23_watch;
mod i25_calendar;
mod i25_hours;
mod i29_spot;
mod i30_overflow;
mod i31_slices;
mod i67_places;
mod m06_versions;

#[cfg(test)]
mod fixture;

use std::fmt;

use plimsoll_ledger::{MemberPlacement, QuotaPolicy, Reservation, matches_pattern};
use plimsoll_types::{Resources, Revision};

use crate::oracle::{Case, Picture, Step};

/// Findings kept; one broken invariant tends to break thousands of times.
const MOST_FINDINGS: usize = 50;

/// What a member has of its node and its pool: by its role, or as all of them.
fn amounts_of<'a>(one: &'a Reservation, member: &MemberPlacement) -> &'a Resources {
    let role = one.request.roles.get(usize::from(member.role));
    role.map_or(&one.amounts, |role| &role.requirements.amounts)
}

/// What such members have of a resource.
fn members_take(one: &Reservation, resource: &str, such: impl Fn(&MemberPlacement) -> bool) -> u128 {
    let members = one.members.iter().filter(|member| such(member));
    members.map(|member| u128::from(amounts_of(one, member).get(resource).0)).sum()
}

/// A quota is about a user, as far as its tier goes: of those of its group that name the user, the highest, and of two alike the first by name.
fn is_of_tier(picture: &Picture, quota: &QuotaPolicy, user: &str) -> bool {
    let Some(tier) = &quota.tier else { return true };
    let rivals = picture.quotas.values().filter_map(|other| Some((&other.name, other.tier.as_ref()?)));
    let of_user = rivals.filter(|(_, other)| {
        other.group == tier.group && other.users.iter().any(|pattern| matches_pattern(pattern, user))
    });
    // The names come in their order, and of equals the first stays.
    let first = of_user.reduce(|best, next| if next.1.rank > best.1.rank { next } else { best });
    first.is_some_and(|(name, _)| *name == quota.name)
}

/// One invariant.
pub trait Invariant {
    /// Looks at one entry of the log.
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let _ = (step, findings);
    }

    /// Looks at everything, at the end.
    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let _ = (case, findings);
    }
}

/// Every invariant, at its beginning.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(i01_conservation::Conservation),
        Box::new(i02_devices::Devices),
        Box::new(i03_derived::Derived),
        Box::new(i04_quota::Quotas),
        Box::new(i04_budgets::Budgets),
        Box::new(i04_rates::Rates::default()),
        Box::new(i05_tokens::Tokens::default()),
        Box::new(i06_life::Life),
        Box::new(i07_gangs::Gangs),
        Box::new(i08_release::Release::default()),
        Box::new(i09_acknowledged::Acknowledged),
        Box::new(i10_once::Once::default()),
        Box::new(i11_preemption::Preempted),
        Box::new(i11_victims::Victims),
        Box::new(i12_replicas::Replicas),
        Box::new(i13_determinism::Determinism),
        Box::new(i14_time::Time::default()),
        Box::new(i15_order::Order),
        Box::new(i20_scaling::ScalingHolds),
        Box::new(i21_arithmetic::Arithmetic),
        Box::new(i23_watch::Watch),
        Box::new(i25_calendar::Calendar),
        Box::new(i25_hours::Hours),
        Box::new(i29_spot::Spot),
        Box::new(i30_overflow::Overflowing),
        Box::new(i31_slices::Slices::default()),
        Box::new(i67_places::Places),
        Box::new(m06_versions::Versions::default()),
    ]
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Id of the invariant.
    pub invariant: &'static str,
    /// Where it was seen.
    pub revision: Revision,
    /// What was seen.
    pub detail: String,
}

/// What does not hold; empty is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, invariant: &'static str, revision: Revision, detail: String) {
        if self.list.len() < MOST_FINDINGS {
            self.list.push(Finding { invariant, revision, detail });
        }
    }

    /// Those found.
    pub fn list(&self) -> &[Finding] {
        &self.list
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at revision {}: {}", self.invariant, self.revision, self.detail)
    }
}
