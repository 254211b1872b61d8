//! I11, its part on who may be made to leave: what the pool allows, classes that may be taken back, runs that are protected, queues of one tree,
//! so many in an hour, and no queue left with less than is guaranteed to it.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Command, Pool, Preempted, Preemption, PreemptionRule, Reservation, Resolve, State};

use super::i04_quota::View;
use super::{Findings, Invariant, members_take};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Victims;

const HOUR_MS: u64 = 3_600_000;

impl Invariant for Victims {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let Command::Preempt { reservation, .. } = &step.entry.command else { return };
        let Some(claimant) = step.before.reservations.get(reservation) else { return };
        let given = |after: &Reservation, before: &Reservation| {
            after.preempted().filter(|_| before.preempted != after.preempted)
        };
        let victims: Vec<(&Reservation, Preempted)> = step
            .moved()
            .filter_map(|(before, after)| {
                let before = before?;
                Some((before.as_ref(), given(after, before)?))
            })
            .collect();
        let mut add = |detail: String| findings.add("I11", step.revision, detail);
        for (victim, given) in &victims {
            if let Some(wrong) = wronged(step, claimant, victim, given) {
                add(format!("{}: {wrong}", victim.id));
            }
        }
        if victims.is_empty() {
            return;
        }
        let pool = &claimant.request.pool;
        let most = step.before.pools.get(pool).map_or(0, |pool| u64::from(pool.max_preemptions_per_hour));
        let since = step.after.log_time.0.saturating_sub(HOUR_MS);
        let lately = step.after.reservations.values().filter(|one| {
            let counts = |given: Preempted| given.at.0 >= since && given.rule != PreemptionRule::Interruption;
            one.request.pool == *pool && one.preempted().is_some_and(counts)
        });
        let lately = lately.count() as u64;
        if most > 0 && lately > most {
            add(format!("{lately} preemptions of pool {pool} within an hour, of {most}"));
        }
        for (queue, resource) in short_of_guarantee(step, claimant, &victims) {
            add(format!("queue {queue} has less {resource} than is guaranteed to it, for {}", claimant.id));
        }
    }
}

/// True where a pool preempts to resolve contention, and none is being resolved so.
fn is_closed(step: &Step, pool: &Pool) -> bool {
    let resolves = |kinds: &BTreeSet<Resolve>| kinds.contains(&Resolve::Preempt);
    let mut open = step.before.contentions.values().filter(|one| one.pool == pool.name);
    pool.contention.as_ref().is_some_and(|policy| resolves(&policy.resolve))
        && !open.any(|one| resolves(&one.resolving))
}

/// Why one may not be made to leave.
fn wronged(step: &Step, claimant: &Reservation, victim: &Reservation, given: &Preempted) -> Option<String> {
    let class = step.before.classes.get(&victim.request.class);
    let pool = step.before.pools.get(&claimant.request.pool)?;
    let allowed = if is_closed(step, pool) { Preemption::Never } else { pool.preemption };
    let by_class = given.rule == PreemptionRule::LowerClass;
    if victim.is_best_effort() != (given.rule == PreemptionRule::BestEffort) && !claimant.is_best_effort() {
        return Some(format!("leaves by {:?}, best effort or not", given.rule));
    }
    if claimant.is_best_effort() && !victim.is_best_effort() {
        return Some("is backed, and leaves for best effort".to_owned());
    }
    let loose = given.rule == PreemptionRule::BestEffort;
    let told = loose && allowed != Preemption::Never
        || match allowed {
            Preemption::Any => true,
            Preemption::LowerClass => by_class,
            Preemption::Reclaim => !by_class,
            Preemption::Never => false,
        };
    if !told {
        return Some(format!("leaves by {:?}, and the pool allows {allowed:?}", given.rule));
    }
    if by_class && !class.is_some_and(|class| class.preemptible) {
        return Some(format!("is of class {}, which is not preemptible", victim.request.class));
    }
    if by_class && victim.priority >= claimant.priority {
        return Some(format!("of priority {} leaves for {}", victim.priority, claimant.priority));
    }
    let min_run_ms = class.map_or(0, |class| class.min_run_ms);
    if step.after.log_time.0 < victim.granted_at.0 + min_run_ms {
        return Some(format!("ran since {} only, of {min_run_ms} ms", victim.granted_at));
    }
    let (ours, theirs) = (&claimant.request.queue, &victim.request.queue);
    if loose {
        return None;
    }
    (root(&step.before, ours) != root(&step.before, theirs))
        .then(|| format!("of queue {theirs:?} leaves for one of {ours:?}"))
}

fn root<'a>(picture: &'a Picture, queue: &'a str) -> &'a str {
    let first = picture.queues.get(queue);
    let up = std::iter::successors(first, |queue| picture.queues.get(&queue.parent));
    up.last().map_or("", |queue| queue.name.as_str())
}

/// Queues other than the claimant's that lost, by class, a resource that the claimant's nodes were short of, and have less than is guaranteed now.
fn short_of_guarantee(
    step: &Step,
    claimant: &Reservation,
    victims: &[(&Reservation, Preempted)],
) -> BTreeSet<(String, &'static str)> {
    let pool = claimant.request.pool.as_str();
    let mut short = BTreeSet::new();
    for resource in ["cpu", "memory"] {
        let own: BTreeMap<String, i128> = later(&step.after, pool, resource, claimant);
        let view = View { picture: &step.after, pool, resource, taken: &own };
        let lost = victims.iter().filter(|(victim, given)| {
            given.rule == PreemptionRule::LowerClass
                && victim.request.queue != claimant.request.queue
                && members_take(victim, resource, |_| true) > 0
        });
        for (victim, _) in lost {
            let queue = victim.request.queue.as_str();
            let guaranteed = i128::from(view.quota(queue).guaranteed.0);
            let scarce = is_scarce(step, claimant, resource);
            if scarce && view.is_managed(root(&step.after, queue)) && view.usage(queue) < guaranteed {
                short.insert((queue.to_owned(), resource));
            }
        }
    }
    short
}

/// What stays taken by each queue once those who were given notice have left, the claimant aside.
fn later(picture: &Picture, pool: &str, resource: &str, claimant: &Reservation) -> BTreeMap<String, i128> {
    let mut taken = BTreeMap::new();
    for one in picture.reservations.values().filter(|one| one.request.pool == pool && one.id != claimant.id) {
        if one.state == State::Planned || one.state.is_occupying() && one.resume_state != State::Preempting {
            let amount = members_take(one, resource, |_| true) as i128;
            *taken.entry(one.request.queue.clone()).or_default() += amount;
        }
    }
    taken
}

/// Some node of the place is short of the resource, whoever was leaving already.
fn is_scarce(step: &Step, claimant: &Reservation, resource: &str) -> bool {
    let Some(planned) = step.after.reservations.get(&claimant.id) else { return false };
    planned.members.iter().any(|place| {
        let Some(node) = step.before.nodes.get(&place.node) else { return false };
        let here =
            |one: &Reservation| members_take(one, resource, |member| member.node == place.node) as i128;
        let asked = here(planned);
        let stays = |one: &Reservation| {
            one.id != claimant.id
                && (one.state == State::Planned
                    || one.state.is_occupying() && one.resume_state != State::Preempting)
        };
        let staying = || step.before.reservations.values().filter(|one| stays(one));
        let all: i128 = staying().map(|one| here(one)).sum();
        let backed: i128 = staying().filter(|one| !one.is_best_effort()).map(|one| here(one)).sum();
        let real = node.allocatable.get(resource);
        let offered = step.before.pools.get(&node.pool).map_or(real, |pool| pool.offers(resource, real));
        let unbacked = !claimant.is_best_effort() && backed + asked > i128::from(real.0);
        unbacked || all + asked > i128::from(offered.0)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_ledger::{Class, ContentionPolicy, Placement, Queue, Quota, Request};
    use plimsoll_types::{Amount, LedgerTime, ReservationId, Revision};

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    fn of_queue(queue: &str) -> Arc<Request> {
        let (pool, class) = ("default".to_owned(), "low".to_owned());
        Arc::new(Request { pool, class, queue: queue.to_owned(), ..Request::default() })
    }

    /// Reservation 1, of queue b with this guarantee, leaves for reservation 2 of queue a, which asks for all of the node.
    fn taken(guaranteed: u64, change: impl Fn(&mut Picture)) -> Vec<&'static str> {
        let mut victim = reservation(1);
        victim.request = of_queue("b");
        let mut waits = reservation(2);
        waits.request = of_queue("a");
        (waits.state, waits.resume_state, waits.priority) = (State::Pending, State::Pending, 75);
        waits.amounts = plimsoll_types::Resources::new(8_000, 1);
        let members = std::mem::take(&mut waits.members);
        let before = step(&[node(0)], &[victim.clone(), waits.clone()]).after;
        victim.preempted = Some(Box::new(Preempted {
            by: ReservationId(2),
            rule: PreemptionRule::LowerClass,
            to: None,
            at: LedgerTime(1_000),
            revision: Revision(10),
            grace_ms: 5_000,
            evicted: None,
        }));
        (victim.state, victim.resume_state) = (State::Preempting, State::Preempting);
        (waits.state, waits.members) = (State::Planned, members);
        let mut given = step(&[node(0)], &[victim, waits]);
        given.before = before;
        given.entry.command = Command::Preempt {
            reservation: ReservationId(2),
            placement: Placement { members: Vec::new() },
            victims: vec![ReservationId(1)],
        };
        let quota = Quota { guaranteed: Amount(guaranteed), nominal: Amount(guaranteed), limit: None };
        let quotas = [("default".to_owned(), [("cpu".to_owned(), quota)].into())];
        let queue = |name: &str, parent: &str| {
            let (name, parent) = (name.to_owned(), parent.to_owned());
            Arc::new(Queue { name, parent, quotas: quotas.clone().into(), ..Queue::default() })
        };
        let prepare = |picture: &mut Picture| {
            let class = Class { name: "low".to_owned(), preemptible: true, ..Class::default() };
            picture.classes.insert("low".to_owned(), Arc::new(class));
            let pool = Pool { name: "default".to_owned(), ..Pool::default() };
            picture.pools.insert("default".to_owned(), Arc::new(pool));
            picture.queues.insert("org".to_owned(), queue("org", ""));
            picture.queues.insert("a".to_owned(), queue("a", "org"));
            picture.queues.insert("b".to_owned(), queue("b", "org"));
            change(picture);
        };
        prepare(given.before_mut());
        prepare(given.after_mut());
        found(&mut Victims, &given)
    }

    fn pool(change: impl Fn(&mut Pool)) -> impl Fn(&mut Picture) {
        move |picture| {
            if let Some(pool) = picture.pools.get_mut("default") {
                change(Arc::make_mut(pool));
            }
        }
    }

    fn class(change: impl Fn(&mut Class)) -> impl Fn(&mut Picture) {
        move |picture| {
            if let Some(class) = picture.classes.get_mut("low") {
                change(Arc::make_mut(class));
            }
        }
    }

    #[test]
    fn every_clause_that_is_broken_is_found() {
        assert_eq!(taken(0, |_| {}), Vec::<&str>::new());
        assert_eq!(taken(500, |_| {}), ["I11"], "less than is guaranteed");
        assert_eq!(taken(0, pool(|pool| pool.preemption = Preemption::Never)), ["I11"]);
        assert_eq!(taken(0, pool(|pool| pool.preemption = Preemption::Reclaim)), ["I11"]);
        assert_eq!(taken(0, pool(|pool| pool.contention = Some(only_then()))), ["I11"]);
        assert_eq!(taken(0, class(|class| class.preemptible = false)), ["I11"]);
        assert_eq!(taken(0, class(|class| class.min_run_ms = 1)), ["I11"]);
        let apart = |picture: &mut Picture| {
            if let Some(queue) = picture.queues.get_mut("b") {
                Arc::make_mut(queue).parent.clear();
            }
        };
        assert_eq!(taken(0, apart), ["I11"], "another tree");
    }

    fn only_then() -> ContentionPolicy {
        ContentionPolicy { resolve: [Resolve::Preempt].into(), ..ContentionPolicy::default() }
    }

    #[test]
    fn more_in_an_hour_than_the_pool_allows_are_found() {
        let earlier = |picture: &mut Picture| {
            pool(|pool| pool.max_preemptions_per_hour = 1)(picture);
            let mut other = reservation(3);
            other.request = of_queue("b");
            let noticed = picture.reservations.get(&ReservationId(1)).and_then(|one| one.preempted());
            other.preempted = noticed.map(Box::new);
            picture.reservations.insert(other.id, Arc::new(other));
        };
        assert_eq!(taken(0, earlier), ["I11"]);
        assert_eq!(taken(0, pool(|pool| pool.max_preemptions_per_hour = 1)), Vec::<&str>::new());
    }
}
