//! Who may change what: administrators of queues, each with a say over the subtree below (`docs/semantics.md` 7.2).
//!
//! Invariant: whoever has a say over a part of the tree divides what that part has, and cannot make it more: neither quota, nor limits that others set for it,
//! nor its weight among its siblings.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_mutants::mutant;

use super::queues::up_from;
use crate::limits::{MAX_ITEMS, MAX_PATTERN_BYTES, MAX_QUEUE_DEPTH};
use crate::{
    Blocker, Ledger, PolicyName, PolicyObject, Queue, Quota, Reason, Refusal, Reservation, SYSTEM_ACTOR,
    ScalingPolicy, ScalingTarget, matches_pattern,
};

/// First ledger version that knows administrators.
pub(crate) const SINCE_VERSION: u32 = 8;

/// What a user may do to a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Say<'a> {
    /// Anything.
    All,
    /// What is below this queue, and how that divides what it has.
    Below(&'a str),
    /// Nothing.
    None,
}

/// A tree of queues by name: of the present, or after a change.
type Tree<'a> = BTreeMap<&'a str, &'a Queue>;

impl Say<'_> {
    /// True where it comes from above the queue, so that what the queue itself has may be changed.
    fn is_from_above(&self, queue: &str) -> bool {
        match self {
            Say::All => true,
            Say::Below(top) => *top != queue,
            Say::None => false,
        }
    }
}

impl Queue {
    /// True where this user is named as its administrator.
    pub fn names_admin(&self, user: &str) -> bool {
        self.admins.iter().any(|pattern| matches_pattern(pattern, user))
    }
}

impl Ledger {
    /// Everything that `actor` has no right to change. Free of cost where no queue names administrators; else O(queues x quotas).
    pub(crate) fn check_administration(
        &self,
        actor: &str,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        if put.iter().any(is_of_administration) {
            self.knows(SINCE_VERSION, "administrators of queues", blockers);
        }
        let has_admins = self.queues().any(|queue| !queue.admins.is_empty());
        if actor == SYSTEM_ACTOR || !has_admins || mutant!("anyone-administers") {
            return;
        }
        let after = self.queues_after(put, delete);
        let mut divided: BTreeSet<&str> = BTreeSet::new();
        let mut denied: Vec<PolicyName> = Vec::new();
        for object in put {
            let allowed = match object {
                PolicyObject::Queue(queue) => self.may_put(actor, queue, &after, &mut divided),
                PolicyObject::Quota(quota) => {
                    let old = self.quota_policy(&quota.name).map(|old| old.queue.as_str());
                    old.is_none_or(|old| self.may_limit(actor, old)) && self.may_limit(actor, &quota.queue)
                }
                PolicyObject::ScalingPolicy(policy) => {
                    // Before version 9 the old one was not looked at: logs of that time say so.
                    let old = self.scaling_policy(&policy.name).filter(|_| self.meta.version >= 9);
                    let of_services = of_service(policy) && old.is_none_or(|old| of_service(old));
                    of_services || self.administers_all(actor)
                }
                PolicyObject::Service(_) => true,
                PolicyObject::Pool(_)
                | PolicyObject::Class(_)
                | PolicyObject::NodeLimits(_)
                | PolicyObject::Validator(_)
                | PolicyObject::Schedule(_) => self.administers_all(actor),
            };
            denied.extend((!allowed).then(|| object.name()));
        }
        for name in delete {
            let allowed = match name {
                PolicyName::Queue(queue) => {
                    let say = self.say_now(actor, queue);
                    if let Say::Below(top) = say {
                        divided.insert(top);
                    }
                    say.is_from_above(queue)
                }
                PolicyName::Quota(quota) => {
                    self.quota_policy(quota).is_none_or(|quota| self.may_limit(actor, &quota.queue))
                }
                PolicyName::ScalingPolicy(policy) => {
                    self.scaling_policy(policy).is_none_or(|policy| of_service(policy))
                        || self.administers_all(actor)
                }
                PolicyName::Service(_) => true,
                PolicyName::Pool(_)
                | PolicyName::Class(_)
                | PolicyName::NodeLimits(_)
                | PolicyName::Validator(_)
                | PolicyName::Schedule(_) => self.administers_all(actor),
            };
            denied.extend((!allowed).then(|| name.clone()));
        }
        let say_no = |name: PolicyName| {
            let subject = format!("{} {}, by {actor}", name.kind(), name.name());
            Blocker::new(Reason::PermissionDenied, subject, 1, 0)
        };
        blockers.extend(denied.into_iter().map(say_no));
        for top in divided {
            blockers.extend(self.grown(actor, top, &after));
        }
    }

    /// Whoever asked for it may cancel it, and whoever administers its queue; everybody where no queue above it names administrators.
    ///
    /// # Errors
    /// `PermissionDenied`, with the reservation and who asks.
    pub(crate) fn check_cancel(&self, actor: &str, reservation: &Reservation) -> Result<(), Refusal> {
        if actor == SYSTEM_ACTOR || actor == reservation.requester {
            return Ok(());
        }
        let path = up_from(|name| self.queue(name).map(AsRef::as_ref), &reservation.request.queue);
        let mut naming = path.filter(|queue| !queue.admins.is_empty()).peekable();
        if naming.peek().is_none() || naming.any(|queue| queue.names_admin(actor)) {
            return Ok(());
        }
        let subject = format!("reservation {} of {}, by {actor}", reservation.id, reservation.requester);
        Err(Refusal::one(Reason::PermissionDenied, subject, 1, 0))
    }

    /// What somebody may do to a queue where it is. O(depth).
    fn say_now(&self, actor: &str, queue: &str) -> Say<'_> {
        self.say(actor, up_from(|name| self.queue(name).map(AsRef::as_ref), queue))
    }

    /// What somebody may do to the first queue of a path to a root. Administrators are those of now: a change gives nobody rights for itself.
    fn say<'a, 'p>(&'a self, actor: &str, path: impl Iterator<Item = &'p Queue>) -> Say<'a> {
        let path: Vec<&Queue> = path.take(MAX_QUEUE_DEPTH).collect();
        let known: Vec<&'a Queue> =
            path.iter().filter_map(|queue| self.queue(&queue.name)).map(AsRef::as_ref).collect();
        let is_rooted = path.last().zip(known.last()).is_some_and(|(root, last)| root.name == last.name);
        let naming: Vec<&'a Queue> = known.iter().filter(|queue| !queue.admins.is_empty()).copied().collect();
        if naming.is_empty() || !is_rooted {
            return if self.administers_all(actor) { Say::All } else { Say::None };
        }
        match naming.iter().rev().find(|queue| queue.names_admin(actor)) {
            None => Say::None,
            Some(top) if top.parent.is_empty() => Say::All,
            Some(top) => Say::Below(&top.name),
        }
    }

    /// Whether somebody administers every root that names administrators: then what is of the whole cluster is theirs to change.
    fn administers_all(&self, actor: &str) -> bool {
        let mut roots = self.queues().filter(|queue| queue.parent.is_empty() && !queue.admins.is_empty());
        roots.all(|root| root.names_admin(actor))
    }

    /// Whether somebody may put a queue; notes the queue whose part of the tree is divided anew by it.
    fn may_put<'a>(
        &'a self,
        actor: &str,
        queue: &Queue,
        after: &Tree<'_>,
        divided: &mut BTreeSet<&'a str>,
    ) -> bool {
        let old = self.queue(&queue.name);
        let before = old.map_or(Say::All, |_| self.say_now(actor, &queue.name));
        let then = self.say(actor, up_from(|name| after.get(name).copied(), &queue.name));
        let mut allowed = true;
        for say in [before, then] {
            match say {
                Say::All => {}
                Say::Below(top) => {
                    divided.insert(top);
                    allowed &=
                        say.is_from_above(&queue.name) || old.is_some_and(|old| only_gives(old, queue));
                }
                Say::None => allowed = false,
            }
        }
        allowed
    }

    /// Whether somebody may put limits on a queue, or on everybody: what is above it says so, not itself.
    fn may_limit(&self, actor: &str, queue: &str) -> bool {
        match self.queue(queue) {
            None => self.administers_all(actor),
            Some(_) => self.say_now(actor, queue).is_from_above(queue),
        }
    }

    /// What a part of the tree would have more of than it has.
    fn grown(&self, actor: &str, top: &str, after: &Tree<'_>) -> Vec<Blocker> {
        let (before, then) = (sums(&self.queues_after(&[], &[]), top), sums(after, top));
        let more = then.into_iter().filter_map(|((part, pool, resource), sum)| {
            let had = before.get(&(part, pool, resource)).copied().unwrap_or_default();
            let subject = format!("{part} {resource} of pool {pool} in queue {top} and below, by {actor}");
            let number = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
            (sum > had).then(|| Blocker::new(Reason::PermissionDenied, subject, number(sum), number(had)))
        });
        more.collect()
    }
}

/// Nominal and guaranteed of each pool and resource, of a queue and all below it.
fn sums<'a>(tree: &Tree<'a>, top: &str) -> BTreeMap<(&'static str, &'a str, &'a str), u128> {
    let mut sums = BTreeMap::new();
    let is_within = |queue: &Queue| {
        let path = up_from(|name| tree.get(name).copied(), &queue.name);
        path.take(MAX_QUEUE_DEPTH).any(|above| above.name == top)
    };
    for queue in tree.values().filter(|queue| is_within(queue)) {
        for (pool, quotas) in &queue.quotas {
            for (resource, quota) in quotas {
                let parts = [("nominal", quota.nominal), ("guaranteed", quota.guaranteed)];
                for (part, amount) in parts {
                    let sum = sums.entry((part, pool.as_str(), resource.as_str())).or_insert(0_u128);
                    *sum += u128::from(amount.0);
                }
            }
        }
    }
    sums
}

/// True where a queue is as it was, but for quota that it has less of: its own administrators hand it down.
fn only_gives(old: &Queue, new: &Queue) -> bool {
    let none = Quota::default();
    let of = |queue: &Queue, pool: &str, resource: &str| {
        queue.quotas.get(pool).and_then(|quotas| quotas.get(resource)).copied().unwrap_or(none)
    };
    let places = |queue: &Queue| -> BTreeSet<(String, String)> {
        let pairs = queue
            .quotas
            .iter()
            .flat_map(|(pool, quotas)| quotas.keys().map(move |resource| (pool.clone(), resource.clone())));
        pairs.collect()
    };
    let gives = |(pool, resource): &(String, String)| {
        let (had, has) = (of(old, pool, resource), of(new, pool, resource));
        has.limit == had.limit && has.nominal <= had.nominal && has.guaranteed <= had.guaranteed
    };
    // Of a resource that is not said any more, the limit would be gone with it.
    places(old) == places(new)
        && places(new).iter().all(gives)
        && Queue { quotas: old.quotas.clone(), changed: old.changed, ..new.clone() } == *old
}

fn of_service(policy: &ScalingPolicy) -> bool {
    matches!(policy.target, ScalingTarget::Service(_))
}

/// True for what ledgers before [`SINCE_VERSION`] do not know.
pub(super) fn is_of_administration(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Queue(queue) if !queue.admins.is_empty())
}

/// Every way in which a queue's administrators make no sense.
pub(crate) fn validate_admins(queue: &Queue) -> Vec<Blocker> {
    let refuse = |field: String, value: usize, most: usize| {
        Blocker::new(Reason::InvalidArgument, field, value as u64, most as u64)
    };
    let mut bad = Vec::new();
    if queue.admins.len() > MAX_ITEMS {
        bad.push(refuse("queue.admins".to_owned(), queue.admins.len(), MAX_ITEMS));
    }
    for (index, admin) in queue.admins.iter().enumerate() {
        if admin.is_empty() || admin.len() > MAX_PATTERN_BYTES {
            bad.push(refuse(format!("queue.admins[{index}]"), admin.len(), MAX_PATTERN_BYTES));
        }
        if queue.admins[..index].contains(admin) {
            bad.push(refuse(format!("queue.admins[{index}] {admin:?}, which is there already"), 2, 1));
        }
    }
    bad
}
