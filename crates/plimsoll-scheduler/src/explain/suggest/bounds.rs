//! Changes of what bounds people, the calendar and spot nodes: each raised, or kept less of, by just what is short.

use plimsoll_ledger::{
    Blocker, Class, MICRO, Measure, Meter, PolicyObject, Pool, Queue, QuotaPolicy, Reason, Request, Schedule,
    Scope, SpotGroup, SpotPolicy,
};
use plimsoll_types::quantity::{format_bytes, format_resource};
use plimsoll_types::{Amount, ReservationId, Resources};

use super::{MOST_TRIED, Search};
use crate::explain::SingleChange;

impl Search<'_> {
    /// A limit or budget that is short. Its subject is `MEASURE [of user|run NAME] in quota NAME[, when it resets]`.
    pub(super) fn limit(&mut self, blocker: &Blocker, more: u64) {
        let request = &*self.scene.request;
        if request.max_cost_micros > 0 && blocker.subject == "cost of this request" {
            let most = request.max_cost_micros.saturating_add(more);
            let (now, then) = (decimal(request.max_cost_micros), decimal(most));
            let dearer = Request { max_cost_micros: most, ..request.clone() };
            self.request(format!("allow a cost of {then} in place of {now}"), dearer);
            return;
        }
        let Some((what, quota)) = blocker.subject.split_once(" in quota ") else { return };
        let (name, resets) = quota.split_once(", ").unwrap_or((quota, ""));
        let Some(quota) = self.scene.ledger.quota_policy(name) else { return };
        let clock = self.scene.ledger.clock();
        let binds = |(meter, most): &(&Meter, &u64)| {
            **most == blocker.limit
                && what.split(' ').next() == Some(meter.measure.name())
                && scope_of(what) == meter.scope
                && meter.reset.told(clock) == resets
        };
        let Some((meter, most)) = quota.limits.iter().find(binds) else { return };
        let then = most.saturating_add(more);
        let mut raised = QuotaPolicy::clone(quota);
        raised.limits.insert(*meter, then);
        let whose = match meter.scope {
            Scope::Together => "",
            Scope::User => " of each user",
            Scope::Run => " of each run",
        };
        let (now, then) = (shown(meter.measure, *most), shown(meter.measure, then));
        let description =
            format!("allow {then} {}{whose} in place of {now}, in quota {name}", meter.measure.name());
        self.offer(description, SingleChange::Policy(Box::new(PolicyObject::Quota(raised))));
    }

    /// Something that is kept for others. Its subject is `RESOURCE kept for schedule NAME, WINDOW`, or an advance reservation in its place.
    pub(super) fn calendar(&mut self, blocker: &Blocker, more: u64) {
        let Some((resource, keeper)) = blocker.subject.split_once(" kept for ") else { return };
        let keeper = keeper.split(", ").next().unwrap_or(keeper);
        let Some(name) = keeper.strip_prefix("schedule ") else {
            if let Ok(id) = keeper.parse::<ReservationId>() {
                self.offer(format!("end {id}, which is for later"), SingleChange::End(id));
            }
            return;
        };
        let ledger = &self.scene.ledger;
        let less = |kept: &Resources| {
            let now = kept.get(resource);
            let mut less = kept.clone();
            less.set(resource, Amount(now.0.saturating_sub(more)));
            let then = less.get(resource).0;
            let words = match resource {
                plimsoll_ledger::GPU => (format!("{then} thousandths of a GPU"), now.0.to_string()),
                _ => {
                    let (then, now) = (format_resource(resource, then), format_resource(resource, now.0));
                    (format!("{then} of {resource}"), now)
                }
            };
            (less, words)
        };
        let pool = &self.scene.request.pool;
        let (object, (then, now)) = if let Some(schedule) = ledger.schedule(name) {
            let (resources, words) = less(&schedule.resources);
            (PolicyObject::Schedule(Schedule { resources, ..Schedule::clone(schedule) }), words)
        } else if let Some(class) = name.strip_prefix("class ").and_then(|class| ledger.class(class))
            && let Some(kept) = class.guaranteed.get(pool)
        {
            let (resources, words) = less(kept);
            let mut lowered = Class::clone(class);
            lowered.guaranteed.insert(pool.clone(), resources);
            (PolicyObject::Class(lowered), words)
        } else {
            return;
        };
        // What is guaranteed to a class is kept by a schedule that nobody put.
        let keeper = if matches!(object, PolicyObject::Class(_)) { name } else { keeper };
        let description = format!("keep {then} for {keeper} in place of {now}");
        self.offer(description, SingleChange::Policy(Box::new(object)));
    }

    /// A share of the work that may be on spot nodes, and a price above which no node is used.
    pub(super) fn spot(&mut self, blocker: &Blocker) {
        let scene = self.scene;
        let Some(policy) = scene.ledger.spot_policy(&scene.request) else { return };
        match blocker.reason {
            Reason::SpotShare => {
                let group = SpotGroup::of(&scene.request);
                let there = scene.ledger.spot_count(&group).cloned().unwrap_or_default();
                let (members, on_spot) = (there.members + blocker.asked, there.on_spot + blocker.asked);
                let Some((words, raised)) = with_share(policy, members, on_spot) else { return };
                self.offer_spots(&words, raised);
            }
            Reason::LabelMismatch if policy.max_price_permille > 0 => {
                let nodes = scene.ledger.nodes().filter(|node| node.pool == scene.request.pool);
                let dearer = nodes
                    .map(|node| node.price_permille())
                    .filter(|price| *price > policy.max_price_permille);
                let mut prices: Vec<u32> = dearer.collect();
                prices.sort_unstable();
                prices.dedup();
                for price in prices.into_iter().take(MOST_TRIED) {
                    let words =
                        format!("pay {price} thousandths in place of {} at most", policy.max_price_permille);
                    let raised = SpotPolicy { max_price_permille: price, ..policy.clone() };
                    if self.offer_spots(&words, raised) {
                        break;
                    }
                }
            }
            _ => {}
        }
    }

    /// Offers another policy about spot nodes, of the queue or pool that has it.
    fn offer_spots(&mut self, words: &str, policy: SpotPolicy) -> bool {
        let (ledger, request) = (&self.scene.ledger, &self.scene.request);
        let mut queues = ledger.quota().path(&request.queue).filter_map(|name| ledger.queue(name));
        let (object, whose) = match (queues.find(|queue| queue.spot.is_some()), ledger.pool(&request.pool)) {
            (Some(queue), _) => {
                let whose = format!("queue {}", queue.name);
                (PolicyObject::Queue(Queue { spot: Some(policy), ..Queue::clone(queue) }), whose)
            }
            (None, Some(pool)) => {
                let whose = format!("pool {}", pool.name);
                (PolicyObject::Pool(Pool { spot: Some(policy), ..Pool::clone(pool) }), whose)
            }
            (None, None) => return false,
        };
        self.offer(format!("{words}, in {whose}"), SingleChange::Policy(Box::new(object)))
    }
}

/// The least larger share with which so many of the members may be on spot nodes, or else the smaller base.
fn with_share(policy: &SpotPolicy, members: u64, on_spot: u64) -> Option<(String, SpotPolicy)> {
    let beyond = members.saturating_sub(policy.base.into());
    if beyond > 0 && beyond >= on_spot {
        let share_permille = u32::try_from(on_spot.saturating_mul(1_000).div_ceil(beyond)).ok()?;
        let now = policy.share_permille;
        let words =
            format!("let {share_permille} thousandths of the work be on spot nodes in place of {now}");
        return Some((words, SpotPolicy { share_permille, ..policy.clone() }));
    }
    let beyond = on_spot.saturating_mul(1_000).div_ceil(u64::from(policy.share_permille).max(1));
    let base = u32::try_from(members.checked_sub(beyond)?).ok()?;
    let words = format!("keep {base} members off spot nodes before others in place of {}", policy.base);
    Some((words, SpotPolicy { base, ..policy.clone() }))
}

fn scope_of(what: &str) -> Scope {
    match what {
        user if user.contains(" of user ") => Scope::User,
        run if run.contains(" of run ") => Scope::Run,
        _ => Scope::Together,
    }
}

/// As people write it: hours and money with a point, storage in bytes.
fn shown(measure: Measure, amount: u64) -> String {
    match measure {
        timed if timed.is_timed() => decimal(amount),
        Measure::Storage => format_bytes(amount),
        _ => amount.to_string(),
    }
}

/// Millionths: `12.5`.
fn decimal(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / MICRO, micros % MICRO);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_raised_by_no_more_than_it_takes() {
        let policy = SpotPolicy { share_permille: 500, base: 1, ..SpotPolicy::default() };
        let of = |members, on_spot| {
            with_share(&policy, members, on_spot).map(|(_, new)| (new.share_permille, new.base))
        };
        assert_eq!(of(4, 2), Some((667, 1)), "two of the three beyond the first");
        assert_eq!(of(2, 1), Some((1_000, 1)));
        assert_eq!(of(2, 2), None, "half of them is too few with any base");
        let all = SpotPolicy { share_permille: 1_000, base: 2, ..SpotPolicy::default() };
        let base = with_share(&all, 3, 2).map(|(_, new)| (new.share_permille, new.base));
        assert_eq!(base, Some((1_000, 1)));
    }

    #[test]
    fn millionths_are_written_with_a_point() {
        assert_eq!(
            [decimal(2_500_000), decimal(1), decimal(0), decimal(40_000_000)],
            ["2.5", "0.000001", "0", "40"]
        );
    }
}
