//! What comes next of a contention, by what is measured: the one rule for the leader, who proposes, and for apply.

use std::collections::BTreeSet;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, Revision};

use super::{Contended, Contention, PoolDemand, Resolution, Resolve, Rung};
use crate::limits::{
    CONTENTION_HOLD_MS, CONTENTION_OBSERVE_MS, CONTENTION_OPEN_AFTER_MS, MAX_OPEN_CONTENTIONS,
};
use crate::{Ledger, ScalingTarget};

impl Ledger {
    /// What the leader has to propose now: pools and resources whose contention opens, moves, ends, is to be resolved or was not looked at for a
    /// while. O(nodes + what waits), bounded.
    pub fn contentions_due(&self, now: LedgerTime) -> Vec<(String, String)> {
        if self.meta().version < super::SINCE_VERSION {
            return Vec::new();
        }
        let measured = self.contended_pools(now);
        let nothing = PoolDemand::default();
        let pools: BTreeSet<&str> = measured.keys().copied().chain(self.contended_now()).collect();
        let mut due = Vec::new();
        for pool in pools {
            let demand = measured.get(pool).unwrap_or(&nothing);
            let open = self.contentions_of(pool).map(|one| one.resource.as_str());
            let resources: BTreeSet<&str> = demand.resources.keys().map(String::as_str).chain(open).collect();
            let moves = |resource: &&str| self.next_contention(pool, resource, demand, now).is_some();
            due.extend(resources.into_iter().filter(moves).map(|name| (pool.to_owned(), name.to_owned())));
        }
        due
    }

    /// True while somebody waits or something is contended, so that the leader has to look again.
    pub fn watches_contention(&self) -> bool {
        self.meta().version >= super::SINCE_VERSION
            && (self.contentions.open_len() > 0 || !self.pending.is_empty())
    }

    /// The contention as it is next, with the rule; `None` where nothing changes. One that opens has no number yet.
    pub(crate) fn next_contention(
        &self,
        pool: &str,
        resource: &str,
        demand: &PoolDemand,
        now: LedgerTime,
    ) -> Option<(&'static str, Contention)> {
        let seen = demand.resources.get(resource);
        let Some(old) = self.open_contention(pool, resource) else {
            let opens = seen.filter(|seen| seen.longest_wait_ms >= CONTENTION_OPEN_AFTER_MS)?;
            if self.contentions.open_len() >= MAX_OPEN_CONTENTIONS || self.pool(pool).is_none() {
                return None;
            }
            let mut new = opened(pool, resource, opens, now);
            new.measured(now, seen, demand.elsewhere);
            self.begin_resolving(&mut new, now);
            return Some(("contention/opened", new));
        };
        let mut new = Contention::clone(old);
        new.measured(now, seen, demand.elsewhere);
        let rule = moved(&mut new, seen, now);
        let resolving = new.is_open() && self.begin_resolving(&mut new, now);
        let stale = now >= old.observed_at.plus_ms(CONTENTION_OBSERVE_MS);
        let rule = rule.or_else(|| resolving.then_some("contention/resolving"));
        rule.or_else(|| stale.then_some("contention/observed")).map(|rule| (rule, new))
    }

    /// Begins what the pool's policy says is to be done by now. True where something was begun.
    fn begin_resolving(&self, contention: &mut Contention, now: LedgerTime) -> bool {
        let policy = self.pool(&contention.pool).and_then(|pool| pool.contention.as_ref());
        let Some(policy) = policy else { return false };
        if contention.severity < policy.from || now < contention.opened_at.plus_ms(policy.after_ms) {
            return false;
        }
        let mut begun = false;
        for kind in policy.resolve.iter().copied() {
            if contention.resolving.contains(&kind) {
                continue;
            }
            let Some(subject) = self.resolved_by(&contention.pool, kind) else { continue };
            contention.resolving.insert(kind);
            // The revision is that of the entry, which apply knows.
            contention.note(Resolution { at: now, kind, subject, revision: Revision(0) });
            begun = true;
        }
        begun
    }

    /// What a resolution acts on; `None` where there is nothing of the kind.
    fn resolved_by(&self, pool: &str, kind: Resolve) -> Option<String> {
        let target = ScalingTarget::Pool(pool.to_owned());
        match kind {
            Resolve::Wait | Resolve::Priority | Resolve::Preempt | Resolve::Redistribute => {
                Some(target.path())
            }
            Resolve::Scale => {
                self.scaling_policy_of(&target).map(|policy| format!("scaling-policy/{}", policy.name))
            }
        }
    }
}

fn opened(pool: &str, resource: &str, seen: &Contended, now: LedgerTime) -> Contention {
    let severity = seen.severity(Rung::Reach);
    Contention {
        pool: pool.to_owned(),
        resource: resource.to_owned(),
        severity,
        peak: severity,
        opened_at: now,
        since: now,
        ..Contention::default()
    }
}

/// Moves the severity: up at once, down or to the end only after the present one has lasted, and by the lower thresholds.
fn moved(contention: &mut Contention, seen: Option<&Contended>, now: LedgerTime) -> Option<&'static str> {
    let reached = seen.map(|seen| seen.severity(Rung::Reach));
    if let Some(reached) = reached.filter(|reached| *reached > contention.severity) {
        contention.severity = reached;
        contention.peak = contention.peak.max(reached);
        contention.since = now;
        return Some("contention/raised");
    }
    let flaps = mutant!("contention-flaps");
    if now < contention.since.plus_ms(CONTENTION_HOLD_MS) && !flaps {
        return None;
    }
    let Some(seen) = seen else {
        contention.ended_at = now;
        contention.resolving.clear();
        return Some("contention/ended");
    };
    let kept = seen.severity(Rung::Keep);
    if kept < contention.severity {
        contention.severity = kept;
        contention.since = now;
        return Some("contention/lowered");
    }
    None
}
