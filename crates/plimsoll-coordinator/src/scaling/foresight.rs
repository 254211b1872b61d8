//! Forecasts of a target's load, kept by the leader: a value a minute. They may only raise what is wanted. A new leader begins to learn anew,
//! and until it knows enough the policy's fallback utilization stands in.

use plimsoll_autoscaler::{Outlook, Signals};
use plimsoll_forecast::{Predictor, Settings};
use plimsoll_ledger::{EndpointState, Ledger, ScalingPolicy, ScalingTarget};
use plimsoll_types::{LedgerTime, Resources};

/// Time of one step, in milliseconds.
const STEP_MS: u64 = 60_000;
/// Most steps that are looked ahead.
const MOST_STEPS: u64 = 120;
/// What one machine or replica serves, in the thousandths that loads are in.
const WHOLE_MILLI: u64 = 1_000;

/// What is known of a target's load.
pub(super) struct Foresight {
    predictor: Predictor,
    /// End of the present step, in milliseconds.
    step_ends: u64,
    /// Most that was seen in it.
    peak_milli: u64,
}

impl Foresight {
    /// For a policy, as far ahead as its machines need to start.
    pub(super) fn new(policy: &ScalingPolicy, now: LedgerTime) -> Foresight {
        let ahead = policy.start_within_ms.div_ceil(STEP_MS).clamp(1, MOST_STEPS);
        let horizon = usize::try_from(ahead).unwrap_or(1);
        let settings = Settings { step_ms: STEP_MS, resolution_milli: WHOLE_MILLI / 2, horizon };
        Foresight {
            predictor: Predictor::new(settings),
            step_ends: now.0.saturating_add(STEP_MS),
            peak_milli: 0,
        }
    }

    /// Takes the present load in, and says what is to be expected.
    pub(super) fn look(&mut self, load_milli: u64, now: LedgerTime, signals: &mut Signals) {
        self.peak_milli = self.peak_milli.max(load_milli);
        if now.0 >= self.step_ends {
            self.predictor.observe(std::mem::take(&mut self.peak_milli));
            self.step_ends = now.0.saturating_add(STEP_MS);
        }
        signals.load_milli = Some(load_milli);
        signals.outlook = self.predictor.band().map(|band| Outlook {
            forecaster: band.forecaster.to_owned(),
            score_permille: band.score_permille,
            mean_load_milli: band.mean_milli,
            steps: band.steps,
        });
    }
}

/// How many machines' worth a target has to do, in thousandths: of a pool what is taken and what waits, in nodes of its template; of a service
/// what its endpoints say of their utilization. `None` where there is nothing to measure it by.
pub(super) fn load_milli(ledger: &Ledger, policy: &ScalingPolicy) -> Option<u64> {
    match &policy.target {
        ScalingTarget::Service(service) => {
            let serving = ledger
                .endpoints(service)
                .filter(|one| ledger.endpoint_state(one) == Some(EndpointState::Serving));
            let loads = serving.filter_map(|one| ledger.load(one.id));
            Some(loads.filter_map(|load| load.report.utilization()).map(u64::from).sum())
        }
        ScalingTarget::Pool(pool) => {
            // Of several templates, the one that has most of a resource.
            let offers = policy.offers();
            let most =
                |name: &str| offers.iter().map(|one| one.offers.resources.get(name).0).max().unwrap_or(0);
            let mut sum = Resources::default();
            let mut gpu_milli = 0_u64;
            // What does not fit in a number is more than any pool has: the policy's max bounds it.
            for node in ledger.nodes().filter(|node| node.pool == *pool) {
                if let Some(usage) = ledger.usage(node.id) {
                    let _ = sum.add_assign(&usage.used);
                    gpu_milli += usage.devices.iter().map(|device| u64::from(device.milli)).sum::<u64>();
                }
            }
            for waiting in ledger.pending(pool).filter_map(|id| ledger.reservation(id)) {
                for (needs, members) in waiting.request.kinds_with_most() {
                    if let Ok(all) = needs.amounts.checked_mul(members.into()) {
                        let _ = sum.add_assign(&all);
                    }
                    let gpus = needs.gpu.as_ref().map_or(0, |gpu| u64::from(gpu.count) * u64::from(members));
                    gpu_milli = gpu_milli.saturating_add(gpus.saturating_mul(1_000));
                }
            }
            let shares = sum.iter().filter_map(|(name, amount)| {
                let one = most(name);
                let share = u128::from(amount.0) * u128::from(WHOLE_MILLI) / u128::from(one.max(1));
                (one > 0).then(|| u64::try_from(share).unwrap_or(u64::MAX))
            });
            let gpus = gpu_milli.checked_div(offers.iter().map(|one| one.offers.gpus()).max().unwrap_or(0));
            let offered = offers.iter().any(|one| !one.offers.resources.is_zero());
            offered.then(|| shares.chain(gpus).max().unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_autoscaler::{Policy, Predictive, ScaleMemory, decide};

    use super::*;

    /// Half an hour high, half an hour low, for days.
    fn load(minute: u64) -> u64 {
        if minute % 60 < 30 { 8_000 } else { 1_500 }
    }

    #[test]
    fn what_comes_again_and_again_is_there_before_it_comes() {
        let predictive = Predictive {
            capacity_milli: 1_000,
            miss_price_permille: 20_000,
            fallback_utilization_permille: 800,
        };
        let rules = Policy { min: 1, max: 50, predictive: Some(predictive), ..Policy::default() };
        let policy = ScalingPolicy { start_within_ms: 300_000, rules, ..ScalingPolicy::default() };
        let mut foresight = Foresight::new(&policy, LedgerTime(0));
        let (mut early, mut looked) = (0, 0);
        for minute in 0..60 * 24 {
            let now = LedgerTime((minute + 1) * STEP_MS);
            let mut signals = Signals { current: 8, ready: 8, ..Signals::default() };
            foresight.look(load(minute), now, &mut signals);
            // Two minutes before it rises, when the load is still low.
            if minute > 60 * 12 && minute % 60 == 57 {
                looked += 1;
                let wanted = decide(&signals, &policy.rules, &mut ScaleMemory::default(), now.0).desired;
                early += u64::from(wanted >= 8);
            }
        }
        assert!(early * 10 >= looked * 8, "{early} of {looked} rises were foreseen");
    }
}
