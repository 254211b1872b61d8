//! Weights of a service's endpoints, for balancers that are told weights: over xDS, and by agent checks. They come from the same picker as picks,
//! so that slow start and reported loads reach clients that pick for themselves.
//!
//! Invariants: an endpoint of weight above 0 is never told 0; what is told changes only where the weight moved by more than [`STEP_PERCENT`], or came to
//! the whole.

use std::collections::BTreeMap;

use plimsoll_balancer::{EjectionSettings, Endpoint, EndpointId, LoadReport, Picker, Settings};
use plimsoll_proto::v1;

use crate::picker_of;

/// A weight is told anew where it is further than this from the one that was told: each change is sent to every client.
const STEP_PERCENT: u64 = 5;
/// The usual weight, in thousandths.
const WHOLE_MILLI: u32 = 1_000;

/// Who an endpoint is: its reservation, and the token of its grant.
pub type Member = (u64, u64);

/// What is known of an endpoint that takes requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its share by its own word, in thousandths.
    pub weight_milli: u32,
    /// The level that it is in. Weights compare within a level.
    pub priority: u32,
    /// Since when it serves.
    pub since_us: u64,
    /// What it said last of its load, and when.
    pub load: Option<(u64, LoadReport)>,
}

/// Weighs the endpoints of one service.
pub struct Weigher {
    service: v1::Service,
    /// By priority, each with a picker of its own: a level that is given no requests at present has weights too.
    levels: BTreeMap<u32, Picker>,
    members: BTreeMap<Member, (EndpointId, Facts)>,
    next_number: u64,
    told: BTreeMap<Member, u32>,
}

impl Weigher {
    /// Of a service without endpoints.
    pub fn new(service: v1::Service) -> Weigher {
        Weigher {
            service,
            levels: BTreeMap::new(),
            members: BTreeMap::new(),
            next_number: 0,
            told: BTreeMap::new(),
        }
    }

    /// When endpoints that fail are left alone, for clients that see to it themselves.
    pub fn ejection() -> Option<EjectionSettings> {
        Settings::default().ejection
    }

    /// Takes up the present endpoints that take requests. O(endpoints log endpoints) where something changed.
    pub fn follow(&mut self, now_us: u64, service: &v1::Service, present: BTreeMap<Member, Facts>) {
        if *service != self.service {
            *self = Weigher { told: std::mem::take(&mut self.told), ..Weigher::new(service.clone()) };
        }
        let mut before = std::mem::take(&mut self.members);
        let mut reports = Vec::new();
        let mut is_changed = false;
        for (member, facts) in present {
            let known = before.remove(&member);
            let old = known.as_ref().map(|(_, old)| old);
            is_changed |= old.is_none_or(|old| Facts { load: facts.load, ..old.clone() } != facts);
            let id = known.as_ref().map_or_else(
                || {
                    self.next_number += 1;
                    EndpointId(self.next_number)
                },
                |(id, _)| *id,
            );
            // One that was written long ago counts from then, not from when it is heard of here.
            if let Some((at_us, report)) =
                facts.load.filter(|load| old.and_then(|old| old.load) != Some(*load))
            {
                reports.push((facts.priority, id, at_us.min(now_us), report));
            }
            self.members.insert(member, (id, facts));
        }
        if is_changed || !before.is_empty() {
            self.set_endpoints();
        }
        for (priority, id, at_us, report) in reports {
            if let Some(picker) = self.levels.get_mut(&priority) {
                picker.report(at_us, id, &report);
            }
        }
    }

    /// Works the weights out. True where one of them is to be told anew. O(endpoints log endpoints).
    pub fn weigh(&mut self, now_us: u64) -> bool {
        let by_reports = self.service.balancing() == v1::Balancing::Weighted;
        // An endpoint that ramps up on a ring would move keys each second.
        let as_declared = self.service.balancing() == v1::Balancing::Affinity;
        let mut shares: BTreeMap<EndpointId, u32> = BTreeMap::new();
        for picker in self.levels.values_mut().filter(|_| !as_declared) {
            shares.extend(picker.weights(now_us, 0));
        }
        let mut told = BTreeMap::new();
        for (member, (id, facts)) in &self.members {
            // In thousandths of the declared weight, or of a million where reports decide: the best has that.
            let (unit, whole) =
                if by_reports { (1_000_000, WHOLE_MILLI) } else { (1_000, facts.weight_milli) };
            let milli = match shares.get(id) {
                Some(share) => (share / unit).max(u32::from(facts.weight_milli > 0)),
                None => facts.weight_milli,
            };
            let new = match self.told.get(member) {
                Some(old) if !is_news(*old, milli, whole) => *old,
                _ => milli,
            };
            told.insert(*member, new);
        }
        let is_changed = told != self.told;
        self.told = told;
        is_changed
    }

    /// The weight of an endpoint, in thousandths; `None` of one that takes no requests, or was not weighed yet.
    pub fn weight_milli(&self, member: Member) -> Option<u32> {
        self.told.get(&member).copied()
    }

    fn set_endpoints(&mut self) {
        let mut by_level: BTreeMap<u32, Vec<Endpoint>> = BTreeMap::new();
        for (id, facts) in self.members.values() {
            by_level.entry(facts.priority).or_default().push(Endpoint {
                weight: facts.weight_milli,
                ready_since_us: facts.since_us,
                ..Endpoint::new(*id)
            });
        }
        self.levels.retain(|priority, _| by_level.contains_key(priority));
        for (priority, endpoints) in by_level {
            let picker = self.levels.entry(priority).or_insert_with(|| picker_of(&self.service, None));
            picker.set_endpoints(endpoints);
        }
    }
}

fn is_news(old: u32, new: u32, whole: u32) -> bool {
    let moved = u64::from(old.abs_diff(new)) * 100;
    moved > u64::from(old) * STEP_PERCENT || (new == whole && old != whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn service(balancing: v1::Balancing, slow_start_ms: u64) -> v1::Service {
        v1::Service { balancing: balancing.into(), slow_start_ms, ..v1::Service::default() }
    }

    fn facts(weight_milli: u32, since_us: u64) -> Facts {
        Facts { weight_milli, since_us, ..Facts::default() }
    }

    fn weights(weigher: &Weigher, members: &[Member]) -> Vec<Option<u32>> {
        members.iter().map(|member| weigher.weight_milli(*member)).collect()
    }

    #[test]
    fn a_new_endpoint_ramps_up_in_steps_and_ends_at_its_whole_weight() {
        let of = service(v1::Balancing::LeastLoaded, 100_000);
        let mut weigher = Weigher::new(of.clone());
        let (old, new) = ((1, 1), (2, 2));
        let present = BTreeMap::from([(old, facts(1_000, 0)), (new, facts(2_000, 1_000 * S))]);
        weigher.follow(1_000 * S, &of, present.clone());
        assert!(weigher.weigh(1_000 * S));
        assert_eq!(weights(&weigher, &[old, new, (3, 3)]), [Some(1_000), Some(200), None]);
        let mut told = 0;
        for second in 1..=100 {
            told += u32::from(weigher.weigh((1_000 + second) * S));
        }
        assert_eq!(weights(&weigher, &[old, new]), [Some(1_000), Some(2_000)]);
        assert!((20..60).contains(&told), "{told} changes for a ramp of 100 s");
        assert!(!weigher.weigh(2_000 * S), "nothing changes any more");
        // What stays at its weight while the service is put anew is not told anew.
        weigher.follow(2_000 * S, &v1::Service { revision: 7, ..of }, present);
        assert!(!weigher.weigh(2_001 * S));
    }

    #[test]
    fn reported_loads_become_weights_where_the_service_goes_by_them() {
        for (balancing, expected) in [
            (v1::Balancing::Weighted, [Some(1_000), Some(250), Some(625)]),
            (v1::Balancing::RoundRobin, [Some(1_000), Some(1_000), Some(1_000)]),
        ] {
            let of = service(balancing, 0);
            let mut weigher = Weigher::new(of.clone());
            for second in 0..=20 {
                let at_us = second * S;
                let says = |utilization| Facts {
                    load: Some((
                        at_us,
                        LoadReport {
                            application_utilization_permille: utilization,
                            requests_per_s_milli: 100_000,
                            ..LoadReport::default()
                        },
                    )),
                    ..facts(1_000, 0)
                };
                let present = [((1, 1), says(200)), ((2, 2), says(800)), ((3, 3), facts(1_000, 0))];
                weigher.follow(at_us, &of, present.into());
                weigher.weigh(at_us);
            }
            assert_eq!(weights(&weigher, &[(1, 1), (2, 2), (3, 3)]), expected, "{balancing:?}");
        }
    }

    #[test]
    fn an_endpoint_of_a_level_that_takes_nothing_yet_has_its_weight_too() {
        let of = service(v1::Balancing::RoundRobin, 10_000);
        let mut weigher = Weigher::new(of.clone());
        let spare = Facts { priority: 1, ..facts(500, 95 * S) };
        weigher.follow(100 * S, &of, BTreeMap::from([((1, 1), facts(1_000, 0)), ((2, 2), spare)]));
        weigher.weigh(100 * S);
        assert_eq!(weights(&weigher, &[(1, 1), (2, 2)]), [Some(1_000), Some(250)]);
    }

    #[test]
    fn with_affinity_weights_are_the_declared_ones() {
        let of = service(v1::Balancing::Affinity, 100_000);
        let mut weigher = Weigher::new(of.clone());
        weigher.follow(S, &of, BTreeMap::from([((1, 1), facts(700, S))]));
        weigher.weigh(S);
        assert_eq!(weigher.weight_milli((1, 1)), Some(700));
        weigher.follow(2 * S, &of, BTreeMap::from([((1, 1), facts(0, S))]));
        assert!(weigher.weigh(2 * S), "weight 0 is told");
        assert_eq!(weigher.weight_milli((1, 1)), Some(0));
    }
}
