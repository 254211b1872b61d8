//! A second opinion on the ledger, while it runs: what its rows make of every index is compared with the index.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::core::Core;

/// Pause between checks.
const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// Most reservations and nodes of a ledger that is checked while it runs: the check holds up applying for some milliseconds.
/// Larger ones are checked where nobody waits for them: in tests, in the simulation, from a dump.
const MOST_CHECKED: u64 = 5_000;

/// What the checks found.
#[derive(Clone, Debug, Default)]
pub(super) struct Invariants {
    found: Arc<Found>,
}

#[derive(Debug, Default)]
struct Found {
    violations: AtomicU64,
    /// Revision of the latest ledger that was checked.
    checked: AtomicU64,
}

impl Invariants {
    /// Violations found since the start, each time they were found.
    pub(super) fn violations(&self) -> u64 {
        self.found.violations.load(Ordering::Relaxed)
    }

    /// Revision that was checked last; 0 for none.
    pub(super) fn checked(&self) -> u64 {
        self.found.checked.load(Ordering::Relaxed)
    }

    /// Checks again and again, for as long as the core runs.
    pub(super) async fn follow(&self, core: &Core) {
        loop {
            let (own, core_here) = (self.clone(), core.clone());
            if let Err(error) = tokio::task::spawn_blocking(move || own.check(&core_here)).await {
                tracing::error!(%error, "the check of the invariants failed");
            }
            tokio::select! {
                biased;
                () = core.ended() => return,
                () = tokio::time::sleep(CHECK_AGAIN) => {}
            }
        }
    }

    fn check(&self, core: &Core) {
        let view = core.local();
        if view.counts().values().sum::<u64>() + view.nodes().count() as u64 > MOST_CHECKED {
            return;
        }
        let (revision, violations) = (view.revision(), view.check_invariants());
        drop(view);
        for violation in &violations {
            tracing::error!(invariant = violation.invariant, detail = violation.detail, %revision, "an invariant does not hold");
        }
        self.found.violations.fetch_add(violations.len() as u64, Ordering::Relaxed);
        self.found.checked.store(revision.0, Ordering::Relaxed);
    }
}
