//! How long requests wait for their grants, read off the log as it is applied.

use plimsoll_ledger::{EventObject, State};
use plimsoll_types::LedgerTime;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Waits of granted requests.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    seconds: Histogram,
}

impl Waits {
    pub(super) fn register(registry: &mut Registry) -> Waits {
        let bounds = [0.001, 0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
        let waits = Waits { seconds: Histogram::new(bounds) };
        let help = "Ledger time from submission to grant, of requests granted since this coordinator started";
        registry.register("reservation_wait_seconds", help, waits.seconds.clone());
        waits
    }

    /// Measures what happened.
    pub(super) fn look(&self, events: &[plimsoll_ledger::Event]) {
        for event in events {
            if let EventObject::Reservation(reservation, from) = &event.object {
                let was_granted = from.is_none_or(State::is_ungranted) && reservation.state.is_occupying();
                if was_granted {
                    // An advance reservation waits from its start on.
                    let start = LedgerTime(reservation.request.start_at_ms);
                    let waited_ms = reservation.granted_at.ms_since(reservation.submitted_at.max(start));
                    self.seconds.observe(std::time::Duration::from_millis(waited_ms).as_secs_f64());
                }
            }
        }
    }
}
