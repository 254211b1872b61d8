//! What a pick finds ready: the levels with their endpoints, weights, schedules and rings, worked out when something changed or is due.

use std::collections::BTreeMap;

use crate::ejection::{Outlier, sweep};
use crate::endpoint::{Endpoint, EndpointId, Health};
use crate::levels::{Census, Share, shares};
use crate::picker::{NoEndpoint, Picker, Slot};
use crate::policy::Policy;
use crate::report::spread;
use crate::ring::Ring;
use crate::schedule::Schedule;
use crate::slow_start::SlowStart;

/// While an endpoint is in slow start, weights are worked out so often.
const RAMP_STEP_US: u64 = 1_000_000;
/// Load reports are never looked through more often than this (gRFC A58).
const LEAST_UPDATE_US: u64 = 100_000;

/// One priority level that is given requests.
#[derive(Default)]
pub(crate) struct Level {
    priority: u32,
    /// Its share of all requests.
    pub(crate) permille: u32,
    /// Who may be picked, in order.
    pub(crate) available: Vec<u32>,
    /// Requests outstanding on them. Kept for affinity alone.
    pub(crate) outstanding: u64,
    /// Their weights together.
    pub(crate) weight: u64,
    /// Of round_robin and weighted.
    pub(crate) schedule: Schedule,
    /// Of affinity: all members, so that one that is unhealthy for a moment moves no other keys than its own.
    pub(crate) ring: Ring,
}

impl Slot {
    fn is_member(&self, now_us: u64) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.is_member(now_us))
    }

    fn is_healthy(&self) -> bool {
        let is_healthy = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.health == Health::Healthy);
        is_healthy && !self.outlier.is_ejected()
    }
}

impl Picker {
    /// Works everything out anew. Linear in the endpoints, times the logarithm where schedules are kept.
    pub(crate) fn refresh(&mut self, now_us: u64, draw: u64) {
        self.sweep_if_due(now_us, draw);
        for (slot, load) in self.slots.iter_mut().zip(&mut self.loads) {
            (slot.level, load.weight) = (None, 0);
            if slot.others.expires_at_us(&self.settings.reports) <= now_us {
                load.others = 0;
            }
        }
        let groups = self.members_by_priority(now_us);
        let census = |members: &Vec<u32>| Census {
            members: members.len() as u32,
            healthy: members.iter().filter(|slot| self.slots[**slot as usize].is_healthy()).count() as u32,
        };
        let censuses: Vec<Census> = groups.values().map(census).collect();
        let shares = shares(&censuses, &self.settings.levels);
        let mut old: BTreeMap<u32, Level> =
            std::mem::take(&mut self.levels).into_iter().map(|level| (level.priority, level)).collect();
        for ((priority, members), share) in groups.iter().zip(shares).filter(|(_, share)| share.permille > 0)
        {
            let level = old.remove(priority).unwrap_or_default();
            let level = self.level(level, *priority, members, share, now_us);
            self.levels.push(level);
        }
        self.nobody = if self.slots.iter().all(|slot| slot.endpoint.is_none()) {
            NoEndpoint::Empty
        } else if groups.is_empty() {
            NoEndpoint::NoneEligible
        } else {
            NoEndpoint::NoneHealthy
        };
        self.refresh_at_us = self.next_refresh_us(now_us);
    }

    fn sweep_if_due(&mut self, now_us: u64, draw: u64) {
        let Some(settings) = &self.settings.ejection else { return };
        let next_us = now_us.saturating_add(settings.interval_us);
        // The first interval begins with the first pick.
        let due_us = self.sweep_at_us.unwrap_or(next_us);
        if now_us >= due_us {
            let is_member = |slot: &&mut Slot| slot.is_member(now_us);
            let mut outliers: Vec<&mut Outlier> =
                self.slots.iter_mut().filter(is_member).map(|slot| &mut slot.outlier).collect();
            sweep(&mut outliers, now_us, draw, settings);
        }
        self.sweep_at_us = Some(if now_us >= due_us { next_us } else { due_us });
    }

    /// Those that may be given requests, be it in panic, of the subset; in order.
    fn members_by_priority(&self, now_us: u64) -> BTreeMap<u32, Vec<u32>> {
        let mut members: Vec<u32> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.is_member(now_us))
            .map(|(number, _)| number)
            .collect();
        let known = |slot: u32| self.slots[slot as usize].endpoint.as_ref();
        if let Some(subset) = &self.settings.subset {
            subset.retain(&mut members, |slot| known(slot).map_or(EndpointId(0), |endpoint| endpoint.id));
            members.sort_unstable();
        }
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for slot in members {
            groups.entry(known(slot).map_or(0, |endpoint| endpoint.priority)).or_default().push(slot);
        }
        groups
    }

    fn level(
        &mut self,
        mut level: Level,
        priority: u32,
        members: &[u32],
        share: Share,
        now_us: u64,
    ) -> Level {
        level.priority = priority;
        level.permille = share.permille;
        level.available.clear();
        let is_usable = |slot: &&u32| share.is_panic || self.slots[**slot as usize].is_healthy();
        level.available.extend(members.iter().filter(is_usable));
        let weights = self.weights_of(&level.available, now_us);
        let number = Some(self.levels.len() as u32);
        (level.outstanding, level.weight) = (0, 0);
        for (slot, weight) in level.available.iter().zip(&weights) {
            self.slots[*slot as usize].level = number;
            let load = &mut self.loads[*slot as usize];
            load.weight = *weight;
            level.outstanding += u64::from(load.outstanding);
            level.weight += u64::from(*weight);
        }
        match self.policy {
            Policy::RoundRobin | Policy::Weighted => {
                level.schedule.rebuild(level.available.iter().copied().zip(weights));
            }
            Policy::Affinity => {
                let member = |slot: &u32| {
                    let endpoint = self.slots[*slot as usize].endpoint.as_ref();
                    endpoint.map(|endpoint| (*slot, endpoint.id, endpoint.weight.min(Endpoint::MAX_WEIGHT)))
                };
                let members: Vec<_> = members.iter().filter_map(member).collect();
                level.ring.rebuild(&members, &self.settings.affinity);
            }
            Policy::LeastLoaded | Policy::Latency | Policy::Predictive => {}
        }
        level
    }

    /// Weights in thousandths of [`Endpoint::MAX_WEIGHT`], at least 1: reported or declared, times the share of slow start.
    fn weights_of(&mut self, available: &[u32], now_us: u64) -> Vec<u32> {
        let bases: Vec<u32> = if self.policy == Policy::Weighted {
            let known = |slot: &u32| self.slots[*slot as usize].report.get(now_us, &self.settings.reports);
            spread(&available.iter().map(known).collect::<Vec<_>>(), Endpoint::MAX_WEIGHT)
        } else {
            let declared = |slot: &u32| {
                self.slots[*slot as usize].endpoint.as_ref().map_or(1, |endpoint| endpoint.weight)
            };
            available.iter().map(declared).map(|weight| weight.min(Endpoint::MAX_WEIGHT)).collect()
        };
        let ramped = |(slot, base): (&u32, u32)| {
            let ready_us =
                self.slots[*slot as usize].endpoint.as_ref().map_or(0, |endpoint| endpoint.ready_since_us);
            base * self.settings.slow_start.share_permille(now_us.saturating_sub(ready_us))
        };
        available.iter().zip(bases).map(ramped).collect()
    }

    /// The earliest moment at which a pick could go another way though nothing was changed from outside.
    fn next_refresh_us(&self, now_us: u64) -> u64 {
        let endpoints = || self.slots.iter().filter_map(|slot| slot.endpoint.as_ref());
        let lease_end_us =
            endpoints().filter_map(|endpoint| endpoint.lease_end_us).filter(|end| *end > now_us).min();
        let is_ramping = endpoints().any(|endpoint| {
            let ready_us = now_us.saturating_sub(endpoint.ready_since_us);
            self.settings.slow_start.share_permille(ready_us) < SlowStart::WHOLE_PERMILLE
        });
        let ramp_us = is_ramping.then(|| now_us.saturating_add(RAMP_STEP_US));
        let reports_us = (self.policy == Policy::Weighted)
            .then(|| now_us.saturating_add(self.settings.reports.update_us.max(LEAST_UPDATE_US)));
        let sweep_us = if self.settings.ejection.is_some() { self.sweep_at_us } else { None };
        let others = self.slots.iter().zip(&self.loads).filter(|(_, load)| load.others > 0);
        let others_us = others.map(|(slot, _)| slot.others.expires_at_us(&self.settings.reports)).min();
        [lease_end_us, ramp_us, reports_us, sweep_us, others_us]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX)
    }
}
