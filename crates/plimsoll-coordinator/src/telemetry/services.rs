//! Numbers about calls of services, as stock clients report them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Calls of services, by service: labels are bounded as services are.
#[derive(Clone, Debug)]
pub(crate) struct ServiceCalls {
    calls: Family<Ended, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    service: String,
    outcome: &'static str,
}

impl ServiceCalls {
    pub(super) fn register(registry: &mut Registry) -> ServiceCalls {
        let calls = Family::default();
        let help = "Calls of services that xDS clients of this coordinator reported, by outcome";
        registry.register("service_calls", help, Family::clone(&calls));
        ServiceCalls { calls }
    }

    /// So many calls of a service ended, and of those so many failed.
    pub(crate) fn ended(&self, service: &str, requests: u64, errors: u64) {
        for (outcome, count) in [("ok", requests.saturating_sub(errors)), ("error", errors)] {
            self.calls.get_or_create(&Ended { service: service.to_owned(), outcome }).inc_by(count);
        }
    }
}
