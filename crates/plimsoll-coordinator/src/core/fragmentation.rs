//! How fragmented pools are: worked out at most once for each revision at which anybody asks, for all pools together, from a copy of what decides. The
//! ledger is held for the copy alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use plimsoll_ledger::Ledger;
use plimsoll_scheduler::{Fragmentation, Terrain};
use plimsoll_types::Revision;

/// By pool, by class of device; without pools that have no devices.
pub(crate) type ByPool = BTreeMap<String, Vec<Fragmentation>>;

/// What was worked out last. It is as large as the pools with devices are many.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    latest: Mutex<(Revision, Arc<ByPool>)>,
}

/// What is known already, or the copy to work it out from.
pub(crate) enum Measure {
    Known(Arc<ByPool>),
    Copied(Revision, BTreeMap<String, Terrain>),
}

impl Measured {
    /// Copies what decides, where nobody asked at this revision before. O(nodes with devices + reservations looked at).
    pub(crate) fn begin(&self, ledger: &Ledger) -> Measure {
        let revision = ledger.revision();
        let latest = self.latest.lock();
        if latest.0 == revision {
            return Measure::Known(Arc::clone(&latest.1));
        }
        drop(latest);
        Measure::Copied(revision, Terrain::of_all_devices(ledger))
    }

    /// Works it out, with nothing held. O(nodes x shapes x devices).
    pub(crate) fn finish(&self, measure: Measure) -> Arc<ByPool> {
        let (revision, terrains) = match measure {
            Measure::Known(known) => return known,
            Measure::Copied(revision, terrains) => (revision, terrains),
        };
        let all: ByPool =
            terrains.into_iter().map(|(pool, terrain)| (pool, terrain.fragmentation())).collect();
        let all = Arc::new(all);
        let mut latest = self.latest.lock();
        // Who asks about the past leaves the present there.
        if latest.0 < revision {
            *latest = (revision, Arc::clone(&all));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Command, Device, Entry, Registration, Stamp};
    use plimsoll_types::{LedgerTime, Resources};

    use super::*;

    fn apply(ledger: &mut Ledger, command: Command) {
        let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(1) };
        ledger.apply(stamp, &Entry::system(command));
    }

    #[test]
    fn it_is_worked_out_once_for_all_pools_of_a_revision_and_the_past_does_not_replace_the_present() {
        let mut ledger = Ledger::new();
        for name in ["n1", "n2"] {
            let device =
                Device { uuid: name.into(), model: "t4".into(), memory_bytes: 1, ..Device::default() };
            apply(
                &mut ledger,
                Command::RegisterNode(Registration {
                    name: name.into(),
                    incarnation: 1,
                    capacity: Resources::new(1_000, 1),
                    devices: vec![device],
                    ..Registration::default()
                }),
            );
        }
        let (measured, before) = (Measured::default(), ledger.clone());
        let first = measured.begin(&ledger);
        assert!(matches!(first, Measure::Copied(..)));
        let first = measured.finish(first);
        assert_eq!(first["default"][0].devices, 2);
        assert!(matches!(measured.begin(&ledger), Measure::Known(known) if Arc::ptr_eq(&known, &first)));
        apply(&mut ledger, Command::BecomeLeader { leader: 1 });
        let second = measured.begin(&ledger);
        assert!(matches!(second, Measure::Copied(..)));
        let second = measured.finish(second);
        let past = measured.finish(measured.begin(&before));
        assert_eq!(past, second);
        assert!(matches!(measured.begin(&ledger), Measure::Known(known) if Arc::ptr_eq(&known, &second)));
    }
}
