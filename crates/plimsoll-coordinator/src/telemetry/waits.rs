//! How long requests wait for their grants, read off the log as it is applied.

use plimsoll_ledger::{Event, EventObject, Ledger, Reservation, State};
use plimsoll_types::LedgerTime;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::core::LedgerView;

/// Waits of granted requests.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    seconds: Histogram,
    /// Grants within the target of their class, and later ones, by class: labels are bounded as classes are.
    met: Family<OfClass, Counter>,
    missed: Family<OfClass, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    class: String,
}

impl Waits {
    pub(super) fn register(registry: &mut Registry) -> Waits {
        let bounds = [0.001, 0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
        let waits =
            Waits { seconds: Histogram::new(bounds), met: Family::default(), missed: Family::default() };
        let help = "Ledger time from submission to grant, of requests granted since this coordinator started";
        registry.register("reservation_wait_seconds", help, waits.seconds.clone());
        let help = "Grants within the latency target of their class, since this coordinator started";
        registry.register("class_latency_target_met", help, waits.met.clone());
        let help = "Grants later than the latency target of their class, since this coordinator started";
        registry.register("class_latency_target_missed", help, waits.missed.clone());
        waits
    }

    fn compare(&self, reservation: &Reservation, ledger: &Ledger) {
        let class = reservation.request.class.as_str();
        let misses = |wait_ms| ledger.class(class).and_then(|class| class.misses(wait_ms));
        let Some(missed) = reservation.first_wait_ms().and_then(misses) else { return };
        let counted = if missed { &self.missed } else { &self.met };
        counted.get_or_create(&OfClass { class: class.to_owned() }).inc();
    }

    /// Measures what happened.
    pub(super) fn look<'a>(&self, events: &[Event], view: impl Fn() -> LedgerView<'a>) {
        let mut seen = None;
        for event in events {
            if let EventObject::Reservation(reservation, from) = &event.object {
                let was_granted = from.is_none_or(State::is_ungranted) && reservation.state.is_occupying();
                if was_granted {
                    // An advance reservation waits from its start on.
                    let start = LedgerTime(reservation.request.start_at_ms);
                    let waited_ms = reservation.granted_at.ms_since(reservation.submitted_at.max(start));
                    self.seconds.observe(std::time::Duration::from_millis(waited_ms).as_secs_f64());
                    self.compare(reservation, seen.get_or_insert_with(&view));
                }
            }
        }
    }
}
