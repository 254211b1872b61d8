//! Predictive: the endpoint that is expected to be done first.
//!
//! ```text
//! read   = units of the request not kept there × time a unit
//! answer = units queued there × time a unit + read + wait for a place + load time of the model
//! finish = answer + mean units of an answer × time an output unit
//! ```
//!
//! What is compared is `finish + read × (1 + requests outstanding / 2)`: every unit that is read keeps those waiting who come after, so a place where the
//! prompt is kept is worth more than the request's own time, and more so the busier it is. Without that term the choice is greedy, and wastes
//! kept prompts just when all are busy.
//!
//! A unit is whatever the caller counts work in: tokens of a prompt, bytes, or 1. The times a unit are learned for
//! each endpoint from what was seen there; one that was not seen yet is taken for the mean. How long an answer will be is not asked: nobody knows it
//! when a request arrives. While the predictions are worse than they are worth, [`Predictor::is_trusted`] says so, and the picker falls back
//! to least_loaded; it goes on predicting, and comes back when the predictions do.

use crate::blocks::Prefixes;
use crate::mix::{below, mix_pair};
use crate::p2c::Load;
use crate::request::Request;

/// How far predictions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredictiveSettings {
    /// Blocks that an endpoint is believed to keep.
    pub blocks_per_endpoint: u32,
    /// Units in a block.
    pub units_per_block: u32,
    /// Up to so many endpoints all are compared; of more, those that keep the most of the prompt, and as many at random.
    pub compare_all_up_to: u32,
    /// Those that keep the most, and the random ones: so many of each.
    pub candidates: u32,
    /// Time a unit until anything is measured.
    pub default_ns_per_unit: u64,
    /// What was learned of an endpoint counts for so long after it last answered; then it is taken for the mean again, and so tried again.
    pub forget_us: u64,
    /// Above this mean error, in thousandths of the mean of what is predicted, predictions are not used.
    pub distrust_permille: u32,
    /// Below this they are used again.
    pub trust_permille: u32,
}

impl Default for PredictiveSettings {
    fn default() -> PredictiveSettings {
        PredictiveSettings {
            blocks_per_endpoint: 4_096,
            units_per_block: 512,
            compare_all_up_to: 16,
            candidates: 4,
            default_ns_per_unit: 100_000,
            forget_us: 300_000_000,
            distrust_permille: 1_000,
            trust_permille: 700,
        }
    }
}

/// Predictions before the error counts.
const LEAST_PREDICTIONS: u32 = 32;
/// A mean of times goes over about the last 2^3.
const TIMES: u32 = 3;
/// The mean error and the mean size of answers go over about the last 2^6.
const MANY: u32 = 6;
/// A plain mean is one of equal sizes; large enough that fading them rounds little away.
const EQUAL: u64 = 1 << 10;
/// Longer times count as this: 12 days.
const MAX_US: u64 = 1 << 40;

/// What is expected of a request on one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Units of it that are not kept there.
    pub(crate) own_units: u64,
    /// Those, and all that are queued before them.
    pub(crate) units: u64,
    /// Until the answer begins.
    pub(crate) answer_us: u64,
    /// Until it ends, and what it costs those who come after.
    pub(crate) cost_us: u64,
    /// More than the units decides when it begins: nothing is learned about the time a unit from it.
    pub(crate) has_other_wait: bool,
}

/// Two sums, old values of which fade: their ratio is a mean weighted by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ratio {
    above: u64,
    below: u64,
}

impl Ratio {
    /// Old values lose 1 / 2^`over`. Both must be below 2^56 to count in full.
    fn add(&mut self, above: u64, below: u64, over: u32) {
        let faded = |sum: u64, new: u64| (sum - (sum >> over)).saturating_add(new.min(u64::MAX >> 8));
        (self.above, self.below) = (faded(self.above, above), faded(self.below, below));
    }

    fn get(&self) -> Option<u64> {
        self.above.checked_div(self.below)
    }
}

/// A request, and when its endpoint is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) now_us: u64,
    pub(crate) draw: u64,
    pub(crate) request: &'a Request<'a>,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Default)]
struct Knowledge {
    queued_units: u64,
    answered_us: u64,
    ns_per_unit: Ratio,
    ns_per_output: Ratio,
    concurrency: u32,
    warm_models: Vec<u64>,
}

impl Knowledge {
    fn expect(&self, predictor: &Predictor, at: &Moment<'_>, outstanding: u32, kept: usize) -> Expected {
        let request = at.request;
        let kept_units = (kept as u64).saturating_mul(u64::from(predictor.settings.units_per_block));
        let own_units = request.units.saturating_sub(kept_units);
        let units = own_units.saturating_add(self.queued_units);
        let mean = predictor.ns_per_unit.get().unwrap_or(predictor.settings.default_ns_per_unit);
        let is_known = at.now_us.saturating_sub(self.answered_us) < predictor.settings.forget_us;
        let learned = |ratio: &Ratio| if is_known { ratio.get() } else { None };
        let ns_per_unit = learned(&self.ns_per_unit).unwrap_or(mean);
        let queued_us = units.saturating_mul(ns_per_unit) / 1_000;
        let own_us = own_units.saturating_mul(ns_per_unit) / 1_000;
        let mean_output = predictor.ns_per_output.get().unwrap_or(0);
        let ns_per_output = learned(&self.ns_per_output).unwrap_or(mean_output);
        let hold_us = predictor.output_units.get().unwrap_or(0).saturating_mul(ns_per_output) / 1_000;
        let waiting = if self.concurrency == 0 {
            0
        } else {
            outstanding.saturating_add(1).saturating_sub(self.concurrency)
        };
        let wait_us = u64::from(waiting).saturating_mul(hold_us) / u64::from(self.concurrency.max(1));
        let load_us = match request.model {
            Some(model) if !self.warm_models.contains(&model) => request.model_load_us,
            _ => 0,
        };
        let answer_us = queued_us.saturating_add(wait_us).saturating_add(load_us);
        let others_us = own_us.saturating_mul(2 + u64::from(outstanding)) / 2;
        let cost_us = answer_us.saturating_add(hold_us).saturating_add(others_us);
        Expected { own_units, units, answer_us, cost_us, has_other_wait: wait_us > 0 || load_us > 0 }
    }
}

/// What is known of all endpoints of one picker.
#[derive(Clone, Debug)]
pub(crate) struct Predictor {
    settings: PredictiveSettings,
    endpoints: Vec<Knowledge>,
    prefixes: Prefixes,
    ns_per_unit: Ratio,
    ns_per_output: Ratio,
    output_units: Ratio,
    error: Ratio,
    predictions: u32,
    is_trusted: bool,
    /// Kept for the next pick, so that it allocates nothing.
    found: Vec<(u32, usize)>,
}

impl Predictor {
    pub(crate) fn new(settings: PredictiveSettings) -> Predictor {
        Predictor {
            settings,
            endpoints: Vec::new(),
            prefixes: Prefixes::new(settings.blocks_per_endpoint),
            ns_per_unit: Ratio::default(),
            ns_per_output: Ratio::default(),
            output_units: Ratio::default(),
            error: Ratio::default(),
            predictions: 0,
            is_trusted: true,
            found: Vec::new(),
        }
    }

    /// Whether predictions are good enough to go by.
    pub(crate) const fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Facts of an endpoint, new or changed. Models that were loaded for requests since stay known as warm until the endpoint leaves.
    pub(crate) fn set_facts(&mut self, slot: u32, concurrency: u32, warm_models: &[u64]) {
        let index = slot as usize;
        if self.endpoints.len() <= index {
            self.endpoints.resize_with(index + 1, Knowledge::default);
        }
        let endpoint = &mut self.endpoints[index];
        endpoint.concurrency = concurrency;
        for model in warm_models {
            if !endpoint.warm_models.contains(model) {
                endpoint.warm_models.push(*model);
            }
        }
    }

    /// An endpoint left.
    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(endpoint) = self.endpoints.get_mut(slot as usize) {
            *endpoint = Knowledge::default();
        }
        self.prefixes.remove(slot);
    }

    /// The one that costs the least, of all or of a sample; among equals the one with fewer outstanding, then any.
    pub(crate) fn pick(&mut self, available: &[u32], loads: &[Load], at: &Moment<'_>) -> Option<u32> {
        let mut found = std::mem::take(&mut self.found);
        self.prefixes.find(at.request.blocks, &mut found);
        // Later entries keep more; only those that may be picked at present count.
        found.retain(|(slot, _)| loads[*slot as usize].weight > 0 && available.binary_search(slot).is_ok());
        let kept = |slot: u32| found.iter().find(|(holder, _)| *holder == slot).map_or(0, |(_, kept)| *kept);
        let cost = |slot: u32, kept: usize| {
            let load = loads[slot as usize];
            let expected = self.endpoints[slot as usize].expect(self, at, load.requests(), kept);
            (expected.cost_us, load.requests(), mix_pair(at.draw, u64::from(slot)), slot)
        };
        let count = available.len() as u32;
        let best = if count <= self.settings.compare_all_up_to {
            available.iter().map(|slot| cost(*slot, kept(*slot))).min()
        } else {
            let candidates = u64::from(self.settings.candidates.max(1));
            let random = (0..candidates).filter_map(|index| {
                let place = below((mix_pair(at.draw, index) >> 32) as u32, count);
                available.get(place as usize).copied()
            });
            let holders = found.iter().rev().take(candidates as usize).map(|(slot, kept)| cost(*slot, *kept));
            holders.chain(random.map(|slot| cost(slot, kept(slot)))).min()
        };
        self.found = found;
        best.map(|(.., slot)| slot)
    }

    /// A request is given to an endpoint that has so many, of others too.
    pub(crate) fn started(&mut self, slot: u32, outstanding: u32, at: &Moment<'_>) -> Expected {
        let request = at.request;
        self.prefixes.find(request.blocks, &mut self.found);
        let kept = self.found.iter().find(|(holder, _)| *holder == slot).map_or(0, |(_, kept)| *kept);
        let expected = self.endpoints[slot as usize].expect(self, at, outstanding, kept);
        let endpoint = &mut self.endpoints[slot as usize];
        endpoint.queued_units = endpoint.queued_units.saturating_add(expected.own_units);
        if let Some(model) = request.model
            && !endpoint.warm_models.contains(&model)
        {
            endpoint.warm_models.push(model);
        }
        self.prefixes.insert(slot, request.blocks);
        expected
    }

    /// An answer began, so long after its request started.
    pub(crate) fn answered(&mut self, now_us: u64, slot: u32, expected: &Expected, answer_us: u64) {
        let answer_us = answer_us.min(MAX_US);
        self.unqueue(slot, expected);
        let endpoint = &mut self.endpoints[slot as usize];
        endpoint.answered_us = now_us;
        if !expected.has_other_wait {
            let units = expected.units.clamp(1, MAX_US);
            endpoint.ns_per_unit.add(answer_us * 1_000, units, TIMES);
            self.ns_per_unit.add(answer_us * 1_000, units, TIMES);
        }
        self.error.add(expected.answer_us.min(MAX_US).abs_diff(answer_us) * 1_000, answer_us, MANY);
        self.predictions = self.predictions.saturating_add(1);
        let error_permille = self.error.get().unwrap_or(0);
        if self.predictions < LEAST_PREDICTIONS || error_permille < u64::from(self.settings.trust_permille) {
            self.is_trusted = true;
        } else if error_permille > u64::from(self.settings.distrust_permille) {
            self.is_trusted = false;
        }
    }

    /// A request that was answered ended, so long after its answer began.
    pub(crate) fn ended(&mut self, slot: u32, output_us: u64, output_units: u64) {
        let (output_ns, units) = (output_us.min(MAX_US) * 1_000, output_units.clamp(1, MAX_US));
        self.endpoints[slot as usize].ns_per_output.add(output_ns, units, TIMES);
        self.ns_per_output.add(output_ns, units, TIMES);
        self.output_units.add(units * EQUAL, EQUAL, MANY);
    }

    /// A request is no longer queued: its answer began, or it failed before.
    pub(crate) fn unqueue(&mut self, slot: u32, expected: &Expected) {
        let endpoint = &mut self.endpoints[slot as usize];
        endpoint.queued_units = endpoint.queued_units.saturating_sub(expected.own_units);
    }
}
