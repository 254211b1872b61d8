//! Numbers about decisions of rates for proxies.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Decisions by rate: labels are bounded as quotas are. Scopes are no labels.
#[derive(Clone, Debug)]
pub(crate) struct RateDecisions {
    decisions: Family<Made, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Made {
    quota: String,
    rate: String,
    outcome: &'static str,
}

impl RateDecisions {
    pub(super) fn register(registry: &mut Registry) -> RateDecisions {
        let decisions = Family::default();
        let help = "Requests of proxies that this coordinator decided by a rate, by outcome";
        registry.register("rate_decisions", help, Family::clone(&decisions));
        RateDecisions { decisions }
    }

    /// A request was about a rate: it may pass, or has too little of this rate, or of another one.
    pub(crate) fn made(&self, quota: &str, rate: &str, passes: bool, is_over: bool) {
        let outcome = match (passes, is_over) {
            (true, _) => "ok",
            (false, true) => "over_limit",
            (false, false) => "other_over_limit",
        };
        let labels = Made { quota: quota.to_owned(), rate: rate.to_owned(), outcome };
        self.decisions.get_or_create(&labels).inc();
    }
}
