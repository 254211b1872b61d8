//! `ObserveContention`: opens, moves and ends contentions, and begins what is done about them. What was done is noted here as well.

use std::sync::Arc;

use plimsoll_mutants::mutant;

use crate::contention::{REDISTRIBUTE_SINCE_VERSION, SINCE_VERSION};
use crate::ledger::Context;
use crate::limits::{CONTENTION_RETENTION_MS, MAX_ENDED_CONTENTIONS};
use crate::{
    Blocker, Contention, EventObject, Ledger, Outcome, PolicyObject, Reason, Refusal, Resolution, Resolve,
};

impl Ledger {
    /// Measures a resource of a pool anew and takes its contention a step further. `WrongState` where nothing changes.
    pub(crate) fn apply_observe_contention(
        &mut self,
        context: &mut Context<'_>,
        pool: &str,
        resource: &str,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "contention")?;
        if self.pool(pool).is_none() {
            return Err(Refusal::one(Reason::PoolNotFound, pool, 1, 0));
        }
        let demand = self.contended(pool, context.now);
        let next = self.next_contention(pool, resource, &demand, context.now);
        let Some((rule, mut new)) = next else {
            let subject = format!("contention of {resource} in pool {pool} is as it was");
            return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
        };
        if new.id.0 == 0 {
            new.id = context.revision;
        }
        self.store_contention(context, rule, new);
        self.forget_surplus_contentions();
        Ok(Outcome::Done)
    }

    /// Notes with every contention of a pool that is being resolved so what was done about it.
    pub(crate) fn note_resolved(
        &mut self,
        context: &mut Context<'_>,
        pool: &str,
        kind: Resolve,
        subject: &str,
    ) {
        let says = self.pool(pool).is_some_and(|pool| self.resolves_by(pool, kind));
        if !says || mutant!("resolution-unnoted") {
            return;
        }
        let all: Vec<Arc<Contention>> =
            self.contentions_of(pool).filter(|one| one.resolving.contains(&kind)).cloned().collect();
        for one in all {
            let mut new = Contention::clone(&one);
            new.note(Resolution {
                at: context.now,
                kind,
                subject: subject.to_owned(),
                revision: context.revision,
            });
            self.store_contention(context, "contention/resolved", new);
        }
    }

    /// The pool goes, and with it what is short of it.
    pub(crate) fn end_contentions_of(&mut self, context: &mut Context<'_>, pool: &str) {
        let all: Vec<Arc<Contention>> = self.contentions_of(pool).cloned().collect();
        for one in all {
            let mut new = Contention { ended_at: context.now, ..Contention::clone(&one) };
            new.resolving.clear();
            self.store_contention(context, "contention/ended", new);
        }
        self.forget_surplus_contentions();
    }

    fn store_contention(&mut self, context: &mut Context<'_>, rule: &'static str, mut new: Contention) {
        new.changed = context.revision;
        for resolution in &mut new.resolutions {
            if resolution.revision.0 == 0 {
                resolution.revision = context.revision;
            }
        }
        self.guard_contention(&new, context.now);
        let new = Arc::new(new);
        self.put_contention(Arc::clone(&new));
        context.event(rule, EventObject::Contention(new));
    }

    /// Forgets, oldest first, what ended long ago; `limit` at most.
    pub(crate) fn forget_contentions(&mut self, context: &Context<'_>, limit: u32) {
        for _ in 0..limit {
            match self.contentions.first_ended() {
                Some((at, id)) if at.plus_ms(CONTENTION_RETENTION_MS) <= context.now => {
                    self.remove_contention(id);
                }
                _ => break,
            }
        }
    }

    fn forget_surplus_contentions(&mut self) {
        while self.contentions.ended_len() > MAX_ENDED_CONTENTIONS {
            let Some((_, id)) = self.contentions.first_ended() else { return };
            self.remove_contention(id);
        }
    }

    /// What a pool does about contention is put from version 8 on, redistribution from version 10 on.
    pub(crate) fn check_contention_policy(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(crate::contention::is_of_contention) {
            self.knows(SINCE_VERSION, "contention", blockers);
        }
        if put.iter().any(crate::contention::redistributes) {
            self.knows(REDISTRIBUTE_SINCE_VERSION, "resolve: redistribute", blockers);
        }
    }
}
