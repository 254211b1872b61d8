//! Contention: while somebody waits, or something is contended, the leader looks every few seconds and has the ledger measure what changed.

use std::time::Duration;

use plimsoll_ledger::{Command, Entry, Ledger};
use plimsoll_scheduler::Relocation;
use plimsoll_types::LedgerTime;

use super::round::Draft;
use super::{Lead, Origin};

/// How often the leader looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Most contentions that one look moves.
const MOST_AT_ONCE: usize = 256;

/// What is to be measured now; nothing before the next look is due, or while the latest one is on its way.
pub(super) fn due(lead: &mut Lead, ledger: &Ledger, now: LedgerTime) -> Vec<(Entry, Origin)> {
    let present = tokio::time::Instant::now();
    if lead.observing > 0 || present < lead.look_at || !ledger.watches_contention() {
        return Vec::new();
    }
    lead.look_at = present + LOOK_EVERY;
    let due = ledger.contentions_due(now.max(ledger.clock()));
    let observe =
        |(pool, resource)| (Entry::system(Command::ObserveContention { pool, resource }), Origin::Contention);
    let drafted: Vec<_> = due.into_iter().take(MOST_AT_ONCE).map(observe).collect();
    lead.observing = drafted.len();
    drafted
}

/// Notice to those who go elsewhere so that others fit, where a contention is resolved by redistribution: once a walk over the queue and the search
/// for victims have found nothing more to do.
pub(super) fn draft_relocations(lead: &mut Lead, ledger: &Ledger, most: usize, draft: &mut Draft) {
    let present = tokio::time::Instant::now();
    let is_settled = lead.is_served() && !lead.planner.wants_evictions(ledger);
    if lead.relocating > 0 || present < lead.relocate_at || !is_settled {
        return;
    }
    lead.relocate_at = present + LOOK_EVERY;
    for Relocation { reservation, placement, helps } in lead.planner.plan_relocations(ledger, most) {
        tracing::debug!(%reservation, %helps, "asked to go elsewhere");
        lead.relocating += 1;
        draft.push(
            Entry::system(Command::Relocate { reservation, placement }),
            Origin::Relocation(reservation),
        );
    }
}

/// When the next look is due; `None` while nobody waits and nothing is contended.
pub(super) fn next_look(lead: &Lead, ledger: &Ledger) -> Option<tokio::time::Instant> {
    (lead.observing == 0 && ledger.watches_contention()).then_some(lead.look_at)
}
