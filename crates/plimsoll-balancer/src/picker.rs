//! The picker: which endpoint takes the next request.
//!
//! It counts the requests that it gave out itself, so its answer costs no look elsewhere. What changes seldom (health, leases, ramps, ejections,
//! reported weights, levels) is worked out in [`refresh`](crate::refresh) when it is due; a pick compares one time with that, and chooses among
//! lists that are ready. Invariants, at any pick:
//!
//! - No endpoint is picked that drains, whose lease is over, whose weight is 0 or that is not in the set.
//! - An unhealthy or ejected one is picked only while its level panics.
//! - Only an endpoint that may be picked has a weight in `loads` that is not 0.
//! - Feedback for an endpoint that left changes nothing.

use std::collections::BTreeMap;

use crate::ejection::Outlier;
use crate::endpoint::{Endpoint, EndpointId, EndpointIndex, Health};
use crate::ewma::{Decay, PeakEwma};
use crate::mix::{below, mix};
use crate::p2c::{self, Load};
use crate::policy::{Policy, Settings};
use crate::predictive::{Expected, Moment, Predictor};
use crate::refresh::Level;
use crate::report::{LoadReport, Others, ReportedWeight};
use crate::request::{Flight, Outcome, Request};
use crate::ring::Bound;

/// Why nothing was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The set is empty.
    #[error("the service has no endpoints")]
    Empty,
    /// Every endpoint drains, has no weight, or its lease is over.
    #[error("every endpoint of the service is draining, has weight 0, or its lease is over")]
    NoneEligible,
    /// Nobody is healthy, and the panic threshold is 0.
    #[error("no endpoint of the service is healthy")]
    NoneHealthy,
}

/// What is kept of an endpoint beside what every pick reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// `None` where the number is free.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) outlier: Outlier,
    pub(crate) report: ReportedWeight,
    /// Of the same reports.
    pub(crate) others: Others,
    /// Its place in the levels, where it may be picked at present.
    pub(crate) level: Option<u32>,
}

/// Chooses endpoints of one service for one client.
pub struct Picker {
    pub(crate) policy: Policy,
    pub(crate) settings: Settings,
    pub(crate) slots: Vec<Slot>,
    /// By the same numbers, for what every pick reads.
    pub(crate) loads: Vec<Load>,
    latencies: Vec<PeakEwma>,
    by_id: BTreeMap<EndpointId, u32>,
    free: Vec<u32>,
    /// In order of priority, only those that are given requests.
    pub(crate) levels: Vec<Level>,
    /// Why `levels` is empty where it is.
    pub(crate) nobody: NoEndpoint,
    decay: Decay,
    predictor: Option<Predictor>,
    /// When the lists are next worked out; 0 where something changed.
    pub(crate) refresh_at_us: u64,
    /// When the next sweep for outliers is due; `None` before the first pick.
    pub(crate) sweep_at_us: Option<u64>,
}

impl Picker {
    /// A picker without endpoints.
    #[must_use]
    pub fn new(policy: Policy, settings: Settings) -> Picker {
        let predictor = (policy == Policy::Predictive).then(|| Predictor::new(settings.predictive));
        Picker {
            policy,
            settings,
            slots: Vec::new(),
            loads: Vec::new(),
            latencies: Vec::new(),
            by_id: BTreeMap::new(),
            free: Vec::new(),
            levels: Vec::new(),
            nobody: NoEndpoint::Empty,
            decay: Decay::new(settings.latency.decay_us),
            predictor,
            refresh_at_us: 0,
            sweep_at_us: None,
        }
    }

    /// The endpoint for a request. `now_us` is the caller's clock, which must be that of the endpoints' facts; `draw` is 64 random bits.
    ///
    /// Constant for `least_loaded` and `latency`, logarithmic in the endpoints for `round_robin`, `weighted` and `affinity` (which also passes by
    /// those that are full); linear where something changed or a second passed in slow start.
    ///
    /// # Errors
    /// Where no endpoint may be given a request.
    pub fn pick(
        &mut self,
        now_us: u64,
        draw: u64,
        request: &Request<'_>,
    ) -> Result<EndpointIndex, NoEndpoint> {
        if now_us >= self.refresh_at_us {
            self.refresh(now_us, draw);
        }
        let level = match &mut self.levels[..] {
            [] => return Err(self.nobody),
            [only] => only,
            levels => chosen_level(levels, draw),
        };
        let slot = match self.policy {
            Policy::LeastLoaded => p2c::least_loaded(&level.available, &self.loads, draw),
            Policy::Latency => {
                least_cost(&level.available, &self.loads, &self.latencies, draw, now_us, &self.decay)
            }
            Policy::RoundRobin | Policy::Weighted => level.schedule.next(),
            Policy::Affinity => {
                affinity(level, &self.loads, request.key, self.settings.affinity.load_bound_permille)
            }
            Policy::Predictive => match &mut self.predictor {
                Some(predictor) if predictor.is_trusted() => {
                    predictor.pick(&level.available, &self.loads, &Moment { now_us, draw, request })
                }
                _ => p2c::least_loaded(&level.available, &self.loads, draw),
            },
        };
        let slot = slot.ok_or(self.nobody)?;
        Ok(EndpointIndex { slot, generation: self.loads[slot as usize].generation })
    }

    /// A request is given to an endpoint.
    pub fn started(&mut self, now_us: u64, endpoint: EndpointIndex, request: &Request<'_>) -> Flight {
        let mut flight =
            Flight { endpoint, started_us: now_us, expected: Expected::default(), answered_us: None };
        if let Some(load) = self.load(endpoint) {
            let (outstanding, requests) = (load.outstanding, load.requests());
            load.outstanding = outstanding.saturating_add(1);
            let now_outstanding = load.outstanding;
            self.slots[endpoint.slot as usize].others.note(now_outstanding);
            if outstanding == 0 {
                self.latencies[endpoint.slot as usize].woke(now_us);
            }
            self.change_level(endpoint, |level| level.outstanding += 1);
            if let Some(predictor) = &mut self.predictor {
                flight.expected =
                    predictor.started(endpoint.slot, requests, &Moment { now_us, draw: 0, request });
            }
        }
        flight
    }

    /// Its answer began: for a stream the first message. Only [`Policy::Predictive`] is the better for it; a second call changes nothing.
    pub fn answered(&mut self, now_us: u64, flight: &mut Flight) {
        if flight.answered_us.is_some() || self.load(flight.endpoint).is_none() {
            return;
        }
        flight.answered_us = Some(now_us);
        if let Some(predictor) = &mut self.predictor {
            let answer_us = now_us.saturating_sub(flight.started_us);
            predictor.answered(now_us, flight.endpoint.slot, &flight.expected, answer_us);
        }
    }

    /// It ended.
    pub fn finished(&mut self, now_us: u64, mut flight: Flight, outcome: Outcome) {
        let is_success = matches!(outcome, Outcome::Success { .. });
        if is_success {
            self.answered(now_us, &mut flight);
        }
        let endpoint = flight.endpoint;
        let Some(outstanding) = self.load(endpoint).map(|load| load.outstanding) else { return };
        let slot = endpoint.slot as usize;
        self.slots[slot].outlier.count(is_success);
        let latency_us = now_us.saturating_sub(flight.started_us);
        let average = &mut self.latencies[slot];
        // A quick failure must not make an endpoint look quick: it counts as no better than what is known.
        let latency_us = if is_success {
            latency_us
        } else {
            latency_us.max(average.get(now_us, outstanding, &self.decay))
        };
        average.observe(now_us, latency_us, &self.decay);
        if let (Outcome::Success { output_units }, Some(answered_us), Some(predictor)) =
            (outcome, flight.answered_us, &mut self.predictor)
        {
            predictor.ended(endpoint.slot, now_us.saturating_sub(answered_us), output_units);
        }
        self.cancelled(flight);
    }

    /// Its caller gave it up, or it was never sent: nothing is learned about the endpoint.
    pub fn cancelled(&mut self, flight: Flight) {
        let Some(load) = self.load(flight.endpoint) else { return };
        load.outstanding = load.outstanding.saturating_sub(1);
        self.change_level(flight.endpoint, |level| level.outstanding = level.outstanding.saturating_sub(1));
        if let (None, Some(predictor)) = (flight.answered_us, &mut self.predictor) {
            predictor.unqueue(flight.endpoint.slot, &flight.expected);
        }
    }

    /// An endpoint says how loaded it is. Of one that is not in the set nothing is kept.
    pub fn report(&mut self, now_us: u64, id: EndpointId, report: &LoadReport) {
        let Some(index) = self.by_id.get(&id).map(|slot| *slot as usize) else { return };
        let slot = &mut self.slots[index];
        slot.report.update(now_us, report, &self.settings.reports);
        if let Some(requests_there) = report.requests_there {
            let load = &mut self.loads[index];
            load.others = slot.others.update(now_us, requests_there, load.outstanding);
            // What it says counts for no longer than a weight.
            if load.others > 0 {
                self.refresh_at_us =
                    self.refresh_at_us.min(slot.others.expires_at_us(&self.settings.reports));
            }
        }
    }

    /// Takes up the present endpoints. Those that stay keep their numbers and all that is known of them; of two with one id the last counts.
    /// Linear in the endpoints, times the logarithm; the next pick works out the lists.
    pub fn set_endpoints(&mut self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let given: BTreeMap<EndpointId, Endpoint> =
            endpoints.into_iter().map(|endpoint| (endpoint.id, endpoint)).collect();
        let gone: Vec<(EndpointId, u32)> = self
            .by_id
            .iter()
            .filter(|(id, _)| !given.contains_key(id))
            .map(|(id, slot)| (*id, *slot))
            .collect();
        for (id, slot) in gone {
            self.by_id.remove(&id);
            self.remove(slot);
        }
        for (id, endpoint) in given {
            match self.by_id.get(&id) {
                Some(slot) => self.change(*slot, endpoint),
                None => self.add(endpoint),
            }
        }
        self.refresh_at_us = 0;
    }

    /// The endpoints of the set, in the order of their ids.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_id.values().filter_map(|slot| self.slots[*slot as usize].endpoint.as_ref())
    }

    /// What is known of a picked endpoint; `None` once it left.
    #[must_use]
    pub fn endpoint(&self, index: EndpointIndex) -> Option<&Endpoint> {
        let load = self.loads.get(index.slot as usize)?;
        if load.generation == index.generation {
            self.slots[index.slot as usize].endpoint.as_ref()
        } else {
            None
        }
    }

    /// Requests that this picker gave to an endpoint and that have not ended; 0 once it left.
    #[must_use]
    pub fn outstanding(&self, index: EndpointIndex) -> u32 {
        let load = self.loads.get(index.slot as usize).filter(|load| load.generation == index.generation);
        load.map_or(0, |load| load.outstanding)
    }

    /// The endpoints that may be given requests at present with their weights (slow start and reports included), for balancers that are told weights,
    /// as over xDS. Weights compare within a priority level. In no promised order.
    pub fn weights(&mut self, now_us: u64, draw: u64) -> Vec<(EndpointId, u32)> {
        if now_us >= self.refresh_at_us {
            self.refresh(now_us, draw);
        }
        let available = self.levels.iter().flat_map(|level| &level.available).map(|slot| *slot as usize);
        available
            .filter_map(|slot| Some((self.slots[slot].endpoint.as_ref()?.id, self.loads[slot].weight)))
            .collect()
    }

    fn add(&mut self, endpoint: Endpoint) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.loads.push(Load::default());
            self.latencies.push(PeakEwma::default());
            self.slots.len() as u32 - 1
        });
        let index = slot as usize;
        self.latencies[index] = PeakEwma::new(&self.settings.latency);
        self.by_id.insert(endpoint.id, slot);
        if let Some(predictor) = &mut self.predictor {
            predictor.set_facts(slot, endpoint.concurrency, &endpoint.warm_models);
        }
        self.slots[index] = Slot { endpoint: Some(endpoint), ..Slot::default() };
    }

    fn change(&mut self, slot: u32, endpoint: Endpoint) {
        if let Some(predictor) = &mut self.predictor {
            predictor.set_facts(slot, endpoint.concurrency, &endpoint.warm_models);
        }
        let known = &mut self.slots[slot as usize];
        let was_healthy = known.endpoint.as_ref().is_some_and(|old| old.health == Health::Healthy);
        if endpoint.health == Health::Healthy && !was_healthy {
            known.report.became_ready();
        }
        known.endpoint = Some(endpoint);
    }

    fn remove(&mut self, slot: u32) {
        let index = slot as usize;
        self.slots[index] = Slot::default();
        let generation = self.loads[index].generation.wrapping_add(1);
        self.loads[index] = Load { generation, ..Load::default() };
        if let Some(predictor) = &mut self.predictor {
            predictor.remove(slot);
        }
        self.free.push(slot);
    }

    /// The load of an endpoint that is still the one that was picked.
    fn load(&mut self, endpoint: EndpointIndex) -> Option<&mut Load> {
        self.loads.get_mut(endpoint.slot as usize).filter(|load| load.generation == endpoint.generation)
    }

    /// Only affinity reads the sums of a level.
    fn change_level(&mut self, endpoint: EndpointIndex, change: impl FnOnce(&mut Level)) {
        if self.policy == Policy::Affinity
            && let Some(level) = self.slots[endpoint.slot as usize].level
            && let Some(level) = self.levels.get_mut(level as usize)
        {
            change(level);
        }
    }
}

/// The level that a draw falls on, by their shares.
fn chosen_level(levels: &mut [Level], draw: u64) -> &mut Level {
    // Other bits than those that choose the endpoint.
    let mut rest = below((mix(draw) >> 32) as u32, 1_000);
    let mut chosen = 0;
    for (index, level) in levels.iter().enumerate() {
        chosen = index;
        match rest.checked_sub(level.permille) {
            Some(left) => rest = left,
            None => break,
        }
    }
    &mut levels[chosen]
}

/// The cheaper of two by `latency × (outstanding + 1) / weight`.
fn least_cost(
    available: &[u32],
    loads: &[Load],
    latencies: &[PeakEwma],
    draw: u64,
    now_us: u64,
    decay: &Decay,
) -> Option<u32> {
    let (first, second) = p2c::two(available, draw)?;
    let cost = |slot: u32| {
        // One more than nothing, so that outstanding requests still count where an average has faded away.
        let outstanding = loads[slot as usize].outstanding;
        let latency_us = latencies[slot as usize].get(now_us, outstanding, decay) + 1;
        u128::from(latency_us) * (u128::from(outstanding) + 1)
    };
    let weight = |slot: u32| u128::from(loads[slot as usize].weight);
    Some(if cost(second) * weight(first) < cost(first) * weight(second) { second } else { first })
}

/// The first on the ring from the key's home that may be given one more.
fn affinity(level: &Level, loads: &[Load], key: u64, load_bound_permille: Option<u32>) -> Option<u32> {
    let bound = load_bound_permille.map(|permille| Bound {
        permille,
        outstanding: level.outstanding,
        weight: level.weight,
    });
    level.ring.walk(key).find(|slot| {
        let load = loads[*slot as usize];
        load.weight > 0 && bound.is_none_or(|bound| bound.admits(load.outstanding, load.weight))
    })
}
