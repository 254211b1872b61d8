//! I28, recomputed from scratch.

use std::collections::BTreeSet;

use plimsoll_types::LedgerTime;

use super::Contention;
use crate::limits::{
    CONTENTION_HOLD_MS, MAX_CONTENTION_CLASSES, MAX_ENDED_CONTENTIONS, MAX_OPEN_CONTENTIONS, MAX_RESOLUTIONS,
};
use crate::{Ledger, Violation};

impl Ledger {
    /// I28: one open contention of a pool and a resource, of a pool that is there; times and severities in order; all within bounds.
    pub(crate) fn check_contentions(&self, found: &mut Vec<Violation>) {
        let mut open = BTreeSet::new();
        for one in self.contentions() {
            if let Some(detail) = fault(one).or_else(|| self.misplaced(one)) {
                found
                    .push(Violation { invariant: "I28", detail: format!("contention {}: {detail}", one.id) });
            }
            if one.is_open() && !open.insert((&one.pool, &one.resource)) {
                let detail = format!("two open contentions of {} in pool {}", one.resource, one.pool);
                found.push(Violation { invariant: "I28", detail });
            }
        }
        let (lasting, over) = (self.contentions.open_len(), self.contentions.ended_len());
        if lasting > MAX_OPEN_CONTENTIONS || over > MAX_ENDED_CONTENTIONS {
            let detail = format!("{lasting} contentions are open and {over} kept");
            found.push(Violation { invariant: "I28", detail });
        }
    }

    fn misplaced(&self, one: &Contention) -> Option<String> {
        let gone = one.is_open() && self.pool(&one.pool).is_none();
        gone.then(|| format!("of pool {}, which is gone", one.pool))
    }
}

impl Ledger {
    /// I28 with each change: what is over stays over, and no severity falls before it has lasted.
    pub(crate) fn guard_contention(&mut self, new: &Contention, now: LedgerTime) {
        let old = self.contention(new.id);
        let revived = old.is_some_and(|old| !old.is_open());
        let fell = old.is_some_and(|old| {
            let falls = new.severity < old.severity || !new.is_open();
            let pool_stays = self.pool(&new.pool).is_some();
            falls && pool_stays && now < old.since.plus_ms(CONTENTION_HOLD_MS)
        });
        let found = [
            revived.then(|| "over, and changed".to_owned()),
            fell.then(|| format!("{} fell before it lasted", new.severity.name())),
            fault(new),
        ];
        for detail in found.into_iter().flatten() {
            self.note("I28", format!("contention {} of {} in {}: {detail}", new.id, new.resource, new.pool));
        }
    }
}

/// Why a contention cannot be as it is.
fn fault(one: &Contention) -> Option<String> {
    let over = !one.is_open() && one.ended_at < one.since;
    if one.since < one.opened_at || over {
        return Some(format!("opened {}, since {}, ended {}", one.opened_at, one.since, one.ended_at));
    }
    if one.peak < one.severity {
        return Some(format!("{} and at most {}", one.severity.name(), one.peak.name()));
    }
    if !one.is_open() && !one.resolving.is_empty() {
        return Some("over, and still being resolved".to_owned());
    }
    let (notes, classes) = (one.resolutions.len(), one.classes.len());
    (notes > MAX_RESOLUTIONS || classes > MAX_CONTENTION_CLASSES)
        .then(|| format!("{notes} resolutions and {classes} classes"))
}
